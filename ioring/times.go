package ioring

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// A histogram of times has a bucket for each power of two nanoseconds from
// 2^TimesFirst (a microsecond); the first takes what is shorter, the last, from
// about 17 s on, has no end.
const (
	TimesFirst   = 10
	TimesBuckets = 26
)

// Times is how long operations of one kind took, from Submit until they were
// done, those that failed among them.
type Times struct {
	// Counts[i] are those below 2^(TimesFirst+i) nanoseconds that no bucket before
	// has; the last bucket has all others.
	Counts [TimesBuckets]uint64
	Sum    time.Duration
}

// times is where they are counted. All atomic: written by whoever finishes an
// operation, read by whoever looks.
type times struct {
	counts [TimesBuckets]atomic.Uint64
	sum    atomic.Int64
}

func (t *times) observe(ns int64) {
	if !Counting {
		return
	}
	i := bits.Len64(uint64(max(ns, 0)) >> TimesFirst)
	t.counts[min(i, TimesBuckets-1)].Add(1)
	t.sum.Add(ns)
}

func (t *times) load() (all Times) {
	for i := range all.Counts {
		all.Counts[i] = t.counts[i].Load()
	}
	all.Sum = time.Duration(t.sum.Load())
	return all
}
