package client_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rskv/client"
	"rskv/ioring/iotest/seeds"
	"rskv/ipc"

	"github.com/stretchr/testify/require"
)

// dialSession connects a client with a session that comes back fast.
func dialSession(t testing.TB, s *fakeServer, opts ...client.Option) *client.Client {
	return dialFake(t, s, append([]client.Option{
		client.WithSession(), client.WithBackoff(time.Millisecond, 4*time.Millisecond), client.WithRetryFor(time.Minute),
	}, opts...)...)
}

// losses collects what a client reports.
type losses struct {
	sync.Mutex
	all []client.SessionLoss
}

func (l *losses) option() client.Option {
	return client.WithSessionLoss(func(loss client.SessionLoss) {
		l.Lock()
		defer l.Unlock()
		l.all = append(l.all, loss)
	})
}

func (l *losses) take() []client.SessionLoss {
	l.Lock()
	defer l.Unlock()
	all := l.all
	l.all = nil
	return all
}

func (s *fakeServer) set(f func(x *fakeSessions)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.sessions)
}

func refuseWrites(q *ipc.Request) ipc.Code {
	if q.Method.Class() == ipc.ClassWrite {
		return ipc.CodeDiskFull
	}
	return ""
}

func counter(b []byte) int64 {
	if len(b) != 8 {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(b))
}

// What could go wrong: a crash of the daemon undoes writes that were answered, and they stay undone,
// come back twice, or in another order.
func TestSession_CrashUndoesWhatWasAnswered(t *testing.T) {
	s := newSessionServer(t)
	c := dialSession(t, s)
	ctx := within(t, time.Minute)
	for round := range 5 {
		for i := range 40 {
			if i == 10 {
				s.commit() // unknown to the client
			}
			_, err := c.Add(ctx, []byte("sum"), 1)
			require.NoError(t, err)
			_, err = c.Append(ctx, []byte("list"), fmt.Appendf(nil, "%d.%d ", round, i))
			require.NoError(t, err)
			_, err = c.Put(ctx, []byte("last"), fmt.Append(nil, i))
			require.NoError(t, err)
		}
		_, err := c.Add(ctx, []byte("last"), 1)
		require.ErrorIs(t, err, client.ErrNotInteger, "refused, but counted")
		s.crash()
		v, err := c.Get(ctx, []byte("last"))
		require.NoError(t, err)
		require.Equal(t, "39", string(v), "a read after the crash sees what its caller wrote before")
	}
	n, err := c.Add(ctx, []byte("sum"), 0)
	require.NoError(t, err)
	require.EqualValues(t, 200, n)
	var want strings.Builder
	for round := range 5 {
		for i := range 40 {
			fmt.Fprintf(&want, "%d.%d ", round, i)
		}
	}
	require.Equal(t, want.String(), string(s.value("list")))
	durable, err := c.Sync(ctx)
	require.NoError(t, err)
	require.Equal(t, c.Session().Written, durable)
	require.Equal(t, c.Session().Durable, durable)
}

