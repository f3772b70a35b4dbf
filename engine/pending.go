package engine

import (
	"errors"
	"fmt"

	"rskv/engine/internal/record"
	"rskv/ioring"
)

const (
	// pendingKeep is how many answered operations a session keeps for the next
	// ones, pendingBytes how much memory each may bring along: 1 MiB together.
	pendingKeep  = 256
	pendingBytes = 4 << 10
	// earlyShare is the part of the staging memory that reads for operations
	// still waiting for their turn may use.
	earlyShare = 4
)

// pendingOp is an operation that waits: for the disk, or for its turn.
//
//	queued   waits > 0: others of the session go first
//	reading  one record read is under way, or wants a buffer
//	large    the chunks of its value are being collected, see large.go
type pendingOp struct {
	op     Op     // the session's copy; Key, Value and Old alias bytes
	back   *Op    // the op of Do that gets the answer
	hash   uint64 // of the key
	bytes  []byte
	value  []byte      // what was read for it
	expiry int64       // of that; 0: none
	addr   record.Addr // of the record

	waits int          // operations that go first
	due   bool         // none left, but resume has not been called yet
	after []*pendingOp // operations that wait for this one

	head  record.Addr // newest record of the chain when the walk began
	begin record.Addr // Begin at that time
	read  *readOp     // the record read under way or, while queued, held
	large *assembly
}

// waitQueue orders the operations of a session that are not finished.
type waitQueue struct {
	count     int
	byKey     map[uint64]*pendingOp // the last one of each key hash
	lastWrite *pendingOp            // of an ordered session
	ready     []*pendingOp          // their turn has come
	retired   []*pendingOp          // answered; their memory is in use until the next call
	free      []*pendingOp

	submit   []*ioring.Op // reads to be handed over when the section has ended
	starving []*readOp    // reads that got no buffer
	hungry   []*pendingOp // large values that found the budget spent
	inFlight int
	released uint64 // stats.released before memory was last asked for
	noted    bool   // on the store's list of the starving; guarded by the store's mu
}

func (q *waitQueue) init() { q.byKey = make(map[uint64]*pendingOp) }

// mustWait reports whether an op has to wait for one that is pending.
func (q *waitQueue) mustWait(op *Op, hash uint64, ordered bool) bool {
	if ordered && q.lastWrite != nil && op.writes() {
		return true
	}
	_, busy := q.byKey[hash]
	return busy
}

// newPending takes a copy of op and puts it behind whatever it must wait for.
func (s *Session) newPending(op *Op, hash uint64) *pendingOp {
	q := &s.queue
	var p *pendingOp
	if n := len(q.free); n > 0 {
		p, q.free = q.free[n-1], q.free[:n-1]
	} else {
		p = &pendingOp{}
	}
	p.op, p.hash = *op, hash
	p.copyBytes(op)
	if s.back {
		p.back = op
	}
	op.state, p.op.state = opPending, opPending
	if last := q.byKey[hash]; last != nil {
		last.after = append(last.after, p)
		p.waits++
	}
	q.byKey[hash] = p
	if s.ordered && op.writes() {
		if q.lastWrite != nil {
			q.lastWrite.after = append(q.lastWrite.after, p)
			p.waits++
		}
		q.lastWrite = p
	}
	q.count++
	return p
}

// copyBytes makes key, value and old the op's own.
func (p *pendingOp) copyBytes(op *Op) {
	b := append(p.bytes[:0], op.Key...)
	if op.writes() {
		b = append(append(b, op.Value...), op.Old...)
	}
	p.bytes = b
	k, v := len(op.Key), 0
	p.op.Key = b[:k:k]
	if op.writes() {
		v = k + len(op.Value)
		p.op.Value, p.op.Old = b[k:v:v], b[v:]
	}
}

// enqueue makes op wait for its turn. It is called inside a section. If the op
// will need the disk, its read starts now, so that the reads of a burst overlap.
func (s *Session) enqueue(op *Op, hash uint64) {
	p := s.newPending(op, hash)
	buffers := s.store.dev.Buffers()
	if op.Err != nil || !op.readsOld() || op.Kind == opMove || op.Kind == opForward || op.Kind == opNewest || buffers.InUse() > buffers.Budget()/earlyShare {
		return
	}
	var at place
	if s.find(hash, op.Key, &at); at.kind == disk {
		s.startRead(p, at.addr)
	}
}

