package ycsb

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rskv/bench/internal/draw"
	"rskv/bench/internal/kv"
	"rskv/bench/internal/measure"
)

const (
	// loadThreads and loadBatch are how records are loaded.
	loadThreads = 4
	loadBatch   = 64
	// publishEvery is how many operations a goroutine does between two times that
	// it tells how many: a shared counter for each would be shared by all.
	publishEvery = 64
	// slack is how late a sleep may end: an operation due sooner is waited for by
	// looking at the clock, because a sleep of a virtual machine ends some 60 us
	// late and more.
	slack = 100 * time.Microsecond
)

// Live is counted while a run goes on.
type Live struct{ Ops, Nanos atomic.Uint64 }

// Result is what a run did. Sample.Times count from the intended start where
// there is one.
type Result struct {
	measure.Sample
	Service *hdrhistogram.Histogram // ns from the actual start; nil without target
	Counts  [kinds]uint64           // by kind of operation
	Behind  time.Duration           // how late the last operation began
}

// kind is what an operation does.
type kind int

const (
	read kind = iota
	update
	insert
	scan
	readModifyWrite
	kinds
)

// Kinds are the names of Result.Counts.
var Kinds = [kinds]string{"read", "update", "insert", "scan", "read-modify-write"}

// Preload stores all records.
func (s *Space) Preload(ctx context.Context, store kv.Store) error {
	errs := make([]error, loadThreads)
	var wg sync.WaitGroup
	for t := range loadThreads {
		wg.Go(func() { errs[t] = s.preload(ctx, store, uint64(t)) })
	}
	wg.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

// preload stores every loadThreads-th record.
func (s *Space) preload(ctx context.Context, store kv.Store, first uint64) error {
	w, err := store.Worker()
	if err != nil {
		return err
	}
	defer w.Close() // all that was stored has been answered
	batcher, batched := w.(kv.Batcher)
	keys, values := make([][]byte, loadBatch), make([][]byte, loadBatch)
	for i := range values {
		values[i] = newValue(s.size, first*loadBatch+uint64(i))
	}
	for n := first; n < s.loaded && ctx.Err() == nil; {
		count := 0
		for ; count < loadBatch && n < s.loaded; count++ {
			keys[count] = s.appendKey(keys[count][:0], n)
			putStamp(values[count], n)
			n += loadThreads
		}
		if batched {
			err = batcher.PutAll(keys[:count], values[:count])
		}
		for i := 0; !batched && i < count && err == nil; i++ {
			err = w.Put(keys[i], values[i])
		}
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
	}
	return nil
}

// newValue is a record of bytes that nothing can make smaller.
func newValue(size int, seed uint64) []byte {
	v := measure.Apart[byte](size)
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	// Read of a ChaCha8 never fails.
	_, _ = rng.Read(v)
	return v
}

// Run runs w until its operations are done or d is over, if d is not 0.
func (w *Workload) Run(ctx context.Context, store kv.Store, s *Space, d time.Duration, seed uint64, live *Live) (*Result, error) {
	r := &run{workload: w, space: s, live: live, target: w.Target / float64(w.Threads)}
	z := weights(w)
	callers := make([]*caller, w.Threads)
	var err error
	for t := range callers {
		worker, err := store.Worker()
		if err != nil {
			return nil, err
		}
		defer worker.Close() // all it was asked has been answered
		callers[t] = newCaller(r, worker, newChooser(s, w, z, seed*threadsMax+uint64(t)+1), seed*threadsMax+uint64(t))
		callers[t].limit = share(w.Operations, w.Threads, t)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { r.stop.Store(true) })
	defer stop()
	cpu, own := store.Usage().CPU, measure.SelfCPU()
	r.begin = time.Now()
	if d > 0 {
		timer := time.AfterFunc(d, func() { r.stop.Store(true) })
		defer timer.Stop()
	}
	ticks := r.tick(ctx)
	var wg sync.WaitGroup
	for t, c := range callers {
		wg.Go(func() { c.loop(t) })
	}
	wg.Wait()
	out := &Result{Sample: measure.Sample{Elapsed: time.Since(r.begin), Times: measure.NewTimes()}}
	cancel()
	out.Over = <-ticks
	switch {
	case cpu > 0:
		out.CPU = store.Usage().CPU - cpu
	case w.Target == 0: // else most of it went into waiting for the next start
		out.CPU = measure.SelfCPU() - own
	}
	for _, c := range callers {
		err = errors.Join(err, c.err)
		out.add(c)
	}
	return out, err
}

// share parts n among threads; 0 stays 0, no limit.
func share(n uint64, threads, t int) uint64 {
	part := n / uint64(threads)
	if uint64(t) < n%uint64(threads) {
		part++
	}
	if n > 0 {
		return max(part, 1)
	}
	return 0
}

// Take adds what another run did, but for its times, which a Row keeps.
func (r *Result) Take(o *Result) {
	r.Ops += o.Ops
	for k, n := range o.Counts {
		r.Counts[k] += n
	}
	r.Behind = max(r.Behind, o.Behind)
	if o.Service != nil {
		if r.Service == nil {
			r.Service = measure.NewTimes()
		}
		r.Service.Merge(o.Service)
	}
}

func (r *Result) add(c *caller) {
	r.Ops += c.ops
	r.Reads += c.reads
	r.Hits += c.hits
	r.Times.Merge(c.times)
	for k, n := range c.counts {
		r.Counts[k] += n
	}
	r.Behind = max(r.Behind, c.behind)
	if c.service != nil {
		if r.Service == nil {
			r.Service = measure.NewTimes()
		}
		r.Service.Merge(c.service)
	}
}

// run is what the goroutines of a run share.
type run struct {
	workload *Workload
	space    *Space
	live     *Live
	target   float64 // operations a second of each goroutine
	begin    time.Time
	stop     atomic.Bool
	done     atomic.Uint64 // operations, published now and then
}

// tick takes down how much was done in every measure.Tick.
func (r *run) tick(ctx context.Context) <-chan []uint64 {
	out := make(chan []uint64, 1)
	go func() {
		ticker := time.NewTicker(measure.Tick)
		defer ticker.Stop()
		var list []uint64
		last := uint64(0)
		for {
			select {
			case <-ctx.Done():
				out <- list
				return
			case <-ticker.C:
				n := r.done.Load()
				list, last = append(list, n-last), n
			}
		}
	}()
	return out
}

// caller is one goroutine. What it writes lies apart from what the others write.
type caller struct {
	run     *run
	worker  kv.Worker
	batcher kv.Batcher // nil: none
	choose  *chooser
	lengths *draw.Zipf // of scans; nil: uniform
	rng     *rand.Rand
	pcg     rand.PCG // what rng draws from
	limit   uint64
	value   []byte // what is written
	key     []byte
	room    []byte // what is read
	keys    [][]byte
	values  [][]byte
	numbers []uint64

	ops, reads, hits uint64
	counts           [kinds]uint64
	times, service   *hdrhistogram.Histogram
	behind           time.Duration
	err              error

	published, nanos uint64
}

func newCaller(r *run, w kv.Worker, c *chooser, seed uint64) *caller {
	out := &measure.Apart[caller](1)[0]
	*out = caller{
		run: r, worker: w, choose: c, times: measure.NewTimes(), key: measure.Apart[byte](keyMax)[:0],
		value: newValue(r.space.size, seed), room: measure.Apart[byte](r.space.size)[:0],
	}
	out.pcg.Seed(seed, 3)
	out.rng = rand.New(&out.pcg)
	out.batcher, _ = w.(kv.Batcher)
	if r.target > 0 {
		out.service = measure.NewTimes()
	}
	if lengths := r.workload.ScanMost - r.workload.ScanLeast + 1; r.workload.ScanZipf && lengths > 1 {
		out.lengths = draw.NewZipf(uint64(lengths), draw.ScrambledTheta, seed)
	}
	n := max(r.workload.Batch, r.workload.ScanMost)
	if r.workload.Scan == 0 {
		n = r.workload.Batch
	}
	out.keys, out.values, out.numbers = measure.Apart[[]byte](n), measure.Apart[[]byte](n), measure.Apart[uint64](n)
	keys := measure.Apart[byte](n * keyMax)
	for i := range out.keys {
		out.keys[i] = keys[i*keyMax:][:0:keyMax]
	}
	return out
}

// loop works until it is told to stop, once at least. With a target, goroutine t of T
// begins its i-th operation at (i + t/T) / target, if the run has not ended by then.
func (c *caller) loop(t int) {
	defer c.publish()
	phase := float64(t) / float64(c.run.workload.Threads)
	for c.err == nil && (c.ops == 0 || !c.run.stop.Load()) && (c.limit == 0 || c.ops < c.limit) {
		begin := time.Now()
		intended := begin
		if c.run.target > 0 {
			intended = c.run.begin.Add(time.Duration((float64(c.ops) + phase) / c.run.target * float64(time.Second)))
			if begin = c.waitFor(intended); begin.IsZero() {
				return
			}
			c.behind = begin.Sub(intended)
		}
		n := uint64(1)
		if b := c.run.workload.Batch; b > 1 {
			n = uint64(b)
			c.batch(b)
		} else {
			c.one()
		}
		end := time.Now()
		for range n {
			measure.Record(c.times, int64(end.Sub(intended)))
		}
		if c.service != nil {
			measure.Record(c.service, int64(end.Sub(begin)))
		}
		c.ops += n
		c.nanos += n * uint64(end.Sub(intended))
		if c.ops-c.published >= publishEvery {
			c.publish()
		}
	}
}

// waitFor returns when a time has come, with the time; zero if the run ends
// before.
func (c *caller) waitFor(t time.Time) time.Time {
	for {
		now := time.Now()
		left := t.Sub(now)
		switch {
		case left <= 0:
			return now
		case c.run.stop.Load():
			return time.Time{}
		case left > slack:
			time.Sleep(min(left-slack, 50*time.Millisecond))
		default:
			// Others that are due may be waiting for this processor.
			runtime.Gosched()
		}
	}
}

func (c *caller) publish() {
	c.run.done.Add(c.ops - c.published)
	c.run.live.Ops.Add(c.ops - c.published)
	c.run.live.Nanos.Add(c.nanos)
	c.published, c.nanos = c.ops, 0
}

// pick draws what to do.
func (c *caller) pick() kind {
	w := c.run.workload
	x := c.rng.Float64() * (w.Read + w.Update + w.Insert + w.Scan + w.ReadModifyWrite)
	for k, share := range [kinds]float64{w.Read, w.Update, w.Insert, w.Scan, w.ReadModifyWrite} {
		if x < share {
			return kind(k)
		}
		x -= share
	}
	return read
}

// one does one operation.
func (c *caller) one() {
	k := c.pick()
	c.counts[k]++
	switch {
	case k == insert:
		n := c.run.space.next.Add(1) - 1
		if c.put(n); c.err == nil {
			c.run.space.inserted(n)
		}
		return
	case k == scan:
		c.scan()
		return
	}
	n := c.choose.record()
	if k == update && c.run.workload.WriteAll {
		c.put(n)
		return
	}
	found := c.get(n)
	if k != read && found {
		c.change(n)
	}
}

// get reads record n into c.room and reports whether it is there.
func (c *caller) get(n uint64) bool {
	c.key = c.run.space.appendKey(c.key[:0], n)
	v, found, err := c.worker.Get(c.room[:0], c.key)
	c.reads++
	if err != nil {
		c.err = err
		return false
	}
	if found {
		c.room = v
		c.check(n, v)
	}
	return found
}

// check counts a value and looks whether it is the right one.
func (c *caller) check(n uint64, v []byte) {
	if len(v) != c.run.space.size || stampOf(v) != n {
		c.err = fmt.Errorf("%w: record %d has %d bytes: %.16x", measure.ErrWrong, n, len(v), v)
		return
	}
	c.hits++
}

// put stores record n whole.
func (c *caller) put(n uint64) {
	c.key = c.run.space.appendKey(c.key[:0], n)
	putStamp(c.value, n)
	c.err = c.worker.Put(c.key, c.value)
}

// change puts back the record that get read, with one field renewed (with
// writeallfields all of them).
func (c *caller) change(n uint64) {
	w := c.run.workload
	at, length := 0, len(c.room)
	if !w.WriteAll {
		at, length = c.rng.IntN(w.FieldCount)*w.FieldLength, w.FieldLength
	}
	copy(c.room[at:at+length], c.value[at:])
	c.room[at+length-1]++
	putStamp(c.room, n)
	c.err = c.worker.Put(c.key, c.room)
}

// scan reads records that were inserted one after the other.
func (c *caller) scan() {
	w := c.run.workload
	count := w.ScanLeast + c.rng.IntN(w.ScanMost-w.ScanLeast+1)
	if c.lengths != nil {
		var rank [1]uint64
		c.lengths.Ranks(rank[:])
		count = w.ScanLeast + int(rank[0])
	}
	first, end := c.choose.record(), c.run.space.visible.Load()
	count = int(min(uint64(count), end-first))
	for i := range count {
		c.numbers[i] = first + uint64(i)
	}
	c.readAll(c.numbers[:count])
}

// readAll reads records in one batch where there are batches.
func (c *caller) readAll(numbers []uint64) {
	if c.batcher == nil {
		for _, n := range numbers {
			c.get(n)
		}
		return
	}
	for i, n := range numbers {
		c.keys[i] = c.run.space.appendKey(c.keys[i][:0], n)
	}
	c.reads += uint64(len(numbers))
	err := c.batcher.GetAll(c.keys[:len(numbers)], func(i int, v []byte, found bool) {
		if found {
			c.check(numbers[i], v)
		}
	})
	if err != nil {
		c.err = err
	}
}

// batch does n operations, reads and writes each together.
func (c *caller) batch(n int) {
	reads, writes := 0, 0
	for range n {
		k := c.pick()
		c.counts[k]++
		number := c.choose.record()
		if k == read {
			c.numbers[reads] = number
			reads++
			continue
		}
		// Writes fill the lists from the back.
		writes++
		at := n - writes
		c.keys[at] = c.run.space.appendKey(c.keys[at][:0], number)
		if c.values[at] == nil {
			c.values[at] = newValue(c.run.space.size, uint64(at))
		}
		putStamp(c.values[at], number)
	}
	if reads > 0 {
		c.readAll(c.numbers[:reads])
	}
	if writes == 0 || c.err != nil {
		return
	}
	keys, values := c.keys[n-writes:n], c.values[n-writes:n]
	if c.batcher != nil {
		c.err = c.batcher.PutAll(keys, values)
		return
	}
	for i := range keys {
		if c.err == nil {
			c.err = c.worker.Put(keys[i], values[i])
		}
	}
}
