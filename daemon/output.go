package daemon

import (
	"time"

	"golang.org/x/sys/unix"

	"rskv/ipc"
)

// outputKept is the largest buffer for answers that is kept for the next ones.
const outputKept = 256 << 10

// output is the answers on their way to the client. Guarded by conn.mu, but
// for what is marked.
//
//	ready --flush--> writing: tried at once by who flushes; what the socket
//	                 does not take goes to the writer goroutine
type output struct {
	ready []byte // answers nobody is sending yet
	spare []byte // a buffer for the next ones
	// writing: somebody sends, and nobody else may. Whoever sets it owns the
	// fields below until he clears it.
	writing bool
	unsent  int // bytes taken from ready and not sent; guarded by conn.mu
	// gathering is the bytes of mget answers that are being put together.
	gathering int
	slow      bool // see pace
	// accounted is what this connection has added to server.queued.
	accounted int

	try      func(fd uintptr) bool // one write(2), whatever becomes of it
	tryBytes []byte
	trySent  int
	tryErr   error
}

func (o *output) init() {
	o.try = func(fd uintptr) bool {
		o.trySent, o.tryErr = unix.Write(int(fd), o.tryBytes)
		return true
	}
}

// owed is the bytes of answers the client has not taken.
func (c *conn) owed() int {
	return len(c.output.ready) + c.output.unsent + c.output.gathering
}

// account brings server.queued up to date. Less than a burst's worth is not
// counted, so that a client that takes its answers costs no shared counter.
// What a dead connection is still answered goes nowhere.
func (c *conn) account() {
	if c.dead {
		c.output.ready = nil
	}
	owed := c.owed()
	if owed < flushBytes {
		owed = 0
	}
	if owed != c.output.accounted {
		c.server.queued.Add(int64(owed - c.output.accounted))
		c.output.accounted = owed
	}
}

// accountMuch is account in the middle of a burst: others have to know of what it
// has brought together so far.
func (c *conn) accountMuch() {
	if c.owed() > c.output.accounted+flushBytes {
		c.account()
	}
}

// noRoomFor reports whether an answer of n bytes has to be refused because the
// memory for answers is spent, or half of it by this connection alone: only a
// client can bring that about that asks for much that is on disk and does not
// take it. Short answers are always given.
func (c *conn) noRoomFor(n int) bool {
	return n > readBytes && (c.server.crowded() || c.owed() > c.limits.QueuedAll/2)
}

// admit is asked before a large value is fetched: one that would be refused, or
// that nobody is there for, is not worth it.
func (c *conn) admit(n int) error {
	switch {
	case c.dead:
		return errStopping
	case c.noRoomFor(n):
		return errAnswersSpent
	}
	return nil
}

// paceMax is how long completions wait for a client to take the answers before
// them. They hold memory of the engine meanwhile, which others need.
const paceMax = 250 * time.Millisecond

var errAnswersSpent = &ipc.Error{Code: ipc.CodeBusy, Message: "the memory for answers (max_queued_all) is spent"}

// pace waits until the answers that are queued are within their bound, but no
// longer than paceMax: what comes from the disk is not to pile up before a
// client that takes its answers. One that was waited for in vain is not waited
// for again until it has caught up.
func (c *conn) pace() {
	o := &c.output
	behind := func() bool { return len(o.ready)+o.unsent > c.limits.Queued }
	if !behind() {
		o.slow = false
		return
	}
	if o.slow {
		return
	}
	c.unlocked(c.flush)
	timer := time.AfterFunc(paceMax, func() {
		c.mu.Lock()
		o.slow = behind()
		c.changed.Broadcast()
		c.mu.Unlock()
	})
	defer timer.Stop()
	for behind() && !c.dead && !o.slow {
		c.changed.Wait()
	}
}

// flush sends what is ready, unless somebody is sending already: he will send
// it. It never waits for the client. Called without the lock.
func (c *conn) flush() {
	o := &c.output
	c.mu.Lock()
	for !o.writing && !c.dead && len(o.ready) > 0 {
		answers := o.takeReady()
		c.mu.Unlock()
		sent, err := c.sendNow(answers)
		if err != nil {
			c.mu.Lock()
			o.writing, o.unsent = false, 0
			c.account()
			c.mu.Unlock()
			c.fail(err)
			return
		}
		c.mu.Lock()
		o.unsent -= sent
		if sent < len(answers) {
			c.account()
			c.workers.Add(1)
			go c.sendRest(answers, sent)
			break
		}
		o.writing = false
		o.keep(answers)
		c.account()
		// The reader may wait for this very write, in finish or in awaitRoom, which saw
		// the answers on their way. Nobody there costs nothing.
		c.changed.Broadcast()
	}
	c.mu.Unlock()
}

// takeReady makes the caller the one who sends.
func (o *output) takeReady() []byte {
	answers := o.ready
	o.ready, o.spare = o.spare[:0], nil
	o.writing, o.unsent = true, len(answers)
	return answers
}

// keep keeps a buffer that was sent.
func (o *output) keep(buf []byte) {
	if cap(buf) <= outputKept {
		o.spare = buf[:0]
	}
}

// sendNow sends as much as the socket takes without waiting.
func (c *conn) sendNow(answers []byte) (int, error) {
	o := &c.output
	o.tryBytes = answers
	err := c.raw.Write(o.try)
	o.tryBytes = nil
	if err != nil {
		return 0, err
	}
	switch o.tryErr {
	case nil:
		count(&c.lane.bytesOut, o.trySent)
		return o.trySent, nil
	case unix.EAGAIN, unix.EINTR:
		return 0, nil
	}
	return 0, o.tryErr
}

// sendRest is the writer goroutine: it sends what the socket did not take at
// once, and everything that gets ready meanwhile, then ends.
func (c *conn) sendRest(answers []byte, sent int) {
	defer c.workers.Done()
	for {
		if err := c.sendSlowly(answers[sent:]); err != nil {
			c.mu.Lock()
			c.output.writing, c.output.unsent = false, 0
			c.account()
			c.changed.Broadcast()
			c.mu.Unlock()
			c.fail(err)
			return
		}
		c.mu.Lock()
		if len(c.output.ready) == 0 || c.dead {
			break
		}
		answers, sent = c.output.takeReady(), 0
		c.mu.Unlock()
	}
	_ = c.socket.SetWriteDeadline(time.Time{})
	c.output.writing = false
	c.account()
	c.changed.Broadcast()
	c.mu.Unlock()
}

// sendSlowly waits for the client to take answers, as long as it takes some.
func (c *conn) sendSlowly(answers []byte) error {
	for len(answers) > 0 {
		var deadline time.Time
		if wait := c.server.settings().AnswerTimeout; wait > 0 {
			deadline = time.Now().Add(wait)
		}
		_ = c.socket.SetWriteDeadline(deadline)
		piece := answers[:min(len(answers), readBytes)]
		n, err := c.socket.Write(piece)
		count(&c.lane.bytesOut, n)
		if err != nil && n == 0 {
			c.server.count.timeouts.Add(1)
			return err
		}
		answers = answers[n:]
		c.mu.Lock()
		c.output.unsent -= n
		c.account()
		c.changed.Broadcast()
		c.mu.Unlock()
	}
	return nil
}
