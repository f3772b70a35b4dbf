package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A row of latencies beside something that did not happen is a row beside nothing.
func TestRunLatency(t *testing.T) {
	rows := smokeGroup(t, "latency", "--rskvd", buildRSKVD(t), "--time", "60ms")
	require.Len(t, rows, 7+3)
	for name, row := range rows {
		require.NotNil(t, row.P999, name)
		require.NotNil(t, row.Control, name)
		require.NotNil(t, row.Hit, "%s: %v %s %v", name, row.Rates, row.Missing, row.Notes)
		require.EqualValues(t, 1, *row.Hit, name)
		require.NotEmpty(t, row.Commit, name)
	}
	// These two go on until one has come to its end, however slow the machine is.
	for name, not := range map[string]string{
		"one checkpoint after the other":         " 0 checkpoints",
		"one pass of compaction after the other": " 0 passes",
	} {
		notes := strings.Join(rows["get and put beside "+name].Notes, "\n")
		require.Contains(t, notes, "meanwhile", name)
		require.NotContains(t, notes, not, name)
	}
}

// A daemon that is asked for something is not an idle one, and no figure is not a good one.
func TestRunOverhead(t *testing.T) {
	rows := smokeGroup(t, "overhead", "--rskvd", buildRSKVD(t))
	require.Len(t, rows, 4)
}

// buildRSKVD builds the daemon for a test.
func buildRSKVD(t *testing.T) string {
	program := filepath.Join(t.TempDir(), "rskvd")
	out, err := exec.Command("go", "build", "-o", program, "../../daemon/rskvd").CombinedOutput()
	require.NoError(t, err, string(out))
	return program
}

// A walk that leaves keys out is a fast one.
func TestRunScan(t *testing.T) {
	rows := smokeGroup(t, "scan", "--rskvd", buildRSKVD(t))
	require.Len(t, rows, 3+3+2+2)
	for name, row := range rows {
		if row.Missing != "" {
			require.Contains(t, row.Missing, "fio", name)
			continue
		}
		require.Empty(t, row.Failed, name)
		require.Positive(t, row.Rate.Median, name)
	}
}
