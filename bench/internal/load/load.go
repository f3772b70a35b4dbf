// Package load drives a kv.Store with gets and puts of one size: the load of
// every group that is not YCSB's.
//
//	one goroutine a worker
//	   draw keys -> get or put, one at a time or a batch of each -> check -> again
//
// Every value says which key it belongs to, and every value read is checked.
package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rskv/bench/internal/draw"
	"rskv/bench/internal/kv"
	"rskv/bench/internal/measure"
)

const (
	// drawn is how many keys are drawn at once, unless a batch is larger.
	drawn = 64
	// preloadBatch is how many keys are stored at once, preloadWorkers how many
	// goroutines do so.
	preloadBatch   = 64
	preloadWorkers = 4
	// KeySize is the length of every key in bytes.
	KeySize = 8
	// tellEvery is how often a worker counts for all what it did: counters that all
	// write at every batch would have their line go from one processor to the other.
	tellEvery = 5 * time.Millisecond
	// seedStep keeps the seeds of two runs far apart.
	seedStep = 0x9E3779B97F4A7C15
)

// Load is what is asked of a store.
type Load struct {
	Workers   int
	Batch     int     // operations handed over together; up to 1: one at a time
	Reads     float64 // share of the operations
	Keys      uint64
	ValueSize int // bytes, at least 1
	// Source draws the keys of a worker; nil: uniform.
	Source func(worker int) draw.Source
	// Times has latencies measured, at the price of two looks at the clock for
	// each operation or batch.
	Times bool
	// Limit ends a worker after that many operations; 0: the time does.
	Limit uint64
	// Live is counted while it runs; may be nil.
	Live *Live
}

// Live is counted while a load runs.
type Live struct{ Ops, Nanos atomic.Uint64 }

// AppendKey appends key n, eight bytes.
func AppendKey(dst []byte, n uint64) []byte { return binary.LittleEndian.AppendUint64(dst, n) }

// Stamp marks a value as that of key n; what does not fit is left out.
func Stamp(value []byte, n uint64) {
	var word [8]byte
	binary.LittleEndian.PutUint64(word[:], n)
	copy(value, word[:])
}

// Stamped reports whether a value is that of key n.
func Stamped(value []byte, n uint64) bool {
	var word [8]byte
	binary.LittleEndian.PutUint64(word[:], n)
	short := min(len(value), len(word))
	return string(value[:short]) == string(word[:short])
}

