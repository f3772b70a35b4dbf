package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"rskv/engine/internal/record"
)

// A compaction pass (FASTER's compaction by lookup) makes the log begin later:
//
//	begin            until                                    tail
//	|== pass ========|----------------------------------------|
//	   live records -------------------------------------------> copies
//
//	idle -> judging -> resolving -> (committing ->) sweeping -> idle
//
// Judging goes over every record of the region, page by page, and asks the index:
// the newest record of a chain is live and is copied at once; one that has a newer
// record of its key in memory is dead; a few have to be moved like any operation that
// needs the disk (see move.go). What remains is dead if the newest record of its
// chain, which is on disk, has its key, as nearly all have: a suspect.
//
// Resolving reads the records that suspects depend on in the order of their
// addresses, in long stretches where they lie close together (see resolver.go). What
// is alive after all is moved.
//
// Then begin is raised in memory: whoever looks below it finds nothing, and everything
// live is above. The commit that follows carries the copies and the new begin: while
// the disk budget allows that, the next one that comes by itself, beside the next pass,
// else one that is asked for. Only when that is durable are segments freed, those that
// no kept checkpoint and no backup needs, after the manifest says so.
//
// A crash before the commit finds the old begin and every original; after it, the
// new begin and every copy. A tombstone is not copied: whatever it hides is older,
// hence also below until, and goes with it. Reads under way when begin moves find
// that out by themselves, see readStale.
//
// A pass has several workers, who take pages and stretches in turn and need no other
// order among themselves: the swap of the index entry that a copy is published by
// decides. Where the region ends is found out on the way: where what is copied before
// anything is freed would not fit the disk budget, or the suspects their memory.
//
// A large value is written anew when one of its chunks is met, see opMoveChunk. A
// chunk that is not linked yet keeps until from passing it.
type compactState uint8

const (
	compactIdle       compactState = iota // nothing is under way
	compactJudging                        // live records go to the tail, suspects on the list
	compactResolving                      // suspects are looked into
	compactCommitting                     // the commit of the copies is under way
	compactSweeping                       // index entries that lead nowhere are removed
)

const (
	// compactPending bounds the look-ups of a worker that wait for the disk.
	compactPending = 256
	// compactGroup is how many records are judged at a time.
	compactGroup = groupOps
	// compactWorkers bounds the workers.
	compactWorkers = 4
	// compactLook is how often the task looks whether a pass is due while the log
	// moves, compactPoll while something keeps it from one, compactRetry how long it
	// waits after one that failed.
	compactLook  = 100 * time.Millisecond
	compactPoll  = time.Second
	compactRetry = 10 * time.Second
)

type compactRequest struct {
	until  record.Addr
	result CompactResult
	err    error
	done   chan struct{} // closed when result and err are there
}

// compactor is the state of the compaction task. Fields without a note are owned
// by the task's step.
type compactor struct {
	store *Store
	task  taskRef
	look  look

	mu struct {
		sync.Mutex
		asked     *compactRequest
		committed *commitResult // answer of the commit under way
		stopped   bool
	}
	waitTail  atomic.Uint64 // no pass for the live ratio's sake below this tail
	stuck     atomic.Bool   // the last pass failed
	liveRatio atomic.Uint64 // bits of the float; see SetLiveRatio
	allLive   atomic.Int64  // from so many live bytes on, passes have freed nothing
	last      atomic.Pointer[PassStats]

	state     compactState
	request   *compactRequest
	result    CompactResult
	began     int64  // clock
	moved     uint64 // bytes copied when the pass began
	movedRecs uint64 // records
	until     record.Addr
	target    record.Addr // where a pass that was asked for has to get to
	notBefore int64
	durable   record.Addr // begin according to the last commit
	owedSince int64       // clock time since which a commit has to tell of begin; 0: none has
	counted   bool        // the commit under way is for passes that have ended

	workers []*compactWorker

	// What the workers look at. These are set before the reader is.
	begin      record.Addr // of the region
	space      passSpace
	passBegan  int64  // clock
	passMoved  uint64 // bytes copied when the region was begun
	appendedAt uint64 // bytes appended when it was
	byHand     bool   // the pass was asked for
	passOpened int64  // room.opened when the region was begun, negative if nobody waited

	reader   atomic.Pointer[pageReader] // while judging
	resolver atomic.Pointer[resolver]   // while resolving
	failed   atomic.Pointer[error]      // why the pass ends early
	read     atomic.Int64               // bytes judged since it began
	dropped  atomic.Int64               // keys of the region that are counted and have expired
	records  atomic.Int64               // judged since the pass began
	perPage  atomic.Int64               // most suspects of a page so far
	posted   atomic.Int64               // parts of large values, see compactWorker.post

	swept record.Addr // up to where the index has been swept

	row   uint64 // of the index, to be swept next
	drain grace  // of sections that began before the sweep

	// cycle is a run of passes over the whole log as it was when it began.
	cycleTail    record.Addr
	cycleScanned int64
	cycleCopied  int64
	cycleOpened  int64 // room.opened when it began, if writers waited already; else negative
	cycleBegan   int64 // by the store's clock, as startedAt
	startedAt    int64 // when the region was begun
}

