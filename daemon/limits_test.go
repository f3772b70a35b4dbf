package daemon

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"

	"rskv/ipc"
)

// TestDaemon_Limits: a limit that is off by one, or that costs more than the
// request that exceeds it.
func TestDaemon_Limits(t *testing.T) {
	d := start(t, nil)
	w, other := d.dial(), d.dial()
	key := bytes.Repeat([]byte("k"), ipc.MaxKey)
	value := bytes.Repeat([]byte("v"), ipc.MaxValue)

	w.want(true, "put", key, []byte("v"))
	w.want([]byte("v"), "get", key)
	w.refuse(ipc.CodeKeyTooLarge, "put", append(key, 'k'), []byte("v"))
	w.refuse(ipc.CodeKeyTooLarge, "get", append(key, 'k'))
	w.refuse(ipc.CodeKeyTooLarge, "mget", [][]byte{append(key, 'k')})
	w.refuse(ipc.CodeBadRequest, "get", []byte(""))
	w.refuse(ipc.CodeBadRequest, "mput", [][2][]byte{{[]byte("fine"), []byte("x")}, {{}, []byte("x")}})
	w.want(nil, "get", []byte("fine")) // nothing of a bad request is applied

	w.want(true, "put", key, value)
	w.refuse(ipc.CodeValueTooLarge, "put", []byte("k"), append(value, 'v'))
	w.refuse(ipc.CodeValueTooLarge, "cas", []byte("k"), nil, append(value, 'v'))
	w.refuse(ipc.CodeValueTooLarge, "append", key, []byte("v"))
	w.want(true, "cas", key, value, []byte("short"))

	keys := make([][]byte, ipc.MaxKeys)
	for i := range keys {
		keys[i] = []byte("short key")
	}
	require.Len(t, w.ask("mget", keys).result, ipc.MaxKeys)
	w.want(int64(0), "mdel", keys)
	keys = append(keys, []byte("one more"))
	w.refuse(ipc.CodeBadRequest, "mget", keys)
	w.refuse(ipc.CodeBadRequest, "mdel", keys)

	// A request of exactly the limit is one; a byte more ends the connection.
	exact := paddedRequest(1, ipc.MaxRequest)
	w.send(exact)
	a := w.must()
	require.Equal(t, string(ipc.CodeBadRequest), a.code, "four values that are no pairs")
	other.want("pong", "ping")
	more := paddedRequest(1, ipc.MaxRequest+1)
	go func() { _, _ = w.conn.Write(more) }()
	a = w.must()
	require.Equal(t, answer{code: string(ipc.CodeRequestTooLarge), reason: a.reason}, a)
	w.closed()
	other.want("pong", "ping")
}

// paddedRequest is an mput whose params are nonsense and whose length is size.
func paddedRequest(id byte, size int) []byte {
	b := []byte{0x94, 0, id, 0xa4, 'm', 'p', 'u', 't', 0x91, 0x94}
	rest := size - len(b)
	for i := 4; i > 0; i-- {
		n := rest/i - 5
		b = binary.BigEndian.AppendUint32(append(b, 0xc6), uint32(n))
		b = append(b, make([]byte, n)...)
		rest -= n + 5
	}
	return b
}

