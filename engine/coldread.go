package engine

import (
	"sync/atomic"

	"rskv/engine/internal/record"
	"rskv/ioring"
)

const (
	// blockBytes is the unit of reads: the smallest class of staging memory. A
	// record that is not wholly in what was read takes a second read.
	blockBytes = 4096
	// guessMax bounds the first read of a record, in bytes.
	guessMax = 16 * blockBytes
	// guessOver is by how much dearer a second read is than a block too many: on the
	// disks we know one read of 8 KiB takes as long as 1.15 to 1.25 of 4 KiB, so
	// that a second read costs what five to seven blocks do.
	guessOver = 7
)

// sizeGuess is how long records on disk are, in bytes, for all sessions: one in
// 1+guessOver of those that were read is longer. That is the size with the least
// cost, whatever the distribution, if a block too many costs 1 and a second read
// guessOver. It follows the records read by small steps, up by guessOver of them
// and down by one, and never past the size that was seen; so it stays where all
// are of one size. An update that another overtakes is lost, which is no harm: a
// wrong guess costs time only.
type sizeGuess struct{ bytes atomic.Int64 }

// learn notes the size of a record that was read and has been verified.
func (g *sizeGuess) learn(size int) {
	old := g.bytes.Load()
	step := old/64 + record.Unit
	next := int64(size)
	if next > old {
		next = min(next, old+guessOver*step)
	} else {
		next = max(next, old-step)
	}
	if next != old {
		g.bytes.Store(next)
	}
}

// first is how many bytes to read from skip bytes before a record of unknown size,
// in whole blocks: a part of one is not faster to read.
func (g *sizeGuess) first(skip int64) int64 {
	return min((skip+max(g.bytes.Load(), 1)+blockBytes-1)&^(blockBytes-1), guessMax)
}

// readOp is one read of a record or chunk.
type readOp struct {
	ioring.Op
	s       *Session
	p       *pendingOp  // nil: given up
	addr    record.Addr // of the record
	skip    int         // bytes before it in Buf
	chunk   int         // index in the assembly, -1: the op's record
	want    int         // bytes to read
	size    int         // of the record in bytes, 0 if not known
	arrived bool
}

// startRead prepares a read of the record at a. submit hands it over.
func (s *Session) startRead(p *pendingOp, a record.Addr) {
	r := s.newRead()
	r.p, r.chunk = p, -1
	p.read = r
	s.aim(r, a, 0)
}

func (s *Session) newRead() *readOp {
	s.inbox.Lock()
	defer s.inbox.Unlock()
	if n := len(s.inbox.spare); n > 0 {
		r := s.inbox.spare[n-1]
		s.inbox.spare = s.inbox.spare[:n-1]
		return r
	}
	r := &readOp{s: s}
	r.Kind = ioring.Read
	r.Done = func(*ioring.Op) {
		s.inbox.Lock()
		s.inbox.reads = append(s.inbox.reads, r)
		s.inbox.Unlock()
		s.signal()
	}
	return r
}

// aim sets where and how much to read, and gets the buffer. n is the size of the
// record in bytes, 0 if it is not known.
func (s *Session) aim(r *readOp, a record.Addr, n int) {
	align := s.store.align
	off := a.Bytes() &^ (align - 1)
	end := (a.Bytes() + int64(n) + align - 1) &^ (align - 1)
	if n == 0 {
		end = min(off+s.store.coldSize.first(a.Bytes()-off), s.store.pageEnd(a))
	}
	r.size = n
	r.addr, r.Off, r.skip, r.want = a, off, int(a.Bytes()-off), int(end-off)
	r.N, r.Err, r.arrived = 0, nil, false
	if r.Buf == nil || cap(r.Buf) < r.want {
		s.releaseBuffer(r)
		if r.Buf = s.store.dev.Buffers().Get(r.want); r.Buf == nil {
			s.queue.starving = append(s.queue.starving, r)
			return
		}
	}
	r.Buf = r.Buf[:r.want]
	s.queue.submit = append(s.queue.submit, &r.Op)
}

// pageEnd is the byte address at which the page of a ends.
func (s *Store) pageEnd(a record.Addr) int64 {
	size := int64(s.opt.PageSize)
	return (a.Bytes() + size) &^ (size - 1)
}

// submit hands over the reads that have been prepared. It is called outside of
// sections: the device may do one on this thread.
func (s *Session) submit() {
	q := &s.queue
	if len(q.submit) > 0 {
		ops := q.submit
		q.submit = nil
		q.inFlight += len(ops)
		s.store.stats.coldReads.Add(uint64(len(ops)))
		s.store.dev.Submit(ops)
		clear(ops)
		if q.submit == nil {
			q.submit = ops[:0]
		}
	}
	if len(q.starving) > 0 || len(q.hungry) > 0 {
		s.store.starve(s)
	}
}

// starve notes that the session waits for memory that others hold.
func (s *Store) starve(n *Session) {
	s.mu.Lock()
	if !n.queue.noted {
		n.queue.noted = true
		s.mu.starved = append(s.mu.starved, n)
		s.stats.starved.Add(1)
	}
	s.mu.Unlock()
	if s.stats.released.Load() != n.queue.released {
		s.feed() // memory came back before the note was there
	}
}

// feed tells everyone who waits for memory that some has come back.
func (s *Store) feed() {
	if s.stats.starved.Load() == 0 {
		return
	}
	s.mu.Lock()
	waiting := s.mu.starved
	s.mu.starved = nil
	s.stats.starved.Store(0)
	for _, n := range waiting {
		n.queue.noted = false
	}
	s.mu.Unlock()
	for _, n := range waiting {
		n.signal()
	}
}

// releaseBuffer gives the read's staging memory back. A section keeps a closing
// store from freeing that memory meanwhile.
func (s *Session) releaseBuffer(r *readOp) {
	if r.Buf == nil {
		return
	}
	inside := s.slot.Active()
	if !inside {
		s.slot.Enter()
	}
	if !s.store.closed.Load() {
		s.store.dev.Buffers().Put(r.Buf)
	}
	r.Buf = nil
	if !inside {
		s.slot.Exit()
	}
	s.store.stats.released.Add(1)
	s.store.feed()
}

// dropRead ends the life of a read that is not in flight.
func (s *Session) dropRead(r *readOp) {
	s.releaseBuffer(r)
	s.forget(r)
}

func (s *Session) forget(r *readOp) {
	if r.p != nil && r.p.read == r {
		r.p.read = nil
	}
	r.p = nil
	s.inbox.Lock()
	s.inbox.spare = append(s.inbox.spare, r)
	s.inbox.Unlock()
}

// queueArrived puts a held read where finished reads are looked for.
func (s *Session) queueArrived(r *readOp) {
	s.queue.inFlight++
	s.inbox.Lock()
	s.inbox.reads = append(s.inbox.reads, r)
	s.inbox.Unlock()
	s.signal()
}
