// Package epoch tells when everybody has moved on.
//
// # Sections
//
// A session touches shared memory (log pages, index buckets) only inside a
// section, between Enter and Exit of its Slot. To take something away, the
// owner of a marker first moves the marker and then calls Bump with an action:
//
//	write marker ; Bump(action)  =  action runs when everyone has seen the marker
//
// The Domain counts epochs. A slot holds the epoch it entered in, 0 outside:
//
//	              Bump, prior 7           every slot is 0 or > 7
//	epoch      7 ------+----- 8 -----------------+------------------
//	slot A     0 7 7 7 7 7 0 0 8 8 8 8           |
//	slot B     7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 0 B leaves and runs the action
//
// Why it is right. All words are accessed with sync/atomic, which is
// sequentially consistent. The marker is written before the epoch is counted
// up, and the slots are looked at after that. A slot seen as 0 or with a newer
// epoch has left every section in which it could have read the old marker. A
// slot that publishes an old number after it was looked at is harmless: its
// reads follow its store, the store follows the look, so it reads the new
// marker.
//
// Why no action is forgotten. Bump publishes the action before it looks at the
// slots; Exit and Refresh clear the slot before they look for actions. So of
// the last slot in the way and the bumper at least one sees the other, and
// whoever finds the way free drains.
//
// One goroutine drains at a time, in the order of the Bumps; others that come
// meanwhile make it look again and go on. Hence Bump inside an action only
// queues, and a chain of actions is a loop, not a recursion.
//
// # Rules for callers
//
//   - Nothing blocks inside a section: no channel, no unbounded lock, no I/O.
//   - After Refresh or Exit every address and pointer read before is void.
//   - An action is short, does not wait and does not use the slot of the
//     session that happens to run it. It runs outside any section (Exit, Drain)
//     or inside the newly begun one of the caller (Refresh, Bump).
//   - A Slot is used by one goroutine at a time.
//   - A store that falls silent is drained by its last Exit; maintenance may
//     call Drain besides.
//
// The list of waiting actions has no limit of its own: a marker that waits for
// its action does not let its owner go on for more than the memory it guards,
// so there are never more than a few per log page.
//
// # The door
//
// Writers have a flag of their own beside the epoch, so that a commit can hold
// them back for a moment while readers pass: see door.go.
package epoch

import (
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"rskv/engine/internal/invariant"
)

// Domain is one set of slots with its epoch, waiting actions and door. Its
// methods may be called from any goroutine.
type Domain struct {
	// epoch counts Bumps, from 1 on: 0 in a slot means "outside". Atomic;
	// written by Bump under mu, read by every Enter.
	epoch atomic.Uint64
	// oldest is the prior epoch of the first waiting action, 0 if there is
	// none. Atomic; written under mu, read by every Exit.
	oldest atomic.Uint64
	// slots lists every slot ever made. Atomic; replaced under mu by a longer
	// copy, the slots themselves never move.
	slots atomic.Pointer[[]*Slot]
	door  Door

	_ [64]byte // what follows changes often; the words above are read on every entry

	// blocker is the slot that was in the way when somebody last looked: while
	// it is, one load replaces the walk over all slots. Atomic, a hint.
	blocker atomic.Pointer[Slot]
	// drainers is 0 when nobody drains, else 1 + the calls that came meanwhile.
	drainers atomic.Int64
	// pending counts actions queued or running. Atomic.
	pending atomic.Int64

	mu struct {
		sync.Mutex
		waiting []waiting // in the order of prior
		free    []*Slot   // released, to be given out again
	}
}

// waiting is an action that may run when no slot is active in an epoch <= prior.
type waiting struct {
	prior  uint64
	action func()
}

// Slot is one session's place in a Domain. It belongs to the goroutine that
// uses the session; others only read its two words. It fills two cache lines
// because processors fetch lines in pairs: sixteen slots of 8 bytes in one
// place cost 19.7 ns an entry on two cores, padded ones 2.2 ns.
type Slot struct {
	epoch   atomic.Uint64 // the epoch entered in; 0 outside
	writing atomic.Uint32 // 1 between BeginWrite and EndWrite
	taken   bool          // given out by Register; guarded by domain.mu
	domain  *Domain       // immutable
	// shut is &domain.door.shut, immutable: one step less, without which
	// BeginWrite and EndWrite are too big to be inlined.
	shut *atomic.Uint32
	_    [slotSize - 32]byte
}

// slotSize is both the size of a Slot and, because Go's allocator has a size
// class of 128 bytes, its alignment.
const slotSize = 128

var _ [slotSize]byte = [unsafe.Sizeof(Slot{})]byte{}

// New returns a Domain without slots.
func New() *Domain {
	d := &Domain{}
	d.epoch.Store(1)
	d.slots.Store(new([]*Slot))
	d.door.domain = d
	return d
}

