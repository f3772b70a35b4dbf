package engine

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"rskv/engine/internal/epoch"
	"rskv/engine/internal/record"
	"rskv/ioring"
)

// A commit makes a consistent prefix of all writes durable:
//
//	idle ---- cut at the closed door ----> flushing -- flushed >= end --> syncing
//	  ^                                                                      |
//	  +---------------------------- sync done: durable := end ---------------+
//
// The cut is the only moment at which writers wait: no write is half done, the
// commit record goes to the tail, everything below becomes immutable, version+1.
// Where a writer is away in the middle of a write, because the system has given its
// processor to others, the door opens again, and the cut is tried once more later.
// Reads never wait, and the door never waits for the disk. One commit serves all
// who asked before its cut; those who come later form the next one meanwhile.
//
// The commit of a snapshot checkpoint ends with its cut, as far as it goes here: an
// image of the log is made durable in the place of the log (see image.go), by the
// checkpoint, which says when it has been; other commits go on beside it. What is then
// updated in place leaves no trace at the tail, so the log counts as dirty until it
// has a commit of its own.
//
// The commit task takes a commit from state to state. Whoever asks for one may
// lend his goroutine for it instead (see Lead), if nobody is at it: then a lone
// client's put waits for the disk and for no wake-up.
type commitState uint8

const (
	commitIdle     commitState = iota // nothing is on its way
	commitFlushing                    // the group is being written
	commitSyncing                     // the group is written, its sync is under way
)

// commitPayload is the size of the commit record's payload without the ledgers, and
// of one of format version 1: see FORMAT.md.
const (
	commitPayload  = 88
	commitPayload1 = 72
)

const (
	commitMagic  = "rskvCMT2"
	commitImage  = "rskvCMTI" // the log up to the record is in an image, see image.go
	commitMagic1 = "rskvCMIT"
)

// waiter is told about the commit that covers what it has written.
type waiter func(commitResult)

// committer is the state of the commit task. Fields without a note are owned by
// whoever holds stepping.
type committer struct {
	store    *Store
	task     taskRef
	stepping sync.Mutex // held by the task during a step, or by who leads in its place

	mu struct {
		sync.Mutex
		waiters []waiter // of the next commit
		force   bool     // the next commit is made even if nothing has changed
		image   waiter   // of a cut for an image; nil: nobody
		cut     imageCut // the last one
		stopped bool
	}

	state      commitState
	waiting    atomic.Bool // the step wants to be woken when the log moves
	serving    []waiter    // of the commit under way
	last       int         // how many the commit before served
	force      bool        // the next one is made in any case
	end        record.Addr // of the group under way
	keys       int64       // live keys at its cut
	logBegin   record.Addr // at its cut
	bytes      int64       // of log they take
	swept      int64       // time up to which expired keys at or above head are not among them
	head       record.Addr // of the log, or from where on timers are set
	lastEnd    record.Addr // of the last group cut
	dataEnd    record.Addr // of the last group cut that holds more than its commit record
	told       record.Addr // what the last commit record says is durable
	sync       ioring.Op
	synced     atomic.Bool // the sync has answered
	submitting atomic.Bool // the sync is being submitted
	nextAt     int64       // clock time of the next commit nobody asked for
	attempts   int         // to cut the next group, that found a writer inside for too long
	againAt    int64       // clock time of the next one
	rested     bool        // the last step found nothing to do
	cutAt      int64       // clock time of the last cut
	cutBytes   uint64      // appended to the log until then
	beside     uint64      // appended to the log while it became durable
	payload    [commitPayload]byte
	segment    int64         // that the tail was in when prepare last looked
	entered    int64         // clock time of that
	counts     []ledgerCount // in the commit under way
	imageFor   waiter        // of the next cut for an image; nil: nobody
	encoded    []byte        // the same, as the commit record holds them

	durable atomic.Uint64 // version of the last durable commit
	// toldBegin is where the log begins according to it, in units.
	toldBegin atomic.Uint64
}

