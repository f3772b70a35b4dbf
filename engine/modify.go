package engine

import (
	"bytes"
	"encoding/binary"
	"unsafe"

	"rskv/engine/internal/record"
)

// observation is what a read-modify-write has seen and relies on.
type observation struct {
	found   bool
	counted bool // the key is counted as a live one, though it may have expired
	kind    record.Kind
	value   []byte
	expiry  int64       // of what was found; 0: none
	addr    record.Addr // of the record seen in memory, else 0
	w1      uint64      // its word 1
	stable  bool        // it could not change any more when it was seen
	above   record.Addr // nothing for the key above this address, if addr is 0
	begin   record.Addr // of the log when it was seen, if addr is 0
}

// plan is a change that needs something done outside of a section before it can
// be published: the function called, or the value written as chunks.
type plan struct {
	seen    observation
	value   []byte
	verdict Verdict
	blind   bool // an unconditional put: nothing was observed
}

// modify is the general read-modify-write: observe, compute, publish.
func (s *Session) modify(op *Op, hash uint64, at *place) outcome {
	for range spinMax {
		s.find(hash, op.Key, at)
		var seen observation
		switch at.kind {
		case disk:
			ok := false
			if seen, ok = s.observeCached(op.Key, at); !ok || op.Kind == opMoveChunk {
				return onDisk
			}
		case absent:
			if op.Kind == opMoveChunk {
				return op.answer(false)
			}
			seen.above, seen.begin = at.head, s.begin
		case inMemory:
			ok := false
			if seen, ok = s.observe(at); !ok {
				continue
			}
			if op.Kind == opMoveChunk && !op.ownsChunk(&seen) {
				return op.answer(false)
			}
			if seen.found && seen.kind == record.Big && op.needsValue() {
				s.plan = plan{seen: seen}
				return inChunks
			}
		}
		if op.Kind == OpUpdate {
			s.plan = plan{seen: seen}
			return callFn
		}
		value, verdict := s.compute(op, &seen)
		if verdict == Keep {
			return finished
		}
		if verdict == Replace && len(value) > s.store.inline {
			s.plan = plan{seen: seen, value: value, verdict: verdict}
			return needChunks
		}
		c := s.contentOf(op, &seen, value, verdict)
		out, changed := s.publish(op, hash, at, &seen, &c)
		if !changed {
			return out
		}
	}
	return again
}

// needsValue reports whether the op looks at the present value, and not only at
// whether there is one.
func (o *Op) needsValue() bool {
	switch o.Kind {
	case OpGet, OpAdd, OpAppend, OpUpdate, opMoveChunk:
		return true
	case OpCompareAndSwap:
		return !o.OldAbsent
	}
	return false
}

// observe copies the value of a record in memory. ok is false when it changed
// meanwhile.
func (s *Session) observe(at *place) (seen observation, ok bool) {
	w1 := record.Load1(at.ptr)
	if record.Locked(w1) || at.addr >= s.ro && w1&record.Sealed != 0 {
		return seen, false
	}
	seen.addr, seen.w1, seen.stable = at.addr, w1, at.addr < s.store.log.SafeReadOnly()
	seen.kind, seen.found = record.KindOf(w1), !s.dead(at, w1)
	seen.counted = counts(w1)
	if seen.found {
		seen.expiry = expiryAt(at, w1)
		s.old = grow(s.old, record.ValueLen(w1))
		record.CopyOut(unsafe.Pointer(unsafe.SliceData(s.old)), unsafe.Add(at.ptr, record.ValueOffset(at.w0, w1)), len(s.old))
		seen.value = s.old
	}
	return seen, record.Load1(at.ptr) == w1
}

// grow returns a slice of n bytes, b's own if it is large enough.
func grow(b []byte, n int) []byte {
	if cap(b) >= n && b != nil {
		return b[:n]
	}
	return make([]byte, n, max(n, 64))
}

