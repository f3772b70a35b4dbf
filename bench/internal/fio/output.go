package fio

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rskv/bench/internal/measure"
)

// version is what stands where fio has its own, in the same form.
const version = "rskv-bench-fio-3.33"

// Output is a run in fio's JSON: its names, units and nesting, so that what
// plots fio's plots this. The same type reads what fio writes. Beyond fio's
// there is only "rskv" at the top.
type Output struct {
	Version   string            `json:"fio version"`
	Timestamp int64             `json:"timestamp"`
	TimeMS    int64             `json:"timestamp_ms"`
	Time      string            `json:"time"`
	Global    map[string]string `json:"global options,omitempty"`
	Jobs      []*JobOutput      `json:"jobs"`
	DiskUtil  []any             `json:"disk_util"`
	About     []string          `json:"rskv,omitempty"` // what the jobs ran on
}

// JobOutput is one job, or with group_reporting one group.
type JobOutput struct {
	Name     string            `json:"jobname"`
	Group    int               `json:"groupid"`
	Error    int               `json:"error"`
	ETA      int               `json:"eta"`
	Elapsed  int               `json:"elapsed"` // s since the run began
	Options  map[string]string `json:"job options"`
	Read     SideOutput        `json:"read"`
	Write    SideOutput        `json:"write"`
	Trim     SideOutput        `json:"trim"`
	Sync     SyncOutput        `json:"sync"`
	Runtime  uint64            `json:"job_runtime"` // ms, summed over merged jobs
	UserCPU  float64           `json:"usr_cpu"`     // percent of Runtime
	SysCPU   float64           `json:"sys_cpu"`
	Switches int64             `json:"ctx"`
	MajFault int64             `json:"majf"`
	MinFault int64             `json:"minf"`

	Depth    map[string]float64 `json:"iodepth_level"` // percent
	Submit   map[string]float64 `json:"iodepth_submit"`
	Complete map[string]float64 `json:"iodepth_complete"`
	LatNS    map[string]float64 `json:"latency_ns"`
	LatUS    map[string]float64 `json:"latency_us"`
	LatMS    map[string]float64 `json:"latency_ms"`

	LatencyDepth      int     `json:"latency_depth"`
	LatencyTarget     int     `json:"latency_target"`
	LatencyPercentile float64 `json:"latency_percentile"`
	LatencyWindow     int     `json:"latency_window"`
}

// SideOutput is one direction of a job.
type SideOutput struct {
	Bytes    uint64  `json:"io_bytes"`
	KBytes   uint64  `json:"io_kbytes"`
	BWBytes  uint64  `json:"bw_bytes"` // a second
	BW       uint64  `json:"bw"`       // KiB a second
	IOPS     float64 `json:"iops"`
	Runtime  uint64  `json:"runtime"` // ms
	IOs      uint64  `json:"total_ios"`
	Short    uint64  `json:"short_ios"`
	Dropped  uint64  `json:"drop_ios"`
	Slat     Latency `json:"slat_ns"`
	Clat     Latency `json:"clat_ns"`
	Lat      Latency `json:"lat_ns"`
	BWMin    int64   `json:"bw_min"`
	BWMax    int64   `json:"bw_max"`
	BWAgg    float64 `json:"bw_agg"` // percent of the group's
	BWMean   float64 `json:"bw_mean"`
	BWDev    float64 `json:"bw_dev"`
	BWN      uint64  `json:"bw_samples"`
	IOPSMin  int64   `json:"iops_min"`
	IOPSMax  int64   `json:"iops_max"`
	IOPSMean float64 `json:"iops_mean"`
	IOPSDev  float64 `json:"iops_stddev"`
	IOPSN    uint64  `json:"iops_samples"`
}

// SyncOutput is the syncs of a job.
type SyncOutput struct {
	IOs uint64  `json:"total_ios"`
	Lat Latency `json:"lat_ns"`
}

// Latency is in ns.
type Latency struct {
	Min        int64            `json:"min"`
	Max        int64            `json:"max"`
	Mean       float64          `json:"mean"`
	Stddev     float64          `json:"stddev"`
	N          uint64           `json:"N"`
	Percentile map[string]int64 `json:"percentile,omitempty"`
}

