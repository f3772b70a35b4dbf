package client_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"rskv/client"
	"rskv/client/rskvtest"
	"rskv/ioring/iotest/seeds"
	"rskv/ipc"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// watcher applies what a watch brings, and knows that nothing may come twice.
type watcher struct {
	mu      sync.Mutex
	state   map[string]string
	at      int64 // last commit
	commits int
	err     error
	done    chan struct{}
}

// watchAll watches on a goroutine of its own.
func watchAll(ctx context.Context, c *client.Client, opt client.WatchOptions) *watcher {
	w := &watcher{state: map[string]string{}, at: -2, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for change, err := range c.Watch(ctx, opt) {
			if err == nil {
				err = w.take(&change)
			}
			if err != nil {
				w.mu.Lock()
				w.err = err
				w.mu.Unlock()
				return
			}
		}
	}()
	return w
}

func (w *watcher) take(c *client.Change) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.at
	if c.Address < last || c.Address == last && c.Kind == client.ChangeCommit {
		return fmt.Errorf("%s at %d comes behind %d", c.Kind, c.Address, last)
	}
	switch w.at = c.Address; c.Kind {
	case client.ChangePut:
		w.state[string(c.Key)] = string(c.Value)
	case client.ChangeDelete:
		if c.Value != nil {
			return fmt.Errorf("a deleted key has the value %q", c.Value)
		}
		delete(w.state, string(c.Key))
	default:
		w.commits++
		w.at--
	}
	return nil
}

// await waits until the state is that of the store.
func (w *watcher) await(t testing.TB, want map[string]string) {
	t.Helper()
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		w.mu.Lock()
		defer w.mu.Unlock()
		require.NoError(t, w.err)
		require.Equal(t, len(want), len(w.state))
		for k, v := range want {
			require.True(t, w.state[k] == v, "key %q", k)
		}
	}, time.Minute, 5*time.Millisecond)
}

// stored is what a scan finds.
func stored(ctx context.Context, t testing.TB, c *client.Client) map[string]string {
	all := map[string]string{}
	for p, err := range c.Scan(ctx, client.ScanOptions{}) {
		require.NoError(t, err)
		all[string(p.Key)] = string(p.Value)
	}
	return all
}

// churn writes until stop, by clients that repeat what is lost.
func churn(ctx context.Context, t testing.TB, c *client.Client, seed, name uint64, stop <-chan struct{}) {
	rng := rand.New(rand.NewPCG(seed, name))
	for i := uint64(0); ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		key := fmt.Appendf(nil, "%d.%d", name, rng.IntN(300))
		var err error
		switch rng.IntN(6) {
		case 0:
			_, err = c.Delete(ctx, key)
		case 1:
			_, err = c.Add(ctx, fmt.Appendf(nil, "n%d", rng.IntN(10)), 1)
		default:
			value := binary.LittleEndian.AppendUint64(nil, i)
			_, err = c.Put(ctx, key, append(value, make([]byte, rng.IntN(3000))...))
		}
		if err != nil && !errors.Is(err, client.ErrConnLost) {
			t.Errorf("write: %v", err)
			return
		}
	}
}

var patient = []client.Option{
	client.WithSession(), client.WithRetryFor(time.Minute), client.WithBackoff(time.Millisecond, 20*time.Millisecond),
}

// What could go wrong: a watch that loses its connections, and its daemon, misses a change or brings one
// twice, or brings one that a crash has undone.
func TestWatch_Trouble(t *testing.T) {
	seed := seeds.New(t)
	s := rskvtest.NewServer(t, rskvtest.Setting("commit_interval", "5ms"), rskvtest.Setting("watch_timeout", "50ms"))
	c := s.Client(t, patient...)
	ctx := within(t, 5*time.Minute)
	w := watchAll(ctx, c, client.WatchOptions{})
	require.Eventually(t, func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.commits > 0 }, time.Minute, time.Millisecond)

	stop := make(chan struct{})
	var writers sync.WaitGroup
	for name := range uint64(3) {
		writers.Go(func() { churn(ctx, t, c, seed, name, stop) })
	}
	rng := rand.New(rand.NewPCG(seed, 99))
	rounds := 12
	if testing.Short() {
		rounds = 5
	}
	for range rounds {
		time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
		switch rng.IntN(5) {
		case 0:
			require.NoError(t, s.Crash())
		case 1:
			require.NoError(t, s.Restart())
		case 2:
			w.mu.Lock() // the watcher is slow: it is told that it lags
			time.Sleep(100 * time.Millisecond)
			w.mu.Unlock()
		default:
			s.Disconnect()
		}
	}
	close(stop)
	writers.Wait()
	require.NoError(t, syncUntilDone(ctx, c))
	w.await(t, stored(ctx, t, c))
	t.Logf("%d commits", w.commits)
}