// What could go wrong: a write that took effect is repeated because its answer was lost, or is
// reported as what nobody knows.
func TestSession_AnswerLost(t *testing.T) {
	s := newSessionServer(t)
	c := dialSession(t, s)
	ctx := within(t, time.Minute)
	k := []byte("k")
	b := func(ok bool, err error) error {
		if err == nil && !ok {
			return errors.New("false")
		}
		return err
	}
	for _, vague := range []bool{false, true} {
		for name, call := range map[string]struct {
			sure bool
			do   func() error
		}{
			"put":        {true, func() error { return b(c.Put(ctx, k, []byte("v"))) }},
			"put absent": {false, func() error { return b(c.Put(ctx, k, k, client.IfAbsent)) }},
			"put sync":   {false, func() error { return b(c.Put(ctx, k, k, client.Sync)) }},
			"del":        {false, func() error { return b(c.Delete(ctx, k)) }},
			"del blind":  {true, func() error { _, err := c.Delete(ctx, k, client.Blind); return err }},
			"cas":        {false, func() error { return b(c.CompareAndSwap(ctx, k, nil, k)) }},
			"add":        {false, func() error { _, err := c.Add(ctx, []byte("n"), 1); return err }},
			"append":     {false, func() error { _, err := c.Append(ctx, k, k); return err }},
			"mput": {true, func() error {
				n, err := c.MPut(ctx, []client.Pair{{Key: k}, {Key: []byte("l")}})
				return b(n == 2, err)
			}},
			"mdel":       {false, func() error { _, err := c.MDelete(ctx, [][]byte{k}); return err }},
			"mdel blind": {true, func() error { _, err := c.MDelete(ctx, [][]byte{k}, client.Blind); return err }},
			"put async":  {true, func() error { return b(c.PutAsync(ctx, k, k).Wait(ctx)) }},
			"batch": {true, func() error {
				batch := c.NewBatch()
				batch.Put(k, k)
				require.NoError(t, batch.Do(ctx))
				return b(batch.Bool(0))
			}},
		} {
			s.set(func(x *fakeSessions) {
				x.vague = vague
				x.swallow = func(q *ipc.Request) bool { x.swallow = nil; return true }
			})
			err := call.do()
			if call.sure && !vague {
				require.NoError(t, err, name)
			} else {
				require.ErrorIs(t, err, client.ErrAnswerLost, name)
			}
			require.NoError(t, c.Ping(ctx))
		}
	}
	require.EqualValues(t, 2, counter(s.value("n")))

	s.set(func(x *fakeSessions) {
		x.vague = false
		x.refuse = func(q *ipc.Request) ipc.Code {
			if q.Method == ipc.MethodPut {
				return ipc.CodeDiskFull
			}
			return ""
		}
		x.swallow = func(q *ipc.Request) bool {
			if q.Method != ipc.MethodAdd {
				return false
			}
			x.swallow, x.refuse = nil, nil
			return true
		}
	})
	batch := c.NewBatch()
	batch.Put(k, k)
	batch.Add([]byte("n"), 1)
	batch.Delete(k, client.Blind)
	require.NoError(t, batch.Do(ctx))
	require.ErrorIs(t, batch.Err(0), client.ErrDiskFull)
	require.ErrorIs(t, batch.Err(1), client.ErrAnswerLost)
	require.NoError(t, batch.Err(2), "was not taken, and sent again")
	require.EqualValues(t, 3, counter(s.value("n")))
}

// What could go wrong: a refused write is sent again after a crash, and takes effect though its
// caller was told that it did not.
func TestSession_RefusedStaysRefused(t *testing.T) {
	s := newSessionServer(t)
	c := dialSession(t, s)
	ctx := within(t, time.Minute)
	s.set(func(x *fakeSessions) {
		x.refuse = func(q *ipc.Request) ipc.Code {
			if q.Method == ipc.MethodAppend {
				return ipc.CodeBusy
			}
			return ""
		}
	})
	_, err := c.Append(ctx, []byte("k"), []byte("no"))
	require.ErrorIs(t, err, client.ErrBusy)
	_, err = c.Add(ctx, []byte("n"), 1)
	require.NoError(t, err)
	s.set(func(x *fakeSessions) { x.refuse = nil })
	s.crash()
	n, err := c.Add(ctx, []byte("n"), 1)
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	require.Empty(t, s.value("k"))
	require.EqualValues(t, 2, c.Session().Written, "its number went to the next")
}

// What could go wrong: a write that was answered with success and is refused when it is sent again
// is lost without a word.
func TestSession_RefusedAgainIsReported(t *testing.T) {
	s := newSessionServer(t)
	var lost losses
	c := dialSession(t, s, lost.option())
	ctx := within(t, time.Minute)
	_, err := c.Put(ctx, []byte("k"), nil)
	require.NoError(t, err)
	s.set(func(x *fakeSessions) { x.refuse = refuseWrites })
	s.crash()
	require.NoError(t, c.Ping(ctx))
	eventually(t, "reported", func() bool {
		all := lost.take()
		return len(all) == 1 && all[0].Unconfirmed == 1 && errors.Is(all[0].Err, client.ErrDiskFull)
	})
}

