package kv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/engine"
)

// A store that answers another key, or counts nothing, would be measured all the
// same: every kind must store, find, miss and say what it used.
func TestStores(t *testing.T) {
	e, err := OpenEngine(engine.Options{Dir: t.TempDir(), Memory: 32 << 20, CommitInterval: time.Second})
	require.NoError(t, err)
	stores := map[string]Store{"engine": e}
	if !testing.Short() {
		program := filepath.Join(t.TempDir(), "rskvd")
		out, err := exec.Command("go", "build", "-o", program, "rskv/daemon/rskvd").CombinedOutput()
		require.NoError(t, err, "%s", out)
		for name, shared := range map[string]bool{"socket": false, "socket, shared": true} {
			s, err := OpenSocket(t.Context(), SocketOptions{RSKVD: program, Dir: t.TempDir(), Memory: 32 << 20, Shared: shared, Sync: shared})
			require.NoError(t, err)
			stores[name] = s
		}
	}
	for name, s := range stores {
		t.Run(name, func(t *testing.T) { checkStore(t, s) })
	}
}

func checkStore(t *testing.T, s Store) {
	const n = 300
	w, err := s.Worker()
	require.NoError(t, err)
	var keys, values [][]byte
	for i := range n {
		keys, values = append(keys, fmt.Appendf(nil, "key %d", i)), append(values, fmt.Appendf(nil, "value %d", i))
	}
	b := w.(Batcher)
	require.NoError(t, b.PutAll(keys[1:], values[1:]))
	require.NoError(t, w.Put(keys[0], values[0]))
	v, found, err := w.Get(nil, keys[7])
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, "value 7", string(v))
	_, found, err = w.Get(nil, []byte("none"))
	require.NoError(t, err)
	require.False(t, found)
	got := make([]string, n+1)
	require.NoError(t, b.GetAll(append(keys, []byte("none")), func(i int, v []byte, found bool) {
		require.Equal(t, i < n, found)
		got[i] = string(v)
	}))
	for i := range n {
		require.Equal(t, string(values[i]), got[i])
	}
	require.NoError(t, w.Close())
	u := s.Usage()
	require.GreaterOrEqual(t, u.Reads, uint64(n))
	require.EqualValues(t, 32<<20, u.Memory)
	require.NoError(t, s.Close())
}

// What is on disk is what the blocks take, not what a sparse file claims.
func TestDiskUsage(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "sub", "a"), make([]byte, 10_000), 0o644))
	f, err := os.Create(filepath.Join(dir, "sparse"))
	require.NoError(t, err)
	require.NoError(t, f.Truncate(1<<30))
	require.NoError(t, f.Sync())
	require.NoError(t, f.Close())
	used := DiskUsage(dir)
	require.GreaterOrEqual(t, used, int64(8192))
	require.Less(t, used, int64(1<<20))
	require.Zero(t, DiskUsage(filepath.Join(dir, "none")))
}
