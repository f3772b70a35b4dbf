package client_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rskv/client"
	"rskv/ipc"

	"github.com/stretchr/testify/require"
)

// eventually waits for what another goroutine is about to bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never happened: " + what)
		}
	}
}

// connection is whether a client has one, as its hooks tell.
type connection struct{ up atomic.Bool }

func (n *connection) option() client.Option {
	return client.WithHooks(client.Hooks{
		Connected:    func(time.Duration) { n.up.Store(true) },
		Disconnected: func(error) { n.up.Store(false) },
	})
}

// awaitLoss waits until the client has noticed that its connection is gone. The client has had an answer
// over it, and the server takes no other.
func (n *connection) awaitLoss(t testing.TB) {
	t.Helper()
	eventually(t, "the client notices", func() bool { return !n.up.Load() })
}

// What could go wrong: a context that ends breaks the connection, leaves the caller waiting, or has
// the late answer reach the next caller.
func TestContext_EndsTheWaitOnly(t *testing.T) {
	s := newFakeServer(t)
	var held atomic.Pointer[ipc.Request]
	s.hook = func(s *fakeServer, conn net.Conn, q *ipc.Request) bool {
		if q.Method == ipc.MethodExists { // held back until the next request comes
			kept := *q
			held.Store(&kept)
			return true
		}
		if q := held.Swap(nil); q != nil {
			_, _ = conn.Write(ipc.AppendBoolResult(nil, q.ID, true))
		}
		return false
	}
	c := dialFake(t, s)
	_, err := c.Put(within(t, time.Minute), []byte("k"), []byte("v"))
	require.NoError(t, err)
	for range 20 {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Millisecond)
		_, err := c.Exists(ctx, []byte("k"))
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		v, err := c.Get(within(t, time.Minute), []byte("k"))
		require.NoError(t, err)
		require.Equal(t, "v", string(v))
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	gets := s.received(ipc.MethodGet)
	_, err = c.Get(ended, []byte("k"))
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, gets, s.received(ipc.MethodGet), "not sent at all")
}

// What could go wrong: after a batch was given up its late answers are written into the next round.
func TestContext_BatchGivenUp(t *testing.T) {
	s := newFakeServer(t)
	var slow atomic.Bool
	slow.Store(true)
	s.hook = func(s *fakeServer, conn net.Conn, q *ipc.Request) bool {
		if slow.Load() {
			time.Sleep(2 * time.Millisecond)
		}
		return false
	}
	for i := range 50 {
		s.data[fmt.Sprint(i)] = fmt.Append(nil, i)
	}
	c := dialFake(t, s)
	b := c.NewBatch()
	for i := range 50 {
		b.Get(fmt.Append(nil, i))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, b.Do(ctx), context.DeadlineExceeded)
	require.Zero(t, b.Len())
	slow.Store(false)
	for i := range 50 {
		b.Get(fmt.Append(nil, 49-i))
	}
	require.NoError(t, b.Do(within(t, time.Minute)))
	for i := range 50 {
		v, err := b.Value(i)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(49-i), string(v))
	}
}

// What could go wrong: a lost connection fails reads it need not fail, or repeats a write that may
// have taken effect.
func TestReconnect_ReadsAgainWritesNot(t *testing.T) {
	s := newFakeServer(t)
	var drops atomic.Int32
	s.hook = func(s *fakeServer, conn net.Conn, q *ipc.Request) bool {
		if drops.Add(-1) >= 0 {
			_ = conn.Close() // received, not answered
			return true
		}
		return false
	}
	c := dialFake(t, s)
	ctx := within(t, time.Minute)
	k := []byte("k")
	_, err := c.Put(ctx, k, []byte("v"))
	require.NoError(t, err)

	for name, read := range map[string]func() error{
		"get":    func() error { _, err := c.Get(ctx, k); return err },
		"exists": func() error { _, err := c.Exists(ctx, k); return err },
		"mget":   func() error { _, err := c.MGet(ctx, [][]byte{k}); return err },
		"len":    func() error { _, err := c.Len(ctx); return err },
		"ping":   func() error { return c.Ping(ctx) },
		"stats":  func() error { _, err := c.Stats(ctx); return err },
	} {
		drops.Store(1)
		require.NoError(t, read(), name)
		require.Negative(t, drops.Load(), name)
	}
	writes := map[string]func() error{
		"put":    func() error { _, err := c.Put(ctx, k, k); return err },
		"del":    func() error { _, err := c.Delete(ctx, k); return err },
		"cas":    func() error { _, err := c.CompareAndSwap(ctx, k, nil, k); return err },
		"add":    func() error { _, err := c.Add(ctx, k, 1); return err },
		"append": func() error { _, err := c.Append(ctx, k, k); return err },
		"mput":   func() error { _, err := c.MPut(ctx, []client.Pair{{Key: k}}); return err },
		"mdel":   func() error { _, err := c.MDelete(ctx, [][]byte{k}); return err },
		"sync":   func() error { _, err := c.Sync(ctx); return err },
	}
	for name, write := range writes {
		drops.Store(1)
		err := write()
		require.ErrorIs(t, err, client.ErrConnLost, name)
		require.ErrorIs(t, err, client.ErrAnswerLost, name)
		require.NoError(t, c.Ping(ctx), "connected again after %s", name)
	}
	require.Equal(t, 2, s.received(ipc.MethodPut))
}

