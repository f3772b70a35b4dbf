package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/bench/internal/fio"
	"rskv/bench/internal/measure"
)

// A misspelt argument must be said and must not start minutes of load.
func TestRun_WrongArguments(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "no command"},
		{[]string{"slow"}, `"slow" is not a command`},
		{[]string{"quick", "now"}, "takes no arguments"},
		{[]string{"quick", "--fast"}, "--fast"},
		{[]string{"quick", "--rounds", "-1"}, "--rounds -1"},
		{[]string{"quick", "--rounds", "x"}, "--rounds"},
		{[]string{"quick", "--only", "engine,moon"}, "--only moon"},
		{[]string{"ycsb", "G"}, "neither one of A to F"},
		{[]string{"ycsb", "-p", "threads=3"}, `unknown property "threads"`},
		{[]string{"ycsb", "--on", "moon"}, "--on moon"},
		{[]string{"ycsb", "--time", "0s"}, "--time 0s"},
		{[]string{"ycsb", "--memory", "1"}, "--memory 1"},
		{[]string{"ycsb", "--rounds", "0"}, "--rounds 0"},
		{[]string{"run"}, "no group given"},
		{[]string{"run", "write", "moon"}, `no group "moon"`},
		{[]string{"run", "all", "--rounds", "0"}, "above 0"},
		{[]string{"run", "space", "--keys", "9"}, "--keys 9"},
		{[]string{"report"}, "at least one file"},
		{[]string{"compare"}, "one or two files"},
		{[]string{"trend"}, "one file"},
		{[]string{"fio"}, "takes one job file"},
		{[]string{"fio", "j", "--rounds", "0"}, "--rounds 0"},
		{[]string{"fio", "j", "--ioengine", "mmap"}, "mmap"},
		{[]string{"fio", "j", "--output-format", "xml"}, "xml"},
		{[]string{"fio", "j", "--fio-output", "x"}, "needs --vs-fio"},
	} {
		var stdout, stderr bytes.Buffer
		require.Equal(t, 2, run(t.Context(), c.args, &stdout, &stderr), "%q", c.args)
		require.Contains(t, stderr.String(), c.want)
		require.Empty(t, stdout.String())
	}
}

// Help is an answer, not an error.
func TestRun_Help(t *testing.T) {
	var stdout, stderr bytes.Buffer
	require.Zero(t, run(t.Context(), []string{"quick", "--help"}, &stdout, &stderr))
	require.Contains(t, stdout.String(), "--smoke")
	require.Contains(t, stdout.String(), "engine,socket,cold,cache,durable,flush")
}

// On a machine without any peer the tool must still measure what it can, say of
// every other row why it is empty, and leave nothing behind.
func TestQuick_WithoutPeers(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	tiny := scale{
		rounds: 2, round: 10 * time.Millisecond,
		memoryKeys: 20_000, memoryBudget: 32 << 20,
		socketKeys: 1000, socketBudget: 32 << 20, benchmarkOps: 1000,
		coldBudget: 32 << 20, coldData: 48 << 20,
		flushBudget: 32 << 20, flushData: 8 << 20,
	}
	old := smokeScale
	smokeScale = tiny
	t.Cleanup(func() { smokeScale = old })
	dir := t.TempDir()
	file := filepath.Join(t.TempDir(), "out.json")

	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"quick", "--smoke", "--dir", dir, "--json", file}, &stdout, &stderr)
	require.Zero(t, code, "%s", stderr.String())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
	require.Contains(t, stdout.String(), "get, 2 threads, batch of 32")
	require.Contains(t, stdout.String(), "not measured: redis-server is not installed")

	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var report measure.Report
	require.NoError(t, json.Unmarshal(text, &report))
	measured := 0
	for _, r := range report.Rows {
		require.NotEmpty(t, r.Setting, r.Name)
		require.NotEmpty(t, r.Commit, r.Name)
		require.Empty(t, r.Failed, r.Name)
		if r.Missing != "" {
			require.Empty(t, r.Rates, r.Name)
			continue
		}
		measured++
		if r.Unit == "B" {
			require.Len(t, r.Rates, 1, "%s: it is one figure", r.Name)
		} else {
			require.Len(t, r.Rates, 2, r.Name)
		}
		require.Positive(t, r.Rate.Min, r.Name)
		if r.Hit != nil {
			require.EqualValues(t, 1, *r.Hit, "%s: all keys were loaded", r.Name)
		}
	}
	// Ten rows of the engine, the cold ones with pread/pwrite, and the flush.
	require.GreaterOrEqual(t, measured, 13)
}

