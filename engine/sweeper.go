package engine

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"rskv/engine/internal/index"
	"rskv/engine/internal/record"
	"rskv/engine/internal/timers"
)

// Sweeping takes what has expired out of what is counted: Len, the live bytes. It
// concerns records in memory; those on disk only go with compaction, which counts
// them out when it drops them. Nobody depends on it to see that a key is gone.
//
// Each record with an expiry that comes to memory, written, changed in place or
// read back after an open, gets a timer. When that comes and the record has
// expired and is the newest of its key, it is swept, by how far it is:
//
//	mutable             it becomes a tombstone, under its latch
//	frozen              wait: its bytes are on their way to the device
//	frozen and written  it is marked with record.Swept, which only memory has
//	not in memory       nothing
//
// # Who counts a key out
//
// A frozen record that is superseded while it is swept must be counted out once.
// So whoever links a newer record takes the count of the old one over, after the
// link: by the mark, if that may be set, and if it was set already the key is
// counted anew. The sweeper asks how far the log is written, then looks whether the
// record is the newest, then marks; the other links, then asks. If the sweeper has
// found the record written and the newest, the other finds it written too, and one
// of them sets the mark.
//
// # Across restarts
//
// A mark is gone with the memory. So commits say what was swept: all keys that had
// expired by a time, with records at or above an address. Keys that are marked are
// taken from the count only when all up to such a time are, in one step with that
// time, so that every commit has both or neither; until then they are apart, see
// pending. When pages leave memory, sweptPast notes up to when they were swept.
type sweeper struct {
	store *Store
	task  taskRef
	idle  look

	wheel *timers.Wheel
	// until and from are what a commit says. Atomic; written by the step inside a
	// writer's section, read behind the closed door.
	until atomic.Int64
	from  atomic.Uint64
	// pending is how many keys have been marked that Store.live still counts.
	pending atomic.Int64
	dropped atomic.Uint64 // timers for which there was no memory
	warm    atomic.Uint64 // lowest address from which on records in memory have timers

	past     sweptPast
	expiring expiring

	mu struct {
		sync.Mutex
		asked []chan struct{} // closed when everything that has expired by now is swept
	}

	// Owned by the step.
	session  *Session
	addrs    [groupOps]record.Addr
	again    []timers.Timer // to be looked at with the next step
	inRound  bool           // a step has left some of what is due
	lowest   record.Addr    // warm when the round began
	head     record.Addr    // of the log when until was last raised
	followAt int64          // clock time at which the wall clock is looked at next
	purged   record.Addr    // head of the log when the last purge began
	full     uint64         // dropped then
	purging  int            // slot to be purged next; PurgeSlots: none
	began    int64          // clock time at which the round began
	swept    int            // keys of the round
}

const (
	// sweepGroups is how many groups of groupOps records a step looks at: some 300 us.
	sweepGroups = 16
	// timersShare is the part of the memory budget that timers may take. Even where
	// memory is full of records as small as they can be, each with a timer, that is
	// enough.
	timersShare = 8
	// purgeMin is how many timers there must be for those of records that have left
	// memory to be looked for.
	purgeMin  = 1 << 16
	sweepTick = (1 << timers.TickShift) * time.Millisecond
	// sweepPoll is how often it looks while the log moves and nothing expires.
	sweepPoll = time.Second
)

func (w *sweeper) init(s *Store) {
	w.store = s
	now := s.clock.now()
	w.wheel = timers.New(now, s.Memory()/timersShare)
	w.until.Store(max(s.recovery.swept, 0))
	start := record.Addr(s.spansStart())
	w.past.set(s.recovery.sweptFrom, start, s.recovery.swept)
	w.from.Store(uint64(start))
	w.warm.Store(uint64(start))
	w.lowest, w.head = start, s.log.Head()
	w.purging = timers.PurgeSlots
	w.session = s.NewSession()
	w.session.mover = true
}

// spansStart is where this run began to write.
func (s *Store) spansStart() record.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.manifest.Spans[len(s.mu.manifest.Spans)-1].Start
}

// note takes over what a session's section has done with records that expire. It is
// called behind the section, before the door can close.
func (w *sweeper) note(notes []expiryNote) {
	var list [groupOps]timers.Timer
	n := 0
	set := func() {
		if dropped := w.wheel.Insert(list[:n]); dropped > 0 {
			w.dropped.Add(uint64(dropped))
			w.task.Wake()
		}
		n = 0
	}
	for i := range notes {
		if !notes[i].timer {
			continue
		}
		list[n] = timers.Timer{Addr: notes[i].addr, Time: notes[i].expiry}
		if n++; n == len(list) {
			set()
		}
	}
	set()
	w.claim()
	w.expiring.add(notes, w.store.clock.now())
}