// At returns a percentile, 0 if it is not among those that were asked for.
func (l *Latency) At(percent float64) int64 { return l.Percentile[percentName(percent)] }

func percentName(p float64) string { return fmt.Sprintf("%f", p) }

func newOutput(jobs []*Job) *Output {
	now := time.Now()
	return &Output{
		Version: version, Timestamp: now.Unix(), TimeMS: now.UnixMilli(), Time: now.Format(time.ANSIC), DiskUtil: []any{},
	}
}

// add takes in jobs that ran at the same time, merged by group where they ask
// for it.
func (o *Output) add(jobs []*Job, stats []*stat, elapsed time.Duration) {
	var list []*JobOutput
	for i := 0; i < len(jobs); i++ {
		sum, j := stats[i], jobs[i]
		runtime := sum.elapsed
		for j.Merged && i+1 < len(jobs) && jobs[i+1].Merged && jobs[i+1].Group == j.Group {
			i++
			runtime += stats[i].elapsed
			sum.merge(stats[i])
		}
		list = append(list, jobOutput(j, sum, runtime, elapsed))
	}
	shareOut(list, func(j *JobOutput) *SideOutput { return &j.Read })
	shareOut(list, func(j *JobOutput) *SideOutput { return &j.Write })
	o.Jobs = append(o.Jobs, list...)
}

// shareOut fills in what part of the group's bandwidth each job has.
func shareOut(list []*JobOutput, side func(*JobOutput) *SideOutput) {
	sum := uint64(0)
	for _, j := range list {
		sum += side(j).BWBytes
	}
	for _, j := range list {
		if s := side(j); sum > 0 {
			s.BWAgg = float64(s.BWBytes) / float64(sum) * 100
		}
	}
}

func jobOutput(j *Job, s *stat, runtime, elapsed time.Duration) *JobOutput {
	out := &JobOutput{
		Name: j.Name, Group: j.Group, Elapsed: int((elapsed + time.Second - 1) / time.Second), Options: maps.Clone(j.Options),
		Read:  sideOutput(&s.sides[reading], s.elapsed, j.Percentiles),
		Write: sideOutput(&s.sides[writing], s.elapsed, j.Percentiles),
		Sync:  syncOutput(&s.syncs, j.Percentiles), Runtime: uint64(runtime.Milliseconds()),
		UserCPU: percentOf(s.cpuUser, runtime), SysCPU: percentOf(s.cpuSystem, runtime),
		Switches: s.switches, MajFault: s.majFaults, MinFault: s.minFaults,
		Depth: classes(&s.level, depthClasses), Submit: classes(&s.submit, batchClasses), Complete: classes(&s.complete, batchClasses),
		LatencyDepth: j.Depth, LatencyPercentile: 100,
	}
	out.LatNS, out.LatUS, out.LatMS = s.latency.output()
	return out
}

func percentOf(part, whole time.Duration) float64 {
	if whole <= 0 {
		return 0
	}
	return float64(part) / float64(whole) * 100
}

func sideOutput(s *side, elapsed time.Duration, percentiles []float64) SideOutput {
	out := SideOutput{
		Bytes: s.bytes, KBytes: s.bytes >> 10, IOs: s.ios, Slat: latency(&s.slat), Clat: latency(&s.clat), Lat: latency(&s.lat),
		BWMin: s.bandwidth.min, BWMax: s.bandwidth.max, BWMean: s.bandwidth.mean, BWDev: s.bandwidth.stddev(), BWN: s.bandwidth.n,
		IOPSMin: s.iops.min, IOPSMax: s.iops.max, IOPSMean: s.iops.mean, IOPSDev: s.iops.stddev(), IOPSN: s.iops.n,
	}
	if s.ios == 0 {
		return out
	}
	out.Runtime = uint64(elapsed.Milliseconds())
	out.IOPS = float64(s.ios) / elapsed.Seconds()
	out.BWBytes = uint64(float64(s.bytes) / elapsed.Seconds())
	out.BW = out.BWBytes / 1024
	out.Clat.Percentile = percentilesOf(s.times, percentiles)
	return out
}

