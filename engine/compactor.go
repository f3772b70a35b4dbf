package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rskv/engine/internal/manifest"
	"rskv/engine/internal/record"
)

// A compaction pass (FASTER's compaction by lookup) makes the log begin later:
//
//	begin            until                                    tail
//	|== pass ========|----------------------------------------|
//	   live records -------------------------------------------> copies
//
//	idle [-> filling -> striking] -> copying -> committing -> freeing -> sweeping -> idle
//
// Copying looks at every record below until, in order, and copies the live ones
// (see move.go). Then begin is raised in memory: whoever looks below it finds
// nothing, and everything live is above. The commit that follows carries the
// copies and the new begin. Only when that is durable are segments freed, those
// that no kept checkpoint and no backup needs, after the manifest says so.
//
// A crash before the commit finds the old begin and every original; after it, the
// new begin and every copy. A tombstone is not copied: whatever it hides is older,
// hence also below until, and goes with it. Reads under way when begin moves find
// that out by themselves, see readStale.
//
// Whether a record is live the index tells, see move.go, or, where that would take
// a random read for each, a sieve over the whole log, see sieve.go.
//
// A large value is written anew when one of its chunks is met, see opMoveChunk. A
// chunk that is not linked yet keeps until from passing it.
type compactState uint8

const (
	compactIdle       compactState = iota // nothing is under way
	compactFilling                        // the sieve learns the keys of the region
	compactStriking                       // and which of them have newer records
	compactCopying                        // live records go to the tail
	compactCommitting                     // the commit of the copies is under way
	compactSweeping                       // index entries that lead nowhere are removed
)

const (
	// compactPending bounds the look-ups that wait for the disk.
	compactPending = 256
	// compactGroup is how many records are looked up at a time.
	compactGroup = groupOps
	// compactPoll is how often the task looks whether a pass is due, compactRetry
	// how long it waits after one that failed.
	compactPoll  = time.Second
	compactRetry = 10 * time.Second
	// compactPace is the least a pass scans a second in bytes while nothing
	// presses; compactFactor how much for every byte that is appended meanwhile,
	// which is enough where three quarters are live.
	compactPace   = 64 << 20
	compactFactor = 4
	// compactBehind is the part of the wanted live ratio below which passes have
	// fallen behind, and do not wait either.
	compactBehind = 0.8
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

	state     compactState
	request   *compactRequest
	result    CompactResult
	began     int64  // clock
	moved     uint64 // bytes copied when the pass began
	passBegan int64  // the same for the part of it that is under way
	passMoved uint64
	appended  uint64 // bytes appended when it began
	begin     record.Addr
	until     record.Addr
	target    record.Addr // where a pass that was asked for has to get to
	sieve     *sieve      // nil: none
	sieved    record.Addr // up to where it has looked
	now       int64       // by the store's clock, when the page was taken
	gone      []expiryNote
	dropped   int64 // keys of the pass that are counted and have expired
	read      int64 // bytes read since the pass began
	notBefore int64
	err       error
	durable   record.Addr // begin according to the last commit

	session *Session
	reader  *pageReader
	page    []byte // being looked at; nil: none
	base    record.Addr
	found   []uint32    // offsets of its records, in units, that have to be moved
	next    int         // of these
	row     uint64      // of the index, to be swept next
	drained atomic.Bool // nobody is left in a section that began before the sweep; set by an epoch action
	ops     [compactGroup]Op

	// cycle is a run of passes over the whole log as it was when it began.
	cycleTail    record.Addr
	cycleScanned int64
	cycleCopied  int64
	cycleOpened  int64 // room.opened when it began
	cycleBegan   int64 // by the store's clock, as startedAt
	startedAt    int64 // when the pass began
}