// Register returns a slot that nobody else uses until it is released.
func (d *Domain) Register() *Slot {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.mu.free); n > 0 {
		s := d.mu.free[n-1]
		d.mu.free = d.mu.free[:n-1]
		s.taken = true
		return s
	}
	s := &Slot{domain: d, shut: &d.door.shut, taken: true}
	old := *d.slots.Load()
	grown := make([]*Slot, len(old)+1)
	copy(grown, old)
	grown[len(old)] = s
	// Publish: a walk that began earlier misses this slot, which is harmless,
	// because everything the slot's owner reads comes after this store.
	d.slots.Store(&grown)
	return s
}

// Release gives the slot back. It must be outside any section and not writing.
func (s *Slot) Release() {
	d := s.domain
	d.mu.Lock()
	defer d.mu.Unlock()
	if !s.taken || s.epoch.Load() != 0 || s.writing.Load() != 0 {
		panic(fmt.Sprintf("epoch: release of a slot in use: taken %t, epoch %d, writing %d",
			s.taken, s.epoch.Load(), s.writing.Load()))
	}
	s.taken = false
	d.mu.free = append(d.mu.free, s)
}

// Enter begins a section: what the caller reads from now on stays until Exit or
// Refresh. It never runs an action.
func (s *Slot) Enter() {
	if invariant.Enabled && s.epoch.Load() != 0 {
		panic("epoch: Enter inside a section")
	}
	s.epoch.Store(s.domain.epoch.Load())
}

// Exit ends the section, and runs the actions it was the last to hold up.
func (s *Slot) Exit() {
	if invariant.Enabled && s.epoch.Load() == 0 {
		panic("epoch: Exit outside a section")
	}
	s.epoch.Store(0)
	if s.domain.oldest.Load() != 0 {
		s.domain.Drain()
	}
}

// Refresh is Exit and Enter in one step.
func (s *Slot) Refresh() {
	if invariant.Enabled && s.epoch.Load() == 0 {
		panic("epoch: Refresh outside a section")
	}
	s.epoch.Store(s.domain.epoch.Load())
	if s.domain.oldest.Load() != 0 {
		s.domain.Drain()
	}
}

// Active reports whether the slot is inside a section.
func (s *Slot) Active() bool { return s.epoch.Load() != 0 }

// Bump begins a new epoch and runs action exactly once, when every slot that is
// active now has left its section or refreshed: perhaps before Bump returns,
// perhaps on another goroutine. Called inside a section, it waits for that
// section too.
func (d *Domain) Bump(action func()) {
	d.pending.Add(1)
	d.mu.Lock()
	prior := d.epoch.Add(1) - 1
	d.mu.waiting = append(d.mu.waiting, waiting{prior, action})
	if len(d.mu.waiting) == 1 {
		d.oldest.Store(prior)
	}
	d.mu.Unlock()
	d.Drain()
}

// Drain runs the actions that nobody is in the way of. If another goroutine is
// draining, that one takes care of it and Drain returns at once.
func (d *Domain) Drain() {
	prior := d.oldest.Load()
	if prior == 0 || d.blocked(prior) {
		return // the slot in the way drains when it leaves
	}
	calls := d.drainers.Add(1)
	if calls != 1 {
		return // seen by the goroutine that drains, below
	}
	for {
		for action := d.take(); action != nil; action = d.take() {
			action()
			d.pending.Add(-1)
		}
		if d.drainers.CompareAndSwap(calls, 0) {
			return
		}
		calls = d.drainers.Load()
	}
}

// Inside reports whether anybody is in a section.
func (d *Domain) Inside() bool {
	for _, s := range *d.slots.Load() {
		if s.Active() {
			return true
		}
	}
	return false
}

// Pending returns the number of actions that wait or run at this moment.
func (d *Domain) Pending() int { return int(d.pending.Load()) }

// Door returns the door the writers of this domain pass.
func (d *Domain) Door() *Door { return &d.door }

// take removes the first waiting action if it may run, else returns nil. Only
// the goroutine that drains calls it, so the first one stays the first.
func (d *Domain) take() func() {
	prior := d.oldest.Load()
	if prior == 0 || d.blocked(prior) {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	first := d.mu.waiting[0]
	if first.prior != prior {
		panic(fmt.Sprintf("epoch: first waiting action has epoch %d, want %d", first.prior, prior))
	}
	d.mu.waiting[0].action = nil
	d.mu.waiting = d.mu.waiting[1:]
	next := uint64(0)
	if len(d.mu.waiting) > 0 {
		next = d.mu.waiting[0].prior
	} else {
		d.mu.waiting = nil
	}
	d.oldest.Store(next)
	return first.action
}

// blocked reports whether a slot is active in an epoch <= prior.
func (d *Domain) blocked(prior uint64) bool {
	if b := d.blocker.Load(); b != nil && b.holds(prior) {
		return true
	}
	for _, s := range *d.slots.Load() {
		if s.holds(prior) {
			d.blocker.Store(s)
			return true
		}
	}
	return false
}

func (s *Slot) holds(prior uint64) bool {
	e := s.epoch.Load()
	return e != 0 && e <= prior
}
