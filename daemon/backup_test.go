package daemon

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rskv/engine"
	"rskv/ioring"
	"rskv/ioring/iotest"
	"rskv/ipc"
)

// openBackup opens a backup and returns its length and the length of a piece.
func (w *wire) openBackup() (total, piece int64) {
	w.t.Helper()
	a := w.ask("backup", "open")
	require.Empty(w.t, a.code, a.reason)
	m := a.result.(map[string]any)
	return m["bytes"].(int64), m["piece"].(int64)
}

// readBackup reads a whole backup, one piece at a time.
func (w *wire) readBackup() []byte {
	w.t.Helper()
	total, piece := w.openBackup()
	var all []byte
	for int64(len(all)) < total {
		a := w.ask("backup", "read", len(all))
		require.Empty(w.t, a.code, a.reason)
		b := a.result.([]byte)
		require.Len(w.t, b, int(min(piece, total-int64(len(all)))))
		all = append(all, b...)
	}
	w.want([]byte{}, "backup", "read", total)
	w.want([]byte{}, "backup", "read", total)
	m := w.ask("backup", "close").result.(map[string]any)
	sum := sha256.Sum256(all[:len(all)-ipc.BackupTail])
	require.Equal(w.t, sum[:], m["sha256"])
	require.Equal(w.t, total, m["bytes"])
	return all
}

// backups is how many the daemon says are open.
func (w *wire) backups() int64 {
	return w.ask("stats").result.(map[string]any)["daemon_backups"].(int64)
}

// TestBackup_UnderLoad: a backup of a daemon that is being written to which
// lacks something that was durable before, or holds a later write without an
// earlier one.
func TestBackup_UnderLoad(t *testing.T) {
	d := start(t, func(c *Config) { c.CommitInterval = 5 * time.Millisecond })
	w := d.dial()
	blob := bytes.Repeat([]byte("b"), 4<<10)
	for i := range 500 {
		w.want(true, "put", fmt.Appendf(nil, "blob%d", i), blob)
	}
	// Each writer writes the same number to one key after the other.
	const writers = 3
	stop := make(chan struct{})
	var durable [writers]uint64 // synced before the backup
	var wg, ready sync.WaitGroup
	ready.Add(writers)
	for n := range writers {
		w := d.dial()
		wg.Go(func() {
			once := sync.OnceFunc(ready.Done)
			for i := uint64(1); ; i++ {
				number := binary.BigEndian.AppendUint64(nil, i)
				var burst []byte
				for _, key := range []string{"a", "b", "c"} {
					burst = append(burst, request(1, "put", fmt.Appendf(nil, "%d%s", n, key), number)...)
				}
				w.send(burst)
				for range 3 {
					w.must()
				}
				select {
				case <-stop:
					return
				default:
				}
				if i == 100 {
					w.want(opt{"durable": int64(0)}, "sync")
					durable[n] = i
					once()
				}
			}
		})
	}
	ready.Wait()
	all := w.readBackup()
	close(stop)
	wg.Wait()
	require.Zero(t, w.backups())

	dir := filepath.Join(t.TempDir(), "restored")
	_, err := engine.Restore(bytes.NewReader(all), engine.Options{Dir: dir})
	require.NoError(t, err)
	s, err := engine.Open(engine.Options{Dir: dir, Memory: engine.MemoryMin, SegmentSize: d.cfg.SegmentSize})
	require.NoError(t, err)
	defer s.Close()
	session := s.NewSession()
	defer session.Close()
	number := func(n int, key string) uint64 {
		v, err := session.Get(fmt.Appendf(nil, "%d%s", n, key), nil)
		require.NoError(t, err)
		return binary.BigEndian.Uint64(v)
	}
	for n := range writers {
		a, b, c := number(n, "a"), number(n, "b"), number(n, "c")
		require.GreaterOrEqual(t, c, durable[n])
		require.True(t, a >= b && b >= c && a <= c+1, "writer %d: %d %d %d", n, a, b, c)
	}
	for i := range 500 {
		v, err := session.Get(fmt.Appendf(nil, "blob%d", i), nil)
		require.NoError(t, err)
		require.Equal(t, blob, v)
	}
}

