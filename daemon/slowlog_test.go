package daemon

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
	"rskv/ipc"
)

// slowEntries asks for the slow log.
func (w *wire) slowEntries(options ...any) (list []opt) {
	w.t.Helper()
	a := w.ask("slowlog", append([]any{"get"}, options...)...)
	require.Empty(w.t, a.code, a.reason)
	for _, e := range a.result.([]any) {
		list = append(list, e.(opt))
	}
	return list
}

// TestSlowlog_Waits: a request that had to wait for the disk or a commit which
// is not in the slow log, or not with what it asked and waited for; or one that
// was quick and is.
func TestSlowlog_Waits(t *testing.T) {
	f := startFaulty(t)
	w := f.dial()
	require.Empty(t, w.ask("hello", opt{"client": "slow"}).code)
	undo := f.delay(ioring.Read, 30*time.Millisecond)
	w.want(coldContent(0), "get", coldKey(0))
	require.Empty(t, w.slowEntries(), "it is off")
	require.Empty(t, w.ask("config", opt{"set": opt{"slowlog_threshold": "20ms"}}).code)
	w.want(coldContent(1), "get", coldKey(1))
	w.want([]any{coldContent(2), nil}, "mget", [][]byte{coldKey(2), []byte("absent")})
	w.want(int64(coldValue+1), "append", coldKey(3), []byte("!"))
	undo()
	undo = f.delay(ioring.Sync, 30*time.Millisecond)
	w.want(true, "put", []byte("s"), []byte("v"), opt{"sync": true})
	w.want(int64(1), "mput", [][2][]byte{{[]byte("m"), []byte("v")}}, opt{"sync": true})
	w.want(true, "put", []byte("more"), []byte("v"))
	require.Empty(t, w.ask("sync").code)
	undo()
	all := w.slowEntries(opt{"count": 1000})
	var list []opt
	for i, e := range all {
		require.Equal(t, int64(len(all)-i), e["id"])
		require.GreaterOrEqual(t, e["us"], int64(20_000))
		if e["waited"] != "none" { // for which a machine that stands still is enough
			list = append(list, e)
		}
	}
	for i, want := range []opt{
		{"method": "sync", "waited": "commit", "key": nil}, {"method": "mput", "waited": "commit", "key": []byte("m")},
		{"method": "put", "waited": "commit", "key": []byte("s")}, {"method": "append", "waited": "disk", "key": coldKey(3)},
		{"method": "mget", "waited": "disk", "key": coldKey(2)}, {"method": "get", "waited": "disk", "key": coldKey(1)},
	} {
		require.Greater(t, len(list), i)
		for name, v := range want {
			require.Equal(t, v, list[i][name], "entry %d: %v", i, list[i])
		}
		require.Equal(t, int64(1), list[i]["requests"])
		require.Equal(t, "slow", list[i]["client"])
		require.Positive(t, list[i]["pid"])
		require.InDelta(t, time.Now().UnixMilli(), list[i]["time"], 60_000)
	}
	require.Len(t, list, 6)
	require.Len(t, w.slowEntries(opt{"count": 2}), 2)
	require.GreaterOrEqual(t, w.ask("stats").result.(opt)["daemon_slow_requests"], int64(len(all)))
	require.Empty(t, w.ask("config", opt{"set": opt{"slowlog_threshold": "1h"}}).code)
	require.GreaterOrEqual(t, w.ask("slowlog", "reset").result, int64(len(all)))
	w.want(int64(0), "slowlog", "reset")
	require.Empty(t, w.slowEntries())
}

// TestSlowlog_Bursts: more than slowlog_size entries, the wrong ones of them, or
// a burst that is not told as one.
func TestSlowlog_Bursts(t *testing.T) {
	d := start(t, func(c *Config) { c.SlowlogThreshold, c.SlowlogSize = time.Microsecond, 5 })
	w := d.dial()
	long := bytes.Repeat([]byte("k"), 1000)
	for i := range 12 {
		w.want(true, "put", append(fmt.Appendf(nil, "%02d", i), long...), make([]byte, 100_000))
	}
	list := w.slowEntries()
	require.Len(t, list, 5)
	for i, e := range list {
		require.Equal(t, int64(12-i), e["id"])
		require.Equal(t, append(fmt.Appendf(nil, "%02d", 11-i), long[:keyShown-2]...), e["key"])
		require.Equal(t, "none", e["waited"])
	}
	var burst []byte
	for i := range 50 {
		burst = append(burst, request(uint32(i), "exists", []byte("b"))...)
	}
	w.send(burst)
	for range 50 {
		w.must()
	}
	n := int64(0)
	for _, e := range w.slowEntries(opt{"count": 2}) {
		if e["method"] == "exists" {
			n += e["requests"].(int64)
		}
	}
	require.Greater(t, n, int64(1))
	w.refuse(ipc.CodeBadRequest, "slowlog", "get", opt{"count": 0})
}
