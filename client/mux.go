package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"time"

	"rskv/ipc"
)

// slot is one place in the table of what is in flight; its index is the request's id. Slot 0 stays
// empty: the daemon answers id 0 when it cannot tell which request it is about.
type slot struct {
	f      *flight // whose request it is; nil: free, or nobody waits
	number uint64  // of a session's write; 0: it is none; 0 and no flight: free
	i      int32   // which of the flight's requests
	free   uint32  // next free slot, 0 at the end
}

// maxTries is for how many connections a request is queued before it is given up: one that makes
// the daemon drop the connection must not do so for ever.
const maxTries = 4

// submit queues all requests of f. After it the flight is in flight; with an error it is not, and
// nothing of it was queued.
func (c *Client) submit(ctx context.Context, f *flight) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.pass(ctx, f); err != nil {
		c.mu.Unlock()
		return err
	}
	if err := c.mu.err; err != nil {
		c.mu.gate.refund(load{len(f.ops), len(f.buf)}, f.writes)
		c.mu.Unlock()
		return err
	}
	f.left = len(f.ops)
	base, up := c.mu.queued, c.mu.up
	for i := range f.ops {
		o := &f.ops[i]
		o.id = c.takeSlotLocked(f, i)
		o.at = base + uint64(o.start)
		if up {
			o.tries = 1
		}
		ipc.PatchID(f.buf[o.start:], o.id)
		if c.opt.session && o.nature == natureWrite {
			c.mu.slots[o.id].number = c.mu.kept.add(f.buf[o.start:o.end])
		}
	}
	c.mu.queued += uint64(len(f.buf))
	if up {
		c.mu.out = append(c.mu.out, f.buf...)
	}
	f.leads = c.countLoneLocked(f)
	c.askSyncLocked()
	if f.leads {
		_ = c.writeLocked(c.mu.conn) // who reads sees it fail
		up = len(c.mu.out) > 0
	}
	c.mu.Unlock()
	if up {
		c.wakeFlusher()
	}
	return nil
}

func (c *Client) takeSlotLocked(f *flight, i int) uint32 {
	id := c.mu.free
	if id == 0 {
		id = uint32(len(c.mu.slots))
		c.mu.slots = append(c.mu.slots, slot{})
	}
	s := &c.mu.slots[id]
	c.mu.free = s.free
	s.f, s.i = f, int32(i)
	return id
}

// freeSlotLocked empties slot id and counts its request out of the gate.
func (c *Client) freeSlotLocked(id uint32) slot {
	s := &c.mu.slots[id]
	was := *s
	s.f, s.number, s.free = nil, 0, c.mu.free
	c.mu.free = id
	if was.f != nil {
		o := &was.f.ops[was.i]
		c.mu.gate.leave(load{1, o.end - o.start})
	}
	return was
}

func (c *Client) wakeFlusher() {
	select {
	case c.wake <- struct{}{}:
	default: // it has a token already
	}
}

// flush writes what callers queue until stop is closed or the socket fails, which the reading side
// then sees as well. One yield before each write lets every caller that is ready queue first.
func (c *Client) flush(conn net.Conn, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-c.wake:
		}
		runtime.Gosched()
		c.mu.Lock()
		for len(c.mu.out) > 0 && c.mu.up && !c.mu.writing {
			if err := c.writeLocked(conn); err != nil {
				c.mu.Unlock()
				return
			}
		}
		c.mu.Unlock()
	}
}

// writeLocked writes what is queued. It lets the lock go meanwhile.
func (c *Client) writeLocked(conn net.Conn) error {
	b := c.mu.out
	c.mu.out, c.mu.writing = c.spare[:0], true
	c.mu.Unlock()
	n, err := conn.Write(b)
	if err != nil {
		_ = conn.Close() // ends the reading side, which handles the loss
	}
	c.spare = keep(b)
	c.mu.Lock()
	c.mu.written += uint64(n)
	c.mu.writing = false
	return err
}

// keep returns b's memory for the next use, unless it is too large to hold on to.
func keep(b []byte) []byte {
	const kept = 1 << 20 // bytes; several pipelines of ordinary requests
	if cap(b) > kept {
		return nil
	}
	return b
}

// run is the goroutine that looks after the connection, reads, and hands answers out, unless a caller
// who is alone does that (see lone.go). Who reads owns every flight that is in flight.
func (c *Client) run(l *link) {
	defer close(c.ended)
	for l != nil {
		err := c.serve(l)
		c.lost(err)
		l = c.redial(err)
	}
	c.failAll(ErrClosed)
}

// serve uses a connection until it fails, and returns why. Both sides have ended when it returns.
func (c *Client) serve(l *link) error {
	stop, flushed := make(chan struct{}), make(chan struct{})
	conn := l.conn
	if !c.attach(l) {
		_ = conn.Close()
		return ErrClosed
	}
	go func() {
		defer close(flushed)
		c.flush(conn, stop)
	}()
	c.wakeFlusher()
	err := c.read(l)
	_ = conn.Close() // frees a flusher that is stuck in a write
	close(stop)
	<-flushed
	return err
}

