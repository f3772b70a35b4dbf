package engine

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Clock tells the engine the time. A simulation brings its own.
type Clock interface {
	// Monotonic is a time in nanoseconds that never goes back.
	Monotonic() int64
	// Wall is the wall time in milliseconds since 1970.
	Wall() int64
}

// Runner runs the engine's background tasks and lets its callers wait. The
// engine starts no goroutine itself, so whoever brings the Runner decides what
// runs when: goroutines in a daemon, one loop with one seed in a simulation.
type Runner interface {
	// Start begins to run step again and again, never twice at a time. step
	// returns how long to wait before the next run: 0 not at all, negative
	// until the task is woken.
	Start(name string, step func() time.Duration) Task
	// Wait returns when ch is closed or a value can be received from it.
	Wait(ch <-chan struct{})
	// Yield lets others run.
	Yield()
	// Parallel is how many tasks can make progress at a time.
	Parallel() int
}

// Task is one running background task.
type Task interface {
	// Wake makes the task run soon; it never blocks. A task that is running
	// when it is woken runs once more.
	Wake()
	// Stop ends the task and returns when it is not running any more.
	Stop()
}

// taskRef is a Task that may be woken while it is being started.
type taskRef struct{ task atomic.Pointer[Task] }

func (r *taskRef) set(t Task)  { r.task.Store(&t) }
func (r *taskRef) ready() bool { return r.task.Load() != nil }

func (r *taskRef) Wake() {
	if t := r.task.Load(); t != nil {
		(*t).Wake()
	}
}

func (r *taskRef) Stop() { (*r.task.Load()).Stop() }

type systemClock struct{ start time.Time }

// SystemClock returns the machine's clock.
func SystemClock() Clock { return systemClock{time.Now()} }

func (c systemClock) Monotonic() int64 { return int64(time.Since(c.start)) + 1 }
func (c systemClock) Wall() int64      { return time.Now().UnixMilli() }

type goRunner struct{}

// GoRunner returns a Runner with one goroutine a task.
func GoRunner() Runner { return goRunner{} }

func (goRunner) Wait(ch <-chan struct{}) { <-ch }
func (goRunner) Yield()                  { runtime.Gosched() }
func (goRunner) Parallel() int           { return runtime.GOMAXPROCS(0) }

func (goRunner) Start(_ string, step func() time.Duration) Task {
	t := &goTask{wake: make(chan struct{}, 1), quit: make(chan struct{}), gone: make(chan struct{})}
	go t.run(step)
	return t
}

type goTask struct {
	wake chan struct{}
	quit chan struct{}
	gone chan struct{}
	once sync.Once
}

func (t *goTask) Wake() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *goTask) Stop() {
	t.once.Do(func() { close(t.quit) })
	<-t.gone
}

func (t *goTask) run(step func() time.Duration) {
	defer close(t.gone)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-t.quit:
			return
		default:
		}
		wait := step()
		if wait == 0 {
			continue
		}
		var expired <-chan time.Time
		if wait > 0 {
			timer.Reset(wait)
			expired = timer.C
		}
		select {
		case <-t.quit:
			return
		case <-t.wake:
		case <-expired:
		}
	}
}
