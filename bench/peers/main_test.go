package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/bench/internal/measure"
)

// A peer that misses what was loaded, or answers wrong, would be fast: every row
// that ran must have hit all keys.
func TestRun(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "out.json")
	var stdout, stderr bytes.Buffer
	err := run(t.Context(), []string{"--rounds", "1", "--time", "20ms", "--keys", "2000", "--dir", dir, "--json", file}, &stdout, &stderr)
	require.NoError(t, err, stderr.String())
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	var r measure.Report
	require.NoError(t, json.Unmarshal(b, &r))
	stores := map[string]int{}
	for _, row := range r.Rows {
		if row.Missing != "" {
			t.Logf("%s: %s", row.Name, row.Missing)
			continue
		}
		require.Len(t, row.Rates, 1, row.Name)
		stores[row.Line]++
		if row.Hit != nil {
			require.EqualValues(t, 1, *row.Hit, row.Name)
		}
		if row.Line == "rskv" {
			require.NotEmpty(t, row.Peers, row.Name)
		}
	}
	for _, name := range []string{"rskv", "xsync", "sharded map", "pebble", "badger", "bbolt"} {
		require.NotZero(t, stores[name], name)
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// A misspelt group must not run all of them.
func TestRun_WrongArguments(t *testing.T) {
	for _, args := range [][]string{{"--only", "moon"}, {"memory"}, {"--rounds", "0"}, {"--keys", "5"}, {"--fast"}} {
		require.Error(t, run(t.Context(), args, &bytes.Buffer{}, &bytes.Buffer{}), "%q", args)
	}
}