func (c *compactor) init(s *Store) {
	c.store = s
	c.liveRatio.Store(math.Float64bits(s.opt.LiveRatio))
	c.durable = s.log.Begin()
	for i := range max(1, min(s.opt.Runner.Parallel(), compactWorkers)) {
		c.workers = append(c.workers, newCompactWorker(c, i))
	}
}

// startTasks starts the task, which is also the first worker, and the other workers.
func (c *compactor) startTasks() {
	s := c.store
	c.task.set(s.opt.Runner.Start(string(TaskCompact), c.step))
	for i, w := range c.workers[1:] {
		w.task.set(s.opt.Runner.Start(fmt.Sprintf("%s %d", TaskCompact, i+2), w.step))
	}
}

func (c *compactor) ask(r *compactRequest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.mu.stopped:
		return ErrClosed
	case c.mu.asked != nil:
		return ErrCompacting
	}
	c.mu.asked = r
	c.task.Wake()
	return nil
}

// wake wakes all workers: there is something to do.
func (c *compactor) wake() {
	c.task.Wake()
	for _, w := range c.workers[1:] {
		w.task.Wake()
	}
}

// step is one step of the compaction task.
func (c *compactor) step() time.Duration {
	if !c.task.ready() {
		return time.Millisecond // Open is still starting the tasks
	}
	switch c.state {
	case compactIdle:
		wait := c.start()
		if wait != 0 {
			c.store.rests.end(restProcessor)
		}
		return wait
	case compactJudging, compactResolving:
		return c.work()
	case compactCommitting:
		return c.committing()
	}
	return c.sweep()
}

// start begins a pass if one was asked for or is due.
func (c *compactor) start() time.Duration {
	s := c.store
	again := c.request != nil // the region was too small for the whole of it
	c.mu.Lock()
	c.request = c.mu.asked
	c.mu.Unlock()
	now := s.opt.Clock.Monotonic()
	limit := s.log.Durable()
	if c.request != nil {
		if c.request.until != 0 {
			limit = min(limit, c.request.until)
		}
	} else {
		c.told()
		before := c.result.Freed
		freeErr := c.free() // a checkpoint that held it back may have gone
		c.freedLater(c.result.Freed - before)
		s.dev.Recycle(s.room.recyclable())
		s.room.look()
		if c.owedSince != 0 && !c.mayOwe(now) && now >= c.notBefore && s.Err() == nil {
			c.counted = true
			c.askCommit()
			return 0
		}
		if s.room.closed.Load() && c.held() && now >= c.notBefore && s.Err() == nil {
			// Another pass would only add to what is held. Where it cannot be freed
			// because the disk fails, writers are told and not kept waiting.
			c.stuck.Store(freeErr != nil || s.checkpoints.failing.Load())
			s.room.look()
			c.letGo()
			return compactPoll
		}
		e := s.EstimateGC()
		if pay, _ := c.due(e); !pay || now < c.notBefore || s.Err() != nil {
			c.letGo()
			if pay || c.held() || s.room.closed.Load() || s.Err() != nil {
				return compactPoll
			}
			if c.owedSince != 0 {
				return compactLook
			}
			return c.look.after(s, restCompact, compactLook)
		}
		c.stuck.Store(false)
		limit = min(limit, c.part(e))
	}
	c.begin = s.log.Begin()
	c.failed.Store(nil)
	c.read.Store(0)
	c.dropped.Store(0)
	c.startedAt = s.clock.now()
	if !again {
		c.result, c.target = CompactResult{From: c.begin.Bytes()}, limit
		c.began, c.moved, c.movedRecs = now, s.stats.moved.Load(), s.stats.movedRecords.Load()
		c.records.Store(0)
	}
	limit = min(limit, c.target)
	c.passBegan, c.appendedAt, c.passMoved, c.byHand = now, s.log.Appended(), s.stats.moved.Load(), c.request != nil
	if c.passOpened = s.room.opened.Load(); !s.room.closed.Load() {
		c.passOpened = -1
	}
	units := record.Addr(s.opt.PageSize / record.Unit)
	c.until = min(limit, c.unlinked(), c.begin+1<<suspectFrom) &^ (units - 1)
	if c.until <= c.begin {
		asked := c.request != nil
		c.finish(nil)
		if asked {
			return 0
		}
		if s.log.Durable() < s.log.Tail() {
			s.Commit(func(uint64, error) {}) // what is not durable cannot be compacted
		}
		return compactPoll
	}
	if err := c.beginJudging(); err != nil {
		return c.finish(err)
	}
	return 0
}

