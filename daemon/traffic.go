package daemon

import (
	"math/bits"
	"sync/atomic"

	"rskv/ioring"
	"rskv/ipc"
)

// What is counted of requests. A connection counts by itself, in memory that only it
// writes:
//
//	request   three increments
//	burst     six atomic additions and more to the connection's lane, and two readings
//	          of the clock, see latency.go
//
// Connections share lanes, which are there before and after them, but there are
// enough for those that run at the same time to write to lines of their own. What
// is shown is the sum of all.

// lanes is how many there are, a power of two.
const lanes = 32

// lane is what the bursts of some connections have added. All atomic.
type lane struct {
	bytesIn, bytesOut atomic.Uint64
	methods           [methodCount]atomic.Uint64
	outcomes          [methodCount][outcomes]atomic.Uint64
	latency           [timedKinds]latency
	_                 [64]byte // the next one's first line is not this one's last
}

// traffic is all lanes.
type traffic struct {
	lanes [lanes]lane
	next  atomic.Uint32 // handed out
}

// lane returns one for a new connection.
func (t *traffic) lane() *lane { return &t.lanes[t.next.Add(1)%lanes] }

// sum adds up one counter of all lanes.
func (t *traffic) sum(of func(*lane) *atomic.Uint64) (n uint64) {
	for i := range t.lanes {
		n += of(&t.lanes[i]).Load()
	}
	return n
}

func (t *traffic) bytesIn() uint64 {
	return t.sum(func(l *lane) *atomic.Uint64 { return &l.bytesIn })
}

func (t *traffic) bytesOut() uint64 {
	return t.sum(func(l *lane) *atomic.Uint64 { return &l.bytesOut })
}

// requests is how many there were of a method.
func (t *traffic) requests(m ipc.Method) uint64 {
	return t.sum(func(l *lane) *atomic.Uint64 { return &l.methods[m] })
}

// ended is how many operations of a method ended like that.
func (t *traffic) ended(m ipc.Method, o outcome) uint64 {
	return t.sum(func(l *lane) *atomic.Uint64 { return &l.outcomes[m][o] })
}

// times reads the histogram of a kind, and the sum of its times in nanoseconds.
func (t *traffic) times(kind timedKind) (counts [latencySteps]uint64, sum int64) {
	for i := range t.lanes {
		of := &t.lanes[i].latency[kind]
		sum += of.sum.Load()
		for step := range counts {
			counts[step] += of.buckets[step].Load()
		}
	}
	return counts, sum
}

// count adds to a counter that only metrics show.
func count(of *atomic.Uint64, n int) {
	if ioring.Counting {
		of.Add(uint64(n))
	}
}

// methodCounts is what a connection has counted by itself since the last tally,
// by method.
type methodCounts struct {
	touched  uint64 // a bit for each method that is not all zero
	requests [methodCount]uint32
	ended    [methodCount][outcomes]uint32
}

var _ [64 - methodCount]struct{} // touched has a bit for each

// request counts one as it is taken up.
func (b *methodCounts) request(m ipc.Method) {
	if !ioring.Counting {
		return
	}
	b.touched |= 1 << m
	b.requests[m]++
}

// end counts an operation that is done.
func (b *methodCounts) end(m ipc.Method, o outcome) {
	if !ioring.Counting {
		return
	}
	b.touched |= 1 << m
	b.ended[m][o]++
}

// tally adds what a connection has counted by itself.
func (l *lane) tally(b *methodCounts) {
	for ; b.touched != 0; b.touched &= b.touched - 1 {
		m := bits.TrailingZeros64(b.touched)
		if n := b.requests[m]; n > 0 {
			l.methods[m].Add(uint64(n))
			b.requests[m] = 0
		}
		for o, n := range b.ended[m] {
			if n > 0 {
				l.outcomes[m][o].Add(uint64(n))
				b.ended[m][o] = 0
			}
		}
	}
}