// compute decides what a read-modify-write does, and fills in its answer. The
// new value aliases op or the session's next buffer.
func (s *Session) compute(op *Op, seen *observation) ([]byte, Verdict) {
	found, old := seen.found, seen.value
	switch op.Kind {
	case OpPut:
		op.Found = op.If == Always || found == (op.If == IfPresent)
		return op.Value, storeIf(op.Found)
	case OpDelete:
		op.Found = found
		if found {
			return nil, Remove
		}
	case OpCompareAndSwap:
		op.Found = found != op.OldAbsent && (op.OldAbsent || bytes.Equal(old, op.Old))
		switch {
		case op.Found && !op.NewAbsent:
			return op.Value, Replace
		case op.Found && found:
			return nil, Remove
		}
	case OpExpire:
		op.Found = found
		return old, storeIf(found && (op.TTL != 0 || seen.expiry != 0))
	case opMoveChunk:
		op.Found = found
		return old, storeIf(found)
	case OpAdd:
		return s.computeAdd(op, found, old)
	case OpAppend:
		if len(old)+len(op.Value) > s.store.opt.MaxValue {
			op.Err = ErrValueTooLarge
			return nil, Keep
		}
		s.next = append(append(s.next[:0], old...), op.Value...)
		op.Int, op.Found = int64(len(s.next)), true
		return s.next, Replace
	case OpUpdate:
		value, verdict := op.Fn(old, found)
		op.Found = found
		if verdict == Replace && len(value) > s.store.opt.MaxValue {
			op.Err = ErrValueTooLarge
			return nil, Keep
		}
		if verdict == Remove && !found {
			return nil, Keep
		}
		return value, verdict
	}
	return nil, Keep
}

func storeIf(ok bool) Verdict {
	if ok {
		return Replace
	}
	return Keep
}

func (s *Session) computeAdd(op *Op, found bool, old []byte) ([]byte, Verdict) {
	var have int64
	if found {
		if len(old) != 8 {
			op.Err = ErrNotInteger
			return nil, Keep
		}
		have = int64(binary.LittleEndian.Uint64(old))
	}
	sum, err := addInt64(have, op.Delta)
	if err != nil {
		op.Err = err
		return nil, Keep
	}
	op.Int, op.Found = sum, true
	s.next = binary.LittleEndian.AppendUint64(s.next[:0], uint64(sum))
	return s.next, Replace
}

// publish stores the outcome of a read-modify-write if what it relied on still
// holds. changed tells the caller to observe again.
func (s *Session) publish(op *Op, hash uint64, at *place, seen *observation, c *contents) (out outcome, changed bool) {
	if op.Kind == opMoveChunk {
		defer func() { s.mark = 0 }()
	}
	for range spinMax {
		if op.Kind == opMoveChunk {
			s.mark = record.Moved
		}
		if out, ok := s.findForWrite(op, hash, at); !ok {
			return out, false
		}
		var ok bool
		if seen.addr == 0 {
			if !s.nothingAbove(at, seen) {
				return finished, true
			}
			out, ok = s.append(op.Key, c, at, seen.counted)
		} else {
			if at.kind != inMemory || at.addr != seen.addr {
				return finished, true
			}
			if out, ok, changed = s.supersede(op, at, seen, c); changed {
				return finished, true
			}
		}
		if ok {
			if op.Kind == opMoveChunk {
				s.moved(0, 1)
			}
			return finished, false
		}
		if out == tooLate {
			return finished, true
		}
		if out != finished {
			return s.failed(op, out), false
		}
	}
	return again, false
}

// nothingAbove reports whether the walk that ended at this place proves that the
// key has no record above the one that was observed.
func (s *Session) nothingAbove(at *place, seen *observation) bool {
	switch at.kind {
	case inMemory:
		return false
	case disk:
		// Everything in memory was looked at, so what is left is at or below
		// this address.
		return at.addr <= seen.above
	}
	// If the log begins later now, a tombstone may have come and gone with it.
	return s.begin == seen.begin
}

// supersede puts a new value in the place of the record that was observed.
func (s *Session) supersede(op *Op, at *place, seen *observation, c *contents) (out outcome, ok, changed bool) {
	w1 := seen.w1
	if at.addr < s.ro {
		if !seen.stable {
			if at.addr >= s.safeRO {
				// Somebody may still be updating it in place.
				return again, false, false
			}
			if record.Load1(at.ptr) != w1 {
				return finished, false, true
			}
		}
		out, ok = s.append(op.Key, c, at, s.countedAt(at))
		return out, ok, false
	}
	if !record.TryLock(at.ptr, w1) {
		return finished, false, true
	}
	if c.kind == record.Value && len(c.value) <= inPlaceMax && c.size(len(op.Key)) == record.Size(at.w0, w1) {
		if s.late(c.deadline) {
			record.Unlock(at.ptr, w1)
			return finished, false, true
		}
		out = s.overwrite(op.Key, at, w1, c)
		return out, out == finished, false
	}
	out, ok = s.replace(op.Key, c, at, w1)
	return out, ok, false
}
