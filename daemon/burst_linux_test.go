package daemon

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rskv/engine"
	"rskv/ipc"
)

// BenchmarkBurst is all that the daemon does for the requests of a burst, but for
// read(2) and write(2), on one thread, in processor time of that thread: a figure
// that neither the client nor what else runs on the machine takes part in. With the
// tag nometrics it is the same without counting.
func BenchmarkBurst(b *testing.B) {
	const keys, bursts = 50_000, 64
	c := loneConn(b, 128<<20)
	c.output.try = func(uintptr) bool { c.output.trySent = len(c.output.tryBytes); return true }
	value := make([]byte, 100)
	feed := func(burst []byte) {
		c.in.buf, c.in.begin, c.in.end = burst, 0, len(burst)
		if !c.consume() {
			b.Fatal("the stream is broken")
		}
	}
	for i := range keys {
		feed(ipc.AppendPut(nil, 1, benchKey(uint64(i)), value))
	}
	for _, depth := range []int{1, 16, 128} {
		for _, write := range []bool{false, true} {
			b.Run(fmt.Sprintf("put=%t/depth=%d", write, depth), func(b *testing.B) {
				rng := rand.New(rand.NewPCG(1, 2))
				var list [bursts][]byte
				for i := range list {
					for range depth {
						if key := benchKey(rng.Uint64N(keys)); write {
							list[i] = ipc.AppendPut(list[i], 1, key, value)
						} else {
							list[i] = ipc.AppendGet(list[i], 1, key)
						}
					}
				}
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				b.ReportAllocs()
				begin := threadTime(b)
				for i := range b.N/depth + 1 {
					feed(list[i%bursts])
				}
				b.ReportMetric(float64(threadTime(b)-begin)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// loneConn is a connection whose requests the test makes, on a store of its own.
func loneConn(b testing.TB, memory int64) *conn {
	store, err := engine.Open(engine.Options{Dir: b.TempDir(), Memory: memory, CommitInterval: -1})
	require.NoError(b, err)
	s := newServer(Defaults(), nil)
	s.store = store
	s.pulse.init()
	c, err := newConn(s, benchSocket(b), peer{}, roleAdmin, nil)
	require.NoError(b, err)
	b.Cleanup(func() {
		close(c.quit)
		c.workers.Wait()
		c.session.Close()
		require.NoError(b, store.Close())
	})
	return c
}

// benchSocket is one end of a connection that nobody uses.
func benchSocket(b testing.TB) *net.UnixConn {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(b, err)
	for _, fd := range pair {
		f := os.NewFile(uintptr(fd), "")
		conn, err := net.FileConn(f)
		require.NoError(b, err)
		_ = f.Close()
		b.Cleanup(func() { _ = conn.Close() })
		if fd == pair[1] {
			return conn.(*net.UnixConn)
		}
	}
	return nil
}

// threadTime is the processor time of the calling thread.
func threadTime(b *testing.B) time.Duration {
	var t unix.Timespec
	require.NoError(b, unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t))
	return time.Duration(t.Nano())
}
