package engine

import (
	"unsafe"

	"rskv/engine/internal/hlog"
	"rskv/engine/internal/record"
)

// A record is read from disk in whole blocks, so where it begins says how many: one of
// 4,032 bytes lies in two unless it begins at a block, and reading two takes as long as
// 1.2 times one. Records that fill blocks nearly, alone or some of them together, begin
// where they lie in as few as they can, with a filler before them if need be:
//
//	block             | block             | block
//	... record | fill | record of 4,032 |f| record of 4,032 |f| ...
//	... fill          | 1,024 | 1,024 | 1,024 | 1,024 | 1,024 ...
//
// What fillers take is bounded: in a log of one size they are what is left of a block,
// a part in fitLoss at most, and once a page what is left behind its header or some
// smaller record; in no log are they more than twice that part of such records, for
// which each session keeps an account. Where the tail is may have changed when the
// session gets its room: then the record lies as if there were no such rule.
const (
	// fitMin is the smallest such record in bytes: smaller ones lie in one block
	// mostly, and share an allotment.
	fitMin = allotmentMax/2 + record.Unit
	// fitLoss: of what block or blocks take, records leave one part in so many.
	fitLoss = 32
	// fitCredit bounds what a session saves for a filler, in bytes.
	fitCredit = 2 * blockBytes
)

// fills reports whether records of size bytes fill blocks nearly.
func fills(size int) bool {
	if size < fitMin {
		return false
	}
	rest, of := blockBytes%size, blockBytes
	if size > blockBytes {
		rest, of = -size&(blockBytes-1), size
	}
	return rest*fitLoss <= of
}

// gap is how many bytes the session leaves free at the tail for a record of size bytes.
func (s *Session) gap(size int) int {
	if !fills(size) {
		return 0
	}
	s.fitCredit = min(s.fitCredit+2*size/fitLoss, fitCredit)
	tail := s.store.log.Tail()
	in := int(tail.Bytes() & (blockBytes - 1))
	gap := blockBytes - in
	switch {
	case in == 0, in+size <= (size+blockBytes-1)&^(blockBytes-1), gap > s.fitCredit:
		return 0
	case tail.Bytes()+int64(gap+size) > s.store.pageEnd(tail):
		return 0 // the next page begins with a block of its own
	}
	s.fitCredit -= gap
	return gap
}

// place gives out room at the tail for a record of size bytes.
func (s *Session) place(size int) (record.Addr, unsafe.Pointer, hlog.Status) {
	credit, gap := s.fitCredit, s.gap(size)
	a, p, status := s.store.log.Allocate(gap + size)
	if status != hlog.OK {
		s.fitCredit = credit // nothing has been appended
		return a, p, status
	}
	if gap == 0 {
		return a, p, hlog.OK
	}
	record.PutFiller(record.Bytes(p, 0, gap))
	return a + record.Addr(gap/record.Unit), unsafe.Add(p, gap), hlog.OK
}
