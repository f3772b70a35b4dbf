package engine

import (
	"encoding/binary"
	"unsafe"

	"rskv/engine/internal/hlog"
	"rskv/engine/internal/index"
	"rskv/engine/internal/record"
)

const (
	// inlineMax is the largest value in bytes stored in its own record; longer
	// ones are cut into chunks. It bounds what is copied while the door may be
	// waiting.
	inlineMax = 64 << 10
	// inPlaceMax is the largest value in bytes updated in place: above it a
	// reader's copy is too likely to be torn, and an append costs no more.
	inPlaceMax = 1 << 10
	// spinMax bounds every spin for a record's latch inside a section: its
	// holder may have been preempted.
	spinMax = 128
)

// outcome says how an attempt at an op inside a section ended.
type outcome uint8

const (
	finished   outcome = iota // the answer is in the op
	fresh                     // not tried yet
	again                     // somebody is in the way: leave the section, yield, start over
	noSpace                   // no log page is free: wait for one outside, start over
	onDisk                    // the answer is on disk, see place
	inChunks                  // the value is in chunks, see place
	callFn                    // OpUpdate: call the function outside, then publish
	needChunks                // the new value must be written as chunks first
	tooLate                   // what was relied on has expired: start over
	noNodes                   // the ordered index wants memory: wait for it outside, start over
)

// place is where the walk along a chain ended.
type place struct {
	slot  *uint64
	entry uint64
	head  record.Addr // newest record of the chain
	addr  record.Addr // inMemory: of the key's record; onDisk: where to go on
	kind  placeKind
	ptr   unsafe.Pointer
	w0    uint64
}

type placeKind uint8

const (
	absent placeKind = iota
	inMemory
	disk
)

// walk follows the chain from head to the record of key.
func (s *Session) walk(head record.Addr, key []byte, at *place) {
	log := s.store.log
	at.head = head
	a := head
	for a >= s.mem {
		p := log.Pointer(a)
		w0 := record.Load0(p)
		if record.KeyEqual(p, w0, key) && record.Load1(p)&record.Invalid == 0 {
			at.kind, at.addr, at.ptr, at.w0 = inMemory, a, p, w0
			return
		}
		a = record.Prev(w0)
	}
	if a < record.FirstAddr || a < s.begin {
		at.kind, at.addr = absent, 0
		return
	}
	at.kind, at.addr = disk, a
}

// find looks the key up without creating an entry for it.
func (s *Session) find(hash uint64, key []byte, at *place) {
	at.slot, at.entry = s.store.index.Find(hash)
	if at.entry == 0 {
		at.kind, at.addr, at.head = absent, 0, 0
		return
	}
	s.walk(index.Address(at.entry), key, at)
}

// findForWrite looks op's key up and makes sure that its chain has an entry. If
// that is not to be had, ok is false and out says what becomes of op.
func (s *Session) findForWrite(op *Op, hash uint64, at *place) (out outcome, ok bool) {
	var err error
	at.slot, at.entry, err = s.store.index.FindOrCreate(hash)
	switch err {
	case nil:
		s.walk(index.Address(at.entry), op.Key, at)
		return finished, true
	case index.ErrBusy:
		return again, false
	}
	return op.fail(ErrIndexFull), false
}

// attempt runs op as far as memory allows.
func (s *Session) attempt(op *Op, hash uint64, at *place) outcome {
	switch op.Kind {
	case OpGet:
		return s.get(op, hash, at)
	case OpExists, OpTTL:
		return s.exists(op, hash, at)
	case OpPut:
		if op.If == Always {
			return s.put(op, hash, at)
		}
	case OpDelete:
		return s.del(op, hash, at)
	case OpNote:
		return finished
	case opMove, opForward:
		return s.move(op, hash, at)
	case opNewest:
		return s.newest(op, hash, at)
	case opChunks:
		return s.collect(op)
	case OpAdd:
		if out, ok := s.addInPlace(op, hash, at); ok {
			return out
		}
	}
	return s.modify(op, hash, at)
}

