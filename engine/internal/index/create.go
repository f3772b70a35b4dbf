package index

import (
	"errors"
	"math/bits"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// ErrFull means that an entry needs an overflow bucket and all of them are in
// use. Entries that exist can still be found and changed.
var ErrFull = errors.New("index: no overflow bucket left")

// FindOrCreate returns the entry of the hash's chain and its slot, and creates
// it, with the address Creating, if there is none. It fails with ErrFull only.
//
// Creation is in two phases, without a lock:
//
//	1  claim    swap a free word to the tag, marked tentative
//	2  look     for another entry of the tag in the WHOLE row, overflow
//	            buckets and tentative entries included
//	            none: take the mark off. One: free the word, back off, start over
//
// Two creators of one tag both claim before they look, so at least one of them
// sees the other: they may both give way, they cannot both stay. Looking only at
// finished entries, or only in the first bucket, would let both stay.
func (x *Index) FindOrCreate(hash uint64) (slot *uint64, entry uint64, err error) {
	if slot, entry = x.Find(hash); entry != 0 {
		return slot, entry, nil
	}
	return x.create(hash)
}

//go:noinline
func (x *Index) create(hash uint64) (*uint64, uint64, error) {
	tag := x.tag(hash)
	entry := tag<<tagShift | uint64(Creating)
	for attempt := uint64(0); ; attempt++ {
		v := x.survey(hash, tag)
		if v.entry != 0 {
			return v.slot, v.entry, nil
		}
		if v.free == nil {
			if err := x.extend(v.last); err != nil {
				return nil, 0, err
			}
			continue
		}
		if !atomic.CompareAndSwapUint64(v.free, 0, entry|tentative) {
			continue
		}
		if x.alone(hash, tag, v.free) {
			// Publish: others find the entry from here on.
			atomic.StoreUint64(v.free, entry)
			return v.free, entry, nil
		}
		atomic.StoreUint64(v.free, 0) // a tentative entry is its creator's own
		backOff(v.free, attempt)
	}
}

// view is what one walk over a row finds.
type view struct {
	slot  *uint64 // of the finished entry with the tag
	entry uint64  // that entry, or 0
	free  *uint64 // the first free word, or nil
	last  *bucket // the last bucket of the row
}

// survey walks the row of hash until it finds a finished entry with the tag.
func (x *Index) survey(hash, tag uint64) (v view) {
	v.last = x.home(hash)
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
		next := atomic.LoadUint64(&v.last[overflowWord])
		if next == 0 {
			return v
		}
		v.last = x.pool.bucket(next)
	}
}

// alone reports whether mine is the only entry of the tag in the row of hash,
// tentative ones included.
func (x *Index) alone(hash, tag uint64, mine *uint64) bool {
	b := x.home(hash)
	for {
		for i := range bucketEntries {
			e := atomic.LoadUint64(&b[i])
			if e != 0 && e>>tagShift&tagMask == tag && &b[i] != mine {
				return false
			}
		}
		next := atomic.LoadUint64(&b[overflowWord])
		if next == 0 {
			return true
		}
		b = x.pool.bucket(next)
	}
}

// extend links an overflow bucket behind last, unless somebody else has.
func (x *Index) extend(last *bucket) error {
	n, ok := x.pool.take()
	if !ok {
		if atomic.LoadUint64(&last[overflowWord]) != 0 {
			return nil // somebody else got the last one, for this row
		}
		return ErrFull
	}
	if !atomic.CompareAndSwapUint64(&last[overflowWord], 0, n) {
		x.pool.put(n)
	}
	return nil
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
