package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"rskv/ipc"
)

// A session's life in the client. The daemon counts its writes as they come; the client counts them
// as they go, and keeps a copy of each until it is durable:
//
//	   durable          applied            next
//	1 ────┼────────────────┼─────────────────┼───→ numbers
//	      │  in memory     │ on the wire, or │
//	forgotten, in the log  │ not yet there   │
//	      └───────────── kept ───────────────┘
//
// A new connection says hello and is told durable and applied. Writes up to applied took effect;
// what is left to find out is their answers. Writes beyond have no effect, be it that the connection
// lost them or that a crash of the daemon undid them: their numbers are free again, and they are
// given the next ones and sent in their old order, those that were answered before like those that
// were not.

// WithSession makes every write take effect exactly once as long as the Client lives, whatever
// becomes of the connection and of the daemon. See the package's documentation for the price.
func WithSession() Option {
	return func(o *options) { o.session = true }
}

// WithResume is WithSession for a session that another Client began, which must not use it any more:
// the daemon takes it away. Dial fails with ErrSessionUnknown if the daemon does not know it; what it
// does know is in Session's answer.
func WithResume(id [ipc.SessionSize]byte) Option {
	return func(o *options) { o.session, o.resume, o.resumed = true, id, true }
}

// WithKept bounds the writes a session keeps because they are not known to be durable: their number,
// and their bytes as they are sent. At half of it the Client asks for a sync, at all of it callers
// wait. The default is 524,288 writes and 64 MiB; a bound below 1 is taken as 1.
func WithKept(writes, bytes int) Option {
	return func(o *options) { o.kept = load{max(writes, 1), max(bytes, 1)} }
}

// WithSessionLoss has f called when a session ends that cannot be resumed, and when a write that was
// answered with success and undone by a crash is refused when it is sent again. It is called on the
// goroutine that hands out answers: it must not call the Client, nor wait for somebody who does.
func WithSessionLoss(f func(SessionLoss)) Option {
	return func(o *options) { o.onLoss = f }
}

// SessionLoss is what a Client could not keep.
type SessionLoss struct {
	Session [ipc.SessionSize]byte
	// Unconfirmed is how many writes may be lost that were answered with success, or for whose answer
	// nobody waited: they were not known to be durable.
	Unconfirmed int
	// Err is why: an ErrSessionLost, or what the daemon answered.
	Err error
}

// Session is how far a session is.
type Session struct {
	ID      [ipc.SessionSize]byte
	Written uint64 // number of the last write that was made, 0: none; a crash may make it smaller
	Durable uint64 // highest number known to be on stable storage
	Applied uint64 // highest number the daemon had when the connection was made
}

// Session tells how far the Client's session is; the zero Session if it has none.
func (c *Client) Session() Session {
	if !c.opt.session {
		return Session{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return Session{c.mu.hello.Session, c.mu.kept.next - 1, c.mu.durable, c.mu.hello.Applied}
}

func (c *Client) lastHello() ipc.Hello {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.hello
}

// link is a connection on which hello was said, if it is to be.
type link struct {
	conn  net.Conn
	hello ipc.Hello
	rest  []byte // read behind hello's answer
}

// connect makes a connection and says hello on it.
func (c *Client) connect(ctx context.Context) (*link, error) {
	conn, err := dial(ctx, c.path)
	if err != nil {
		return nil, err
	}
	l := &link{conn: conn}
	if !c.opt.session {
		return l, nil
	}
	if err = l.greet(ctx, c.hello()); err == nil {
		err = c.checkHello(&l.hello)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("say hello: %w", err)
	}
	return l, nil
}

// hello is the request that starts the session, or resumes it.
func (c *Client) hello() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 1
	if c.mu.known {
		n++
	}
	seen := c.mu.known && !c.mu.foreign // who resumes another's session cannot say what that one saw
	if seen {
		n++
	}
	b := ipc.AppendMapHeader(ipc.AppendRequestHeader(nil, 1, ipc.MethodHello, 1), n)
	b = ipc.AppendUint(ipc.AppendStr(b, "protocol"), ipc.ProtocolVersion)
	if c.mu.known {
		b = ipc.AppendBin(ipc.AppendStr(b, "session"), c.mu.hello.Session[:])
	}
	if seen {
		b = ipc.AppendUint(ipc.AppendStr(b, "seen"), c.seenLocked())
	}
	return b
}

// seenLocked is the number up to which no caller waits for an answer.
func (c *Client) seenLocked() uint64 {
	seen := c.mu.kept.next - 1
	for i := range c.mu.slots {
		if s := &c.mu.slots[i]; s.f != nil && s.number != 0 {
			seen = min(seen, s.number-1)
		}
	}
	return seen
}

// helloMax is how long the daemon may take to answer hello: it may have to finish what the session's
// last connection had begun.
const helloMax = 30 * time.Second

// greet sends hello and waits for its answer.
func (l *link) greet(ctx context.Context, hello []byte) error {
	_ = l.conn.SetDeadline(time.Now().Add(helloMax))
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetDeadline(time.Unix(1, 0)) })
	err := l.exchange(hello)
	if !stop() {
		return ctx.Err() // the deadline may be the one that is past
	}
	_ = l.conn.SetDeadline(time.Time{})
	return err
}

