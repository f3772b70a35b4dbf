//go:build linux

package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ipc"
)

var (
	loadConnections = flag.Int("load.connections", 0, "connections that TestLoad has open at a time; 0: 1500, 300 with -short")
	loadTime        = flag.Duration("load.time", 0, "how long TestLoad has all of them ask; 0: 2s, 500ms with -short")
)

// loading is one daemon under load.
type loading struct {
	*faulty
	connections int
	time        time.Duration
	idle        footprint // before anybody came
}

// footprint is what a daemon takes.
type footprint struct {
	descriptors, goroutines int
	heap, resident          int64 // bytes
}

// use asks the kernel and the daemon, after a garbage collection.
func (l *loading) use() footprint {
	l.t.Helper()
	_, _ = l.http("/debug/pprof/heap?gc=1")
	_, text := l.http("/metrics")
	value := func(name string) int64 {
		_, rest, ok := strings.Cut(text, "\n"+name+" ")
		require.True(l.t, ok, name)
		number, _, _ := strings.Cut(rest, "\n")
		v, err := strconv.ParseFloat(number, 64)
		require.NoError(l.t, err)
		return int64(v)
	}
	return footprint{int(value("process_open_fds")), int(value("go_goroutines")), value("go_memstats_heap_alloc_bytes"), value("process_resident_memory_bytes")}
}

// flatSlack is what may come besides: segments of the log, goroutines of its tasks.
// Of the heap it is what sessions at a time have had besides: slots are used again,
// and kept.
const flatSlack = 12

// flat checks that all of a load is gone: what it took is given back.
func (l *loading) flat(after string) {
	l.t.Helper()
	var now footprint
	for began := time.Now(); time.Since(began) < 6*patience; time.Sleep(20 * time.Millisecond) {
		now = l.use()
		if now.descriptors <= l.idle.descriptors+flatSlack && now.goroutines <= l.idle.goroutines+flatSlack && now.heap <= l.idle.heap+4<<20+int64(l.connections)<<10 {
			return
		}
	}
	l.t.Fatalf("%s: left behind: %+v, before: %+v", after, now, l.idle)
}

// open makes n connections, several at a time, each of which has been answered.
func (l *loading) open(n int) []net.Conn {
	l.t.Helper()
	all := make([]net.Conn, n)
	var next atomic.Int64
	l.together(16, func(int) error {
		for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
			conn, err := net.Dial("unix", l.socket)
			if err != nil {
				return err
			}
			all[i] = conn
			if err := ping(conn); err != nil {
				return err
			}
		}
		return nil
	})
	return all
}

