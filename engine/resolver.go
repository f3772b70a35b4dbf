package engine

import (
	"sync"

	"rskv/engine/internal/record"
	"rskv/ioring"
)

// resolver reads the records that suspects depend on, in the order of their
// addresses:
//
//	log      --- r ------ r r -- r r r r ---------------------- r r ---
//	reads        [4K]     [    extent  ]                        [4K]
//
// Those that lie close together are read in one stretch; so it is random reads, many
// at a time, where there are few, and reads the whole log in order where there are
// many. What it reads into is a ring: extents take their part at the front, and give
// it back at the end, in the same order.
//
// It may be used by several goroutines.
type resolver struct {
	s     *Store
	begin record.Addr // what suspects count from
	guess int64       // bytes to read of a record
	wake  func()      // an extent has arrived

	mu sync.Mutex
	// All below is guarded by mu.
	list    []suspect // sorted; not asked for yet
	ring    []byte
	front   int       // where the next extent begins
	free    int       // bytes
	extents []*extent // in the order of the ring
	spare   []*extent
	again   []suspect // what has to be looked at next
	longest int       // bytes that one of these needs
}

// extent is a stretch of log with the suspects it decides about.
type extent struct {
	ioring.Op
	list  []suspect
	done  chan struct{} // closed when the read has answered
	taken bool
	over  bool // given back
	size  int  // bytes of the ring, with what was left unused before it
}

const (
	// extentMax bounds an extent, in bytes, extents how many are under way.
	extentMax = 256 << 10
	extents   = 64
	// extentGap is how many bytes are read in vain rather than in another read.
	extentGap = 16 << 10
	// ringMin holds the longest record.
	ringMin = 2 * extentMax
)

// newResolver returns a resolver for a sorted list. longest is what one of its
// records needs at least, in bytes, 0 if that is not known.
func newResolver(s *Store, begin record.Addr, list []suspect, ring []byte, longest int, wake func()) *resolver {
	guess := int64(longest+blockBytes-1) &^ (blockBytes - 1)
	return &resolver{s: s, begin: begin, guess: max(guess, blockBytes), wake: wake, list: list, ring: ring, free: len(ring)}
}

// take hands out an extent that has arrived, nil if there is none now. The caller
// gives it back by release.
func (r *resolver) take() *extent {
	r.mu.Lock()
	ops := r.ask()
	r.mu.Unlock()
	if len(ops) > 0 {
		r.s.dev.Submit(ops)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.extents {
		if e.taken {
			continue
		}
		select {
		case <-e.done:
			e.taken = true
			return e
		default:
		}
	}
	return nil
}

// handedOut reports whether there are no more extents.
func (r *resolver) handedOut() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.extents {
		if !e.taken {
			return false
		}
	}
	return len(r.list) == 0
}

// release gives an extent back.
func (r *resolver) release(e *extent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.over = true
	for len(r.extents) > 0 && r.extents[0].over {
		r.free += r.extents[0].size
		r.spare = append(r.spare, r.extents[0])
		r.extents = r.extents[1:]
	}
}

// lookAgain puts a suspect on the list of the next round, whose record takes size
// bytes, 0 if that is not known.
func (r *resolver) lookAgain(p suspect, size int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.again = append(r.again, p)
	r.longest = max(r.longest, size+blockBytes)
}

// ask prepares the reads of extents as long as there is room; the caller holds mu.
func (r *resolver) ask() (ops []*ioring.Op) {
	for len(r.list) > 0 && len(r.extents) < extents {
		from, until, n := r.stretch()
		buf, size := r.room(int(until - from))
		if buf == nil {
			break
		}
		var e *extent
		if k := len(r.spare); k > 0 {
			e, r.spare = r.spare[k-1], r.spare[:k-1]
		} else {
			e = &extent{}
		}
		done := make(chan struct{})
		*e = extent{list: r.list[:n], done: done, size: size}
		e.Kind, e.Off, e.Buf = ioring.Read, from, buf
		e.Done = func(*ioring.Op) {
			close(done)
			r.wake()
		}
		r.list = r.list[n:]
		r.extents = append(r.extents, e)
		ops = append(ops, &e.Op)
	}
	return ops
}

// stretch is the byte range of the next extent, and how many suspects it holds.
func (r *resolver) stretch() (from, until int64, n int) {
	segment := r.s.dev.SegmentSize()
	for ; n < len(r.list); n++ {
		at := r.list[n].at(r.begin)
		first := at.Bytes() &^ (blockBytes - 1)
		last := first + r.guess
		if last < at.Bytes()+keyRoom {
			last += blockBytes
		}
		last = min(last, r.s.pageEnd(at))
		switch {
		case n == 0:
			from = first
		case first > until+extentGap || last-from > extentMax || first/segment != from/segment:
			return from, until, n
		}
		until = max(until, last)
	}
	return from, until, n
}

// keyRoom is how many bytes hold the header and the key of a record, mostly.
const keyRoom = record.HeaderSize + 48

// room takes so many bytes of the ring; nil: there are not as many in one piece.
func (r *resolver) room(n int) (buf []byte, size int) {
	size = n
	if rest := len(r.ring) - r.front; rest < n {
		size, r.front = n+rest, 0
		if size > r.free {
			r.front = len(r.ring) - rest
			return nil, 0
		}
	}
	if size > r.free {
		return nil, 0
	}
	r.free -= size
	buf = r.ring[r.front : r.front+n : r.front+n]
	r.front += n
	return buf, size
}

// close waits for reads under way. Nobody has an extent any more.
func (r *resolver) close() {
	r.mu.Lock()
	list := r.extents
	r.mu.Unlock()
	for _, e := range list {
		r.s.opt.Runner.Wait(e.done)
	}
}