// TestDaemon_BadInput: bytes from a stranger that crash the daemon, cost it
// memory, or disturb another connection.
func TestDaemon_BadInput(t *testing.T) {
	d := start(t, nil)
	other := d.dial()
	other.want(true, "put", []byte("k"), []byte("v"))
	before := heap()
	nested := func(form byte, n int) []byte {
		return append([]byte{0x94, 0, 1, 0xa3, 'g', 'e', 't'}, bytes.Repeat([]byte{form}, n)...)
	}
	for name, b := range map[string][]byte{
		"array of four billion":   {0xdd, 0xff, 0xff, 0xff, 0xff},
		"map of four billion":     {0xdf, 0xff, 0xff, 0xff, 0xff},
		"bin of four billion":     {0xc6, 0xff, 0xff, 0xff, 0xff},
		"params of four billion":  {0x94, 0, 1, 0xa3, 'g', 'e', 't', 0xdd, 0xff, 0xff, 0xff, 0xff},
		"key of four billion":     {0x94, 0, 1, 0xa3, 'g', 'e', 't', 0x91, 0xc6, 0xff, 0xff, 0xff, 0xff},
		"a million nested arrays": nested(0x91, 1_000_000),
		"a million nested maps":   nested(0x81, 1_000_000),
		"nothing begins so":       {0xc1},
		"a number":                {7},
		"text":                    []byte("GET / HTTP/1.1\r\n\r\n"),
		"too few elements":        {0x92, 0, 1},
		"too many elements":       {0x95, 0, 1, 0xa1, 'x', 0x90, 0},
		"a response":              {0x94, 1, 1, 0xc0, 0xc0},
		"unknown type":            {0x94, 3, 1, 0xa3, 'g', 'e', 't', 0x90},
		"msgid is a string":       {0x94, 0, 0xa1, '1', 0xa3, 'g', 'e', 't', 0x90},
		"msgid is negative":       {0x94, 0, 0xff, 0xa3, 'g', 'e', 't', 0x90},
		"msgid beyond 32 bits":    {0x94, 0, 0xcf, 0, 0, 0, 1, 0, 0, 0, 0, 0xa3, 'g', 'e', 't', 0x90},
		"method is a number":      {0x94, 0, 1, 5, 0x90},
		"params is a map":         {0x94, 0, 1, 0xa3, 'g', 'e', 't', 0x80},
	} {
		t.Run(name, func(t *testing.T) {
			w := dialPath(t, d.cfg.Socket)
			go func() { _, _ = w.conn.Write(b) }() // the daemon may close before it has all
			a, err := w.receive()
			require.NoError(t, err)
			require.Zero(t, a.id)
			require.Contains(t, []string{string(ipc.CodeBadRequest), string(ipc.CodeRequestTooLarge)}, a.code)
			w.closed()
			other.want([]byte("v"), "get", []byte("k"))
		})
	}
	keeps(t, before+4<<20, "bad input left memory behind")
}

// TestDaemon_BadRequests: a well-formed request with something wrong in it that
// is applied, or that ends the connection.
func TestDaemon_BadRequests(t *testing.T) {
	w := start(t, nil).dial()
	k, v := []byte("k"), []byte("v")
	deep := any(1)
	for range 20 {
		deep = []any{deep}
	}
	for _, c := range []struct {
		method string
		params []any
	}{
		{"get", nil}, {"get", []any{k, k}}, {"get", []any{1}}, {"get", []any{nil}}, {"get", []any{1.5}},
		{"get", []any{[]any{k}}}, {"get", []any{deep}}, {"get", []any{opt{"a": k}}}, {"get", []any{time.Unix(0, 0)}},
		{"put", []any{k}}, {"put", []any{k, 1}}, {"put", []any{k, v, 1}}, {"put", []any{k, v, opt{}, 1}},
		{"put", []any{k, v, opt{"if": "maybe"}}}, {"put", []any{k, v, opt{"sync": 1}}}, {"put", []any{k, v, opt{"sink": true}}},
		{"put", []any{k, v, opt{"ttl": 0}}}, {"mput", []any{[]any{[]any{k, v}}, opt{"ttl": -5}}},
		{"put", []any{k, v, opt{"ttl": int64(1) << 48}}}, {"add", []any{k, 1, opt{"ttl": nil}}}, {"append", []any{k, v, opt{"ttl": 5}}},
		{"expire", []any{k}}, {"expire", []any{k, 0}}, {"expire", []any{k, "5"}}, {"expire", []any{k, 5, opt{"ttl": 5}}}, {"ttl", []any{k, 1}},
		{"cas", []any{k, nil, nil, opt{"ttl": 5}}},
		{"put", []any{k, v, msgpack.RawMessage{0x82, 0xa4, 's', 'y', 'n', 'c', 0xc3, 0xa4, 's', 'y', 'n', 'c', 0xc3}}},
		{"put", []any{k, v, msgpack.RawMessage{0x81, 1, 2}}},
		{"del", []any{k, opt{"ttl": 1}}}, {"cas", []any{k, v}}, {"cas", []any{k, 1, v}}, {"cas", []any{k, v, 1}},
		{"add", []any{k, "1"}}, {"add", []any{k, 1.0}}, {"add", []any{k, uint64(1) << 63}}, {"add", []any{k}},
		{"append", []any{k, nil}}, {"mget", []any{k}}, {"mget", []any{[]any{k, 1}}},
		{"mput", []any{[]any{[]any{k}}}}, {"mput", []any{[]any{[]any{k, v, v}}}}, {"mput", []any{[]any{k, v}}},
		{"mdel", []any{opt{}}}, {"ping", []any{1}}, {"sync", []any{1}}, {"stats", []any{opt{}}}, {"len", []any{1}},
		{"hello", []any{opt{"session": []byte("short")}}}, {"hello", []any{opt{"protocol": 2}}}, {"hello", []any{opt{"seen": -1}}},
		{"config", []any{opt{"set": 1}}}, {"config", []any{opt{"set": opt{"log_level": []any{}}}}},
		{"checkpoint", []any{opt{"kind": "half"}}}, {"checkpoint", []any{opt{"cookie": 1}}},
	} {
		a := w.ask(c.method, c.params...)
		require.Equal(t, string(ipc.CodeBadRequest), a.code, "%s %v answered %v", c.method, c.params, a.result)
	}
	w.want(int64(0), "len")
	w.want("pong", "ping")
}