// What could go wrong: writes that were queued while there was no connection are lost, repeated, or
// sent in another order.
func TestReconnect_WhatWasNotSentIsSent(t *testing.T) {
	s := newFakeServer(t)
	var n connection
	c := dialFake(t, s, client.WithRetryFor(time.Minute), n.option())
	ctx := within(t, time.Minute)
	require.NoError(t, c.Ping(ctx))
	s.stop()
	n.awaitLoss(t)
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	_, err := c.Put(short, []byte("first"), nil)
	cancel()
	require.ErrorIs(t, err, context.DeadlineExceeded, "it waits for a connection")
	var appends []*client.Future[bool]
	for i := range 100 {
		appends = append(appends, c.PutAsync(ctx, []byte("k"), fmt.Append(nil, i)))
	}
	get := c.GetAsync(ctx, []byte("k"))
	s.listen()
	for _, f := range appends {
		ok, err := f.Wait(ctx)
		require.NoError(t, err)
		require.True(t, ok)
	}
	v, err := get.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "99", string(v))
	require.Equal(t, 100, s.received(ipc.MethodPut), "each once, and not the one that was given up")
}

// What could go wrong: a request that ends every connection it is sent on is sent for ever.
func TestReconnect_GivesUpOnAPoisonedRead(t *testing.T) {
	s := newFakeServer(t)
	s.hook = func(s *fakeServer, conn net.Conn, q *ipc.Request) bool {
		if q.Method == ipc.MethodGet {
			_ = conn.Close()
		}
		return q.Method == ipc.MethodGet
	}
	c := dialFake(t, s, client.WithBackoff(time.Millisecond, 2*time.Millisecond))
	_, err := c.Get(within(t, time.Minute), []byte("k"))
	require.ErrorIs(t, err, client.ErrConnLost)
	require.NotErrorIs(t, err, client.ErrAnswerLost)
	require.LessOrEqual(t, s.received(ipc.MethodGet), 4)
	require.NoError(t, c.Ping(within(t, time.Minute)))
}

// What could go wrong: with the daemon gone callers wait for ever, or the client does not come back
// when it does.
func TestReconnect_FailsAfterAWhileAndRecovers(t *testing.T) {
	s := newFakeServer(t)
	c := dialFake(t, s, client.WithRetryFor(50*time.Millisecond), client.WithBackoff(time.Millisecond, 5*time.Millisecond))
	ctx := within(t, time.Minute)
	require.NoError(t, c.Ping(ctx))
	s.stop()
	_, err := c.Get(ctx, []byte("k"))
	require.ErrorIs(t, err, client.ErrConnLost)
	require.ErrorIs(t, err, os.ErrNotExist, "why there is no connection")
	start := time.Now()
	_, err = c.Put(ctx, []byte("k"), nil)
	require.ErrorIs(t, err, client.ErrConnLost)
	require.NotErrorIs(t, err, client.ErrAnswerLost, "it was never sent")
	require.Less(t, time.Since(start), 30*time.Second)
	s.listen()
	eventually(t, "connected again", func() bool { return c.Ping(ctx) == nil })
}