// What could go wrong: the daemon forgets the session, and writes are sent again into a new one
// where they may take effect twice, or everything hangs.
func TestSession_Unknown(t *testing.T) {
	s := newSessionServer(t)
	var lost losses
	c := dialSession(t, s, lost.option())
	ctx := within(t, time.Minute)
	_, err := c.Put(ctx, []byte("k"), nil)
	require.NoError(t, err)
	first := c.Session().ID
	s.set(func(x *fakeSessions) {
		x.forget = true
		x.swallow = func(q *ipc.Request) bool { x.swallow = nil; return true }
	})
	_, err = c.Add(ctx, []byte("n"), 1)
	require.ErrorIs(t, err, client.ErrSessionLost)
	require.ErrorIs(t, err, client.ErrAnswerLost)
	require.ErrorIs(t, err, client.ErrSessionUnknown)
	n, err := c.Add(ctx, []byte("n"), 1)
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	all := lost.take()
	require.Len(t, all, 1)
	require.Equal(t, first, all[0].Session)
	require.Equal(t, 1, all[0].Unconfirmed, "the put")
	require.NotEqual(t, first, c.Session().ID)
	require.EqualValues(t, 1, c.Session().Written)
}

// What could go wrong: a sync fails though asking again would do, or answers in another session for
// writes that are lost.
func TestSession_SyncOutlivesConnection(t *testing.T) {
	s := newSessionServer(t)
	c := dialSession(t, s)
	ctx := within(t, time.Minute)
	for range 3 {
		_, err := c.Add(ctx, []byte("n"), 1)
		require.NoError(t, err)
	}
	swallow := func(x *fakeSessions) {
		x.swallow = func(q *ipc.Request) bool {
			if q.Method == ipc.MethodSync {
				x.swallow = nil
				return true
			}
			return false
		}
	}
	s.set(swallow)
	durable, err := c.Sync(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 3, durable)
	require.Equal(t, 2, s.received(ipc.MethodSync))

	_, err = c.Add(ctx, []byte("n"), 1)
	require.NoError(t, err)
	s.set(func(x *fakeSessions) { x.forget = true; swallow(x) })
	_, err = c.Sync(ctx)
	require.ErrorIs(t, err, client.ErrSessionLost)

	plain := dialFake(t, s)
	s.set(swallow)
	_, err = plain.Sync(ctx)
	require.ErrorIs(t, err, client.ErrAnswerLost, "without a session it is about its connection")
}

// What could go wrong: writes that never left the client are given up with a session they were no
// part of.
func TestSession_UnknownKeepsWhatWasNeverSent(t *testing.T) {
	s := newSessionServer(t)
	var connected connection
	c := dialSession(t, s, connected.option())
	ctx := within(t, time.Minute)
	require.NoError(t, c.Ping(ctx))
	s.stop()
	s.set(func(x *fakeSessions) { x.forget = true })
	// The first may be sent into the dead connection, but to nobody who counts it.
	waiting := []*client.Future[int64]{c.AddAsync(ctx, []byte("n"), 1)}
	connected.awaitLoss(t)
	for range 9 {
		waiting = append(waiting, c.AddAsync(ctx, []byte("n"), 1))
	}
	s.listen()
	good := 0
	for _, f := range waiting {
		if _, err := f.Wait(ctx); err == nil {
			good++
		} else {
			require.ErrorIs(t, err, client.ErrSessionLost)
		}
	}
	require.GreaterOrEqual(t, good, 9)
	require.EqualValues(t, good, counter(s.value("n")))
}

// What could go wrong: a daemon that lost durable writes, or counts other writes than the client, is
// believed.
func TestSession_DaemonContradictsItself(t *testing.T) {
	for what, spoil := range map[string]func(x *fakeSession){
		"durable went back":   func(x *fakeSession) { x.durable, x.applied = 1, 1 },
		"more than were made": func(x *fakeSession) { x.applied = 1000 },
	} {
		t.Run(what, func(t *testing.T) {
			s := newSessionServer(t)
			var lost losses
			c := dialSession(t, s, lost.option())
			ctx := within(t, time.Minute)
			for range 3 {
				_, err := c.Put(ctx, []byte("k"), nil)
				require.NoError(t, err)
			}
			_, err := c.Sync(ctx)
			require.NoError(t, err)
			s.set(func(x *fakeSessions) {
				for _, session := range x.all {
					spoil(session)
				}
			})
			s.drop()
			require.NoError(t, c.Ping(ctx))
			all := lost.take()
			require.Len(t, all, 1)
			require.ErrorIs(t, all[0].Err, client.ErrSessionLost)
			_, err = c.Put(ctx, []byte("k"), nil)
			require.NoError(t, err)
			require.EqualValues(t, 1, c.Session().Written)
		})
	}
}

