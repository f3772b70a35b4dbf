package index

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"unsafe"

	"rskv/ioring"
)

// pool hands out overflow buckets by number, from 1 on, because 0 ends a row.
// Buckets are taken from the front of one reserved range of memory; one that
// its taker did not need, because somebody else extended the row first, goes
// on a stack and is taken again before a new one.
type pool struct {
	base   unsafe.Pointer // immutable
	memory *ioring.Memory // nil if max is 0
	max    uint64         // immutable

	_ [64]byte // takers must not slow Find down, which reads base

	// fresh is the number of buckets ever taken from the range. Atomic.
	fresh atomic.Uint64
	// returned is the top of the stack of unneeded buckets: the number in the
	// low half, 0 if empty, and in the high half the number of times one was put
	// there, without which a bucket that went and came back would look as if
	// nothing had happened. The link is the overflow word of the bucket. Atomic.
	returned atomic.Uint64
	// idle is the number of buckets on the stack. Atomic, exact when quiet.
	idle atomic.Int64

	_ [64]byte
}

func (p *pool) open(buckets int) error {
	if buckets < 0 || buckets >= math.MaxUint32 {
		return fmt.Errorf("%d buckets, want 0 to %d", buckets, uint32(math.MaxUint32-1))
	}
	if buckets == 0 {
		return nil
	}
	memory, err := ioring.AllocMemory(int64(buckets) * bucketSize)
	if err != nil {
		return err
	}
	p.memory, p.base, p.max = memory, memory.Pointer(), uint64(buckets)
	return nil
}

func (p *pool) close() error {
	if p.memory == nil {
		return nil
	}
	p.base = nil
	return p.memory.Free()
}

// reset takes all buckets back. Nobody uses one.
func (p *pool) reset() error {
	if p.memory != nil {
		if err := p.memory.Release(0, int64(p.fresh.Load())*bucketSize); err != nil {
			return err
		}
	}
	p.fresh.Store(0)
	p.returned.Store(0)
	p.idle.Store(0)
	return nil
}

// bucket is the bucket of number n, 1 to max.
func (p *pool) bucket(n uint64) *bucket {
	return (*bucket)(unsafe.Add(p.base, (n-1)<<bucketShift))
}

// take returns the number of a bucket of zeros that is now the caller's; ok is
// false if limit buckets have been taken from the range, max at most.
func (p *pool) take(limit uint64) (n uint64, ok bool) {
	for {
		top := p.returned.Load()
		n := top & math.MaxUint32
		if n == 0 {
			break
		}
		link := &p.bucket(n)[overflowWord]
		// If somebody else takes n first, what is read here may be anything,
		// and the swap fails.
		below := atomic.LoadUint64(link)
		if p.returned.CompareAndSwap(top, top&^math.MaxUint32|below&math.MaxUint32) {
			p.idle.Add(-1)
			atomic.StoreUint64(link, 0)
			return n, true
		}
	}
	for {
		n := p.fresh.Load()
		if n >= limit {
			return 0, false
		}
		if p.fresh.CompareAndSwap(n, n+1) {
			return n + 1, true
		}
	}
}

// put gives back a bucket that take gave and that nobody else has seen.
func (p *pool) put(n uint64) {
	p.idle.Add(1)
	for {
		top := p.returned.Load()
		atomic.StoreUint64(&p.bucket(n)[overflowWord], top&math.MaxUint32)
		if p.returned.CompareAndSwap(top, (top>>32+1)<<32|n) {
			return
		}
	}
}

// joinFree frees memory and returns err together with what that gave.
func joinFree(err error, memory *ioring.Memory) error {
	return errors.Join(err, memory.Free())
}
