package index

import (
	"errors"
	"math/bits"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// Errors of FindOrCreate. With either, entries that exist can still be found and
// changed.
var (
	// ErrFull means that an entry needs an overflow bucket, all of them are in
	// use, and the table cannot grow.
	ErrFull = errors.New("index: no overflow bucket left")
	// ErrBusy means that the place of the entry is being split, or that there
	// will be one when the growth under way has come further: leave the section,
	// let others run, try again.
	ErrBusy = errors.New("index: busy growing")
)

// FindOrCreate returns the entry of the hash's chain and its slot, and creates
// it, with the address Creating, if there is none. It fails with ErrFull or
// ErrBusy only.
//
// Creation is in phases, without a lock:
//
//	1  claim    swap a free word to the tag, marked tentative
//	2  look     for another entry of the tag in the WHOLE row, overflow
//	            buckets and tentative entries included
//	            none: go on. One: free the word, back off, start over
//	3  look     whether the split of the row has begun, if it is to be split and
//	            the entry will have to move; if so, free the word, start over
//	4  publish  swap the mark off
//
// Two creators of one tag both claim before they look, so at least one of them
// sees the other: they may both give way, they cannot both stay. Looking only at
// finished entries, or only in the first bucket, would let both stay.
//
// In the same way, creator and splitter: one claims, then looks whether the split
// has begun; the other begins it, then looks at every word. So an entry that is
// published has been seen by the splitter, or was created before the split began.
// A tentative one that the splitter meets it takes away, and the creator notices
// when it wants to publish, or free, exactly the word it wrote: hence such claims
// carry a number of their own, else it could take another's claim for its own.
func (x *Index) FindOrCreate(hash uint64) (slot *uint64, entry uint64, err error) {
	if slot, entry = x.Find(hash); entry != 0 {
		return slot, entry, nil
	}
	return x.create(hash)
}

// busySpins is how often a creator looks whether a row has been split, which
// takes some 50 ns, before it gives up: the splitter may have been preempted.
const busySpins = 64

//go:noinline
func (x *Index) create(hash uint64) (*uint64, uint64, error) {
	tag := x.tag(hash)
	entry := tag<<tagShift | uint64(Creating)
	helped, spins := false, 0
	for attempt := uint64(0); ; attempt++ {
		row, sibling, ok := x.rowFor(hash)
		if !ok {
			if spins++; spins > busySpins {
				return nil, 0, ErrBusy
			}
			continue
		}
		v := x.survey(x.row(row), tag)
		if v.entry != 0 {
			return v.slot, v.entry &^ moving, nil
		}
		if v.free == nil {
			if !helped && x.Growing() {
				// Whoever would make a row longer helps to split rows first.
				helped = true
				x.help()
				continue
			}
			if err := x.extend(v.last); err != nil {
				return nil, 0, err
			}
			continue
		}
		claim := x.claim(tag, sibling)
		if !atomic.CompareAndSwapUint64(v.free, 0, claim) {
			continue
		}
		if !x.alone(x.row(row), tag, v.free) {
			atomic.CompareAndSwapUint64(v.free, claim, 0)
			backOff(v.free, attempt)
			continue
		}
		if sibling != 0 && x.begun(sibling) {
			atomic.CompareAndSwapUint64(v.free, claim, 0)
			continue
		}
		// Publish: others find the entry from here on.
		if atomic.CompareAndSwapUint64(v.free, claim, entry) {
			return v.free, entry, nil
		}
	}
}

// claim is the word with which a creator claims a place for a tag: one of its own
// if a splitter may take it away.
func (x *Index) claim(tag, sibling uint64) uint64 {
	word := tentative | tag<<tagShift | uint64(Creating)
	if sibling != 0 {
		word = tentative | tag<<tagShift | x.grow.claims.Add(1)&addrMask
	}
	return word
}

// view is what one walk over a row finds.
type view struct {
	slot  *uint64 // of the finished entry with the tag
	entry uint64  // that entry, or 0
	free  *uint64 // the first free word, or nil
	last  *bucket // the last bucket of the row
}

// survey walks the row from its first bucket until it finds a finished entry with
// the tag.
func (x *Index) survey(first *bucket, tag uint64) (v view) {
	v.last = first
	for {
		for i := range bucketEntries {
			e := atomic.LoadUint64(&v.last[i])
			switch {
			case e == 0 && v.free == nil:
				v.free = &v.last[i]
			case e != 0 && e>>tagShift == tag:
				v.slot, v.entry = &v.last[i], e
				return v
			}
		}
		next := x.next(v.last)
		if next == nil {
			return v
		}
		v.last = next
	}
}

// alone reports whether mine is the only entry of the tag in the row, tentative
// ones included.
func (x *Index) alone(first *bucket, tag uint64, mine *uint64) bool {
	for b := first; b != nil; b = x.next(b) {
		for i := range bucketEntries {
			e := atomic.LoadUint64(&b[i])
			if e != 0 && e>>tagShift&tagMask == tag && &b[i] != mine {
				return false
			}
		}
	}
	return true
}

// extend links an overflow bucket behind last, unless somebody else has. Where
// that shows that the table has become too small, it begins to grow.
func (x *Index) extend(last *bucket) error {
	n, ok := x.pool.take(x.grow.limit.Load())
	switch {
	case ok:
		if !atomic.CompareAndSwapUint64(&last[overflowWord], 0, n) {
			x.pool.put(n)
		} else if x.pool.fresh.Load() >= x.grow.trigger.Load() {
			x.begin()
		}
		return nil
	case atomic.LoadUint64(&last[overflowWord]) != 0:
		return nil // somebody else got the last one, for this row
	case x.begin():
		x.Step()
		return ErrBusy
	}
	return ErrFull
}

// backOffMax bounds the yields between two attempts.
const backOffMax = 64

// backOff yields a number of times that differs between creators, who each have
// a slot of their own, and between attempts, so that two of them do not give
// way to each other for ever. It needs no source of randomness.
func backOff(mine *uint64, attempt uint64) {
	limit := min(uint64(2)<<min(attempt, 32), backOffMax)
	hi, lo := bits.Mul64(uint64(uintptr(unsafe.Pointer(mine)))+attempt, 0x9e3779b97f4a7c15)
	for range (hi ^ lo) >> 20 % limit {
		runtime.Gosched()
	}
}