// TestDaemon_Vanished: a client that goes away in the middle of a request, or
// with answers outstanding, and leaves something behind.
func TestDaemon_Vanished(t *testing.T) {
	d := start(t, nil)
	w := d.dial()
	w.want(true, "put", []byte("k"), bytes.Repeat([]byte("v"), 1<<20))
	before := heap()
	for i := range less(20, 4) {
		half := dialPath(t, d.cfg.Socket)
		b := request(1, "put", []byte("half"), make([]byte, 10<<20))
		half.send(b[:5<<20+i])
		_ = half.conn.Close()
		deaf := dialPath(t, d.cfg.Socket)
		for j := range uint32(50) {
			deaf.send(request(j, "get", []byte("k")))
		}
		_ = deaf.conn.Close()
	}
	require.Eventually(t, func() bool {
		stats := w.ask("stats").result.(map[string]any)
		return stats["daemon_connections"] == int64(1) && stats["daemon_queued_bytes"] == int64(0) && stats["daemon_request_memory_used"] == int64(0)
	}, patience, 50*time.Millisecond)
	w.want(nil, "get", []byte("half"))
	keeps(t, before+8<<20, "vanished clients left memory behind")
}

// keeps checks that the memory in use becomes less than most, when what is under way
// has ended.
func keeps(t *testing.T, most int64, why string) {
	t.Helper()
	require.Eventually(t, func() bool { return heap() < most }, patience, 50*time.Millisecond, why)
}

// heap is the memory in use after everything unused was collected.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestDaemon_SlowReader: a client that does not take its answers and makes the
// daemon hold more than its bound, or makes others wait; answers lost when it
// takes them after all.
func TestDaemon_SlowReader(t *testing.T) {
	d := start(t, func(c *Config) { c.Limits.Queued = 4 << 20 })
	slow, other := d.dial(), d.dial()
	value := bytes.Repeat([]byte("v"), 64<<10)
	other.want(true, "put", []byte("k"), value)
	n := less(2000, 400) // 128 MiB of answers
	go func() {
		for i := range uint32(n) {
			if _, err := slow.conn.Write(request(i, "get", []byte("k"))); err != nil {
				return
			}
		}
	}()
	require.Eventually(t, func() bool {
		return other.ask("stats").result.(map[string]any)["daemon_queued_bytes"].(int64) > 4<<20
	}, patience, 10*time.Millisecond)
	late := 0
	for range 100 {
		began := time.Now()
		other.want("pong", "ping")
		if time.Since(began) > time.Second {
			late++ // the machine may stand still for once
		}
	}
	require.Less(t, late, 10)
	queued := other.ask("stats").result.(map[string]any)["daemon_queued_bytes"].(int64)
	require.Less(t, queued, int64(4<<20+batchMax*64<<10+2*flushBytes), "more than the bound and one batch is queued")
	seen := map[uint32]bool{}
	for range n {
		a := slow.must()
		require.Equal(t, value, a.result)
		seen[a.id] = true
	}
	require.Len(t, seen, n)
	require.Eventually(t, func() bool {
		return other.ask("stats").result.(map[string]any)["daemon_queued_bytes"] == int64(0)
	}, patience, 10*time.Millisecond)
}

// TestDaemon_QueuedByAll: many slow clients together beyond the bound for all;
// one that takes its answers must not notice, but for large answers.
func TestDaemon_QueuedByAll(t *testing.T) {
	d := start(t, func(c *Config) {
		c.Limits.Queued, c.Limits.QueuedAll = 4<<20, 8<<20
		c.AnswerTimeout = 0
	})
	other := d.dial()
	other.want(true, "put", []byte("k"), bytes.Repeat([]byte("v"), 128<<10))
	other.want(true, "put", []byte("small"), []byte("v"))
	var slow []*wire
	const each = 200 // also when those that are under way at the bound are refused
	for range 4 {
		w := d.dial()
		slow = append(slow, w)
		for i := range uint32(each) {
			w.send(request(i, "get", []byte("k")))
		}
	}
	require.Eventually(t, func() bool {
		return other.ask("stats").result.(map[string]any)["daemon_queued_bytes"].(int64) > 8<<20
	}, patience, 10*time.Millisecond)
	other.want([]byte("v"), "get", []byte("small"))
	// Until the sockets are full, what is queued may get less again.
	require.Eventually(t, func() bool { return other.ask("get", []byte("k")).code == string(ipc.CodeBusy) }, patience, 10*time.Millisecond)
	for _, w := range slow {
		for range each {
			w.must()
		}
	}
	require.Eventually(t, func() bool { return other.ask("get", []byte("k")).code == "" }, patience, 10*time.Millisecond)
}

