package daemon

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ipc"
)

type opt = map[string]any

// TestDaemon_Methods: a method that answers otherwise than PROTOCOL.md says.
func TestDaemon_Methods(t *testing.T) {
	d := start(t, nil)
	w := d.dial()
	key, value := []byte("key"), []byte("value")

	w.want("pong", "ping")
	w.want(nil, "get", key)
	w.want(false, "exists", key)
	w.want(true, "put", key, value)
	w.want(value, "get", key)
	w.want(value, "get", "key") // str is as good as bin
	w.want(true, "exists", key)

	w.want(false, "put", key, []byte("x"), opt{"if": "absent"})
	w.want(false, "put", []byte("none"), []byte("x"), opt{"if": "present"})
	w.want(true, "put", key, value, opt{"if": "present", "sync": true})
	w.want(nil, "get", []byte("none"))

	w.want(false, "del", []byte("none"))
	w.want(true, "del", key)
	w.want(nil, "del", key, opt{"blind": true})
	w.want(nil, "get", key)

	w.want(true, "cas", key, nil, value)
	w.want(false, "cas", key, nil, value)
	w.want(false, "cas", key, []byte("other"), []byte("x"))
	w.want(true, "cas", key, value, []byte("w"), opt{"sync": true})
	w.want(true, "cas", key, []byte("w"), nil)
	w.want(nil, "get", key)

	w.want(int64(5), "add", []byte("n"), 5)
	w.want(int64(-2), "add", []byte("n"), -7, opt{"sync": true})
	w.want([]byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "get", []byte("n"))
	w.want(true, "put", []byte("max"), []byte{255, 255, 255, 255, 255, 255, 255, 127})
	w.refuse(ipc.CodeOverflow, "add", []byte("max"), 1)
	w.want(int64(math.MaxInt64), "add", []byte("max"), 0)
	w.want(true, "put", []byte("text"), []byte("text"))
	w.refuse(ipc.CodeNotInteger, "add", []byte("text"), 1)

	w.want(int64(3), "append", []byte("a"), []byte("abc"))
	w.want(int64(6), "append", []byte("a"), []byte("def"))
	w.want([]byte("abcdef"), "get", []byte("a"))

	w.want(int64(2), "mput", [][2][]byte{{[]byte("p"), []byte("1")}, {[]byte("q"), []byte("")}})
	w.want([]any{[]byte(""), nil, []byte("1"), []byte("1")}, "mget", [][]byte{[]byte("q"), []byte("none"), []byte("p"), []byte("p")})
	w.want([]any{}, "mget", [][]byte{})
	w.want(int64(1), "mdel", [][]byte{[]byte("p"), []byte("none"), []byte("p")})
	w.want(nil, "mdel", [][]byte{[]byte("q")}, opt{"blind": true, "sync": true})
	w.want([]any{nil, nil}, "mget", [][]byte{[]byte("p"), []byte("q")})

	w.want(int64(4), "len") // n max text a
	w.want(opt{"durable": int64(0)}, "sync")
	w.want(int64(4), "len", opt{"exact": true})
	w.refuse(ipc.CodeUnknownMethod, "frob", opt{})
	w.refuse(ipc.CodeUnknownMethod, "nonsense")

	stats := w.ask("stats").result.(map[string]any)
	require.Equal(t, int64(1), stats["daemon_connections"])
	require.Equal(t, int64(1), stats["daemon_requests_ping"])
	require.Equal(t, int64(2), stats["daemon_requests_unknown"])
	require.Equal(t, int64(4), stats["engine_keys"])
	require.NotEmpty(t, stats["io_backend"])
	expiry(t, w)

	version := int64(0)
	for _, o := range []opt{{}, {"kind": "full"}, {"kind": "log", "cookie": []byte("c")}, {"kind": "index"}, {"kind": "snapshot"}} {
		w.want(true, "put", []byte("changed"), fmt.Append(nil, o))
		a := w.ask("checkpoint", o)
		require.Empty(t, a.code, a.reason)
		checkpoint := a.result.(map[string]any)
		for _, name := range []string{"version", "durable", "bytes", "ms"} {
			require.Contains(t, checkpoint, name)
		}
		require.Greater(t, checkpoint["version"], version)
		version = checkpoint["version"].(int64)
	}
}

// TestDaemon_Notifications: one that is answered, or not applied.
func TestDaemon_Notifications(t *testing.T) {
	w := start(t, nil).dial()
	w.send(notification("put", []byte("k"), []byte("v"), opt{"sync": true}))
	w.send(notification("put", []byte(""), []byte("v"))) // refused in silence
	w.send(notification("mput", [][2][]byte{{[]byte("l"), []byte("w")}}))
	w.send(notification("nonsense"))
	for _, m := range ipc.Methods() {
		if m.Class() == ipc.ClassRead && m != ipc.MethodHello {
			w.send(notification(m.String(), [][]byte{[]byte("k")}))
		}
	}
	w.send(notification("get", []byte("k")))
	w.send(notification("mget", [][]byte{[]byte("k")}))
	w.send(notification("sync"))
	w.send(notification("checkpoint"))
	w.send(notification("hello"))
	w.want([]any{[]byte("v"), []byte("w")}, "mget", [][]byte{[]byte("k"), []byte("l")})
}

