package client_test

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"runtime/metrics"
	"sync/atomic"
	"testing"
	"time"

	"rskv/client"
	"rskv/ipc"

	"github.com/stretchr/testify/require"
)

// garbageServer answers whatever comes first on a connection with the same bytes, and hangs up.
type garbageServer struct {
	path   string
	answer atomic.Pointer[[]byte]
}

func newGarbageServer(f *testing.F) *garbageServer {
	s := &garbageServer{path: filepath.Join(f.TempDir(), "s")}
	ln, err := net.Listen("unix", s.path)
	require.NoError(f, err)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go s.serve(conn) // until its client closes it
		}
	}()
	f.Cleanup(func() { _ = ln.Close() })
	return s
}

func (s *garbageServer) serve(conn net.Conn) {
	defer conn.Close()
	var first [1]byte
	if _, err := conn.Read(first[:]); err != nil {
		return
	}
	if _, err := conn.Write(*s.answer.Load()); err != nil {
		return
	}
	_ = conn.(*net.UnixConn).CloseWrite()
	_, _ = io.Copy(io.Discard, conn) // until the client has hung up as well
}

// fuzzCalls are calls of every form of answer there is; the first request of a client has the id 1.
var fuzzCalls = []func(ctx context.Context, c *client.Client) error{
	func(ctx context.Context, c *client.Client) error { _, err := c.Get(ctx, []byte("k")); return err },
	func(ctx context.Context, c *client.Client) error { _, err := c.Put(ctx, []byte("k"), nil); return err },
	func(ctx context.Context, c *client.Client) error { _, err := c.Add(ctx, []byte("k"), 1); return err },
	func(ctx context.Context, c *client.Client) error { _, err := c.TTL(ctx, []byte("k")); return err },
	func(ctx context.Context, c *client.Client) error {
		_, err := c.Append(ctx, []byte("k"), nil)
		return err
	},
	func(ctx context.Context, c *client.Client) error {
		_, err := c.MGet(ctx, [][]byte{[]byte("a"), []byte("b")})
		return err
	},
	func(ctx context.Context, c *client.Client) error { _, err := c.Len(ctx); return err },
	func(ctx context.Context, c *client.Client) error { return c.Ping(ctx) },
	func(ctx context.Context, c *client.Client) error { _, err := c.Hello(ctx, "fuzz"); return err },
	func(ctx context.Context, c *client.Client) error { _, err := c.Sync(ctx); return err },
	func(ctx context.Context, c *client.Client) error { _, err := c.Stats(ctx); return err },
	func(ctx context.Context, c *client.Client) error {
		_, err := c.Checkpoint(ctx, client.CheckpointOptions{})
		return err
	},
	func(ctx context.Context, c *client.Client) error { _, err := c.Checkpoints(ctx); return err },
	func(ctx context.Context, c *client.Client) error { _, err := c.Health(ctx); return err },
	func(ctx context.Context, c *client.Client) error { _, err := c.SlowLog(ctx, 10); return err },
	func(ctx context.Context, c *client.Client) error { _, err := c.Tasks(ctx); return err },
	func(ctx context.Context, c *client.Client) error { _, err := c.Compact(ctx, 0); return err },
	func(ctx context.Context, c *client.Client) error { _, err := c.ScrubStatus(ctx); return err },
	func(ctx context.Context, c *client.Client) error { _, _, err := c.TakeMonitored(ctx); return err },
	func(ctx context.Context, c *client.Client) error {
		_, err := c.Backup(ctx, io.Discard, nil)
		return err
	},
	func(ctx context.Context, c *client.Client) (last error) {
		for _, err := range c.Scan(ctx, client.ScanOptions{}) {
			last = err
		}
		return last
	},
	func(ctx context.Context, c *client.Client) error {
		// It goes on over any number of connections, so it is ended.
		ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		for range c.Watch(ctx, client.WatchOptions{}) {
			continue
		}
		return nil
	},
	func(ctx context.Context, c *client.Client) error {
		b := c.NewBatch()
		b.Get([]byte("k"))
		b.Put([]byte("k"), []byte("v"))
		return b.Do(ctx)
	},
}

// fuzzHeap is more than one connection takes of the heap, in bytes.
const fuzzHeap = 8 << 20

// FuzzAnswers: a daemon that answers with garbage makes a call panic or wait for ever, or makes the
// client take memory that the bytes only claim. With a session the garbage begins where the answer to
// hello belongs, else where that to the call does.
func FuzzAnswers(f *testing.F) {
	h := ipc.Hello{Server: "s", Version: "v", Protocol: ipc.ProtocolVersion, Limits: ipc.DefaultLimits()}
	hello := ipc.AppendHello(ipc.AppendResultHeader(nil, 1), &h)
	for call := range fuzzCalls {
		f.Add(uint8(call), false, ipc.AppendNilResult(nil, 1))
		f.Add(uint8(call), true, ipc.AppendIntResult(hello[:len(hello):len(hello)], 1, 7))
	}
	list := ipc.AppendArrayHeader(ipc.AppendResultHeader(nil, 1), 2)
	f.Add(uint8(5), false, ipc.AppendNil(ipc.AppendBin(list, []byte("v"))))
	f.Add(uint8(10), false, ipc.AppendUint(ipc.AppendStr(ipc.AppendMapHeader(ipc.AppendResultHeader(nil, 1), 1), "keys"), 3))
	f.Add(uint8(0), false, ipc.AppendErrorResponse(nil, 0, ipc.CodeBusy, "too many"))
	f.Add(uint8(21), false, ipc.AppendDurableNotification(ipc.AppendBoolResult(nil, 1, true), 3))
	f.Add(uint8(0), false, []byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	s := newGarbageServer(f)
	f.Fuzz(func(t *testing.T, call uint8, session bool, answer []byte) {
		s.answer.Store(&answer)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		options := []client.Option{client.WithRetryFor(0)}
		if session {
			options = append(options, client.WithSession())
		}
		begin := heapBytes()
		c, err := client.Dial(ctx, s.path, options...)
		if err == nil {
			err = fuzzCalls[int(call)%len(fuzzCalls)](ctx, c)
			_ = c.Close()
		}
		require.NotErrorIs(t, err, context.DeadlineExceeded, "it does not come to an end")
		require.Less(t, heapBytes()-begin, uint64(fuzzHeap+64*len(answer)))
	})
}

// heapBytes is how much has been allocated on the heap so far.
func heapBytes() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
