package fio

import (
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// latencyMax is the longest time that is told apart, in ns.
	latencyMax = int64(10 * time.Minute)
	// sampleEvery is fio's interval between two samples of the rate.
	sampleEvery = 500 * time.Millisecond
)

// moments sums values up without keeping them.
type moments struct {
	n              uint64
	min, max       int64
	mean, distance float64 // distance: sum of the squares from the mean, by Welford
}

func (m *moments) add(x int64) {
	if m.n == 0 || x < m.min {
		m.min = x
	}
	m.max = max(m.max, x)
	m.n++
	d := float64(x) - m.mean
	m.mean += d / float64(m.n)
	m.distance += d * (float64(x) - m.mean)
}

// merge takes in what another has seen.
func (m *moments) merge(o *moments) {
	switch {
	case o.n == 0:
		return
	case m.n == 0:
		*m = *o
		return
	}
	n, d := float64(m.n+o.n), o.mean-m.mean
	m.distance += o.distance + d*d*float64(m.n)*float64(o.n)/n
	m.mean += d * float64(o.n) / n
	m.n += o.n
	m.min, m.max = min(m.min, o.min), max(m.max, o.max)
}

func (m *moments) stddev() float64 {
	if m.n < 2 {
		return 0
	}
	return math.Sqrt(m.distance / float64(m.n-1))
}

// side counts the requests of one direction. It belongs to the job's goroutine
// until the job has ended.
type side struct {
	ios, bytes      uint64
	slat, clat, lat moments
	times           *hdrhistogram.Histogram // of clat
	bandwidth, iops moments                 // samples: KiB/s, requests/s
}

func newSide() side { return side{times: hdrhistogram.New(1, latencyMax, 3)} }

// add counts one request. Times in ns.
func (s *side) add(bytes int, slat, clat int64) {
	s.ios++
	s.bytes += uint64(bytes)
	s.slat.add(slat)
	s.clat.add(clat)
	s.lat.add(slat + clat)
	// The value is in range, so recording cannot fail.
	_ = s.times.RecordValue(min(max(clat, 1), latencyMax))
}

func (s *side) merge(o *side) {
	s.ios += o.ios
	s.bytes += o.bytes
	s.slat.merge(&o.slat)
	s.clat.merge(&o.clat)
	s.lat.merge(&o.lat)
	s.bandwidth.merge(&o.bandwidth)
	s.iops.merge(&o.iops)
	s.times.Merge(o.times)
}

// shares counts how often something fell into each class.
type shares struct {
	count [10]uint64
	sum   uint64
}

func (s *shares) add(class int) {
	s.count[class]++
	s.sum++
}

func (s *shares) merge(o *shares) {
	for i, n := range o.count {
		s.count[i] += n
	}
	s.sum += o.sum
}

// percent is the share of a class.
func (s *shares) percent(class int) float64 {
	if s.sum == 0 {
		return 0
	}
	return float64(s.count[class]) / float64(s.sum) * 100
}

// depthClasses are fio's names of the classes of depth, batchClasses of how many
// requests were handed over or came back together.
var (
	depthClasses = []string{"1", "2", "4", "8", "16", "32", ">=64"}
	batchClasses = []string{"0", "4", "8", "16", "32", "64", ">=64"}
)

// depthClass finds the class of a depth of at least 1.
func depthClass(depth int) int {
	class := 0
	for depth >= 2 && class < len(depthClasses)-1 {
		depth, class = depth/2, class+1
	}
	return class
}

// batchClass finds the class of n requests together.
func batchClass(n int) int {
	if n == 0 {
		return 0
	}
	class := 1
	for most := 4; n > most && class < len(batchClasses)-1; most *= 2 {
		class++
	}
	return class
}

// latencyBounds are fio's classes of latency within each of ns, us and ms; a
// latency belongs to the first bound that it is below or at.
var latencyBounds = []int64{2, 4, 10, 20, 50, 100, 250, 500, 750, 1000}

// latencies counts requests by latency: ns, us, ms.
type latencies struct {
	classes [3][10]uint64
	second  uint64 // up to 2 s
	beyond  uint64
	sum     uint64
}

func (l *latencies) add(ns int64) {
	l.sum++
	unit, value := 0, ns
	for value > 1000 && unit < 2 {
		value, unit = (value+999)/1000, unit+1
	}
	for i, bound := range latencyBounds {
		if value <= bound {
			l.classes[unit][i]++
			return
		}
	}
	if value < 2000 {
		l.second++
	} else {
		l.beyond++
	}
}

func (l *latencies) merge(o *latencies) {
	for u := range l.classes {
		for i := range l.classes[u] {
			l.classes[u][i] += o.classes[u][i]
		}
	}
	l.second += o.second
	l.beyond += o.beyond
	l.sum += o.sum
}

// syncs counts syncs by their latency in ns.
type syncs struct {
	lat   moments
	times *hdrhistogram.Histogram
}

func (s *syncs) add(ns int64) {
	s.lat.add(ns)
	// The value is in range, so recording cannot fail.
	_ = s.times.RecordValue(min(max(ns, 1), latencyMax))
}

func (s *syncs) merge(o *syncs) {
	s.lat.merge(&o.lat)
	s.times.Merge(o.times)
}

// stat is all that is counted of a job.
type stat struct {
	sides    [2]side
	syncs    syncs
	level    shares // depth when a request is handed over
	submit   shares
	complete shares
	latency  latencies
	elapsed  time.Duration // measured, without the ramp

	cpuUser, cpuSystem   time.Duration // this job's share
	switches             int64
	majFaults, minFaults int64
}

func newStat() *stat {
	return &stat{
		sides: [2]side{newSide(), newSide()}, syncs: syncs{times: hdrhistogram.New(1, latencyMax, 3)},
	}
}

func (s *stat) merge(o *stat) {
	for d := range s.sides {
		s.sides[d].merge(&o.sides[d])
	}
	s.syncs.merge(&o.syncs)
	s.level.merge(&o.level)
	s.submit.merge(&o.submit)
	s.complete.merge(&o.complete)
	s.latency.merge(&o.latency)
	s.elapsed = max(s.elapsed, o.elapsed)
	s.cpuUser += o.cpuUser
	s.cpuSystem += o.cpuSystem
	s.switches += o.switches
	s.majFaults += o.majFaults
	s.minFaults += o.minFaults
}
