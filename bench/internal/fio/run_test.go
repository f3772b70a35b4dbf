package fio

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/bench/internal/measure"
	"rskv/ioring"
)

// quiet is a Config that says nothing.
func quiet(t *testing.T) Config {
	return Config{
		Dir: t.TempDir(), Say: func(string, ...any) {},
		Watch: func(string, time.Duration, *Live) func() { return func() {} },
	}
}

func parsed(t *testing.T, text string, engine Engine) []*Job {
	t.Helper()
	f, err := Parse("j", text)
	require.NoError(t, err)
	jobs, err := f.Jobs(engine)
	require.NoError(t, err)
	return jobs
}

// everything is a job of each kind, small.
const everything = `
[global]
size=2m
rskv_memory=32m
percentile_list=50:99
[once]
rw=randread
iodepth=4
[sizes]
rw=randrw
bsrange=4k-12k
iodepth=8
fdatasync=5
io_size=1m
[twins]
stonewall
rw=randwrite
bs=8k
iodepth=3
numjobs=2
group_reporting
end_fsync=1
[timed]
stonewall
rw=read
bs=64k
runtime=200ms
ramp_time=50ms
time_based
`

// An engine that loses a request hangs, one that counts wrong reports a rate
// that nothing had: bytes, requests, syncs and latencies must add up exactly.
func TestRun_EveryEngine(t *testing.T) {
	engines := []Engine{Auto, Sync, Store}
	cfg := quiet(t)
	if ok, _ := ioring.Probe(); ok {
		engines = append(engines, Uring)
	}
	if !testing.Short() {
		cfg.RSKVD = filepath.Join(t.TempDir(), "rskvd")
		out, err := exec.Command("go", "build", "-o", cfg.RSKVD, "rskv/daemon/rskvd").CombinedOutput()
		require.NoError(t, err, "%s", out)
		engines = append(engines, Socket)
	}
	for _, e := range engines {
		t.Run(string(e), func(t *testing.T) {
			c := quiet(t)
			c.RSKVD = cfg.RSKVD
			b, err := Start(t.Context(), parsed(t, everything, e), c)
			require.NoError(t, err)
			for try, short := 0, false; try < 2 || short; try++ {
				o, err := b.Run(t.Context())
				require.NoError(t, err)
				checkEverything(t, o)
				// A machine that stands still behind the last request has none after it.
				short = o.Jobs[3].Read.Runtime < 150
				require.Less(t, try, 20, "200 ms were asked for, and it took %d", o.Jobs[3].Read.Runtime)
			}
			require.NotZero(t, b.live.Ops.Load())
			require.NoError(t, b.Close())
		})
	}
}

func checkEverything(t *testing.T, o *Output) {
	require.Len(t, o.Jobs, 4)
	once, sizes, twins, timed := o.Jobs[0], o.Jobs[1], o.Jobs[2], o.Jobs[3]
	require.EqualValues(t, 512, once.Read.IOs)
	require.EqualValues(t, 2<<20, once.Read.Bytes)
	require.Zero(t, once.Write.IOs)
	require.EqualValues(t, 512, once.Read.Clat.N)
	require.Positive(t, once.Read.Clat.At(99))
	require.LessOrEqual(t, once.Read.Clat.At(50), once.Read.Clat.At(99))
	require.Positive(t, once.Read.IOPS)

	require.NotZero(t, sizes.Read.IOs)
	require.NotZero(t, sizes.Write.IOs)
	require.Equal(t, (sizes.Write.IOs-1)/5, min(sizes.Sync.IOs, (sizes.Write.IOs-1)/5), "a sync after every five writes")
	require.InDelta(t, float64(sizes.Write.IOs)/5, float64(sizes.Sync.IOs), 1)

	require.EqualValues(t, 512, twins.Write.IOs, "both jobs together")
	require.EqualValues(t, 4<<20, twins.Write.Bytes)
	require.EqualValues(t, 2, twins.Sync.IOs, "one at the end of each")

	require.NotZero(t, timed.Read.IOs)
	sum := 0.0
	for _, unit := range []map[string]float64{timed.LatNS, timed.LatUS, timed.LatMS} {
		for _, share := range unit {
			sum += share
		}
	}
	require.InDelta(t, 100, sum, 0.01)
}

