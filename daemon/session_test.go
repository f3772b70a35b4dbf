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

// TestSession_Restart: a session that the daemon forgets when it stops, or that
// counts otherwise afterwards; refusals of before that are taken for success.
func TestSession_Restart(t *testing.T) {
	d := start(t, nil)
	w := d.dial()
	id := w.hello(opt{})["session"]
	silent := d.dial().hello(opt{})["session"]
	w.want(int64(1), "append", []byte("k"), []byte("1"))         // 1
	w.want(int64(0), "mput", [][2][]byte{})                      // 2
	w.refuse(ipc.CodeBadRequest, "put", []byte("k"))             // 3
	w.want(int64(1), "mdel", [][]byte{[]byte("k"), []byte("l")}) // 4
	w.refuse(ipc.CodeNotInteger, "add", append2(w, "text"), 1)   // 6
	w.refuse(ipc.CodeKeyTooLarge, "del", make([]byte, ipc.MaxKey+1))
	d.stop()

	d = startWith(t, d.cfg)
	require.Contains(t, d.log.String(), "discarded=0")
	w = d.dial()
	h := w.hello(opt{"session": id, "seen": 2})
	require.Equal(t, id, h["session"])
	require.Equal(t, []any{int64(7), int64(7)}, []any{h["applied"], h["durable"]})
	require.NotContains(t, h, "refused", "it cannot know")
	w.refuse(ipc.CodeBadRequest, "put", []byte("k")) // 8
	w.want(opt{"durable": int64(8)}, "sync")
	_ = w.conn.Close()
	h = d.dial().hello(opt{"session": id, "seen": 7})
	require.Equal(t, []any{[]any{int64(8), "BadRequest"}}, h["refused"])
	h = d.dial().hello(opt{"session": id, "seen": 6})
	require.NotContains(t, h, "refused", "it does not know what became of 7")
	h = d.dial().hello(opt{"session": id, "seen": 8})
	require.Equal(t, []any{}, h["refused"], "it knows that there are none")
	require.Equal(t, int64(0), d.dial().hello(opt{"session": silent})["applied"])
}

// append2 stores a text that is no counter under a key, and returns the key.
func append2(w *wire, text string) []byte {
	w.want(int64(len(text)), "append", []byte("text"), []byte(text))
	return []byte("text")
}

// TestSession_Notified: a client that is not told, or told what is not so, or
// told again what an answer has told it.
func TestSession_Notified(t *testing.T) {
	d := start(t, func(c *Config) { c.CommitInterval = 10 * time.Millisecond })
	w, anonymous := d.dial(), d.dial()
	w.hello(opt{})
	anonymous.want(true, "put", []byte("a"), []byte("v"))
	for n := range int64(3) {
		w.want(n+1, "append", []byte("k"), []byte("x"))
	}
	require.Eventually(t, func() bool {
		w.want("pong", "ping")
		return len(w.told) > 0 && w.told[len(w.told)-1] == 3
	}, patience, time.Millisecond)
	told := len(w.told)
	w.want(true, "put", []byte("k"), []byte("v"), opt{"sync": true})
	w.want(opt{"durable": int64(4)}, "sync")
	time.Sleep(3 * notifyMin)
	w.want("pong", "ping")
	anonymous.want("pong", "ping")
	require.LessOrEqual(t, len(w.told), told+1, "told %v", w.told)
	require.IsIncreasing(t, append([]int64{0}, w.told...))
	require.Empty(t, anonymous.told)
}

// TestSession_Expiry: a session that is kept for ever, or forgotten too soon.
func TestSession_Expiry(t *testing.T) {
	const expiry = 50 * time.Millisecond
	d := start(t, func(c *Config) { c.MaxSessions, c.SessionExpiry = 2, expiry })
	w := d.dial()
	id := w.hello(opt{})["session"]
	w.want(int64(1), "append", []byte("k"), []byte("x"))
	_ = w.conn.Close()
	v := d.dial()
	v.hello(opt{})
	w = d.dial()
	require.Equal(t, int64(1), w.hello(opt{"session": id})["applied"])
	_ = w.conn.Close()
	require.Eventually(t, func() bool {
		return v.ask("stats").result.(map[string]any)["daemon_connections"] == int64(1)
	}, patience, time.Millisecond, "it is unused from then on")
	time.Sleep(4 * expiry)
	v.ask("checkpoint") // looks who is still there
	d.dial().refuse(ipc.CodeSessionUnknown, "hello", opt{"session": id})
}

// TestCheckpoints: a list that is not what was taken, or a daemon that does not
// go back to the checkpoint it is told.
func TestCheckpoints(t *testing.T) {
	d := start(t, func(c *Config) { c.CheckpointsKept, c.CheckpointDistance = 2, 0 })
	w := d.dial()
	w.want([]any{}, "checkpoints")
	var versions []any
	for i := range 3 {
		w.want(true, "put", []byte("k"), []byte{byte(i)})
		a := w.ask("checkpoint", opt{"kind": "log", "cookie": []byte{byte(i)}})
		require.Empty(t, a.code, a.reason)
		versions = append(versions, a.result.(map[string]any)["version"])
	}
	w.want(true, "put", []byte("k"), []byte("newest"))
	list := w.ask("checkpoints").result.([]any)
	require.Len(t, list, 2)
	for i, p := range list {
		p := p.(map[string]any)
		require.Len(t, p, 9)
		require.EqualValues(t, 1, p["keys"])
		require.Equal(t, []any{versions[2-i], "log", []byte{byte(2 - i)}, int64(0)}, []any{p["version"], p["kind"], p["cookie"], p["begin"]})
		require.WithinDuration(t, time.Now(), time.UnixMilli(p["time"].(int64)), time.Minute)
		require.Greater(t, p["tail"], int64(0))
		require.Greater(t, p["bytes"], int64(0))
		require.GreaterOrEqual(t, p["ms"], int64(0))
	}
	d.stop()

	cfg := d.cfg
	cfg.RecoverVersion = int(versions[1].(int64))
	d = startWith(t, cfg)
	require.Contains(t, d.log.String(), fmt.Sprintf("version=%d", versions[1]))
	w = d.dial()
	w.want([]byte{1}, "get", []byte("k"))
	require.Len(t, w.ask("checkpoints").result, 1)
	d.stop()
	cfg.RecoverVersion = int(versions[2].(int64))
	require.ErrorContains(t, Run(t.Context(), cfg, Environment{}), "is not kept")
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
	for _, n := range []uint64{6, 3, 5, 9} { // not always in order: see open
		w.open(n)
	}
	for _, step := range []struct{ closed, applied uint64 }{{5, 2}, {9, 2}, {4, 2}, {3, 5}, {6, 10}} {
		w.close(step.closed)
		require.Equal(t, step.applied, w.applied(), fmt.Sprintf("after %d", step.closed))
	}
	require.Nil(t, w.wait)
}
