package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"rskv/ioring/iotest/sim"
)

// simClient is a fiber that uses the store: in batches, one by one, and without
// waiting. It checks every answer against the model.
type simClient struct {
	l       *simLife
	w       *sim.World
	rng     *rand.Rand
	m       *simClientModel
	n       *Session
	ledger  *Ledger
	left    int // operations
	pending map[uint64]*simCall
	tag     uint64
	fat     int // one value in so many is large
}

// simCall is an operation on its way, with what its answer must be.
type simCall struct {
	op    Op
	write *simWrite // nil: it reads
	call  uint64
	// judge compares the answer with the model and notes the effect; it is called
	// when the answer is there, in the order of each key.
	judge func(op *Op) error
}

// run uses the store until there is nothing left to do, or the life is over.
func (c *simClient) run() {
	c.n = c.l.store.NewSession()
	if c.ledger != nil {
		c.n.Attach(c.ledger)
	}
	for c.left > 0 && !c.l.over() {
		switch c.rng.IntN(4) {
		case 0:
			c.async()
		case 1:
			c.drain()
			c.single()
		default:
			c.drain()
			c.batch()
		}
		switch c.rng.IntN(30) {
		case 0, 1:
			c.drain()
			c.sync()
		case 2:
			c.w.Sleep(time.Duration(c.rng.Int64N(int64(50 * time.Millisecond))))
		case 3:
			c.w.Sleep(time.Duration(c.rng.Int64N(int64(3 * time.Second))))
		}
	}
	c.drain()
	c.n.Close()
	if c.ledger != nil {
		if got := c.ledger.Applied(); got != c.m.number && !c.l.disk.Dead() {
			c.w.Fail(fmt.Errorf("client %d: its ledger counts %d writes, it has made %d", c.m.id, got, c.m.number))
		}
	}
}

// sync makes everything durable that was answered so far.
func (c *simClient) sync() { c.l.sync() }

func (c *simClient) calls(n int) []*simCall {
	list := make([]*simCall, 0, n)
	for range n {
		list = append(list, c.draw())
	}
	c.left -= n
	return list
}

func (c *simClient) batch() {
	calls := c.calls(1 + c.rng.IntN(12))
	ops := make([]Op, len(calls))
	for i, k := range calls {
		ops[i] = k.op
	}
	c.n.Do(ops)
	for i, k := range calls {
		c.answer(k, &ops[i])
	}
}

// single uses the methods for one operation, which have ways of their own.
func (c *simClient) single() {
	k := c.calls(1)[0]
	op := k.op
	if op.Kind == OpGet {
		var value []byte
		value, op.Err = c.n.Get(op.Key, op.Value)
		op.Found = op.Err == nil
		if errors.Is(op.Err, ErrNotFound) {
			op.Err = nil
		}
		op.Value = value
	} else {
		_ = c.n.one(&op)
	}
	c.answer(k, &op)
}

func (c *simClient) async() {
	calls := c.calls(1 + c.rng.IntN(12))
	ops := make([]Op, len(calls))
	for i, k := range calls {
		c.tag++
		k.op.Tag = c.tag
		ops[i] = k.op
		c.pending[c.tag] = k
	}
	c.n.Start(ops)
	for i := range ops {
		if !ops[i].Pending() {
			c.completed(&ops[i])
		}
	}
	if c.n.Pending() > 20 {
		c.n.Complete(c.completed)
		if c.n.Pending() > 0 {
			c.w.Wait(c.n.Ready())
		}
	}
}

func (c *simClient) completed(op *Op) {
	k := c.pending[op.Tag]
	if k == nil {
		c.w.Fail(fmt.Errorf("client %d: an answer that nobody waits for: %+v", c.m.id, op))
	}
	delete(c.pending, op.Tag)
	c.answer(k, op)
}

func (c *simClient) drain() {
	for c.n.Complete(c.completed) > 0 {
		c.w.Wait(c.n.Ready())
	}
	if len(c.pending) > 0 {
		c.w.Fail(fmt.Errorf("client %d: %d operations were never answered", c.m.id, len(c.pending)))
	}
}

