package daemon

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ipc"
)

// follower applies what a watch tells.
type applied struct {
	w     *wire
	state map[string]string
	at    int64 // last commit
	last  int64 // address of the last change
}

func (d *running) watch(o opt) *applied {
	d.t.Helper()
	a := &applied{w: d.dial(), state: map[string]string{}}
	got := a.w.ask("watch", o)
	require.Empty(d.t, got.code, got.reason)
	a.at = got.result.(int64)
	return a
}

// take takes the next notification. It returns the method.
func (a *applied) take() string {
	t := a.w.t
	t.Helper()
	n := a.w.next()
	switch n.method {
	case "change":
		require.Len(t, n.params, 4)
		at := n.params[0].(int64)
		require.GreaterOrEqual(t, at, a.at)
		require.Greater(t, at, a.last)
		a.last = at
		key := string(n.params[2].([]byte))
		if n.params[1] == "del" {
			require.Nil(t, n.params[3])
			delete(a.state, key)
		} else {
			require.Equal(t, "put", n.params[1])
			a.state[key] = string(n.params[3].([]byte))
		}
	case "commit":
		require.Len(t, n.params, 1)
		require.GreaterOrEqual(t, n.params[0], a.at)
		a.at = n.params[0].(int64)
	}
	return n.method
}

// until takes notifications up to the first of a method.
func (a *applied) until(method string) {
	a.w.t.Helper()
	for {
		got := a.take()
		if got == method {
			return
		}
		require.NotEqual(a.w.t, "lagged", got)
	}
}

var synced = opt{"sync": true}

// TestWatch_Stream: changes that are not told, told before they are durable, of
// other keys, or without a place to go on from.
func TestWatch_Stream(t *testing.T) {
	d := start(t, func(c *Config) { c.CommitInterval = 0; c.MaxWatches = 3 })
	w := d.dial()
	w.want(true, "put", []byte("a0"), []byte("before"), synced)
	all, some := d.watch(opt{}), d.watch(opt{"prefix": []byte("b"), "from": nil})
	large := bytes.Repeat([]byte("large"), 60_000)
	w.want(true, "put", []byte("a"), []byte("1"))
	w.want(true, "put", []byte("b"), large)
	w.want(int64(2), "mput", []any{[]any{[]byte("a"), []byte("2")}, []any{[]byte("bb"), []byte{}}}, synced)
	for _, f := range []*applied{all, some} {
		f.until("commit")
	}
	require.Equal(t, map[string]string{"a": "2", "b": string(large), "bb": ""}, all.state)
	require.Equal(t, map[string]string{"b": string(large), "bb": ""}, some.state)
	w.want(true, "del", []byte("b"), synced)
	all.until("commit")
	require.Equal(t, map[string]string{"a": "2", "bb": ""}, all.state)

	// The connection of a watch is one like any other.
	all.w.want("pong", "ping")
	all.w.refuse(ipc.CodeBadRequest, "watch", opt{})
	all.w.want(true, "put", []byte("own"), []byte("x"), synced)
	for all.state["own"] == "" {
		all.until("commit")
	}
	other := d.watch(opt{})
	w.refuse(ipc.CodeBusy, "watch", opt{})
	require.EqualValues(t, 3, w.ask("stats").result.(map[string]any)["daemon_watches"])
	require.NoError(t, other.w.conn.Close())
	require.Eventually(t, func() bool { return w.ask("stats").result.(map[string]any)["daemon_watches"] == int64(2) }, patience, time.Millisecond)

	// From a commit, after a restart.
	from := all.at
	w.want(true, "put", []byte("b3"), []byte("3"))
	d.stop()
	all.w.closed()
	d = startWith(t, d.cfg)
	again := d.watch(opt{"from": from})
	require.Equal(t, from, again.at)
	again.until("commit")
	require.Equal(t, map[string]string{"b3": "3"}, again.state)
	w = d.dial()
	w.want(true, "del", []byte("b3"), synced)
	for len(again.state) > 0 { // a commit without a change may come first
		again.until("commit")
	}
	again = d.watch(opt{"from": 0})
	again.until("commit")
	require.Equal(t, map[string]string{"a0": "before"}, again.state)
	w.refuse(ipc.CodeCursorLost, "watch", opt{"from": from + 16})
	w.refuse(ipc.CodeCursorLost, "watch", opt{"from": 1 << 40})
	w.want("pong", "ping")
}

// TestWatch_Notification: a watch that is asked for without an answer.
func TestWatch_Notification(t *testing.T) {
	d := start(t, nil)
	w := d.dial()
	w.send(notification("watch", opt{"from": 0}))
	w.want(true, "put", []byte("k"), []byte("v"), synced)
	for n := w.next(); n.method != "change"; n = w.next() {
	}
}

