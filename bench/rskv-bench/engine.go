package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"rskv/bench/internal/draw"
	"rskv/bench/internal/measure"
	"rskv/engine"
)

const (
	smallSize = 8 // bytes of key and of value
	// keysPerBucket is the nominal fill of the index: of 4 a prototype lost 4 to
	// 14 % against 2 and took 59 instead of 86 bytes a key.
	keysPerBucket = 4
	zipfTheta     = 0.99
	// zipfDraws is how many draws a thread replays: the generator itself is slower
	// than a batched read.
	zipfDraws = 1 << 22
	// A value holds its key in the low bits, and above them which pass wrote it.
	keyBits = 40
	keyMask = 1<<keyBits - 1
	// burst is how many operations pass between two looks at the clock's flag.
	burst = 1024
)

// engine measures the engine in process with everything in memory.
func (q *quick) engine(ctx context.Context) (err error) {
	q.say("engine: preloading %s keys twice", count(q.memoryKeys))
	quiet, err := q.openSmall("engine-quiet", -1)
	if err != nil {
		return err
	}
	defer quiet.close(&err)
	every, err := q.openSmall("engine-every-second", time.Second)
	if err != nil {
		return err
	}
	defer every.close(&err)

	zipf := draw.NewZipf(q.memoryKeys, zipfTheta, 1)
	uniform := func(thread int) draw.Source { return draw.NewUniform(q.memoryKeys, uint64(thread)+1) }
	replay := [2]*draw.Replay{}
	for i := range replay {
		replay[i] = draw.NewReplay(zipf.Reseeded(uint64(i)+1), zipfDraws)
	}
	skewed := func(thread int) draw.Source { return replay[thread] }

	none, all := "off", "1 s"
	rows := []smallRow{
		{"get, 2 threads, batch of 32", quiet, smallLoad{threads: 2, batch: 32, source: uniform}, none, 18},
		{"get, 2 threads, batch of 64", quiet, smallLoad{threads: 2, batch: 64, source: uniform}, none, 0},
		{"get, 1 thread, batch of 32", quiet, smallLoad{threads: 1, batch: 32, source: uniform}, none, 0},
		{"get, 2 threads, single", quiet, smallLoad{threads: 2, batch: 1, source: uniform}, none, 0},
		{"get, 1 thread, single", quiet, smallLoad{threads: 1, batch: 1, source: uniform}, none, 0},
		{"get, 2 threads, batch of 32, zipf 0.99", quiet, smallLoad{threads: 2, batch: 32, source: skewed}, none, 0},
		{"put in place, 2 threads, batch of 32", quiet, smallLoad{threads: 2, batch: 32, write: true, source: uniform}, none, 0},
		{"put in place, 1 thread, batch of 32", quiet, smallLoad{threads: 1, batch: 32, write: true, source: uniform}, none, 0},
		{"put in place, 2 threads, batch of 32, zipf 0.99", quiet, smallLoad{threads: 2, batch: 32, write: true, source: skewed}, none, 0},
		{"put, 2 threads, batch of 32, commits", every, smallLoad{threads: 2, batch: 32, write: true, source: uniform}, all, 0},
	}
	contenders := make([]measure.Contender, len(rows))
	for i, r := range rows {
		contenders[i] = measure.Contender{Row: r.row(q), Run: func(ctx context.Context, d time.Duration) (measure.Sample, error) {
			sample, err := r.store.run(r.load, d)
			if err == nil && r.store == every {
				err = settle(ctx, every.store)
			}
			return sample, err
		}}
	}
	before := every.store.Stats()
	if err := q.interleave(ctx, contenders); err != nil {
		return err
	}
	for i := range contenders {
		contenders[i].Row.Finish(nil)
	}
	first, last := contenders[0].Row, contenders[len(contenders)-1].Row
	q.report.Rows = append(q.report.Rows, quiet.memoryRow(first))
	first.Note("loaded by 2 threads in batches of 32 at %.3g M/s", quiet.loaded)
	after := every.store.Stats()
	if n := after.Writes - before.Writes; n > 0 {
		last.Note("%.0f%% of the puts appended a new record, %d commits, %s on disk",
			float64(after.Appended-before.Appended)/float64(n)*100, after.Commits-before.Commits,
			mib(after.LogTail-after.LogBegin))
	}
	return err
}