// answer judges an answer and notes the effect of a write that had one.
func (c *simClient) answer(k *simCall, op *Op) {
	var err error
	stamp := c.w.Stamp()
	if k.write != nil {
		c.m.answered(k.write, stamp, op.Err != nil)
	}
	if op.Err != nil {
		if !c.l.allowed(op.Err) {
			err = op.Err
		}
	} else {
		err = k.judge(op)
	}
	c.w.Note("done", simOpName(&k.op), stamp, uint64(len(op.Value)))
	c.l.ops++
	if err != nil {
		c.w.Fail(fmt.Errorf("client %d, %s of %q (called %d, answered %d): %w", c.m.id, simOpName(&k.op), k.op.Key, k.call, stamp, err))
	}
}

func simOpName(op *Op) string {
	name := map[OpKind]string{OpGet: "get", OpExists: "exists", OpTTL: "ttl", OpPut: "put", OpDelete: "delete", OpCompareAndSwap: "cas",
		OpAdd: "add", OpAppend: "append", OpUpdate: "update", OpExpire: "expire"}[op.Kind]
	switch {
	case op.If == IfAbsent:
		return name + " if absent"
	case op.If == IfPresent:
		return name + " if present"
	case op.Blind:
		return "blind " + name
	}
	return name
}

// draw draws an operation and calls it.
func (c *simClient) draw() *simCall {
	call := &simCall{call: c.w.Stamp()}
	if c.m.ordered && c.rng.IntN(10) == 0 {
		c.useShared(call)
		return call
	}
	k := c.m.keys[c.rng.IntN(min(simHotKeys, len(c.m.keys)))]
	if c.rng.IntN(2) == 0 {
		k = c.m.keys[c.rng.IntN(len(c.m.keys))]
	}
	op := &call.op
	op.Key = k.name
	value := func() []byte { k.wrote++; return simValue(k.name, k.wrote, c.size()) }
	switch x := c.rng.IntN(100); {
	case x < 25:
		op.Kind = OpGet
		if c.rng.IntN(2) == 0 {
			op.Value = make([]byte, 0, c.rng.IntN(3000))
		}
	case x < 30:
		op.Kind = OpExists
	case x < 65:
		op.Kind, op.Value = OpPut, value()
	case x < 70:
		op.Kind, op.Value, op.If = OpPut, value(), IfAbsent
	case x < 75:
		op.Kind, op.Value, op.If = OpPut, value(), IfPresent
	case x < 81:
		op.Kind = OpDelete
	case x < 85:
		op.Kind, op.Blind = OpDelete, true
	case x < 91:
		op.Kind, op.Value = OpCompareAndSwap, value()
		op.OldAbsent, op.Old = k.now().absent, bytes.Clone(k.now().value)
		if c.rng.IntN(4) == 0 {
			op.OldAbsent, op.Old = false, []byte("something else")
		}
		if op.NewAbsent = c.rng.IntN(5) == 0; op.NewAbsent {
			op.Value = nil
		}
	case x < 97:
		op.Kind = OpAppend
		op.Value = value()
		op.Value = op.Value[:min(len(op.Value), c.rng.IntN(100))]
	default:
		op.Kind = OpUpdate
		next, verdict := value(), Verdict(c.rng.IntN(3))
		op.Fn = func([]byte, bool) ([]byte, Verdict) { return next, verdict }
		c.register(call, k)
		call.judge = func(op *Op) error { return c.judgeUpdate(call, k, op, next, verdict) }
		return call
	}
	if op.writes() {
		c.register(call, k)
	}
	given := call.op // its values are copied: the engine may use the memory of an OpGet
	call.judge = func(op *Op) error { return c.judge(call, k, &given, op) }
	return call
}

