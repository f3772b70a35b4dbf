package epoch

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Door holds writers back for a moment, so that a commit finds a point at which
// no write is half done. Readers never see it.
//
// Each closing is an attempt object with a phase. In every phase one thing is
// true:
//
//	open       there is no attempt; BeginWrite lets everybody in
//	closing    BeginWrite lets nobody in; writers that were inside finish
//	running    no writer is inside; one goroutine runs the action
//	ran        the action has run once; the door is open again or just opening
//	abandoned  the action has not run and will not; the door likewise
//
//	from      | event                                             | to
//	----------+---------------------------------------------------+----------
//	open      | Close                                             | closing
//	closing   | anyone finds every writing flag clear             | running
//	closing   | anyone finds the limit passed                     | abandoned
//	running   | the action returns                                | ran
//	ran, abandoned | the door lets go of the attempt, wakes everyone | open
//
// Both ways out of closing are a compare-and-swap of the phase, so one
// goroutine wins and the action runs at most once.
//
// Why no writer is inside while it runs: a writer sets its flag, then looks at
// the door; the closer shuts the door, then looks at the flags (Dekker's
// protocol, sound because sync/atomic is sequentially consistent). The door
// is shut before the attempt can be found and for as long as it is closing, and
// an attempt is never used twice, so "every flag was clear" still holds when the
// swap succeeds.
//
// Why nobody waits for ever: every writer that clears its flag, refused ones
// included, looks at the flags once more; the last one to clear finds them all
// clear.
//
// Why anyone may complete or abandon: with only the committer polling, two
// CPU-bound writers were held for 3 ms at the median and 58 ms at worst, two
// hundred for up to 3.4 s, because the committer did not get a processor.
type Door struct {
	domain *Domain // immutable
	// shut is 1 while writers are refused: from before an attempt is published
	// until it has ran or been abandoned. Atomic; set by Close, cleared by
	// whoever ends the attempt; read by every BeginWrite and EndWrite.
	shut atomic.Uint32
	// attempt is nil while the door is open. Atomic; set by Close, cleared by
	// whoever ends the attempt.
	attempt atomic.Pointer[attempt]
	// committer is held during Close: one attempt at a time.
	committer sync.Mutex
}

type phase uint32

const (
	closing phase = iota
	running
	ran
	abandoned
)

// attempt is one closing of the door. Fields without a note are immutable.
type attempt struct {
	action   func()
	now      func() int64
	begin    int64
	deadline int64         // 0: none
	phase    atomic.Uint32 // a phase
	held     int64         // nanoseconds; owned by the winner until reopened is closed
	reopened chan struct{} // closed after the door has let go of the attempt
}

const (
	// CloseAttempts is how often a committer should try with limits.
	CloseAttempts = 14
	// ClosePause is how long it should leave the door open between two of them.
	ClosePause = 500 * time.Microsecond
)

// CloseLimit is the limit a committer should give to its attempt of that number, from
// 0 on, 0 meaning none: a writer that was preempted inside, for the 3 to 5 ms that
// a system gives to others, must not hold up all others for its whole absence, but a
// commit must come through in the end.
func CloseLimit(attempt int) time.Duration {
	switch {
	case attempt == 0:
		return 200 * time.Microsecond
	case attempt < CloseAttempts-1:
		return 700 * time.Microsecond
	case attempt < CloseAttempts:
		return 5 * time.Millisecond
	}
	return 0
}

// waitSpins is how often a refused writer yields before it parks: the door is
// shut for one in-memory batch, less than it takes to park and wake up.
const waitSpins = 16

// BeginWrite announces a write and reports whether the door lets it in. If so,
// EndWrite must follow soon: between the two the rules of a section hold, and
// whoever has to wait, for a flush say, ends the write first. The caller may be
// inside or outside a section. If refused, it leaves its section, calls
// Door.Wait and starts over.
func (s *Slot) BeginWrite() bool {
	s.writing.Store(1)
	return s.shut.Load() == 0 || s.retreat()
}

// EndWrite ends a write. The last writer inside runs the action of a waiting
// Close, so callers that can should leave their section first.
func (s *Slot) EndWrite() {
	s.writing.Store(0)
	if s.shut.Load() != 0 {
		s.retreat()
	}
}

// Writing reports whether the slot is between BeginWrite and EndWrite.
func (s *Slot) Writing() bool { return s.writing.Load() != 0 }

// retreat clears the flag and, as this may have been what kept an attempt from
// completing, looks at the flags of all. Out of line, so that its callers can
// be inlined; it returns false, for BeginWrite.
//
//go:noinline
func (s *Slot) retreat() bool {
	s.writing.Store(0)
	s.domain.door.complete()
	return false
}

// Close shuts the door, has action run once when no writer is inside, and
// returns when the door is open again. Writers are held from the call until the
// action has returned: held tells how long. The action may run on any
// goroutine, inside a section too, must not wait and must not pass the door.
//
// If writers are still inside after limit (0: no limit), the door reopens
// without the action having run, and Close returns false; CloseLimit says what
// to try next. now is a clock in nanoseconds, read from several goroutines.
// The caller must be neither inside a section nor writing.
func (d *Door) Close(action func(), limit time.Duration, now func() int64) (held time.Duration, ok bool) {
	d.committer.Lock()
	defer d.committer.Unlock()
	a := &attempt{action: action, now: now, begin: now(), reopened: make(chan struct{})}
	if limit > 0 {
		a.deadline = a.begin + int64(limit)
	}
	d.shut.Store(1)
	// Publish: the door is shut, so anyone may now look at the flags and act.
	d.attempt.Store(a)
	d.complete()
	for spin := 0; d.attempt.Load() == a; spin++ {
		if a.deadline == 0 && spin >= waitSpins {
			break // the last writer to leave completes it
		}
		d.expire(a)
		runtime.Gosched()
	}
	<-a.reopened
	return time.Duration(a.held), phase(a.phase.Load()) == ran
}

// Wait returns when the attempt that shut the door has ended; at once if the
// door is open. Nothing is promised about the next attempt, so the caller asks
// BeginWrite again. It must be neither inside a section nor writing.
func (d *Door) Wait() {
	a := d.attempt.Load()
	if a == nil {
		return
	}
	for range waitSpins {
		d.complete()
		d.expire(a)
		if d.attempt.Load() != a {
			return
		}
		runtime.Gosched()
	}
	<-a.reopened
}

// complete runs the action of the present attempt if no writer is inside.
func (d *Door) complete() {
	a := d.attempt.Load()
	if a == nil || phase(a.phase.Load()) != closing || d.domain.anyWriting() {
		return
	}
	if !a.phase.CompareAndSwap(uint32(closing), uint32(running)) {
		return
	}
	a.action()
	d.reopen(a, ran)
}

// expire abandons a if its limit has passed.
func (d *Door) expire(a *attempt) {
	if a.deadline == 0 || phase(a.phase.Load()) != closing || a.now() < a.deadline {
		return
	}
	if a.phase.CompareAndSwap(uint32(closing), uint32(abandoned)) {
		d.reopen(a, abandoned)
	}
}

// reopen lets the writers in again. Only the goroutine that took a out of
// closing calls it.
func (d *Door) reopen(a *attempt, outcome phase) {
	a.phase.Store(uint32(outcome))
	a.held = a.now() - a.begin
	d.shut.Store(0)
	d.attempt.Store(nil)
	close(a.reopened)
}

func (d *Domain) anyWriting() bool {
	for _, s := range *d.slots.Load() {
		if s.writing.Load() != 0 {
			return true
		}
	}
	return false
}