// A job file must run from the command line, and a wrong one say where it is
// wrong; nothing may be left behind.
func TestFio(t *testing.T) {
	dir, job := t.TempDir(), filepath.Join(t.TempDir(), "job.fio")
	require.NoError(t, os.WriteFile(job, []byte("[a]\nsize=1m\nrw=randread\n[b]\nstonewall\nsize=256k\nrw=write\n"), 0o644))
	var stdout, stderr bytes.Buffer
	require.Zero(t, run(t.Context(), []string{"fio", job, "--dir", dir}, &stdout, &stderr), stderr.String())
	require.Regexp(t, `a +0 +read +\d+ `, stdout.String())
	stdout.Reset()
	require.Zero(t, run(t.Context(), []string{"fio", job, "--dir", dir, "--ioengine", "rskv-engine", "--output-format", "json"}, &stdout, &stderr), stderr.String())
	o, err := fio.ReadJSON(stdout.Bytes())
	require.NoError(t, err)
	require.EqualValues(t, 256, o.Jobs[0].Read.IOs)
	require.EqualValues(t, 64, o.Jobs[1].Write.IOs)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)

	require.NoError(t, os.WriteFile(job, []byte("[a]\nsize=1m\nzonesize=3\n"), 0o644))
	require.Equal(t, 1, run(t.Context(), []string{"fio", job, "--dir", dir}, &stdout, &stderr))
	require.Contains(t, stderr.String(), job+`:3: unknown option "zonesize"`)

	require.NoError(t, os.WriteFile(job, []byte("[a]\nsize=64k\n"), 0o644))
	if _, err := exec.LookPath("fio"); err == nil {
		t.Chdir(filepath.Dir(dir)) // fio runs elsewhere than where the directory is named
		stdout.Reset()
		require.Zero(t, run(t.Context(), []string{"fio", "--vs-fio", job, "--rounds", "1", "--dir", filepath.Base(dir)}, &stdout, &stderr), stderr.String())
		require.Contains(t, stdout.String(), "IOPS")
	}
	t.Setenv("PATH", t.TempDir())
	require.Equal(t, 1, run(t.Context(), []string{"--vs-fio", job}, &stdout, &stderr))
	require.Contains(t, stderr.String(), "fio is not installed")
}