// beginJudging has the workers go over the region.
func (c *compactor) beginJudging() error {
	s := c.store
	if err := c.makeSpace(); err != nil {
		return err
	}
	c.perPage.Store(int64(s.opt.PageSize) / max(s.meanRecord(), record.Unit) / 2)
	c.state = compactJudging
	s.rests.begin(restProcessor)
	c.reader.Store(s.newPageReader(s.manifestUntil(c.until), c.begin, c.until, c.space.pages, c.wake))
	s.scans.pass()
	c.wake()
	return nil
}

// meanRecord is about how many bytes a live record takes.
func (s *Store) meanRecord() int64 { return max(s.liveBytes.Load(), 0) / max(s.Len(), 1) }

// work goes on with judging or resolving: the task is a worker too. When the last
// worker has come to rest, the next state begins.
func (c *compactor) work() time.Duration {
	wait := c.workers[0].work()
	if wait >= 0 || !c.resting() {
		return wait
	}
	if p := c.failed.Load(); p != nil {
		return c.finish(*p)
	}
	if r := c.reader.Swap(nil); r != nil {
		c.until = r.end()
		r.close() // what was read ahead of it is under way into memory that the next one uses
	}
	if c.resolve() {
		return 0
	}
	if wait := c.store.scans.wait(c.until); wait > 0 {
		return wait
	}
	c.raise()
	return 0
}

// resting reports whether nothing is left to be taken and no worker has anything. A
// worker says that it is busy before it looks for work, so whoever says afterwards
// that he is has found none. A worker who posts a part of a large value to one that
// was looked at already is noticed by the count.
func (c *compactor) resting() bool {
	if c.failed.Load() == nil {
		if r := c.reader.Load(); r != nil && !r.handedOut() {
			return false
		}
		if r := c.resolver.Load(); r != nil && !r.handedOut() {
			return false
		}
	}
	posted := c.posted.Load()
	for _, w := range c.workers {
		if w.busy.Load() {
			return false
		}
	}
	return c.posted.Load() == posted
}

// resolve begins to look into the suspects, or into what their records have led to;
// false: there is nothing.
func (c *compactor) resolve() bool {
	var list []suspect
	guess := 0
	if r := c.resolver.Load(); r != nil {
		list, guess = r.again, r.longest
		c.resolver.Store(nil)
	} else if c.state == compactJudging {
		list = c.space.suspects.take()
	}
	c.state = compactResolving
	if len(list) == 0 {
		return false
	}
	span := uint64(c.store.log.Tail()-c.begin)<<suspectFrom | 1<<suspectFrom
	sortSuspects(list, bits.Len64(span))
	c.resolver.Store(newResolver(c.store, c.begin, list, c.space.ring, guess, c.wake))
	c.wake()
	return true
}