// attach makes l the connection in use and queues for it what outlived the one before it, in its old
// order, but for what was given up meanwhile. It returns false if the client was closed.
func (c *Client) attach(l *link) bool {
	c.mu.Lock()
	if c.mu.closed {
		c.mu.Unlock()
		return false
	}
	c.mu.err, c.mu.conn, c.mu.up = nil, l.conn, true
	c.mu.out, c.mu.lone = c.mu.out[:0], lone{}
	c.mu.written = c.mu.queued
	if c.opt.session {
		c.resumeLocked(&l.hello, &c.ends)
	} else {
		for _, id := range c.othersLocked(&c.ends) {
			c.queueLocked(id)
		}
	}
	c.mu.Unlock()
	if tell := c.opt.hooks.Connected; tell != nil {
		tell(c.down())
	}
	c.ends.deliver(c.opt.onLoss)
	return true
}

// down is for how long there has been no connection; 0 before the first.
func (c *Client) down() time.Duration {
	if c.cause == nil {
		return 0
	}
	return time.Since(c.lostAt)
}

// inFlightLocked returns the occupied slots in the order in which they were queued.
func (c *Client) inFlightLocked() []slot {
	var list []slot
	for _, s := range c.mu.slots {
		if s.f != nil {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b slot) int {
		return cmp.Compare(a.f.ops[a.i].at, b.f.ops[b.i].at)
	})
	return list
}

// readSize is the size in bytes of a read, and of the buffer unless an answer is longer; up to
// readKept bytes a longer buffer is kept for the next long answer.
const (
	readSize = 64 << 10
	readKept = 1 << 20
)

// read hands out answers until the connection fails. The first bytes have been read already.
func (c *Client) read(l *link) error {
	c.in = stream{conn: l.conn, split: ipc.NewSplitter(ipc.MaxAnswer), buf: make([]byte, max(readSize, 2*len(l.rest)))}
	c.in.fill = copy(c.in.buf, l.rest)
	for {
		err := c.readOnce()
		if err == nil && c.leave() {
			err = c.standBy()
		}
		if err != nil {
			return err
		}
	}
}

// readOnce reads once, and hands out the answers that are whole.
func (c *Client) readOnce() error {
	s := &c.in
	n, err := s.conn.Read(s.buf[s.fill:])
	s.fill += n
	used, derr := c.handOut(&s.split, s.buf[:s.fill])
	switch {
	case derr != nil:
		return derr
	case errors.Is(err, io.EOF):
		return errors.New("the daemon closed the connection")
	case err != nil:
		return err
	}
	if used > 0 { // not for each piece of a long answer: moving it each time would be quadratic
		s.fill = copy(s.buf, s.buf[used:s.fill])
	}
	switch {
	case s.fill == len(s.buf): // a longer answer: room for twice what came, not for what it claims
		s.buf = append(s.buf, make([]byte, len(s.buf))...)
	case len(s.buf) > readKept && s.fill < readSize:
		s.buf = append(make([]byte, 0, readSize), s.buf[:s.fill]...)[:readSize]
	}
	return nil
}

// group is how many answers are looked up under one lock.
const group = 128

// handOut delivers every whole answer in b and returns how many bytes they took.
func (c *Client) handOut(split *ipc.Splitter, b []byte) (used int, err error) {
	for {
		n := 0
		for n < group {
			size, serr := split.Next(b[used:])
			if serr != nil {
				return used, fmt.Errorf("read answer: %w", serr)
			}
			if size == 0 {
				break
			}
			p := &c.responses[n]
			if err := ipc.ParseResponse(b[used:used+size], p); err != nil {
				return used, fmt.Errorf("read answer: %w", err)
			}
			used += size
			if p.Type == ipc.TypeNotification {
				if err := c.land(n); err != nil { // they were sent before it
					return used, err
				}
				if err := c.notified(p); err != nil {
					return used, err
				}
				n = 0
				continue
			}
			n++
		}
		if err := c.land(n); err != nil {
			return used, err
		}
		if n < group {
			return used, nil
		}
	}
}

// land finds the requests of the first n responses and delivers. The lock is held for the lookup
// only, not for the copying.
func (c *Client) land(n int) (err error) {
	if n == 0 {
		return nil
	}
	c.mu.Lock()
	for i := range n {
		p := &c.responses[i]
		if p.ID == 0 || int(p.ID) >= len(c.mu.slots) || c.mu.slots[p.ID].isFree() {
			n, err = i, strayAnswer(p)
			break
		}
		s := c.freeSlotLocked(p.ID)
		c.targets[i] = s
		if c.opt.session {
			if err = c.countLocked(&s, p); err != nil {
				n = i + 1
				break
			}
		}
	}
	c.in.alone = c.mu.lone.alone >= loneAfter
	c.mu.Unlock()
	for i := range n {
		if s := &c.targets[i]; s.f != nil {
			s.f.take(int(s.i), &c.responses[i])
		}
	}
	clear(c.targets[:n])
	c.answered = c.answered || n > 0
	c.ends.deliver(c.opt.onLoss)
	return err
}

