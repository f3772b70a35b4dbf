package daemon

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"rskv/engine"
	"rskv/ipc"
)

// heldAnswer is an answer that is true only after a commit.
type heldAnswer struct {
	id       uint32
	answered bool
	began    int64 // when it was read, by server.now
	method   ipc.Method
	key      string // for the slow log; "" while that is off
	result   result
}

// timed is what it is counted as.
func (h *heldAnswer) timed() timedKind {
	if h.result.kind == resultDurable {
		return syncCommit
	}
	return writeCommit
}

// waitingSync is a sync that waits for writes before it to take effect.
type waitingSync struct {
	upTo uint64 // number of the last write before it
	held heldAnswer
}

// event is something another goroutine has to tell a connection.
type event struct {
	// A commit has ended.
	answers []heldAnswer
	err     error
	// Something done beside the connection has ended; called with conn.mu held.
	answer func()
}

// sync answers when everything the connection wrote before is on stable
// storage: first it must have taken effect, then be committed.
func (c *conn) sync(k call) {
	held := heldAnswer{k.id, k.answered, k.began, k.method, "", result{kind: resultDurable}}
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
func (c *conn) settle() { c.askFor(c.due()) }

// askFor asks for the commit that e needs, if any.
func (c *conn) askFor(e event) {
	if e.answers != nil {
		c.help()
		c.server.store.Commit(func(_ uint64, err error) {
			e.err = err
			c.postCommitted(e)
		})
	}
}

// due takes the answers that need a commit.
func (c *conn) due() (e event) {
	applied := c.writes.applied()
	for len(c.syncs) > 0 && c.syncs[0].upTo <= applied {
		c.held = append(c.held, c.syncs[0].held)
		c.syncs = c.syncs[1:]
	}
	if len(c.held) > 0 {
		c.server.count.commits.Add(1)
		e.answers, c.held = c.held, nil
	}
	return e
}

// answered reports whether the client is sent something when the event has come.
func (e *event) answered() bool {
	return slices.ContainsFunc(e.answers, func(h heldAnswer) bool { return h.answered })
}

// A client that sends one request and waits for its answer has nothing else to ask
// for meanwhile: its commit is made on the reader's own goroutine, where it waits
// for the disk and for no wake-up. One that turns out to have sent more during
// such a commit is not made to wait like that again, for the next crowdedFor
// commits.
const crowdedFor = 256

// waitsAlone reports whether the burst in hand, of so many requests, was one whose
// answer needs a commit, and the client waits for nothing else.
func (c *conn) waitsAlone(requests int) bool {
	if c.crowded > 0 {
		c.crowded--
		return false
	}
	return requests == 1 && c.flight.unanswered == 1 && len(c.held)+len(c.syncs) == 1 && !c.in.partial()
}

// lead makes the commit for e here, or leaves it to the helper if another is under
// way. Called with the lock, which it lets go meanwhile.
func (c *conn) lead(e event) {
	c.inbox.Lock()
	c.inbox.leading = true
	c.inbox.Unlock()
	c.mu.Unlock()
	c.server.store.Lead(func(_ uint64, err error) {
		e.err = err
		c.postCommitted(e)
	})
	c.inbox.Lock()
	c.inbox.leading = false
	done := len(c.inbox.events) > 0
	c.inbox.Unlock()
	crowded := done && c.more()
	c.mu.Lock()
	if !done {
		c.help()
		return
	}
	if crowded {
		c.crowded = crowdedFor
	} else {
		c.linger.answered(c.server.count.commits.Load())
	}
	c.takeEvents()
	c.settle()
	c.changed.Broadcast()
	c.unlocked(c.flush)
}

// more reports whether the client has sent something that is not read yet.
func (c *conn) more() bool {
	var b [1]byte
	n := 0
	_ = c.raw.Control(func(fd uintptr) { n, _, _ = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT) })
	return n > 0
}

// committed sends the answers a commit was asked for.
func (c *conn) committed(e *event) {
	c.flight.unanswered -= len(e.answers)
	o, now := &c.output, c.server.now()
	for _, h := range e.answers {
		if e.err == nil {
			c.lane.latency[h.timed()].observe(now-h.began, 1)
		}
		if c.slow > 0 {
			c.slowly(h.method, h.key, 1, waitedCommit, h.began)
		}
		switch {
		case !h.answered:
		case e.err != nil:
			err := wireError(e.err)
			c.server.count.refuse(err.Code)
			o.ready = ipc.AppendErrorResponse(o.ready, h.id, err.Code, err.Message)
		case h.result.kind == resultDurable:
			o.ready = ipc.AppendMapHeader(ipc.AppendResultHeader(o.ready, h.id), 1)
			o.ready = ipc.AppendUint(ipc.AppendStr(o.ready, "durable"), c.tellDurable())
		default:
			o.ready = appendResult(o.ready, h.id, h.result)
		}
	}
}

// tellDurable is what answers tell: the session's highest number on stable
// storage. A connection without a session has no numbers: 0.
func (c *conn) tellDurable() uint64 {
	if c.owner == nil {
		return 0
	}
	number := c.owner.ledger.Durable()
	c.owner.told.Store(number)
	return number
}

// notifyDurable tells the client unasked how far its session is durable, unless
// an answer has.
func (c *conn) notifyDurable() {
	c.mu.Lock()
	if c.owner != nil && !c.stopping && !c.overloaded() && c.owner.ledger.Durable() > c.owner.told.Load() {
		c.output.ready = ipc.AppendDurableNotification(c.output.ready, c.tellDurable())
	}
	c.mu.Unlock()
	c.flush()
}

