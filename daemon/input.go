package daemon

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"rskv/ipc"
)

// Sizes of the buffer for requests. It begins small, because most connections
// ask little; it grows as reads fill it, beyond readBytes only while a request
// does not fit, and then from the budget that all connections share.
const (
	inputMin  = 4 << 10
	readBytes = 64 << 10
	// shrinkAfter is how long a large buffer is kept without a request that
	// needs it: longer than the pauses of a client that is still at it.
	shrinkAfter = time.Second
)

// input holds what was read and not yet taken up. Owned by the reader.
//
//	buf:  | handled | whole requests and a part of one | room |
//	      0       begin                               end   len
type input struct {
	buf        []byte
	begin, end int
	splitter   ipc.Splitter
	limit      int       // longest request
	held       int64     // taken from the shared budget for buf
	needed     time.Time // while held > 0: when a request last needed so much
	timed      bool      // a read deadline is set
	filled     bool      // the last read filled buf: the client has more
	taken      int       // requests handed out

	pass     func(fd uintptr) (over bool) // conn.pass, bound once
	drains   bool                         // a read(2) that does not fill buf has taken all there was
	answers  bool                         // what was taken up last is answered after it was read
	patience time.Duration                // what the read deadline was set to last
}

func (in *input) init(limit int) {
	in.limit = limit
	in.splitter = ipc.NewSplitter(limit)
	in.buf = make([]byte, inputMin)
}

// next returns the next whole request, or nil when more bytes are needed. It
// stays where it is until the next read.
func (in *input) next() ([]byte, *ipc.Error) {
	n, err := in.splitter.Next(in.buf[in.begin:in.end])
	if n == 0 {
		return nil, err
	}
	message := in.buf[in.begin : in.begin+n : in.begin+n]
	in.begin += n
	in.taken++
	if in.held > 0 && n > len(in.buf)/4 {
		in.needed = time.Now()
	}
	return message, nil
}

// partial reports whether a request has begun to arrive.
func (in *input) partial() bool { return in.end > in.begin }

// The reader reads, takes up and answers inside of one call of the socket's Read:
//
//	readOn --> pass: read, consume, read, consume, ... --drained--> parked --woken--> pass
//	      <--- the end, or a deadline
//
// net.Conn's Read begins with a read(2) each time, so that a reader that is through
// with what has come asks once in vain before it is parked. Within one call of Read
// that is not needed: the poller tells of everything that comes after a read(2), also
// of what comes before the reader is parked, and it keeps that until he is. A
// read(2) that does not fill the buffer has taken all there was, unless descriptors
// were among it, at which the kernel stops. (It stops at out-of-band bytes too, which
// the protocol does not have: who sends one waits until he sends on.)
//
// It does not tell that the client has gone, which the poller may have told of
// together with the last bytes. So a reader asks once more unless an answer is sent
// after what he has read: that fails where the client has closed the socket; and a
// client that has only ended his side wakes the reader by taking the answer, since
// the poller then tells of all that is so.

// readOn takes up what the client sends, until a deadline has passed. It reports
// whether the connection is to be read on.
func (c *conn) readOn() bool {
	if !c.mayRead() {
		return false
	}
	err := c.raw.Read(c.in.pass)
	switch {
	case err == nil:
		return false
	case errors.Is(err, os.ErrDeadlineExceeded):
		return c.late()
	}
	c.fail(err)
	return false
}

// pass takes up what the socket has. It reports whether the connection is not to be
// read on; else its reader is parked until there is more.
func (c *conn) pass(fd uintptr) (over bool) {
	in := &c.in
	for {
		n, err := c.lingering(fd), error(nil)
		if n == 0 {
			n, err = unix.Read(int(fd), in.buf[in.end:])
		}
		switch {
		case err == unix.EAGAIN:
			return false
		case err == unix.EINTR:
			continue
		case err != nil:
			c.fail(os.NewSyscallError("read", err))
			return true
		case n == 0: // the client's end
			return true
		}
		in.end += n
		in.filled = in.end == len(in.buf)
		count(&c.lane.bytesIn, n)
		drained := in.drains && !in.filled
		if !c.consume() || !c.mayRead() {
			return true
		}
		if drained && in.answers && !c.linger.due {
			return false
		}
	}
}

