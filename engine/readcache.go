package engine

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
	"unsafe"

	"rskv/engine/internal/cache"
	"rskv/engine/internal/hlog"
	"rskv/engine/internal/record"
)

// readCache answers reads of records that are not in the log's memory from copies of
// them. A copy stands for the device, not for the key: who reads goes along the chain
// from the index as ever, and asks the cache where he would ask the device, by address.
// So no write, expiry, move, growth or snapshot has to know of it; package cache has
// why that is right, and how it chooses what to keep.
//
// Reads and read-modify-writes ask it. Reads offer it what they have read from the
// device instead; writes do not: what they need of an old record they need once, the
// new one is in memory. Scans, feeds and compaction do neither.
//
// # When it is worth its memory
//
// Its memory is taken from the log, and is worth more there where what is read has
// been written lately, or where everything is read as often. So it begins by watching:
//
//	             an eighth of what is read from the device was read lately
//	watching  ----------------------------------------------------------->  on
//	          <-----------------------------------------------------------
//	             it answers less than an eighth of what leaves the memory;
//	             nobody has read from it while the log's memory was written anew;
//	             its part of the budget, or the size of records, has changed
//
// Watching takes fingerprints only. If it was switched off for the first of those
// reasons, it watches twice as long before it comes on again, each time. When on it
// takes three quarters of the log's memory, step by step as it fills.
type readCache struct {
	store *Store
	task  taskRef
	cache cache.Cache

	// Owned by the step.
	state    cacheState
	last     cache.Counts  // when the step last judged
	lastHits uint64        // of the store, then
	patience int           // how often watching has to see that it is worth it before it is on
	seen     int           // how often it has
	good     int           // looks in a row at which it was worth it
	mean     int64         // size of records that it was made for
	hitAt    record.Addr   // tail of the log when it was last seen to have answered something
	hits     uint64        // then
	old      func() error  // frees what was replaced, behind drain
	drain    grace         // of those who may be reading that
	activity cacheActivity // at the last look while it was on
	why      atomic.Value  // string: what it waits for, for nextRun
}

// cacheActivity is what moves while the cache is used, or may lose its use.
type cacheActivity struct {
	counts cache.Counts
	hits   uint64
	tail   record.Addr
}

type cacheState uint8

const (
	cacheOff cacheState = iota // nothing is taken, nothing looked at
	cacheWatching
	cacheOn
)

const (
	// cacheWindow is how many records are offered from one look to the next.
	cacheWindow = 8192
	// cacheWorth is the share of reads that it has to answer, as a divisor.
	cacheWorth = 8
	// cacheSeen is how many fingerprints it watches with.
	cacheSeen = 1 << 16
	// cacheMin is the least memory it begins with.
	cacheMin = 1 << 20
	// cacheTick is how often it looks whether it is still used.
	cacheTick = 10 * time.Second
	// cachePatienceMax bounds the patience, in looks.
	cachePatienceMax = 1024
)

func (r *readCache) init(s *Store) {
	r.store, r.patience = s, 1
	r.why.Store("")
}

// limit is how much memory the cache may take: three quarters of what it and the log
// have.
func (r *readCache) limit() int64 {
	s := r.store
	left := s.memory.forLog(s.budget.buffers)
	limit := min(left/4*3, left-int64(hlog.PagesMin*s.opt.PageSize))
	if limit < cacheMin {
		return 0
	}
	return limit
}

// step is one step of the task.
func (r *readCache) step() time.Duration {
	if !r.task.ready() {
		return time.Millisecond // Open is still starting the tasks
	}
	s := r.store
	if r.old != nil {
		if !r.drain.over() {
			return time.Millisecond
		}
		r.release()
	}
	if s.tasks.stopped(TaskCache) {
		r.become(cacheOff, "the task is stopped")
		return -1
	}
	switch r.state {
	case cacheOff:
		r.start()
	case cacheWatching:
		r.watch()
	case cacheOn:
		r.judge()
	}
	if r.old != nil {
		return time.Millisecond
	}
	if r.state == cacheOn {
		r.extend()
		return r.tick()
	}
	return -1
}

// tick says how long to wait until the next look while it is on: where nothing is
// read and nothing written, that is no matter.
func (r *readCache) tick() time.Duration {
	seen := cacheActivity{r.cache.Counts(), r.store.stats.cacheHits.Load(), r.store.log.Tail()}
	if seen == r.activity {
		return r.store.restLeft()
	}
	r.activity = seen
	return cacheTick
}

// start begins to watch, or, in tests, has it on from the beginning.
func (r *readCache) start() {
	if shape := r.store.opt.cacheShape; shape != nil {
		r.resize(cacheOn, *shape)
		return
	}
	r.resize(cacheWatching, cache.Shape{Seen: cacheSeen})
}

