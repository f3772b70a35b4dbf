package client_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rskv/client"
	"rskv/ipc"

	"github.com/stretchr/testify/require"
)

// loneServer answers, but for what is held back.
type loneServer struct {
	*fakeServer
	hold atomic.Bool // answers to exists
	mute atomic.Bool // it answers nothing at all

	mu   sync.Mutex
	held []func()
}

func newLoneServer(t *testing.T) *loneServer {
	s := &loneServer{fakeServer: newFakeServer(t)}
	s.hook = func(_ *fakeServer, conn net.Conn, q *ipc.Request) bool {
		if q.Method != ipc.MethodExists || !s.hold.Load() {
			return s.mute.Load()
		}
		id := q.ID
		s.mu.Lock()
		defer s.mu.Unlock()
		s.held = append(s.held, func() { _, _ = conn.Write(ipc.AppendBoolResult(nil, id, true)) })
		return true
	}
	return s
}

// letGo sends what is held back.
func (s *loneServer) letGo() {
	s.hold.Store(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, answer := range s.held {
		answer()
	}
	s.held = nil
}

// goAlone calls until the client leaves the reading to its caller.
func goAlone(t *testing.T, c *client.Client) {
	t.Helper()
	ctx := within(t, time.Minute)
	eventually(t, "the caller is alone", func() bool {
		for range client.LoneAfter {
			_, err := c.Put(ctx, []byte("k"), []byte("v"))
			require.NoError(t, err)
		}
		return c.Reader() == "nobody"
	})
}

// leads has a caller read for an answer that is held back. It returns what the call came to.
func (s *loneServer) leads(ctx context.Context, t *testing.T, c *client.Client) <-chan error {
	t.Helper()
	for {
		goAlone(t, c)
		s.hold.Store(true)
		done := make(chan error, 1)
		go func() {
			_, err := c.Exists(ctx, []byte("k"))
			done <- err
		}()
		eventually(t, "asked", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.held) > 0
		})
		if c.Reader() == "caller" {
			return done
		}
		s.letGo() // nobody had come for too long
		require.NoError(t, <-done)
	}
}

// What could go wrong: a caller who is alone reads for himself only, and the others wait.
func TestLone_OthersAreAnswered(t *testing.T) {
	s := newLoneServer(t)
	c := dialFake(t, s.fakeServer)
	done := s.leads(context.Background(), t, c)
	ctx := within(t, time.Minute)
	for i := range 100 {
		_, err := c.Put(ctx, []byte("o"), fmt.Append(nil, i))
		require.NoError(t, err)
		v, err := c.GetAsync(ctx, []byte("o")).Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, fmt.Append(nil, i), v)
	}
	require.Equal(t, "caller", c.Reader())
	s.hold.Store(true)
	other := make(chan error)
	go func() {
		_, err := c.Exists(ctx, []byte("k"))
		other <- err
	}()
	eventually(t, "both asked", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.held) == 2
	})
	s.mu.Lock()
	s.held[0]() // whose caller reads, so that another has to
	s.held = s.held[1:]
	s.mu.Unlock()
	require.NoError(t, <-done)
	require.NotEqual(t, "nobody", c.Reader())
	eventually(t, "handed on", func() bool { return c.Reader() == "run" })
	s.letGo()
	require.NoError(t, <-other)
}

// What could go wrong: who does not wait finds nobody who reads, or who is alone again is not noticed.
func TestLone_Async(t *testing.T) {
	s := newLoneServer(t)
	c := dialFake(t, s.fakeServer)
	for range 3 {
		goAlone(t, c)
		f := c.GetAsync(context.Background(), []byte("k"))
		v, err := f.Wait(context.Background())
		require.NoError(t, err)
		require.Equal(t, "v", string(v))
		b := c.NewBatch()
		for range 1000 {
			b.Get([]byte("k"))
		}
		require.NoError(t, b.Do(context.Background()))
	}
}