func (c *compactor) init(s *Store) {
	c.store = s
	c.liveRatio.Store(math.Float64bits(s.opt.LiveRatio))
	c.durable = s.log.Begin()
	c.session = s.NewSession()
	c.session.mover = true
	c.session.notify = c.task.Wake
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

// step is one step of the compaction task.
func (c *compactor) step() time.Duration {
	if !c.task.ready() {
		return time.Millisecond // Open is still starting the tasks
	}
	var wait time.Duration
	switch c.state {
	case compactIdle:
		wait = c.start()
	case compactFilling, compactStriking:
		wait = c.sift()
	case compactCopying:
		wait = c.copy()
	case compactCommitting:
		wait = c.committing()
	case compactSweeping:
		wait = c.sweep()
	}
	return wait
}

// start begins a pass if one was asked for or is due.
func (c *compactor) start() time.Duration {
	s := c.store
	again := c.request != nil // a sieve was too small for the whole of it
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
		freeErr := c.free() // a checkpoint that held it back may have gone
		s.dev.Recycle(s.room.recyclable())
		s.room.look()
		if now < c.notBefore || s.Err() != nil {
			return compactPoll
		}
		if s.room.closed.Load() && c.held() {
			// Another pass would only add to what is held. Where it cannot be freed
			// because the disk fails, writers are told and not kept waiting.
			c.stuck.Store(freeErr != nil || s.checkpoints.failing.Load())
			s.room.look()
			return compactPoll
		}
		c.stuck.Store(false)
		e := s.EstimateGC()
		if pay, _ := c.due(e); !pay {
			return compactPoll
		}
		limit = min(limit, c.part(e))
	}
	c.begin, c.err, c.read, c.sieved, c.dropped = s.log.Begin(), nil, 0, 0, 0
	if !again {
		c.result, c.target = CompactResult{Begin: c.begin.Bytes()}, limit
		c.began, c.moved = now, s.stats.moved.Load()
	}
	limit = min(limit, c.target)
	c.startedAt = s.clock.now()
	c.passBegan, c.appended, c.passMoved = now, s.log.Appended(), s.stats.moved.Load()
	units := record.Addr(s.opt.PageSize / record.Unit)
	c.until = min(limit, c.unlinked()) &^ (units - 1)
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
	if bytes := c.sieveBytes(); bytes > 0 {
		return c.beginSieve(bytes)
	}
	return c.beginCopy()
}

// beginCopy starts copying what lives in the region.
func (c *compactor) beginCopy() time.Duration {
	if err := c.open(c.begin, c.until); err != nil {
		return c.finish(err)
	}
	c.state = compactCopying
	c.store.scans.pass()
	return 0
}

func (c *compactor) open(from, until record.Addr) (err error) {
	c.reader, err = c.store.newPageReader(c.store.manifestUntil(until), from, until, c.task.Wake)
	return err
}

// sieveBytes is how much memory a sieve for this pass should have, 0 if looking
// the records up costs less.
func (c *compactor) sieveBytes() int64 {
	s := c.store
	onDisk := (min(s.log.Head(), s.log.Durable()) - min(s.log.Head(), c.begin)).Bytes()
	mean := max(s.liveBytes.Load()/max(s.Len(), 1), 2*record.Unit)
	records := (c.until - c.begin).Bytes() / mean
	limit := s.Memory() / sieveShare
	if share := limit / (2 * sieveEntryBytes); records > share {
		// What fits is what the sieve would be for.
		records = share
	}
	if onDisk == 0 || records/2*sieveRead < onDisk+records*mean || limit < sievePages*int64(s.opt.PageSize) {
		return 0
	}
	bytes := sievePages * int64(s.opt.PageSize)
	for bytes < records*sieveEntryBytes*3/2 && bytes*2 <= limit {
		bytes *= 2
	}
	return bytes
}

func (c *compactor) beginSieve(bytes int64) time.Duration {
	var err error
	if c.sieve, err = newSieve(bytes, c.begin); err != nil {
		return c.finish(err)
	}
	if err := c.store.claimForSieve(bytes); err != nil {
		return c.finish(err)
	}
	c.until = min(c.until, c.begin+sieveRegion)
	if err := c.open(c.begin, c.until); err != nil {
		return c.finish(err)
	}
	c.state = compactFilling
	return 0
}

// sift takes a page through the sieve.
func (c *compactor) sift() time.Duration {
	if wait := c.pace(); wait > 0 {
		return wait
	}
	page, span, from, ready, err := c.reader.next()
	if err == nil && !ready {
		return -1
	}
	if err == nil && page != nil {
		if err = c.siftPage(page, span, from); err == nil {
			c.read += int64(len(page))
			c.reader.release()
			if c.state != compactFilling || c.sieve.room > len(page)/(2*record.Unit) {
				return 0
			}
			// One more page may be too much: the region ends here.
			c.until = min(c.until, c.reader.at)
		}
	}
	if e := c.reader.close(); err == nil {
		err = e
	}
	c.reader = nil
	switch {
	case err != nil && c.state == compactStriking:
		// Damage behind the region is not this pass's concern: look records up.
		c.dropSieve()
		c.sieved = 0
		return c.beginCopy()
	case err != nil:
		return c.finish(err)
	case c.state == compactStriking:
		return c.beginCopy()
	}
	units := record.Addr(c.store.opt.PageSize / record.Unit)
	c.sieved = max(c.until, c.store.log.Durable()&^(units-1))
	if err := c.open(c.until, c.sieved); err != nil {
		return c.finish(err)
	}
	c.state = compactStriking
	return 0
}