// register makes the call a write of the model.
func (c *simClient) register(call *simCall, k *simKey) {
	call.write = &simWrite{call: call.call, key: k}
	c.m.call(call.write)
	if c.ledger != nil {
		call.op.Number = call.write.number
	}
}

// size draws the size of a value.
func (c *simClient) size() int {
	switch x := c.rng.IntN(100); {
	case x < 50:
		return c.rng.IntN(200)
	case x < 85:
		return c.rng.IntN(4000)
	case x < 97 || c.rng.IntN(c.fat) > 0:
		return c.rng.IntN(30_000)
	case x < 99:
		return inlineMax - 50 + c.rng.IntN(100)
	}
	return inlineMax + c.rng.IntN(3*chunkBytes)
}

// simValue is a value that is written once only.
func simValue(key []byte, version uint64, n int) []byte {
	b := valueOf(uint64(len(key))<<32|uint64(key[7])<<8|uint64(key[len(key)-1]), version, max(n, 12))
	binary.LittleEndian.PutUint32(b, uint32(len(key))<<24|uint32(version))
	return b
}

// judge compares an answer with what the key is, and gives it its new state.
func (c *simClient) judge(call *simCall, k *simKey, given, op *Op) error {
	now := k.now()
	there := !now.absent
	next := simState{write: call.write}
	want := there
	changes := false
	switch given.Kind {
	case OpGet:
		if !now.is(op.Value, op.Found) {
			return fmt.Errorf("%s, want %s", &simState{absent: !op.Found, value: op.Value}, now)
		}
		return nil
	case OpExists:
	case OpPut:
		want = given.If == Always || there == (given.If == IfPresent)
		changes, next.value = want, given.Value
	case OpDelete:
		if given.Blind {
			want = op.Found
		}
		changes, next.absent = there, true
	case OpCompareAndSwap:
		want = given.OldAbsent && !there || !given.OldAbsent && there && bytes.Equal(given.Old, now.value)
		changes, next.value, next.absent = want, given.Value, given.NewAbsent
		if next.absent && !there {
			changes = false
		}
	case OpAppend:
		next.value = append(bytes.Clone(now.value), given.Value...)
		if !there {
			next.value = append([]byte{}, given.Value...)
		}
		if op.Int != int64(len(next.value)) {
			return fmt.Errorf("length %d, want %d", op.Int, len(next.value))
		}
		want, changes = true, true
	}
	if op.Found != want {
		return fmt.Errorf("found %t, want %t: it is %s", op.Found, want, now)
	}
	if changes {
		k.states = append(k.states, next)
	}
	return nil
}

func (c *simClient) judgeUpdate(call *simCall, k *simKey, op *Op, value []byte, verdict Verdict) error {
	there := !k.now().absent
	if op.Found != there {
		return fmt.Errorf("found %t, want %t", op.Found, there)
	}
	switch {
	case verdict == Replace:
		k.states = append(k.states, simState{write: call.write, value: value})
	case verdict == Remove && there:
		k.states = append(k.states, simState{write: call.write, absent: true})
	}
	return nil
}

// useShared makes the call one of a counter or a value that all clients use.
func (c *simClient) useShared(call *simCall) {
	appends := c.rng.IntN(2) == 0
	s := simSharedKey(appends, c.rng.IntN(simSharedKeys))
	op := &call.op
	op.Key = s.name
	m := c.l.model
	switch {
	case appends && c.rng.IntN(3) == 0:
		op.Kind = OpGet
		call.judge = func(op *Op) error { return m.checkPieces(s, op.Value, call.call) }
		return
	case appends:
		op.Kind = OpAppend
		call.write = &simWrite{call: call.call, shared: s}
		c.m.call(call.write)
		op.Value = c.m.piece(call.write.number)
		call.judge = func(op *Op) error {
			if op.Int%simPieceBytes != 0 || op.Int == 0 {
				return fmt.Errorf("%d bytes, not a number of pieces", op.Int)
			}
			return nil
		}
	default:
		op.Kind = OpAdd
		op.Delta = 1 + c.rng.Int64N(1000)
		call.write = &simWrite{call: call.call, shared: s, delta: op.Delta}
		c.m.call(call.write)
		call.judge = func(op *Op) error {
			least, most := m.counterBounds(s, call.call)
			if op.Int < least+call.write.delta || op.Int > most {
				return fmt.Errorf("%d, want %d to %d", op.Int, least+call.write.delta, most)
			}
			return nil
		}
	}
	op.Number = call.write.number
}