// raise raises begin and sees to a commit that tells of it, and carries the copies.
func (c *compactor) raise() {
	s := c.store
	// First: a commit that says where the log begins now must hold, or follow one
	// that holds, what it has then lost.
	s.ledgers.logAgain(c.until)
	s.log.SetBegin(c.until)
	s.live.Add(-c.dropped.Load())
	c.result.Scanned += (c.until - c.begin).Bytes()
	if now := s.opt.Clock.Monotonic(); c.request == nil && c.mayOwe(now) {
		if c.owedSince == 0 {
			c.owedSince = now
		}
		c.settle(nil)
		return
	}
	c.askCommit()
}

// mayOwe reports whether there is time until the next commit that comes by itself.
// Every commit freezes what is updated in place in memory: one for each pass would
// have the log grow for no other reason, and the pass would wait for it.
func (c *compactor) mayOwe(now int64) bool {
	s := c.store
	comes := s.opt.CommitInterval > 0 && s.opt.CommitInterval <= compactPoll
	return comes && s.room.urgency() <= 0 && (c.owedSince == 0 || now-c.owedSince < 2*int64(compactPoll))
}

// told looks whether a commit has told of begin.
func (c *compactor) told() {
	if begin := record.Addr(c.store.commit.toldBegin.Load()); c.owedSince != 0 && begin >= c.store.log.Begin() {
		c.owedSince, c.durable = 0, max(c.durable, begin)
	}
}

// freedLater counts what was freed when the last pass had ended.
func (c *compactor) freedLater(bytes int64) {
	if p := c.last.Load(); p != nil && bytes > 0 {
		last := *p
		last.Freed += bytes
		c.last.Store(&last)
	}
}

// askCommit asks for the commit.
func (c *compactor) askCommit() {
	c.state = compactCommitting
	c.store.commit.ask(true, func(r commitResult) {
		c.mu.Lock()
		c.mu.committed = &r
		c.mu.Unlock()
		c.task.Wake()
	})
}

// fail ends the pass as soon as the workers have come to rest.
func (c *compactor) fail(err error) {
	if err != nil && c.failed.CompareAndSwap(nil, &err) {
		c.task.Wake()
	}
}

// damagedLog ends a pass at damage: nobody knows whose record it was.
func damagedLog(from, _ record.Addr, why error) error {
	return corrupt("log", from, fmt.Errorf("%w: %w", errDamagedLog, why))
}

// unlinked is the lowest address of a chunk that may still be linked.
func (c *compactor) unlinked() record.Addr {
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	lowest := s.log.Tail()
	for n := range s.mu.sessions {
		if a := record.Addr(n.unlinked.Load()); a != 0 {
			lowest = min(lowest, a)
		}
	}
	return lowest
}

// committing waits for the commit that carries the copies and the new begin.
func (c *compactor) committing() time.Duration {
	c.mu.Lock()
	r := c.mu.committed
	c.mu.committed = nil
	c.mu.Unlock()
	if r == nil {
		return -1
	}
	counted := c.counted
	c.counted = false
	if r.err != nil {
		return c.finish(r.err)
	}
	c.owedSince, c.durable = 0, r.begin
	err := c.free()
	c.store.room.look()
	if counted {
		c.stuck.Store(err != nil)
		c.state = compactIdle
		return 0
	}
	c.settle(err)
	return 0
}

// settle ends the region, and the pass if it was its last.
func (c *compactor) settle(err error) {
	c.recount()
	if err != nil || c.request == nil || c.until >= c.target {
		c.finish(err)
	}
	if total := c.store.log.Tail() - c.store.log.Begin(); c.until < c.swept+total/compactParts {
		c.state = compactIdle // a look at the whole index for little
		return
	}
	c.state, c.row, c.swept = compactSweeping, 0, c.until
	c.drain.begin(c.store, &c.task)
}

// sweepRows is how many rows of the index are swept in a step: some 100 us.
const sweepRows = 4096

// sweep removes index entries that lead below begin, when everybody has left who
// may have seen something there.
func (c *compactor) sweep() time.Duration {
	if !c.drain.over() {
		return -1
	}
	next, removed := c.store.index.Sweep(c.row, sweepRows, c.until)
	c.store.stats.swept.Add(uint64(removed))
	if c.row = next; next == 0 {
		c.state = compactIdle
	}
	return 0
}