// smallRow is one line of the group.
type smallRow struct {
	name   string
	store  *small
	load   smallLoad
	commit string
	target float64 // M/s; 0: none
}

func (r *smallRow) row(q *quick) *measure.Row {
	row := &measure.Row{
		Group: "engine in process, everything in memory", Name: r.name, Commit: r.commit, Unit: "M/s", Scale: 1e6, Threads: r.load.threads,
		Setting: fmt.Sprintf("%s keys x (8+8 B), preloaded, uniform unless said; budget %s; every value checked",
			count(q.memoryKeys), mib(q.memoryBudget)),
	}
	if r.target > 0 {
		row.Target = &r.target
	}
	return row
}

// small is a store of keys and values of eight bytes, all in memory.
type small struct {
	store  *engine.Store
	keys   uint64
	pass   atomic.Uint64 // what values hold above their key
	loaded float64       // M/s
}

// openSmall makes a store and loads it.
func (q *quick) openSmall(name string, commit time.Duration) (*small, error) {
	store, err := engine.Open(engine.Options{
		Dir: filepath.Join(q.dir, name), Memory: q.memoryBudget, CommitInterval: commit,
		IndexBits: bits.Len64(q.memoryKeys/keysPerBucket - 1),
	})
	if err != nil {
		return nil, err
	}
	s := &small{store: store, keys: q.memoryKeys}
	begin := time.Now()
	if err := s.preload(); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	s.loaded = float64(s.keys) / time.Since(begin).Seconds() / 1e6
	return s, nil
}

func (s *small) close(err *error) { *err = errors.Join(*err, s.store.Close()) }

