package engine

import (
	"rskv/engine/internal/record"
)

const (
	// groupOps and groupBytes bound what is done in one section, and so what a
	// closing door waits for.
	groupOps   = 64
	groupBytes = 64 << 10
	// arenaMin is the smallest room for answers in bytes, arenaKeep the largest
	// that a session keeps from one batch to the next.
	arenaMin  = 4 << 10
	arenaKeep = 1 << 20
)

// Start runs a batch of operations: the primary path. It hashes all keys,
// prefetches their buckets, then their records, then acts, all in one epoch
// section, so that the cache misses of a batch overlap instead of adding up.
//
// When Start returns, every op is either finished or pending: it waits for the
// disk, or for an op before it on the same key that does. The reads of a batch
// are submitted together. The session has taken a copy of a pending op, of its
// key and value too; Complete hands it out when it is done. ops[i] may be used
// again at once; only the memory lent to an OpGet for its answer stays lent.
//
// It returns the number of pending operations of the session. Answers of OpGet
// lie in op.Value's own array if that was large enough, else in the session's
// memory; they stay valid until the next call of Start, Complete or Close.
//
// Start blocks only where a write needs a log page and all of them wait to be
// flushed, and at the door of a commit, for microseconds.
func (s *Session) Start(ops []Op) (pending int) {
	if s.closed {
		s.refuseAll(ops)
		return 0
	}
	if cap(s.arena) > arenaKeep {
		s.arena = nil
	}
	s.arena = s.arena[:0]
	s.recycle()
	s.queue.released = s.store.stats.released.Load()
	for len(ops) > 0 {
		n, write := group(ops)
		s.group(ops[:n], write)
		ops = ops[n:]
	}
	s.submit()
	return s.queue.count
}

// group says how many of the ops go into the next section, and whether one of
// them writes.
func group(ops []Op) (n int, write bool) {
	bytes := 0
	for n < len(ops) && n < groupOps {
		op := &ops[n]
		if op.writes() {
			write = true
			if bytes += len(op.Key) + min(len(op.Value), inlineMax); bytes > groupBytes && n > 0 {
				break
			}
		}
		n++
	}
	return n, write
}

// group runs at most groupOps operations.
func (s *Session) group(ops []Op, write bool) {
	st := s.store
	s.pipe.begin()
	for done := 0; done < len(ops); {
		if err := s.enter(write); err != nil {
			s.prepare(ops, len(ops))
			failAll(ops[done:], err)
			break
		}
		if write && st.log.Err() != nil {
			s.exit()
			s.pipe.refuse = st.Err()
			s.refuseWrites(ops[done:max(done, s.pipe.prepared)])
			write = false
			continue
		}
		n, out, at := s.run(ops, done)
		s.exit()
		if done = n; done < len(ops) {
			s.outside(&ops[done], s.pipe.hashes[done], out, &at)
			done++
		}
	}
	s.flush(ops)
}

// run acts on the ops from i on, until one of them has to leave the section; it
// returns that one's number.
func (s *Session) run(ops []Op, i int) (int, outcome, place) {
	var at place
	// What was found in another section is void.
	s.pipe.located, s.pipe.allotted = i, i
	for i < len(ops) {
		s.runAhead(ops, i)
		end := min(blockEnd(i), len(ops))
		if s.writing && i >= s.pipe.allotted {
			s.pipe.allotted = s.pipe.located
			s.allot(ops, i, s.pipe.located)
		}
		for ; i < end; i++ {
			if s.queue.count == 0 {
				if i = s.runHinted(ops, i, end); i == end {
					break
				}
			}
			if out := s.act(ops, i, &at); out != finished {
				return i, out, at
			}
		}
	}
	return i, finished, at
}

