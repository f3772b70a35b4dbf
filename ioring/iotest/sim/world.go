package sim

import (
	"container/heap"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// World is one simulated machine. All of it, fibers included, runs on the
// goroutine of Run; other methods are called from there only.
type World struct {
	rng    *rand.Rand // latencies and choices
	now    int64      // ns since the beginning
	wall   int64      // ms since 1970 at the beginning, and what it was moved by
	events events
	seq    uint64 // of the next event
	fibers []*fiber
	born   int // fibers there have ever been
	self   *fiber
	failed error
	hash   uint64
	steps  atomic.Uint64
	seed   uint64
	trace  func(line string)
}

const (
	// stepsMax is how many events a world may have: who does not come to an end
	// within runs in a circle.
	stepsMax = 1_000_000
	// stall is how long an event may take by the real clock: who takes longer waits
	// for a lock that a parked fiber has, or runs in a circle.
	stall = 2 * time.Minute
	// wallStart is the wall time at which a world begins.
	wallStart = 1_700_000_000_000
)

// NewWorld returns a world in which nothing has happened.
func NewWorld(seed uint64) *World {
	return &World{rng: rand.New(rand.NewPCG(seed, 0x5157)), wall: wallStart, hash: seed, seed: seed}
}

// Trace has every event told as a line of text.
func (w *World) Trace(tell func(line string)) { w.trace = tell }

// Hash sums up everything that has happened so far.
func (w *World) Hash() uint64 { return w.hash }

// Steps is how many events there have been.
func (w *World) Steps() uint64 { return w.steps.Load() }

// Stamp is a number that rises with every event and every call: what has the
// lower one came first.
func (w *World) Stamp() uint64 {
	w.seq++
	return w.seq
}

// Monotonic is the time in nanoseconds. It goes on a little with every look, so
// that who waits by looking comes to an end.
func (w *World) Monotonic() int64 {
	w.now += w.rng.Int64N(200)
	return w.now + 1
}

// Wall is the wall time in milliseconds since 1970.
func (w *World) Wall() int64 { return w.wall + w.now/int64(time.Millisecond) }

// MoveWall sets the wall clock on, or back.
func (w *World) MoveWall(by time.Duration) { w.wall += by.Milliseconds() }

// note makes an event part of the trace.
func (w *World) note(kind, name string, a, b uint64) {
	h := w.hash
	for _, s := range [2]string{kind, name} {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 0x100000001b3
		}
	}
	for _, x := range [3]uint64{uint64(w.now), a, b} {
		h = (h ^ x) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	w.hash = h
	if w.trace != nil {
		w.trace(fmt.Sprintf("%12.3f us  %-10s %s %x %x", float64(w.now)/1000, kind, name, a, b))
	}
}

// Note makes something that the caller has seen part of the trace.
func (w *World) Note(kind, name string, a, b uint64) { w.note(kind, name, a, b) }

// event is something that will happen.
type event struct {
	at   int64
	seq  uint64 // among those of one time
	name string
	run  func()
}

// events is a heap, the next one first.
type events []*event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(*event)) }
func (e *events) Pop() any {
	n := len(*e) - 1
	x := (*e)[n]
	(*e)[n] = nil
	*e = (*e)[:n]
	return x
}

// after has run called when so many nanoseconds have passed.
func (w *World) after(delay int64, name string, run func()) {
	w.seq++
	heap.Push(&w.events, &event{at: w.now + delay, seq: w.seq, name: name, run: run})
}

// fiber is a coroutine of the world.
//
//	ready     an event will resume it
//	waiting   for ch, for being woken, or for a time, see due
//	over      its function has returned
type fiber struct {
	w     *World
	id    int
	name  string
	state fiberState
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool

	ch    <-chan struct{} // nil: none
	task  *Task           // it waits to be woken; nil: it does not
	until int64           // time at which it goes on anyway; 0: never
}

type fiberState uint8

const (
	fiberReady fiberState = iota
	fiberWaiting
	fiberOver
)

// killed is thrown through a fiber that is not needed any more.
type killed struct{}

// start makes a fiber that runs fn.
func (w *World) start(name string, fn func()) *fiber {
	f := &fiber{w: w, id: w.born, name: name}
	w.born++
	f.next, f.stop = iter.Pull(func(yield func(struct{}) bool) {
		f.yield = yield
		defer f.ended()
		fn()
	})
	w.fibers = append(w.fibers, f)
	w.resumeLater(f)
	return f
}

// ended is deferred by a fiber: what it panics with becomes the world's failure.
func (f *fiber) ended() {
	f.state = fiberOver
	switch p := recover().(type) {
	case nil, killed:
	case failure:
		f.w.fail(p.err)
	default:
		f.w.fail(fmt.Errorf("panic in %s: %v\n%s", f.name, p, debug.Stack()))
	}
}

type failure struct{ err error }

// Fail ends the world with an error, and the fiber that calls it.
func (w *World) Fail(err error) {
	panic(failure{err})
}

func (w *World) fail(err error) {
	if w.failed == nil {
		w.failed = err
	}
}

// park gives control back to Run until the fiber is resumed.
func (f *fiber) park() {
	if !f.yield(struct{}{}) {
		panic(killed{})
	}
}

// Go runs fn as a fiber of its own.
func (w *World) Go(name string, fn func()) { w.start(name, fn) }

// Wait returns when ch is closed or a value has been received from it.
func (w *World) Wait(ch <-chan struct{}) {
	f := w.mustBeFiber()
	select {
	case <-ch:
		if w.rng.IntN(8) > 0 {
			return
		}
		w.Yield() // others may be faster
		return
	default:
	}
	f.ch = ch
	f.wait()
}

