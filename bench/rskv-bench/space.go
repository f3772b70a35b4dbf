package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rskv/bench/internal/kv"
	"rskv/bench/internal/load"
	"rskv/bench/internal/measure"
	"rskv/engine"
)

const (
	// spaceValue makes a record of 128 B.
	spaceValue  = 104
	spaceRecord = recordHeader + load.KeySize + spaceValue
	// spaceMemory is the memory in bytes that a key adds, a half of its record.
	spaceMemory = spaceRecord / 2
	// liveWanted is the share of the log that is live when passes begin.
	liveWanted = 0.5
	// passRounds is how many times the length of a round the rows with passes take:
	// a pass that is due begins within a second.
	passRounds = 2
	// passWait bounds the wait for the first pass, settleWait that for the store's own work to end.
	passWait   = 30 * time.Second
	settleWait = 10 * time.Second
	passLook   = 100 * time.Millisecond
	// indexGrows is how many times as many keys there are after the index has grown.
	indexGrows = 64
	// stallMax is what no operation may take because the index grows.
	stallMax = time.Millisecond
)

// errNoPass: compaction did not begin, so there is nothing to measure.
var errNoPass = errors.New("no compaction pass has begun")

// spaceSetting is the size of the stores that are compacted.
type spaceSetting struct {
	keys            uint64
	memory, segment int64
	page            int
	commit          time.Duration
	load            load.Load
}

func (r *runner) spaceSetting() spaceSetting {
	s := spaceSetting{keys: r.keys / 10, segment: 16 << 20, page: 1 << 20, commit: time.Second}
	if r.small {
		// Everything is in memory, so the log grows by what commits have frozen.
		s.segment, s.page, s.commit = 1<<20, 256<<10, 20*time.Millisecond
	}
	// The index, and little of what is live.
	s.memory = engine.MemoryMin + int64(s.keys)*spaceMemory
	s.load = load.Load{Workers: writers, Batch: 32, Keys: s.keys, ValueSize: spaceValue}
	return s
}

// live is how many bytes of log hold the newest value of every key.
func (s *spaceSetting) live() int64 { return int64(s.keys) * spaceRecord }

// overwritten makes a store, and overwrites its keys until at most liveWanted of its log
// lives.
func (r *runner) overwritten(ctx context.Context, name string, s spaceSetting, opt engine.Options) (*opened, error) {
	opt.Dir, opt.Memory, opt.SegmentSize, opt.PageSize = filepath.Join(r.dir, name), s.memory, s.segment, s.page
	opt.IndexBits, opt.CommitInterval = smallIndex(s.keys), s.commit
	e, err := kv.OpenEngine(opt)
	if err != nil {
		return nil, err
	}
	o := &opened{e, name}
	err = r.overwrite(ctx, o, s, func() (int64, bool) { return e.EstimateGC().Total, e.Stats().Scanned > 0 })
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return o, nil
}

// overwrite fills a store and overwrites its keys until at most liveWanted of its log
// lives, or a pass has begun: look says how many bytes the log has, and whether one has.
func (r *runner) overwrite(ctx context.Context, o *opened, s spaceSetting, look func() (log int64, begun bool)) error {
	err := r.preload(ctx, o, s.keys, spaceValue)
	for end := time.Now().Add(passWait); err == nil; {
		log, begun := look()
		if begun || log >= int64(float64(s.live())/liveWanted) {
			return nil
		}
		if _, err = s.load.Run(ctx, o, r.round); err == nil && time.Now().After(end) {
			err = fmt.Errorf("%w: the log has only grown to %d bytes", errNoPass, log)
		}
	}
	return err
}

// compaction is uniform overwriting while passes run, beside the same without any.
func (r *runner) compaction(ctx context.Context) (err error) {
	var stores []*opened
	defer closeAll(&err, &stores)
	s := r.spaceSetting()
	quiet, err := r.overwritten(ctx, "uncompacted", s, engine.Options{LiveRatio: -1})
	if err != nil {
		return err
	}
	stores = append(stores, quiet)
	budget := 4*s.live() + 16*s.segment
	busy, err := r.overwritten(ctx, "compacted", s, engine.Options{LiveRatio: liveWanted, Disk: budget})
	if err != nil {
		return err
	}
	stores = append(stores, busy)
	store := busy.Store.(*kv.Engine).Store
	if err := r.firstPass(ctx, store, busy, s); err != nil {
		return err
	}
	row := func(name string) *measure.Row {
		return &measure.Row{
			Group: "compaction under load", Name: name, Commit: s.commit.String(), Unit: "k/s", Scale: 1000,
			Setting: fmt.Sprintf("puts, %s keys of %d B x %d B, uniform, %d goroutines, batches of 32, memory %s, %s live; passes start below %.0f %% live, disk budget %s; without: the log only grows",
				count(s.keys), load.KeySize, spaceValue, writers, mib(s.memory), mib(s.live()), 100*liveWanted, mib(budget)),
		}
	}
	with, without := row("put, passes run"), row("put, none run")
	from := store.Stats()
	var scanned uint64 // while the load ran
	var loaded time.Duration
	contenders := []measure.Contender{
		{Row: with, Run: func(ctx context.Context, d time.Duration) (measure.Sample, error) {
			before := store.Stats().Scanned
			sample, err := s.load.Run(ctx, busy, passRounds*d)
			scanned += store.Stats().Scanned - before
			loaded += sample.Elapsed
			if err == nil {
				err = settle(ctx, store)
			}
			return sample, err
		}},
		{Row: without, Run: func(ctx context.Context, d time.Duration) (measure.Sample, error) {
			return s.load.Run(ctx, quiet, passRounds*d)
		}},
	}
	if err := r.ran(ctx, contenders); err != nil {
		return err
	}
	without.Finish(nil)
	with.Finish(without)
	with.Note("passes scanned %.0f MB/s while the load ran", float64(scanned)/max(loaded.Seconds(), 1e-9)/1e6)
	with.Note("writes waited for room or memory %d times", store.Stats().SpaceWaits-from.SpaceWaits)
	r.amplification(with, from, store.Stats())
	if err := r.onePass(ctx, with, store); err != nil {
		return err
	}
	return r.compactionSocket(ctx, s, budget)
}

