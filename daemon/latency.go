package daemon

import (
	"math/bits"
	"sync/atomic"
	"time"

	"rskv/ioring"
	"rskv/ipc"
)

// How long requests take, from the read(2) that brought them until their
// answers are handed to the socket, or queued for it. Requests answered with an
// error are not in it, and neither are those about the daemon itself.
//
// What is answered in the burst it came in costs two readings of the clock a
// burst and no more: all of it took as long as the burst. Only what had to wait
// is timed by itself.

// timedKind is what a timed request asked for and what it waited for.
type timedKind uint8

const (
	readPrompt  timedKind = iota // in memory
	writePrompt                  // in memory
	readDisk                     // for records on disk
	writeDisk                    // for records on disk, or its turn behind one
	writeCommit                  // a write with "sync": for the commit
	syncCommit                   // "sync": for the commit
	timedKinds
)

// timedLabels are what metrics call the kinds: the request, what it waited for.
var timedLabels = [timedKinds][2]string{
	readPrompt: {"read", "none"}, writePrompt: {"write", "none"},
	readDisk: {"read", "disk"}, writeDisk: {"write", "disk"},
	writeCommit: {"write", "commit"}, syncCommit: {"sync", "commit"},
}

// A histogram has four buckets for each power of two nanoseconds from
// latencyFirst to latencyLast, so that a percentile is known to a quarter; the
// first bucket takes what is shorter, the last what is longer.
const (
	latencyFirst = 10 // 2^10 ns, about a microsecond
	latencyLast  = 36 // 2^36 ns, about a minute
	latencySteps = (latencyLast-latencyFirst)*4 + 2
)

// latency is one histogram. All atomic: written by the connections, read by
// whoever looks.
type latency struct {
	buckets [latencySteps]atomic.Uint64
	sum     atomic.Int64 // nanoseconds
}

// step is the bucket of a time in nanoseconds.
func step(ns int64) int {
	if ns < 1<<latencyFirst {
		return 0
	}
	k := bits.Len64(uint64(ns)) - 1
	if k >= latencyLast {
		return latencySteps - 1
	}
	return (k-latencyFirst)*4 + int(ns>>(k-2))&3 + 1
}

// stepEnd is where a bucket ends, in nanoseconds; the last has no end.
func stepEnd(i int) int64 {
	return int64(4+i%4) << (latencyFirst - 2 + i/4)
}

// observe adds n requests that took ns each.
func (l *latency) observe(ns int64, n uint64) {
	if !ioring.Counting {
		return
	}
	l.buckets[step(ns)].Add(n)
	l.sum.Add(ns * int64(n))
}

// quantile returns the end of the bucket in which the fraction q of counts
// lies, in nanoseconds; 0 without any.
func quantile(counts *[latencySteps]uint64, q float64) int64 {
	total := uint64(0)
	for _, n := range counts {
		total += n
	}
	if total == 0 {
		return 0
	}
	left := uint64(q * float64(total))
	for i, n := range counts {
		if n > left {
			return stepEnd(min(i, latencySteps-2))
		}
		left -= n
	}
	return stepEnd(latencySteps - 2)
}

// now is the daemon's clock, in nanoseconds since it started.
func (s *server) now() int64 { return int64(time.Since(s.started)) }

// beganAt is the time at which a burst is taken up, for who asks how long it took.
func (c *conn) beganAt() int64 {
	if !ioring.Counting && !c.watched && c.rate == 0 {
		return 0
	}
	return c.server.now()
}

// promptKind is what a method is counted as when it did not wait: a table, since
// it is looked at for each request.
var promptKind = func() (kinds [methodCount]timedKind) {
	for _, m := range ipc.Methods() {
		if m.Class() == ipc.ClassWrite {
			kinds[m] = writePrompt
		}
	}
	return kinds
}()

// finished takes note of a request that was carried out: with its burst, or by
// itself if it had to wait. Small enough to be inlined.
func (c *conn) finished(k *call) {
	if !ioring.Counting {
		return
	}
	if k.parked {
		c.finishedLate(k)
		return
	}
	c.prompt[promptKind[k.method]&1]++
}

func (c *conn) finishedLate(k *call) {
	c.lane.latency[promptKind[k.method]+readDisk].observe(c.server.now()-k.began, 1)
}

// timeBurst notes how long everything took that was answered in the burst that
// ends here.
func (c *conn) timeBurst() {
	if c.prompt == ([2]uint64{}) {
		return
	}
	took := c.server.now() - c.began
	for kind, n := range c.prompt {
		if n > 0 {
			c.lane.latency[kind].observe(took, n)
		}
	}
	c.prompt = [2]uint64{}
}
