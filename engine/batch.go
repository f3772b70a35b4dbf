package engine

import (
	"rskv/engine/internal/index"
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
// again at once.
//
// It returns the number of pending operations of the session. Answers of OpGet
// lie in op.Value's own array if that was large enough, else in the session's
// memory; they stay valid until the next call of Start, Complete or Close.
//
// Start blocks only where a write needs a log page and all of them wait to be
// flushed, and at the door of a commit, for microseconds.
func (s *Session) Start(ops []Op) (pending int) {
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
	valid := true
	for i := range ops {
		op := &ops[i]
		op.state, op.Err, op.Found = opDone, nil, false
		if err := op.check(st.opt.MaxValue); err != nil {
			op.Err, valid = err, false
			s.hashes[i] = 0
			continue
		}
		s.hashes[i] = record.Hash(st.seed, op.Key)
	}
	if len(ops) > 1 {
		st.index.Prefetch(s.hashes[:len(ops)])
	}
	for done := 0; done < len(ops); {
		if err := s.enter(write); err != nil {
			failAll(ops[done:], err)
			break
		}
		if write && st.log.Err() != nil {
			s.exit()
			s.refuseWrites(ops[done:])
			write, valid = false, false
			continue
		}
		if done == 0 && len(ops) > 1 {
			s.prefetchRecords(len(ops))
		}
		n, out, at := s.run(ops, done, valid)
		s.exit()
		if done = n; done < len(ops) {
			s.outside(&ops[done], s.hashes[done], out, &at)
			done++
		}
	}
	s.tally.flush(&st.stats, ops)
}

// run acts on the ops from i on, until one of them has to leave the section; it
// returns that one's number.
func (s *Session) run(ops []Op, i int, valid bool) (int, outcome, place) {
	var at place
	for ; i < len(ops); i++ {
		op := &ops[i]
		hash := s.hashes[i]
		if !valid && op.Err != nil {
			if s.queue.lastWrite != nil && op.Number != 0 {
				s.enqueue(op, hash) // its number is not its turn yet
				continue
			}
			s.counted = max(s.counted, op.Number)
			continue
		}
		if s.queue.count > 0 && s.queue.mustWait(op, hash, s.ordered) {
			s.enqueue(op, hash)
			continue
		}
		switch out := s.attempt(op, hash, &at); out {
		case finished:
			if op.Number != 0 {
				s.counted = op.Number
			}
		case onDisk:
			s.pend(op, hash, &at)
		default:
			return i, out, at
		}
	}
	return i, finished, at
}

// prefetchRecords touches the first record of each key's chain. What it finds is
// a hint: the acting stage reads the index again.
func (s *Session) prefetchRecords(n int) {
	log := s.store.log
	for _, hash := range s.hashes[:n] {
		if _, entry := s.store.index.Find(hash); entry != 0 {
			if a := index.Address(entry); a >= s.mem {
				index.PrefetchLine(log.Pointer(a))
			}
		}
	}
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
	for {
		switch out {
		case finished, onDisk, inChunks:
			return out
		case again:
			s.tally.retries++
			s.pause()
		case noSpace:
			s.waitSpace()
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
		p.value, p.verdict = s.compute(op, p.seen.found, p.seen.value)
	}
	if !p.blind && p.verdict == Keep {
		return true
	}
	value, kind := p.value, kindOf(p.verdict)
	if kind == record.Value && len(value) > s.store.inline {
		list, err := s.writeChunks(value)
		if err != nil {
			op.Err = err
			return true
		}
		value, kind = list, record.Big
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
		var out outcome
		changed := false
		if p.blind {
			out = s.putRecord(op, hash, at, value, kind)
		} else {
			out, changed = s.publish(op, hash, at, &p.seen, value, kind)
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
		case out == noSpace:
			s.waitSpace()
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

// refuseWrites answers the writes of a group when the store has become read-only.
func (s *Session) refuseWrites(ops []Op) {
	err := s.store.Err()
	for i := range ops {
		if ops[i].writes() && ops[i].Err == nil {
			ops[i].Err = err
		}
	}
}
