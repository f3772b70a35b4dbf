package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rskv/bench/internal/draw"
	"rskv/bench/internal/measure"
	"rskv/engine"
	"rskv/ioring"
)

const (
	// cacheGain is how many times as fast reads have to be with the read cache.
	cacheGain = 3.0
	// cacheValue is the size of the values in bytes.
	cacheValue = 1000
	// cacheWarm is how long a store is read from before it is measured, in rounds.
	cacheWarm = 10
)

// cache measures reads of a store ten times as large as its memory, some keys of which
// are read much more often than others, with the read cache and without.
func (q *quick) cache(ctx context.Context) (err error) {
	q.say("cache: writing two stores of %s", mib(q.coldData))
	zipf := draw.NewZipf(uint64(q.coldData/cacheValue), 0.99, 1)
	var rows []*measure.Row
	var stores []*coldStore
	var contenders []measure.Contender
	defer func() {
		for _, s := range stores {
			err = errors.Join(err, s.store.Close())
		}
	}()
	for _, name := range []string{"get, zipf 0.99, without read cache", "get, zipf 0.99"} {
		row := &measure.Row{
			Group: "reads beyond the memory", Name: name, Commit: "off", Unit: "k/s", Scale: 1000,
			Setting: fmt.Sprintf("%s of records with keys of 8 B and values of %d B, budget %s; 2 goroutines with a session and %d in flight each; every value checked",
				mib(q.coldData), cacheValue, mib(q.coldBudget), coldInFlight/2),
		}
		s, err := q.openCold(fmt.Sprintf("cache-%d", len(rows)), ioring.Auto, cacheValue)
		if err == nil {
			s.zipf = zipf
			stores = append(stores, s)
			if len(rows) == 0 {
				err = s.store.StopTask(engine.TaskCache)
			}
		}
		if err == nil {
			_, err = s.run(ctx, cacheWarm*q.round)
		}
		rows = append(rows, row)
		contenders = append(contenders, contender(row, err, func() runFunc { return s.runAll }))
	}
	before := make([]engine.Stats, len(stores))
	for i, s := range stores {
		before[i] = s.store.Stats()
	}
	if err := q.interleave(ctx, contenders); err != nil {
		return err
	}
	rows[0].Finish(nil)
	rows[1].Finish(rows[0])
	rows[1].Target = ref(cacheGain)
	for i, s := range stores {
		st := s.store.Stats()
		hits, misses := st.CacheHits-before[i].CacheHits, st.CacheMisses-before[i].CacheMisses
		reads := max(float64(st.Reads-before[i].Reads), 1)
		rows[i].Note("%d keys; %.1f%% of the gets from the log's memory of %s, %.1f%% from the read cache of %s, %.1f%% from the device", s.keys,
			100*(1-float64(hits+misses)/reads), mib(st.MemoryLog), 100*float64(hits)/reads, mib(st.MemoryCache), 100*float64(misses)/reads)
	}
	return nil
}

// runAll is run where all reads count, from wherever they are answered.
func (s *coldStore) runAll(ctx context.Context, d time.Duration) (measure.Sample, error) {
	sample, err := s.run(ctx, d)
	sample.Ops = sample.Reads
	return sample, err
}