// mayRead prepares for the next read, and reports whether there is to be one.
func (c *conn) mayRead() bool {
	if !c.makeRoom() {
		return false
	}
	c.readDeadline()
	return !c.halted()
}

func (c *conn) halted() bool {
	select {
	case <-c.halt:
		return true
	default:
		return false
	}
}

// late is what becomes of a connection whose client has sent nothing for as long as
// readDeadline said. It reports whether it is to be read on.
func (c *conn) late() bool {
	if c.halted() {
		return false
	}
	if c.in.partial() {
		c.log.Info("connection closed: a request was begun and not sent on", "waited", c.in.patience)
		c.server.count.timeouts.Add(1)
		return false
	}
	c.in.resize(readBytes, c.server.requests)
	return true
}

// readDeadline sets how long the next read may wait: for the rest of a request
// as configured, for a new one for ever, but with a large buffer only until it
// is time to give that back.
func (c *conn) readDeadline() {
	wait := time.Duration(0)
	switch {
	case c.in.partial():
		wait = c.server.settings().RequestTimeout
	case c.in.held > 0:
		wait = shrinkAfter
	}
	if wait == 0 {
		if c.in.timed {
			c.in.timed = false
			_ = c.socket.SetReadDeadline(time.Time{})
		}
		return
	}
	c.in.timed, c.in.patience = true, wait
	_ = c.socket.SetReadDeadline(time.Now().Add(wait))
}

// makeRoom leaves room behind what was read, so that a read is worth while. It
// reports whether the connection may go on.
func (c *conn) makeRoom() bool {
	in := &c.in
	unread := in.end - in.begin
	if in.held > 0 && unread < readBytes/2 && time.Since(in.needed) > shrinkAfter {
		in.resize(readBytes, c.server.requests)
	}
	if in.begin > 0 && (unread == 0 || len(in.buf)-in.end < len(in.buf)/2) {
		copy(in.buf, in.buf[in.begin:in.end])
		in.begin, in.end = 0, unread
	}
	most := in.limit + readBytes
	switch {
	case len(in.buf) < readBytes && (in.filled || unread > len(in.buf)/2):
		in.resize(min(4*len(in.buf), readBytes), c.server.requests)
	case unread > len(in.buf)/2 && len(in.buf) < most:
		return c.growInput(min(2*len(in.buf), most))
	}
	if in.end == len(in.buf) {
		panic(fmt.Sprintf("daemon: %d bytes read and neither a request nor refused, the limit is %d", unread, in.limit))
	}
	return true
}

// growInput enlarges the buffer from the shared budget. It waits in line while
// that is spent, for as long as an unfinished request may take.
func (c *conn) growInput(size int) bool {
	need := int64(size) - c.in.held
	if !c.server.requests.take(need, c.server.settings().RequestTimeout, c.halt) {
		c.mu.Lock()
		c.output.ready = ipc.AppendErrorResponse(c.output.ready, 0, ipc.CodeBusy,
			"the memory for long requests (request_memory) is spent")
		c.mu.Unlock()
		c.log.Warn("connection closed: no memory for its request", "bytes", size)
		return false
	}
	c.in.held += need
	c.in.needed = time.Now()
	c.in.replace(size)
	return true
}

// resize gives the buffer a size that is nobody's but this connection's.
func (in *input) resize(size int, shared *budget) {
	in.replace(size)
	in.release(shared)
}

func (in *input) replace(size int) {
	buf := make([]byte, size)
	in.end = copy(buf, in.buf[in.begin:in.end])
	in.begin, in.buf = 0, buf
}

// release gives the shared budget back what the buffer had of it.
func (in *input) release(shared *budget) {
	if in.held > 0 {
		shared.give(in.held)
		in.held = 0
	}
}
