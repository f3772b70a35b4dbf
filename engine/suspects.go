package engine

import (
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/cespare/xxhash/v2"

	"rskv/engine/internal/record"
)

// suspect is a record of the region of a pass that is most likely dead: the newest
// record of its chain is another one, on disk. If that has the same key, the suspect
// is dead; only then.
//
//	region of the pass           rest of the log, on disk      in memory
//	|---- suspect -----|---------------- head ---------|-- ... none of the key --|
//	        ^                              |
//	        '------------------------------'  prev, prev, ...
//
// Keys are told apart by the 15 and more bits of one hash that put both records on
// one chain, and 64 of another that is independent of it. So taking a live record for
// a dead one is as unlikely as damage that no checksum notices.
type suspect struct {
	place uint64 // the record to look at and the suspect, packed: see newSuspect
	sum   uint64 // xxhash64 of the key
}

const (
	suspectBytes = 16
	// suspectFrom is how many bits of place say where the suspect is, in units from
	// the begin of the region, suspectAt how many above say where the record is that
	// decides, from there as well: 4 GiB and a TiB.
	suspectFrom = 28
	suspectAt   = 36
)

var _ [suspectBytes]byte = [unsafe.Sizeof(suspect{})]byte{}

// newSuspect packs one. ok is false if the record that decides is too far away.
func newSuspect(begin, from, at record.Addr, key []byte) (p suspect, ok bool) {
	if at-begin >= 1<<suspectAt || from-begin >= 1<<suspectFrom {
		return p, false
	}
	return suspect{uint64(at-begin)<<suspectFrom | uint64(from-begin), xxhash.Sum64(key)}, true
}

// onward is the same suspect with another record to look at, at or above itself.
func (p suspect) onward(begin, at record.Addr) suspect {
	p.place = uint64(at-begin)<<suspectFrom | p.place&(1<<suspectFrom-1)
	return p
}

func (p suspect) at(begin record.Addr) record.Addr { return begin + record.Addr(p.place>>suspectFrom) }

func (p suspect) from(begin record.Addr) record.Addr {
	return begin + record.Addr(p.place&(1<<suspectFrom-1))
}

// suspects is a list in memory outside the Go heap, to which several may add.
type suspects struct {
	all  []suspect // the memory
	used atomic.Int64
}

// in gives the list its memory, which is aligned to a suspect, and empties it.
func (l *suspects) in(memory []byte) {
	l.all = unsafe.Slice((*suspect)(unsafe.Pointer(unsafe.SliceData(memory))), len(memory)/suspectBytes)
	l.used.Store(0)
}

// add reports whether there was a place left.
func (l *suspects) add(p suspect) bool {
	n := l.used.Add(1)
	if n > int64(len(l.all)) {
		return false
	}
	l.all[n-1] = p
	return true
}

// left is how many places are left.
func (l *suspects) left() int64 { return max(int64(len(l.all))-l.used.Load(), 0) }

// take empties the list and returns what was in it.
func (l *suspects) take() []suspect {
	return l.all[:min(l.used.Swap(0), int64(len(l.all)))]
}

// sortSuspects orders them by the address of what is to be looked at: by bytes from the highest, each sorted in place (McIlroy, Bostic and
// McIlroy's American flag sort), short runs by comparison. 20 ns each for a million.
func sortSuspects(list []suspect, bits int) {
	const short = 64
	if len(list) <= short || bits <= 0 {
		slices.SortFunc(list, func(a, b suspect) int {
			switch {
			case a.place < b.place:
				return -1
			case a.place > b.place:
				return 1
			}
			return 0
		})
		return
	}
	shift := max(bits-8, 0)
	digit := func(p suspect) int { return int(p.place >> shift & 0xff) }
	var count, next, end [256]int
	for _, p := range list {
		count[digit(p)]++
	}
	at := 0
	for d := range count {
		next[d], end[d] = at, at+count[d]
		at += count[d]
	}
	for d := range count {
		for next[d] < end[d] {
			p := list[next[d]]
			for to := digit(p); to != d; to = digit(p) {
				list[next[to]], p = p, list[next[to]]
				next[to]++
			}
			list[next[d]] = p
			next[d]++
		}
	}
	for d := range count {
		sortSuspects(list[end[d]-count[d]:end[d]], shift)
	}
}
