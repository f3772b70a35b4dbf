package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"rskv/bench/internal/measure"
	"rskv/engine"
)

const (
	orderedGroup = "the ordered index"
	// rangeKeys is how many keys a scan in order returns.
	rangeKeys = 1000
)

// ordered is what the ordered index gives, and what it costs: scans of a range;
// writes, memory, the garbage collector's work and Open, beside a store without it.
func (r *runner) ordered(ctx context.Context) error {
	return inTurn(ctx, r.orderedNew, r.orderedStores)
}

func (r *runner) orderedRow(name, unit string, scale float64, setting string) *measure.Row {
	return &measure.Row{Group: orderedGroup, Name: name, Unit: unit, Scale: scale, Commit: "1 s", Setting: setting}
}

// orderedNew is a store that is filled, with the index and without.
func (r *runner) orderedNew(ctx context.Context) error {
	keys := r.keys / 10
	setting := fmt.Sprintf("store in process, %s keys x (8+8 B) into an empty store, 2 goroutines, batches of 32", count(keys))
	contender := func(name string, with bool) measure.Contender {
		return measure.Contender{Row: r.orderedRow(name, "M/s", 1e6, setting), Run: func(ctx context.Context, _ time.Duration) (s measure.Sample, err error) {
			dir := filepath.Join(r.dir, "ordered-new")
			store, err := engine.Open(engine.Options{Dir: dir, Memory: memoryFor(keys, 2), IndexBits: smallIndex(keys), LiveRatio: -1, Ordered: with})
			if err != nil {
				return s, err
			}
			defer func() { err = errors.Join(err, store.Close(), os.RemoveAll(dir)) }()
			cpu, begin := measure.SelfCPU(), time.Now()
			err = (&small{store: store, keys: keys}).preload()
			return measure.Sample{Ops: keys, Elapsed: time.Since(begin), CPU: measure.SelfCPU() - cpu}, err
		}}
	}
	without, with := contender("put of new keys, without", false), contender("put of new keys, with", true)
	if err := r.ran(ctx, []measure.Contender{without, with}); err != nil {
		return err
	}
	without.Row.Finish(nil)
	with.Row.Finish(without.Row)
	return nil
}

// orderedStores is two loaded stores, one with the index, one without.
func (r *runner) orderedStores(ctx context.Context) (err error) {
	names := [2]string{"without", "with"}
	memory := memoryFor(r.keys, 2)
	setting := fmt.Sprintf("store in process, memory %s, %s keys x (8+8 B), preloaded", mib(memory), count(r.keys))
	var collect, opens [2]*measure.Row
	var puts [2]measure.Contender
	for i, name := range names {
		collect[i] = r.orderedRow("full collection of the Go heap, "+name, "ms", 1, setting+"; the wall time of runtime.GC")
		opens[i] = r.orderedRow("Open after a checkpoint, "+name, "s", 1, setting+"; the keys are read from the log for the ordered index")
	}
	var stores [2]*small
	for i, name := range names {
		if stores[i], err = r.smallStore("ordered-"+name, engine.Options{Memory: memory, Ordered: i == 1}, r.keys); err != nil {
			return err
		}
		defer r.discard(&err, stores[i], "ordered-"+name)
		runtime.GC() // what the loading has left behind
		for range r.report.Rounds {
			begin := time.Now()
			runtime.GC()
			collect[i].Rates = append(collect[i].Rates, float64(time.Since(begin))/1e6)
		}
		l := smallLoad{threads: writers, batch: 32, write: true, source: uniformOver(r.keys)}
		row := r.orderedRow("put of keys that are there, "+name, "M/s", 1e6, setting+fmt.Sprintf(", %d goroutines, batches of 32", writers))
		puts[i] = measure.Contender{Row: row, Run: func(_ context.Context, d time.Duration) (measure.Sample, error) { return stores[i].run(l, d) }}
	}
	scan := r.orderedRow(fmt.Sprintf("scan of %d keys and values in order", rangeKeys), "M/s", 1e6,
		setting+"; from a key drawn at random on; keys returned a second, every value checked")
	rows := append(puts[:], measure.Contender{Row: scan, Run: func(ctx context.Context, d time.Duration) (measure.Sample, error) {
		return stores[1].ranges(ctx, d)
	}})
	if err := r.ran(ctx, rows); err != nil {
		return err
	}
	puts[0].Row.Finish(nil)
	puts[1].Row.Finish(puts[0].Row)
	scan.Finish(nil)
	st := stores[1].store.Stats()
	r.figure(collect[1], "memory of the ordered index a key", "B", float64(st.OrderedUsed)/float64(st.OrderedKeys)).
		Note("%s of the budget in all", mib(st.MemoryOrdered))
	for i := range names {
		if err := r.reopened(ctx, stores[i], "ordered-"+names[i], engine.Options{Memory: memory, Ordered: i == 1}, opens[i]); err != nil {
			return err
		}
		r.report.Rows = append(r.report.Rows, collect[i], opens[i])
	}
	collect[0].Finish(nil)
	collect[1].Finish(nil)
	opens[0].Finish(nil)
	opens[1].Finish(nil)
	return nil
}

// reopened closes a store with a checkpoint and opens it again, as often as there are
// rounds. The row has the seconds of each Open.
func (r *runner) reopened(ctx context.Context, s *small, name string, opt engine.Options, row *measure.Row) error {
	if _, err := s.store.Checkpoint(ctx, engine.CheckpointOptions{Kind: engine.FullCheckpoint}); err != nil {
		return err
	}
	opt.Dir, opt.CheckpointDistance, opt.LiveRatio, opt.IndexBits, opt.ColdStart = filepath.Join(r.dir, name), -1, -1, smallIndex(s.keys), true
	for range r.report.Rounds {
		if err := s.store.Close(); err != nil {
			return err
		}
		begin := time.Now()
		store, err := engine.Open(opt)
		if err != nil {
			return err
		}
		row.Rates = append(row.Rates, time.Since(begin).Seconds())
		s.store = store
	}
	return nil
}

// ranges scans ranges for d.
func (s *small) ranges(ctx context.Context, d time.Duration) (sum measure.Sample, err error) {
	rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
	cpu, begin := measure.SelfCPU(), time.Now()
	from := make([]byte, smallSize)
	for time.Since(begin) < d {
		binary.LittleEndian.PutUint64(from, rng.Uint64N(s.keys))
		page, err := s.store.Scan(ctx, engine.ScanOptions{From: from, Count: rangeKeys})
		if err != nil {
			return sum, err
		}
		for i, e := range page.Entries {
			if i == 0 && string(e.Key) != string(from) || i > 0 && string(page.Entries[i-1].Key) >= string(e.Key) ||
				binary.LittleEndian.Uint64(e.Value)&keyMask != binary.LittleEndian.Uint64(e.Key) {
				return sum, fmt.Errorf("%w: key %x has %x", measure.ErrWrong, e.Key, e.Value)
			}
		}
		sum.Ops += uint64(len(page.Entries))
	}
	sum.Elapsed, sum.CPU = time.Since(begin), measure.SelfCPU()-cpu
	return sum, nil
}