func (l *link) exchange(hello []byte) error {
	if _, err := l.conn.Write(hello); err != nil {
		return err
	}
	split := ipc.NewSplitter(ipc.MaxAnswer)
	buf := make([]byte, 0, 4<<10)
	for {
		buf = slices.Grow(buf, 1<<10)
		n, err := l.conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		size, serr := split.Next(buf)
		switch {
		case serr != nil:
			return fmt.Errorf("%w: %w", ErrProtocol, serr)
		case size > 0:
			l.rest = buf[size:]
			return l.take(buf[:size])
		case err != nil:
			return err
		}
	}
}

// take takes the answer to hello.
func (l *link) take(message []byte) (err error) {
	var p ipc.Response
	if err := ipc.ParseResponse(message, &p); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if p.Failed {
		return p.Err()
	}
	if p.Type != ipc.TypeResponse || p.ID != 1 {
		return ErrProtocol
	}
	if l.hello, err = ipc.ReadHello(&p.Result); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}

// checkHello compares what the daemon says of the session with what it said before. A session it
// has less of than it promised, or more than it was sent, is not the one that was left.
func (c *Client) checkHello(h *ipc.Hello) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.Durable > h.Applied {
		return fmt.Errorf("%w: durable %d beyond applied %d", ErrProtocol, h.Durable, h.Applied)
	}
	if !c.mu.known && h.Applied > 0 {
		return fmt.Errorf("%w: a new session has %d writes", ErrProtocol, h.Applied)
	}
	if !c.mu.known || c.mu.foreign {
		return nil
	}
	switch {
	case h.Session != c.mu.hello.Session:
		return fmt.Errorf("%w: the daemon resumed another session", ErrSessionLost)
	case h.Durable < c.mu.durable:
		return fmt.Errorf("%w: writes up to %d were durable, now up to %d", ErrSessionLost, c.mu.durable, h.Durable)
	case h.Applied >= c.mu.kept.next:
		return fmt.Errorf("%w: the daemon has %d writes of it, %d were made", ErrSessionLost, h.Applied, c.mu.kept.next-1)
	}
	return nil
}

// sessionLost gives up the session: what was sent on it and is not durable is uncertain for good,
// what never was goes into the next one.
func (c *Client) sessionLost(cause error) {
	if !errors.Is(cause, ErrSessionLost) {
		cause = fmt.Errorf("%w: %w", ErrSessionLost, cause)
	}
	lost := SessionLoss{Err: cause}
	var end landings
	c.mu.Lock()
	lost.Session = c.mu.hello.Session
	waiting := c.waitingLocked()
	old, next := c.mu.kept, kept{next: 1}
	old.all(func(number uint64, message []byte) {
		id, waits := waiting[number]
		switch {
		case waits && !c.opLocked(id).sent:
			c.mu.slots[id].number = next.add(message)
			delete(waiting, number)
			return
		case !waits && number > c.mu.durable && old.fates[number] != fateVoid:
			lost.Unconfirmed++
		}
		c.mu.gate.forget(load{1, len(message)})
	})
	for _, id := range waiting {
		end.fail(c.freeSlotLocked(id), &lostError{cause: cause, sent: true})
	}
	for _, s := range c.inFlightLocked() { // in the next session a sync would answer for what is lost
		if o := &s.f.ops[s.i]; o.nature == natureSync {
			end.fail(c.freeSlotLocked(o.id), &lostError{cause: cause, sent: true})
		}
	}
	c.mu.kept, c.mu.known, c.mu.durable, c.mu.hello = next, false, 0, ipc.Hello{}
	c.mu.Unlock()
	end.losses = append(end.losses, lost)
	end.deliver(c.opt.onLoss)
}

// landings are ends of requests that were found under the lock and are told after it.
type landings struct {
	slots   []slot
	answers []answer
	losses  []SessionLoss
}

func (l *landings) end(s slot, a answer) {
	l.slots = append(l.slots, s)
	l.answers = append(l.answers, a)
}

func (l *landings) fail(s slot, err error) { l.end(s, answer{err: err}) }

func (l *landings) deliver(onLoss func(SessionLoss)) {
	for i, s := range l.slots {
		s.f.answers[s.i] = l.answers[i]
		s.f.landed()
	}
	for _, loss := range l.losses {
		if onLoss != nil {
			onLoss(loss)
		}
	}
	clear(l.slots)
	clear(l.losses)
	l.slots, l.answers, l.losses = l.slots[:0], l.answers[:0], l.losses[:0]
}

// waitingLocked maps the numbers of writes whose callers wait to their slots.
func (c *Client) waitingLocked() map[uint64]uint32 {
	waiting := map[uint64]uint32{}
	for id := range c.mu.slots {
		if s := &c.mu.slots[id]; s.f != nil && s.number != 0 {
			waiting[s.number] = uint32(id)
		}
	}
	return waiting
}

func (c *Client) opLocked(id uint32) *op {
	s := &c.mu.slots[id]
	return &s.f.ops[s.i]
}
