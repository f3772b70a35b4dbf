package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"rskv/bench/internal/draw"
	"rskv/bench/internal/measure"
	"rskv/engine"
)

// fasterMix is one of the workloads of C++ FASTER's own YCSB benchmark.
type fasterMix struct {
	name  string
	reads float64 // share; the rest are blind puts, or all are additions
	add   bool
}

var fasterMixes = []fasterMix{{"A, 50 % reads", 0.5, false}, {"B, 95 % reads", 0.95, false}, {"C, reads", 1, false}, {"RMW", 0, true}}

// faster is the setting of C++ FASTER's benchmark, so that its figures can be laid
// beside: keys and values of 8 bytes, everything in memory, no commits.
func (r *runner) faster(ctx context.Context) (err error) {
	sizes := []struct {
		keys   uint64
		memory int64
	}{{10_000_000, 1 << 30}, {50_000_000, 4 << 30}}
	if r.small {
		sizes[0].keys, sizes[0].memory = 20_000, 64<<20
		sizes[1].keys, sizes[1].memory = 50_000, 64<<20
	}
	for _, size := range sizes {
		if err := r.fasterSize(ctx, size.keys, size.memory); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) fasterSize(ctx context.Context, keys uint64, memory int64) (err error) {
	q := &quick{scale: scale{memoryKeys: keys, memoryBudget: memory}, dir: r.dir, line: r.line}
	q.say("loading %s keys of 8 B with values of 8 B", count(keys))
	s, err := q.openSmall(fmt.Sprintf("faster-%d", keys), -1)
	if err != nil {
		return err
	}
	defer s.close(&err)
	sources := map[string]func(thread int) draw.Source{
		"uniform": func(int) draw.Source { return draw.NewUniform(keys, rand.Uint64()) },
	}
	zipf := draw.NewZipf(keys, zipfTheta, 1)
	replays := [2]*draw.Replay{}
	for i := range replays {
		replays[i] = draw.NewReplay(zipf.Reseeded(uint64(i)+1), zipfDraws)
	}
	sources["zipf 0.99"] = func(thread int) draw.Source { return replays[thread] }
	var contenders []measure.Contender
	for _, distribution := range []string{"uniform", "zipf 0.99"} {
		for _, mix := range fasterMixes {
			for _, threads := range []int{1, 2} {
				row := &measure.Row{
					Group: fmt.Sprintf("C++ FASTER's setting, %s keys", count(keys)), Commit: "off", Unit: "M/s", Scale: 1e6, Threads: threads,
					Name:    fmt.Sprintf("%s, %s, %s", mix.name, distribution, plural(threads, "thread")),
					Setting: fmt.Sprintf("%s keys x (8+8 B), preloaded, batches of 32, memory %s; every value read checked; FASTER's own benchmark is not run here", count(keys), mib(memory)),
				}
				contenders = append(contenders, measure.Contender{Row: row, Run: func(_ context.Context, d time.Duration) (measure.Sample, error) {
					return s.runMix(mix, threads, sources[distribution], d)
				}})
			}
		}
	}
	r.line.Steps(len(contenders) * r.report.Rounds)
	if err := r.interleave(ctx, r.round, contenders); err != nil {
		return err
	}
	for _, c := range contenders {
		c.Row.Finish(nil)
	}
	r.report.Rows = append(r.report.Rows, s.memoryRow(contenders[0].Row))
	contenders[0].Row.Note("loaded by 2 threads in batches of 32 at %.3g M/s", s.loaded)
	return nil
}

// runMix lets threads do a mix for d.
func (s *small) runMix(mix fasterMix, threads int, source func(int) draw.Source, d time.Duration) (measure.Sample, error) {
	return s.runMixDuring(mix, threads, source, func() error {
		time.Sleep(d)
		return nil
	})
}

// addend is what RMW adds: a number above the bits that say which key a value
// belongs to, so that it can still be checked.
const addend = 1 << keyBits

// mixed does batches in which reads and writes are mixed.
func (w *smallWorker) mixed(mix fasterMix, stop *atomic.Bool) {
	rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
	border := uint64(mix.reads * (1 << 32))
	for w.err == nil && (w.ops == 0 || !stop.Load()) {
		for done := 0; done < burst && w.err == nil; done += len(w.numbers) {
			w.source.Fill(w.numbers)
			for i, k := range w.numbers {
				w.prepare(i, k, mix.add, uint64(rng.Uint32()) < border)
			}
			w.session.Do(w.requests)
			for i := range w.requests {
				w.judge(i)
			}
			w.ops += uint64(len(w.requests))
		}
	}
}

// prepare makes request i an operation on key k.
func (w *smallWorker) prepare(i int, k uint64, add, read bool) {
	op := &w.requests[i]
	op.Value = w.values[i*smallSize:][:smallSize:smallSize]
	binary.LittleEndian.PutUint64(w.keys[i*smallSize:], k)
	switch {
	case add:
		op.Kind, op.Delta = engine.OpAdd, addend
	case read:
		op.Kind = engine.OpGet
	default:
		op.Kind = engine.OpPut
		binary.LittleEndian.PutUint64(op.Value, k)
	}
}

// judge looks at the answer to request i.
func (w *smallWorker) judge(i int) {
	op, k := &w.requests[i], w.numbers[i]
	switch {
	case op.Kind == engine.OpGet:
		w.reads++
		w.check(op, k)
	case op.Err != nil:
		w.err = op.Err
	case op.Kind == engine.OpAdd && uint64(op.Int)&keyMask != k:
		w.err = fmt.Errorf("%w: key %d has %x after an addition", measure.ErrWrong, k, op.Int)
	}
}