// What could go wrong: garbage from the daemon hangs the caller, crashes the client or is believed.
func TestGarbage(t *testing.T) {
	for what, garbage := range map[string][]byte{
		"text":                []byte("HTTP/1.1 400 Bad Request\r\n"),
		"unused byte":         {0x94, 1, 1, 0xc1},
		"answer to nothing":   ipc.AppendNilResult(nil, 4_000),
		"answer far beyond":   ipc.AppendNilResult(nil, 1<<32-1),
		"a request":           ipc.AppendGet(nil, 1, []byte("k")),
		"bin of 4 GiB":        {0x94, 1, 1, 0xc0, 0xc6, 0xff, 0xff, 0xff, 0xff},
		"a million arrays":    bytes.Repeat([]byte{0x94}, 1_000_000),
		"what closes streams": ipc.AppendErrorResponse(nil, 0, ipc.CodeRequestTooLarge, "too large"),
	} {
		t.Run(what, func(t *testing.T) {
			s := newFakeServer(t)
			s.hook = func(s *fakeServer, conn net.Conn, q *ipc.Request) bool {
				if q.Method == ipc.MethodPut {
					_, _ = conn.Write(garbage)
				}
				return q.Method == ipc.MethodPut
			}
			c := dialFake(t, s)
			_, err := c.Put(within(t, time.Minute), []byte("k"), nil)
			require.ErrorIs(t, err, client.ErrAnswerLost)
			if what == "what closes streams" {
				require.ErrorIs(t, err, client.ErrRequestTooLarge, "the reason it gave")
			}
			require.NoError(t, c.Ping(within(t, time.Minute)), "on a new connection")
		})
	}
}

// What could go wrong: an answer of the wrong type is taken for an empty one.
func TestAnswer_OfAnotherType(t *testing.T) {
	s := newFakeServer(t)
	var result []byte
	s.hook = func(s *fakeServer, conn net.Conn, q *ipc.Request) bool {
		_, _ = conn.Write(append(ipc.AppendResultHeader(nil, q.ID), result...))
		return true
	}
	c := dialFake(t, s)
	ctx := within(t, time.Minute)
	k := []byte("k")
	for what, call := range map[string]func() error{
		"get":        func() error { _, err := c.Get(ctx, k); return err },
		"exists":     func() error { _, err := c.Exists(ctx, k); return err },
		"add":        func() error { _, err := c.Add(ctx, k, 1); return err },
		"mget":       func() error { _, err := c.MGet(ctx, [][]byte{k, k}); return err },
		"ping":       func() error { return c.Ping(ctx) },
		"stats":      func() error { _, err := c.Stats(ctx); return err },
		"hello":      func() error { _, err := c.Hello(ctx, "x"); return err },
		"checkpoint": func() error { _, err := c.Checkpoint(ctx, client.CheckpointOptions{}); return err },
	} {
		for _, result = range [][]byte{{0x91, 5}, {0x81, 5, 5}, {0xca, 0, 0, 0, 0}, {0xd4, 1, 1}} {
			require.ErrorIs(t, call(), client.ErrProtocol, "%s: % x", what, result)
		}
	}
}

// What could go wrong: Close leaves a caller waiting, or a goroutine behind.
func TestClose(t *testing.T) {
	s := newFakeServer(t)
	s.silent = true
	c := dialFake(t, s)
	var wg sync.WaitGroup
	errs := make(chan error, 100)
	for i := range 50 {
		wg.Add(2)
		go func() {
			defer wg.Done()
			_, err := c.Get(context.Background(), []byte("k"))
			errs <- err
		}()
		go func() {
			defer wg.Done()
			_, err := c.Put(context.Background(), fmt.Append(nil, i), nil)
			errs <- err
		}()
	}
	eventually(t, "all sent", func() bool { return s.received(ipc.MethodGet)+s.received(ipc.MethodPut) == 100 })
	require.NoError(t, c.Close())
	wg.Wait()
	for range 100 {
		require.ErrorIs(t, <-errs, client.ErrClosed)
	}
	require.NoError(t, c.Close(), "twice")
	_, err := c.Get(context.Background(), []byte("k"))
	require.ErrorIs(t, err, client.ErrClosed)
	b := c.NewBatch()
	b.Get([]byte("k"))
	require.ErrorIs(t, b.Do(context.Background()), client.ErrClosed)
	_, err = c.GetAsync(context.Background(), []byte("k")).Wait(context.Background())
	require.ErrorIs(t, err, client.ErrClosed)
}

// What could go wrong: Close while there is no connection hangs in a pause or a dial.
func TestClose_WhileDown(t *testing.T) {
	s := newFakeServer(t)
	c := dialFake(t, s, client.WithBackoff(time.Hour, time.Hour), client.WithRetryFor(time.Hour))
	require.NoError(t, c.Ping(within(t, time.Minute)))
	s.stop()
	f := c.GetAsync(context.Background(), []byte("k"))
	done := make(chan error)
	go func() { done <- c.Close() }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("Close hangs")
	}
	_, err := f.Wait(context.Background())
	require.ErrorIs(t, err, client.ErrClosed)
}