// together runs n of work at once; an error of any fails the test.
func (l *loading) together(n int, work func(i int) error) {
	l.t.Helper()
	var group sync.WaitGroup
	errs := make(chan error, n)
	for i := range n {
		group.Go(func() {
			if err := work(i); err != nil {
				errs <- err
			}
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		require.NoError(l.t, err)
	}
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		_ = c.Close()
	}
}

// exchange sends a request and compares the answer.
func exchange(conn net.Conn, request, want []byte) error {
	_ = conn.SetDeadline(time.Now().Add(3 * patience))
	if _, err := conn.Write(request); err != nil {
		return err
	}
	got := make([]byte, len(want))
	if n, err := io.ReadFull(conn, got); err != nil {
		return fmt.Errorf("%w after %q", err, got[:n])
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("answered %q, want %q", got, want)
	}
	return nil
}

func ping(conn net.Conn) error {
	return exchange(conn, []byte("\x94\x00\x01\xa4ping\x90"), ipc.AppendStrResult(nil, 1, "pong"))
}

// TestLoad: connections, idle or busy, slow, vanishing or coming again and again,
// that cost the others their answers, or leave something behind.
func TestLoad(t *testing.T) {
	l := &loading{connections: *loadConnections, time: *loadTime}
	if l.connections == 0 {
		if l.connections = 1500; testing.Short() {
			l.connections = 300
		}
	}
	if l.time == 0 {
		if l.time = 2 * time.Second; testing.Short() {
			l.time = 500 * time.Millisecond
		}
	}
	l.faulty = startFaulty(t, filepath.Join(place(t), "data"), nil, []string{
		"--max-connections", strconv.Itoa(l.connections + 100), "--memory", "64MiB", "--answer-timeout", "10m", "--request-timeout", "10m",
	})
	require.NotContains(t, l.stderr.String(), "limit of open files")
	warm := l.open(10)
	closeAll(warm)
	time.Sleep(50 * time.Millisecond)
	l.idle = l.use()
	for _, part := range []struct {
		name string
		run  func(*loading)
	}{{"idle and active", (*loading).crowd}, {"slow readers", (*loading).deaf}, {"vanished", (*loading).vanish}, {"storm", (*loading).storm}} {
		part.run(l)
		l.flat(part.name)
	}
	require.NoError(t, l.end())
	require.NotContains(t, l.stderr.String(), "level=ERROR")
}

// crowd opens all connections, leaves them idle, and then has all of them ask.
func (l *loading) crowd() {
	conns := l.open(l.connections)
	defer closeAll(conns)
	full := l.use()
	require.GreaterOrEqual(l.t, full.descriptors, l.connections)
	each := (full.heap - l.idle.heap) / int64(l.connections)
	l.t.Logf("%d idle connections: %d KiB of heap and %d KiB of memory each, %d goroutines more", l.connections,
		each>>10, (full.resident-l.idle.resident)/int64(l.connections)>>10, full.goroutines-l.idle.goroutines)
	require.Less(l.t, each, int64(64<<10), "bytes of heap for an idle connection")

	var asked atomic.Int64
	until := time.Now().Add(l.time)
	const askers = 32
	l.together(askers, func(a int) error {
		rng := rand.New(rand.NewPCG(uint64(a), 1))
		for time.Now().Before(until) {
			i := a + askers*rng.IntN((len(conns)-a+askers-1)/askers)
			key, value := fmt.Appendf(nil, "connection %d", i), fmt.Appendf(nil, "%d", rng.Uint64())
			request := ipc.AppendGet(ipc.AppendPut(nil, 1, key, value), 2, key)
			if err := exchange(conns[i], request, ipc.AppendBinResult(ipc.AppendBoolResult(nil, 1, true), 2, value)); err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
			asked.Add(2)
		}
		return nil
	})
	l.t.Logf("%d requests a second over them", asked.Load()/int64(max(l.time.Seconds(), 1)))
	// Nobody was forgotten.
	l.together(askers, func(a int) error {
		for i := a; i < len(conns); i += askers {
			if err := ping(conns[i]); err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
		}
		return nil
	})
}

// deaf asks for much on many connections and reads nothing: others go on, and the
// daemon holds no more of it than it may.
func (l *loading) deaf() {
	other := l.open(1)[0]
	defer other.Close()
	value := bytes.Repeat([]byte("v"), 1<<20)
	require.NoError(l.t, exchange(other, ipc.AppendPut(nil, 1, []byte("big"), value), ipc.AppendBoolResult(nil, 1, true)))
	conns := l.open(l.connections / 5)
	defer closeAll(conns)
	l.together(16, func(a int) error {
		for i := a; i < len(conns); i += 16 {
			var requests []byte
			for id := range uint32(100) { // 100 MiB of answers each
				requests = ipc.AppendGet(requests, id, []byte("big"))
			}
			if _, err := conns[i].Write(requests); err != nil {
				return err
			}
		}
		return nil
	})
	for range 200 {
		require.NoError(l.t, ping(other))
	}
	now := l.use()
	l.t.Logf("%d deaf clients: %d MiB of heap, %d MiB resident", len(conns), now.heap>>20, now.resident>>20)
	require.Less(l.t, now.heap, int64(1<<30), "answers that nobody reads are piled up (max_queued_all is 256 MiB)")
}

// vanish leaves in the middle of requests, and with answers outstanding.
func (l *loading) vanish() {
	for range 3 {
		conns := l.open(l.connections / 3)
		l.together(16, func(a int) error {
			for i := a; i < len(conns); i += 16 {
				request := ipc.AppendPut(nil, 2, []byte("half"), make([]byte, 20_000))
				if i%2 == 0 {
					request = request[:len(request)/(2+i%7)]
				}
				if _, err := conns[i].Write(request); err != nil && !errors.Is(err, syscall.EPIPE) {
					return err
				}
				_ = conns[i].Close()
			}
			return nil
		})
	}
}

// storm connects again and again.
func (l *loading) storm() {
	var done atomic.Int64
	until := time.Now().Add(l.time)
	l.together(64, func(int) error {
		for time.Now().Before(until) {
			conn, err := net.Dial("unix", l.socket)
			if err != nil {
				return err
			}
			if err := ping(conn); err != nil {
				return err
			}
			_ = conn.Close()
			done.Add(1)
		}
		return nil
	})
	l.t.Logf("%d connections a second came and went", done.Load()/int64(max(l.time.Seconds(), 1)))
}

// TestLoad_Overload: more than the daemon takes that waits instead of being told,
// or a daemon that stays full when there is room again.
func TestLoad_Overload(t *testing.T) {
	const most = 50
	l := &loading{faulty: startFaulty(t, filepath.Join(place(t), "data"), nil, []string{"--max-connections", strconv.Itoa(most)})}
	conns := l.open(most)
	busy := ipc.AppendErrorResponse(nil, 0, ipc.CodeBusy, "too many connections (max_connections)")
	for range 300 {
		conn, err := net.Dial("unix", l.socket)
		require.NoError(t, err)
		_ = conn.SetDeadline(time.Now().Add(patience))
		got, err := io.ReadAll(conn)
		require.True(t, err == nil || errors.Is(err, syscall.ECONNRESET), "%v", err)
		require.Equal(t, string(busy), string(got))
		_ = conn.Close()
	}
	for _, c := range conns {
		require.NoError(t, ping(c), "who was served is not any more")
	}
	code, text := l.http("/livez")
	require.Equal(t, 200, code, text)
	closeAll(conns)
	require.Eventually(t, func() bool {
		conn, err := net.Dial("unix", l.socket)
		require.NoError(t, err)
		defer conn.Close()
		return ping(conn) == nil
	}, patience, 5*time.Millisecond, "it stays full")
	require.NoError(t, l.end())
}