func syncOutput(s *syncs, percentiles []float64) SyncOutput {
	out := SyncOutput{IOs: s.lat.n, Lat: latency(&s.lat)}
	if out.IOs > 0 {
		out.Lat.Percentile = percentilesOf(s.times, percentiles)
	}
	return out
}

func percentilesOf(h *hdrhistogram.Histogram, list []float64) map[string]int64 {
	out := map[string]int64{}
	for _, p := range list {
		out[percentName(p)] = h.ValueAtQuantile(p)
	}
	return out
}

func latency(m *moments) Latency {
	return Latency{Min: m.min, Max: m.max, Mean: m.mean, Stddev: m.stddev(), N: m.n}
}

func classes(s *shares, names []string) map[string]float64 {
	out := map[string]float64{}
	for i, name := range names {
		out[name] = s.percent(i)
	}
	return out
}

func (l *latencies) output() (ns, us, ms map[string]float64) {
	var units [3]map[string]float64
	percent := func(n uint64) float64 { return float64(n) / float64(max(l.sum, 1)) * 100 }
	for u := range units {
		units[u] = map[string]float64{}
		for i, bound := range latencyBounds {
			units[u][fmt.Sprint(bound)] = percent(l.classes[u][i])
		}
	}
	units[2]["2000"], units[2][">=2000"] = percent(l.second), percent(l.beyond)
	return units[0], units[1], units[2]
}

// WriteJSON writes the run as fio would.
func (o *Output) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(o)
}

// ReadJSON reads what fio or WriteJSON wrote; fio may print lines of warning
// before it.
func ReadJSON(b []byte) (*Output, error) {
	begin := strings.IndexByte(string(b), '{')
	if begin < 0 {
		return nil, fmt.Errorf("no JSON: %.200q", b)
	}
	var o Output
	if err := json.Unmarshal(b[begin:], &o); err != nil {
		return nil, fmt.Errorf("read fio's JSON: %w", err)
	}
	return &o, nil
}

// CPU is the processor time of one I/O in ns, 0 if there was none.
func (j *JobOutput) CPU() float64 {
	ios := j.Read.IOs + j.Write.IOs
	if ios == 0 {
		return 0
	}
	return (j.UserCPU + j.SysCPU) / 100 * float64(j.Runtime) * 1e6 / float64(ios)
}

// Report makes rows of the run, for a page. name is the group they stand in.
func (o *Output) Report(name string) *measure.Report {
	r := &measure.Report{
		Date: time.UnixMilli(o.TimeMS).UTC(), Command: []string{o.Version}, Rounds: 1,
		Machine: measure.Machine{Processor: "the machine is not part of fio's JSON"},
	}
	for _, j := range o.Jobs {
		for _, s := range j.sides() {
			row := &measure.Row{
				Group: name, Name: j.Name + ", " + s.name, Setting: fmt.Sprintf("%v", j.Options), Commit: "see the job", Unit: "k IOPS",
				Rates: []float64{s.IOPS / 1000}, Rate: measure.SpreadOf([]float64{s.IOPS / 1000}),
			}
			cpu := j.CPU()
			row.CPU = &cpu
			row.Curve, row.P50, row.P99, row.P999 = s.Clat.curve()
			row.Note("%.1f MiB/s, %d syncs", float64(s.BWBytes)/(1<<20), j.Sync.IOs)
			r.Rows = append(r.Rows, row)
		}
	}
	return r
}

// curve is the percentiles in order, and those that a table shows.
func (l *Latency) curve() (list []measure.Point, p50, p99, p999 *float64) {
	for name, ns := range l.Percentile {
		p, err := strconv.ParseFloat(name, 64)
		if err != nil {
			continue
		}
		list = append(list, measure.Point{Percentile: p, Micros: float64(ns) / 1000})
	}
	slices.SortFunc(list, func(a, b measure.Point) int { return cmp.Compare(a.Percentile, b.Percentile) })
	at := func(want float64) *float64 {
		for _, p := range list {
			if p.Percentile == want {
				return &p.Micros
			}
		}
		return nil
	}
	return list, at(50), at(99), at(99.9)
}