// What could go wrong: what is kept grows without bound, or a caller that waits for room cannot give
// up, is forgotten, or stops others.
func TestSession_KeptIsBounded(t *testing.T) {
	s := newSessionServer(t)
	c := dialSession(t, s, client.WithKept(100, 1<<20))
	ctx := within(t, time.Minute)
	for range 500 {
		_, err := c.Put(ctx, []byte("k"), nil)
		require.NoError(t, err)
	}
	require.Positive(t, s.received(ipc.MethodSync), "asked for by itself")
	require.LessOrEqual(t, c.Session().Written-c.Session().Durable, uint64(100))
	b := c.NewBatch()
	for range 300 {
		b.Add([]byte("n"), 1)
	}
	require.NoError(t, b.Do(ctx), "more than the bound by itself")
	require.EqualValues(t, 300, counter(s.value("n")))

	s.set(func(x *fakeSessions) { x.noCommit = ipc.CodeReadOnly })
	var err error
	for range 500 {
		if _, err = c.Put(ctx, []byte("k"), nil); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, client.ErrReadOnly, "rather than wait for ever")
	_, err = c.Get(ctx, []byte("k"))
	require.NoError(t, err, "reads go on")
	s.set(func(x *fakeSessions) { x.noCommit = "" })
	_, err = c.Put(ctx, []byte("k"), nil)
	require.NoError(t, err)

	s.stop() // nobody makes room
	ended, end := context.WithCancel(ctx)
	end()
	for full := false; !full; {
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		f := c.PutAsync(short, []byte("k"), nil)
		late := short.Err() != nil
		cancel()
		if late { // it did not get in, or the machine has stood still
			_, err := f.Wait(ended)
			full = errors.Is(err, context.DeadlineExceeded)
			require.True(t, full || errors.Is(err, context.Canceled), "%v", err)
		}
	}
	done := make(chan error, 1)
	go func() { _, err := c.Put(ctx, []byte("k"), nil); done <- err }()
	select {
	case err := <-done:
		t.Fatal("did not wait", err)
	case <-time.After(20 * time.Millisecond):
	}
	s.listen()
	require.NoError(t, <-done)
}

// What could go wrong: Close leaves a caller behind who waits for room.
func TestSession_CloseWhileFull(t *testing.T) {
	s := newSessionServer(t)
	c := dialSession(t, s, client.WithKept(1, 1))
	ctx := within(t, time.Minute)
	_, err := c.Put(ctx, []byte("k"), nil)
	require.NoError(t, err)
	s.stop()
	done := make(chan error, 3)
	for range 3 {
		go func() { _, err := c.Put(ctx, []byte("k"), nil); done <- err }()
	}
	time.Sleep(10 * time.Millisecond)
	require.NoError(t, c.Close())
	for range 3 {
		require.ErrorIs(t, <-done, client.ErrClosed)
	}
}

// What could go wrong: what the daemon tells unasked is not heard, and nothing is ever forgotten.
func TestSession_ToldDurable(t *testing.T) {
	s := newSessionServer(t)
	s.set(func(x *fakeSessions) { x.telling = true })
	c := dialSession(t, s)
	ctx := within(t, time.Minute)
	for i := range 10 {
		_, err := c.Put(ctx, []byte("k"), nil)
		require.NoError(t, err)
		s.commit()
		eventually(t, "heard", func() bool { return c.Session().Durable == uint64(i+1) })
	}
	require.Zero(t, s.received(ipc.MethodSync))
}