// readsOld reports whether the op needs to know the present record.
func (o *Op) readsOld() bool {
	return !(o.Kind == OpPut && o.If == Always || o.Kind == OpDelete && o.Blind || o.Kind == OpNote)
}

// pend makes op wait for the record at at.addr.
func (s *Session) pend(op *Op, hash uint64, at *place) {
	s.awaitRecord(s.newPending(op, hash), at)
}

func (s *Session) awaitRecord(p *pendingOp, at *place) {
	p.head, p.begin = at.head, s.begin
	if r := p.read; r != nil { // started early, see enqueue
		if r.addr == at.addr && (!r.arrived || r.Err == nil) {
			if r.arrived {
				s.queueArrived(r)
			}
			return
		}
		if !r.arrived {
			r.p = nil // nobody waits for it any more
			p.read = nil
		} else {
			s.dropRead(r)
		}
	}
	s.startRead(p, at.addr)
}

// Complete goes on with the operations whose reads have finished. It calls fn
// for every operation that is done, with the session's own copy of the Op, valid
// until fn returns; its Value is valid until the next Start, Complete or Close. nil
// drops the answers. It returns how many are still pending. It never waits for a read, but like Start it may wait
// for a log page.
func (s *Session) Complete(fn func(op *Op)) (pending int) {
	s.recycle()
	s.arena = s.arena[:0]
	if fn == nil {
		fn = func(*Op) {}
	}
	return s.complete(fn)
}

func (s *Session) complete(fn func(op *Op)) int {
	q := &s.queue
	s.inbox.Lock()
	reads := s.inbox.reads
	s.inbox.reads = nil
	s.inbox.Unlock()
	q.released = s.store.stats.released.Load()
	for _, r := range reads {
		q.inFlight--
		s.arrived(r, fn)
	}
	s.retryStarving(fn)
	for len(q.ready) > 0 {
		p := q.ready[0]
		q.ready = q.ready[1:]
		p.due = false
		s.resume(p, fresh, fn)
	}
	s.submit()
	return q.count
}

// retryStarving tries again what found the memory budget spent.
func (s *Session) retryStarving(fn func(*Op)) {
	q := &s.queue
	starving, hungry := q.starving, q.hungry
	q.starving, q.hungry = nil, nil
	if s.store.closed.Load() {
		s.abandon(starving, hungry, fn)
		return
	}
	for _, r := range starving {
		if r.p == nil {
			s.forget(r) // given up
			continue
		}
		s.aim(r, r.addr, r.size)
	}
	for _, p := range hungry {
		s.collectChunks(p, fn)
	}
}

// abandon ends operations of a closed store that have no read in flight.
func (s *Session) abandon(starving []*readOp, hungry []*pendingOp, fn func(*Op)) {
	for _, r := range starving {
		p := r.p
		s.forget(r)
		if p == nil || p.waits > 0 || p.due {
			continue // nobody's, or early: the op ends when its turn comes
		}
		p.op.Err = ErrClosed
		if p.large == nil || p.large.leave() {
			s.finish(p, fn)
		}
	}
	for _, p := range hungry {
		p.op.Err = ErrClosed
		s.finish(p, fn)
	}
}

// arrived handles a finished read.
func (s *Session) arrived(r *readOp, fn func(*Op)) {
	r.arrived = true
	p := r.p
	if p == nil {
		s.dropRead(r)
		return
	}
	if p.waits > 0 || p.due {
		return // early: held until it is the op's turn
	}
	// A closed store's staging memory is gone: the section keeps it.
	if err := s.enter(false); err != nil {
		r.Buf = nil
		s.forget(r)
		p.op.Err = err
		if p.large == nil || p.large.leave() {
			s.finish(p, fn)
		}
		return
	}
	if r.chunk >= 0 {
		s.chunkArrived(p, r, fn)
		return
	}
	s.recordArrived(p, r, fn)
}

// verdictOf is what a read brought.
type readVerdict uint8

const (
	readOn     readVerdict = iota // the read goes on, at another place or for more bytes
	readFound                     // the key's record; its value is in p.value
	readAbsent                    // the chain ended without it
	readStale                     // its place was recycled: start over from the index
	readFailed                    // p.op.Err says why
)

