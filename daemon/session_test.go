package daemon

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ipc"
)

// hello says hello and returns the answer.
func (w *wire) hello(o opt) map[string]any {
	w.t.Helper()
	a := w.ask("hello", o)
	require.Empty(w.t, a.code, a.reason)
	return a.result.(map[string]any)
}

// TestSession_Numbers: numbers that the client does not count the same way:
// each write one, refused ones and notifications too, reads none.
func TestSession_Numbers(t *testing.T) {
	d := start(t, nil)
	w := d.dial()
	w.want(nil, "get", []byte("k")) // reads may come before hello
	h := w.hello(opt{"client": "test", "protocol": 1})
	require.Equal(t, "rskvd", h["server"])
	require.Equal(t, int64(1), h["protocol"])
	require.Equal(t, "admin", h["role"])
	require.Equal(t, int64(0), h["applied"])
	require.Equal(t, int64(0), h["durable"])
	require.Equal(t, int64(ipc.MaxValue), h["limits"].(map[string]any)["value"])
	require.NotContains(t, h, "refused")
	id := h["session"].([]byte)
	require.Len(t, id, ipc.SessionSize)
	w.refuse(ipc.CodeBadRequest, "hello")

	w.want(true, "put", []byte("k"), []byte("v"))                                           // 1
	w.send(notification("put", []byte("k"), []byte("w")))                                   // 2
	w.refuse(ipc.CodeNotInteger, "add", []byte("k"), 1)                                     // 3
	w.refuse(ipc.CodeBadRequest, "put", []byte("k"))                                        // 4
	w.refuse(ipc.CodeKeyTooLarge, "del", make([]byte, ipc.MaxKey+1))                        // 5
	w.want(int64(2), "mput", [][2][]byte{{[]byte("a"), []byte("1")}, {[]byte("b"), {'2'}}}) // 6
	w.want(int64(1), "mdel", [][]byte{[]byte("a"), []byte("none")})                         // 7
	w.want([]byte("w"), "get", []byte("k"))
	w.want(opt{"durable": int64(7)}, "sync")
	w.want(true, "cas", []byte("k"), []byte("w"), []byte("x")) // 8
	_ = w.conn.Close()

	v := d.dial()
	h = v.hello(opt{"session": id, "seen": 3})
	require.Equal(t, id, h["session"])
	require.Equal(t, int64(8), h["applied"])
	require.Equal(t, int64(7), h["durable"])
	require.Equal(t, []any{[]any{int64(4), "BadRequest"}, []any{int64(5), "KeyTooLarge"}}, h["refused"])
	v.want(int64(1), "append", []byte("new"), []byte("n")) // 9
	v.want(opt{"durable": int64(9)}, "sync")
}

// TestSession_Unknown: an id the daemon does not know that is taken for a new one.
func TestSession_Unknown(t *testing.T) {
	d := start(t, nil)
	w := d.dial()
	w.refuse(ipc.CodeSessionUnknown, "hello", opt{"session": make([]byte, ipc.SessionSize)})
	w.hello(opt{}) // the connection can still start one
	id := d.dial().hello(opt{})["session"]
	d.stop()
	require.NoError(t, os.RemoveAll(d.cfg.Dir))
	d = startWith(t, d.cfg) // another store
	d.dial().refuse(ipc.CodeSessionUnknown, "hello", opt{"session": id})
}

// TestSession_HelloAfterWrite: writes without a number in a session.
func TestSession_HelloAfterWrite(t *testing.T) {
	w := start(t, nil).dial()
	w.want(true, "put", []byte("k"), []byte("v"))
	w.refuse(ipc.CodeBadRequest, "hello")
}

// TestSession_Takeover: two connections that write in one session, or a number
// given in hello while a write of the old connection is under way.
func TestSession_Takeover(t *testing.T) {
	d := start(t, nil)
	old := d.dial()
	id := old.hello(opt{})["session"]
	applied := int64(0)
	for round := range 20 {
		for i := range uint32(200) {
			old.send(request(i+1, "append", []byte("k"), []byte("x"), opt{"sync": i%50 == 0}))
		}
		next := d.dial()
		h := next.hello(opt{"session": id})
		require.GreaterOrEqual(t, h["applied"].(int64), applied)
		applied = h["applied"].(int64)
		v, _ := next.ask("get", []byte("k")).result.([]byte)
		require.EqualValues(t, applied, len(v), "round %d: hello told another number than there are writes", round)
		old.closed()
		old = next
	}
}

// TestSession_Evicted: the table of sessions grows without bound, or forgets
// one that is connected.
func TestSession_Evicted(t *testing.T) {
	d := start(t, func(c *Config) { c.MaxSessions = 3 })
	keep := d.dial()
	kept := keep.hello(opt{})["session"]
	var ids []any
	for i := range 4 {
		w := d.dial()
		ids = append(ids, w.hello(opt{})["session"])
		_ = w.conn.Close()
		require.Eventually(t, func() bool {
			return keep.ask("stats").result.(map[string]any)["daemon_connections"] == int64(1)
		}, patience, time.Millisecond, "connection %d", i)
		time.Sleep(2 * time.Millisecond) // "unused for longest" is in milliseconds
	}
	d.dial().refuse(ipc.CodeSessionUnknown, "hello", opt{"session": ids[1]})
	d.dial().hello(opt{"session": ids[2]})
	d.dial().hello(opt{"session": ids[3]})
	d.dial().refuse(ipc.CodeBusy, "hello")
	d.dial().hello(opt{"session": kept})
}

// TestSession_Forgotten: a client that is told it has seen every refusal when
// the daemon has forgotten some.
func TestSession_Forgotten(t *testing.T) {
	d := start(t, nil)
	w := d.dial()
	id := w.hello(opt{})["session"]
	const n = refusedMax + 10
	for i := range uint32(n) {
		w.send(request(i, "put", []byte("k")))
	}
	for range n {
		w.must()
	}
	_ = w.conn.Close()
	h := d.dial().hello(opt{"session": id, "seen": 9})
	require.NotContains(t, h, "refused")
	h = d.dial().hello(opt{"session": id, "seen": 10})
	require.Len(t, h["refused"], refusedMax)
	require.EqualValues(t, n, h["applied"])
}

// TestWriteLog: a number reported as applied while one below it is open.
func TestWriteLog(t *testing.T) {
	var w writeLog
	require.Zero(t, w.applied())
	for range 10 {
		w.next()
	}
	require.EqualValues(t, 10, w.applied())
	for _, n := range []uint64{3, 5, 6, 9} {
		w.open(n)
	}
	for _, step := range []struct{ closed, applied uint64 }{{5, 2}, {9, 2}, {4, 2}, {3, 5}, {6, 10}} {
		w.close(step.closed)
		require.Equal(t, step.applied, w.applied(), fmt.Sprintf("after %d", step.closed))
	}
	require.Nil(t, w.wait)
}