// resize gives the cache another shape.
func (r *readCache) resize(state cacheState, shape cache.Shape) {
	free, err := r.cache.Resize(shape)
	if err != nil {
		// As if it were of no use: it is looked at again after the next window.
		r.store.opt.Logger.Warn("no memory for the read cache", slog.Any("error", err))
		return
	}
	r.replaced(state, free)
	r.claim(shape.Bytes() - shape.Ring)
}

// become drops the cache, or has it watch again.
func (r *readCache) become(state cacheState, why string) {
	r.why.Store(why)
	if state == r.state {
		return
	}
	if r.state == cacheOn {
		r.store.opt.Logger.Info("read cache off", slog.String("why", why))
	}
	if state == cacheOff {
		r.replaced(state, r.cache.Drop())
		r.claim(0)
		return
	}
	r.resize(state, cache.Shape{Seen: cacheSeen})
}

// replaced notes what is to be freed when nobody can be reading it any more.
func (r *readCache) replaced(state cacheState, free func() error) {
	r.state, r.last, r.lastHits = state, r.cache.Counts(), r.store.stats.cacheHits.Load()
	r.seen, r.good = 0, 0
	r.old = free
	r.drain.begin(r.store, &r.task)
}

func (r *readCache) release() {
	if err := r.old(); err != nil {
		r.store.opt.Logger.Warn("memory of the read cache is not given back", slog.Any("error", err))
	}
	r.old = nil
}

// claim takes so many bytes in all from the log.
func (r *readCache) claim(bytes int64) {
	if r.store.memory.cache.Swap(bytes) != bytes {
		r.store.growth.task.Wake()
	}
}

// since returns what has happened since the last look, and whether it is enough to
// judge by; then the next look begins.
func (r *readCache) since() (offered, repeated, hits uint64, enough bool) {
	n, all := r.cache.Counts(), r.store.stats.cacheHits.Load()
	offered, repeated, hits = n.Offered-r.last.Offered, n.Repeated-r.last.Repeated, all-r.lastHits
	if offered < cacheWindow {
		return offered, repeated, hits, false
	}
	r.last, r.lastHits = n, all
	return offered, repeated, hits, true
}

// watch switches it on if that is worth it.
func (r *readCache) watch() {
	offered, repeated, _, enough := r.since()
	if !enough {
		return
	}
	limit := r.limit()
	switch {
	case limit == 0:
		r.why.Store("the budget has no room for it")
		return
	case repeated*cacheWorth < offered:
		r.why.Store(fmt.Sprintf("%d of the last %d records read from disk had been read before", repeated, offered))
		r.seen = 0
		return
	}
	if r.seen++; r.seen < r.patience {
		return
	}
	began := r.store.opt.Clock.Monotonic()
	r.mean = max(r.last.Mean, 2*record.Unit)
	shape := cache.ShapeFor(limit, r.mean)
	r.store.opt.Logger.Info("read cache on", slog.Int64("bytes", shape.Bytes()), slog.Uint64("read", offered), slog.Uint64("repeated", repeated))
	r.resize(cacheOn, shape)
	r.hits, r.hitAt = r.lastHits, r.store.log.Tail()
	r.store.tasks.ran(TaskCache, began, nil)
}

// judge switches it off if it is not worth its memory.
func (r *readCache) judge() {
	s := r.store
	if s.opt.cacheShape != nil {
		return
	}
	shape, limit, tail := r.cache.Shape(), r.limit(), s.log.Tail()
	if shape.Bytes() > limit+limit/4 || shape.Bytes() < limit/2 {
		r.become(cacheWatching, "its part of the memory budget has changed")
		return
	}
	if hits := s.stats.cacheHits.Load(); hits != r.hits {
		r.hits, r.hitAt = hits, tail
	} else if (tail - r.hitAt).Bytes() > s.log.Memory() {
		r.become(cacheWatching, "nothing has been read from it while the memory was written anew")
		return
	}
	offered, repeated, hits, enough := r.since()
	if !enough {
		return
	}
	if mean := r.last.Mean; mean < r.mean/2 || mean > 4*r.mean {
		r.become(cacheWatching, "records are of another size than before")
		return
	}
	// While it fills, what is read again is what it will answer.
	useful := hits
	if r.last.Evicted == 0 {
		useful += repeated
	}
	r.why.Store(fmt.Sprintf("of the last %d reads beyond the memory it has answered %d", hits+offered, hits))
	if useful*cacheWorth < hits+offered {
		r.patience = min(2*r.patience, cachePatienceMax)
		r.become(cacheWatching, r.why.Load().(string))
		return
	}
	if r.good++; r.good >= 16 {
		r.patience = 1
	}
}

// extend takes more memory when what there is has been filled.
func (r *readCache) extend() {
	for r.cache.Wants() {
		bytes, extended := r.cache.Extend()
		if !extended {
			return
		}
		r.claim(bytes)
		if r.store.opt.cacheShape == nil {
			return
		}
	}
}