// TestBackup_Ahead: pieces asked for ahead that come twice, in disorder, or all
// into memory at once.
func TestBackup_Ahead(t *testing.T) {
	d := start(t, func(c *Config) { c.Limits.Queued = 1 << 20 })
	w := d.dial()
	for i := range 8 {
		w.want(true, "put", fmt.Appendf(nil, "%d", i), bytes.Repeat([]byte{byte(i)}, 1<<20))
	}
	total, piece := w.openBackup()
	var burst []byte
	parts := map[uint32]int64{}
	id := uint32(1000)
	for at := int64(0); at < total; at += piece {
		id++
		parts[id] = at
		burst = append(burst, request(id, "backup", "read", at)...)
	}
	w.send(append(burst, request(9, "backup", "close")...))
	all := make([]byte, total)
	for range len(parts) + 1 { // answers come in any order
		a := w.must()
		require.Empty(t, a.code, a.reason)
		if a.id == 9 {
			require.Equal(t, total, a.result.(map[string]any)["bytes"])
			continue
		}
		at, ok := parts[a.id]
		require.True(t, ok, "answer %d", a.id)
		delete(parts, a.id)
		copy(all[at:], a.result.([]byte))
	}
	require.Empty(t, parts)
	_, err := engine.VerifyBackup(bytes.NewReader(all))
	require.NoError(t, err)
	_, err = engine.VerifyBackup(bytes.NewReader(all[:total-1]))
	require.ErrorIs(t, err, engine.ErrBackup)
}

// TestBackup_Order: a read out of order that is answered, or that leaves others
// waiting for ever.
func TestBackup_Order(t *testing.T) {
	d := start(t, nil)
	w := d.dial()
	w.refuse(ipc.CodeBadRequest, "backup", "read", 0)
	w.refuse(ipc.CodeBadRequest, "backup", "close")
	w.send(append(request(1, "backup", "open"), request(2, "backup", "read", 0)...))
	for range 2 {
		if a := w.must(); a.id == 2 {
			require.Equal(t, string(ipc.CodeBadRequest), a.code, "read before the answer to open")
		} else {
			require.Empty(t, a.code, a.reason)
		}
	}
	w.refuse(ipc.CodeBadRequest, "backup", "open")
	w.refuse(ipc.CodeBadRequest, "backup", "read", 1)
	require.NotEmpty(t, w.ask("backup", "read", 0).result)
	w.refuse(ipc.CodeBadRequest, "backup", "read", 0)
	w.want(int64(1), "add", []byte("others go on"), 1)
	w.ask("backup", "close")
	w.readBackup()
}

// TestBackup_GivenUp: a backup whose client has gone, stopped to read, or closed
// it, which the store goes on to keep.
func TestBackup_GivenUp(t *testing.T) {
	d := start(t, func(c *Config) { c.BackupTimeout = 50 * time.Millisecond })
	w := d.dial()
	for i := range 6 {
		w.want(true, "put", fmt.Appendf(nil, "%d", i), make([]byte, 1<<20))
	}
	none := func() {
		t.Helper()
		require.Eventually(t, func() bool { return w.backups() == 0 }, patience, time.Millisecond)
	}
	idle := d.dial()
	idle.openBackup()
	none()
	a := idle.ask("backup", "read", 0)
	require.Equal(t, string(ipc.CodeBadRequest), a.code)
	require.Contains(t, a.reason, "backup_timeout")

	require.Empty(t, w.ask("config", opt{"set": opt{"backup_timeout": "0s"}}).code)
	gone := d.dial()
	gone.openBackup()
	require.Equal(t, int64(1), w.backups())
	gone.send(request(5, "backup", "read", 0))
	require.NoError(t, gone.conn.Close())
	none()

	closed := d.dial()
	closed.openBackup()
	require.NotEmpty(t, closed.ask("backup", "read", 0).result)
	closed.want(nil, "backup", "close")
	none()

	var many []*wire
	for range backupsMax {
		many = append(many, d.dial())
		many[len(many)-1].openBackup()
	}
	w.refuse(ipc.CodeBusy, "backup", "open")
	require.Equal(t, int64(backupsMax), w.backups())
	require.Nil(t, many[0].ask("backup", "close").result)
	require.Eventually(t, func() bool { return w.ask("backup", "open").code == "" }, patience, time.Millisecond)
	d.cancel() // a daemon that stops does not wait for backups: see running.stop
}

// TestBackup_DiskFails: a disk that cannot be read which leaves the client
// waiting, or with a backup that looks whole.
func TestBackup_DiskFails(t *testing.T) {
	cfg := testConfig(t)
	fault := iotest.NewFault(iotest.NewMem(iotest.MemOptions{SegmentSize: 16 << 20}), 1)
	d := startOn(t, cfg, fault)
	w := d.dial()
	for i := range 6 {
		w.want(true, "put", fmt.Appendf(nil, "%d", i), make([]byte, 1<<20))
	}
	undo := fault.Inject(iotest.Rule{Kind: ioring.Read, Err: unix.EIO})
	err := w.ask("backup", "open") // it may have read, and failed, already
	if m, ok := err.result.(map[string]any); ok {
		total, piece := m["bytes"].(int64), m["piece"].(int64)
		for at := int64(0); at < total && err.code == ""; at += piece {
			err = w.ask("backup", "read", at)
		}
		w.refuse(ipc.CodeBadRequest, "backup", "close")
	}
	require.Equal(t, string(ipc.CodeIO), err.code, err.reason)
	undo()
	_, verr := engine.VerifyBackup(bytes.NewReader(w.readBackup()))
	require.NoError(t, verr)
}