// TestDaemon_Pipelined: requests lost, swapped or doubled when many share a
// read, and writes and reads of one key out of order.
func TestDaemon_Pipelined(t *testing.T) {
	w := start(t, nil).dial()
	var all []byte
	const n = 5000
	for i := range uint32(n) {
		key := fmt.Appendf(nil, "key%d", i/4)
		switch i % 4 {
		case 0:
			all = append(all, request(i, "put", key, fmt.Appendf(nil, "a%d", i))...)
		case 1:
			all = append(all, request(i, "append", key, []byte("!"))...)
		case 2:
			all = append(all, request(i, "get", key)...)
		case 3:
			all = append(all, request(i, "mget", [][]byte{key, []byte("none")})...)
		}
	}
	go w.send(all)
	seen := map[uint32]bool{}
	for range n {
		a := w.must()
		require.False(t, seen[a.id], "two answers to %d", a.id)
		seen[a.id] = true
		want := fmt.Appendf(nil, "a%d!", a.id/4*4)
		switch a.id % 4 {
		case 0:
			require.Equal(t, true, a.result)
		case 1:
			require.Equal(t, int64(len(want)), a.result)
		case 2:
			require.Equal(t, want, a.result)
		case 3:
			require.Equal(t, []any{want, nil}, a.result)
		}
	}
}

// TestDaemon_SplitAtEveryByte: a request that is misread when its bytes come
// one by one, or in two parts cut anywhere.
func TestDaemon_SplitAtEveryByte(t *testing.T) {
	w := start(t, nil).dial()
	value := []byte(strings.Repeat("v", 300))
	script := append(request(1, "put", []byte("key"), value), request(2, "get", []byte("key"))...)
	script = append(script, request(3, "mget", [][]byte{[]byte("key"), []byte("no")})...)
	check := func() {
		t.Helper()
		require.Equal(t, answer{id: 1, result: true}, w.must())
		require.Equal(t, answer{id: 2, result: value}, w.must())
		require.Equal(t, answer{id: 3, result: []any{value, nil}}, w.must())
	}
	for i := range script {
		w.send(script[i : i+1])
	}
	check()
	for cut := 1; cut < len(script); cut++ {
		w.send(script[:cut])
		w.send(script[cut:])
		check()
	}
}

// TestDaemon_LargeValues: a value that changes on its way, or buffers that do
// not grow and shrink with it.
func TestDaemon_LargeValues(t *testing.T) {
	d := start(t, nil)
	w := d.dial()
	for _, size := range []int{0, 1, 4095, 65535, 65536, 1 << 20, 16 << 20} {
		value := bytes.Repeat([]byte{byte(size), 1, 2, 3, 5, 7, 11}, size/7+1)[:size]
		key := fmt.Appendf(nil, "large%d", size)
		w.want(true, "put", key, value)
		require.True(t, bytes.Equal(value, w.ask("get", key).result.([]byte)), "%d bytes came back wrong", size)
	}
	// One answer of 48 MiB, then one that would be above the limit.
	big := []byte("large16777216")
	a := w.ask("mget", [][]byte{big, big, big})
	require.Len(t, a.result, 3)
	w.refuse(ipc.CodeAnswerTooLarge, "mget", [][]byte{big, big, big, big})
	w.want("pong", "ping")
	require.Eventually(t, func() bool {
		return w.ask("stats").result.(map[string]any)["daemon_request_memory_used"] == int64(0)
	}, patience, 100e6, "the memory of large requests does not come back")
}

// expiry uses all that has to do with it, by the daemon's own clock.
func expiry(t *testing.T, w *wire) {
	key, hour := []byte("expiring"), int64(3_600_000)
	left := func(least, most int64) {
		t.Helper()
		ms, ok := w.ask("ttl", key).result.(int64)
		require.True(t, ok)
		require.GreaterOrEqual(t, ms, least)
		require.LessOrEqual(t, ms, most)
	}
	w.want(nil, "ttl", key)
	w.want(false, "expire", key, hour)
	w.want(true, "put", key, []byte("value"))
	w.want(int64(-1), "ttl", key)
	w.want(true, "expire", key, hour, opt{"sync": true})
	left(hour-60_000, hour)
	w.want(true, "expire", key, nil)
	w.want(int64(-1), "ttl", key)
	w.want(true, "put", key, []byte("value"), opt{"ttl": hour})
	left(hour-60_000, hour)
	w.want(true, "cas", key, []byte("value"), []byte("12345678"))
	w.want(int64(-1), "ttl", key)
	w.want(true, "cas", key, []byte("12345678"), []byte{1, 0, 0, 0, 0, 0, 0, 0}, opt{"ttl": hour})
	w.want(int64(2), "add", key, 1)
	left(hour-60_000, hour)
	w.want(int64(3), "add", key, 1, opt{"ttl": 2 * hour})
	left(2*hour-60_000, 2*hour)
	w.want(int64(9), "append", key, []byte("x"))
	left(2*hour-60_000, 2*hour)
	w.want(int64(2), "mput", [][2][]byte{{key, []byte("1")}, {[]byte("other"), []byte("2")}}, opt{"ttl": 1})
	require.Eventually(t, func() bool {
		return w.ask("get", key).result == nil && w.ask("get", []byte("other")).result == nil
	}, patience, time.Millisecond)
	w.want(false, "exists", key)
	w.want(nil, "ttl", []byte("other"))
	w.want(false, "del", key)
	w.want([]any{nil, nil}, "mget", [][]byte{key, []byte("other")})
}
