package rskvtest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rskv/client"
	"rskv/client/rskvtest"
)

// A server that leaves a goroutine behind fails the tests of whoever looks for leaks.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The one line of the package's promise must give a store that is there, empty, and one's own.
func TestNew(t *testing.T) {
	c, other := rskvtest.New(t), rskvtest.New(t)
	ctx := t.Context()
	_, err := c.Put(ctx, []byte("k"), []byte("v"))
	require.NoError(t, err)
	v, err := c.Get(ctx, []byte("k"))
	require.NoError(t, err)
	require.Equal(t, "v", string(v))
	_, err = other.Get(ctx, []byte("k"))
	require.ErrorIs(t, err, client.ErrNotFound)
	large := make([]byte, 16<<20)
	_, err = c.Put(ctx, []byte("large"), large, client.Sync)
	require.NoError(t, err)
	v, err = c.Get(ctx, []byte("large"))
	require.NoError(t, err)
	require.Equal(t, large, v)
}

// A setting that is dropped silently makes a test test something else.
func TestSetting(t *testing.T) {
	c := rskvtest.NewServer(t, rskvtest.Setting("max_value", "1KiB")).Client(t)
	_, err := c.Put(t.Context(), []byte("k"), make([]byte, 1025))
	require.ErrorIs(t, err, client.ErrValueTooLarge)
	for _, bad := range []rskvtest.Option{rskvtest.Setting("dir", "/tmp/x"), rskvtest.Setting("no_such", "1"), rskvtest.Setting("max_value", "many")} {
		s, err := rskvtest.Start(bad)
		require.Error(t, err, "%v", bad)
		require.Nil(t, s)
	}
}

// A restart that loses an acknowledged write, or a disconnect that a session does not survive, would
// have users look for a bug of theirs.
func TestServer_Restart(t *testing.T) {
	s := rskvtest.NewServer(t)
	c := s.Client(t, client.WithSession(), client.WithRetryFor(5*time.Minute))
	for i := range 50 {
		n, err := c.Add(t.Context(), []byte("n"), 1)
		require.NoError(t, err)
		require.EqualValues(t, i+1, n)
		switch {
		case i%20 == 10:
			require.NoError(t, s.Restart())
		case i%5 == 0:
			s.Disconnect()
		}
	}
	v, err := s.Client(t).Add(t.Context(), []byte("n"), 0)
	require.NoError(t, err)
	require.EqualValues(t, 50, v)
	require.NoError(t, s.Close())
	require.Error(t, s.Restart(), "a closed server")
	require.NoFileExists(t, s.Socket())
}

// After a crash what was synced is there, and a write that was not may be gone: a Crash that never
// loses anything would teach users to do without Sync.
func TestServer_Crash(t *testing.T) {
	s := rskvtest.NewServer(t, rskvtest.Setting("commit_interval", "1h"))
	ctx := t.Context()
	lost := 0
	for i := range 10 {
		c := s.Client(t)
		_, err := c.Put(ctx, fmt.Append(nil, "synced", i), []byte("v"), client.Sync)
		require.NoError(t, err)
		_, err = c.Put(ctx, fmt.Append(nil, "not", i), []byte("v"))
		require.NoError(t, err)
		require.NoError(t, s.Crash())
		for j := range i + 1 {
			_, err = c.Get(ctx, fmt.Append(nil, "synced", j))
			require.NoError(t, err, "%d after crash %d", j, i)
		}
		if _, err = c.Get(ctx, fmt.Append(nil, "not", i)); err != nil {
			require.ErrorIs(t, err, client.ErrNotFound)
			lost++
		}
	}
	require.Positive(t, lost)
}

// With a session, crashes must not show: each write has its effect once.
func TestServer_CrashSession(t *testing.T) {
	s := rskvtest.NewServer(t)
	c := s.Client(t, client.WithSession(), client.WithRetryFor(5*time.Minute))
	done := make(chan error)
	const adds = 2000
	go func() {
		b := c.NewBatch()
		for range adds / 10 {
			for range 10 {
				b.Add([]byte("n"), 1)
			}
			err := b.Do(context.Background())
			for i := range b.Len() {
				err = errors.Join(err, b.Err(i))
			}
			if err != nil {
				done <- err
				return
			}
		}
		_, err := c.Sync(context.Background())
		done <- err
	}()
	for range 5 {
		time.Sleep(time.Millisecond)
		require.NoError(t, s.Crash())
	}
	require.NoError(t, <-done)
	n, err := s.Client(t).Add(t.Context(), []byte("n"), 0)
	require.NoError(t, err)
	require.EqualValues(t, adds, n)
}

// Trouble that does not arrive, or does not end, is no test of a program's answer to it.
func TestServer_Disk(t *testing.T) {
	s := rskvtest.NewServer(t)
	c := s.Client(t)
	ctx := t.Context()
	put := func(from int, want error) int {
		for i := from; i < from+4000; i++ {
			if _, err := c.Put(ctx, fmt.Append(nil, "k", i), make([]byte, 32<<10)); err != nil {
				require.ErrorIs(t, err, want)
				return i
			}
			time.Sleep(20 * time.Microsecond)
		}
		t.Fatalf("no %v", want)
		return 0
	}
	s.FillDisk()
	n := put(0, client.ErrDiskFull)
	_, err := c.Get(ctx, []byte("k0"))
	require.NoError(t, err, "reads go on")
	s.FreeDisk()
	require.Eventually(t, func() bool { _, err := c.Put(ctx, []byte("k"), []byte("v")); return err == nil }, time.Minute, time.Millisecond)
	s.BreakDisk()
	put(n, client.ErrReadOnly)
	h, err := c.Health(ctx)
	require.NoError(t, err)
	require.Equal(t, client.StateReadOnly, h.State)
	require.NoError(t, s.Restart())
	_, err = c.Get(ctx, []byte("k0"))
	require.NoError(t, err)
	_, err = c.Put(ctx, []byte("k"), []byte("v"))
	require.NoError(t, err)
}

// Connections that come while the daemon is away must wait, and those that are there must end.
func TestServer_CloseFreesClients(t *testing.T) {
	s, err := rskvtest.Start()
	require.NoError(t, err)
	c, err := client.Dial(t.Context(), s.Socket(), client.WithRetryFor(10*time.Millisecond))
	require.NoError(t, err)
	require.NoError(t, c.Ping(t.Context()))
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.Error(t, c.Ping(t.Context()))
	require.NoError(t, c.Close())
	require.Contains(t, s.Log(), "stopped")
}
