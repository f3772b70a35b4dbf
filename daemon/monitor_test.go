package daemon

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ipc"
)

// TestMonitor: a request that is not shown as it was sent, or shown with parts of
// the one before it.
func TestMonitor(t *testing.T) {
	d := start(t, nil)
	m, w := d.dial(), d.dial()
	require.Empty(t, w.ask("hello", opt{"client": "watched"}).code)
	m.refuse(ipc.CodeBadRequest, "monitor", "take")
	m.want(false, "monitor", "stop")
	w.want(nil, "get", []byte("before"))
	m.want(true, "monitor", "start")
	m.refuse(ipc.CodeBadRequest, "monitor", "start")
	pair := [2][]byte{[]byte("p"), []byte("12345")}
	w.want(int64(3), "mput", [][2][]byte{pair, pair, pair})
	w.want(nil, "get", []byte("g"))
	w.want(true, "put", []byte("k"), []byte("123"))
	w.want(true, "exists", []byte("k"))
	w.want("pong", "ping")
	w.refuse(ipc.CodeBadRequest, "get")
	got := m.ask("monitor", "take").result.(opt)
	require.Zero(t, got["dropped"])
	var seen [][]any
	for _, r := range got["requests"].([]any) {
		r := r.([]any)
		require.InDelta(t, time.Now().UnixMicro(), r[0], 60e6)
		require.Positive(t, r[2])
		require.Equal(t, "watched", r[3])
		seen = append(seen, r[4:])
	}
	require.Equal(t, [][]any{
		{"mput", []byte("p"), int64(3), int64(15)}, {"get", []byte("g"), int64(1), int64(0)},
		{"put", []byte("k"), int64(1), int64(3)}, {"exists", []byte("k"), int64(1), int64(0)}, {"ping", nil, int64(0), int64(0)},
	}, seen)
	require.Empty(t, m.ask("monitor", "take").result.(opt)["requests"])
	m.want(true, "monitor", "stop")
	w.want("pong", "ping")
	m.refuse(ipc.CodeBadRequest, "monitor", "take")
}

// TestMonitor_Bounds: a monitor that nobody takes from and that grows or holds
// others up, one that stays when its connection has gone, or too many.
func TestMonitor_Bounds(t *testing.T) {
	d := start(t, nil)
	all, some := d.dial(), d.dial()
	all.want(true, "monitor", "start")
	some.want(true, "monitor", "start", opt{"every": 100})
	const clients, each = 3, 2000
	var wg sync.WaitGroup
	for range clients {
		w := d.dial()
		wg.Go(func() {
			var burst []byte
			for i := range each {
				burst = append(burst, request(uint32(i), "exists", []byte("k"))...)
			}
			go w.send(burst)
			for range each {
				w.must()
			}
		})
	}
	wg.Wait()
	got := all.ask("monitor", "take").result.(opt)
	require.Len(t, got["requests"], monitorKept)
	require.Equal(t, int64(clients*each-monitorKept), got["dropped"])
	got = some.ask("monitor", "take").result.(opt)
	require.Len(t, got["requests"], clients*each/100)
	require.Zero(t, got["dropped"])
	require.NoError(t, all.conn.Close())
	require.NoError(t, some.conn.Close())
	var many []*wire
	for range monitorsMax {
		m := d.dial()
		require.Eventually(t, func() bool { return m.ask("monitor", "start").code == "" }, patience, time.Millisecond)
		many = append(many, m)
	}
	d.dial().refuse(ipc.CodeBusy, "monitor", "start")
	many[0].want(true, "monitor", "stop")
	many[0].want(true, "monitor", "start")
}
