package engine

import (
	"unsafe"

	"rskv/engine/internal/hlog"
	"rskv/engine/internal/index"
	"rskv/engine/internal/record"
)

// allotment is room at the tail for what some ops of a group are about to append,
// taken in one step. After a commit nearly every write copies its record, and the
// tail word, like the cache lines behind it, is what all writers share: this way
// they meet once for a dozen, and their records do not lie on the same lines. Measured
// with two sessions and records of 32 bytes, when copies had no short way yet (see
// copyHinted): 115 against 136 ns a copy.
//
//	tail --> | record | record | record | filler |
//	         '---------- one Allocate -----------'
//
// How much it will be is what locate's hints tell. They may be wrong: who needs
// more asks the log; what is left when the section ends becomes a filler. So the
// rule for what Allocate gave out stands: all of it is a record, marked invalid or
// not, or filler, before the section ends, and so before a door closes.
//
// Its addresses are older than the moment they are used at. A chain must fall
// from its newest record on, because a recovery takes the highest address for the
// newest: so a record never goes below the one that it follows, see allocate.
type allotment struct {
	addr record.Addr
	ptr  unsafe.Pointer
	left int // bytes
}

// allotmentMax bounds what a wrong guess can waste, in bytes.
const allotmentMax = 1 << 10

// allot takes room for what the ops from i to end will append, if that is more
// than one record. They have been located.
func (s *Session) allot(ops []Op, i, end int) {
	bytes, records := 0, 0
	for ; i < end; i++ {
		n := s.appends(&ops[i], index.Address(s.pipe.hints[i]))
		if bytes+n > allotmentMax {
			break
		}
		if n > 0 {
			bytes += n
			records++
		}
	}
	if records < 2 || bytes <= s.allotted.left || s.store.room.refuses(s, record.Value) {
		return
	}
	s.endAllotment()
	if a, p, status := s.store.log.Allocate(bytes); status == hlog.OK {
		s.allotted = allotment{a, p, bytes}
	}
}

// appends is the size in bytes of the record that op will append, if the newest of
// its chain is the one at a; 0 if none, or if that is not known.
func (s *Session) appends(op *Op, a record.Addr) int {
	switch {
	case op.Err != nil || a >= s.ro:
	case op.Kind == OpPut && op.If == Always && len(op.Value) <= s.store.inline:
		n := len(op.Value)
		if op.TTL != 0 {
			n += record.ExpirySize
		}
		return record.SizeFor(len(op.Key), n)
	case op.Kind == OpAdd && a >= s.mem:
		return record.SizeFor(len(op.Key), 8)
	}
	return 0
}

// allocate gives out room for the record that follows the one at prev on its
// chain: from what was allotted if that is enough, and lies above prev, since
// somebody may have put a newer record into the chain meanwhile.
func (s *Session) allocate(size int, prev record.Addr) (record.Addr, unsafe.Pointer, hlog.Status) {
	r := &s.allotted
	if r.left < size || r.addr <= prev {
		return s.place(size)
	}
	a, p := r.addr, r.ptr
	r.addr, r.ptr, r.left = a+record.Addr(size/record.Unit), unsafe.Add(p, size), r.left-size
	return a, p, hlog.OK
}

// endAllotment makes a filler of what is left.
func (s *Session) endAllotment() {
	if r := &s.allotted; r.left > 0 {
		record.PutFiller(record.Bytes(r.ptr, 0, r.left))
		r.left = 0
	}
}
