package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

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

// fill reads what the client has sent. It reports whether there is anything.
func (c *conn) fill() bool {
	in := &c.in
	for {
		if !c.makeRoom() {
			return false
		}
		wait := c.readDeadline()
		select {
		case <-c.halt:
			return false
		default:
		}
		n, err := c.lingering(), error(nil)
		if n == 0 {
			n, err = c.socket.Read(in.buf[in.end:])
		}
		in.end += n
		in.filled = in.end == len(in.buf)
		count(&c.lane.bytesIn, n)
		if n > 0 {
			return true
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			select {
			case <-c.halt:
				return false
			default:
			}
			if in.partial() {
				c.log.Info("connection closed: a request was begun and not sent on", "waited", wait)
				c.server.count.timeouts.Add(1)
				return false
			}
			in.resize(readBytes, c.server.requests)
		case err != nil:
			if err != io.EOF {
				c.fail(err)
			}
			return false
		}
	}
}

// readDeadline sets how long the next read may wait: for the rest of a request
// as configured, for a new one for ever, but with a large buffer only until it
// is time to give that back.
func (c *conn) readDeadline() time.Duration {
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
		return 0
	}
	c.in.timed = true
	_ = c.socket.SetReadDeadline(time.Now().Add(wait))
	return wait
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
