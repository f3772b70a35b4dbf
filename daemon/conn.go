package daemon

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rskv/engine"
	"rskv/ipc"
)

// conn is one connection. Its life:
//
//	serving    the reader takes up requests                     serve, see input.go
//	stopping   no further request is taken up                   stop, the client's end, a broken stream
//	finishing  what was begun is finished, answers are sent     finish
//	dead       the socket is shut down, answers go nowhere      kill, or the end of finish
//	done       no goroutine, no session, nothing held           close(done)
//
// Only finish closes the socket: closing waits for whoever reads from it, and that
// is the reader in all he does while it serves.
type conn struct {
	server *server
	socket *net.UnixConn
	raw    syscall.RawConn
	peer   peer
	role   role
	user   *client
	log    *slog.Logger
	limits ipc.Limits // immutable
	lane   *lane      // where it counts
	done   chan struct{}
	halt   chan struct{} // closed by stop: no further request is to be taken up

	// Owned by the reader goroutine.
	in      input
	linger  linger
	request ipc.Request
	call    ipc.Call

	// mu guards everything below, and the session. It is never held across a
	// read, a write or a wait, and never released while the batch has
	// operations in it.
	mu      sync.Mutex
	changed sync.Cond // with mu: something a waiter may wait for has happened

	session *engine.Session
	batch   batch
	flight  flight
	began   int64     // when the burst in hand was read, by server.now
	prompt  [2]uint64 // reads and writes answered in it
	writes  writeLog
	owner   *clientSession // nil before hello
	output  output
	held    []heldAnswer  // answers for the next commit
	crowded int           // commits that the reader may not make itself, see lead
	syncs   []waitingSync // in the order received

	backupOf   *backup   // that the client has opened; nil: none
	following  *follower // that sends changes to the client; nil: none
	monitoring *monitor  // that the client has started; nil: none
	name       string    // that the client said in hello

	// What is asked of the burst in hand, see watch.
	watched  bool        // anything of what follows
	rate     int         // operations a second its user may do; 0: no limit
	slow     int64       // nanoseconds from which a request is slow; 0: nobody asks
	monitors *[]*monitor // nil: none
	first    first

	stopping bool // see halt
	dropping bool // stopping, and requests read but not begun are dropped
	dead     bool

	helping bool          // the helper runs
	quit    chan struct{} // ends the helper
	wake    chan struct{} // capacity 1: the helper's inbox has something in it
	workers sync.WaitGroup

	// inbox has its own lock because the engine fills it, and the engine may
	// be what the holder of mu is waiting for.
	inbox struct {
		sync.Mutex
		events  []event
		leading bool // the reader makes a commit, and looks here after it
	}
}

func newConn(s *server, socket *net.UnixConn, p peer, r role, u *client) (*conn, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &conn{
		server: s, socket: socket, raw: raw, peer: p, role: r, user: u, limits: s.limits,
		lane: s.traffic.lane(), session: s.store.NewSession(),
		done: make(chan struct{}), halt: make(chan struct{}),
		quit: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	c.log = s.log.With("uid", c.peer.uid, "pid", c.peer.pid)
	c.changed.L = &c.mu
	c.flight.typical = typicalFirst
	c.in.init(c.limits.Request)
	c.in.pass = c.pass
	_ = raw.Control(func(fd uintptr) { c.in.drains = descriptorsRefused(fd) })
	c.linger.init()
	c.batch.init(c)
	c.output.init()
	c.session.Admit(c.admit)
	return c, nil
}

// serve is the reader: the whole life of the connection.
func (c *conn) serve() {
	c.log.Debug("connection opened")
	for c.readOn() {
	}
	c.finish()
	c.log.Debug("connection closed")
	close(c.done)
}

// consume takes up every whole request that has been read, and sends the
// answers there are. It reports whether to go on reading.
func (c *conn) consume() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watch()
	c.began = c.beganAt()
	taken := c.in.taken
	goOn := c.takeUp()
	c.note()
	c.run()
	alone := c.waitsAlone(c.in.taken - taken)
	e := c.due()
	c.in.answers = len(c.output.ready) > 0 || e.answered()
	if !alone {
		c.askFor(e)
	}
	c.lane.tally(&c.batch.counts)
	c.unlocked(c.flush)
	c.timeBurst()
	c.watchBurst()
	c.server.pulse.beat()
	if alone && e.answers != nil {
		c.lead(e)
	}
	return goOn && (!c.overloaded() || c.awaitRoom())
}