// What could go wrong: a client that resumes another's session counts from the wrong number, or
// takes what the other wrote for its own.
func TestSession_Resume(t *testing.T) {
	s := newSessionServer(t)
	ctx := within(t, time.Minute)
	a := dialSession(t, s)
	for range 7 {
		_, err := a.Add(ctx, []byte("n"), 1)
		require.NoError(t, err)
	}
	id := a.Session().ID
	require.NoError(t, a.Close())
	var lost losses
	b := dialSession(t, s, client.WithResume(id), lost.option())
	require.Equal(t, id, b.Session().ID)
	eventually(t, "synced what nobody could send again", func() bool { return b.Session().Durable == 7 })
	n, err := b.Add(ctx, []byte("n"), 1)
	require.NoError(t, err)
	require.EqualValues(t, 8, n)
	s.crash()
	n, err = b.Add(ctx, []byte("n"), 1)
	require.NoError(t, err)
	require.EqualValues(t, 9, n)
	require.EqualValues(t, 9, b.Session().Written)
	require.Empty(t, lost.take())

	s.set(func(x *fakeSessions) { x.forget = true })
	_, err = client.Dial(ctx, s.path, client.WithResume(id))
	require.ErrorIs(t, err, client.ErrSessionUnknown)
}

// What could go wrong: a crash before the new owner's first commit undoes writes of the old one,
// and the numbers no longer agree.
func TestSession_ResumeThenCrash(t *testing.T) {
	s := newSessionServer(t)
	ctx := within(t, time.Minute)
	a := dialSession(t, s)
	for range 7 {
		_, err := a.Add(ctx, []byte("n"), 1)
		require.NoError(t, err)
	}
	id := a.Session().ID
	require.NoError(t, a.Close())
	s.set(func(x *fakeSessions) { x.noCommit = ipc.CodeDiskFull })
	var lost losses
	b := dialSession(t, s, client.WithResume(id), lost.option())
	_, err := b.Add(ctx, []byte("n"), 1)
	require.NoError(t, err)
	s.crash()
	n, err := b.Add(ctx, []byte("n"), 1)
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	require.EqualValues(t, 2, b.Session().Written)
	all := lost.take()
	require.Len(t, all, 1)
	require.Equal(t, 7, all[0].Unconfirmed)
}

// What could go wrong: a write over which the daemon breaks off connections is sent for ever, and
// nothing behind it ever is.
func TestSession_PoisonedWrite(t *testing.T) {
	s := newFakeServer(t)
	s.hook = func(s *fakeServer, conn net.Conn, q *ipc.Request) bool {
		if q.Method == ipc.MethodAppend {
			_ = conn.Close()
			s.mu.Lock()
			delete(s.conns, conn) // nothing behind it is taken
			s.mu.Unlock()
		}
		return q.Method == ipc.MethodAppend
	}
	s.withSessions()
	c := dialSession(t, s)
	ctx := within(t, time.Minute)
	_, err := c.Add(ctx, []byte("n"), 1)
	require.NoError(t, err)
	poison := make(chan error, 1)
	go func() { _, err := c.Append(ctx, []byte("k"), nil); poison <- err }()
	var behind []*client.Future[int64]
	for range 10 {
		behind = append(behind, c.AddAsync(ctx, []byte("n"), 1))
	}
	err = <-poison
	require.ErrorIs(t, err, client.ErrConnLost)
	require.NotErrorIs(t, err, client.ErrAnswerLost, "it had no effect")
	require.LessOrEqual(t, s.received(ipc.MethodAppend), 6)
	for _, f := range behind {
		if _, err := f.Wait(ctx); err != nil { // it was just before the poison
			require.ErrorIs(t, err, client.ErrAnswerLost)
		}
	}
	require.EqualValues(t, 11, counter(s.value("n")))
}

