package main

import (
	"context"
	"fmt"
	"time"

	"rskv/bench/internal/measure"
	"rskv/engine"
)

// resident is what it brings that records which live are copied before their page
// leaves memory: data that takes less than half of it, while commits drive the log
// through.
func (r *runner) resident(ctx context.Context) (err error) {
	memory := memoryFor(r.keys, 1)
	names := [2]string{"forwarded", "left"}
	var stores [2]*small
	for i, name := range names {
		if stores[i], err = r.smallStore(name, engine.Options{Memory: memory, CommitInterval: time.Second}, r.keys); err != nil {
			return err
		}
		defer r.discard(&err, stores[i], name)
	}
	if err := stores[1].store.StopTask(engine.TaskForward); err != nil {
		return err
	}
	row := func(name string) *measure.Row {
		return &measure.Row{
			Group: "data that fits into memory", Name: name, Commit: "1 s", Unit: "M/s", Scale: 1e6, Threads: writers,
			Setting: fmt.Sprintf("%s keys x (8+8 B), preloaded, uniform, 50 %% reads, %d goroutines, batches of 32, memory %s; every value read checked; after the log has been written as often as memory holds it",
				count(r.keys), writers, mib(memory)),
		}
	}
	rows := [2]*measure.Row{row("50 % reads, live records kept in memory"), row("50 % reads, left to the device")}
	for _, s := range stores {
		if err := r.turnOver(ctx, s); err != nil {
			return err
		}
	}
	var contenders []measure.Contender
	var cold, reads [2]uint64
	for i, s := range stores {
		contenders = append(contenders, measure.Contender{Row: rows[i], Run: func(_ context.Context, d time.Duration) (measure.Sample, error) {
			before := s.store.Stats().ColdReads
			sample, err := s.runMix(fasterMixes[0], writers, uniformOver(r.keys), d)
			cold[i], reads[i] = cold[i]+s.store.Stats().ColdReads-before, reads[i]+sample.Reads
			return sample, err
		}})
	}
	if err := r.ran(ctx, contenders); err != nil {
		return err
	}
	rows[1].Finish(nil)
	rows[0].Finish(rows[1])
	for i, row := range rows {
		st := stores[i].store.Stats()
		row.Note("%.2f %% of the reads from disk; log written %s, of it copied to stay in memory %s", 100*float64(cold[i])/float64(max(reads[i], 1)),
			mib(int64(st.LogAppended)), mib(int64(st.Forwarded)))
	}
	return nil
}