// Yield lets others run.
func (w *World) Yield() {
	f := w.mustBeFiber()
	w.resumeLater(f)
	f.park()
}

// Sleep returns when so much time has passed.
func (w *World) Sleep(d time.Duration) {
	f := w.mustBeFiber()
	f.until = w.now + int64(d)
	w.after(int64(d), "timer", func() {})
	f.wait()
}

// Group runs fns as fibers and returns when all have returned.
func (w *World) Group(name string, fns ...func()) {
	done := make(chan struct{}, len(fns))
	for i, fn := range fns {
		w.start(fmt.Sprintf("%s %d", name, i), func() {
			defer func() { done <- struct{}{} }()
			fn()
		})
	}
	for range fns {
		w.Wait(done)
	}
}

// Rand is a number from 0 to n-1.
func (w *World) Rand(n int) int { return w.rng.IntN(n) }

func (w *World) mustBeFiber() *fiber {
	if w.self == nil {
		panic("sim: called from outside of every fiber")
	}
	return w.self
}

func (f *fiber) wait() {
	f.state = fiberWaiting
	f.park()
}

// resumeLater has f go on in a while: mostly very soon, at times so late that
// everything else has gone on meanwhile, as if the system had run somebody else.
func (w *World) resumeLater(f *fiber) {
	f.state = fiberReady
	f.ch, f.until = nil, 0
	w.after(w.latency(), f.name, func() { w.resume(f) })
}

// latency is how long a fiber that can run does not, in nanoseconds.
func (w *World) latency() int64 {
	switch x := w.rng.IntN(1000); {
	case x < 700:
		return w.rng.Int64N(1000)
	case x < 950:
		return w.rng.Int64N(20_000)
	case x < 998:
		return w.rng.Int64N(500_000)
	}
	return w.rng.Int64N(20_000_000)
}

// resume lets f run until it parks or ends.
func (w *World) resume(f *fiber) {
	if f.state == fiberOver {
		return
	}
	w.note("run", f.name, uint64(f.id), 0)
	w.self = f
	_, more := f.next()
	w.self = nil
	if !more {
		f.state = fiberOver
	}
}

// wakeWaiting makes those ready whose wait has ended. It goes over them in the
// order of their birth, so that the order in which they were woken does not
// matter.
func (w *World) wakeWaiting() {
	over := false
	for _, f := range w.fibers {
		switch {
		case f.state == fiberOver:
			over = true
		case f.state == fiberWaiting && f.waitIsOver():
			w.resumeLater(f)
		}
	}
	if over {
		w.fibers = slices.DeleteFunc(w.fibers, func(f *fiber) bool { return f.state == fiberOver })
	}
}

func (f *fiber) waitIsOver() bool {
	if f.ch != nil {
		select {
		case <-f.ch:
			return true
		default:
		}
	}
	return f.task != nil && (f.task.woken || f.task.quit) || f.until != 0 && f.w.now >= f.until
}

// Run runs main as the first fiber, and everything that it starts, and returns
// when main has. It is an error if main does not come to an end, panics or
// fails, or leaves fibers behind. An event that does not come to an end cannot be
// ended either: it is the end of the process, with the seed.
func (w *World) Run(main func()) error {
	first := w.start("main", main)
	defer w.kill()
	over := make(chan struct{})
	defer close(over)
	go w.guard(over, stall, func(stuck error) {
		debug.SetTraceback("all")
		panic(stuck)
	})
	for w.failed == nil && first.state != fiberOver {
		if len(w.events) == 0 {
			w.fail(fmt.Errorf("everybody waits: %s", w.waiting()))
			break
		}
		if w.steps.Add(1) > stepsMax {
			w.fail(fmt.Errorf("no end after %d steps and %v: %s", stepsMax, time.Duration(w.now), w.waiting()))
			break
		}
		e := heap.Pop(&w.events).(*event)
		w.now = max(w.now, e.at)
		w.happen(e)
		w.wakeWaiting()
	}
	if w.failed == nil && len(w.fibers) > 0 {
		w.fail(fmt.Errorf("left behind: %s", w.waiting()))
	}
	return w.failed
}

// guard calls stuck when an event takes longer than most, until over is closed.
func (w *World) guard(over <-chan struct{}, most time.Duration, stuck func(error)) {
	tick := time.NewTicker(most)
	defer tick.Stop()
	for before := w.Steps(); ; {
		select {
		case <-over:
			return
		case <-tick.C:
		}
		now := w.Steps()
		if now == before {
			stuck(fmt.Errorf("seed %d: step %d does not end: a fiber waits for a lock, or runs in a circle", w.seed, now))
			return
		}
		before = now
	}
}

// happen lets an event happen. What it panics with is the world's failure.
func (w *World) happen(e *event) {
	defer func() {
		if p := recover(); p != nil {
			w.fail(fmt.Errorf("panic in event %s: %v\n%s", e.name, p, debug.Stack()))
		}
	}()
	e.run()
}

// kill ends all fibers. After a failure some are in the middle of something.
func (w *World) kill() {
	for _, f := range w.fibers {
		if f.state != fiberOver {
			w.self = f
			f.stop()
		}
	}
	w.self = nil
}

// waiting says who is there, for error messages.
func (w *World) waiting() string {
	var list []string
	for _, f := range w.fibers {
		switch {
		case f.state == fiberReady:
			list = append(list, f.name+" can run")
		case f.task != nil:
			list = append(list, f.name+" is not woken")
		case f.ch != nil:
			list = append(list, f.name+" waits for a channel")
		default:
			list = append(list, f.name+" sleeps")
		}
	}
	if len(list) == 0 {
		return "nobody is there"
	}
	return strings.Join(list, ", ")
}