// claim has the growth task take the memory of the timers from the log.
func (w *sweeper) claim() {
	m := &w.store.memory
	if bytes := w.wheel.Bytes(); m.timers.Swap(bytes) != bytes {
		w.store.growth.task.Wake()
	}
}

// counted reports whether the key whose newest record, one on disk with this
// expiry, 0 for none, is at a, is counted as live.
func (w *sweeper) counted(a record.Addr, expiry int64) bool {
	return expiry == 0 || expiry > w.past.at(a)
}

// step is one step of the task.
func (w *sweeper) step() time.Duration {
	if !w.task.ready() {
		return time.Millisecond // Open is still starting the tasks
	}
	s := w.store
	if mono := s.opt.Clock.Monotonic(); mono >= w.followAt {
		w.followAt = mono + int64(clockLook)
		s.clock.follow()
	}
	w.mu.Lock()
	asked := len(w.mu.asked)
	w.mu.Unlock()
	if s.Err() != nil || asked == 0 && s.tasks.stopped(TaskExpire) {
		w.answer(asked)
		return s.restLeft() // or until it is started, or asked
	}
	settled, ended := w.round()
	if !ended {
		return 0
	}
	w.settle(settled)
	w.answer(asked)
	w.purge()
	w.claim()
	return w.rest()
}

// rest says how long to wait when nothing is due: where nothing is written, until the
// first timer comes.
func (w *sweeper) rest() time.Duration {
	switch {
	case len(w.again) > 0:
		return sweepTick
	case w.wheel.Len() == 0:
		return w.idle.after(w.store, restExpire, sweepPoll)
	}
	// The wheel is asked after the rest has begun: an earlier timer that comes behind
	// that ends it.
	wait := w.idle.after(w.store, restExpire, sweepTick)
	if left := w.wheel.Next() - w.store.clock.now(); left < wait.Milliseconds() {
		wait = max(ms(left), sweepTick)
	}
	return wait
}

// round goes on with a round: it sweeps some of what is due. If that has ended it,
// settled is up to when nothing is left.
func (w *sweeper) round() (settled int64, ended bool) {
	if !w.inRound {
		// What could not be swept in the last one.
		w.wheel.Insert(w.again)
		w.again = w.again[:0]
		w.inRound, w.lowest = true, record.Addr(w.warm.Load())
		w.began, w.swept = w.store.opt.Clock.Monotonic(), 0
	}
	now := w.store.clock.now()
	for range sweepGroups {
		n, settled := w.wheel.Due(now, w.addrs[:])
		if n == 0 {
			w.inRound = false
			if w.swept > 0 {
				w.store.stats.sweptKeys.Add(uint64(w.swept))
				w.store.tasks.ran(TaskExpire, w.began, nil)
			}
			return settled, true
		}
		w.sweep(w.addrs[:n])
	}
	return 0, false
}

// sweep looks at some records.
func (w *sweeper) sweep(addrs []record.Addr) {
	n, log := w.session, w.store.log
	if n.enter(true) != nil {
		return // closed
	}
	// Before anybody looks for the newest record, see above.
	written := log.Flushed()
	var lines [groupOps]uintptr
	var hashes [groupOps]uint64
	found := 0
	for _, a := range addrs {
		if a >= n.mem {
			lines[found] = uintptr(log.Pointer(a))
			found++
		}
	}
	index.PrefetchLines(lines[:found])
	found = 0
	for _, a := range addrs {
		if a < n.mem {
			continue
		}
		p := log.Pointer(a)
		hashes[found] = record.Hash(w.store.seed, record.Bytes(p, record.HeaderSize, record.KeyLen(record.Load0(p))))
		addrs[found] = a
		found++
	}
	w.store.index.Prefetch(hashes[:found])
	for i, a := range addrs[:found] {
		w.look(a, hashes[i], written)
	}
	n.exit()
}