// TestWatch_Idle: where to go on is not told while nothing is changed that the
// watch is about, so that compaction passes it.
func TestWatch_Idle(t *testing.T) {
	d := start(t, nil)
	begun := time.Now()
	f := d.watch(opt{"prefix": []byte("never")})
	w := d.dial()
	at := f.at
	for i := range 30 {
		w.want(true, "put", fmt.Appendf(nil, "k%d", i), []byte("v"), synced)
	}
	f.until("commit")
	require.Greater(t, f.at, at)
	require.GreaterOrEqual(t, time.Since(begun), followIdle/2)
	require.Empty(t, f.state)
}

// TestWatch_Slow: a client that does not take its notifications holds writers up,
// fills the daemon's memory, or is not told from where to go on, and misses
// something when it does.
func TestWatch_Slow(t *testing.T) {
	d := start(t, func(c *Config) { c.WatchTimeout = 300 * time.Millisecond; c.CommitInterval = 10 * time.Millisecond })
	f := d.watch(opt{})
	w := d.dial()
	state := map[string]string{}
	rng := rand.New(rand.NewPCG(1, 1))
	churn := func(n int) {
		for range n {
			k, v := fmt.Sprint(rng.IntN(500)), fmt.Sprint(rng.Uint64(), string(make([]byte, rng.IntN(5000))))
			if rng.IntN(5) == 0 {
				delete(state, k)
				w.ask("del", []byte(k))
			} else {
				state[k] = v
				w.want(true, "put", []byte(k), []byte(v))
			}
		}
		w.ask("sync")
	}
	before := f.at
	churn(10)
	f.until("commit") // it keeps up for a while
	require.Greater(t, f.at, before, "nothing was told")
	churn(5000)
	require.Eventually(t, func() bool { return w.ask("stats").result.(map[string]any)["daemon_watches_lagged"] == int64(1) }, patience, 10*time.Millisecond)
	stats := w.ask("stats").result.(map[string]any)
	require.LessOrEqual(t, stats["daemon_queued_bytes"].(int64), int64(2*followQueued))
	require.Equal(t, int64(0), stats["daemon_watches"])
	churn(500)
	for f.take() != "lagged" {
	}
	// From here on it may be as slow as the disk and this machine are. The changes behind the last commit come again.
	require.Empty(t, w.ask("config", opt{"set": opt{"watch_timeout": "1h"}}).code)
	f.last = 0
	require.Equal(t, f.at, f.w.ask("watch", opt{"from": f.at}).result)
	churn(1)
	for !maps.Equal(f.state, state) {
		f.until("commit")
	}
}

// TestWatch_Lost: a watch that compaction has passed is not told so, or goes on as
// if nothing were missing.
func TestWatch_Lost(t *testing.T) {
	d := start(t, func(c *Config) { c.SegmentSize = 1 << 20; c.WatchTimeout = 0; c.Limits.Queued = 1 << 20 })
	f := d.watch(opt{})
	w := d.dial()
	value := make([]byte, 60_000)
	for i := range 1500 {
		w.want(true, "put", fmt.Appendf(nil, "k%d", i%100), append(value, fmt.Sprint(i)...))
		if i%100 == 99 {
			w.ask("sync") // each commit is more than the buffers of a connection
		}
	}
	require.Empty(t, w.ask("compact").code)
	for f.take() != "lagged" {
	}
	w.refuse(ipc.CodeCursorLost, "watch", opt{"from": f.at})
	// Begin anew.
	require.Empty(t, f.w.ask("watch").code)
	w.want(true, "put", []byte("k"), []byte("v"), synced)
	f.last = 0
	f.until("commit")
	require.Equal(t, "v", f.state["k"])
}

// TestWatch_Drain: a daemon that stops waits for a watch.
func TestWatch_Drain(t *testing.T) {
	d := start(t, func(c *Config) {
		c.WatchTimeout = 0
		c.CommitInterval = 5 * time.Millisecond
		c.DrainTimeout = time.Hour
	})
	idle, stuck := d.watch(opt{}), d.watch(opt{"from": 0})
	w := d.dial()
	for i := range 400 {
		w.want(true, "put", fmt.Appendf(nil, "k%d", i), make([]byte, 30_000))
	}
	w.ask("sync")
	idle.until("commit")
	require.NoError(t, idle.w.conn.CloseWrite()) // the client's end is the watch's
	idle.w.closed()
	require.NoError(t, stuck.w.conn.Close())
	d.stop() // has less patience
}
