package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rskv/bench/internal/kv"
	"rskv/bench/internal/load"
	"rskv/bench/internal/measure"
	"rskv/engine"
)

// What a row of latencies does: one goroutine works for laneBusy and sleeps as long,
// which is half of the load it could be, while a second one, the control, does the
// same with nothing in it. What the control's times say is the machine's, not the
// store's. A time is taken from where an operation begins; one that is longer than
// operations usually are apart counts for those that should have begun meanwhile
// (no coordinated omission).
const (
	laneBusy = 200 * time.Microsecond
	// latencyValue is the size of values in bytes; latencyRecent how many of the keys
	// written last are read where all puts are of new ones.
	latencyValue  = 100
	latencyRecent = 10_000
	// socketCallers share a connection; each waits between its operations so that
	// together they ask for half of what they could.
	socketCallers = 16
	// commitsOften is a commit interval that makes commits many.
	commitsOften = 10 * time.Millisecond
)

// latency is the times of single operations at half of the load, undisturbed and
// beside everything that goes on in the background.
func (r *runner) latency(ctx context.Context) (err error) {
	var stores []*opened
	defer closeAll(&err, &stores)
	keys := uint64(1_000_000)
	if r.small {
		keys = keysMin
	}
	var contenders []measure.Contender
	for _, d := range r.disturbances(keys) {
		e, err := kv.OpenEngine(d.opt)
		if err != nil {
			return err
		}
		o := &opened{e, d.name}
		stores = append(stores, o)
		if err := d.prepare(ctx, r, o); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		contenders = append(contenders, r.disturbed(d, e))
	}
	group := contenders[0].Row.Group
	r.line.Steps(len(contenders) * r.report.Rounds)
	if err := r.interleave(ctx, r.round, contenders); err != nil {
		return err
	}
	for _, c := range contenders {
		c.Row.Finish(nil)
	}
	return r.socketLatency(ctx, group+", over the socket", keys)
}

// disturbance is something that goes on beside the operations.
type disturbance struct {
	name, setting string
	opt           engine.Options
	keys          uint64 // preloaded
	fresh         bool   // puts are of new keys, gets of the last ones
	value         int    // bytes
	during        func(ctx context.Context, s *engine.Store) error
}

// disturbances are the rows to be.
func (r *runner) disturbances(keys uint64) []disturbance {
	room := max(64<<20, int64(keys)*400)
	base := engine.Options{Memory: room, CommitInterval: -1, LiveRatio: -1, CheckpointDistance: -1}
	list := []disturbance{
		{name: "nothing else", opt: base},
		{name: "pages flushed", opt: base, fresh: true, value: 1000, setting: ", puts are of new keys and gets of the last 10,000: the log goes to disk all the time"},
		{name: "a commit every second", opt: base},
		{name: "a commit every 10 ms", opt: base},
		{name: "one checkpoint after the other", opt: base, during: checkpointing},
		{name: "one pass of compaction after the other", opt: base, during: compacting},
		{name: "an index that grows", opt: base, fresh: true, setting: ", puts are of new keys and gets of the last 10,000, into an index made for few"},
	}
	for i := range list {
		d := &list[i]
		d.opt.Dir = fmt.Sprintf("%s/latency-%d", r.dir, i)
		d.keys, d.opt.IndexBits = keys, indexBits(keys, room)
		if d.value == 0 {
			d.value = latencyValue
		}
	}
	list[1].keys, list[1].opt.Memory, list[1].opt.IndexBits = latencyRecent, 96<<20, indexBits(keys, 96<<20)
	list[2].opt.CommitInterval, list[3].opt.CommitInterval = time.Second, commitsOften
	list[4].opt.CommitInterval, list[5].opt.CommitInterval = time.Second, time.Second
	list[5].opt.SegmentSize = 16 << 20
	list[6].keys, list[6].opt.IndexBits, list[6].opt.Memory = latencyRecent, 8, 2<<30
	if r.small {
		list[5].opt.SegmentSize, list[5].opt.PageSize = 1<<20, 256<<10
		list[6].opt.Memory = 128 << 20
	}
	return list
}