// siftPage gives the records of a page to the sieve.
func (c *compactor) siftPage(page []byte, span manifest.Span, from record.Addr) error {
	s, v := c.store, c.sieve
	filling := c.state == compactFilling
	units := record.Addr(s.opt.PageSize / record.Unit)
	base := from &^ (units - 1)
	check := pageCheck{seed: s.seedAt(span.Start), damaged: damagedLog}
	check.record = func(r *logRecord) error {
		if !r.isUser() {
			return nil
		}
		key := r.key()
		hash := record.Hash(s.seed, key)
		if filling {
			v.fill(hash, key, r.addr, record.KindOf(r.w1) == record.Tombstone)
		} else {
			v.strike(hash, key)
		}
		return nil
	}
	return check.run(page, base, from, min(base+units, span.End))
}

// damagedLog ends a pass at damage: nobody knows whose record it was.
func damagedLog(from, _ record.Addr, why error) error {
	return corrupt("log", from, fmt.Errorf("%w: %w", errDamagedLog, why))
}

// dropSieve gives the sieve's memory back to the log.
func (c *compactor) dropSieve() {
	if c.sieve == nil {
		return
	}
	err := errors.Join(c.sieve.free(), c.store.claimForSieve(0))
	c.sieve = nil
	if err != nil {
		c.store.opt.Logger.Warn("memory of a compaction pass is not given back", slog.Any("error", err))
	}
}