func (c *committer) init(s *Store) {
	c.store = s
	c.durable.Store(s.recovery.Version)
	c.lastEnd = s.log.Tail()
	c.nextAt = s.opt.Clock.Monotonic() + int64(max(s.opt.CommitInterval, 0))
	c.sync.Kind = ioring.Sync
	c.sync.Done = func(*ioring.Op) {
		c.synced.Store(true)
		if !c.submitting.Load() {
			c.task.Wake()
		}
	}
}

// Commit asks for a commit and returns at once. fn is called once, on a
// goroutine of the engine, when everything applied before the call is durable,
// or with the error that keeps it from becoming so; it must not block.
func (s *Store) Commit(fn func(version uint64, err error)) {
	s.commit.ask(false, func(r commitResult) { fn(r.version, r.err) })
}

// Lead is Commit on the caller's goroutine: unless a commit is under way, it makes
// one, and fn has been called when it returns. It may wait for the disk, for one
// commit at most.
func (s *Store) Lead(fn func(version uint64, err error)) {
	if s.commit.join(false, func(r commitResult) { fn(r.version, r.err) }) {
		s.commit.lead()
	}
}

// ask is Commit with the whole answer. With force there is a new commit even if
// nothing has changed since the last.
func (c *committer) ask(force bool, fn waiter) {
	if c.join(force, fn) {
		c.task.Wake()
	}
}

// join is ask for whoever sees to it that somebody begins. It reports whether there
// will be a commit; else fn has been told.
func (c *committer) join(force bool, fn waiter) bool {
	c.mu.Lock()
	stopped := c.mu.stopped
	if !stopped {
		c.mu.waiters = append(c.mu.waiters, fn)
		c.mu.force = c.mu.force || force
	}
	c.mu.Unlock()
	if stopped {
		fn(commitResult{version: c.durable.Load(), err: ErrClosed})
	}
	return !stopped
}

// lead makes one commit in the task's place. What it does not come to the end of,
// because somebody is at it, or because the device does not answer at once, is the
// task's.
func (c *committer) lead() {
	left := false
	if c.stepping.TryLock() {
		rested, again := c.rested, false
		if c.state != commitIdle || c.asked() { // else the task was faster
			began := c.store.opt.Clock.Monotonic()
			// A leader that found the task's rest begun, and then a write, has to hand on the wait.
			again = c.advance(true) >= 0 && c.rested
			c.store.tasks.ran(TaskCommit, began, nil)
		}
		// Who has ended the task's rest wakes it: writers do not any more.
		left = len(c.serving) > 0 || rested && !c.rested || again
		c.stepping.Unlock()
	}
	if left || c.asked() {
		c.task.Wake()
	}
}

// asked reports whether somebody waits for the next commit.
func (c *committer) asked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.mu.waiters) > 0
}

// step is one step of the commit task.
func (c *committer) step() time.Duration {
	if !c.task.ready() || !c.store.flush.ready() {
		return time.Millisecond // Open is still starting the tasks
	}
	if !c.stepping.TryLock() {
		// Somebody leads, and may let others run meanwhile; what is left of it is
		// ours when it is over, see lead. What is due by the clock may wait so long.
		return time.Millisecond
	}
	defer c.stepping.Unlock()
	return c.advance(false)
}

// advance takes the commit under way as far as it goes without waiting for others,
// and begins the next one, or the first if only one is wanted. It returns how long
// to wait if nobody wakes the task.
func (c *committer) advance(one bool) time.Duration {
	for {
		before := c.state
		var wait time.Duration
		switch c.state {
		case commitIdle:
			wait = c.begin()
		case commitFlushing:
			wait = c.flushing()
		case commitSyncing:
			wait = c.syncing()
		}
		if c.state == before || one && c.state == commitIdle {
			return wait
		}
	}
}