func (s *Session) get(op *Op, hash uint64, at *place) outcome {
	s.find(hash, op.Key, at)
	switch at.kind {
	case absent:
		return op.answer(false)
	case disk:
		if s.cached(op, at) {
			return finished
		}
		return onDisk
	}
	for range spinMax {
		w1 := record.Load1(at.ptr)
		if record.Locked(w1) {
			continue
		}
		if w1&record.Expiry != 0 || record.KindOf(w1) != record.Value {
			switch {
			case s.dead(at, w1):
				if record.Load1(at.ptr) != w1 {
					continue
				}
				return op.answer(false)
			case record.KindOf(w1) == record.Big:
				seen, ok := s.observe(at)
				if !ok || !seen.found {
					continue
				}
				s.plan = plan{seen: seen}
				return inChunks
			}
		}
		dst := s.room(op, record.ValueLen(w1))
		record.CopyOut(unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Add(at.ptr, record.ValueOffset(at.w0, w1)), len(dst))
		if record.Load1(at.ptr) == w1 {
			s.keep(op, dst)
			return op.answer(true)
		}
	}
	return again
}

// getHot is the short way to a value in memory that fits dst: the newest record
// of its chain, without an expiry and not being changed, without an Op. ok is false for everything
// else. What counts here is that two lookups of a caller's loop overlap in the
// processor, so it does nothing but this.
func (s *Session) getHot(key, dst []byte) (v []byte, ok bool) {
	st := s.store
	if len(key) == 0 || len(key) > MaxKey || s.queue.count != 0 || s.closed {
		return nil, false
	}
	hash := record.Hash(st.seed, key)
	s.slot.Enter()
	if !st.closed.Load() {
		_, entry := st.index.Find(hash)
		if a := index.Address(entry); a >= max(st.log.Head(), record.FirstAddr) {
			v, ok = copyHot(st.log.Pointer(a), key, dst)
		}
	}
	s.slot.Exit()
	if ok {
		if s.tally.hot++; s.tally.hot >= hotFlush {
			s.flush(nil)
		}
	}
	return v, ok
}

func copyHot(p unsafe.Pointer, key, dst []byte) ([]byte, bool) {
	w0, w1 := record.Load0(p), record.Load1(p)
	n := record.ValueLen(w1)
	if record.Locked(w1) || w1&(record.Invalid|record.Expiry) != 0 || record.KindOf(w1) != record.Value || n > cap(dst) || n == 0 || !record.KeyEqual(p, w0, key) {
		return nil, false
	}
	dst = dst[:n]
	record.CopyOut(unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Add(p, record.ValueOffset(w0, w1)), n)
	return dst, record.Load1(p) == w1
}

// room returns n bytes for an answer: the caller's if they are enough, else the
// session's. keep makes them the answer.
func (s *Session) room(op *Op, n int) []byte {
	if cap(op.Value) >= n && n > 0 {
		return op.Value[:n]
	}
	if free := cap(s.arena) - len(s.arena); free < n || s.arena == nil {
		// Answers already given keep the old arena alive.
		s.arena = make([]byte, 0, max(arenaMin, n, 2*cap(s.arena)))
	}
	return s.arena[len(s.arena) : len(s.arena)+n : len(s.arena)+n]
}

func (s *Session) keep(op *Op, dst []byte) {
	if len(dst) > 0 && cap(op.Value) >= len(dst) && unsafe.SliceData(op.Value) == unsafe.SliceData(dst) {
		op.Value = dst
		return
	}
	s.arena = s.arena[:len(s.arena)+len(dst)]
	op.Value = dst
}

func (o *Op) answer(found bool) outcome {
	o.Found = found
	if o.Kind == OpGet && !found {
		o.Value = o.Value[:0]
	}
	return finished
}

func (o *Op) fail(err error) outcome {
	o.Err = err
	return finished
}

