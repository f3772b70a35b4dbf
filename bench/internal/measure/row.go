// Package measure runs measurements side by side and says what came out.
//
//	Row        one line of the report: what was measured, how, and the figures
//	Interleave round 1: A B C   round 2: C B A   round 3: A B C ...
//	Spread     median, least and most of the rounds
//
// The machines this runs on are shared and drift by a quarter and more within
// minutes. A ratio is therefore taken round by round, between neighbours in
// time, and the median of those is reported with its spread; an absolute figure
// is worth what its own spread says.
//
// A row without figures says why in one sentence. A wrong answer is not a
// figure: it fails the row and, in the end, the program.
package measure

import (
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// ErrWrong marks an answer that was not what had been stored.
var ErrWrong = errors.New("wrong answer")

// starved is the share of the processor time it wanted below which a row says so.
const starved = 0.9

// Row is one line of the report.
type Row struct {
	Group   string  `json:"group"`   // the part of the suite
	Name    string  `json:"name"`    // what is done
	Setting string  `json:"setting"` // how: sizes, counts, distribution
	Commit  string  `json:"commit"`  // when what was written becomes durable
	Unit    string  `json:"unit"`    // of Rates
	Scale   float64 `json:"-"`       // operations a second in one Unit

	Rates      []float64 `json:"rates"` // one for each round
	Rate       Spread    `json:"rate"`
	Hit        *float64  `json:"hit,omitempty"`       // share of the reads that found their key
	Cold       *float64  `json:"cold,omitempty"`      // reads of the device for records, divided by the reads, at most 1
	CPU        *float64  `json:"cpu_ns_op,omitempty"` // processor time of the measured side in ns an operation
	P50        *float64  `json:"p50_us,omitempty"`    // of one operation
	P99        *float64  `json:"p99_us,omitempty"`
	P999       *float64  `json:"p999_us,omitempty"`
	P9999      *float64  `json:"p9999_us,omitempty"`   // from a hundred thousand operations on
	Control    *Tail     `json:"control,omitempty"`    // what one who did nothing saw meanwhile
	Curve      []Point   `json:"curve,omitempty"`      // latency by percentile
	Over       []float64 `json:"over,omitempty"`       // the rate in the last round, one figure for each Tick, in Unit
	Efficiency *float64  `json:"efficiency,omitempty"` // of scaling: 1 is as many times the row with one thread as there are threads or processors
	X          *float64  `json:"x,omitempty"`          // where the row stands in a plot of its group: threads, bytes, percent
	Axis       string    `json:"axis,omitempty"`       // what X counts
	Line       string    `json:"line,omitempty"`       // the line of that plot
	Notes      []string  `json:"notes,omitempty"`

	// Threads is how many threads of this process want a processor all the time;
	// 0: not known.
	Threads int `json:"threads,omitempty"`

	Against string   `json:"against,omitempty"` // the Name of the row it is compared with
	Ratio   *Spread  `json:"ratio,omitempty"`   // to that row, round by round
	Peers   []Peer   `json:"peers,omitempty"`   // this row divided by others, round by round
	Target  *float64 `json:"target,omitempty"`  // least Ratio, or least Rate where there is no peer

	Missing string `json:"missing,omitempty"` // why there are no figures
	Failed  string `json:"failed,omitempty"`  // what was wrong

	sum Sample
}

// Tick is the time between two figures of Row.Over.
const Tick = 100 * time.Millisecond

// Tail is the tail of a distribution of times, in microseconds.
type Tail struct {
	P50   float64 `json:"p50_us"`
	P99   float64 `json:"p99_us"`
	P999  float64 `json:"p999_us"`
	P9999 float64 `json:"p9999_us"`
	Max   float64 `json:"max_us"`
}

// Point is one point of a latency curve.
type Point struct {
	Percentile float64 `json:"percentile"`
	Micros     float64 `json:"us"`
}

// Sample is what one round of one row did.
type Sample struct {
	Ops     uint64
	Reads   uint64 // among Ops; 0: the hit ratio means nothing
	Hits    uint64 // among Reads
	Elapsed time.Duration
	CPU     time.Duration // of the measured side; 0: not known
	// Times are the latencies in ns, Over the operations done in each Tick; both
	// may be nil.
	Times *hdrhistogram.Histogram
	Over  []uint64
}

// add takes one round into the row.
func (r *Row) add(s Sample) {
	r.Rates = append(r.Rates, float64(s.Ops)/s.Elapsed.Seconds()/r.Scale)
	r.sum.Ops += s.Ops
	r.sum.Reads += s.Reads
	r.sum.Hits += s.Hits
	r.sum.CPU += s.CPU
	r.sum.Elapsed += s.Elapsed
	if s.Times != nil {
		if r.sum.Times == nil {
			r.sum.Times = NewTimes()
		}
		r.sum.Times.Merge(s.Times)
	}
	if s.Over != nil {
		r.Over = r.Over[:0]
		for _, n := range s.Over {
			r.Over = append(r.Over, float64(n)/Tick.Seconds()/r.Scale)
		}
	}
}

// latencyMax is the longest time in ns that Times tell apart.
const latencyMax = int64(10 * time.Minute)

// tailCount is how many latencies make the 99.99th percentile ten of them.
const tailCount = 100_000

// NewTimes returns an empty histogram for Sample.Times.
func NewTimes() *hdrhistogram.Histogram {
	h := &Apart[hdrhistogram.Histogram](1)[0] // it counts what it counts
	*h = *hdrhistogram.New(1, latencyMax, 3)
	return h
}

// Record counts one latency in ns.
func Record(h *hdrhistogram.Histogram, ns int64) {
	// The value is in range, so recording cannot fail.
	_ = h.RecordValue(min(max(ns, 1), latencyMax))
}

// curvePoints are where the latency curve is drawn; beyond a hundred samples a
// point says nothing, so the curve ends there.
var curvePoints = []float64{0.1, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99, 99.995, 99.999}

// latencies reads the histogram out.
func (r *Row) latencies() {
	h := r.sum.Times
	if h == nil || h.TotalCount() == 0 {
		return
	}
	at := func(p float64) *float64 {
		us := float64(h.ValueAtQuantile(p)) / 1000
		return &us
	}
	r.P50, r.P99, r.P999 = at(50), at(99), at(99.9)
	if h.TotalCount() >= tailCount {
		r.P9999 = at(99.99)
	}
	r.Curve = nil
	for _, p := range curvePoints {
		if float64(h.TotalCount())*(100-p) >= 100 {
			r.Curve = append(r.Curve, Point{p, *at(p)})
		}
	}
}

// fail notes why the row has no further figures.
func (r *Row) fail(err error) {
	if errors.Is(err, ErrWrong) {
		r.Failed = err.Error()
		return
	}
	if r.Missing == "" {
		r.Missing = err.Error()
	}
}

// Note adds a sentence to the row.
func (r *Row) Note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// Finish sums the rounds up, and compares with peer unless that is nil.
func (r *Row) Finish(peer *Row) {
	r.Rate = SpreadOf(r.Rates)
	r.latencies()
	if r.sum.Reads > 0 {
		hit := float64(r.sum.Hits) / float64(r.sum.Reads)
		r.Hit = &hit
	}
	if r.sum.CPU > 0 && r.sum.Ops > 0 {
		cpu := float64(r.sum.CPU) / float64(r.sum.Ops)
		r.CPU = &cpu
	}
	if wanted := float64(r.Threads) * float64(r.sum.Elapsed); wanted > 0 && r.sum.CPU > 0 {
		if share := float64(r.sum.CPU) / wanted; share < starved {
			r.Note("others were running: it got %.0f%% of the processor time it could use; CPU/op is what counts", share*100)
		}
	}
	if peer == nil {
		return
	}
	r.Against = peer.Name
	if ratios := Ratios(r.Rates, peer.Rates); len(ratios) > 0 {
		s := SpreadOf(ratios)
		r.Ratio = &s
	}
}

// Peer is how many times another row's rate a row has.
type Peer struct {
	Name   string  `json:"name"`
	Ratio  Spread  `json:"ratio"`
	Target float64 `json:"target,omitempty"` // least Ratio; 0: none
}

// Versus compares the row with others of its group, round by round. Those without
// figures are left out.
func (r *Row) Versus(peers ...*Row) {
	for _, p := range peers {
		if ratios := Ratios(r.Rates, p.Rates); len(ratios) > 0 {
			r.Peers = append(r.Peers, Peer{Name: p.Name, Ratio: SpreadOf(ratios)})
		}
	}
}

// Met reports whether the target is reached; known is false if there is none, or
// no figure to hold against it.
func (r *Row) Met() (met, known bool) {
	switch {
	case r.Target == nil || len(r.Rates) == 0:
		return false, false
	case r.Against == "":
		return r.Rate.Median >= *r.Target, true
	case r.Ratio == nil:
		return false, false
	}
	return r.Ratio.Median >= *r.Target, true
}