// Each workload must run from the command line and say what it hit.
func TestYCSB(t *testing.T) {
	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	args := []string{"ycsb", "--on", "engine", "--rounds", "2", "--time", "20ms", "--memory", "32", "--dir", dir, "--json", "-",
		"-p", "recordcount=2000", "-p", "fieldlength=10"}
	require.Zero(t, run(t.Context(), args, &stdout, &stderr), stderr.String())
	var r measure.Report
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &r))
	require.Len(t, r.Rows, 6)
	for _, row := range r.Rows {
		require.Len(t, row.Rates, 2, row.Group)
		require.EqualValues(t, 1, *row.Hit, row.Group)
		require.Positive(t, *row.P99, row.Group)
		require.NotEmpty(t, row.Curve, row.Group)
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// Every group must fill its rows, hit what was loaded, and read the disk as often
// as it says: a "cold" row that memory answers measures nothing.
func TestRunGroups(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // no daemon
	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	args := []string{"run", "all", "--smoke", "--rounds", "1", "--time", "5ms", "--dir", dir, "--json", "-"}
	require.Zero(t, run(t.Context(), args, &stdout, &stderr), stderr.String())
	var r measure.Report
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &r))
	efficient, missing, starved := 0, 0, false
	for _, row := range r.Rows {
		if row.Missing != "" {
			require.Regexp(t, "rskvd|fio", row.Missing, "there is no daemon, and no fio")
			missing++
			continue
		}
		require.Len(t, row.Rates, 1, "%s %s %s", row.Group, row.Name, row.Missing+row.Failed)
		if row.Hit != nil {
			require.EqualValues(t, 1, *row.Hit, row.Name)
		}
		if row.Group == "read by share of hot keys" {
			// Until the store has learned the size of its records, some take two reads,
			// and of a mixture a busy machine does only a few in the time.
			allowed := 25.0
			if *row.X > 0 && *row.X < 100 {
				allowed = 50
			}
			if row.Rate.Median > 0 { // else the machine was too busy for a single one
				require.NotNil(t, row.Cold, "%s: %v", row.Name, row.Notes)
				require.InDelta(t, 100-*row.X, *row.Cold*100, allowed, row.Name)
			}
		}
		if row.Efficiency != nil {
			efficient++
		}
		starved = starved || row.Rate.Median == 0
	}
	require.Len(t, r.Rows, 10+10+10+10+21+16+10+(6+2)+(2+3+1+4)+2+34+23+4+(4+8)+7+3+4+2)
	require.Equal(t, 4+3+3+1+2, missing, "of metrics, latency over the socket, an idle daemon, fio, and passes of a daemon")
	if !starved { // else the machine was too busy for a single operation somewhere
		require.Equal(t, 21+16, efficient)
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// From a measurement to the page, the trend and the verdict: what one command
// writes the next must read.
func TestReportCompareTrend(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	ok := func(args ...string) string {
		t.Helper()
		var stdout, stderr bytes.Buffer
		require.Zero(t, run(t.Context(), args, &stdout, &stderr), "%q: %s", args, stderr.String())
		return stdout.String()
	}
	ok("ycsb", "C", "--on", "engine", "--rounds", "5", "--time", "5ms", "--memory", "32", "--dir", dir, "-p", "recordcount=1000", "-p", "fieldlength=10", "--json", file("a.json"))
	require.NoError(t, os.WriteFile(file("job"), []byte("[a]\nsize=64k\nrw=randread\nioengine=rskv-engine\n"), 0o644))
	ok("fio", file("job"), "--dir", dir, "--output-format", "json", "--output", file("f.json"))

	var r measure.Report
	b, err := os.ReadFile(file("a.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &r))
	r.Commit = "0123456789abcdef"    // a test's program does not know its commit
	for i := range r.Rows[0].Rates { // nor can a busy machine promise a rate in 5 ms
		r.Rows[0].Rates[i] = 1e6 + float64(i)
	}
	require.NoError(t, writeFile(file("a.json"), r.WriteJSON))
	ok("trend", file("a.json"), "--claim", "it runs", "--trend", file("t"))
	require.Contains(t, ok("compare", file("a.json"), "--trend", file("t")), "~ (p=1.000 n=5+5)")

	for i := range r.Rows[0].Rates {
		r.Rows[0].Rates[i] /= 1000
	}
	require.NoError(t, writeFile(file("slow.json"), r.WriteJSON))
	require.Contains(t, ok("compare", file("a.json"), file("slow.json")), "-99.90% (p=0.008")
	var stdout, stderr bytes.Buffer
	require.Equal(t, 1, run(t.Context(), []string{"compare", file("a.json"), file("slow.json"), "--max-loss", "10"}, &stdout, &stderr))
	require.Contains(t, stdout.String(), "LOSS")
	require.Equal(t, 1, run(t.Context(), []string{"compare", file("a.json"), file("f.json")}, &stdout, &stderr))
	require.Contains(t, stderr.String(), "share no row")

	page := ok("report", file("a.json"), file("f.json"), "--trend", file("t"), "-o", "-")
	for _, want := range []string{"YCSB C", "it runs", "a, read", "<svg"} {
		require.Contains(t, page, want)
	}
}
