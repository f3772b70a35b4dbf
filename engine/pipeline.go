package engine

import (
	"unsafe"

	"rskv/engine/internal/index"
	"rskv/engine/internal/record"
)

// A group runs through three stages, block by block, so that each waits for
// memory that was asked for a stage earlier, and never more lines are asked for
// at a time than the processor can have on their way:
//
//	prepare   check, hash, ask for the bucket      24 ops ahead of act
//	locate    find the entry, ask for the record   12 ops ahead
//	act       do it
//
// Measured, 10 M keys of 8 B, one core: 42 ns a get. Whole groups of 32 take 70,
// since a core has some twelve lines on their way at most, and a burst of more of
// them is lost; blocks of 16 take 47.
const (
	pipeBlock    = 4
	locateAhead  = 12
	prepareAhead = 24
	// locateLong is locateAhead for records of more than a line: with values of
	// 100 B it takes 76 ns where 12 takes 84.
	locateLong = 8
	cacheLine  = 64
	// spanMax bounds how much of a record is asked for, in bytes: the processor
	// follows longer ones by itself.
	spanMax = 256
)

// pipe is the state of a group's stages.
type pipe struct {
	refuse   error // what to answer to writes: the store has become read-only
	prepared int   // ops that have been prepared
	located  int   // ops that have been located in this section, or need not be
	allotted int   // ops that room has been taken for in this section, or need none

	hashes [groupOps]uint64
	// hints are the entries that locate found, slots where. What they say may be
	// out of date when the op acts: an op before it, of this group too, may have
	// moved the key, and must not be undone by looking at its old place. So
	// whoever uses a hint looks at the slot again.
	hints [groupOps]uint64
	slots [groupOps]*uint64
	lines [groupOps * spanMax / cacheLine]uintptr
}

// begin makes the pipe ready for a group. The arrays need not be cleared, which
// would take as long as one op in thirty.
func (p *pipe) begin() { p.refuse, p.prepared, p.located = nil, 0, 0 }

// blockEnd is the number of the first op behind the block of op i.
func blockEnd(i int) int { return i&^(pipeBlock-1) + pipeBlock }

// runAhead brings the stages before act to where they should be when the block
// of op i acts.
func (s *Session) runAhead(ops []Op, i int) {
	p := &s.pipe
	n := len(ops)
	ahead := locateAhead
	if s.span > cacheLine {
		ahead = locateLong
	}
	prepareTo, locateTo := min(blockEnd(i)+prepareAhead, n), min(blockEnd(i)+ahead, n)
	for p.prepared < prepareTo || p.located < locateTo {
		if p.prepared < prepareTo {
			s.prepare(ops, min(blockEnd(p.prepared), n))
		}
		if p.located < locateTo && (p.located+pipeBlock+prepareAhead-ahead <= p.prepared || p.prepared == n) {
			s.locate(min(blockEnd(p.located), locateTo))
		}
	}
}

// prepare takes the ops up to number end through the first stage.
func (s *Session) prepare(ops []Op, end int) {
	st, p := s.store, &s.pipe
	begin := p.prepared
	for i := begin; i < end; i++ {
		op := &ops[i]
		op.state, op.Found = opDone, false
		if op.Err != nil {
			op.Err = nil
		}
		if k := len(op.Key); op.Kind != OpGet || op.TTL != 0 || k == 0 || k > MaxKey {
			if err := s.check(op); err != nil {
				op.Err, p.hashes[i] = err, 0
				continue
			}
		}
		if len(op.Key) == 8 {
			p.hashes[i] = record.HashWord(st.seed, op.Key)
			continue
		}
		p.hashes[i] = record.Hash(st.seed, op.Key)
	}
	if len(ops) > 1 {
		st.index.Prefetch(p.hashes[begin:end])
	}
	p.prepared = end
}

// check says what is wrong with an op, which it is then answered.
func (s *Session) check(op *Op) error {
	if !s.mover {
		if err := op.check(s.store.opt.MaxValue); err != nil {
			return err
		}
	}
	if s.pipe.refuse != nil && op.writes() {
		return s.pipe.refuse
	}
	return nil
}

// locate takes the ops up to number end through the second stage.
func (s *Session) locate(end int) {
	log, p := s.store.log, &s.pipe
	begin := p.located
	s.store.index.FindAll(p.hashes[begin:end], p.slots[begin:end], p.hints[begin:end])
	n := 0
	for _, entry := range p.hints[begin:end] {
		if a := index.Address(entry); a >= s.mem {
			at := uintptr(log.Pointer(a))
			for off := uintptr(0); off < s.span; off += cacheLine {
				p.lines[n] = at + off
				n++
			}
		}
	}
	index.PrefetchLines(p.lines[:n])
	p.located = end
}