// part is up to where a pass that nobody asked for goes: a part of the log, at
// least a segment, up to a segment border. Under a disk budget it is one segment,
// since what it copies before it frees anything has to fit into the reserve.
func (c *compactor) part(e GCEstimate) record.Addr {
	size := c.store.dev.SegmentSize()
	length := max(size, e.Total/compactParts)
	if c.store.room.budget.Load() > 0 {
		length = 1 // up to the next border
	}
	until := c.store.log.Begin().Bytes() + length
	return record.Addr((until + size - 1) / size * size / record.Unit)
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

// copy goes on with the records of the pass.
func (c *compactor) copy() time.Duration {
	s := c.store
	c.session.Complete(c.answer)
	switch {
	case c.err != nil:
	case c.session.Pending() >= compactPending:
		return -1
	case c.page == nil:
		if wait := c.pace(); wait > 0 {
			return wait
		}
		ready, err := c.nextPage()
		if err != nil {
			c.err = err
		} else if !ready {
			return -1
		}
	}
	if c.err == nil && c.page != nil {
		c.group()
		return 0
	}
	// The end of the region, or an error: what is pending still has to end, and
	// reads that were given up bring their memory back.
	if c.session.Pending() > 0 || c.session.queue.inFlight > 0 {
		return -1
	}
	if c.err == nil {
		if wait := s.scans.wait(c.until); wait > 0 {
			return wait
		}
	}
	if err := c.reader.close(); c.err == nil {
		c.err = err
	}
	c.reader, c.page = nil, nil
	if c.err != nil {
		return c.finish(c.err)
	}
	// First: a commit that says where the log begins now must hold, or follow one
	// that holds, what it has then lost.
	s.ledgers.logAgain(c.until)
	s.log.SetBegin(c.until)
	s.live.Add(-c.dropped)
	c.result.Scanned += (c.until - c.begin).Bytes()
	c.state = compactCommitting
	s.commit.ask(true, func(r commitResult) {
		c.mu.Lock()
		c.mu.committed = &r
		c.mu.Unlock()
		c.task.Wake()
	})
	return 0
}

// pace says how long to wait for the pass not to be ahead of what it may take
// from others. A pass that was asked for, or that the disk budget needs, does not
// wait.
func (c *compactor) pace() time.Duration {
	s := c.store
	if c.request != nil || s.room.pressed() || s.EstimateGC().Ratio < s.opt.LiveRatio*compactBehind {
		return 0
	}
	scanned := c.read
	free := int64(s.log.Appended()-c.appended) * compactFactor
	due := time.Duration(max(scanned-free, 0)) * time.Second / compactPace
	return min(due-time.Duration(s.opt.Clock.Monotonic()-c.passBegan), compactPoll)
}

// nextPage takes the next page of the region, if it is there. At the end of the
// region there is none, and it is ready.
func (c *compactor) nextPage() (ready bool, err error) {
	page, span, from, ready, err := c.reader.next()
	if err != nil || !ready || page == nil {
		return ready, err
	}
	units := record.Addr(c.store.opt.PageSize / record.Unit)
	base := from &^ (units - 1)
	c.found, c.next = c.found[:0], 0
	c.now, c.gone = c.store.clock.now(), c.gone[:0]
	check := pageCheck{
		seed: c.store.seedAt(span.Start),
		record: func(r *logRecord) error {
			if r.isUser() && (record.KindOf(r.w1) == record.Tombstone || r.expired(c.now)) {
				c.session.doubtDead(r.key())
			}
			if c.wants(r) {
				c.found = append(c.found, uint32(r.addr-base))
			}
			return nil
		},
		damaged: damagedLog,
	}
	if err := check.run(page, base, from, min(base+units, span.End, c.until)); err != nil {
		return true, err
	}
	c.store.sweep.expiring.add(c.gone, c.now)
	c.page, c.base = page, base
	return true, nil
}

// wants reports whether the record is to be looked up.
func (c *compactor) wants(r *logRecord) bool {
	if !r.isUser() {
		return record.KindOf(r.w1) == record.System && record.KeyLen(r.w0) == record.TypeChunk
	}
	expiry := r.expiry()
	if expiry != 0 {
		c.gone = append(c.gone, expiryNote{addr: r.addr, expiry: expiry, bytes: -r.weight()})
	}
	if record.KindOf(r.w1) == record.Tombstone || expiry != 0 && expiry <= c.now && !c.store.sweep.counted(r.addr, expiry) {
		return false
	}
	return c.mayLive(r)
}

// mayLive reports whether the record has not been found dead already.
func (c *compactor) mayLive(r *logRecord) bool {
	return c.sieve == nil || c.sieve.live(record.Hash(c.store.seed, r.key()), r.key(), r.addr)
}

// group looks up some records of the page.
func (c *compactor) group() {
	n, bytes := 0, 0
	for n < len(c.ops) && c.next < len(c.found) && bytes < groupBytes {
		off := c.found[c.next]
		c.next++
		image := c.page[int(off)*record.Unit:]
		w0, w1 := record.Words(image)
		image = image[:record.Size(w0, w1)]
		a := c.base + record.Addr(off)
		if record.KindOf(w1) == record.System {
			if key := chunkKey(image, w1); key != nil {
				c.ops[n].moveChunk(a, key)
				n++
			}
			continue
		}
		if e := record.ExpiryOf(image, w0, w1); e != 0 && e <= c.now {
			c.ops[n].dropRecord(a, record.Key(image, w0), max(a, c.sieved))
		} else {
			c.ops[n].moveRecord(a, record.Key(image, w0), image, max(a, c.sieved))
			bytes += len(image)
		}
		n++
	}
	ops := c.ops[:n]
	c.session.Start(ops)
	for i := range ops {
		if !ops[i].Pending() {
			c.answer(&ops[i])
		}
	}
	if c.next == len(c.found) {
		c.read += int64(len(c.page))
		c.page = nil
		c.reader.release()
	}
}

// chunkKey is the key that a chunk belongs to.
func chunkKey(image []byte, w1 uint64) []byte {
	payload := image[record.HeaderSize:][:record.ValueLen(w1)]
	if n := len(payload); n > 2 {
		if k := int(payload[n-2]) | int(payload[n-1])<<8; k > 0 && k+2 < n {
			return payload[n-2-k : n-2]
		}
	}
	return nil
}

func (c *compactor) answer(op *Op) {
	switch {
	case op.Err != nil && c.err == nil:
		c.err = op.Err
	case op.Kind == opMove && op.Blind && op.Found:
		c.dropped++
	}
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
	if r.err != nil {
		return c.finish(r.err)
	}
	c.durable = c.until
	c.recount()
	if err := c.free(); err != nil || c.request == nil || c.until >= c.target {
		c.finish(err)
	} else {
		c.dropSieve() // and on, see start
	}
	c.state, c.row = compactSweeping, 0
	c.drained.Store(false)
	c.store.epoch.Bump(func() {
		c.drained.Store(true)
		c.task.Wake()
	})
	return 0
}

// sweepRows is how many rows of the index are swept in a step: some 100 us.
const sweepRows = 4096

// sweep removes index entries that lead below begin, when everybody has left who
// may have seen something there.
func (c *compactor) sweep() time.Duration {
	if !c.drained.Load() {
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
		c.cycleTail, c.cycleScanned, c.cycleCopied, c.cycleOpened = s.log.Tail(), 0, 0, s.room.opened.Load()
		c.cycleBegan = c.startedAt
	}
	c.cycleScanned += scanned
	c.cycleCopied += copied
	if c.until < c.cycleTail || c.cycleScanned == 0 {
		return
	}
	s.sweep.expiring.forget(c.cycleBegan)
	c.allLive.Store(math.MaxInt64)
	if s.room.closed.Load() && s.room.opened.Load() == c.cycleOpened {
		// All of the log has been gone over, and writers have waited all the while:
		// what is dead is too little to make room.
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
	c.dropSieve()
	c.sieved = 0
	if c.reader != nil {
		err = errors.Join(err, c.reader.close())
		c.reader = nil
	}
	now := s.opt.Clock.Monotonic()
	c.result.Begin = s.log.Begin().Bytes()
	c.result.Copied = int64(s.stats.moved.Load() - c.moved)
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

// free gives back the segments below begin that nobody needs.
func (c *compactor) free() error {
	s := c.store
	bound, err := c.freeable()
	if err != nil {
		return err
	}
	size := record.Addr(s.dev.SegmentSize() / record.Unit)
	bound &^= size - 1
	before := record.Addr(s.stats.freed.Load())
	if bound <= before {
		return nil
	}
	if err := s.setManifestBegin(bound); err != nil {
		return err
	}
	s.dev.Recycle(s.room.recyclable())
	if err := s.dev.Discard(bound.Bytes()); err != nil {
		return fmt.Errorf("free log up to %v: %w", bound, err)
	}
	s.stats.freed.Store(uint64(bound))
	c.result.Freed += (bound - before).Bytes()
	return nil
}

// held reports whether segments that passes are done with wait for a checkpoint
// or a backup. The checkpoint wakes the task.
func (c *compactor) held() bool {
	size := record.Addr(c.store.dev.SegmentSize() / record.Unit)
	return c.durable&^(size-1) > record.Addr(c.store.stats.freed.Load())
}

// setManifestBegin notes that nothing below bound counts any more.
func (s *Store) setManifestBegin(bound record.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.mu.manifest
	m.Begin = bound
	m.Spans = slices.DeleteFunc(m.Spans, func(sp manifest.Span) bool { return sp.End != 0 && sp.End <= bound })
	return s.writeManifest()
}

// freeable is up to where the log is needed by nobody. Checkpoints that hold back
// more than they may are dropped, the oldest first; for the sake of the newest a
// new one is taken.
func (c *compactor) freeable() (record.Addr, error) {
	s := c.store
	begin := c.durable
	if begin <= record.Addr(s.stats.freed.Load()) {
		return begin, nil
	}
	list, err := s.Checkpoints()
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return 0, err
	}
	allowed := s.pinnedMax()
	for i := len(list) - 1; i >= 0; i-- {
		held := record.Addr(list[i].Begin / record.Unit)
		if held >= begin {
			continue
		}
		if pinned := (begin - held).Bytes(); pinned <= allowed {
			begin = held
			break
		}
		if i == 0 {
			s.checkpoints.want()
			begin = held
			break
		}
		if err := s.dev.RemoveMeta(checkpointName(list[i].Version)); err != nil {
			return 0, fmt.Errorf("remove %s: %w", checkpointName(list[i].Version), err)
		}
		s.opt.Logger.Info("checkpoint dropped: it kept log that was compacted away",
			slog.Uint64("version", list[i].Version), slog.Int64("bytes", (begin-held).Bytes()), slog.Int64("allowed", allowed))
	}
	return min(begin, s.pins.lowest(begin)), nil
}

// pinnedMax is how many bytes of log below begin checkpoints may hold back.
func (s *Store) pinnedMax() int64 {
	allowed := max(s.liveBytes.Load(), pinnedMin)
	if s.room.budget.Load() > 0 {
		held := (s.log.Begin() - record.Addr(s.stats.freed.Load())).Bytes()
		allowed = min(allowed, s.room.target()-s.room.taken()+held)
	}
	return allowed
}

// stop ends the task and whatever is under way.
func (c *compactor) stop() {
	c.task.Stop()
	c.mu.Lock()
	c.mu.stopped = true
	asked := c.mu.asked
	c.mu.Unlock()
	c.session.Close()
	if c.state != compactIdle && c.state != compactSweeping || asked != nil {
		c.request = asked
		c.finish(ErrClosed)
	}
}

// pins are the addresses from which on backups under way, and the checkpoint that is
// being taken, need the log.
type pins struct {
	mu   sync.Mutex
	held map[any]record.Addr // by who holds it; guarded by mu
}

func (p *pins) hold(by any, a record.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == nil {
		p.held = make(map[any]record.Addr)
	}
	p.held[by] = a
}

func (p *pins) release(by any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.held, by)
}

// lowest is the lowest address held, or a if that is lower.
func (p *pins) lowest(a record.Addr) record.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, held := range p.held {
		a = min(a, held)
	}
	return a
}