// A job whose ramp ended late would be measured for a part of its runtime only.
func TestLoop_LateRamp(t *testing.T) {
	late := false
	start := &barrier{ramped: func() { late = true }}
	l := &loop{job: &Job{}, clock: clock{time.Now()}, stat: newStat()}
	l.job.Ramp, l.job.Runtime = 50*time.Millisecond, 200*time.Millisecond
	l.start()
	l.passRamp(start)
	require.False(t, late)
	l.last += int64(190 * time.Millisecond)
	l.passRamp(start)
	require.True(t, late)
	require.Equal(t, l.last, l.begin)
	require.EqualValues(t, 200*time.Millisecond, l.end-l.begin)
}

// A rate that is not kept makes "latency at half the load" a latency at another.
func TestRun_Rate(t *testing.T) {
	jobs := parsed(t, "[a]\nsize=800k\nrw=randread\niodepth=4\nrate_iops=400\n", Store)
	b, err := Start(t.Context(), jobs, quiet(t))
	require.NoError(t, err)
	for try := 1; ; try++ {
		o, err := b.Run(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 200, o.Jobs[0].Read.IOs)
		took := time.Duration(o.Jobs[0].Read.Runtime) * time.Millisecond
		require.GreaterOrEqual(t, took, 490*time.Millisecond)
		if took <= 520*time.Millisecond {
			break
		}
		require.Less(t, try, 20, "it is slower than that however often it is tried: %v", took)
	}
	require.NoError(t, b.Close())
}

// A block that holds what belongs elsewhere must fail the run.
func TestRun_WrongBlock(t *testing.T) {
	jobs := parsed(t, "[a]\nsize=64k\nrw=randread\n", Store)
	b, err := Start(t.Context(), jobs, quiet(t))
	require.NoError(t, err)
	session := b.by[jobs[0]].(*storeTarget).store.NewSession()
	key := keyed{0, 4096}.key(nil, &request{off: 8192})
	require.NoError(t, session.Put(key, make([]byte, 4096)))
	_, err = b.Run(t.Context())
	require.ErrorIs(t, err, measure.ErrWrong)
	_, err = session.Delete(key)
	require.NoError(t, err)
	_, err = b.Run(t.Context())
	require.ErrorIs(t, err, measure.ErrWrong)
	session.Close()
	require.NoError(t, b.Close())
}

// An interrupted run must end at once and leave no request behind.
func TestRun_ContextEnds(t *testing.T) {
	for _, e := range []Engine{Sync, Store} {
		jobs := parsed(t, "[a]\nsize=1m\nrw=randread\nruntime=1h\ntime_based\niodepth=8\n[b]\nsize=1m\nrw=write\nrate_iops=1\n", e)
		b, err := Start(t.Context(), jobs, quiet(t))
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		begin := time.Now()
		_, err = b.Run(ctx)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, time.Since(begin), 20*time.Second)
		require.NoError(t, b.Close())
	}
}

// A block twice, or one left out, is not what fio's jobs do; a request across a
// segment is refused by the device.
func TestPicker(t *testing.T) {
	job := parsed(t, "[a]\nsize=1m\nrw=randread\n", Auto)[0]
	p := newPicker(job, 0, 1)
	for range 2 {
		seen := map[int64]bool{}
		for range 256 {
			off, length := p.block(reading)
			require.False(t, seen[off])
			seen[off] = true
			require.EqualValues(t, 4096, length)
		}
		require.Len(t, seen, 256)
	}
	for _, text := range []string{
		"rw=randread\nbsrange=512-7k\n", "rw=read\nbsrange=512-7k\n", "rw=randrw\nbs=12k\noffset=20k\n", "rw=rw\nbs=4k,20k\n",
		"rw=randread\nrandom_distribution=zipf:0.8\n", "rw=randread\nrandom_distribution=zipf:1.3\n", "rw=randread\nrandom_distribution=pareto:0.3\n", "rw=randread\nnorandommap\n",
	} {
		job := parsed(t, "[a]\nsize=1000k\n"+text, Auto)[0]
		p := newPicker(job, 64<<10, 1)
		hits := map[int64]int{}
		for range 20_000 {
			off, length := p.block(p.direction())
			require.GreaterOrEqual(t, off, job.Offset/p.unit*p.unit, text)
			require.LessOrEqual(t, off+length, job.Size, text)
			require.Equal(t, off>>16, (off+length-1)>>16, text)
			require.Zero(t, length%512, text)
			hits[off]++
		}
		require.Greater(t, len(hits), 30, text)
	}
}