// simChores are what goes on beside the clients: each so many times at most in a
// life, as long as there are clients.
var simChores = []struct {
	name string
	most int
	do   func(l *simLife, rng *rand.Rand)
}{
	{"sync", 20, func(l *simLife, _ *rand.Rand) { l.sync() }},
	{"checkpoint", 5, func(l *simLife, rng *rand.Rand) {
		call := l.w.Stamp()
		kind := []CheckpointKind{FullCheckpoint, SnapshotCheckpoint, LogCheckpoint, IndexCheckpoint}[rng.IntN(4)]
		info, err := l.store.Checkpoint(context.Background(), CheckpointOptions{Kind: kind, Cookie: make([]byte, rng.IntN(50))})
		if l.judge("checkpoint", err) == nil {
			l.model.durable = max(l.model.durable, call)
			l.model.checkpoints[info.Version] = call
		}
	}},
	{"compact", 6, func(l *simLife, rng *rand.Rand) {
		until := int64(0)
		if rng.IntN(2) == 0 {
			until = rng.Int64N(l.store.log.Tail().Bytes() + 1)
		}
		_, err := l.store.Compact(context.Background(), CompactOptions{Until: until})
		_ = l.judge("compact", err, ErrBusy)
	}},
	{"scan", 3, func(l *simLife, rng *rand.Rand) { l.scan(rng) }},
	{"count", 2, func(l *simLife, _ *rand.Rand) {
		_, err := l.store.LenExact(context.Background())
		_ = l.judge("count", err, ErrCursor)
	}},
	{"stats", 10, func(l *simLife, _ *rand.Rand) {
		l.store.Stats()
		l.store.Tasks()
		l.store.EstimateGC()
	}},
	{"memory", 6, func(l *simLife, rng *rand.Rand) {
		err := l.store.SetMemory(MemoryMin + rng.Int64N(8)<<20)
		_ = l.judge("set memory", err, ErrMemoryTooSmall)
	}},
	{"disk", 6, func(l *simLife, rng *rand.Rand) {
		bytes := int64(0)
		if rng.IntN(2) == 0 {
			bytes = l.store.dev.SegmentSize() * (diskSegmentsMin + rng.Int64N(20))
			l.budget = true
		}
		_ = l.judge("set disk", l.store.SetDisk(bytes))
	}},
	{"tasks", 4, func(l *simLife, rng *rand.Rand) {
		name := []TaskName{TaskCheckpoint, TaskCompact, TaskWarm, TaskExpire, TaskCache}[rng.IntN(5)]
		_ = l.judge("stop task", l.store.StopTask(name))
		l.w.Sleep(time.Duration(rng.Int64N(int64(2 * time.Second))))
		_ = l.judge("start task", l.store.StartTask(name))
	}},
	{"expire", 8, func(l *simLife, rng *rand.Rand) { l.expire(rng) }},
	{"wall", 4, func(l *simLife, rng *rand.Rand) {
		l.w.MoveWall(time.Duration(rng.Int64N(int64(2*time.Minute)) - int64(time.Minute)))
	}},
	{"sessions", 10, func(l *simLife, _ *rand.Rand) {
		n := l.store.NewSession()
		l.w.Yield()
		n.Close()
		if g, err := l.store.NewLedger(); l.judge("new ledger", err, ErrBusy) == nil {
			g.Release()
		}
	}},
}

func simChoreNames() (names []string) {
	for _, c := range simChores {
		names = append(names, c.name)
	}
	return names
}
