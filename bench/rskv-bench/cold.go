package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"rskv/bench/internal/draw"
	"rskv/bench/internal/measure"
	"rskv/bench/internal/peer"
	"rskv/engine"
	"rskv/ioring"
)

const (
	coldInFlight = 128
	coldTarget   = 0.7 // of fio's IOPS
	coldBlock    = 4 << 10
	coldFills    = 8 // how often gets are begun at most before one is waited for
)

// cold measures reads of records that are on disk only, against fio's random
// reads of a file of the same size on the same file system.
func (q *quick) cold(ctx context.Context) (err error) {
	file := filepath.Join(q.dir, "fio-read")
	job := peer.FioJob{File: file, Size: q.coldData, RW: "randread", Block: coldBlock, Depth: coldInFlight}
	fioRow := q.coldRow("random reads, fio", fmt.Sprintf("file of %s, blocks of 4 KiB, O_DIRECT, %d in flight", mib(q.coldData), coldInFlight))
	q.say("cold: writing fio's file and four stores of %s", mib(q.coldData))
	fioErr := layOut(ctx, job)
	defer os.Remove(file)
	contenders := []measure.Contender{contender(fioRow, fioErr, func() runFunc {
		return func(ctx context.Context, d time.Duration) (measure.Sample, error) {
			j := job
			j.Time = d
			return j.Run(ctx)
		}
	})}
	stores := map[*coldStore]*measure.Row{}
	defer func() {
		for s := range stores {
			err = errors.Join(err, s.store.Close())
		}
	}()
	for _, v := range []struct {
		name  string
		mode  ioring.Mode
		value int
	}{
		{"get, io_uring, values of 1000 B", ioring.URing, 1000},
		{"get, io_uring, values of 4000 B", ioring.URing, 4000},
		{"get, pread/pwrite, values of 1000 B", ioring.PReadWrite, 1000},
		{"get, pread/pwrite, values of 4000 B", ioring.PReadWrite, 4000},
	} {
		row := q.coldRow(v.name, fmt.Sprintf("%s of records with keys of 8 B, budget %s; 2 goroutines with a session and %d in flight each; counted are gets that were read from disk; every value checked",
			mib(q.coldData), mib(q.coldBudget), coldInFlight/2))
		s, err := q.openCold(fmt.Sprintf("cold-%s-%d", v.mode, v.value), v.mode, v.value)
		if err == nil {
			stores[s] = row
			if !s.store.Info().Direct {
				row.Note("through the page cache: this file system has no O_DIRECT")
			}
		}
		contenders = append(contenders, contender(row, err, func() runFunc { return s.run }))
	}
	if err := q.interleave(ctx, contenders); err != nil {
		return err
	}
	fioRow.Finish(nil)
	for _, c := range contenders[1:] {
		c.Row.Finish(fioRow)
		if fioRow.CPU != nil && c.Row.CPU != nil {
			c.Row.Note("%.2f times fio's CPU an operation", *c.Row.CPU / *fioRow.CPU)
		}
	}
	contenders[1].Row.Target = ref(coldTarget)
	for s, row := range stores {
		s.note(row)
	}
	return nil
}

func (q *quick) coldRow(name, setting string) *measure.Row {
	return &measure.Row{
		Group: "reads from disk", Name: name, Setting: setting, Commit: "off", Unit: "k IOPS", Scale: 1000,
	}
}

// layOut writes the job's file.
func layOut(ctx context.Context, job peer.FioJob) error {
	job.RW, job.Block, job.Depth, job.Sync = "write", 1<<20, 8, true
	_, err := job.Run(ctx)
	return err
}

// coldStore is a store ten times as large as its memory.
type coldStore struct {
	store  *engine.Store
	keys   uint64
	value  int
	seed   atomic.Uint64
	zipf   *draw.Zipf    // how keys are drawn; nil: uniformly
	hot    atomic.Uint64 // reads that were answered from memory
	all    atomic.Uint64
	before engine.Stats // when the loading was done
}

// openCold makes a store and fills it.
func (q *quick) openCold(name string, mode ioring.Mode, value int) (*coldStore, error) {
	dir := filepath.Join(q.dir, name)
	store, err := engine.Open(engine.Options{Dir: dir, IO: mode, Memory: q.coldBudget, CommitInterval: -1})
	if err != nil {
		return nil, err
	}
	s := &coldStore{store: store, value: value, keys: uint64(q.coldData / int64(value))}
	err = s.preload()
	if err == nil {
		_, err = store.Sync(context.Background())
	}
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	s.before = store.Stats()
	return s, nil
}

