package daemon

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rskv/ioring"
	"rskv/ioring/iotest"
	"rskv/ioring/iotest/seeds"
	"rskv/ipc"
)

// faulty is a daemon on a device that can be made to fail or to wait, with
// key00000... of 4 KiB each, of which the first ones are on disk only.
type faulty struct {
	*running
	fault *iotest.Fault
	keys  int
}

const coldValue = 4 << 10

func startFaulty(t *testing.T) *faulty {
	cfg := testConfig(t)
	cfg.CommitInterval = 0
	fault := iotest.NewFault(iotest.NewMem(iotest.MemOptions{SegmentSize: 16 << 20}), 1)
	f := &faulty{startOn(t, cfg, fault), fault, 12_000} // 48 MiB, memory is 32
	w := f.dial()
	for i := 0; i < f.keys; i += 500 {
		var pairs [][2][]byte
		for j := i; j < i+500; j++ {
			pairs = append(pairs, [2][]byte{coldKey(j), coldContent(j)})
		}
		w.want(int64(500), "mput", pairs)
	}
	require.NoError(t, w.conn.Close())
	return f
}

func coldKey(i int) []byte { return fmt.Appendf(nil, "key%05d", i) }

func coldContent(i int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%08d", i), coldValue/8)
}

// delay makes every operation of a kind wait, until it is called again.
func (f *faulty) delay(kind ioring.OpKind, d time.Duration) (undo func()) {
	return f.fault.Inject(iotest.Rule{Kind: kind, Delay: d})
}

// hold makes every operation of a kind wait until release is called.
func (f *faulty) hold(kind ioring.OpKind) (release func()) {
	gate := make(chan struct{})
	undo := f.fault.Inject(iotest.Rule{Kind: kind, Until: gate})
	release = sync.OnceFunc(func() {
		undo()
		close(gate)
	})
	f.t.Cleanup(release) // before the daemon ends, which waits for them
	return release
}

// TestCold_Everything: a wrong, missing or doubled answer when most of the data
// is on disk and completions come in any order.
func TestCold_Everything(t *testing.T) {
	f := startFaulty(t)
	f.fault.Reorder(16)
	rng := seeds.Rand(t)
	w := f.dial()
	n := less(4000, 1000)
	expect := map[uint32]func(any){}
	var all []byte
	for id := range uint32(n) {
		i := rng.IntN(f.keys)
		key, want := coldKey(i), coldContent(i)
		switch rng.IntN(4) {
		case 0, 1:
			all = append(all, request(id, "get", key)...)
			expect[id] = func(got any) { require.Equal(t, want, got) }
		case 2:
			j := rng.IntN(f.keys)
			all = append(all, request(id, "mget", [][]byte{key, []byte("none"), coldKey(j), key})...)
			expect[id] = func(got any) { require.Equal(t, []any{want, nil, coldContent(j), want}, got) }
		case 3:
			all = append(all, request(id, "exists", key)...)
			expect[id] = func(got any) { require.Equal(t, true, got) }
		}
	}
	go w.send(all)
	for range n {
		a := w.must()
		require.Empty(t, a.code, a.reason)
		require.Contains(t, expect, a.id)
		expect[a.id](a.result)
		delete(expect, a.id)
	}
	require.Greater(t, w.ask("stats").result.(map[string]any)["engine_cold_reads"], int64(100))

	var keys [][]byte
	for i := range less(f.keys, 3000) {
		keys = append(keys, coldKey(i))
	}
	got := w.ask("mget", keys).result.([]any)
	for i := range keys {
		require.True(t, bytes.Equal(coldContent(i), got[i].([]byte)), "key %d", i)
	}
	w.want(int64(len(keys)), "mdel", append(keys, []byte("none")))
	// A new key whose chain goes on on disk is taken for an overwrite.
	require.InDelta(t, f.keys-len(keys), w.ask("len").result, 4)
}