func (s *Session) exists(op *Op, hash uint64, at *place) outcome {
	s.find(hash, op.Key, at)
	switch at.kind {
	case absent:
		return op.answer(false)
	case disk:
		if s.cached(op, at) {
			return finished
		}
		return onDisk
	}
	for range spinMax {
		w1 := record.Load1(at.ptr)
		if record.Locked(w1) {
			continue
		}
		dead, expiry := s.dead(at, w1), expiryAt(at, w1)
		if record.Load1(at.ptr) == w1 {
			return s.tell(op, !dead, expiry)
		}
	}
	return again
}

// tell answers an OpExists or OpTTL.
func (s *Session) tell(op *Op, found bool, expiry int64) outcome {
	if found && op.Kind == OpTTL {
		op.Int = s.ttlOf(expiry)
	}
	return op.answer(found)
}

// put stores without a condition.
func (s *Session) put(op *Op, hash uint64, at *place) outcome {
	if len(op.Value) > s.store.inline {
		s.plan = plan{value: op.Value, verdict: Replace, blind: true}
		return needChunks
	}
	c := s.contentOf(op, &observation{}, op.Value, Replace)
	return s.putRecord(op, hash, at, &c)
}

// putRecord stores c, whatever was there: in place where it fits, else at the
// tail.
func (s *Session) putRecord(op *Op, hash uint64, at *place, c *contents) outcome {
	size := c.size(len(op.Key))
	for range spinMax {
		if out, ok := s.findForWrite(op, hash, at); !ok {
			return out
		}
		if s.fuzzy(at) {
			return again
		}
		if at.kind != inMemory || at.addr < s.ro {
			out, ok := s.append(op.Key, c, at, s.countedAt(at))
			if ok {
				return op.answer(true)
			}
			if out != finished {
				return s.failed(op, out)
			}
			continue
		}
		w1 := record.Load1(at.ptr)
		if w1&record.Sealed != 0 || !record.TryLock(at.ptr, w1) {
			continue
		}
		if record.Size(at.w0, w1) == size && len(c.value) <= inPlaceMax {
			if out := s.overwrite(op.Key, at, w1, c); out != finished {
				return s.failed(op, out)
			}
			return op.answer(true)
		}
		out, ok := s.replace(op.Key, c, at, w1)
		if ok {
			return op.answer(true)
		}
		if out != finished {
			return s.failed(op, out)
		}
	}
	return again
}

// fuzzy reports whether somebody who knows an older read-only address may still
// be changing the record in place. What it says now, and so whether the key is
// there, may not be what the newer record takes the place of.
func (s *Session) fuzzy(at *place) bool {
	return at.kind == inMemory && at.addr < s.ro && at.addr >= s.safeRO
}

// countedAt reports whether the key at this place is counted as a live one. A chain
// that goes on on disk is taken to hold the key: no count is worth a read.
func (s *Session) countedAt(at *place) bool {
	switch at.kind {
	case absent:
		return false
	case disk:
		return true
	}
	return counts(record.Load1(at.ptr))
}

// counts reports whether a record with this word 1, as the newest of its key, is
// counted as a live one: it may have expired.
func counts(w1 uint64) bool {
	return record.KindOf(w1) != record.Tombstone && w1&record.Swept == 0
}

// liveDelta is by how many keys there are more when one that was counted, or not,
// gets a record of a kind.
func liveDelta(counted bool, to record.Kind) int64 {
	switch {
	case !counted && to != record.Tombstone:
		return 1
	case counted && to == record.Tombstone:
		return -1
	}
	return 0
}

// overwrite changes a latched mutable record in place and releases it. The
// rounded size stays the same. If it is not finished nothing has happened.
func (s *Session) overwrite(key []byte, at *place, w1 uint64, c *contents) outcome {
	if s.store.order.tree != nil {
		if _, out := s.revive(key, at, w1); out != finished {
			record.Unlock(at.ptr, w1)
			return out
		}
	}
	next := c.word1()
	s.bytes += s.reweigh(at, w1, c)
	if (c.flags()|w1)&record.Expiry != 0 {
		s.noteChange(at, w1, c)
	}
	if c.expiry != 0 {
		record.StoreExpiry(at.ptr, at.w0, c.expiry)
	}
	record.CopyIn(unsafe.Add(at.ptr, record.ValueOffset(at.w0, next)), unsafe.Pointer(unsafe.SliceData(c.value)), len(c.value))
	s.live += liveDelta(counts(w1), c.kind)
	s.tally.inPlace++
	record.UnlockChanged(at.ptr, w1, next|s.mark&w1)
	return finished
}