// A mean or deviation that is wrong when clones are merged would not be seen in
// any table.
func TestMoments_Merge(t *testing.T) {
	var all, a, b, none moments
	for i := range int64(1000) {
		x := i * i % 977
		all.add(x)
		if i%3 == 0 {
			a.add(x)
		} else {
			b.add(x)
		}
	}
	a.merge(&none)
	none.merge(&b)
	a.merge(&none)
	require.Equal(t, all.n, a.n)
	require.Equal(t, all.min, a.min)
	require.Equal(t, all.max, a.max)
	require.InDelta(t, all.mean, a.mean, 1e-9)
	require.InDelta(t, all.stddev(), a.stddev(), 1e-9)
}

// What reads fio's JSON must find every name in ours, at the same place and of
// the same type. Without fio on the machine its names are taken from memory.
func TestOutput_SameNamesAsFio(t *testing.T) {
	text := "[a]\nsize=256k\nrw=randrw\niodepth=2\nfdatasync=3\nruntime=100ms\ntime_based\n[b]\nsize=64k\nrw=read\n"
	f, err := Parse("j", text)
	require.NoError(t, err)
	jobs, err := f.Jobs(Store)
	require.NoError(t, err)
	b, err := Start(t.Context(), jobs, quiet(t))
	require.NoError(t, err)
	o, err := b.Run(t.Context())
	require.NoError(t, err)
	require.NoError(t, b.Close())
	var doc bytes.Buffer
	require.NoError(t, o.WriteJSON(&doc))
	ours := names(t, doc.Bytes())
	want := map[string]string{
		"jobs[].jobname": "string", "jobs[].read.iops": "number", "jobs[].read.bw_bytes": "number",
		"jobs[].read.clat_ns.percentile.99.000000": "number", "jobs[].write.lat_ns.mean": "number", "jobs[].usr_cpu": "number",
	}
	theirs, err := NewTheirs(t.Context(), t.TempDir(), "psync")
	if err == nil {
		out, err := theirs.Run(t.Context(), f)
		require.NoError(t, err)
		require.Equal(t, "a", out.Jobs[0].Name)
		require.GreaterOrEqual(t, out.Jobs[0].CPU(), 0.0) // a short run may cost less than a tick
		raw, err := exec.Command(theirs.program, "--output-format=json", filepath.Join(theirs.dir, "job.fio")).Output()
		require.NoError(t, err)
		want = names(t, raw)
		delete(want, "disk_util[]") // what a disk did besides is not looked at
	}
	for name, kind := range want {
		if len(name) > 9 && name[:9] == "disk_util" || len(name) > 14 && name[:14] == "global options" || len(name) > 18 && name[:18] == "jobs[].job options" {
			continue
		}
		require.Equal(t, kind, ours[name], "%s", name)
	}
}

// names lists the places of a document and what stands there.
func names(t *testing.T, doc []byte) map[string]string {
	t.Helper()
	var v any
	require.NoError(t, json.Unmarshal(doc[bytes.IndexByte(doc, '{'):], &v))
	list := map[string]string{}
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, inner := range v {
				walk(at+"."+k, inner)
			}
		case []any:
			for _, inner := range v {
				walk(at+"[]", inner)
			}
		case string:
			list[at[1:]] = "string"
		default:
			list[at[1:]] = "number"
		}
	}
	walk("", v)
	return list
}

// Ratios of the wrong rounds, or of jobs that do not belong together, compare
// nothing.
func TestComparison_Sum(t *testing.T) {
	out := func(iops, cpu float64) *Output {
		j := &JobOutput{Name: "a", UserCPU: cpu, Runtime: 1000}
		j.Read = SideOutput{IOs: 1000, IOPS: iops, BWBytes: uint64(iops * 4096), Clat: Latency{Percentile: map[string]int64{"50.000000": int64(1e9 / iops)}}}
		return &Output{Jobs: []*JobOutput{j}}
	}
	c := &Comparison{Rounds: 2, Ours: []*Output{out(2000, 10), out(3000, 10)}, Theirs: []*Output{out(1000, 5), out(1000, 10)}}
	require.NoError(t, c.sum())
	require.Len(t, c.Lines, 1)
	got := map[string]float64{}
	for _, m := range c.Lines[0].Metrics {
		got[m.Name] = m.Ratio.Median
	}
	require.InDelta(t, 2.5, got["IOPS"], 1e-9)
	require.InDelta(t, 1.5, got["CPU per I/O"], 1e-9)
	require.NotContains(t, got, "p99", "nobody asked for it")
	var text bytes.Buffer
	require.NoError(t, c.WriteTable(&text))
	require.Contains(t, text.String(), "2.50 [2.00-3.00]")
	c.Theirs[1].Jobs[0].Name = "b"
	require.Error(t, c.sum())
}