// preload stores every key once, from two threads.
func (s *small) preload() error {
	const threads = 2
	var wg sync.WaitGroup
	errs := make([]error, threads)
	for t := range threads {
		wg.Go(func() {
			w := newSmallWorker(s, smallLoad{batch: 32, write: true}, nil)
			defer w.session.Close()
			for k := uint64(t); k < s.keys && errs[t] == nil; {
				n := 0
				for ; n < len(w.numbers) && k < s.keys; n++ {
					w.numbers[n] = k
					k += threads
				}
				w.put(n)
				errs[t] = w.err
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// memoryRow is what a key costs in memory, as a row beside another.
func (s *small) memoryRow(like *measure.Row) *measure.Row {
	st := s.store.Stats()
	keys := float64(s.keys)
	index := float64((st.IndexBuckets + st.IndexOverflow) * 64)
	log := float64(st.LogTail - st.LogBegin)
	row := &measure.Row{Group: like.Group, Name: "memory a key", Setting: like.Setting, Commit: like.Commit, Unit: "B", Scale: 1, Rates: []float64{(index + log) / keys}}
	row.Finish(nil)
	row.Note("index %.1f B (%.1f of it overflow in use), log %.1f B", index/keys, float64(st.IndexOverflow*64)/keys, log/keys)
	return row
}

// smallLoad is what a row does.
type smallLoad struct {
	threads, batch int
	write          bool
	source         func(thread int) draw.Source
}

// run lets the threads work for d.
func (s *small) run(l smallLoad, d time.Duration) (measure.Sample, error) {
	s.pass.Add(1)
	workers := make([]*smallWorker, l.threads)
	for t := range workers {
		workers[t] = newSmallWorker(s, l, l.source(t))
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	cpu, begin := measure.SelfCPU(), time.Now()
	timer := time.AfterFunc(d, func() { stop.Store(true) })
	defer timer.Stop()
	for _, w := range workers {
		wg.Go(func() { w.loop(&stop) })
	}
	wg.Wait()
	sum := measure.Sample{Elapsed: time.Since(begin), CPU: measure.SelfCPU() - cpu}
	var errs []error
	for _, w := range workers {
		sum.Ops += w.ops
		if !l.write {
			sum.Reads += w.ops
			sum.Hits += w.hits
		}
		errs = append(errs, w.err)
		w.session.Close()
	}
	return sum, errors.Join(errs...)
}

// smallWorker is one thread with its session. What it writes lies apart from what the
// others write.
type smallWorker struct {
	session  *engine.Session
	source   draw.Source
	write    bool
	pass     uint64
	numbers  []uint64 // keys of the batch
	keys     []byte
	values   []byte
	requests []engine.Op

	ops, hits uint64
	reads     uint64 // where reads and writes are mixed
	err       error
}

func newSmallWorker(s *small, l smallLoad, source draw.Source) *smallWorker {
	w := &measure.Apart[smallWorker](1)[0]
	*w = smallWorker{
		session: s.store.NewSession(), source: source, write: l.write, pass: s.pass.Load() << keyBits,
		numbers: measure.Apart[uint64](l.batch), requests: measure.Apart[engine.Op](l.batch),
		keys: measure.Apart[byte](l.batch * smallSize), values: measure.Apart[byte](l.batch * smallSize),
	}
	for i := range w.requests {
		op := &w.requests[i]
		op.Key = w.keys[i*smallSize:][:smallSize]
		op.Value = w.values[i*smallSize:][:smallSize:smallSize]
		op.Kind = engine.OpGet
		if l.write {
			op.Kind = engine.OpPut
		}
	}
	return w
}

// loop works until it is told to stop, once at least: a machine that was busy for all of
// a short run gives a low rate, and not none.
func (w *smallWorker) loop(stop *atomic.Bool) {
	if len(w.numbers) == 1 && !w.write {
		w.singles(stop)
		return
	}
	for w.err == nil && (w.ops == 0 || !stop.Load()) {
		for done := 0; done < burst && w.err == nil; done += len(w.numbers) {
			w.source.Fill(w.numbers)
			if w.write {
				w.put(len(w.numbers))
			} else {
				w.get()
			}
		}
	}
}

// singles reads one key at a time. Keys are drawn many at a time: between two gets
// there is to be as little as in a program that has its keys.
func (w *smallWorker) singles(stop *atomic.Bool) {
	var drawn [burst / 16]uint64
	for w.err == nil && (w.ops == 0 || !stop.Load()) {
		w.source.Fill(drawn[:])
		for _, k := range drawn {
			w.one(k)
		}
	}
}

// get reads the batch's keys.
func (w *smallWorker) get() {
	for i, k := range w.numbers {
		binary.LittleEndian.PutUint64(w.keys[i*smallSize:], k)
	}
	w.session.Do(w.requests)
	for i := range w.requests {
		w.check(&w.requests[i], w.numbers[i])
	}
	w.ops += uint64(len(w.requests))
}

// check counts an answer and looks whether it is the right one.
func (w *smallWorker) check(op *engine.Op, k uint64) {
	switch {
	case op.Err != nil:
		w.err = op.Err
	case !op.Found:
	case len(op.Value) != smallSize || binary.LittleEndian.Uint64(op.Value)&keyMask != k:
		w.err = fmt.Errorf("%w: key %d has %x", measure.ErrWrong, k, op.Value)
	default:
		w.hits++
	}
}

// one reads a single key the way most callers do.
func (w *smallWorker) one(k uint64) {
	binary.LittleEndian.PutUint64(w.keys, k)
	v, err := w.session.Get(w.keys, w.values[:0])
	switch {
	case errors.Is(err, engine.ErrNotFound):
	case err != nil:
		w.err = err
	case len(v) != smallSize || binary.LittleEndian.Uint64(v)&keyMask != k:
		w.err = fmt.Errorf("%w: key %d has %x", measure.ErrWrong, k, v)
	default:
		w.hits++
	}
	w.ops++
}

// put stores the first n of the batch's keys.
func (w *smallWorker) put(n int) {
	for i, k := range w.numbers[:n] {
		binary.LittleEndian.PutUint64(w.keys[i*smallSize:], k)
		binary.LittleEndian.PutUint64(w.values[i*smallSize:], w.pass|k)
	}
	w.session.Do(w.requests[:n])
	for i := range w.requests[:n] {
		if err := w.requests[i].Err; err != nil {
			w.err = err
		}
	}
	w.ops += uint64(n)
}