// replace appends a newer record for a latched mutable one, seals that, and
// releases it. ok is false if nothing happened: out then says why, finished
// meaning that the chain has changed.
func (s *Session) replace(key []byte, c *contents, at *place, w1 uint64) (out outcome, ok bool) {
	s.mark &= w1 // what a user has written in this commit group stays a change
	out, ok = s.append(key, c, at, counts(w1))
	if ok || out == tooLate {
		// The newer record is linked: whoever still holds this one must look again.
		record.UnlockChanged(at.ptr, w1, w1|record.Sealed)
		return out, ok
	}
	record.Unlock(at.ptr, w1)
	return out, false
}

// append writes a record at the tail and links it, and keeps the ordered index in
// step, if there is one. counted is whether the key was counted as a live one.
func (s *Session) append(key []byte, c *contents, at *place, counted bool) (out outcome, ok bool) {
	if s.store.order.tree == nil {
		return s.link(key, c, at, counted)
	}
	return s.linkInOrder(key, c, at, counted)
}

// link writes a record at the tail and makes it the newest of its chain, if the
// chain's entry is still the one that was read. With tooLate it is linked, but as a
// tombstone.
func (s *Session) link(key []byte, c *contents, at *place, counted bool) (out outcome, ok bool) {
	if s.store.room.refuses(s, c.kind) {
		return noSpace, false
	}
	a, p, status := s.allocate(c.size(len(key)), at.head)
	switch status {
	case hlog.Again:
		return again, false
	case hlog.OK:
	default:
		return noSpace, false
	}
	prev := at.head
	if prev < record.FirstAddr {
		prev = 0
	}
	w0, w1 := record.Word0(prev, len(key)), c.word1()|s.mark
	shown := w1
	if c.deadline != 0 {
		shown = record.Latched(w1)
	}
	record.Write(p, w0, shown, key, c.value)
	if c.expiry != 0 {
		record.StoreExpiry(p, w0, c.expiry)
	}
	if !index.CAS(at.slot, at.entry, a) {
		record.Store1(p, w1|record.Invalid)
		return finished, false
	}
	s.tally.appended++
	if counted && at.kind == inMemory && at.addr < s.ro {
		counted = s.takeCount(at)
	}
	if c.deadline != 0 {
		if s.late(c.deadline) {
			dead := contents{kind: record.Tombstone}
			s.live += liveDelta(counted, dead.kind)
			s.bytes += s.weigh(key, &dead, at, counted)
			if c.expiry != 0 {
				s.noteExpiry(a, c.expiry, weightOf(key, c), false)
			}
			record.UnlockChanged(p, w1, record.Word1(record.Tombstone, len(c.value), c.flags()))
			return tooLate, false
		}
		record.Unlock(p, w1)
	}
	s.live += liveDelta(counted, c.kind)
	s.bytes += s.weigh(key, c, at, counted)
	if c.expiry != 0 {
		s.noteExpiry(a, c.expiry, weightOf(key, c), true)
	}
	return finished, true
}

// failed turns noSpace, and noNodes, into an error when waiting would not help.
func (s *Session) failed(op *Op, out outcome) outcome {
	if out == noNodes && !s.store.order.mayGrow() {
		return op.fail(ErrIndexFull)
	}
	if out == noSpace {
		if err := s.store.Err(); err != nil {
			return op.fail(err)
		}
		// The reserve is for what makes room: that may wait for a page.
		makesRoom := op.Kind == OpDelete || s.mover
		if full := s.store.Full(); full != nil && (!makesRoom || s.store.log.Stuck()) {
			return op.fail(full)
		}
	}
	return out
}