// What could go wrong: on a new connection reads overtake the writes that their callers made before
// them, or writes overtake such reads.
func TestSession_ReadsStayBetweenWrites(t *testing.T) {
	s := newSessionServer(t)
	var connected connection
	c := dialSession(t, s, connected.option())
	ctx := within(t, time.Minute)
	k := []byte("k")
	_, err := c.Put(ctx, k, []byte("before"))
	require.NoError(t, err)
	s.stop()
	s.crash()
	connected.awaitLoss(t)
	var puts []*client.Future[bool]
	var gets []*client.Future[[]byte]
	gets = append(gets, c.GetAsync(ctx, k))
	for i := range 50 {
		puts = append(puts, c.PutAsync(ctx, k, fmt.Append(nil, i)))
		gets = append(gets, c.GetAsync(ctx, k))
	}
	s.listen()
	for i, f := range gets {
		v, err := f.Wait(ctx)
		require.NoError(t, err)
		want := "before"
		if i > 0 {
			want = fmt.Sprint(i - 1)
		}
		require.Equal(t, want, string(v))
	}
	for _, f := range puts {
		ok, err := f.Wait(ctx)
		require.NoError(t, err)
		require.True(t, ok)
	}
}

// What could go wrong: when there is no connection for too long, a write that its caller was told
// has no effect is sent later, or one that was answered is not.
func TestSession_DownForLong(t *testing.T) {
	s := newFakeServer(t)
	var deaf atomic.Bool
	s.hook = func(s *fakeServer, conn net.Conn, q *ipc.Request) bool { return deaf.Load() }
	s.withSessions()
	var connected connection
	c := dialSession(t, s, client.WithRetryFor(150*time.Millisecond), connected.option())
	ctx := within(t, time.Minute)
	n := []byte("n")
	_, err := c.Add(ctx, n, 1)
	require.NoError(t, err)
	deaf.Store(true)
	sent := c.AddAsync(ctx, n, 10)
	eventually(t, "sent", func() bool { return s.received(ipc.MethodAdd) == 2 })
	s.stop()
	s.crash()
	connected.awaitLoss(t)
	unsent := c.AddAsync(ctx, n, 100_000)
	_, err = sent.Wait(ctx)
	require.ErrorIs(t, err, client.ErrAnswerLost)
	_, err = unsent.Wait(ctx)
	require.ErrorIs(t, err, client.ErrConnLost)
	require.NotErrorIs(t, err, client.ErrAnswerLost)
	_, err = c.Add(ctx, n, 100)
	require.ErrorIs(t, err, client.ErrConnLost)
	require.NotErrorIs(t, err, client.ErrAnswerLost)
	deaf.Store(false)
	s.listen()
	eventually(t, "sent again", func() bool { return counter(s.value("n")) == 11 })
	eventually(t, "usable", func() bool { _, err := c.Add(ctx, n, 1000); return err == nil })
	require.EqualValues(t, 1011, counter(s.value("n")))
}

// What could go wrong: writes larger than a chunk of the log are cut, or mixed up with others.
func TestSession_LargeWrites(t *testing.T) {
	s := newSessionServer(t)
	c := dialSession(t, s)
	ctx := within(t, time.Minute)
	size := func(i int) int { return (i * 77_777) % 700_000 }
	for i := range 40 {
		_, err := c.Put(ctx, fmt.Append(nil, i), bytes.Repeat([]byte{byte(i)}, size(i)))
		require.NoError(t, err)
		if i == 20 {
			_, err := c.Sync(ctx)
			require.NoError(t, err)
		}
	}
	s.crash()
	require.NoError(t, c.Ping(ctx))
	for i := range 40 {
		v, err := c.Get(ctx, fmt.Append(nil, i))
		require.NoError(t, err)
		require.Equal(t, bytes.Repeat([]byte{byte(i)}, size(i)), v)
	}
}

// What could go wrong: a daemon that does not answer hello, or not with one, hangs Dial or Close.
func TestSession_HelloNotAnswered(t *testing.T) {
	for what, answer := range map[string][]byte{
		"nothing":     nil,
		"garbage":     {0xc1},
		"another one": ipc.AppendNilResult(nil, 7),
		"no hello":    ipc.AppendNilResult(nil, 1),
		"an error":    ipc.AppendErrorResponse(nil, 1, ipc.CodeBusy, "full"),
	} {
		s := newFakeServer(t)
		var bad atomic.Bool
		s.hook = func(s *fakeServer, conn net.Conn, q *ipc.Request) bool {
			if bad.Load() {
				_, _ = conn.Write(answer)
			}
			return bad.Load()
		}
		s.withSessions()
		c := dialSession(t, s)
		require.NoError(t, c.Ping(within(t, time.Minute)))
		bad.Store(true)
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		_, err := client.Dial(ctx, s.path, client.WithSession())
		cancel()
		require.Error(t, err, what)
		s.drop()
		time.Sleep(5 * time.Millisecond)
		require.NoError(t, c.Close(), what)
	}
}