// firstPass goes on until compaction has begun.
func (r *runner) firstPass(ctx context.Context, store *engine.Store, busy *opened, s spaceSetting) error {
	for end := time.Now().Add(passWait); store.Stats().Scanned == 0; {
		if time.Now().After(end) {
			return fmt.Errorf("%w: %s", errNoPass, store.Stats().NextCompaction)
		}
		if _, err := s.load.Run(ctx, busy, r.round); err != nil {
			return err
		}
	}
	return settle(ctx, store)
}

// settle commits what was written, and waits a while until nothing is read by a pass nor
// written, no checkpoint is under way and no pass is due, so that the neighbour is not
// measured while the store works for itself.
func settle(ctx context.Context, store *engine.Store) error {
	if _, err := store.Sync(ctx); err != nil {
		return err
	}
	last := store.Stats()
	for end := time.Now().Add(settleWait); time.Now().Before(end); {
		if err := sleep(ctx, passLook); err != nil {
			return err
		}
		now := store.Stats()
		rests := now.Scanned == last.Scanned && now.DeviceWritten == last.DeviceWritten && !now.Checkpointing
		if rests && !store.EstimateGC().WouldPay {
			return nil
		}
		last = now
	}
	return nil
}

// amplification says what passes wrote again, between two looks.
func (r *runner) amplification(like *measure.Row, from, to engine.Stats) {
	appended, moved := to.LogAppended-from.LogAppended, to.Moved-from.Moved
	if appended <= moved {
		return
	}
	row := r.figure(like, "write amplification", "x", float64(appended)/float64(appended-moved))
	row.Note("bytes of log written for one appended by users, all rounds together: %.0f MB appended, %.0f MB of them by %d passes; %.2f since the store was made",
		float64(appended)/1e6, float64(moved)/1e6, to.Compactions-from.Compactions, to.WriteAmplification)
}

// onePass is a pass over the whole log that is asked for while nobody else works.
func (r *runner) onePass(ctx context.Context, like *measure.Row, store *engine.Store) error {
	var res engine.CompactResult
	err := engine.ErrCompacting
	for end := time.Now().Add(passWait); errors.Is(err, engine.ErrCompacting) && time.Now().Before(end); {
		if err = sleep(ctx, passLook); err == nil {
			res, err = store.Compact(ctx, engine.CompactOptions{})
		}
	}
	if err != nil {
		return err
	}
	row := r.figure(like, "a pass over the whole log, no load", "MB/s", float64(res.Scanned)/max(res.Took.Seconds(), 1e-9)/1e6)
	row.Note("%s scanned, %s of it copied, %s freed, %.2f s", mib(res.Scanned), mib(res.Copied), mib(res.Freed), res.Took.Seconds())
	return nil
}

// growthSide is one of the two indexes, with what its loads have shown.
type growthSide struct {
	sized   uint64 // keys the index is made for
	row     *measure.Row
	wall    *hdrhistogram.Histogram // of batches
	own     *hdrhistogram.Histogram // of the same, processor time of the thread
	control *hdrhistogram.Histogram // what one who did nothing saw meanwhile
	bytes   float64                 // of memory a key
	stats   engine.Stats
}