// What could go wrong: the same after kill -9 of a real daemon.
func TestWatch_KillNine(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and kills a daemon")
	}
	d := buildDaemon(t)
	d.start()
	c := d.dial(d.socket, patient...)
	ctx := within(t, 5*time.Minute)
	w := watchAll(ctx, c, client.WatchOptions{All: true})
	stop := make(chan struct{})
	var writers sync.WaitGroup
	seed := uint64(time.Now().UnixNano())
	for name := range uint64(3) {
		writers.Go(func() { churn(ctx, t, c, seed, name, stop) })
	}
	for i := range 6 {
		time.Sleep(time.Duration(50+40*i) * time.Millisecond)
		d.kill()
		d.start()
	}
	close(stop)
	writers.Wait()
	require.NoError(t, syncUntilDone(ctx, c))
	w.await(t, stored(ctx, t, c))
	require.NotZero(t, w.commits)
}

// What could go wrong: a watch that cannot go on does, does not say why it ends, or does not end.
func TestWatch_Ends(t *testing.T) {
	s := rskvtest.NewServer(t, rskvtest.Setting("segment_size", "1MiB"), rskvtest.Setting("max_watches", "1"))
	c := s.Client(t, client.WithRetryFor(200*time.Millisecond), client.WithBackoff(time.Millisecond, 5*time.Millisecond))
	ctx := within(t, 5*time.Minute)

	last := func(opt client.WatchOptions) (err error) {
		for _, err = range c.Watch(ctx, opt) {
			if err != nil {
				break
			}
		}
		return err
	}
	require.ErrorIs(t, last(client.WatchOptions{From: 1 << 40}), client.ErrCursorLost)
	require.ErrorIs(t, last(client.WatchOptions{Prefix: make([]byte, ipc.MaxKey+1)}), client.ErrKeyTooLarge)

	w := watchAll(ctx, c, client.WatchOptions{})
	require.Eventually(t, func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.commits > 0 }, time.Minute, time.Millisecond)
	require.ErrorIs(t, last(client.WatchOptions{}), client.ErrBusy)

	// It falls so far behind that compaction passes it.
	w.mu.Lock()
	for range 45 { // more than the memory, in commits of more than a connection's buffers
		for i := range 20 {
			_, err := c.Put(ctx, fmt.Appendf(nil, "k%d", i), make([]byte, 60_000))
			require.NoError(t, err)
		}
		_, err := c.Sync(ctx)
		require.NoError(t, err)
	}
	_, err := c.Compact(ctx, 0)
	require.NoError(t, err)
	w.mu.Unlock()
	<-w.done
	require.ErrorIs(t, w.err, client.ErrCursorLost)

	// The caller wants no more; its context ends; the daemon is gone; the client is closed.
	for range c.Watch(ctx, client.WatchOptions{}) {
		break
	}
	ended := func() {
		t.Helper()
		require.Eventually(t, func() bool {
			stats, err := c.Stats(ctx)
			require.NoError(t, err)
			return fmt.Sprint(stats["daemon_watches"]) == "0"
		}, time.Minute, time.Millisecond)
	}
	ended()
	short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	w = watchAll(short, c, client.WatchOptions{})
	<-w.done
	require.ErrorIs(t, w.err, context.DeadlineExceeded)
	ended()
	other := s.Client(t)
	w = watchAll(ctx, other, client.WatchOptions{})
	require.NoError(t, other.Close())
	<-w.done
	require.ErrorIs(t, w.err, client.ErrClosed)
	ended()
	w = watchAll(ctx, c, client.WatchOptions{})
	require.Eventually(t, func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.commits > 0 || w.err != nil }, time.Minute, time.Millisecond)
	require.NoError(t, s.Close())
	<-w.done
	require.ErrorIs(t, w.err, client.ErrConnLost)
}

// What could go wrong: what a watch brings is not what the protocol has, and is taken all the same.
func TestWatch_Nonsense(t *testing.T) {
	s := newFakeServer(t)
	var answer []byte
	s.instant = func(out []byte, q *ipc.Request) []byte { return append(out, answer...) }
	c := dialFake(t, s, client.WithRetryFor(0))
	start := ipc.AppendIntResult(nil, 1, 100)
	for what, more := range map[string][]byte{
		"another's answer": ipc.AppendIntResult(nil, 2, 100),
		"a place":          ipc.AppendPlace(nil, ipc.NotifyCommit, 99),
		"a change":         ipc.AppendPlace(nil, ipc.NotifyChange, 5),
		"a byte":           {0xc1},
	} {
		answer = append(start[:len(start):len(start)], more...)
		var got error
		for _, err := range c.Watch(within(t, time.Minute), client.WatchOptions{}) {
			got = err
		}
		require.ErrorIs(t, got, client.ErrProtocol, what)
	}
}