// TestCold_SameKey: requests on one key that overtake one another because the
// first waits for the disk.
func TestCold_SameKey(t *testing.T) {
	f := startFaulty(t)
	undo := f.delay(ioring.Read, 20*time.Millisecond)
	defer undo()
	w := f.dial()
	for i := range less(12, 4) {
		k, old := coldKey(i), coldContent(i)
		script := [][]byte{
			request(0, "get", k), request(1, "append", k, []byte("!")), request(2, "get", k),
			request(3, "del", k), request(4, "get", k), request(5, "put", k, []byte("new")), request(6, "get", k),
			request(7, "cas", k, []byte("new"), []byte("newer")), request(8, "mget", [][]byte{k}),
		}
		want := []any{old, int64(coldValue + 1), append(bytes.Clone(old), '!'), true, nil, true, []byte("new"), true, []any{[]byte("newer")}}
		w.send(bytes.Join(script, nil))
		for range want {
			a := w.must()
			require.Equal(t, want[a.id], a.result, "key %d, request %d", i, a.id)
		}
	}
}

// TestCold_Overtaken: a read that waits for the disk and holds up hot requests
// behind it, on its own connection or another.
func TestCold_Overtaken(t *testing.T) {
	f := startFaulty(t)
	w, other := f.dial(), f.dial()
	release := f.hold(ioring.Read)
	w.send(append(request(1, "get", coldKey(0)), request(2, "get", coldKey(f.keys-1))...))
	w.send(request(3, "ping"))
	require.Equal(t, uint32(2), w.must().id)
	require.Equal(t, uint32(3), w.must().id)
	other.want("pong", "ping")
	other.want(coldContent(f.keys-2), "get", coldKey(f.keys-2))
	release()
	a := w.must()
	require.Equal(t, uint32(1), a.id)
	require.Equal(t, coldContent(0), a.result)
}

// TestCold_Counted: an operation that waited for the disk is counted only when its
// client asks for something else.
func TestCold_Counted(t *testing.T) {
	f := startFaulty(t)
	w, other := f.dial(), f.dial()
	w.want(coldContent(0), "get", coldKey(0))
	all := other.ask("stats").result.(map[string]any)
	require.EqualValues(t, 1, all["daemon_reads_found"])
	require.EqualValues(t, 1, all["daemon_requests_get"])
}

// TestCold_SyncWaits: an answer that promises durability before the disk has
// said so, or that holds up what does not ask for it.
func TestCold_SyncWaits(t *testing.T) {
	f := startFaulty(t)
	w := f.dial()
	release := f.hold(ioring.Sync)
	w.send(request(1, "put", []byte("a"), []byte("1"), opt{"sync": true}))
	w.send(request(2, "put", []byte("b"), []byte("2")))
	w.send(request(3, "sync"))
	w.send(request(4, "get", []byte("a")))
	require.Equal(t, uint32(2), w.must().id)
	require.Equal(t, answer{id: 4, result: []byte("1")}, w.must())
	time.Sleep(50 * time.Millisecond) // in which it may promise too early
	w.send(request(5, "ping"))
	require.Equal(t, answer{id: 5, result: "pong"}, w.must())
	release()
	require.ElementsMatch(t, []uint32{1, 3}, []uint32{w.must().id, w.must().id})
}

// TestCold_SyncCoversPending: a sync that is answered while a write before it
// still waits for the disk, or that tells its number too early.
func TestCold_SyncCoversPending(t *testing.T) {
	f := startFaulty(t)
	w := f.dial()
	id := w.hello(opt{})["session"]
	release := f.hold(ioring.Read)
	w.send(bytes.Join([][]byte{
		request(11, "put", []byte("first"), []byte("1")),  // number 1
		request(12, "append", coldKey(0), []byte("!")),    // 2, waits
		request(13, "put", []byte("behind"), []byte("3")), // 3, waits behind it
		request(14, "put", []byte("")),                    // 4, refused at once
		request(15, "sync"),
		request(16, "get", []byte("behind")),
	}, nil))
	require.ElementsMatch(t, []uint32{11, 14}, []uint32{w.must().id, w.must().id}, "they wait for nothing")
	time.Sleep(50 * time.Millisecond) // in which the sync may be answered too early
	w.send(request(17, "ping"))
	require.Equal(t, answer{id: 17, result: "pong"}, w.must())
	release()
	order := []uint32{}
	for range 4 {
		a := w.must()
		order = append(order, a.id)
		if a.id == 15 {
			require.Equal(t, opt{"durable": int64(4)}, a.result)
		}
	}
	require.Equal(t, uint32(15), order[3])
	_ = w.conn.Close()
	h := f.dial().hello(opt{"session": id})
	require.EqualValues(t, 4, h["applied"])
	require.EqualValues(t, 4, h["durable"])
}

