package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"rskv/client"
	"rskv/ioring/iotest/seeds"

	"github.com/stretchr/testify/require"
)

// realDaemon is rskvd as a process of its own, on one directory and socket.
type realDaemon struct {
	t       testing.TB
	program string
	dir     string
	socket  string
	args    []string     // besides
	log     bytes.Buffer // complete when the process has ended
	process *exec.Cmd
}

func buildDaemon(t testing.TB) *realDaemon {
	work := t.TempDir()
	d := &realDaemon{t: t, program: filepath.Join(work, "rskvd"), dir: filepath.Join(work, "data"), socket: filepath.Join(work, "s")}
	out, err := exec.Command("go", "build", "-o", d.program, "rskv/daemon/rskvd").CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			t.Logf("the daemon said:\n%s", d.log.Bytes())
		}
	})
	return d
}

func (d *realDaemon) start() {
	d.process = exec.Command(d.program, "--dir", d.dir, "--socket", d.socket, "--memory", "32MiB", "--commit-interval", "30ms")
	d.process.Args = append(d.process.Args, d.args...)
	d.process.Stdout, d.process.Stderr = &d.log, &d.log
	require.NoError(d.t, d.process.Start())
}

// kill is kill -9.
func (d *realDaemon) kill() {
	if d.process != nil {
		_ = d.process.Process.Kill()
		_ = d.process.Wait() // says that it was killed
		d.process = nil
	}
}

// cutter is a proxy before a daemon whose connections can be cut at any byte.
type cutter struct {
	ln   net.Listener
	path string
	wg   sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool // both sides of each
}

func newCutter(t testing.TB, socket string) *cutter {
	p := &cutter{path: filepath.Join(t.TempDir(), "p"), conns: map[net.Conn]bool{}}
	ln, err := net.Listen("unix", p.path)
	require.NoError(t, err)
	p.ln = ln
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("unix", socket)
			if err != nil {
				_ = conn.Close()
				continue
			}
			p.wg.Add(2)
			go p.pump(conn, far)
			go p.pump(far, conn)
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *cutter) pump(from, to net.Conn) {
	defer p.wg.Done()
	p.mu.Lock()
	p.conns[from] = true
	p.mu.Unlock()
	_, _ = io.Copy(to, from)
	_ = to.Close()
	p.mu.Lock()
	delete(p.conns, from)
	p.mu.Unlock()
}

func (p *cutter) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		_ = conn.Close()
	}
}

// dial connects to socket as soon as the daemon is there.
func (d *realDaemon) dial(socket string, opts ...client.Option) *client.Client {
	ctx := within(d.t, 2*time.Minute)
	for {
		c, err := client.Dial(ctx, socket, opts...)
		if err == nil {
			d.t.Cleanup(func() { _ = c.Close() })
			return c
		}
		require.NoError(d.t, ctx.Err(), "last: %v", err)
		time.Sleep(5 * time.Millisecond)
	}
}

// killWorker is one goroutine's part and what it knows of the outcome.
type killWorker struct {
	t    testing.TB
	c    *client.Client
	name string
	rng  *rand.Rand

	own, shared int64 // adds that took effect
	lost        int   // answers
	text        strings.Builder
	turn        int64           // of its chain of swaps
	tokens      map[string]bool // it put into the shared text; false: perhaps
	refused     map[string]bool // tokens whose swap was answered with no
}

// took reports whether a write took effect, which all do but those that were never sent.
func (w *killWorker) took(what string, err error) bool {
	if errors.Is(err, client.ErrAnswerLost) && !errors.Is(err, client.ErrSessionLost) {
		w.lost++
		return true
	}
	if err != nil && (errors.Is(err, client.ErrSessionLost) || !errors.Is(err, client.ErrConnLost)) {
		w.t.Errorf("%s %s: %v", w.name, what, err)
	}
	return err == nil
}

func (w *killWorker) step(ctx context.Context, i int) {
	switch w.rng.IntN(12) {
	case 0, 1, 2:
		sum, err := w.c.Add(ctx, []byte("own"+w.name), 1)
		if w.took("add", err) {
			w.own++
		}
		if err == nil && sum != w.own {
			w.t.Errorf("%s: sum %d, want %d", w.name, sum, w.own)
		}
	case 3, 4, 5:
		b := w.c.NewBatch()
		for range 1 + w.rng.IntN(20) {
			b.Add([]byte("shared"), 1)
		}
		if err := b.Do(ctx); err != nil {
			w.took("batch", err)
			return
		}
		for j := range b.Len() {
			if w.took("add in batch", b.Err(j)) {
				w.shared++
			}
		}
	case 6, 7, 8:
		text := fmt.Sprintf("%d ", i)
		if _, err := w.c.Append(ctx, []byte("text"+w.name), []byte(text)); w.took("append", err) {
			w.text.WriteString(text)
			v, err := w.c.Get(ctx, []byte("text"+w.name))
			if err == nil && string(v) != w.text.String() {
				w.t.Errorf("%s: reads %q after appending %q", w.name, tail(v), text)
			}
		}
	case 9, 10:
		var source []byte
		if w.turn > 0 {
			source = fmt.Append(nil, w.turn)
		}
		ok, err := w.c.CompareAndSwap(ctx, []byte("turn"+w.name), source, fmt.Append(nil, w.turn+1))
		if w.took("swap", err) {
			w.turn++
		}
		if err == nil && !ok {
			w.t.Errorf("%s: nobody else swaps, and it was not %d", w.name, w.turn-1)
		}
	default:
		w.swapShared(ctx, i)
	}
}

