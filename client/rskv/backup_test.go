package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/client"
	"rskv/ipc"
)

// A file of the name of a backup must be a whole one: a part of one, or one over
// another, would be found out on the day it is needed.
func TestBackup_File(t *testing.T) {
	f := newFake(t)
	stream := []byte(noise(7, 12_345))
	f.backs(stream)
	dir := t.TempDir()
	file := filepath.Join(dir, "store.bak")
	sum := sha256.Sum256(stream[:len(stream)-ipc.BackupTail])

	r := rskv(t, f.socket, "", "backup", file)
	require.Equal(t, result{0, "version 42 of 2026-01-01T00:00:00Z, 1,234 keys; 12,345 bytes, sha256 " + hex.EncodeToString(sum[:]) + "\n", ""}, r)
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, stream, got)

	r = rskv(t, f.socket, "", "backup", file)
	require.Equal(t, result{exitError, "", "rskv: " + file + " exists and is not overwritten\n"}, r)
	require.Equal(t, result{0, string(stream), ""}, rskv(t, f.socket, "", "backup", "-"))
	require.Contains(t, rskv(t, f.socket, "", "backup", "--json", file+"2").stdout, `"version":42,"time":"2026-01-01T00:00:00Z","keys":1234,"bytes":12345,"sha256":"`+hex.EncodeToString(sum[:])+`"}`)

	f.mu.Lock()
	f.stream[5000] ^= 1
	f.mu.Unlock()
	r = rskv(t, f.socket, "", "backup", file+"3")
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.stderr, "rskv: backup: backup is damaged")
	f.lies(func(*ipc.Call) *ipc.Error { return &ipc.Error{Code: ipc.CodeForbidden, Message: "not you"} })
	require.Equal(t, "rskv: backup: Forbidden: not you\n", rskv(t, f.socket, "", "backup", file+"3").stderr)
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	hidden, err := filepath.Glob(filepath.Join(dir, ".*"))
	require.NoError(t, err)
	require.Len(t, append(names, hidden...), 2, "%v %v", names, hidden)
}

// What was durable before a backup began must be in what is restored from it,
// and what is in it must be what the store held at one moment, although clients
// were writing.
func TestRskvd_BackupRestore(t *testing.T) {
	program, work := buildDaemon(t), t.TempDir()
	socket := filepath.Join(work, "s")
	d := startDaemon(t, program, filepath.Join(work, "data"), socket)
	src := filepath.Join(work, "src")
	require.NoError(t, os.Mkdir(src, 0o755))
	randomTree(t, src)
	require.Equal(t, 0, rskv(t, socket, "", "import", "--sync", src).code)

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	synced := make(chan struct{})
	go func() { ended <- writeInOrder(ctx, socket, synced) }()
	<-synced
	file := filepath.Join(work, "bak")
	r := rskv(t, socket, "", "backup", file)
	require.Equal(t, 0, r.code, r.stderr)
	cancel()
	require.NoError(t, <-ended)
	d.stop(t)

	restored := filepath.Join(work, "restored")
	out, err := exec.Command(program, "restore", "--check", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.Command(program, "restore", file, restored).CombinedOutput()
	require.NoError(t, err, "%s", out)
	digest := r.stdout[strings.LastIndex(r.stdout, " ")+1:]
	require.True(t, strings.HasSuffix(string(out), digest), "%s%s", out, r.stdout)

	d = startDaemon(t, program, restored, socket)
	require.Equal(t, 0, rskv(t, socket, "", "verify", src).code)
	first, second := number(t, socket, "first"), number(t, socket, "second")
	require.GreaterOrEqual(t, second, 1000)
	require.True(t, first == second || first == second+1, "first %d, second %d", first, second)
	d.stop(t)
}

// writeInOrder counts in two keys, one after the other, until ctx ends. It
// closes synced when 1,000 are durable.
func writeInOrder(ctx context.Context, socket string, synced chan struct{}) error {
	c, err := client.Dial(ctx, socket)
	if err != nil {
		return err
	}
	defer c.Close()
	for n := 1; ctx.Err() == nil; n++ {
		for _, key := range []string{"first", "second"} {
			if _, err := c.Put(context.Background(), []byte(key), strconv.AppendInt(nil, int64(n), 10)); err != nil {
				return fmt.Errorf("put %d: %w", n, err)
			}
		}
		if n == 1000 {
			if _, err := c.Sync(context.Background()); err != nil {
				return err
			}
			close(synced)
		}
	}
	return nil
}

func number(t *testing.T, socket, key string) int {
	r := rskv(t, socket, "", "get", key)
	n, err := strconv.Atoi(r.stdout)
	require.NoError(t, err, "%s: %+v", key, r)
	return n
}