// isFree reports whether there is no request in the slot.
func (s *slot) isFree() bool { return s.f == nil && s.number == 0 }

// countLocked takes from an answer what it says of the session. The slot is free already.
func (c *Client) countLocked(s *slot, p *ipc.Response) error {
	switch {
	case s.number == ownSync:
		return c.syncedLocked(p)
	case s.number != 0 && p.Failed:
		c.refusedLocked(s, p)
	case s.number == 0 && !p.Failed && s.f.ops[s.i].nature >= natureDurable:
		return c.tookDurableLocked(p)
	}
	return nil
}

// strayAnswer is the error for an answer to nothing. With id 0 it is the daemon's reason to hang up.
func strayAnswer(p *ipc.Response) error {
	if p.ID == 0 && p.Failed {
		return p.Err()
	}
	return fmt.Errorf("%w: answer to request %d, which is not in flight", ErrProtocol, p.ID)
}

// lost sorts out what was in flight when the connection failed with cause: what may be sent again
// stays, the rest fails.
func (c *Client) lost(cause error) {
	c.cause, c.lostAt = cause, time.Now()
	c.mu.Lock()
	c.mu.up, c.mu.conn, c.mu.syncing = false, nil, false
	if c.mu.closed {
		c.mu.Unlock()
		return // failAll comes next
	}
	for id := range c.mu.slots {
		if s := &c.mu.slots[id]; s.f == nil && s.number != 0 {
			c.freeSlotLocked(uint32(id)) // the log has what it was about
		}
	}
	notSent, sent := &lostError{cause: cause}, &lostError{cause: cause, sent: true}
	for _, s := range c.inFlightLocked() {
		o := &s.f.ops[s.i]
		o.sent = o.sent || c.sentLocked(o)
		switch {
		case s.number != 0: // the next hello tells what became of it
		case o.sent && !c.mayRepeat(o.nature):
			c.ends.fail(c.freeSlotLocked(o.id), sent)
		case o.tries >= maxTries:
			c.ends.fail(c.freeSlotLocked(o.id), notSent)
		}
	}
	c.mu.Unlock()
	if tell := c.opt.hooks.Disconnected; tell != nil {
		tell(cause)
	}
	c.ends.deliver(c.opt.onLoss)
}

// mayRepeat reports whether a request may be sent again though the daemon may have carried it out.
func (c *Client) mayRepeat(n nature) bool {
	return n == natureRead || n == natureSync && c.opt.session
}

// sentLocked reports whether all of o's bytes were taken by the socket, without which the daemon
// cannot have carried it out.
func (c *Client) sentLocked(o *op) bool {
	return o.at+uint64(o.end-o.start) <= c.mu.written
}

// failAll fails everything in flight with err. A session's write that was sent may have taken effect,
// or will when it is sent again; one that was not never will.
func (c *Client) failAll(err error) {
	c.mu.Lock()
	for _, s := range c.inFlightLocked() {
		o := &s.f.ops[s.i]
		why := err
		switch {
		case s.number == 0 || c.mu.closed:
		case o.sent:
			why = &lostError{cause: err, sent: true}
			c.mu.kept.mark(s.number, fateOrphan)
		default:
			c.mu.kept.mark(s.number, fateVoid)
		}
		c.ends.fail(c.freeSlotLocked(o.id), why)
	}
	c.mu.gate.turnAway(err)
	c.mu.Unlock()
	c.ends.deliver(c.opt.onLoss)
}

// redial connects again, with growing pauses, and returns nil when the client is closed. When it has
// taken longer than retryFor, what waits fails, and what comes fails at once until a connection is
// up. The pauses start over only after a connection that brought answers.
func (c *Client) redial(cause error) *link {
	if c.answered || c.downSince.IsZero() {
		c.answered, c.downSince, c.pause = false, time.Now(), c.opt.pauseMin
	}
	for {
		pause := c.pause/2 + rand.N(c.pause/2+1)
		down := time.Since(c.downSince)
		if down >= c.opt.retryFor {
			c.refuse(&lostError{cause: fmt.Errorf("no connection for %v: %w", down.Round(time.Millisecond), cause)})
		} else {
			pause = min(pause, c.opt.retryFor-down)
		}
		select {
		case <-c.closing.Done():
			return nil
		case <-time.After(pause):
		}
		c.pause = min(2*c.pause, c.opt.pauseMax)
		l, err := c.connect(c.closing)
		if err == nil {
			return l
		}
		if errors.Is(err, ErrSessionLost) || errors.Is(err, ErrSessionUnknown) {
			c.sessionLost(err)
		}
		cause = err
	}
}

// refuse fails what is in flight with err, and what is submitted until the next connection.
func (c *Client) refuse(err error) {
	c.mu.Lock()
	if c.mu.closed {
		err = ErrClosed
	}
	c.mu.err = err
	c.mu.Unlock()
	c.failAll(err)
}

// dial makes one connection.
func dial(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}