func (s *coldStore) preload() error {
	session := s.store.NewSession()
	defer session.Close()
	ops := make([]engine.Op, 32)
	keys := make([]byte, len(ops)*smallSize)
	values := make([]byte, len(ops)*s.value)
	for k := uint64(0); k < s.keys; {
		n := 0
		for ; n < len(ops) && k < s.keys; n++ {
			key, value := keys[n*smallSize:][:smallSize], values[n*s.value:][:s.value]
			binary.LittleEndian.PutUint64(key, k)
			binary.LittleEndian.PutUint64(value, k)
			ops[n] = engine.Op{Kind: engine.OpPut, Key: key, Value: value}
			k++
		}
		session.Do(ops[:n])
		for i := range ops[:n] {
			if err := ops[i].Err; err != nil {
				return err
			}
		}
	}
	return nil
}

// note tells what the device had to do.
func (s *coldStore) note(r *measure.Row) {
	st := s.store.Stats()
	gets, hot := s.all.Load(), s.hot.Load()
	if gets == hot {
		return
	}
	cold := float64(gets - hot)
	r.Note("%d keys; %.0f%% of the gets were cold; %.2f reads and %.0f bytes of the device for each of them", s.keys, cold/float64(gets)*100,
		float64(st.DeviceReads-s.before.DeviceReads)/cold, float64(st.DeviceRead-s.before.DeviceRead)/cold)
}

// source draws keys for one goroutine.
func (s *coldStore) source() draw.Source {
	if s.zipf != nil {
		return s.zipf.Reseeded(s.seed.Add(1))
	}
	return draw.NewUniform(s.keys, s.seed.Add(1))
}

// run reads for d.
func (s *coldStore) run(ctx context.Context, d time.Duration) (measure.Sample, error) {
	const threads = 2
	var stop atomic.Bool
	var wg sync.WaitGroup
	workers := make([]*coldWorker, threads)
	cpu, begin := measure.SelfCPU(), time.Now()
	timer := time.AfterFunc(d, func() { stop.Store(true) })
	defer timer.Stop()
	for i := range workers {
		workers[i] = newColdWorker(s, coldInFlight/threads)
		wg.Go(func() { workers[i].loop(&stop) })
	}
	wg.Wait()
	sum := measure.Sample{Elapsed: time.Since(begin), CPU: measure.SelfCPU() - cpu}
	var errs []error
	for _, w := range workers {
		sum.Ops += w.cold
		sum.Reads += w.cold + w.hot
		sum.Hits += w.hits
		s.hot.Add(w.hot)
		s.all.Add(w.cold + w.hot)
		errs = append(errs, w.err)
		w.session.Close()
	}
	return sum, errors.Join(append(errs, ctx.Err())...)
}

// coldWorker keeps a number of reads in flight.
type coldWorker struct {
	session  *engine.Session
	source   draw.Source
	value    int
	inFlight int
	numbers  []uint64
	keys     []byte
	requests []engine.Op

	hot, cold, hits uint64
	err             error
}

func newColdWorker(s *coldStore, inFlight int) *coldWorker {
	w := &coldWorker{
		session: s.store.NewSession(), source: s.source(), value: s.value, inFlight: inFlight,
		numbers: make([]uint64, inFlight), keys: make([]byte, inFlight*smallSize), requests: make([]engine.Op, inFlight),
	}
	return w
}

func (w *coldWorker) loop(stop *atomic.Bool) {
	finished := func(op *engine.Op) {
		w.cold++
		w.check(op, op.Tag)
	}
	for (w.hot+w.cold == 0 || !stop.Load()) && w.err == nil {
		for range coldFills {
			w.fill(w.inFlight - w.session.Pending())
			if w.session.Pending() >= w.inFlight/4*3 {
				break // else much was answered from memory, and the device has too little to do
			}
		}
		if w.session.Pending() == 0 {
			continue
		}
		<-w.session.Ready()
		w.session.Complete(finished)
	}
	for w.session.Pending() > 0 {
		<-w.session.Ready()
		w.session.Complete(finished)
	}
}

// fill starts n reads.
func (w *coldWorker) fill(n int) {
	w.source.Fill(w.numbers[:n])
	for i, k := range w.numbers[:n] {
		key := w.keys[i*smallSize:][:smallSize]
		binary.LittleEndian.PutUint64(key, k)
		w.requests[i] = engine.Op{Kind: engine.OpGet, Key: key, Tag: k}
	}
	w.session.Start(w.requests[:n])
	for i := range w.requests[:n] {
		if op := &w.requests[i]; !op.Pending() {
			w.hot++
			w.check(op, op.Tag)
		}
	}
}

func (w *coldWorker) check(op *engine.Op, k uint64) {
	switch {
	case op.Err != nil:
		w.err = op.Err
	case !op.Found:
	case len(op.Value) != w.value || binary.LittleEndian.Uint64(op.Value) != k:
		w.err = fmt.Errorf("%w: key %d has %d bytes: %.16x", measure.ErrWrong, k, len(op.Value), op.Value)
	default:
		w.hits++
	}
}