// TestDaemon_Timeouts: a client that holds memory for ever by sending half a
// request, or by never reading.
func TestDaemon_Timeouts(t *testing.T) {
	d := start(t, nil)
	idle, half, deaf := d.dial(), d.dial(), d.dial()
	idle.want(true, "put", []byte("k"), make([]byte, 1<<20)) // in pieces, which may take its time
	require.Empty(t, idle.ask("config", opt{"set": opt{"request_timeout": "100ms", "answer_timeout": "100ms"}}).code)
	half.send(request(1, "get", []byte("key"))[:5])
	half.closed()
	go func() {
		for i := range uint32(100) {
			if _, err := deaf.conn.Write(request(i, "get", []byte("k"))); err != nil {
				return
			}
		}
	}()
	require.Eventually(t, func() bool {
		return idle.ask("stats").result.(map[string]any)["daemon_connections"] == int64(1)
	}, patience, 10*time.Millisecond)
	idle.want("pong", "ping") // idle for as long, and still served
	require.EqualValues(t, 2, idle.ask("stats").result.(map[string]any)["daemon_connections_late"])
}

// TestDaemon_RequestMemory: many half-sent long requests that take more than
// their budget together, or that keep a whole one from being served for ever.
func TestDaemon_RequestMemory(t *testing.T) {
	d := start(t, func(c *Config) { c.RequestMemory = 64 << 20 })
	var half []*wire
	short := make(chan struct{}) // closed: the timeout is
	for range 8 {
		w := d.dial()
		half = append(half, w)
		b := request(1, "put", []byte("half"), make([]byte, 15<<20))
		go func() {
			_, _ = w.conn.Write(b[:len(b)-2])
			<-short
			_, _ = w.conn.Write(b[len(b)-2 : len(b)-1])
		}()
	}
	w := d.dial()
	require.Eventually(t, func() bool {
		used := w.ask("stats").result.(map[string]any)["daemon_request_memory_used"].(int64)
		require.LessOrEqual(t, used, int64(64<<20))
		return used > 32<<20
	}, patience, time.Millisecond)
	w.want("pong", "ping")
	timeout := func(text string) { require.Empty(t, w.ask("config", opt{"set": opt{"request_timeout": text}}).code) }
	timeout("300ms")
	close(short)
	for _, h := range half {
		h.closed()
	}
	timeout("30s")
	w.want(true, "put", []byte("k"), make([]byte, 15<<20))
}

// TestDaemon_MaxConnections: more connections than allowed, or a place that is
// not free again when one ends.
func TestDaemon_MaxConnections(t *testing.T) {
	d := start(t, func(c *Config) { c.MaxConnections = 3 })
	var all []*wire
	for range 3 {
		w := d.dial()
		w.want("pong", "ping")
		all = append(all, w)
	}
	extra := d.dial()
	a := extra.must()
	require.Equal(t, string(ipc.CodeBusy), a.code)
	extra.closed()
	_ = all[0].conn.Close()
	require.Eventually(t, func() bool {
		w := dialPath(t, d.cfg.Socket)
		if _, err := w.conn.Write(request(1, "ping")); err != nil {
			return false
		}
		a, err := w.receive()
		return err == nil && a.code == ""
	}, patience, 10*time.Millisecond)
}

// TestDaemon_Unanswered: more requests in flight than allowed when every answer
// has to wait for a commit.
func TestDaemon_Unanswered(t *testing.T) {
	d := start(t, func(c *Config) { c.Limits.Unanswered = 10 })
	w := d.dial()
	const n = 500
	go func() {
		for i := range uint32(n) {
			w.send(request(i, "put", fmt.Appendf(nil, "k%d", i), []byte("v"), opt{"sync": true}))
		}
	}()
	seen := map[uint32]bool{}
	for range n {
		seen[w.must().id] = true
	}
	require.Len(t, seen, n)
}