// recordArrived is called inside a section, and ends it.
func (s *Session) recordArrived(p *pendingOp, r *readOp, fn func(*Op)) {
	verdict, w1 := s.examine(p, r)
	if verdict == readOn {
		s.exit()
		return
	}
	s.releaseBuffer(r)
	s.forget(r)
	s.exit()
	switch verdict {
	case readStale:
		s.resume(p, fresh, fn)
	case readFailed:
		s.finish(p, fn)
	case readAbsent:
		switch p.op.Kind {
		case opMove:
			s.unmoved(p, false, fn)
		case opMoveChunk:
			p.op.answer(false)
			s.finish(p, fn)
		case opNewest:
			s.finish(p, fn) // answered by examineNewest
		default:
			s.settle(p, observation{above: p.head, begin: p.begin}, fn)
		}
	case readFound:
		switch p.op.Kind {
		case opMove:
			s.unmoved(p, true, fn)
			return
		case opNewest:
			s.finish(p, fn)
			return
		}
		seen := observation{above: p.head, begin: p.begin, kind: record.KindOf(w1)}
		seen.counted = seen.kind != record.Tombstone
		switch {
		case !seen.counted: // a record deleted in place still has its old value
		case s.past(p.expiry):
			seen.counted = s.store.sweep.counted(p.addr, p.expiry)
		default:
			seen.found, seen.value, seen.expiry = true, p.value, p.expiry
		}
		if p.op.Kind == opMoveChunk && !p.op.ownsChunk(&seen) {
			p.op.answer(false)
			s.finish(p, fn)
			return
		}
		if seen.found && seen.kind == record.Big && p.op.needsValue() {
			s.startLarge(p, seen, fn)
			return
		}
		s.settle(p, seen, fn)
	}
}

// examine looks at the record that was read for p.
func (s *Session) examine(p *pendingOp, r *readOp) (verdict readVerdict, w1 uint64) {
	if r.Err != nil {
		return s.readError(p, r), 0
	}
	buf := r.Buf[r.skip:]
	w0, w1 := record.Words(buf)
	size := record.Size(w0, w1)
	if r.size == 0 && size > len(buf) && r.addr.Bytes()+int64(size) <= s.store.pageEnd(r.addr) {
		s.aim(r, r.addr, size)
		return readOn, 0
	}
	if _, _, ok := record.Verify(buf, s.store.seedAt(r.addr), r.addr); !ok {
		return s.damaged(p, r), 0
	}
	s.store.coldSize.learn(size)
	s.store.stats.coldBytes.Add(uint64(len(r.Buf)))
	if p.op.Kind <= OpTTL {
		s.offer(r.addr, buf[:size], w1)
	}
	isKey := string(record.Key(buf, w0)) == string(p.op.Key) && w1&record.Invalid == 0
	if p.op.Kind == opNewest {
		if verdict, decided := s.examineNewest(&p.op, r.addr, w0, w1, isKey); decided {
			return verdict, w1
		}
	} else if isKey {
		p.value = append(p.value[:0], record.ValueOf(buf, w0, w1)...)
		p.expiry, p.addr = record.ExpiryOf(buf, w0, w1), r.addr
		return readFound, w1
	}
	prev := record.Prev(w0)
	if p.op.Kind == opMove && prev <= p.op.above() {
		return readAbsent, 0
	}
	if prev >= record.FirstAddr && prev >= s.begin {
		s.aim(r, prev, 0)
		return readOn, 0
	}
	if s.begin != p.begin {
		return readStale, 0 // the record may have moved while we looked
	}
	return readAbsent, 0
}

// readError decides about a read the device failed.
func (s *Session) readError(p *pendingOp, r *readOp) readVerdict {
	if r.addr < s.begin {
		return readStale
	}
	s.store.stats.readErrors.Add(1)
	if errors.Is(r.Err, ioring.ErrNoSegment) {
		p.op.Err = corrupt("read of a record", r.addr, r.Err)
	} else {
		p.op.Err = fmt.Errorf("%w: read of log address %v: %w", ErrIO, r.addr, r.Err)
	}
	return readFailed
}

