package client

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"rskv/ipc"
)

// A caller that is the only one, with one request at a time, needs nobody to write for it, nor to
// read: each of them is a goroutine to be woken, often with the thread under it, and that takes
// longer than the daemon does. After some flights in a row that were alone, the run goroutine leaves
// the reading open, and callers see to the socket themselves:
//
//	        nothing in flight, loneAfter flights alone
//	readRun ────────────────────────────────> readOpen <─────────────┐
//	   ^                                       │    │ submit: alone  │ answered, nothing
//	   │  nobody came for loneLook, Close,     │    v                │ in flight
//	   ├───────────────────────────────────────┘  readCaller ────────┤
//	   │  submit: not alone, or by who does not wait                 │
//	   └─────────────────────────────────────────────────────────────┘
//	      answered, something else in flight; the connection has failed
//
// Whoever reads owns what Client says he does. A caller is in the middle of it only for as long as it
// waits for its own answer, and hands out what else comes meanwhile. In readOpen nobody looks at the
// socket: a lost connection, and what the daemon tells unasked, are noticed by the next caller, or
// after loneLook.
type reading uint8

const (
	readRun    reading = iota // the run goroutine reads
	readOpen                  // nobody does
	readCaller                // a caller does
)

const (
	loneAfter = 16
	loneLook  = 10 * time.Millisecond
	// loneBytes is the longest flight that its caller writes: to a socket with nothing in it that
	// does not block.
	loneBytes = 64 << 10
)

// lone is about callers who are alone. Guarded by the Client's mu.
type lone struct {
	reading reading
	alone   int  // flights in a row that nothing else was in flight with
	led     bool // a caller has read since the run goroutine has looked
}

// stream is what is read from a connection. Owned by who reads.
type stream struct {
	conn  net.Conn
	split ipc.Splitter
	buf   []byte
	fill  int  // bytes in buf
	alone bool // what came last was the answer to somebody who is
}

// countLoneLocked counts a flight that has just been let in, and reports whether its caller is to
// write and read.
func (c *Client) countLoneLocked(f *flight) (leads bool) {
	l := &c.mu.lone
	if !f.waits || len(f.buf) > loneBytes || c.mu.gate.flight.count != len(f.ops) {
		l.alone = 0
	} else {
		l.alone++
	}
	if l.reading != readOpen {
		return false
	}
	if l.alone == 0 || c.mu.writing {
		c.recallLocked()
		return false
	}
	l.reading, l.led = readCaller, true
	return true
}

// recallLocked has the run goroutine read, where nobody does.
func (c *Client) recallLocked() {
	if c.mu.lone.reading == readOpen {
		c.mu.lone = lone{}
		c.back <- nil // it waits
	}
}

// idleLocked reports whether nobody waits for anything.
func (c *Client) idleLocked() bool {
	return c.mu.gate.flight.count == 0 && len(c.mu.gate.line) == 0 && !c.mu.syncing
}

// lead reads in the run goroutine's place until f has landed, or ctx ends, or the connection has
// failed, which is left to that.
func (c *Client) lead(ctx context.Context, f *flight) {
	err := c.readUntil(ctx, f)
	c.mu.Lock()
	open := err == nil && c.idleLocked()
	if open {
		c.mu.lone.reading = readOpen
	} else {
		c.mu.lone = lone{}
	}
	c.mu.Unlock()
	if !open {
		c.back <- err
	}
}

func (c *Client) readUntil(ctx context.Context, f *flight) (err error) {
	if ctx.Done() == nil {
		for err == nil && f.left > 0 {
			err = c.readOnce()
		}
		return err
	}
	conn, interrupted := c.in.conn, make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = conn.SetReadDeadline(time.Unix(1, 0))
		close(interrupted)
	})
	for err == nil && f.left > 0 && ctx.Err() == nil {
		err = c.readOnce()
	}
	if !stop() {
		<-interrupted
		_ = conn.SetReadDeadline(time.Time{})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
	}
	return err
}

// leave leaves the reading to callers, if it is theirs, and reports whether it did.
func (c *Client) leave() bool {
	if !c.in.alone {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed || c.mu.lone.alone < loneAfter || !c.idleLocked() {
		return false
	}
	c.mu.lone.reading, c.mu.lone.led = readOpen, false
	return true
}

// standBy returns when the reading is the run goroutine's again, with the error that a caller met.
func (c *Client) standBy() error {
	timer := time.NewTimer(loneLook)
	defer timer.Stop()
	for {
		select {
		case err := <-c.back:
			return err
		case <-c.closing.Done():
		case <-timer.C:
			timer.Reset(loneLook)
		}
		c.mu.Lock()
		l, closed := &c.mu.lone, c.mu.closed
		if l.reading == readOpen && (closed || !l.led) {
			*l = lone{}
			c.mu.Unlock()
			return nil
		}
		l.led = false
		c.mu.Unlock()
		if closed {
			return <-c.back // the caller who reads finds the connection closed
		}
	}
}