// checkpointing takes checkpoints until the context ends, and the last to its end.
func checkpointing(ctx context.Context, s *engine.Store) error {
	for {
		if _, err := s.Checkpoint(context.WithoutCancel(ctx), engine.CheckpointOptions{Kind: engine.FullCheckpoint}); err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// compacting is the same for passes over the whole log, of which some is durable then.
func compacting(ctx context.Context, s *engine.Store) error {
	if _, err := s.Sync(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	for {
		if _, err := s.Compact(context.WithoutCancel(ctx), engine.CompactOptions{}); err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// prepare fills the store.
func (d *disturbance) prepare(ctx context.Context, r *runner, o *opened) error {
	return r.preload(ctx, o, d.keys, d.value)
}

// disturbed is the row of a disturbance with what fills it.
func (r *runner) disturbed(d disturbance, e *kv.Engine) measure.Contender {
	row := &measure.Row{
		Group: "latency at half of the load", Name: "get and put beside " + d.name, Unit: "k/s", Scale: 1000, Commit: commitWords(d.opt.CommitInterval),
		Setting: fmt.Sprintf("store in process, %s keys of %d B x %d B preloaded%s; one goroutine, one operation at a time, half of them gets, for %v and then %v of sleep; the times are from where an operation begins, and one that took long counts for those that should have begun meanwhile; every value read checked",
			count(d.keys), load.KeySize, d.value, d.setting, laneBusy, laneBusy),
	}
	control := measure.NewTimes()
	lane := &latencyLane{keys: d.keys, next: d.keys, fresh: d.fresh, size: d.value, odd: true}
	before := e.Stats()
	return measure.Contender{Row: row, Run: func(ctx context.Context, length time.Duration) (measure.Sample, error) {
		worker, err := e.Worker()
		if err != nil {
			return measure.Sample{}, err
		}
		lane.worker = worker
		s, err := r.besideControl(ctx, length, lane.do, control, func(ctx context.Context) error {
			if d.during == nil {
				return nil
			}
			return d.during(ctx, e.Store)
		})
		s.Reads, s.Hits = lane.taken()
		err = errors.Join(err, worker.Close())
		if row.Notes = nil; err == nil {
			noteControl(row, control)
			d.witness(row, before, e.Stats())
		}
		return s, err
	}}
}

// witness says that what the row is about has happened.
func (d *disturbance) witness(row *measure.Row, from, to engine.Stats) {
	row.Note("meanwhile: %.0f MB written to the device, %d commits, %d checkpoints, %d passes of compaction, %d doublings of the index; longest hold of writers %.0f us",
		float64(to.DeviceWritten-from.DeviceWritten)/1e6, to.Commits-from.Commits, to.Checkpoints-from.Checkpoints,
		to.Compactions-from.Compactions, to.IndexDoublings-from.IndexDoublings, float64(to.HoldMax)/1000)
}

// noteControl says what the control saw.
func noteControl(row *measure.Row, control *hdrhistogram.Histogram) {
	at := func(p float64) float64 { return float64(control.ValueAtQuantile(p)) / 1000 }
	row.Control = &measure.Tail{P50: at(50), P99: at(99), P999: at(99.9), P9999: at(99.99), Max: float64(control.Max()) / 1000}
}

// besideControl lets do run in a lane for a while, and nothing in a second one.
func (r *runner) besideControl(ctx context.Context, length time.Duration, do func() error, control *hdrhistogram.Histogram, during func(context.Context) error) (measure.Sample, error) {
	ctx, stop := context.WithTimeout(ctx, length)
	defer stop()
	var wg sync.WaitGroup
	var sample measure.Sample
	errs := make([]error, 2)
	wg.Go(func() {
		_, _ = runLane(ctx, control, func() error { return nil })
	})
	wg.Go(func() { errs[1] = during(ctx) })
	sample.Times = measure.NewTimes()
	begin := time.Now()
	sample.Ops, errs[0] = runLane(ctx, sample.Times, do)
	sample.Elapsed = time.Since(begin)
	stop()
	wg.Wait()
	return sample, errors.Join(errs...)
}

// runLane works and sleeps in turn until the context ends, and records how long each
// operation took.
func runLane(ctx context.Context, times *hdrhistogram.Histogram, do func() error) (ops uint64, err error) {
	usual := int64(0) // the time from one operation to the next, when nothing is in the way
	for ctx.Err() == nil {
		begin := time.Now()
		last, n := begin, 0
		for last.Sub(begin) < laneBusy {
			if err := do(); err != nil {
				return ops, err
			}
			now := time.Now()
			took := max(int64(now.Sub(last)), 1)
			if usual == 0 {
				_ = times.RecordValue(took) // in range
			} else {
				_ = times.RecordCorrectedValue(min(took, int64(time.Minute)), max(usual, int64(time.Microsecond)))
			}
			last = now
			n++
		}
		ops += uint64(n)
		if mean := int64(last.Sub(begin)) / int64(n); usual == 0 || mean < usual {
			usual = mean
		}
		time.Sleep(laneBusy)
	}
	return ops, nil
}

// latencyLane does gets and puts in turn.
type latencyLane struct {
	worker     kv.Worker
	keys, next uint64
	fresh      bool
	size       int
	odd        bool
	key        []byte
	value      []byte
	room       []byte
	reads      uint64
	hits       uint64
}

func (l *latencyLane) do() error {
	if l.odd = !l.odd; l.odd {
		n := l.next
		if l.fresh {
			l.next++
		} else {
			n = rand.Uint64N(l.keys)
		}
		if l.value == nil {
			l.value = make([]byte, l.size)
		}
		l.key = load.AppendKey(l.key[:0], n)
		load.Stamp(l.value, n)
		return l.worker.Put(l.key, l.value)
	}
	n := rand.Uint64N(l.keys)
	if l.fresh {
		n = l.next - 1 - rand.Uint64N(min(latencyRecent, l.next))
	}
	l.key = load.AppendKey(l.key[:0], n)
	v, found, err := l.worker.Get(l.room[:0], l.key)
	l.reads++
	if err != nil || !found {
		return err
	}
	l.room = v
	l.hits++
	if !load.Stamped(v, n) {
		return fmt.Errorf("%w: key %d has %d bytes: %.16x", measure.ErrWrong, n, len(v), v)
	}
	return nil
}

// taken returns what has been counted since it was called last.
func (l *latencyLane) taken() (reads, hits uint64) {
	reads, hits = l.reads, l.hits
	l.reads, l.hits = 0, 0
	return reads, hits
}