// Preload stores every key once, in ascending order.
func (l *Load) Preload(ctx context.Context, store kv.Store) error {
	errs := make([]error, preloadWorkers)
	var wg sync.WaitGroup
	var next atomic.Uint64
	for i := range errs {
		wg.Go(func() { errs[i] = l.preload(ctx, store, &next) })
	}
	wg.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

func (l *Load) preload(ctx context.Context, store kv.Store, next *atomic.Uint64) error {
	one := *l
	one.Batch, one.Reads = preloadBatch, 0
	w, err := newWorker(&one, store, 0, 1)
	if err != nil {
		return err
	}
	defer w.worker.Close() // all that was stored has been answered
	for ctx.Err() == nil && w.err == nil {
		first := next.Add(preloadBatch) - preloadBatch
		if first >= l.Keys {
			return nil
		}
		n := min(preloadBatch, l.Keys-first)
		for i := range n {
			w.numbers[i] = first + i
		}
		w.putAll(w.numbers[:n])
	}
	return w.err
}

// seeds gives every worker of every run other draws.
var seeds atomic.Uint64

// Run works for d, or up to the limit.
func (l *Load) Run(ctx context.Context, store kv.Store, d time.Duration) (measure.Sample, error) {
	workers := make([]*worker, l.Workers)
	for i := range workers {
		w, err := newWorker(l, store, i, seeds.Add(1)*seedStep)
		if err != nil {
			return measure.Sample{}, err
		}
		defer w.worker.Close() // all it was asked has been answered
		workers[i] = w
	}
	var stop atomic.Bool
	var done atomic.Uint64
	ends := context.AfterFunc(ctx, func() { stop.Store(true) })
	defer ends()
	cpu, own, begin := store.Usage().CPU, measure.SelfCPU(), time.Now()
	timer := time.AfterFunc(d, func() { stop.Store(true) })
	defer timer.Stop()
	over := Ticks(&done)
	var wg sync.WaitGroup
	for _, w := range workers {
		wg.Go(func() { w.loop(&stop, &done) })
	}
	wg.Wait()
	s := measure.Sample{Elapsed: time.Since(begin), CPU: measure.SelfCPU() - own, Over: over()}
	if cpu > 0 {
		s.CPU = store.Usage().CPU - cpu
	}
	var errs []error
	for _, w := range workers {
		s.Ops += w.ops
		s.Reads += w.reads
		s.Hits += w.hits
		errs = append(errs, w.err)
		if w.times == nil {
			continue
		}
		if s.Times == nil {
			s.Times = measure.NewTimes()
		}
		s.Times.Merge(w.times)
	}
	return s, errors.Join(append(errs, ctx.Err())...)
}

// Ticks takes down how much a counter grew in every measure.Tick, until stop is
// called.
func Ticks(counter *atomic.Uint64) (stop func() []uint64) {
	end, out := make(chan struct{}), make(chan []uint64, 1)
	go func() {
		ticker := time.NewTicker(measure.Tick)
		defer ticker.Stop()
		var list []uint64
		last := counter.Load()
		for {
			select {
			case <-end:
				out <- list
				return
			case <-ticker.C:
				n := counter.Load()
				list, last = append(list, n-last), n
			}
		}
	}()
	return func() []uint64 {
		close(end)
		return <-out
	}
}

// worker is one goroutine. What it writes lies apart from what the others write.
type worker struct {
	load    *Load
	worker  kv.Worker
	batcher kv.Batcher // nil: none
	source  draw.Source
	rng     *rand.Rand
	pcg     rand.PCG // what rng draws from
	numbers []uint64
	keys    [][]byte
	values  [][]byte
	room    []byte

	ops, reads, hits uint64
	times            *hdrhistogram.Histogram
	err              error

	counted uint64    // of ops, by all
	told    time.Time // when
}

func newWorker(l *Load, store kv.Store, i int, seed uint64) (*worker, error) {
	inner, err := store.Worker()
	if err != nil {
		return nil, err
	}
	w := &measure.Apart[worker](1)[0]
	w.load, w.worker = l, inner
	w.pcg.Seed(seed, 1)
	w.rng = rand.New(&w.pcg)
	w.batcher, _ = inner.(kv.Batcher)
	if l.Source != nil {
		w.source = l.Source(i)
	} else {
		w.source = draw.NewUniform(l.Keys, seed)
	}
	n := max(l.Batch, 1)
	w.numbers = measure.Apart[uint64](max(n, drawn))
	w.keys, w.values = measure.Apart[[]byte](n), measure.Apart[[]byte](n)
	w.room = measure.Apart[byte](l.ValueSize)
	step := (l.ValueSize + 63) &^ 63 // each value begins on a line, as one by itself would
	keys, values := measure.Apart[byte](n*KeySize), measure.Apart[byte](n*step)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), 2}).Read(values) // never fails
	for j := range w.keys {
		w.keys[j] = keys[j*KeySize:][:0:KeySize]
		w.values[j] = values[j*step:][:l.ValueSize:l.ValueSize]
	}
	if l.Times {
		w.times = measure.NewTimes()
	}
	return w, nil
}

