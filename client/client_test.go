package client_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"rskv/client"
	"rskv/client/rskvtest"
	"rskv/ipc"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(withDaemon{m}) }

// withDaemon runs tests beside a daemon on the default socket, which the examples use.
type withDaemon struct{ *testing.M }

func (w withDaemon) Run() int {
	s, err := rskvtest.Start(rskvtest.Setting("slowlog_threshold", "1us"), rskvtest.Setting("ordered", "true"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "daemon for the examples:", err)
		return 1
	}
	os.Setenv("RSKV_SOCKET", s.Socket())
	code := w.M.Run()
	if err := s.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "daemon for the examples:", err)
		code = 1
	}
	return code
}

// What could go wrong: a method sends other parameters than it should, or reads its answer as
// something else.
func TestClient_EveryMethod(t *testing.T) {
	s := newFakeServer(t)
	c := dialFake(t, s)
	ctx := within(t, time.Minute)
	k := []byte("k")

	require.NoError(t, c.Ping(ctx))
	_, err := c.Get(ctx, k)
	require.ErrorIs(t, err, client.ErrNotFound)

	stored, err := c.Put(ctx, k, []byte("v"), client.IfPresent)
	require.NoError(t, err)
	require.False(t, stored)
	stored, err = c.Put(ctx, k, []byte("v"), client.IfAbsent, client.Sync)
	require.NoError(t, err)
	require.True(t, stored)
	there, err := c.Exists(ctx, k)
	require.NoError(t, err)
	require.True(t, there)
	v, err := c.Get(ctx, k)
	require.NoError(t, err)
	require.Equal(t, "v", string(v))
	v, err = c.GetInto(ctx, []byte("<"), k)
	require.NoError(t, err)
	require.Equal(t, "<v", string(v))

	swapped, err := c.CompareAndSwap(ctx, k, []byte("x"), nil)
	require.NoError(t, err)
	require.False(t, swapped)
	swapped, err = c.CompareAndSwap(ctx, k, []byte("v"), []byte{})
	require.NoError(t, err)
	require.True(t, swapped)
	v, err = c.Get(ctx, k)
	require.NoError(t, err, "an empty value is not an absent one")
	require.Empty(t, v)
	swapped, err = c.CompareAndSwap(ctx, k, []byte{}, nil)
	require.NoError(t, err)
	require.True(t, swapped)
	swapped, err = c.CompareAndSwap(ctx, k, nil, []byte("ab"))
	require.NoError(t, err)
	require.True(t, swapped)

	n, err := c.Append(ctx, k, []byte("cd"))
	require.NoError(t, err)
	require.Equal(t, 4, n)
	_, err = c.Add(ctx, k, 1)
	require.ErrorIs(t, err, client.ErrNotInteger)
	sum, err := c.Add(ctx, []byte("n"), -5)
	require.NoError(t, err)
	require.EqualValues(t, -5, sum)

	stores, err := c.MPut(ctx, []client.Pair{{Key: []byte("a"), Value: []byte("1")}, {Key: []byte("b"), Value: nil}})
	require.NoError(t, err)
	require.Equal(t, 2, stores)
	values, err := c.MGet(ctx, [][]byte{[]byte("b"), []byte("none"), []byte("a")})
	require.NoError(t, err)
	require.Equal(t, [][]byte{{}, nil, []byte("1")}, values)
	n, err = c.MDelete(ctx, [][]byte{[]byte("b"), []byte("none")})
	require.NoError(t, err)
	require.Equal(t, 1, n)
	n, err = c.MDelete(ctx, [][]byte{[]byte("a")}, client.Blind)
	require.NoError(t, err)
	require.Zero(t, n)

	there, err = c.Delete(ctx, k)
	require.NoError(t, err)
	require.True(t, there)
	there, err = c.Delete(ctx, []byte("n"), client.Blind, client.Sync)
	require.NoError(t, err)
	require.False(t, there)

	size, err := c.Len(ctx)
	require.NoError(t, err)
	require.Zero(t, size)
	_, err = c.LenExact(ctx)
	require.NoError(t, err)
	durable, err := c.Sync(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 41, durable)
	stats, err := c.Stats(ctx)
	require.NoError(t, err)
	require.Equal(t, int64(0), stats["keys"], "a number has the type that Stats promises, however small it is")
	_, err = c.Config(ctx)
	require.NoError(t, err)
	config, err := c.SetConfig(ctx, map[string]string{"log_level": "debug"})
	require.NoError(t, err)
	require.Equal(t, "debug", config["log_level"])
	h, err := c.Hello(ctx, "test")
	require.NoError(t, err)
	require.Equal(t, ipc.ClassAdmin, h.Role)
	require.Equal(t, ipc.DefaultLimits(), h.Limits)
	cp, err := c.Checkpoint(ctx, client.CheckpointOptions{Kind: ipc.CheckpointLog, Cookie: []byte("abc")})
	require.NoError(t, err)
	require.Equal(t, client.Checkpoint{Version: 7, Durable: 300, Bytes: 3, Took: 70 * time.Second}, cp)
}