// stop ends the task. Sections may still be open.
func (r *readCache) stop() { r.task.Stop() }

// free gives the memory back. No section is open any more, nor will be.
func (r *readCache) free() error {
	if r.old != nil {
		r.release()
	}
	return r.cache.Drop()()
}

// copyEnd says where the way through the copies of a chain has ended.
type copyEnd uint8

const (
	copyMissing copyEnd = iota // at.addr has none: it has to be read from the device
	copyAbsent                 // the chain has ended
	copyFound                  // it is the key's
)

// copyOf goes on along the chain of a key, which leaves the memory at at, as far as
// there are copies. What it has found counts only while that is valid.
func (s *Session) copyOf(key []byte, at *place) (x cache.Copy, w0, w1 uint64, end copyEnd) {
	for {
		x, ok := s.store.cache.cache.Find(at.addr)
		if !ok {
			return x, 0, 0, copyMissing
		}
		w0, w1 = record.Load0(x.Record), record.Load1(x.Record)
		if !x.Valid() {
			return x, 0, 0, copyMissing
		}
		isKey := w1&record.Invalid == 0 && x.KeyIs(w0, key)
		if !x.Valid() {
			return x, 0, 0, copyMissing
		}
		x.Hit()
		if isKey {
			return x, w0, w1, copyFound
		}
		prev := record.Prev(w0)
		if prev < record.FirstAddr || prev < s.begin {
			return x, 0, 0, copyAbsent
		}
		at.addr = prev
	}
}

// cached answers an op that reads, whose chain leaves the memory at at, from the cache.
// false: the device has to be read, from at.addr on.
func (s *Session) cached(op *Op, at *place) bool {
	x, w0, w1, end := s.copyOf(op.Key, at)
	if end == copyMissing {
		return false
	}
	found, expiry := false, int64(0)
	var dst []byte
	if end == copyFound && record.KindOf(w1) != record.Tombstone {
		found, expiry = true, expiryOf(&x, w0, w1)
		if op.Kind == OpGet {
			dst = s.room(op, record.ValueLen(w1))
			record.CopyOut(unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Add(x.Record, record.ValueOffset(w0, w1)), len(dst))
		}
		if !x.Valid() {
			return false
		}
		found = !s.past(expiry)
	}
	s.tally.cacheHits++
	switch {
	case op.Kind != OpGet:
		s.tell(op, found, expiry)
	case found:
		s.keep(op, dst)
		op.answer(true)
	default:
		op.answer(false)
	}
	return true
}

// observeCached is observe for a key whose chain leaves the memory at at.
func (s *Session) observeCached(key []byte, at *place) (seen observation, ok bool) {
	x, w0, w1, end := s.copyOf(key, at)
	seen.above, seen.begin = at.head, s.begin
	if end != copyFound {
		return seen, end == copyAbsent
	}
	seen.kind = record.KindOf(w1)
	if seen.kind == record.Tombstone {
		return seen, true
	}
	expiry := expiryOf(&x, w0, w1)
	s.old = grow(s.old, record.ValueLen(w1))
	record.CopyOut(unsafe.Pointer(unsafe.SliceData(s.old)), unsafe.Add(x.Record, record.ValueOffset(w0, w1)), len(s.old))
	if !x.Valid() {
		return seen, false
	}
	s.tally.cacheHits++
	if s.past(expiry) {
		seen.counted = s.store.sweep.counted(at.addr, expiry)
		return seen, true
	}
	seen.found, seen.counted, seen.value, seen.expiry = true, true, s.old, expiry
	return seen, true
}

// expiryOf is the expiry of a copy with these words, 0 if it has none.
func expiryOf(x *cache.Copy, w0, w1 uint64) int64 {
	if w1&record.Expiry == 0 {
		return 0
	}
	return record.LoadExpiry(x.Record, w0)
}

// offer shows the cache a record that was read from the device and verified.
func (s *Session) offer(a record.Addr, image []byte, w1 uint64) {
	if kind := record.KindOf(w1); kind != record.Value && kind != record.Tombstone {
		return
	}
	r := &s.store.cache
	if r.cache.Offer(a, image) {
		r.task.Wake()
	}
}

// next says what the cache is doing, and what it waits for.
func (r *readCache) next() string {
	why := r.why.Load().(string)
	switch shape := r.cache.Shape(); {
	case shape.Ring > 0 && why == "":
		return fmt.Sprintf("on, of %d bytes", shape.Bytes())
	case shape.Ring > 0:
		return fmt.Sprintf("on, of %d bytes: %s", shape.Bytes(), why)
	case why == "":
		return "off until what is read from disk is read again and again"
	}
	return "off: " + why
}
