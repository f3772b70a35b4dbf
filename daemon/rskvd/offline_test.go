package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine"
	"rskv/ioring"
)

// storeIn makes a store with a hundred keys, and a backup of it.
func storeIn(t *testing.T, dir string) (backup string) {
	t.Helper()
	s, err := engine.Open(engine.Options{Dir: dir, Memory: engine.MemoryMin, IO: ioring.PReadWrite})
	require.NoError(t, err)
	n := s.NewSession()
	for i := range 100 {
		require.NoError(t, n.Put(fmt.Appendf(nil, "key-%d", i), bytes.Repeat([]byte{byte(i)}, 1000)))
	}
	n.Close()
	var b bytes.Buffer
	_, err = s.Backup(context.Background(), &b, nil)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	backup = filepath.Join(t.TempDir(), "backup")
	require.NoError(t, os.WriteFile(backup, b.Bytes(), 0o600))
	return backup
}

// damageIn changes a byte of a file.
func damageIn(t *testing.T, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	b[at] ^= 4
	require.NoError(t, os.WriteFile(path, b, 0o600))
}

// segment0 is the first log file of a store.
func segment0(t *testing.T, dir string) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "seg*-0000000000000000"))
	require.NoError(t, err)
	require.Len(t, list, 1)
	return list[0]
}

// TestOffline: a script that goes by the exit code takes a damaged store for a
// whole one, or the other way round; or nobody is told what is lost.
func TestOffline(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	backup := storeIn(t, dir)
	out, errs, code := output(t, "verify", dir)
	require.Zero(t, code, errs)
	require.Contains(t, out, "100 keys")
	require.Contains(t, out, "no damage")

	damageIn(t, segment0(t, dir), 50_000)
	out, errs, code = output(t, "verify", dir)
	require.Equal(t, 1, code, errs)
	require.Contains(t, out, filepath.Base(segment0(t, dir)))
	require.Contains(t, out, "1 stretches of damage")
	require.Empty(t, errs)

	out, _, code = output(t, "verify", "--json", dir)
	require.Equal(t, 1, code)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Len(t, lines, 2)
	var damage struct {
		Damage      string
		From, Until int64
	}
	require.NoError(t, json.Unmarshal([]byte(lines[0]), &damage))
	require.LessOrEqual(t, damage.From, int64(50_000))
	require.Greater(t, damage.Until, int64(50_000))
	var result map[string]any
	require.NoError(t, json.Unmarshal([]byte(lines[1]), &result))
	require.EqualValues(t, 1, result["damages"])

	fresh := filepath.Join(t.TempDir(), "fresh")
	out, errs, code = output(t, "salvage", "--memory", "32MiB", dir, fresh)
	require.Equal(t, 1, code, errs)
	require.Contains(t, out, "99 keys")
	out, errs, code = output(t, "verify", fresh)
	require.Zero(t, code, out+errs)
	_, errs, code = output(t, "salvage", "--memory", "32MiB", dir, fresh)
	require.Equal(t, 2, code)
	require.Contains(t, errs, "not empty")

	restored := filepath.Join(t.TempDir(), "restored")
	out, errs, code = output(t, "restore", backup, restored)
	require.Zero(t, code, errs)
	require.Contains(t, out, "100 keys")
	_, errs, code = output(t, "verify", restored)
	require.Zero(t, code, errs)
	_, errs, code = output(t, "restore", backup, restored)
	require.Equal(t, 2, code)
	require.Contains(t, errs, restored)
	_, _, code = output(t, "restore", "--check", backup)
	require.Zero(t, code)

	damageIn(t, backup, 60_000)
	for _, args := range [][]string{{"restore", "--check", backup}, {"restore", backup, filepath.Join(t.TempDir(), "other")}} {
		_, errs, code = output(t, args...)
		require.Equal(t, 1, code)
		require.Contains(t, errs, "backup is damaged")
	}
	for _, args := range [][]string{{"verify"}, {"verify", filepath.Join(dir, "missing")}, {"verify", t.TempDir()}, {"restore", backup}} {
		_, errs, code = output(t, args...)
		require.Equal(t, 2, code, args)
		require.NotEmpty(t, errs, args)
	}
	_, errs, _ = output(t, "verify")
	require.Equal(t, "rskvd: verify takes DIR, 0 given\n", errs)
	_, errs, _ = output(t, "restore", "--check")
	require.Equal(t, "rskvd: restore --check takes FILE, 0 given\n", errs)
}

// TestOffline_Stdin: a backup that comes through a pipe is not taken.
func TestOffline_Stdin(t *testing.T) {
	t.Parallel()
	backup := storeIn(t, filepath.Join(t.TempDir(), "data"))
	in, err := os.Open(backup)
	require.NoError(t, err)
	defer in.Close()
	restored := filepath.Join(t.TempDir(), "restored")
	cmd := program(t, "restore", "-", restored)
	cmd.Stdin = in
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	_, errs, code := output(t, "verify", restored)
	require.Zero(t, code, errs)
}

// TestOffline_Served: the files of a store are read while a daemon writes them.
func TestOffline_Served(t *testing.T) {
	dir := place(t)
	serving(t, dir)
	_, errs, code := output(t, "verify", filepath.Join(dir, "data"))
	require.Equal(t, 2, code)
	require.Contains(t, errs, "in use")
}
