package fio

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// layoutDepth and layoutBlock are how files are written before they are read.
	layoutDepth = 16
	layoutBlock = 1 << 20
	// pauseMax is the longest a job sleeps before it looks whether it shall end.
	pauseMax = 50 * time.Millisecond
)

// Config is where and how jobs run.
type Config struct {
	// Dir is where everything is written; the caller removes it.
	Dir string
	// RSKVD is the daemon's program; "": beside this one.
	RSKVD string
	// Say is told what takes long, Watch the running count while a wave runs.
	Say   func(format string, args ...any)
	Watch func(name string, length time.Duration, live *Live) (stop func())
}

// Live is counted while jobs run.
type Live struct{ Ops, Bytes, Nanos atomic.Uint64 }

// Bench holds what jobs run on. Run may be called again and again: files and
// stores stay as they are, as fio's would.
type Bench struct {
	jobs    []*Job
	cfg     Config
	clock   clock
	targets map[string]target
	by      map[*Job]target
	laid    map[string]bool // files that have been written
	live    Live
	seed    uint64 // of draws that are not to be repeated
}

// Start opens what the jobs run on and writes what they read.
func Start(ctx context.Context, jobs []*Job, cfg Config) (b *Bench, err error) {
	b = &Bench{
		jobs: jobs, cfg: cfg, clock: clock{time.Now()}, seed: rand.Uint64(),
		targets: map[string]target{}, by: map[*Job]target{}, laid: map[string]bool{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	together := map[string][]*Job{}
	var order []string
	for _, j := range jobs {
		name := fmt.Sprintf("%s-%t", j.Engine, j.Direct && !j.store())
		if together[name] == nil {
			order = append(order, name)
		}
		together[name] = append(together[name], j)
	}
	for _, name := range order {
		t, err := b.open(ctx, name, together[name])
		if err != nil {
			return nil, err
		}
		b.targets[name] = t
		for _, j := range together[name] {
			b.by[j] = t
		}
	}
	return b, b.layOut(ctx)
}

func (b *Bench) open(ctx context.Context, name string, jobs []*Job) (target, error) {
	dir := filepath.Join(b.cfg.Dir, name)
	switch jobs[0].Engine {
	case Store:
		t, err := openStore(dir, jobs, b.clock)
		return orNil(t, err)
	case Socket:
		t, err := openSocket(ctx, b.cfg.RSKVD, dir, jobs, b.clock)
		return orNil(t, err)
	}
	t, err := openDevice(dir, jobs, b.clock)
	return orNil(t, err)
}

// orNil keeps a nil pointer from becoming an interface that is not nil.
func orNil[T target](t T, err error) (target, error) {
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Close closes everything that was opened.
func (b *Bench) Close() error {
	var err error
	for _, t := range b.targets {
		err = errors.Join(err, t.close())
	}
	return err
}

// About says what the jobs run on, one sentence for each target.
func (b *Bench) About() []string {
	var list []string
	seen := map[target]bool{}
	for _, j := range b.jobs {
		if t := b.by[j]; !seen[t] {
			seen[t] = true
			list = append(list, t.about())
		}
	}
	return list
}

// layOut writes the files that are read, or that fio would have written before.
func (b *Bench) layOut(ctx context.Context) error {
	for _, j := range b.jobs {
		name := fmt.Sprintf("%s-%t/%s", j.Engine, j.Direct && !j.store(), j.File)
		if !j.Read && !j.Overwrite || b.laid[name] {
			continue
		}
		b.laid[name] = true
		b.cfg.Say("writing %d MiB for %s", j.Size>>20, j.Name)
		w := *j
		w.Read, w.Write, w.Random, w.TimeBased, w.EndFsync = false, true, false, false, true
		w.Offset, w.IOSize, w.Loops, w.Runtime, w.Ramp, w.Fsync, w.Rate = 0, 0, 1, 0, 0, 0, [2]int{}
		block := Range{j.biggest(), j.biggest()}
		switch b.by[j].(type) {
		case *deviceTarget:
			block = Range{layoutBlock, layoutBlock}
			w.Size = (j.Size + layoutBlock - 1) / layoutBlock * layoutBlock
		default:
			// A value for each key, whose distance is the unit.
			w.Size = j.Size / j.unit() * block.Least
		}
		w.Block, w.Depth = [2]Range{block, block}, layoutDepth
		r, err := b.prepare(&w, j)
		if err != nil {
			return err
		}
		err = errors.Join(r.run(ctx, nil), r.backend.close())
		if err != nil {
			return fmt.Errorf("job %s: write what is to be read: %w", j.Name, err)
		}
	}
	return nil
}

// Run runs all jobs once, wave after wave.
func (b *Bench) Run(ctx context.Context) (*Output, error) {
	out := newOutput(b.jobs)
	begin := time.Now()
	for first := 0; first < len(b.jobs); {
		last := first
		for last < len(b.jobs) && b.jobs[last].Wave == b.jobs[first].Wave {
			last++
		}
		stats, err := b.wave(ctx, b.jobs[first:last])
		if err != nil {
			return nil, err
		}
		out.add(b.jobs[first:last], stats, time.Since(begin))
		first = last
	}
	return out, ctx.Err()
}

// wave runs jobs at the same time. What the process has used meanwhile is
// shared out evenly: a goroutine's own part cannot be told.
func (b *Bench) wave(ctx context.Context, jobs []*Job) ([]*stat, error) {
	loops := make([]*loop, len(jobs))
	var err error
	defer func() {
		for _, l := range loops {
			if l != nil {
				err = errors.Join(err, l.backend.close())
			}
		}
	}()
	length := time.Duration(0)
	for i, j := range jobs {
		if loops[i], err = b.prepare(j, j); err != nil {
			return nil, err
		}
		length = max(length, j.Ramp+j.Runtime)
	}
	stop := b.cfg.Watch(jobs[0].Name, length, &b.live)
	defer stop()
	start := newBarrier(len(jobs))
	before := b.used(jobs)
	// What the ramp takes is not to be counted: jobs of a wave have the same ramp
	// as a rule, and the first to end it takes the measure.
	start.ramped = sync.OnceFunc(func() { before = b.used(jobs) })
	errs := make([]error, len(jobs))
	var wg sync.WaitGroup
	for i, l := range loops {
		wg.Go(func() { errs[i] = l.run(ctx, start) })
	}
	wg.Wait()
	after := b.used(jobs)
	stats := make([]*stat, len(jobs))
	for i, l := range loops {
		stats[i] = l.stat
		after.share(before, len(jobs), l.stat)
		if errs[i] != nil {
			errs[i] = fmt.Errorf("job %s: %w", jobs[i].Name, errs[i])
		}
	}
	return stats, errors.Join(errs...)
}

// usage is what the process, and servers it asks, have used so far.
type usage struct {
	user, system         time.Duration
	switches, major, min int64
}

func (b *Bench) used(jobs []*Job) usage {
	var u syscall.Rusage
	// It cannot fail with these arguments.
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	sum := usage{
		user: time.Duration(u.Utime.Nano()), system: time.Duration(u.Stime.Nano()),
		switches: int64(u.Nvcsw) + int64(u.Nivcsw), major: int64(u.Majflt), min: int64(u.Minflt),
	}
	seen := map[target]bool{}
	for _, j := range jobs {
		if t := b.by[j]; !seen[t] {
			seen[t] = true
			sum.user += t.cpu()
		}
	}
	return sum
}

// share gives one of n jobs its part of what was used since before.
func (u usage) share(before usage, n int, s *stat) {
	s.cpuUser = (u.user - before.user) / time.Duration(n)
	s.cpuSystem = (u.system - before.system) / time.Duration(n)
	s.switches = (u.switches - before.switches) / int64(n)
	s.majFaults = (u.major - before.major) / int64(n)
	s.minFaults = (u.min - before.min) / int64(n)
}

// barrier lets the jobs of a wave begin together.
type barrier struct {
	ready  sync.WaitGroup
	ramped func() // called by every job whose ramp is over
}

func newBarrier(n int) *barrier {
	b := &barrier{}
	b.ready.Add(n)
	return b
}

// pass waits for the others; nil stands for a job alone.
func (b *barrier) pass() {
	if b == nil {
		return
	}
	b.ready.Done()
	b.ready.Wait()
}

// prepare makes the loop of job j, which runs on the target and file of of.
func (b *Bench) prepare(j, of *Job) (*loop, error) {
	t := b.by[of]
	back, err := t.open(j)
	if err != nil {
		return nil, fmt.Errorf("job %s: %w", j.Name, err)
	}
	seed := uint64(j.Group)<<32 + uint64(j.Clone) + 1
	if !j.Repeat {
		b.seed++
		seed += b.seed
	}
	l := &loop{
		job: j, backend: back, clock: b.clock, live: &b.live, stat: newStat(),
		pick: newPicker(j, t.segment(), seed), free: make([]*request, j.Depth), slat: make([]int64, j.Depth),
	}
	noise := rand.NewChaCha8([32]byte{byte(j.Clone), 1})
	for i := range l.free {
		room, err := back.room(j.biggest())
		if err != nil {
			return nil, errors.Join(fmt.Errorf("job %s: %w", j.Name, err), back.close())
		}
		// Bytes that no device or file system can make smaller. Read never fails.
		_, _ = noise.Read(room)
		l.free[i] = &request{slot: i, room: room}
	}
	return l, nil
}