// swapShared adds a token to a text that all workers change, by swapping the whole of it.
func (w *killWorker) swapShared(ctx context.Context, i int) {
	v, err := w.c.Get(ctx, []byte("tokens"))
	if err != nil && !errors.Is(err, client.ErrNotFound) || len(v) > 16<<10 {
		return
	}
	token := fmt.Sprintf("%s.%d", w.name, i)
	ok, err := w.c.CompareAndSwap(ctx, []byte("tokens"), v, fmt.Appendf(v[:len(v):len(v)], "%s ", token))
	switch took := w.took("shared swap", err); {
	case err == nil && ok:
		w.tokens[token] = true
	case err == nil:
		w.refused[token] = true
	case took:
		w.tokens[token] = false
	}
}

func tail(b []byte) []byte { return b[max(0, len(b)-40):] }

// What could go wrong: after kill -9 of a real daemon, or a connection cut at any byte, a write that
// was answered is missing, one took effect twice, or a read shows a state between.
func TestSession_KillNine(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and kills a daemon")
	}
	seed := seeds.New(t)
	d := buildDaemon(t)
	d.start()
	var lost losses
	proxy := newCutter(t, d.socket)
	c := d.dial(proxy.path, client.WithSession(), client.WithRetryFor(time.Minute), client.WithBackoff(time.Millisecond, 20*time.Millisecond), lost.option())

	ctx := within(t, 5*time.Minute)
	stop := make(chan struct{})
	workers := make([]*killWorker, 8)
	var wg sync.WaitGroup
	for g := range workers {
		w := &killWorker{
			t: t, c: c, name: fmt.Sprint(g), rng: rand.New(rand.NewPCG(seed, uint64(g))),
			tokens: map[string]bool{}, refused: map[string]bool{},
		}
		workers[g] = w
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					w.step(ctx, i)
				}
			}
		}()
	}
	rng := rand.New(rand.NewPCG(seed, 1000))
	const kills = 8
	for range kills {
		for range rng.IntN(10) {
			time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
			proxy.cut()
		}
		time.Sleep(time.Duration(50+rng.IntN(200)) * time.Millisecond)
		d.kill()
		d.start()
	}
	time.Sleep(100 * time.Millisecond)
	close(stop)
	wg.Wait()
	require.NoError(t, syncUntilDone(ctx, c))
	require.Empty(t, lost.take())
	checkKilled(ctx, t, c, workers)

	d.kill() // and all of it was durable
	d.start()
	checkKilled(ctx, t, d.dial(d.socket), workers)
}

// syncUntilDone syncs, again if a connection was lost over it.
func syncUntilDone(ctx context.Context, c *client.Client) error {
	for {
		if _, err := c.Sync(ctx); !errors.Is(err, client.ErrConnLost) {
			return err
		}
	}
}

// checkKilled compares what is stored with what the workers know.
func checkKilled(ctx context.Context, t testing.TB, c *client.Client, workers []*killWorker) {
	get := func(key string) []byte {
		v, err := c.Get(ctx, []byte(key))
		if !errors.Is(err, client.ErrNotFound) {
			require.NoError(t, err)
		}
		return v
	}
	shared, lost, writes := int64(0), 0, int64(0)
	for _, w := range workers {
		require.Equal(t, w.own, counter(get("own"+w.name)), "adds of %s", w.name)
		require.Equal(t, w.text.String(), string(get("text"+w.name)))
		if w.turn > 0 {
			require.Equal(t, fmt.Sprint(w.turn), string(get("turn"+w.name)))
		}
		shared += w.shared
		lost += w.lost
		writes += w.own + w.turn
	}
	require.Equal(t, shared, counter(get("shared")))
	times := map[string]int{}
	for _, token := range strings.Fields(string(get("tokens"))) {
		times[token]++
	}
	for _, w := range workers {
		for token, sure := range w.tokens {
			if n := times[token]; n > 1 || sure && n == 0 {
				t.Errorf("token %s is there %d times", token, n)
			}
		}
		for token := range w.refused {
			require.Zero(t, times[token], "token %s was not swapped in", token)
		}
	}
	t.Logf("%d shared adds, %d own adds and swaps, %d answers lost", shared, writes, lost)
	require.Positive(t, shared)
}
