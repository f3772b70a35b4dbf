package daemon

import (
	"rskv/engine"
	"rskv/ipc"
)

// batchMax is how many operations go to the engine at a time. From about 16 on
// a batch hides the memory's latency; 64 leave enough for that at the end of a
// burst, and hold others up for microseconds only.
const batchMax = 64

// batch is the operations that go to the engine next, with the call each
// belongs to. Guarded by conn.mu.
type batch struct {
	n   int
	ops [batchMax]engine.Op
	// slots[i] is the place in flight.calls of the call of ops[i]. The batch
	// owns these places; one whose operation has to wait for the disk is left
	// to it and replaced.
	slots  [batchMax]uint32
	counts methodCounts
}

// methodCount is one more than the largest ipc.Method.
const methodCount = ipc.MethodLimit

// call is one request on its way, or one part of it: what has to be known when
// its operation is done.
type call struct {
	id       uint32
	method   ipc.Method
	answered bool // a request; a notification is not
	sync     bool // answer when it is on stable storage
	blind    bool
	parked   bool    // it waited for the disk
	part     int32   // which element of gather's answer
	began    int64   // when it was read, by server.now
	key      string  // for the slow log; "" while that is off
	bytes    int64   // of the copies the engine holds while it is parked
	number   uint64  // of the write, see writeLog; 0: a read, or a part that is not the last
	gather   *gather // the answer this is a part of; nil: one of its own
}

// flight is the calls whose operations wait for the disk, or whose answers for
// a commit. Guarded by conn.mu.
type flight struct {
	calls []call
	free  []uint32 // places in calls that nobody uses
	// unanswered counts parked operations, answers that wait for a commit, and
	// what is done beside: checkpoints, reads of a backup.
	unanswered int
	coming     int   // bytes that reads of a backup will bring
	bytes      int64 // keys and values of parked operations
	reads      int   // parked operations that will bring a value
	typical    int   // what such a value has been long of late, in bytes
}

// The length of values on disk is known only when they are there. A connection
// begins with a guess that lets some 64 reads wait, enough for any disk; values
// that turn out short soon let more.
const (
	typicalFirst = 256 << 10
	typicalLeast = 512
)

// expected is about how many bytes the reads that wait will bring.
func (f *flight) expected() int { return f.reads*f.typical + f.coming }

// learn takes the length of a value that has come from disk.
func (f *flight) learn(n int) {
	f.reads--
	f.typical = max(typicalLeast, f.typical+(n-f.typical)/8)
}

// brings reports whether the operation of a call brings a value.
func (k *call) brings() bool { return k.method == ipc.MethodGet || k.method == ipc.MethodMGet }

// place returns a place in calls.
func (f *flight) place() uint32 {
	if n := len(f.free); n > 0 {
		slot := f.free[n-1]
		f.free = f.free[:n-1]
		return slot
	}
	f.calls = append(f.calls, call{})
	return uint32(len(f.calls) - 1)
}

func (b *batch) init(c *conn) {
	for i := range b.slots {
		b.slots[i] = c.flight.place()
	}
}

// add puts an operation into the batch for the caller to fill in, and runs the
// batch first when it is full.
func (c *conn) add(k call) *engine.Op {
	if c.batch.n == batchMax {
		c.run()
	}
	b := &c.batch
	i := b.n
	b.n++
	slot := b.slots[i]
	c.flight.calls[slot] = k
	op := &b.ops[i]
	*op = engine.Op{Tag: uint64(slot), Number: k.number}
	if k.number > 0 {
		c.writes.given = k.number
	}
	return op
}

// note tells the engine of writes that were refused before it saw them: they
// count too, in their turn. One that is followed by a write it does see needs no
// word. Before whatever looks at how far the session is, and after each burst.
func (c *conn) note() {
	if c.owner != nil && c.writes.given < c.writes.last {
		c.add(call{number: c.writes.last}).Kind = engine.OpNote
	}
}

// run hands the batch to the engine and answers what is done at once.
func (c *conn) run() {
	b := &c.batch
	if b.n == 0 {
		return
	}
	ops := b.ops[:b.n]
	b.n = 0
	c.session.Start(ops)
	for i := range ops {
		op := &ops[i]
		if op.Pending() {
			c.park(i, op)
			continue
		}
		c.complete(&c.flight.calls[b.slots[i]], op)
		op.Key, op.Value, op.Old = nil, nil, nil
	}
	c.account()
}

// park leaves the call of ops[i] in flight until the engine has completed it.
func (c *conn) park(i int, op *engine.Op) {
	b := &c.batch
	k := &c.flight.calls[b.slots[i]]
	k.parked = true
	if c.slow > 0 && k.gather == nil {
		k.key = shortKey(op.Key)
	}
	k.bytes = int64(len(op.Key) + len(op.Value) + len(op.Old))
	if k.gather == nil && k.number > 0 {
		c.writes.open(k.number)
	}
	if k.brings() {
		c.flight.reads++
	}
	c.flight.unanswered++
	c.flight.bytes += k.bytes
	b.slots[i] = c.flight.place()
	op.Key, op.Value, op.Old = nil, nil, nil
	c.help()
}

// unpark is called by the engine for each operation that waited and is done.
func (c *conn) unpark(op *engine.Op) {
	slot := uint32(op.Tag)
	k := c.flight.calls[slot]
	c.flight.calls[slot] = call{}
	c.flight.free = append(c.flight.free, slot)
	c.flight.unanswered--
	c.flight.bytes -= k.bytes
	if k.brings() {
		c.flight.learn(len(op.Value))
	}
	c.complete(&k, op)
	c.server.pulse.beat()
}

// trim forgets what a time of many calls in flight has left behind. No call
// may be in flight.
func (c *conn) trim() {
	if len(c.flight.calls) > partsMax {
		c.flight.calls, c.flight.free = nil, nil
		c.batch.init(c)
	}
}