// damaged decides about a record that does not verify.
func (s *Session) damaged(p *pendingOp, r *readOp) readVerdict {
	if r.addr < s.begin {
		return readStale
	}
	s.store.stats.corrupt.Add(1)
	p.op.Err = corrupt("record", r.addr, errChecksum)
	return readFailed
}

var errChecksum = errors.New("checksum does not hold")

// settle carries on with an op that now knows the present value.
func (s *Session) settle(p *pendingOp, seen observation, fn func(*Op)) {
	op := &p.op
	switch op.Kind {
	case OpGet, opChunks:
		s.tally.cold++
		op.answer(seen.found)
		if seen.found {
			p.giveValue(seen.value)
		}
	case OpExists, OpTTL:
		s.tally.cold++
		s.tell(op, seen.found, seen.expiry)
	default:
		s.plan = plan{seen: seen}
		if op.Kind != OpUpdate {
			s.plan.value, s.plan.verdict = s.compute(op, &seen)
		}
		var at place
		if !s.carryOut(op, p.hash, &at) {
			s.dropLarge(p)
			s.resume(p, fresh, fn)
			return
		}
	}
	s.finish(p, fn)
}

// giveValue makes v the answer of an OpGet, in the caller's memory if it fits.
func (p *pendingOp) giveValue(v []byte) {
	if dst := p.op.Value; len(v) > 0 && cap(dst) >= len(v) {
		p.op.Value = dst[:copy(dst[:len(v)], v)]
		return
	}
	p.op.Value = v
}

// resume goes on with p as far as memory allows.
func (s *Session) resume(p *pendingOp, out outcome, fn func(*Op)) {
	if p.op.Err != nil { // refused before its turn
		s.finish(p, fn)
		return
	}
	var at place
	switch s.drive(&p.op, p.hash, out, &at) {
	case finished:
		s.finish(p, fn)
	case onDisk:
		s.awaitRecord(p, &at)
	case inChunks:
		// A read that was started early is of an older record: it must not arrive
		// among the chunks.
		s.giveUpRead(p)
		s.startLarge(p, s.plan.seen, fn)
	}
}

// giveUpRead ends p's interest in the record that is being read for it, or was.
func (s *Session) giveUpRead(p *pendingOp) {
	switch r := p.read; {
	case r == nil:
	case r.arrived:
		s.dropRead(r)
	default:
		r.p = nil // nobody waits for it any more
		p.read = nil
	}
}

// finish hands the op out and lets those go that waited for it.
func (s *Session) finish(p *pendingOp, fn func(*Op)) {
	q := &s.queue
	s.giveUpRead(p)
	q.count--
	s.count(&p.op)
	if q.byKey[p.hash] == p {
		delete(q.byKey, p.hash)
	}
	if q.lastWrite == p {
		q.lastWrite = nil
	}
	for _, next := range p.after {
		if next.waits--; next.waits == 0 {
			next.due = true
			q.ready = append(q.ready, next)
		}
	}
	p.after = p.after[:0]
	p.op.state = opDone
	if p.op.Err != nil {
		p.op.Found = false
	}
	if p.back != nil {
		key, value, old := p.back.Key, p.back.Value, p.back.Old
		*p.back = p.op
		p.back.Key, p.back.Old = key, old
		if p.op.writes() {
			p.back.Value = value
		}
	} else {
		fn(&p.op)
		if p.large != nil {
			// The value is the caller's now. To keep it as well would hold all that one
			// Complete hands out, which no budget knows of any more.
			p.op.Value = nil
		}
	}
	s.dropLarge(p)
	q.retired = append(q.retired, p)
}

// recycle takes back the memory of answered operations.
func (s *Session) recycle() {
	q := &s.queue
	for i, p := range q.retired {
		q.retired[i] = nil
		if len(q.free) >= pendingKeep {
			continue
		}
		if cap(p.value) > pendingBytes || cap(p.bytes) > pendingBytes {
			*p = pendingOp{}
		}
		p.back, p.op = nil, Op{}
		q.free = append(q.free, p)
	}
	q.retired = q.retired[:0]
	if cap(s.old) > arenaKeep {
		s.old = nil
	}
	if cap(s.next) > arenaKeep {
		s.next = nil
	}
	s.plan = plan{}
}