// act finishes op number i of the group or makes it pending; anything else it
// leaves to be done outside of the section.
func (s *Session) act(ops []Op, i int, at *place) outcome {
	op, hash := &ops[i], s.pipe.hashes[i]
	switch {
	case op.Err != nil:
		if s.queue.lastWrite != nil && op.Number != 0 {
			s.enqueue(op, hash) // its number is not its turn yet
			return finished
		}
	case s.queue.count > 0 && s.queue.mustWait(op, hash, s.ordered):
		s.enqueue(op, hash)
		return finished
	case s.runHinted(ops, i, i+1) > i:
		return finished
	default:
		switch out := s.attempt(op, hash, at); out {
		case finished:
		case onDisk:
			s.pend(op, hash, at)
			return finished
		default:
			return out
		}
	}
	if op.Number != 0 {
		s.counted = op.Number
	}
	return finished
}

// outside carries an op on that could not be finished in the batch's section.
func (s *Session) outside(op *Op, hash uint64, out outcome, at *place) {
	switch s.drive(op, hash, out, at) {
	case finished:
		s.count(op)
	case onDisk:
		s.pend(op, hash, at)
	case inChunks:
		s.pendLarge(op, hash)
	}
}

// drive goes on with an op whose last attempt ended with out, until it is
// finished or needs the device. It is called outside of a section.
func (s *Session) drive(op *Op, hash uint64, out outcome, at *place) outcome {
	s.chunkTries = 0
	for {
		switch out {
		case finished, onDisk, inChunks:
			return out
		case again:
			s.tally.retries++
			s.pause()
		case noSpace:
			s.waitSpace()
		case noNodes:
			s.waitNodes()
		case callFn, needChunks:
			if s.carryOut(op, hash, at) {
				return finished
			}
		}
		if err := s.enter(op.writes()); err != nil {
			return op.fail(err)
		}
		if op.writes() && s.store.log.Err() != nil {
			s.exit()
			return op.fail(s.store.Err())
		}
		if out = s.attempt(op, hash, at); out == finished {
			s.counted = op.Number
		}
		s.exit()
	}
}

// carryOut does what a plan needs done outside of a section, and publishes it.
// It returns false if it was overtaken and the op must start over.
func (s *Session) carryOut(op *Op, hash uint64, at *place) (done bool) {
	p := &s.plan
	if op.Kind == OpUpdate {
		p.value, p.verdict = s.compute(op, &p.seen)
	}
	if !p.blind && p.verdict == Keep {
		return true
	}
	value, chunks := p.value, p.verdict == Replace && len(p.value) > s.store.inline
	if chunks {
		list, err := s.writeChunks(op.Key, value)
		defer s.unlinked.Store(0)
		if err == errNoRoom {
			return s.giveUpChunks(op)
		}
		if err != nil {
			op.Err = err
			return true
		}
		value = list
	}
	for {
		if err := s.enter(true); err != nil {
			op.Err = err
			return true
		}
		if s.store.log.Err() != nil {
			s.exit()
			op.Err = s.store.Err()
			return true
		}
		c := s.contentOf(op, &p.seen, value, p.verdict)
		if chunks {
			c.kind = record.Big
		}
		var out outcome
		changed := false
		if p.blind {
			out = s.putRecord(op, hash, at, &c)
		} else {
			out, changed = s.publish(op, hash, at, &p.seen, &c)
		}
		if out == finished && !changed {
			s.counted = op.Number
		}
		s.exit()
		switch {
		case changed:
			return false
		case out == again:
			s.tally.retries++
			s.pause()
		case out == noSpace && chunks && s.store.room.closed.Load():
			return s.giveUpChunks(op)
		case out == noSpace:
			s.waitSpace()
		case out == noNodes:
			s.waitNodes()
		default:
			return true
		}
	}
}

func failAll(ops []Op, err error) {
	for i := range ops {
		if ops[i].Err == nil {
			ops[i].Err = err
		}
	}
}

// refuseWrites answers writes that were prepared before the store became
// read-only.
func (s *Session) refuseWrites(ops []Op) {
	for i := range ops {
		if ops[i].writes() && ops[i].Err == nil {
			ops[i].Err = s.pipe.refuse
		}
	}
}

// refuseAll answers the ops of a session that has been closed.
func (s *Session) refuseAll(ops []Op) {
	for i := range ops {
		ops[i].state, ops[i].Found, ops[i].Err = opDone, false, ErrClosed
	}
}