// begin cuts a commit group if there is a reason to.
func (c *committer) begin() time.Duration {
	s := c.store
	c.takeWaiters()
	if err := s.Err(); err != nil {
		s.room.look() // who waits there has to hear of it
		c.answer(err)
		c.answerImage(c.result(err))
		return -1
	}
	if c.imageFor != nil && c.imagePending() {
		c.serving, c.imageFor, c.force = append(c.serving, c.imageFor), nil, true
	}
	now := s.opt.Clock.Monotonic()
	if c.rested {
		// The interval counts from the first write on.
		c.rested, c.nextAt = false, now+int64(s.opt.CommitInterval)
		s.rests.end(restCommit)
	}
	if c.imageFor != nil {
		return c.beginImage(now)
	}
	dirty := c.dirty() || c.force
	if !dirty {
		c.answer(nil)
	}
	switch {
	case c.attempts > 0:
		if wait := time.Duration(c.againAt - now); wait > 0 {
			return wait
		}
	case len(c.serving) == 0:
		if wait := c.idle(now, dirty); wait != 0 {
			return wait
		}
	}
	if wait := c.space(now); wait > 0 {
		return wait
	}
	c.gather()
	c.nextAt = now + int64(s.opt.CommitInterval)
	if len(c.serving) > 0 && !c.force {
		c.prepare(now)
	}
	return c.tryCut()
}

// refused says when a cut is tried again that found a writer inside: who is away comes
// back meanwhile, and the others go on.
func (c *committer) refused() time.Duration {
	c.attempts++
	c.againAt = c.store.opt.Clock.Monotonic() + int64(epoch.ClosePause)
	return epoch.ClosePause
}

// tryCut cuts the group, or says how long to wait before it is tried again.
func (c *committer) tryCut() time.Duration {
	s := c.store
	switch c.cut() {
	case cutRefused:
		return c.refused()
	case cutNoPage:
		// The flusher wakes us when there is one.
		c.waiting.Store(true)
		if s.log.Stuck() {
			c.answer(errDeviceFull)
		}
		return fullWait
	}
	c.attempts = 0
	c.state = commitFlushing
	return 0
}

const (
	// spacing is how long after the last cut the next one that was asked for is made,
	// while others write much.
	spacing = time.Millisecond
	// spacingBytes is how much others append to the log, for each who waits, while a
	// commit becomes durable, where they write much: some 100 MB/s.
	spacingBytes = 16 << 10
)

// space says how long to wait before the next cut for the sake of those who write
// without asking for commits: every cut freezes what they could update in place, and
// holds them at the door. What those who wait have written themselves is little, or
// the device would be busy with it.
func (c *committer) space(now int64) time.Duration {
	if n := uint64(len(c.serving)); n == 0 || c.force || c.beside < n*spacingBytes {
		return 0
	}
	return spacing - time.Duration(now-c.cutAt)
}

// gatherTurns bounds how often those who are about to join a commit are let go first.
const gatherTurns = 4

// gather waits for those who are about to join, as long as more do: many clients
// who wait for the same commit come back at about the same time, and a commit costs
// the same for all of them as for one. Where nobody else has anything to do, it
// takes no time.
func (c *committer) gather() {
	if c.last < 2 && len(c.serving) < 2 {
		c.last = len(c.serving)
		return
	}
	for range gatherTurns {
		before := len(c.serving)
		c.store.opt.Runner.Yield()
		if c.takeWaiters(); len(c.serving) == before && before >= c.last {
			break
		}
	}
	c.last = len(c.serving)
}

// dirty reports whether something has been written since the last group was cut.
func (c *committer) dirty() bool {
	return c.store.log.Tail() > c.lastEnd || c.store.ledgers.pending()
}

// takeWaiters makes those who wait for the next commit part of the present one.
func (c *committer) takeWaiters() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serving = append(c.serving, c.mu.waiters...)
	c.mu.waiters = nil
	c.force = c.force || c.mu.force
	c.mu.force = false
	if c.mu.image != nil {
		c.imageFor, c.mu.image = c.mu.image, nil
	}
}

// slowSegment is how long a segment must last for the next one to be worth being
// written twice.
const slowSegment = 2 * time.Second

// prepare has the segments that synced writes will go to written once in
// advance, which makes commits into them up to twice as fast; not when much is
// written, since it doubles that, nor for the one commit of a checkpoint. The first
// segment of a run is prepared if nothing has been written to it yet.
func (c *committer) prepare(now int64) {
	s := c.store
	size := s.dev.SegmentSize()
	segment := s.log.Tail().Bytes()/size + 1
	if segment == c.segment {
		return
	}
	if c.segment == 0 {
		s.dev.Prepare(segment * size)
	}
	if c.segment == 0 || now-c.entered > int64(slowSegment) {
		s.dev.Prepare((segment + 1) * size)
	}
	c.segment, c.entered = segment, now
}