// recount corrects the estimate of live bytes: when passes have gone over the
// whole log, what they have copied is what was live, and the rest is gone.
func (c *compactor) recount() {
	s := c.store
	copied, scanned := int64(s.stats.moved.Load()-c.passMoved), (c.until - c.begin).Bytes()
	if c.begin >= c.cycleTail {
		c.cycleTail, c.cycleScanned, c.cycleCopied, c.cycleOpened = s.log.Tail(), 0, 0, c.passOpened
		c.cycleBegan = c.startedAt
	}
	c.cycleScanned += scanned
	c.cycleCopied += copied
	if c.until < c.cycleTail || c.cycleScanned == 0 {
		return
	}
	s.sweep.expiring.forget(c.cycleBegan)
	c.allLive.Store(math.MaxInt64)
	if s.room.closed.Load() && s.room.opened.Load() == c.cycleOpened && !c.held() {
		// All of the log has been gone over and given back, and writers have waited
		// all the while: what is dead is too little to make room.
		c.allLive.Store(s.liveLog())
	}
	if c.cycleCopied > c.cycleScanned/8*7 {
		// What seemed dead was live. The next pass waits for a quarter more log,
		// or for something to be deleted.
		total := s.log.Tail() - s.log.Begin()
		s.liveBytes.Store(total.Bytes())
		c.allLive.Store(total.Bytes() - s.dev.SegmentSize())
		c.waitTail.Store(uint64(s.log.Tail() + total/4))
	}
	c.cycleTail = 0
}

// finish ends the pass and answers whoever asked for it.
func (c *compactor) finish(err error) time.Duration {
	s := c.store
	c.state = compactIdle
	if r := c.reader.Swap(nil); r != nil {
		r.close()
	}
	if r := c.resolver.Swap(nil); r != nil {
		r.close()
	}
	now := s.opt.Clock.Monotonic()
	c.result.Begin = s.log.Begin().Bytes()
	c.result.Copied = int64(s.stats.moved.Load() - c.moved)
	c.result.Records = c.records.Load()
	c.result.Removed = max(c.result.Records-int64(s.stats.movedRecords.Load()-c.movedRecs), 0)
	c.result.Took = time.Duration(now - c.began)
	c.stuck.Store(err != nil)
	if err != nil {
		err = fmt.Errorf("compact: %w", err)
		s.stats.compactionsFailed.Add(1)
		c.notBefore = now + int64(compactRetry)
		if c.request == nil && !errors.Is(err, ErrClosed) {
			s.opt.Logger.Warn("compaction failed", slog.Any("error", err))
		}
	} else if c.result.Scanned > 0 {
		s.stats.compactions.Add(1)
		s.stats.compactScanned.Add(uint64(c.result.Scanned))
		c.last.Store(&PassStats{
			Scanned: c.result.Scanned, Copied: c.result.Copied, Freed: c.result.Freed, Records: c.result.Records, Removed: c.result.Removed,
			TookNS: int64(c.result.Took), EndedMS: s.opt.Clock.Wall(),
		})
		s.opt.Logger.Debug("log compacted", slog.Int64("scanned", c.result.Scanned), slog.Int64("copied", c.result.Copied),
			slog.Int64("freed", c.result.Freed), slog.Duration("took", c.result.Took))
	}
	s.room.look()
	if err != nil || c.result.Scanned > 0 {
		s.tasks.ran(TaskCompact, c.began, err)
	}
	if r := c.request; r != nil {
		c.request = nil
		c.mu.Lock()
		c.mu.asked = nil
		c.mu.Unlock()
		r.result, r.err = c.result, err
		close(r.done)
	}
	return 0
}

// stop ends the task, the workers and whatever is under way.
func (c *compactor) stop() {
	c.task.Stop()
	for _, w := range c.workers[1:] {
		w.task.Stop()
	}
	c.mu.Lock()
	c.mu.stopped = true
	asked := c.mu.asked
	c.mu.Unlock()
	for _, w := range c.workers {
		w.session.Close()
	}
	if c.state != compactIdle && c.state != compactSweeping || asked != nil {
		c.request = asked
		c.finish(ErrClosed)
	}
	c.letGo()
}