// runHinted finishes ops from number i on the short way, from what locate found,
// and returns the number of the first one that it cannot, end if there is none.
// It can if the record is the newest of its chain, in memory, and not being
// changed; what it cannot it leaves as it was. One loop, almost without calls:
// with everything in the processor's cache a get of 8 B takes 20 ns, and a stage
// of its own for each step took 32.
func (s *Session) runHinted(ops []Op, i, end int) int {
	p, log := &s.pipe, s.store.log
	var w0, w1 uint64
	for ; i < end; i++ {
		op, entry := &ops[i], p.hints[i]
		a := index.Address(entry)
		if a < s.mem || op.Err != nil || !index.Is(p.slots[i], entry) {
			break
		}
		at := log.Pointer(a)
		w0, w1 = record.Load0(at), record.Load1(at)
		if !record.KeyEqual(at, w0, op.Key) {
			break
		}
		value := unsafe.Add(at, record.PlainOffset(len(op.Key)))
		done := false
		switch op.Kind {
		case OpGet:
			n := record.ValueLen(w1)
			if !record.Readable(w1) || n > cap(op.Value) || n == 0 {
				done = record.Readable(w1) && s.getRoom(op, at, value, w1)
				break
			}
			record.CopyOut(unsafe.Pointer(unsafe.SliceData(op.Value)), value, n)
			if done = record.Load1(at) == w1; done {
				op.Value = op.Value[:n]
			}
		case OpPut:
			switch {
			case op.If != Always || op.TTL != 0:
			case a >= s.ro:
				done = s.putHinted(op, at, value, w1)
			case a < s.safeRO:
				done = s.copyHinted(op, i, a, w1)
			}
		case OpAdd:
			done = a >= s.ro && op.TTL == 0 && s.addHinted(op, at, value, w1)
		}
		if !done {
			break
		}
		op.Found = op.Err == nil
		if op.Number != 0 {
			s.counted = op.Number
		}
	}
	if w0 != 0 {
		s.span = uintptr(min(record.Size(w0, w1), spanMax))
	}
	return i
}

// getRoom answers an OpGet whose caller has given no room for the value, from the
// record at p with the second word w1.
func (s *Session) getRoom(op *Op, p, value unsafe.Pointer, w1 uint64) bool {
	dst := s.room(op, record.ValueLen(w1))
	record.CopyOut(unsafe.Pointer(unsafe.SliceData(dst)), value, len(dst))
	if record.Load1(p) != w1 {
		return false
	}
	s.keep(op, dst)
	return true
}

// putHinted carries out an OpPut in the mutable record at p, if that has a value of
// the same length: nothing but bytes changes.
func (s *Session) putHinted(op *Op, p, value unsafe.Pointer, w1 uint64) bool {
	n := len(op.Value)
	if n > inPlaceMax || !record.Plain(w1, n) || !record.TryLock(p, w1) {
		return false
	}
	record.CopyIn(value, unsafe.Pointer(unsafe.SliceData(op.Value)), n)
	record.UnlockChanged(p, w1, w1)
	s.tally.inPlace++
	return true
}

// copyHinted carries out an OpPut, number i of the group, whose key has a frozen
// record of the same length at a, the newest of its chain: a new one goes where room
// was allotted, and is linked by the hint, which proves itself in the swap. Neither
// keys nor bytes become more or less by it.
func (s *Session) copyHinted(op *Op, i int, a record.Addr, w1 uint64) bool {
	n, r := len(op.Value), &s.allotted
	size := record.SizeFor(len(op.Key), n)
	if r.left < size || r.addr <= a || !record.Plain(w1&^record.Moved, n) || s.store.order.tree != nil {
		return false
	}
	at, p, _ := s.allocate(size, a)
	w1 = record.Word1(record.Value, n, s.mark)
	record.Write(p, record.Word0(a, len(op.Key)), w1, op.Key, op.Value)
	if !index.CAS(s.pipe.slots[i], s.pipe.hints[i], at) {
		record.Store1(p, w1|record.Invalid)
		return false
	}
	s.tally.appended++
	return true
}

// addHinted carries out an OpAdd on the mutable record at p, if that is a counter.
func (s *Session) addHinted(op *Op, p, value unsafe.Pointer, w1 uint64) bool {
	if !record.Plain(w1, 8) || !record.TryLock(p, w1) {
		return false
	}
	s.addLocked(op, value, p, w1)
	return true
}