// idle says how long to wait when nobody asks for a commit; 0: not at all. When
// nothing has been written since the last one, a last, empty commit follows,
// which attests that it was durable: damage to it is then told from a torn tail.
func (c *committer) idle(now int64, dirty bool) time.Duration {
	interval := c.store.opt.CommitInterval
	switch {
	case interval < 0:
		return -1
	case !dirty && c.told >= c.dataEnd:
		c.store.rests.begin(restCommit)
		c.rested = true
		if !c.dirty() {
			return -1
		}
		return interval
	}
	return time.Duration(max(c.nextAt-now, 0))
}

// fullWait bounds how long a commit that found no room waits before it looks
// again.
const fullWait = 10 * time.Millisecond

// cutOutcome is what has become of a cut.
type cutOutcome uint8

const (
	cutMade    cutOutcome = iota
	cutNoPage             // there is none for the commit record
	cutRefused            // a writer has stayed inside for too long
)

// cutGroup is what has become of a group at the closed door.
type cutGroup struct {
	version  uint64
	changed  int         // ledgers
	rec, end record.Addr // commit record, end
}

// close closes the door once and ends the group, as end does that.
func (c *committer) close(magic string, end func(g *cutGroup) (ok bool)) (g cutGroup, outcome cutOutcome) {
	s := c.store
	ok := false
	clock := s.opt.Clock.Monotonic
	g.version = s.ledgers.version.Load() + 1
	action := func() {
		s.ledgers.cut(g.version, func(n int) bool {
			g.changed = n
			c.encode(magic, g.version, n)
			ok = end(&g)
			return ok
		})
	}
	held, done := s.epoch.Door().Close(action, epoch.CloseLimit(c.attempts), clock)
	s.stats.hold(held)
	if !done {
		return g, cutRefused
	}
	if !ok {
		c.attempts = 0
		return g, cutNoPage
	}
	return g, cutMade
}

// cut ends the group that the log is flushed for.
func (c *committer) cut() cutOutcome {
	s, dirty := c.store, false
	g, outcome := c.close(commitMagic, func(g *cutGroup) (ok bool) {
		dirty = s.log.Tail() > c.lastEnd || g.changed > 0
		c.told = s.log.Durable()
		g.rec, g.end, ok = s.log.Cut(c.payload[:], g.changed*ledgerEntry)
		return ok
	})
	if outcome != cutMade {
		return outcome
	}
	c.end, c.lastEnd = g.end, g.end
	c.cutAt, c.cutBytes = s.opt.Clock.Monotonic(), s.log.Appended()
	if dirty {
		c.dataEnd = c.end
	}
	c.force = false
	c.counts = s.ledgers.collect(g.version, g.rec, c.counts)
	if g.changed > 0 {
		c.encoded = appendCounts(c.encoded[:0], c.counts)
		s.log.FinishCut(g.rec, g.end, commitPayload, c.encoded)
	}
	return cutMade
}

// encode fills in the commit record's payload. It runs behind the closed door.
func (c *committer) encode(magic string, version uint64, changed int) {
	s, le, b := c.store, binary.LittleEndian, c.payload[:]
	copy(b, magic)
	le.PutUint64(b[8:], s.mu.manifest.Generation)
	le.PutUint64(b[16:], version)
	c.logBegin = s.log.Begin()
	le.PutUint64(b[24:], uint64(c.logBegin))
	le.PutUint64(b[32:], uint64(s.log.Durable()))
	c.keys = s.live.Load()
	le.PutUint64(b[40:], uint64(c.keys))
	le.PutUint32(b[48:], uint32(s.index.Bits()))
	le.PutUint32(b[52:], uint32(changed))
	le.PutUint64(b[56:], uint64(s.clock.now()))
	c.bytes = s.liveBytes.Load()
	le.PutUint64(b[64:], uint64(c.bytes))
	c.swept = s.sweep.until.Load()
	le.PutUint64(b[72:], uint64(c.swept))
	c.head = max(s.log.Head(), record.Addr(s.sweep.from.Load()))
	le.PutUint64(b[80:], uint64(c.head))
}