// takeUp handles whole requests until none is left. It reports whether the
// connection can be read on.
func (c *conn) takeUp() bool {
	for !c.dropping {
		message, err := c.in.next()
		if err == nil && message == nil {
			return !c.stopping
		}
		if err == nil {
			err = ipc.ParseRequest(message, &c.request)
		}
		if err != nil {
			c.breakOff(err)
			return false
		}
		c.handle()
		if c.batch.n == batchMax {
			c.run()
		}
		if c.batch.n > 0 {
			if !c.server.crowded() {
				continue
			}
			c.run() // one at a time: who does not take his answer waits with the next
		}
		if len(c.output.ready) >= flushBytes {
			c.unlocked(c.flush)
		}
		if c.overloaded() && !c.awaitRoom() {
			return false
		}
	}
	return false
}

// breakOff answers a stream that cannot be resynchronised.
func (c *conn) breakOff(err *ipc.Error) {
	c.run()
	c.output.ready = ipc.AppendErrorResponse(c.output.ready, 0, err.Code, err.Message)
	c.server.count.broken.Add(1)
	c.log.Info("connection broken off", "error", err)
}

// unlocked runs f without the lock. The batch must be empty.
func (c *conn) unlocked(f func()) {
	c.mu.Unlock()
	f()
	c.mu.Lock()
}

// Bounds of one connection beside its limits.
const (
	// flushBytes of answers are sent before the burst they come from is done.
	flushBytes = 256 << 10
	// parkedMax bounds the keys and values of operations that wait for the
	// disk; the engine holds copies of them.
	parkedMax = 16 << 20
	// partsMax bounds how many parts of one mget, mput or mdel wait at once:
	// enough to keep a disk busy, little enough to be no burden.
	partsMax = 4096
)

// overloaded reports whether a bound of the connection is reached.
func (c *conn) overloaded() bool {
	owed := c.owed()
	return owed+c.flight.expected() > c.limits.Queued ||
		c.flight.unanswered >= c.limits.Unanswered ||
		c.flight.bytes > parkedMax ||
		owed > 0 && c.server.crowded()
}

// crowded reports whether the memory for answers of all connections is spent.
func (s *server) crowded() bool { return s.queued.Load() > int64(s.limits.QueuedAll) }

// awaitRoom waits until the connection is within its bounds again. False: it
// is stopping and there is no use in waiting.
func (c *conn) awaitRoom() bool {
	c.run()
	c.settle()
	c.unlocked(c.flush)
	if c.overloaded() {
		c.server.count.heldUp.Add(1)
		c.session.Start(nil) // it keeps no answers while nobody comes
	}
	for c.overloaded() {
		if c.stopping || c.dead {
			return false
		}
		c.changed.Wait()
	}
	return true
}

// stop makes the connection take up nothing more. drop: not even what has been
// read already. It does not wait.
func (c *conn) stop(drop bool) {
	c.mu.Lock()
	if !c.stopping {
		c.stopping = true
		close(c.halt)
		c.endFollow()
	}
	c.dropping = c.dropping || drop
	c.changed.Broadcast()
	c.mu.Unlock()
	// Wake a reader that waits for the client. Its own deadlines do not undo
	// this: it looks at halt after setting one.
	_ = c.socket.SetReadDeadline(time.Unix(1, 0))
}

// kill closes the socket at once. What was begun is finished all the same.
func (c *conn) kill() {
	c.stop(true)
	c.mu.Lock()
	c.dieLocked()
	c.mu.Unlock()
}

// dieLocked shuts the socket down and forgets what could not be sent.
func (c *conn) dieLocked() {
	if c.dead {
		return
	}
	c.dead = true
	_ = c.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	c.account()
	c.changed.Broadcast()
}

// fail is what becomes of a connection whose socket gave an error.
func (c *conn) fail(err error) {
	if !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		c.log.Info("connection failed", "error", err)
	}
	c.kill()
}

// finish waits for everything that was begun, sends the last answers and gives
// everything back.
func (c *conn) finish() {
	c.mu.Lock()
	c.stopping = true
	c.endMonitor()
	c.endFollow()
	c.endBackup() // its reads wait for the engine, and the engine for reads
	for c.flight.unanswered > 0 {
		c.changed.Wait()
	}
	c.unlocked(c.flush)
	for !c.dead && (c.output.writing || len(c.output.ready) > 0) {
		c.changed.Wait()
	}
	c.dieLocked()
	c.lane.tally(&c.batch.counts)
	c.mu.Unlock()

	close(c.quit)
	c.workers.Wait()
	_ = c.socket.Close()
	c.mu.Lock()
	c.session.Close()
	c.account()
	c.mu.Unlock()
	c.in.release(c.server.requests)
	if c.owner != nil {
		c.server.sessions.detach(c.owner)
	}
}
