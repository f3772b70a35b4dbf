package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/bench/internal/measure"
)

// smokeGroup runs one group small, and returns its rows by name.
func smokeGroup(t *testing.T, group string, more ...string) map[string]*measure.Row {
	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	args := []string{"run", group, "--smoke", "--rounds", "1", "--time", "10ms", "--keys", "10000", "--dir", dir, "--json", "-"}
	args = append(args, more...)
	require.Zero(t, run(t.Context(), args, &stdout, &stderr), stderr.String())
	var r measure.Report
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &r))
	rows := map[string]*measure.Row{}
	for _, row := range r.Rows {
		require.Len(t, row.Rates, 1, "%s: %s", row.Name, row.Missing+row.Failed)
		if !strings.HasPrefix(row.Name, "idle daemon") {
			require.Positive(t, row.Rate.Median, row.Name)
		}
		require.NotEmpty(t, row.Setting, row.Name)
		rows[row.Name] = row
	}
	require.Len(t, rows, len(r.Rows), "names are different")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
	return rows
}

// A row that did not checkpoint, hold, recover or read what it says is a figure of
// something else.
func TestRunDurability(t *testing.T) {
	rows := smokeGroup(t, "durability")
	require.Len(t, rows, 3+5+2+3+10)
	for _, name := range []string{"50 % reads, a checkpoint", "50 % reads, a snapshot checkpoint"} {
		with := rows[name]
		require.NotNil(t, with.Ratio)
		require.EqualValues(t, 1, *with.Hit)
		require.Contains(t, strings.Join(with.Notes, "\n"), "a checkpoint of")
	}
	hold := func(name string) float64 { return rows["write hold, "+name].Rate.Median }
	require.LessOrEqual(t, hold("p50"), hold("p99.99"))
	require.LessOrEqual(t, hold("p99.99"), hold("longest"))
	require.NotNil(t, rows["50 % reads, live records kept in memory"].Ratio)
	require.Contains(t, strings.Join(rows["open, snapshot loaded"].Notes, "\n"), "new memory came from the system at")
	cold := rows["got, cold, records of 1024 B"]
	require.EqualValues(t, 1, *cold.Hit)
	require.Greater(t, *cold.Cold, 0.9)
	for _, size := range []string{"32", "96", "1024"} {
		require.Contains(t, strings.Join(rows["read and verified, records of "+size+" B"].Notes, "\n"), "the hash alone is")
	}
}

// A row of compaction without a pass, or of growth without growth, measures nothing.
func TestRunSpace(t *testing.T) {
	rows := smokeGroup(t, "space", "--rskvd", buildRSKVD(t))
	require.Len(t, rows, 4+2)
	require.NotNil(t, rows["put over the socket, passes run"].Ratio)
	require.NotNil(t, rows["put, passes run"].Ratio)
	require.GreaterOrEqual(t, rows["write amplification"].Rate.Median, 1.0)
	rows = smokeGroup(t, "growth")
	require.Len(t, rows, 8)
	growing := rows["put, made for 156"]
	require.NotNil(t, growing.Ratio)
	require.Regexp(t, "doubled [1-9]", strings.Join(growing.Notes, "\n"))
	require.Contains(t, strings.Join(growing.Notes, "\n"), "took more than 1 ms")
	memory := rows["put, made for 156: memory a key"].Rate.Median
	require.Greater(t, memory, 32.0, "a record alone")
	require.Less(t, memory, 200.0)
}

// TestSoak: a soak that leaves a budget, or finds a wrong value, and says nothing; or one
// without its plots.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("160 MiB of data, and 9 s over it, twice")
	}
	plots := t.TempDir()
	args := []string{"soak", "--time", "9s", "--memory", "32", "--segment", "2", "--dir", t.TempDir(), "--plots", plots}
	var stdout, stderr bytes.Buffer
	require.Zero(t, run(t.Context(), args, &stdout, &stderr), stderr.String())
	require.Contains(t, stdout.String(), "every key is right")
	require.Regexp(t, `it stands for [0-9.]+ days .* users wrote [0-9.]+ times`, stdout.String())
	for _, name := range []string{"disk", "memory", "live", "throughput"} {
		svg, err := os.ReadFile(filepath.Join(plots, "soak-"+name+".svg"))
		require.NoError(t, err)
		require.Contains(t, string(svg), "<svg")
	}
	stderr.Reset()
	require.NotZero(t, run(t.Context(), append(args, "--least", "1000"), &stdout, &stderr), "a rate is never a thousand times what it was")
	require.Contains(t, stderr.String(), "outside what was promised")
}