// What could go wrong: an answer that comes out of order or in pieces reaches the wrong caller.
func TestClient_AnswersFindTheirCaller(t *testing.T) {
	for _, mode := range []string{"in order", "shuffled", "byte by byte"} {
		t.Run(mode, func(t *testing.T) {
			s := newFakeServer(t)
			s.shuffle, s.dribble = mode == "shuffled", mode == "byte by byte"
			c := dialFake(t, s)
			ctx := within(t, time.Minute)
			var wg sync.WaitGroup
			for g := range 16 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for i := range 100 {
						key := []byte(fmt.Sprintf("%d-%d", g, i))
						if _, err := c.Put(ctx, key, key); err != nil {
							t.Error(err)
							return
						}
						if v, err := c.Get(ctx, key); err != nil || !bytes.Equal(v, key) {
							t.Errorf("get %s: %q, %v", key, v, err)
							return
						}
					}
				}()
			}
			wg.Wait()
		})
	}
}

// What could go wrong: a long answer is cut where the read buffer ends, or the buffer is not reused
// right behind one.
func TestClient_LongValues(t *testing.T) {
	c := dialFake(t, newFakeServer(t))
	ctx := within(t, time.Minute)
	for _, n := range []int{0, 1, 255, 256, 65_000, 65_535, 65_536, 1 << 20, 5<<20 + 1, ipc.MaxValue, 3} {
		want := bytes.Repeat([]byte{byte(n), 7, byte(n >> 8)}, n/3+1)[:n]
		_, err := c.Put(ctx, []byte("k"), want)
		require.NoError(t, err)
		got, err := c.Get(ctx, []byte("k"))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "%d bytes", n)
		got, err = c.GetInto(ctx, nil, []byte("k"))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "%d bytes", n)
	}
}

// What could go wrong: a request the daemon would hang up over is sent all the same.
func TestClient_RefusesWhatHasNoRoom(t *testing.T) {
	s := newFakeServer(t)
	c := dialFake(t, s)
	ctx := within(t, time.Minute)
	_, err := c.Get(ctx, nil)
	require.ErrorIs(t, err, client.ErrBadRequest)
	_, err = c.Get(ctx, make([]byte, ipc.MaxKey+1))
	require.ErrorIs(t, err, client.ErrKeyTooLarge)
	require.ErrorIs(t, err, client.ErrTooLarge)
	_, err = c.Put(ctx, []byte("k"), make([]byte, ipc.MaxValue+1))
	require.ErrorIs(t, err, client.ErrValueTooLarge)
	big := make([]byte, ipc.MaxValue)
	pairs := []client.Pair{}
	for i := range 5 {
		pairs = append(pairs, client.Pair{Key: []byte{byte(i + 1)}, Value: big})
	}
	_, err = c.MPut(ctx, pairs)
	require.ErrorIs(t, err, client.ErrRequestTooLarge)
	_, err = c.Put(ctx, []byte("k"), nil, client.IfAbsent, client.IfPresent)
	require.ErrorIs(t, err, client.ErrBadRequest)
	_, err = c.Delete(ctx, []byte("k"), client.IfAbsent)
	require.ErrorIs(t, err, client.ErrBadRequest)
	require.ErrorContains(t, err, `del: unknown option "if"`, "this one is for the daemon to say")
	require.Zero(t, s.received(ipc.MethodGet)+s.received(ipc.MethodPut)+s.received(ipc.MethodMPut))
}

// What could go wrong: a code of the daemon's is not found by errors.Is, or its sentence is lost.
func TestClient_ErrorsHaveSentinels(t *testing.T) {
	s := newFakeServer(t)
	var code ipc.Code
	s.hook = func(s *fakeServer, conn net.Conn, q *ipc.Request) bool {
		_, _ = conn.Write(ipc.AppendErrorResponse(nil, q.ID, code, "because"))
		return true
	}
	c := dialFake(t, s)
	for want, sentinel := range map[ipc.Code]error{
		ipc.CodeBadRequest: client.ErrBadRequest, ipc.CodeUnknownMethod: client.ErrUnknownMethod,
		ipc.CodeKeyTooLarge: client.ErrKeyTooLarge, ipc.CodeValueTooLarge: client.ErrValueTooLarge,
		ipc.CodeRequestTooLarge: client.ErrRequestTooLarge, ipc.CodeAnswerTooLarge: client.ErrAnswerTooLarge,
		ipc.CodeNotInteger: client.ErrNotInteger, ipc.CodeOverflow: client.ErrOverflow,
		ipc.CodeForbidden: client.ErrForbidden, ipc.CodeBusy: client.ErrBusy,
		ipc.CodeDiskFull: client.ErrDiskFull, ipc.CodeReadOnly: client.ErrReadOnly,
		ipc.CodeCorrupt: client.ErrCorrupt, ipc.CodeIO: client.ErrIO,
		ipc.CodeSessionUnknown: client.ErrSessionUnknown, ipc.CodeShuttingDown: client.ErrShuttingDown,
		ipc.CodeInternal: client.ErrInternal, "FromTheFuture": ipc.Code("FromTheFuture"),
	} {
		code = want
		_, err := c.Get(within(t, time.Minute), []byte("k"))
		require.ErrorIs(t, err, sentinel)
		require.Equal(t, strings.HasSuffix(string(want), "TooLarge"), isTooLarge(err))
		require.EqualError(t, err, string(want)+": because")
		require.NotErrorIs(t, err, client.ErrNotFound)
	}
}

