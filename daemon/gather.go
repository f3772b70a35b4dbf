package daemon

import (
	"slices"

	"rskv/engine"
	"rskv/ipc"
)

// gather is the one answer of an mget, mput or mdel, put together from its
// parts, which may be done in any order. Guarded by conn.mu.
type gather struct {
	head call // the request as a whole
	// left counts the parts that are not done, and one more until all are
	// issued.
	left   int
	stored int64       // mput: parts stored; mdel: keys that were there
	err    *ipc.Error  // the first error of a part: the answer
	values gatherTexts // mget
}

// gatherTexts are the elements of an mget's answer, encoded, in the order they
// came in. Only while that is the order asked are they ready to be sent.
type gatherTexts struct {
	// text begins with room for the answer's head, so that a long answer can
	// be sent without being copied.
	text    []byte
	inOrder int    // elements 0..inOrder-1 stand in text first, in order
	spans   []span // where each element stands; nil while all are in order
	total   int    // elements asked for
}

type span struct{ begin, end uint32 }

// headRoom is the most a response's head and an array's head take.
const headRoom = 16

// add takes element number part.
func (t *gatherTexts) add(part int, found bool, value []byte) {
	begin := len(t.text)
	if need := begin + len(value) + 5; need > cap(t.text) {
		// Twice as much each time: append would go in steps of a quarter, and
		// leave four times the answer behind for the collector.
		t.text = append(make([]byte, 0, max(need, 2*cap(t.text))), t.text...)
	}
	if found {
		t.text = ipc.AppendBin(t.text, value)
	} else {
		t.text = ipc.AppendNil(t.text)
	}
	if part == t.inOrder && t.spans == nil {
		t.inOrder++
		return
	}
	if t.spans == nil {
		t.scatter(begin)
	}
	t.spans[part] = span{uint32(begin), uint32(len(t.text))}
}

// scatter begins to note where each element stands. The ones before end are in
// order and are found by reading them.
func (t *gatherTexts) scatter(end int) {
	t.spans = make([]span, t.total)
	r := ipc.NewReader(t.text[headRoom:end])
	for i := range t.inOrder {
		begin := end - r.Len()
		if err := r.Skip(); err != nil {
			panic("daemon: an element just encoded cannot be read: " + err.Error())
		}
		t.spans[i] = span{uint32(begin), uint32(end - r.Len())}
	}
}

// startGather begins a request of n parts.
func (c *conn) startGather(head call, n int) *gather {
	g := &gather{head: head, left: n + 1}
	if c.slow > 0 && n > 0 {
		g.head.key = shortKey(c.call.Keys[0])
	}
	if head.method == ipc.MethodMGet {
		g.values.total = n
		g.values.text = make([]byte, headRoom, headRoom+min(32*n, readBytes))
	}
	if head.number > 0 {
		// A commit may fall between its parts, which count only with the last: what
		// was refused before it has to have been counted by then.
		if c.owner != nil && c.writes.given < head.number-1 {
			c.add(call{number: head.number - 1}).Kind = engine.OpNote
		}
		// Its parts may be issued in several goes: it is open from the start.
		c.writes.open(head.number)
	}
	return g
}

// nextPart is the call of one part. Before it, the parts that wait for the disk
// are let below their bound.
func (c *conn) nextPart(g *gather, i int) call {
	if c.flight.unanswered > partsMax || c.flight.bytes > parkedMax || c.flight.expected() > c.limits.Queued {
		c.run()
		c.awaitParts()
	}
	k := g.head
	k.gather, k.part = g, int32(i)
	if i < len(c.call.Keys)-1 {
		k.number = 0 // the last part counts for all: parts are done in order
	}
	return k
}

// awaitParts waits until the disk has caught up. Also when the connection
// stops: a request that was begun is finished.
func (c *conn) awaitParts() {
	c.settle()
	for c.flight.unanswered > partsMax/2 || c.flight.bytes > parkedMax || c.flight.expected() > c.limits.Queued/2 {
		c.changed.Wait()
	}
}

// gathered takes the result of one part.
func (c *conn) gathered(k *call, op *engine.Op) {
	g := k.gather
	g.head.parked = g.head.parked || k.parked
	switch {
	case g.err != nil: // nothing can change the answer any more
	case op.Err != nil:
		g.err = wireError(op.Err)
	case g.head.method == ipc.MethodMGet:
		c.gatherValue(g, int(k.part), op)
	case op.Found:
		g.stored++
	}
	c.gatherDone(g)
}

// gatherValue takes one value of an mget, within the limit of an answer and the
// memory for all.
func (c *conn) gatherValue(g *gather, part int, op *engine.Op) {
	t := &g.values
	before := len(t.text)
	size := before
	if op.Found {
		size += len(op.Value) + 5
	}
	switch {
	case size > c.limits.Answer:
		g.err = answerTooLarge(c.limits.Answer)
	case c.noRoomFor(size):
		g.err = errAnswersSpent
	default:
		t.add(part, op.Found, op.Value)
	}
	if g.err != nil {
		t.text, t.spans = make([]byte, headRoom), nil
	}
	c.output.gathering += len(t.text) - before
	c.accountMuch()
}

// gatherDone counts one part, and answers after the last.
func (c *conn) gatherDone(g *gather) {
	if g.left--; g.left > 0 {
		return
	}
	if g.head.number > 0 {
		c.writes.close(g.head.number)
	}
	if g.head.method == ipc.MethodMGet {
		c.output.gathering -= len(g.values.text) - headRoom
	}
	if c.slow > 0 && g.head.parked && (g.err != nil || !g.head.sync) {
		c.slowly(g.head.method, g.head.key, 1, waitedDisk, g.head.began)
	}
	if g.err == nil && !g.head.sync {
		c.finished(&g.head)
	}
	switch {
	case g.err != nil:
		c.refuse(&g.head, g.err)
	case g.head.method == ipc.MethodMGet:
		c.sendValues(g)
	case g.head.blind:
		c.reply(&g.head, result{kind: resultNil})
	default:
		c.reply(&g.head, result{kind: resultInt, n: g.stored})
	}
}

// sendValues answers an mget.
func (c *conn) sendValues(g *gather) {
	if !g.head.answered {
		return
	}
	t := &g.values
	var room [headRoom]byte
	head := ipc.AppendArrayHeader(ipc.AppendResultHeader(room[:0], g.head.id), t.total)
	o := &c.output
	if t.spans != nil {
		o.ready = append(slices.Grow(o.ready, len(t.text)), head...)
		for _, s := range t.spans {
			o.ready = append(o.ready, t.text[s.begin:s.end]...)
		}
		return
	}
	if len(o.ready) == 0 && len(t.text) > flushBytes {
		begin := headRoom - len(head)
		copy(t.text[begin:], head)
		o.ready = t.text[begin:]
		return
	}
	o.ready = append(append(o.ready, head...), t.text[headRoom:]...)
}