// indexGrowth is the load of new keys into an index that was made for few of them,
// beside one that was made for all: what takes long in both is not growth. What takes
// long but no processor time of the thread, and what the control sees too, is the
// machine's doing.
func (r *runner) indexGrowth(ctx context.Context) error {
	first := r.keys / indexGrows
	memory := memoryFor(r.keys, 1)
	var sides []*growthSide
	var contenders []measure.Contender
	for _, sized := range []uint64{first, r.keys} {
		g := &growthSide{sized: sized, wall: measure.NewTimes(), own: measure.NewTimes(), control: measure.NewTimes()}
		g.row = &measure.Row{
			Group: "index that grows", Name: "put, made for " + count(sized), Commit: "off", Unit: "M/s", Scale: 1e6,
			Setting: fmt.Sprintf("new keys of 8 B with values of 8 B, from %s to %s, 1 goroutine, batches of 32, memory %s; p50/p99 are of a batch", count(first), count(r.keys), mib(memory)),
		}
		sides = append(sides, g)
		contenders = append(contenders, measure.Contender{Row: g.row, Run: func(ctx context.Context, _ time.Duration) (measure.Sample, error) {
			return r.growOnce(ctx, g, memory, first)
		}})
	}
	if err := r.ran(ctx, contenders); err != nil {
		return err
	}
	growing, ready := sides[0], sides[1]
	ready.row.Finish(nil)
	growing.row.Finish(ready.row)
	growing.row.Note("the index doubled %d times", growing.stats.IndexDoublings)
	for _, g := range sides {
		if len(g.row.Rates) > 0 {
			r.stalls(g)
		}
	}
	return nil
}

// stalls adds what took long, and what a key takes.
func (r *runner) stalls(g *growthSide) {
	g.row.Note("%s of %d batches took more than 1 ms; %s took more than 1 ms of the thread's processor time", above(g.wall, stallMax), g.wall.TotalCount(), above(g.own, stallMax))
	noteControl(g.row, g.control)
	own := r.figure(g.row, g.row.Name+": longest stall, processor time of the thread", "ms", float64(g.own.Max())/1e6)
	own.Note("p99.99 %.2f ms; what writers did themselves, page faults and waits for locks of the kernel included", float64(g.own.ValueAtQuantile(99.99))/1e6)
	wall := r.figure(g.row, g.row.Name+": longest stall of a batch", "ms", float64(g.wall.Max())/1e6)
	wall.Note("who did nothing was kept from it for %.1f ms at the longest, and %s times for more than 1 ms; writes waited for memory %d times",
		float64(g.control.Max())/1e6, above(g.control, stallMax), g.stats.SpaceWaits)
	r.figure(g.row, g.row.Name+": memory a key", "B", g.bytes)
}

// above is how many times are longer.
func above(times *hdrhistogram.Histogram, limit time.Duration) string {
	n := int64(0)
	for _, bar := range times.Distribution() {
		if bar.From > int64(limit) {
			n += bar.Count
		}
	}
	return strconv.FormatInt(n, 10)
}

// growOnce loads a store of its own: the first keys unmeasured, then the others, while
// another goroutine does nothing, half of the time.
func (r *runner) growOnce(ctx context.Context, g *growthSide, memory int64, first uint64) (sample measure.Sample, err error) {
	const name = "growing"
	s, err := r.smallStore(name, engine.Options{Memory: memory, CommitInterval: -1, IndexBits: smallIndex(g.sized)}, first)
	if err != nil {
		return sample, err
	}
	defer r.discard(&err, s, name)
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = runLane(ctx, g.control, func() error { return nil }) })
	err = s.grow(ctx, &sample, g, first, r.keys)
	stop()
	wg.Wait()
	if err != nil {
		return sample, err
	}
	g.stats = s.store.Stats()
	g.bytes = (float64(g.stats.IndexBuckets+g.stats.IndexOverflow)*64 + float64(g.stats.LogTail-g.stats.LogBegin)) / float64(r.keys)
	s.keys = r.keys
	return sample, s.spotCheck()
}

// grow stores the keys from first on, in batches, and records how long each took.
func (s *small) grow(ctx context.Context, sample *measure.Sample, g *growthSide, first, keys uint64) error {
	runtime.LockOSThread() // for its processor time
	defer runtime.UnlockOSThread()
	w := newSmallWorker(s, smallLoad{batch: 32, write: true}, nil)
	defer w.session.Close()
	sample.Times = measure.NewTimes()
	cpu, begin := measure.SelfCPU(), time.Now()
	last, own := begin, measure.ThreadCPU()
	for k := first; k < keys && w.err == nil && ctx.Err() == nil; {
		n := 0
		for ; n < len(w.numbers) && k < keys; n++ {
			w.numbers[n] = k
			k++
		}
		w.put(n)
		now, used := time.Now(), measure.ThreadCPU()
		measure.Record(sample.Times, int64(now.Sub(last)))
		measure.Record(g.own, int64(used-own))
		last, own = now, used
	}
	g.wall.Merge(sample.Times)
	sample.Ops, sample.Elapsed, sample.CPU = w.ops, time.Since(begin), measure.SelfCPU()-cpu
	return errors.Join(w.err, ctx.Err())
}

// spotCheck looks at a few keys of all.
func (s *small) spotCheck() error {
	session := s.store.NewSession()
	defer session.Close()
	var key [smallSize]byte
	for k := uint64(0); k < s.keys; k += max(1, s.keys/1000) {
		binary.LittleEndian.PutUint64(key[:], k)
		v, err := session.Get(key[:], nil)
		if err != nil {
			return fmt.Errorf("%w: key %d: %w", measure.ErrWrong, k, err)
		}
		if len(v) != smallSize || binary.LittleEndian.Uint64(v)&keyMask != k {
			return fmt.Errorf("%w: key %d has %x", measure.ErrWrong, k, v)
		}
	}
	return nil
}