// What could go wrong: a context that ends does not end the wait of a caller who reads, or the
// connection's deadline outlives it, or the late answer reaches the next caller.
func TestLone_Context(t *testing.T) {
	s := newLoneServer(t)
	c := dialFake(t, s.fakeServer)
	for i := range 6 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		done := s.leads(ctx, t, c)
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		if i%2 == 0 {
			s.letGo()
		}
		v, err := c.Get(within(t, time.Minute), []byte("k"))
		require.NoError(t, err)
		require.Equal(t, "v", string(v))
		s.letGo()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	s.hold.Store(true)
	for {
		goAlone(t, c) // within its patience or not
		if _, err := c.Exists(ctx, []byte("k")); err != nil {
			require.ErrorIs(t, err, context.DeadlineExceeded)
			break
		}
	}
	s.letGo()
	goAlone(t, c)
	s.fakeServer.mu.Lock()
	defer s.fakeServer.mu.Unlock()
	require.Len(t, s.conns, 1, "the connection has stayed")
}

// What could go wrong: a lost connection is not noticed where nobody reads, or by who reads, or a
// write that was sent is sent again.
func TestLone_Lost(t *testing.T) {
	s := newLoneServer(t)
	c := dialFake(t, s.fakeServer, client.WithBackoff(time.Millisecond, time.Millisecond))
	goAlone(t, c)
	s.drop() // and nobody calls
	eventually(t, "noticed and mended", func() bool {
		s.fakeServer.mu.Lock()
		defer s.fakeServer.mu.Unlock()
		return len(s.conns) == 1
	})
	done := s.leads(context.Background(), t, c)
	s.mu.Lock()
	s.held = nil
	s.mu.Unlock()
	s.hold.Store(false)
	s.drop()
	require.NoError(t, <-done, "a read is sent again")

	// Of a write nobody knows.
	goAlone(t, c)
	puts := s.received(ipc.MethodPut)
	s.mute.Store(true)
	put := make(chan error)
	go func() {
		_, err := c.Put(context.Background(), []byte("k"), []byte("w"))
		put <- err
	}()
	eventually(t, "asked", func() bool { return s.received(ipc.MethodPut) > puts })
	s.mute.Store(false)
	s.drop()
	require.ErrorIs(t, <-put, client.ErrAnswerLost)
	require.Equal(t, puts+1, s.received(ipc.MethodPut))
	require.NoError(t, c.Ping(within(t, time.Minute)))
}

// What could go wrong: Close leaves the caller who reads waiting, or a goroutine behind.
func TestLone_Close(t *testing.T) {
	for _, leading := range []bool{false, true} {
		s := newLoneServer(t)
		c := dialFake(t, s.fakeServer)
		var done <-chan error
		if leading {
			done = s.leads(context.Background(), t, c)
		} else {
			goAlone(t, c)
		}
		require.NoError(t, c.Close())
		if leading {
			require.ErrorIs(t, <-done, client.ErrClosed)
		}
		_, err := c.Get(context.Background(), []byte("k"))
		require.ErrorIs(t, err, client.ErrClosed)
	}
}

// What could go wrong: what the daemon tells unasked is not heard where nobody reads.
func TestLone_ToldDurable(t *testing.T) {
	s := newSessionServer(t)
	s.set(func(x *fakeSessions) { x.telling = true })
	c := dialSession(t, s)
	for range 3 {
		goAlone(t, c)
		s.commit()
		eventually(t, "heard", func() bool {
			state := c.Session()
			return state.Durable == state.Written
		})
	}
}

// What could go wrong: what another asks while a caller writes stays unsent when that is done.
func TestLone_Two(t *testing.T) {
	s := newLoneServer(t)
	c := dialFake(t, s.fakeServer)
	for range 500 {
		goAlone(t, c)
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for range 3 {
			wg.Go(func() {
				<-begin
				if _, err := c.Exists(within(t, time.Minute), []byte("k")); err != nil {
					t.Error(err)
				}
			})
		}
		close(begin)
		wg.Wait()
	}
}
