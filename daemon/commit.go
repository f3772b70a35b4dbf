package daemon

import (
	"bytes"
	"context"

	"rskv/engine"
	"rskv/ipc"
)

// heldAnswer is an answer that is true only after a commit.
type heldAnswer struct {
	id       uint32
	answered bool
	result   result
}

// waitingSync is a sync that waits for writes before it to take effect.
type waitingSync struct {
	upTo uint64 // number of the last write before it
	held heldAnswer
}

// event is something another goroutine has to tell a connection.
type event struct {
	// A commit.
	answers []heldAnswer
	applied uint64 // the writes of the connection it covers
	// A checkpoint.
	checkpoint *call
	info       engine.CheckpointInfo

	err error
}

// sync answers when everything the connection wrote before is on stable
// storage: first it must have taken effect, then be committed.
func (c *conn) sync(k call) {
	held := heldAnswer{k.id, k.answered, result{kind: resultDurable}}
	c.flight.unanswered++
	if c.writes.applied() < c.writes.last {
		c.syncs = append(c.syncs, waitingSync{c.writes.last, held})
		return
	}
	c.held = append(c.held, held)
}

// settle asks for one commit for all answers that need one. It is called at
// the end of every burst and of every round of completions: that is what makes
// a group.
func (c *conn) settle() {
	applied := c.writes.applied()
	for len(c.syncs) > 0 && c.syncs[0].upTo <= applied {
		c.held = append(c.held, c.syncs[0].held)
		c.syncs = c.syncs[1:]
	}
	if len(c.held) == 0 {
		return
	}
	e := event{answers: c.held, applied: applied}
	c.held = nil
	c.help()
	c.server.count.commits.Add(1)
	c.server.store.Commit(func(_ uint64, err error) {
		e.err = err
		c.post(e)
	})
}

// committed sends the answers a commit was asked for.
func (c *conn) committed(e *event) {
	c.flight.unanswered -= len(e.answers)
	if e.err == nil && c.owner != nil {
		c.owner.durableUpTo(e.applied)
	}
	o := &c.output
	for _, h := range e.answers {
		switch {
		case !h.answered:
		case e.err != nil:
			err := wireError(e.err)
			c.server.count.refused.Add(1)
			o.ready = ipc.AppendErrorResponse(o.ready, h.id, err.Code, err.Message)
		case h.result.kind == resultDurable:
			o.ready = ipc.AppendMapHeader(ipc.AppendResultHeader(o.ready, h.id), 1)
			o.ready = ipc.AppendUint(ipc.AppendStr(o.ready, "durable"), c.durable())
		default:
			o.ready = appendResult(o.ready, h.id, h.result)
		}
	}
}

// durable is what sync and checkpoint tell: the session's highest number on
// stable storage. A connection without a session has no numbers: 0.
func (c *conn) durable() uint64 {
	if c.owner == nil {
		return 0
	}
	return c.owner.durable.Load()
}

// checkpoint takes a checkpoint beside the connection's other requests.
func (c *conn) checkpoint(k call) {
	e := event{checkpoint: &k, applied: c.writes.applied()}
	asked := &c.call.Checkpoint
	options := engine.CheckpointOptions{Kind: checkpointKinds[asked.Kind], Cookie: bytes.Clone(asked.Cookie)}
	c.flight.unanswered++
	c.help()
	c.workers.Add(1)
	go func() {
		defer c.workers.Done()
		e.info, e.err = c.server.store.Checkpoint(context.Background(), options)
		c.post(e)
	}()
}

// checkpointKinds are the kinds of the wire as the engine knows them.
var checkpointKinds = [...]engine.CheckpointKind{
	ipc.CheckpointFull:  engine.FullCheckpoint,
	ipc.CheckpointLog:   engine.LogCheckpoint,
	ipc.CheckpointIndex: engine.IndexCheckpoint,
}

// checkpointed answers a checkpoint.
func (c *conn) checkpointed(e *event) {
	c.flight.unanswered--
	if e.err != nil {
		c.refuse(e.checkpoint, wireError(e.err))
		return
	}
	if c.owner != nil {
		c.owner.durableUpTo(e.applied)
	}
	if !e.checkpoint.answered {
		return
	}
	dst := ipc.AppendMapHeader(ipc.AppendResultHeader(c.output.ready, e.checkpoint.id), 4)
	dst = ipc.AppendUint(ipc.AppendStr(dst, "version"), e.info.Version)
	dst = ipc.AppendUint(ipc.AppendStr(dst, "durable"), c.durable())
	dst = ipc.AppendInt(ipc.AppendStr(dst, "bytes"), e.info.Bytes)
	dst = ipc.AppendInt(ipc.AppendStr(dst, "ms"), e.info.Took.Milliseconds())
	c.output.ready = dst
}

// post gives the helper an event. It never blocks: the engine calls it.
func (c *conn) post(e event) {
	c.inbox.Lock()
	c.inbox.events = append(c.inbox.events, e)
	c.inbox.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// help starts the helper if it does not run yet.
func (c *conn) help() {
	if c.helping {
		return
	}
	c.helping = true
	c.workers.Add(1)
	go c.helper()
}

// helper takes in what others have done for the connection: the disk, commits,
// checkpoints.
func (c *conn) helper() {
	defer c.workers.Done()
	for {
		select {
		case <-c.session.Ready():
		case <-c.wake:
		case <-c.quit:
			return
		}
		c.mu.Lock()
		c.takeEvents()
		c.takeCompletions()
		c.settle()
		if c.flight.unanswered == 0 {
			c.trim()
		}
		c.changed.Broadcast()
		c.mu.Unlock()
		c.flush()
	}
}

// takeCompletions answers every operation that has waited and is done. The
// engine keeps what it hands out until the next call, large values out of a
// budget that all share, so the last call is one that hands out nothing.
func (c *conn) takeCompletions() {
	for handedOut := true; handedOut; {
		handedOut = false
		c.pace()
		c.session.Complete(func(op *engine.Op) {
			handedOut = true
			c.unpark(op)
		})
		c.account()
	}
}

func (c *conn) takeEvents() {
	c.inbox.Lock()
	events := c.inbox.events
	c.inbox.events = nil
	c.inbox.Unlock()
	for i := range events {
		if e := &events[i]; e.checkpoint != nil {
			c.checkpointed(e)
		} else {
			c.committed(e)
		}
	}
}