// What could go wrong: any of the above, in a combination nobody thought of.
func TestSession_Chaos(t *testing.T) {
	for _, workers := range []int{8, 2, 1} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) { sessionChaos(t, workers) })
	}
}

func sessionChaos(t *testing.T, workers int) {
	seed := seeds.New(t)
	s := newSessionServer(t)
	s.set(func(x *fakeSessions) { x.telling = true })
	var lost losses
	c := dialSession(t, s, client.WithKept(2000, 1<<20), lost.option())
	end := time.Now().Add(3 * time.Second)
	if testing.Short() {
		end = time.Now().Add(500 * time.Millisecond)
	}
	var adds, unknown atomic.Int64
	var over atomic.Bool
	var wg sync.WaitGroup
	appended := make([][]string, workers)
	for g := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(seed, uint64(g)))
			b := c.NewBatch()
			own := fmt.Append(nil, "own", g)
			for i := 0; !over.Load(); i++ {
				work(t, c, b, rng, own, g, i, &appended[g], &adds, &unknown)
			}
		}()
	}
	rng := rand.New(rand.NewPCG(seed, 1000))
	crashes := 0
	for time.Now().Before(end) || crashes == 0 {
		time.Sleep(time.Duration(rng.IntN(8)) * time.Millisecond)
		switch rng.IntN(3) {
		case 0:
			s.commit()
		case 1:
			s.drop()
		default:
			s.crash()
			crashes++
		}
	}
	over.Store(true)
	wg.Wait()
	_, err := c.Sync(within(t, time.Minute))
	for errors.Is(err, client.ErrConnLost) {
		_, err = c.Sync(within(t, time.Minute))
	}
	require.NoError(t, err)
	require.Empty(t, lost.take())
	require.Equal(t, adds.Load()+unknown.Load(), counter(s.value("shared")), "adds, of which %d with lost answers", unknown.Load())
	for g := range workers {
		require.Equal(t, strings.Join(appended[g], ""), string(s.value(fmt.Sprint("own", g))))
	}
	t.Logf("%d crashes, %d adds, %d with lost answers", crashes, adds.Load(), unknown.Load())
}

// work is one step of one worker: an add on a shared key, an append on its own, and a look whether
// what it appended is there.
func work(t *testing.T, c *client.Client, b *client.Batch, rng *rand.Rand, own []byte, g, i int, appended *[]string, adds, unknown *atomic.Int64) {
	ctx := context.Background()
	count := func(err error) {
		switch {
		case err == nil:
			adds.Add(1)
		case errors.Is(err, client.ErrAnswerLost):
			unknown.Add(1)
		case !errors.Is(err, client.ErrConnLost):
			t.Errorf("add: %v", err)
		}
	}
	text := fmt.Sprintf("%d.%d ", g, i)
	switch rng.IntN(3) {
	case 0:
		_, err := c.Add(ctx, []byte("shared"), 1)
		count(err)
		return
	case 1:
		n := 1 + rng.IntN(30)
		for range n {
			b.Add([]byte("shared"), 1)
		}
		if err := b.Do(ctx); err != nil {
			t.Errorf("batch: %v", err)
			return
		}
		for j := range n {
			count(b.Err(j))
		}
		return
	}
	_, err := c.Append(ctx, own, []byte(text))
	if err != nil && !errors.Is(err, client.ErrAnswerLost) {
		if !errors.Is(err, client.ErrConnLost) {
			t.Errorf("append: %v", err)
		}
		return
	}
	*appended = append(*appended, text)
	v, err := c.Get(ctx, own)
	if err != nil {
		if !errors.Is(err, client.ErrConnLost) {
			t.Errorf("get: %v", err)
		}
	} else if !bytes.HasSuffix(v, []byte(text)) {
		t.Errorf("get after append of %q: ...%q", text, v[max(0, len(v)-40):])
	}
}