// beside does what takes long beside the connection's other requests. answer is
// called with conn.mu held.
func (c *conn) beside(work func() (answer func())) {
	c.flight.unanswered++
	c.help()
	c.workers.Add(1)
	go func() {
		defer c.workers.Done()
		c.post(event{answer: work()})
	}()
}

// checkpoint takes a checkpoint.
func (c *conn) checkpoint(k call) {
	asked := &c.call.Checkpoint
	options := engine.CheckpointOptions{Kind: checkpointKinds[asked.Kind], Cookie: bytes.Clone(asked.Cookie)}
	c.beside(func() func() {
		info, err := c.server.store.Checkpoint(context.Background(), options)
		return func() { c.checkpointed(&k, &info, err) }
	})
}

// checkpointKinds are the kinds of the wire as the engine knows them.
var checkpointKinds = [...]engine.CheckpointKind{
	ipc.CheckpointFull:     engine.FullCheckpoint,
	ipc.CheckpointLog:      engine.LogCheckpoint,
	ipc.CheckpointIndex:    engine.IndexCheckpoint,
	ipc.CheckpointSnapshot: engine.SnapshotCheckpoint,
}

// checkpointed answers a checkpoint.
func (c *conn) checkpointed(k *call, info *engine.CheckpointInfo, err error) {
	switch {
	case err != nil:
		c.refuse(k, wireError(err))
	case k.answered:
		dst := ipc.AppendMapHeader(ipc.AppendResultHeader(c.output.ready, k.id), 4)
		dst = ipc.AppendUint(ipc.AppendStr(dst, "version"), info.Version)
		dst = ipc.AppendUint(ipc.AppendStr(dst, "durable"), c.tellDurable())
		dst = ipc.AppendInt(ipc.AppendStr(dst, "bytes"), info.Bytes)
		dst = ipc.AppendInt(ipc.AppendStr(dst, "ms"), info.Took.Milliseconds())
		c.output.ready = dst
	}
}

// checkpoints lists the checkpoints that are kept, newest first. Their files are
// read for it.
func (c *conn) checkpoints(k call) {
	c.beside(func() func() {
		list, err := c.server.store.Checkpoints()
		return func() { c.listed(&k, list, err) }
	})
}

// listed answers checkpoints. A damaged one is left out, and logged.
func (c *conn) listed(k *call, list []engine.CheckpointInfo, err error) {
	if err != nil && !errors.Is(err, engine.ErrCorrupt) {
		c.refuse(k, wireError(err))
		return
	}
	if err != nil {
		c.log.Warn("checkpoints that cannot be used", "error", err)
	}
	if !k.answered {
		return
	}
	dst := ipc.AppendArrayHeader(ipc.AppendResultHeader(c.output.ready, k.id), len(list))
	for i := range list {
		dst = appendCheckpoint(dst, &list[i])
	}
	c.output.ready = dst
}

func appendCheckpoint(dst []byte, info *engine.CheckpointInfo) []byte {
	dst = ipc.AppendUint(ipc.AppendStr(ipc.AppendMapHeader(dst, 9), "version"), info.Version)
	dst = ipc.AppendStr(ipc.AppendStr(dst, "kind"), kindName(info.Kind))
	dst = ipc.AppendInt(ipc.AppendStr(dst, "time"), info.Time.UnixMilli())
	dst = ipc.AppendInt(ipc.AppendStr(dst, "begin"), info.Begin)
	dst = ipc.AppendInt(ipc.AppendStr(dst, "tail"), info.Tail)
	dst = ipc.AppendInt(ipc.AppendStr(dst, "keys"), info.Keys)
	dst = ipc.AppendInt(ipc.AppendStr(dst, "bytes"), info.Bytes)
	dst = ipc.AppendInt(ipc.AppendStr(dst, "ms"), info.Took.Milliseconds())
	return ipc.AppendBin(ipc.AppendStr(dst, "cookie"), info.Cookie)
}

// kindName is an engine's kind of checkpoint on the wire.
func kindName(kind engine.CheckpointKind) string {
	return ipc.CheckpointKind(slices.Index(checkpointKinds[:], kind)).String()
}

// post gives the helper an event. It never blocks: the engine calls it.
func (c *conn) post(e event) {
	if c.put(e) {
		c.wakeHelper()
	}
}

// postCommitted is post of a commit's end, which many connections wait for.
func (c *conn) postCommitted(e event) {
	if c.put(e) {
		c.server.deliverer.add(c)
	}
}

// put puts an event into the inbox, and reports whether somebody has to be told:
// a reader that leads a commit looks there by himself when he is through.
func (c *conn) put(e event) bool {
	c.inbox.Lock()
	defer c.inbox.Unlock()
	c.inbox.events = append(c.inbox.events, e)
	return !c.inbox.leading
}

func (c *conn) wakeHelper() {
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
		c.leave()
	}
}

// leave sends what has been answered. Called with the lock, which it lets go.
func (c *conn) leave() {
	c.settle()
	c.lane.tally(&c.batch.counts)
	if c.flight.unanswered == 0 {
		c.trim()
	}
	c.changed.Broadcast()
	c.mu.Unlock()
	c.flush()
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
		if e := &events[i]; e.answer != nil {
			c.flight.unanswered--
			e.answer()
		} else {
			c.committed(e)
		}
	}
}