// TestCold_TakeoverFinishes: hello that answers while a numbered write of the
// old connection still waits for the disk.
func TestCold_TakeoverFinishes(t *testing.T) {
	f := startFaulty(t)
	old, next := f.dial(), f.dial()
	id := old.hello(opt{})["session"]
	undo := f.delay(ioring.Read, 200*time.Millisecond)
	old.send(append(request(1, "append", coldKey(3), []byte("!")), request(2, "put", []byte("hot"), []byte("h"))...))
	old.send(request(3, "ping"))
	old.must()
	h := next.hello(opt{"session": id})
	undo()
	require.EqualValues(t, 2, h["applied"])
	next.want(append(coldContent(3), '!'), "get", coldKey(3))
	next.want([]byte("h"), "get", []byte("hot"))
	old.closed()
}

// TestCold_Drain: a daemon that stops and drops what it had begun, or that does
// not stop because a client does not read.
func TestCold_Drain(t *testing.T) {
	f := startFaulty(t)
	w, deaf, idle, half := f.dial(), f.dial(), f.dial(), f.dial()
	half.send([]byte{0x94, 0, 1})
	release := f.hold(ioring.Read)
	w.send(bytes.Join([][]byte{
		request(1, "get", coldKey(0)), request(2, "append", coldKey(1), []byte("!")),
		request(3, "put", []byte("k"), []byte("v"), opt{"sync": true}), request(4, "ping"),
	}, nil))
	require.Equal(t, uint32(4), w.must().id)
	deaf.send(request(1, "put", []byte("big"), make([]byte, 4<<20)))
	deaf.must()
	deaf.send(request(2, "get", []byte("big")))
	idle.ask("config", opt{"set": opt{"drain_timeout": "2s"}})
	go func() {
		for !strings.Contains(f.log.String(), "msg=stopping") {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(50 * time.Millisecond) // in which it may drop something
		release()
	}()
	began := time.Now()
	f.stop()
	require.Less(t, time.Since(began), 15*time.Second, "it waits for a client that does not read")
	got := map[uint32]any{}
	for range 3 {
		a := w.must()
		got[a.id] = a.result
	}
	require.Equal(t, map[uint32]any{1: coldContent(0), 2: int64(coldValue + 1), 3: true}, got)
	for _, x := range []*wire{w, deaf, idle, half} {
		x.closed()
	}
}

// TestDaemon_StopsAtOnce: a daemon that waits for drain_timeout although every
// answer has been taken.
func TestDaemon_StopsAtOnce(t *testing.T) {
	for range 30 {
		d := start(t, func(c *Config) { c.DrainTimeout = time.Hour })
		w := d.dial()
		w.want(true, "put", []byte("k"), []byte("v"), opt{"sync": true})
		d.stop() // has less patience
		w.closed()
	}
}

// TestCold_SyncFails: a write acknowledged as durable when the disk has failed,
// or reads refused because writes are.
func TestCold_SyncFails(t *testing.T) {
	f := startFaulty(t)
	w := f.dial()
	f.fault.Inject(iotest.Rule{Kind: ioring.Sync, Err: unix.EIO})
	w.refuse(ipc.CodeReadOnly, "put", []byte("k"), []byte("v"), opt{"sync": true})
	w.refuse(ipc.CodeReadOnly, "put", []byte("k"), []byte("w"))
	w.refuse(ipc.CodeReadOnly, "sync")
	w.refuse(ipc.CodeReadOnly, "checkpoint")
	w.want([]byte("v"), "get", []byte("k"))
	w.want(coldContent(f.keys-1), "get", coldKey(f.keys-1))
	f.cancel()
	<-f.ended
	require.ErrorContains(t, f.err, "close the store")
	f.err = nil
}

// TestCold_ReadFails: a value that could not be read taken for an absent one,
// or an error that ends more than its request.
func TestCold_ReadFails(t *testing.T) {
	f := startFaulty(t)
	w := f.dial()
	undo := f.fault.Inject(iotest.Rule{Kind: ioring.Read, Err: unix.EIO})
	w.refuse(ipc.CodeIO, "get", coldKey(0))
	w.refuse(ipc.CodeIO, "mget", [][]byte{coldKey(f.keys - 1), coldKey(0), coldKey(1)})
	w.refuse(ipc.CodeIO, "append", coldKey(0), []byte("!"))
	undo()
	undo = f.fault.Inject(iotest.Rule{Kind: ioring.Read, Flip: true})
	require.Eventually(t, func() bool { return w.ask("get", coldKey(2)).code == string(ipc.CodeCorrupt) }, patience, time.Millisecond)
	undo()
	w.want(coldContent(0), "get", coldKey(0))
	w.want(coldContent(2), "get", coldKey(2))
}

// TestLarge_Pipelined: answers lost when large values that are in memory are
// asked for in one burst.
func TestLarge_Pipelined(t *testing.T) {
	w := start(t, nil).dial()
	value := bytes.Repeat([]byte("0123456789"), 30_000)
	w.want(true, "put", []byte("k"), value)
	for i := range uint32(8) {
		w.send(request(i, "get", []byte("k")))
	}
	for range 8 {
		require.Equal(t, value, w.must().result)
	}
	w.want([]any{value, value, value}, "mget", [][]byte{[]byte("k"), []byte("k"), []byte("k")})
}

// TestCold_SlowReader: much that is on disk asked for and not taken, which
// piles up in memory or keeps others from the disk; answers lost or refused
// when the client is merely not fast.
func TestCold_SlowReader(t *testing.T) {
	cfg := testConfig(t)
	cfg.Limits.Queued = 4 << 20
	d := startWith(t, cfg)
	w, slow := d.dial(), d.dial()
	value := make([]byte, 512<<10)
	n := less(160, 60) // 80 MiB
	for i := range n {
		w.want(true, "put", coldKey(i), value)
	}
	for i := range uint32(n) {
		slow.send(request(i, "get", coldKey(int(i))))
	}
	queued := func() int64 { return w.ask("stats").result.(map[string]any)["daemon_queued_bytes"].(int64) }
	require.Eventually(t, func() bool { return queued() > 4<<20 }, patience, time.Millisecond)
	for i := range 10 { // each within patience
		require.Equal(t, string(value), string(w.ask("get", coldKey(i)).result.([]byte)))
	}
	require.Less(t, queued(), int64(40<<20))
	all := func(w *wire, n int) {
		for range n {
			a := w.must()
			require.Empty(t, a.code, a.reason)
			require.True(t, bytes.Equal(value, a.result.([]byte)))
		}
	}
	all(slow, n)
	// A client that reads gets everything, however much it asks for.
	go func() {
		for i := range uint32(2 * n) {
			w.send(request(i, "get", coldKey(int(i)%n)))
		}
	}()
	all(w, 2*n)
}

// TestPython: a client that nobody here wrote and that does not get along.
func TestPython(t *testing.T) {
	python := "/usr/bin/python3" // the one that Debian's python3-msgpack belongs to
	if err := exec.Command(python, "-c", "import msgpack").Run(); err != nil {
		t.Skip("python3-msgpack is not installed")
	}
	d := start(t, nil)
	out, err := exec.Command(python, "../ipc/testdata/rpc.py", d.cfg.Socket).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NotContains(t, string(out), "FAIL")
	require.Positive(t, strings.Count(string(out), "ok"))
}

// TestCold_OpenOrder: a write before an mdel that has to wait for the disk, in one burst with it, is
// numbered behind it: a sync is answered before the write has taken effect, or never.
func TestCold_OpenOrder(t *testing.T) {
	f := startFaulty(t)
	for _, session := range []bool{false, true} {
		w := f.dial()
		if session {
			w.ask("hello", map[string]any{"protocol": ipc.ProtocolVersion})
		}
		undo := f.delay(ioring.Read, 20*time.Millisecond)
		first := 100
		if session {
			first = 200
		}
		var all []byte
		all = append(all, request(1, "del", coldKey(first))...)
		all = append(all, request(2, "mdel", [][]byte{coldKey(first + 1), coldKey(first + 2)})...)
		all = append(all, request(3, "sync")...)
		all = append(all, request(4, "del", coldKey(first+3))...)
		w.send(all)
		order := map[uint32]int{}
		for i := range 4 {
			a := w.must()
			require.Empty(t, a.code, a.reason)
			order[a.id] = i
		}
		require.Greater(t, order[3], order[1], "the sync covers the delete")
		require.Greater(t, order[3], order[2], "and the mdel")
		undo()
		require.NoError(t, w.conn.Close())
	}
}