// look sweeps the record at a, whose key has this hash, if that is to be.
func (w *sweeper) look(a record.Addr, hash uint64, written record.Addr) {
	n := w.session
	at := place{addr: a, ptr: w.store.log.Pointer(a)}
	at.w0 = record.Load0(at.ptr)
	w1 := record.Load1(at.ptr)
	if w1&(record.Invalid|record.Sealed|record.Swept) != 0 || w1&record.Expiry == 0 || record.KindOf(w1) == record.Tombstone {
		return
	}
	expiry := record.LoadExpiry(at.ptr, at.w0)
	if record.Locked(w1) || record.Load1(at.ptr) != w1 {
		w.again = append(w.again, timers.Timer{Addr: a, Time: 0})
		return
	}
	if expiry > n.now() {
		w.again = append(w.again, timers.Timer{Addr: a, Time: expiry})
		return
	}
	key := record.Bytes(at.ptr, record.HeaderSize, record.KeyLen(at.w0))
	if n.find(hash, key, &at); at.kind != inMemory || at.addr != a {
		return // there is a newer one
	}
	switch {
	case a >= n.ro:
		if !record.TryLock(at.ptr, w1) {
			w.again = append(w.again, timers.Timer{Addr: a, Time: 0})
			return
		}
		n.live--
		n.bytes -= n.weightAt(&at, w1)
		// It keeps its length, and what compaction has copied is no user's change.
		record.UnlockChanged(at.ptr, w1, record.Word1(record.Tombstone, record.ValueLen(w1), w1&(record.Expiry|record.Moved)))
	case a >= written:
		w.again = append(w.again, timers.Timer{Addr: a, Time: 0})
		return
	default:
		bytes := n.weightAt(&at, w1)
		if !record.Sweep(at.ptr) {
			return
		}
		n.bytes -= bytes
		w.pending.Add(1)
	}
	w.swept++
	if tree := w.store.order.tree; tree != nil {
		tree.Doubt(key)
	}
}

// settle says in the commits to come that everything up to a time is swept.
func (w *sweeper) settle(until int64) {
	s, n := w.store, w.session
	for _, t := range w.again {
		until = min(until, t.Time-1)
	}
	before, from := w.until.Load(), w.from.Load()
	if until < before || until == before && from == uint64(w.lowest) && w.pending.Load() == 0 || n.enter(true) != nil {
		return
	}
	pending := w.pending.Swap(0)
	n.live -= pending
	w.until.Store(until)
	w.from.Store(uint64(w.lowest))
	head := s.log.Head()
	if head > w.head {
		w.past.set(w.head, head, before)
	}
	w.head = head
	if pending == 0 {
		n.leave() // time has passed, no more
		return
	}
	n.exit()
}

// answer tells the first of those who asked.
func (w *sweeper) answer(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, done := range w.mu.asked[:n] {
		close(done)
	}
	w.mu.asked = w.mu.asked[n:]
}

// purge forgets the timers of records that have left memory, some slots at a time,
// whenever a quarter of the memory has been let go, or there was none for timers.
func (w *sweeper) purge() {
	head := w.store.log.Head()
	if w.purging == timers.PurgeSlots {
		gone := (head - min(head, w.purged)).Bytes() > w.store.log.Memory()/4
		if w.wheel.Len() < purgeMin || !gone && w.dropped.Load() == w.full {
			return
		}
		w.purging, w.purged, w.full = 0, head, w.dropped.Load()
	}
	for end := w.purging + timers.PurgeSlots/8; w.purging < end; w.purging++ {
		w.wheel.Purge(w.purging, head)
	}
}

// run has everything swept that has expired by now.
func (w *sweeper) run(ctx context.Context) error {
	done := make(chan struct{})
	w.mu.Lock()
	w.mu.asked = append(w.mu.asked, done)
	w.mu.Unlock()
	w.task.Wake()
	if ctx.Done() == nil {
		w.store.opt.Runner.Wait(done)
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stop ends the task, when what has expired by now is swept: what commits say of it
// is exact then.
func (w *sweeper) stop() {
	w.task.Stop()
	if !w.store.tasks.stopped(TaskExpire) && w.store.Err() == nil {
		for ended := false; !ended; {
			var settled int64
			if settled, ended = w.round(); ended {
				w.settle(settled)
			}
		}
	}
	w.mu.Lock()
	n := len(w.mu.asked)
	w.mu.Unlock()
	w.answer(n)
	w.session.Close()
}

// free gives the memory of the timers back; those that come after are dropped.
func (w *sweeper) free() { w.wheel.Free() }

// encode returns what a checkpoint says of expiry.
func (w *sweeper) encode() []byte {
	return w.past.append(w.expiring.append(nil), w.store.log.Begin())
}

// restore takes over what a checkpoint says of expiry, nothing if it is older than
// that.
func (w *sweeper) restore(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	b, err := w.expiring.restore(b)
	if err == nil {
		err = w.past.restore(b)
	}
	return err
}