// loop works until it is told to stop, once at least: a machine that was busy for all
// of a short run gives a low rate, and not none.
func (w *worker) loop(stop *atomic.Bool, done *atomic.Uint64) {
	w.told = time.Now()
	for w.err == nil && (w.ops == 0 || !stop.Load()) && (w.load.Limit == 0 || w.ops < w.load.Limit) {
		if w.load.Batch > 1 {
			w.source.Fill(w.numbers[:w.load.Batch])
			w.batch(w.numbers[:w.load.Batch])
		} else {
			w.source.Fill(w.numbers)
			for _, n := range w.numbers {
				if w.one(n); w.err != nil || stop.Load() {
					break
				}
			}
		}
		if now := time.Now(); now.Sub(w.told) >= tellEvery {
			w.tell(done, now)
		}
	}
	w.tell(done, time.Now())
}

// tell counts for all what was done since it was told last.
func (w *worker) tell(done *atomic.Uint64, now time.Time) {
	more := w.ops - w.counted
	done.Add(more)
	if live := w.load.Live; live != nil {
		live.Ops.Add(more)
		live.Nanos.Add(uint64(now.Sub(w.told)))
	}
	w.counted, w.told = w.ops, now
}

// isRead draws whether an operation reads.
func (w *worker) isRead() bool {
	return w.load.Reads >= 1 || w.load.Reads > 0 && w.rng.Float64() < w.load.Reads
}

// one does one operation on key n.
func (w *worker) one(n uint64) {
	var begin time.Time
	if w.times != nil {
		begin = time.Now()
	}
	key := AppendKey(w.keys[0][:0], n)
	if w.isRead() {
		v, found, err := w.worker.Get(w.room[:0], key)
		w.reads++
		if w.err = err; found {
			w.room = v
			w.check(n, v)
		}
	} else {
		Stamp(w.values[0], n)
		w.err = w.worker.Put(key, w.values[0])
	}
	w.ops++
	if w.times != nil {
		measure.Record(w.times, int64(time.Since(begin)))
	}
}

// check looks whether a value is that of key n.
func (w *worker) check(n uint64, v []byte) {
	if len(v) != w.load.ValueSize || !Stamped(v, n) {
		w.err = fmt.Errorf("%w: key %d has %d bytes: %.16x", measure.ErrWrong, n, len(v), v)
		return
	}
	w.hits++
}

// batch does the operations on all numbers: the reads together, the writes too.
func (w *worker) batch(numbers []uint64) {
	begin := time.Now()
	reads := 0
	for i, n := range numbers {
		if w.isRead() {
			numbers[i], numbers[reads] = numbers[reads], n
			reads++
		}
	}
	if reads > 0 {
		w.getAll(numbers[:reads])
	}
	if w.err == nil && reads < len(numbers) {
		w.putAll(numbers[reads:])
	}
	w.ops += uint64(len(numbers))
	if w.times != nil {
		took := int64(time.Since(begin))
		for range numbers {
			measure.Record(w.times, took)
		}
	}
}

func (w *worker) getAll(numbers []uint64) {
	w.reads += uint64(len(numbers))
	if w.batcher == nil {
		for _, n := range numbers {
			v, found, err := w.worker.Get(w.room[:0], AppendKey(w.keys[0][:0], n))
			if w.err = err; found {
				w.room = v
				w.check(n, v)
			}
			if w.err != nil {
				return
			}
		}
		return
	}
	for i, n := range numbers {
		w.keys[i] = AppendKey(w.keys[i][:0], n)
	}
	err := w.batcher.GetAll(w.keys[:len(numbers)], func(i int, v []byte, found bool) {
		if found {
			w.check(numbers[i], v)
		}
	})
	if err != nil {
		w.err = err
	}
}

func (w *worker) putAll(numbers []uint64) {
	for i, n := range numbers {
		w.keys[i] = AppendKey(w.keys[i][:0], n)
		Stamp(w.values[i], n)
	}
	if w.batcher != nil {
		w.err = w.batcher.PutAll(w.keys[:len(numbers)], w.values[:len(numbers)])
		return
	}
	for i := range numbers {
		if w.err = w.worker.Put(w.keys[i], w.values[i]); w.err != nil {
			return
		}
	}
}