func isTooLarge(err error) bool { return errors.Is(err, client.ErrTooLarge) }

// What could go wrong: answers of a batch are mixed up, its errors spoil one another, or a second
// round sees the first one's.
func TestBatch(t *testing.T) {
	s := newFakeServer(t)
	s.shuffle = true
	c := dialFake(t, s)
	ctx := within(t, time.Minute)
	b := c.NewBatch()
	require.NoError(t, b.Do(ctx), "an empty one")
	for round := range 3 {
		for i := range 300 {
			b.Put(fmt.Appendf(nil, "%d", i), fmt.Appendf(nil, "%d.%d", round, i))
		}
		require.NoError(t, b.Do(ctx))
		for i := range 300 {
			ok, err := b.Bool(i)
			require.NoError(t, err)
			require.True(t, ok)
		}
		require.Equal(t, 0, b.Get([]byte("none")))
		for i := range 300 {
			b.Get(fmt.Appendf(nil, "%d", i))
		}
		add := b.Add([]byte("7"), 1)
		app := b.Append(fmt.Appendf(nil, "app%d", round), []byte("xyz"))
		del, ex := b.Delete([]byte("none")), b.Exists([]byte("7"))
		cas := b.CompareAndSwap([]byte("8"), nil, nil)
		require.Equal(t, 306, b.Len())
		require.NoError(t, b.Do(ctx))
		_, err := b.Value(0)
		require.ErrorIs(t, err, client.ErrNotFound)
		require.NoError(t, b.Err(0))
		for i := range 300 {
			v, err := b.Value(i + 1)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("%d.%d", round, i), string(v))
		}
		_, err = b.Int(add)
		require.ErrorIs(t, err, client.ErrNotInteger)
		require.ErrorIs(t, b.Err(add), client.ErrNotInteger)
		n, err := b.Int(app)
		require.NoError(t, err)
		require.EqualValues(t, 3, n)
		for i, want := range map[int]bool{del: false, ex: true, cas: false} {
			got, err := b.Bool(i)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
		_, err = b.Value(del)
		require.ErrorIs(t, err, client.ErrProtocol, "a bool is no value")
	}
	b.Reset()
	b.Put([]byte("k"), nil)
	b.Put(nil, nil)
	puts := s.received(ipc.MethodPut)
	require.ErrorIs(t, b.Do(ctx), client.ErrBadRequest)
	require.Equal(t, puts, s.received(ipc.MethodPut), "nothing was sent")
	require.Zero(t, b.Len())
}

// What could go wrong: a future gives another's answer, or gives it twice.
func TestFuture(t *testing.T) {
	s := newFakeServer(t)
	s.shuffle = true
	c := dialFake(t, s)
	ctx := within(t, time.Minute)
	var puts []*client.Future[bool]
	for i := range 500 {
		puts = append(puts, c.PutAsync(ctx, fmt.Appendf(nil, "%d", i), fmt.Appendf(nil, "v%d", i)))
	}
	for _, p := range puts {
		ok, err := p.Wait(ctx)
		require.NoError(t, err)
		require.True(t, ok)
		_, err = p.Wait(ctx)
		require.Error(t, err)
	}
	add, del := c.AddAsync(ctx, []byte("n"), 3), c.DeleteAsync(ctx, []byte("1"))
	get, none, bad := c.GetAsync(ctx, []byte("499")), c.GetAsync(ctx, []byte("x")), c.GetAsync(ctx, nil)
	n, err := add.Wait(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 3, n)
	there, err := del.Wait(ctx)
	require.NoError(t, err)
	require.True(t, there)
	v, err := get.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "v499", string(v))
	_, err = none.Wait(ctx)
	require.ErrorIs(t, err, client.ErrNotFound)
	_, err = bad.Wait(ctx)
	require.ErrorIs(t, err, client.ErrBadRequest)
}