// What could go wrong: with a daemon that does not read, memory grows, or a caller cannot give up.
func TestBounds_MakeCallersWait(t *testing.T) {
	s := newFakeServer(t)
	release := make(chan struct{})
	s.hook = func(s *fakeServer, conn net.Conn, q *ipc.Request) bool {
		<-release
		return false
	}
	c := dialFake(t, s, client.WithMaxInFlight(10, 1<<20))
	ctx := within(t, time.Minute)
	var waiting []*client.Future[bool]
	for range 10 {
		waiting = append(waiting, c.PutAsync(ctx, []byte("k"), nil))
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	_, err := c.Get(short, []byte("k"))
	require.ErrorIs(t, err, context.DeadlineExceeded, "the eleventh waits")
	entered := make(chan error, 2)
	go func() { _, err := c.Get(ctx, []byte("k")); entered <- err }()
	b := c.NewBatch()
	for range 25 { // more than the bound: only when nothing else is in flight
		b.Put([]byte("k"), make([]byte, 100_000))
	}
	go func() { entered <- b.Do(ctx) }()
	select {
	case err := <-entered:
		t.Fatal("did not wait", err)
	case <-time.After(20 * time.Millisecond):
	}
	close(release)
	for _, f := range waiting {
		_, err := f.Wait(ctx)
		require.NoError(t, err)
	}
	require.NoError(t, <-entered)
	require.NoError(t, <-entered)
	require.Zero(t, s.received(ipc.MethodGet)-1, "the one that gave up was never sent")
}

// What could go wrong: a race between callers, contexts, lost connections and Close loses a caller.
func TestChaos(t *testing.T) {
	for _, callers := range []int{24, 2, 1} {
		t.Run(fmt.Sprint(callers), func(t *testing.T) { chaos(t, callers) })
	}
}

func chaos(t *testing.T, callers int) {
	s := newFakeServer(t)
	s.shuffle = true
	c := dialFake(t, s, client.WithBackoff(time.Millisecond, 3*time.Millisecond), client.WithMaxInFlight(64, 1<<20))
	end := time.Now().Add(time.Second)
	if testing.Short() {
		end = time.Now().Add(200 * time.Millisecond)
	}
	var wg sync.WaitGroup
	var good atomic.Int64
	var calm, over atomic.Bool
	for g := range callers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			key := fmt.Append(nil, g)
			b := c.NewBatch()
			for i := 0; !over.Load(); i++ {
				patience := time.Duration(1+i%5) * 10 * time.Millisecond
				if calm.Load() {
					patience = time.Minute
				}
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				want := fmt.Appendf(nil, "%d/%d", g, i)
				if _, err := c.Put(ctx, key, want); err == nil {
					if v, err := c.Get(ctx, key); err == nil && !bytes.Equal(v, want) {
						t.Errorf("get %s: %s, want %s", key, v, want)
					} else if err == nil {
						good.Add(1)
					}
				}
				for j := range min(callers, 8) {
					b.Get(fmt.Appendf(nil, "%d", j))
				}
				if b.Do(ctx) == nil {
					for j := range min(callers, 8) {
						if v, err := b.Value(j); err == nil && !bytes.HasPrefix(v, fmt.Appendf(nil, "%d/", j)) {
							t.Errorf("batch %d: %s", j, v)
						}
					}
				}
				cancel()
			}
		}()
	}
	for time.Now().Before(end) {
		time.Sleep(10 * time.Millisecond)
		s.drop()
	}
	calm.Store(true)
	eventually(t, "something goes well", func() bool { return good.Load() > 0 })
	over.Store(true)
	wg.Wait()
	eventually(t, "usable", func() bool { return c.Ping(within(t, time.Minute)) == nil })
}

// What could go wrong: Dial waits for a daemon that is not there, or says nothing of the reason.
func TestDial_Fails(t *testing.T) {
	ctx := within(t, time.Minute)
	_, err := client.Dial(ctx, t.TempDir()+"/none")
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = client.Dial(ctx, string(bytes.Repeat([]byte("p"), 200)))
	require.ErrorContains(t, err, "200 bytes")
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	s := newFakeServer(t)
	_, err = client.Dial(ended, s.path)
	require.ErrorIs(t, err, context.Canceled)
}