// flushing waits until the group has been written, then starts its sync.
func (c *committer) flushing() time.Duration {
	s := c.store
	c.waiting.Store(true)
	if s.log.Flushed() < c.end {
		// A small group is written here and now, if the device does it at
		// once: two wake-ups less.
		s.flushOnce()
	}
	if s.log.Flushed() < c.end {
		if err := s.Err(); err != nil {
			c.waiting.Store(false)
			c.state = commitIdle
			c.answer(err)
			return 0
		}
		if s.log.Stuck() {
			// The group stays and is written when there is room. Nobody waits
			// for that, not even those who would be served by the next one.
			c.takeWaiters()
			c.answer(errDeviceFull)
		}
		return -1
	}
	c.waiting.Store(false)
	c.synced.Store(false)
	c.sync.N, c.sync.Err = 0, nil
	c.state = commitSyncing
	// What is done at once needs no wake-up: syncing looks next.
	c.submitting.Store(true)
	s.dev.Submit([]*ioring.Op{&c.sync})
	c.submitting.Store(false)
	return 0
}

// syncing waits for the sync and tells those who wait.
func (c *committer) syncing() time.Duration {
	s := c.store
	if !c.synced.Load() {
		return -1
	}
	c.state = commitIdle
	if err := c.sync.Err; err != nil {
		s.log.Fail(fmt.Errorf("sync: %w", err))
		c.answer(s.Err())
		return 0
	}
	// The counts first: whoever sees the log durable up to a commit must see
	// its counts too.
	c.mu.Lock()
	c.raiseImagedLocked()
	raiseCounts(c.counts)
	s.log.SetDurable(c.end)
	c.toldBegin.Store(uint64(c.logBegin))
	c.beside = s.log.Appended() - c.cutBytes
	c.durable.Store(s.ledgers.version.Load())
	c.mu.Unlock()
	s.stats.commits.Add(1)
	s.feeds.wake()
	c.answer(nil)
	return 0
}

// answer tells everyone the commit under way serves how it ended.
func (c *committer) answer(err error) {
	serving := c.serving
	c.serving = nil
	for _, fn := range serving {
		fn(c.result(err))
	}
}

// result is what there is to tell about the last cut.
func (c *committer) result(err error) commitResult {
	return commitResult{
		version: c.durable.Load(), end: c.end, begin: c.logBegin, keys: c.keys, bytes: c.bytes, swept: c.swept, head: c.head, err: err,
	}
}

// stop ends the task and answers who is left.
func (c *committer) stop() {
	c.task.Stop()
	c.stepping.Lock()
	defer c.stepping.Unlock()
	c.mu.Lock()
	c.serving = append(c.serving, c.mu.waiters...)
	c.mu.waiters = nil
	c.mu.stopped = true
	image := c.mu.image
	c.mu.image = nil
	c.mu.Unlock()
	c.answer(ErrClosed)
	for _, fn := range []waiter{c.imageFor, image} {
		if fn != nil {
			fn(c.result(ErrClosed))
		}
	}
}

// flushStep is one step of the flush task.
func (s *Store) flushStep() time.Duration {
	s.flushing.Lock()
	wait := s.log.FlushStep(s.opt.Clock.Monotonic())
	s.flushing.Unlock()
	s.room.look()
	s.forward.look()
	if s.commit.waiting.Load() {
		s.commit.task.Wake()
	}
	// With the log left to others: it takes long.
	if s.log.Populate() {
		return 0
	}
	return wait
}

// flushOnce does what the flush task would do next, and leaves to it what that is
// at already, and what takes longer.
func (s *Store) flushOnce() {
	wait := time.Duration(0)
	if s.flushing.TryLock() {
		for range flushRounds {
			if wait = s.log.FlushStep(s.opt.Clock.Monotonic()); wait != 0 {
				break
			}
		}
		s.flushing.Unlock()
	}
	if wait >= 0 {
		s.flush.Wake()
	}
}

// flushRounds is enough to submit a small group and to see it written.
const flushRounds = 3