// del removes a key. A tombstone is always left behind: without one the older
// record would come back at the next recovery.
func (s *Session) del(op *Op, hash uint64, at *place) outcome {
	for range spinMax {
		s.find(hash, op.Key, at)
		switch {
		case at.kind == absent:
			return op.answer(false)
		case s.fuzzy(at):
			return again
		case at.kind == disk || at.addr < s.ro:
			if at.kind == disk && !op.Blind {
				seen, ok := s.observeCached(op.Key, at)
				if !ok {
					return onDisk
				}
				if !seen.found {
					return op.answer(false)
				}
			} else if at.kind == inMemory && s.dead(at, record.Load1(at.ptr)) {
				return op.answer(false)
			}
			out, ok := s.append(op.Key, &contents{kind: record.Tombstone}, at, s.countedAt(at))
			if ok {
				return op.answer(true)
			}
			if out != finished {
				return s.failed(op, out)
			}
			continue
		}
		w1 := record.Load1(at.ptr)
		if record.Locked(w1) || w1&record.Sealed != 0 {
			continue
		}
		if s.dead(at, w1) {
			if record.Load1(at.ptr) != w1 {
				continue
			}
			return op.answer(false)
		}
		if record.TryLock(at.ptr, w1) {
			// The record keeps its length, so that its size stays known.
			s.live--
			s.bytes -= s.weightAt(at, w1)
			s.tally.inPlace++
			record.UnlockChanged(at.ptr, w1, record.Word1(record.Tombstone, record.ValueLen(w1), w1&record.Expiry))
			if s.store.order.tree != nil {
				s.store.order.tree.Doubt(op.Key)
			}
			return op.answer(true)
		}
	}
	return again
}

// addInPlace adds to a mutable counter; ok is false if it is not one.
func (s *Session) addInPlace(op *Op, hash uint64, at *place) (out outcome, ok bool) {
	for range spinMax {
		s.find(hash, op.Key, at)
		if at.kind != inMemory || at.addr < s.ro {
			return finished, false
		}
		w1 := record.Load1(at.ptr)
		if record.KindOf(w1) != record.Value || record.ValueLen(w1) != 8 {
			return finished, false
		}
		if op.TTL != 0 && w1&record.Expiry == 0 {
			return finished, false
		}
		if w1&record.Sealed != 0 || !record.TryLock(at.ptr, w1) {
			continue
		}
		before := expiryAt(at, w1)
		if s.late(before) {
			record.Unlock(at.ptr, w1)
			return finished, false
		}
		s.addLocked(op, unsafe.Add(at.ptr, record.ValueOffset(at.w0, w1)), at.ptr, w1)
		if op.TTL != 0 && op.Err == nil {
			after, size := s.now()+op.TTL, int64(record.Size(at.w0, w1))
			s.noteExpiry(at.addr, before, -size, false)
			s.noteExpiry(at.addr, after, size, after < before)
		}
		return finished, true
	}
	return again, true
}

// addLocked adds to the counter at value in the record at p, which the caller has
// latched on w1, and releases it.
func (s *Session) addLocked(op *Op, value, p unsafe.Pointer, w1 uint64) {
	var b [8]byte
	record.CopyOut(unsafe.Pointer(&b), value, 8)
	sum, err := addInt64(int64(binary.LittleEndian.Uint64(b[:])), op.Delta)
	if err != nil {
		record.Unlock(p, w1)
		op.fail(err)
		return
	}
	binary.LittleEndian.PutUint64(b[:], uint64(sum))
	record.CopyIn(value, unsafe.Pointer(&b), 8)
	if op.TTL != 0 {
		record.StoreExpiry(p, record.Load0(p), s.now()+op.TTL)
	}
	s.tally.inPlace++
	record.UnlockChanged(p, w1, w1&^record.Moved)
	op.Int = sum
	op.answer(true)
}

func addInt64(a, b int64) (int64, error) {
	sum := a + b
	if (sum > a) != (b > 0) && b != 0 {
		return 0, ErrOverflow
	}
	return sum, nil
}
