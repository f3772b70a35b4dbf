package client

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"rskv/ipc"
)

// Client is one connection to a daemon, for any number of goroutines. It connects again by itself.
type Client struct {
	path string  // immutable after Dial
	opt  options // immutable after Dial

	wake    chan struct{}   // one token: out has bytes
	closing context.Context // ends with Close
	stop    context.CancelFunc
	ended   chan struct{} // closed when the run goroutine has ended

	back chan error // capacity 1: the reading is the run goroutine's again, see lone.go

	spare []byte // owned by who writes: out's other half

	// Owned by who reads, which is the run goroutine as a rule, see lone.go.
	in        stream
	responses [group]ipc.Response
	targets   [group]slot
	answered  bool // the last connection brought an answer
	downSince time.Time
	pause     time.Duration // before the next attempt to connect
	cause     error         // what ended the last connection; nil: there was none before this one
	lostAt    time.Time     // when that was
	suspect   suspect
	ends      landings // empty but while the lock is held and just after

	mu struct {
		sync.Mutex
		gate    gate
		slots   []slot // what is in flight, by id
		free    uint32 // first free slot, 0: none
		out     []byte // queued and not yet given to the socket
		queued  uint64 // bytes ever queued
		written uint64 // of those, bytes the socket took; the rest of an old connection's count as taken
		conn    net.Conn
		writing bool  // somebody writes, and nobody else may
		lone    lone  // see lone.go
		up      bool  // there is a connection
		closed  bool  // Close was called
		err     error // why nothing can be submitted

		// Of the session, if there is one.
		kept     kept
		hello    ipc.Hello // the last answer to hello, its session the one in use
		known    bool      // there is a session to be resumed
		foreign  bool      // another Client began it, and this one has not resumed it yet
		durable  uint64    // highest number the daemon said is on stable storage
		syncing  bool      // a sync of the client's own is under way
		syncUpTo uint64    // and covers the writes up to here
	}
}

// options are what Dial's Options set.
type options struct {
	requests int
	bytes    int
	retryFor time.Duration
	pauseMin time.Duration
	pauseMax time.Duration
	session  bool // count writes, and keep them until they are durable
	kept     load // the most that is kept
	resumed  bool // the session to begin with is
	resume   [ipc.SessionSize]byte
	onLoss   func(SessionLoss)
	hooks    Hooks
}

// Option changes how a Client behaves.
type Option func(*options)

// WithMaxInFlight bounds what waits for answers: requests, and bytes of requests. Callers wait when
// it is reached. The default is 16,384 requests and 64 MiB; a bound below 1 is taken as 1.
func WithMaxInFlight(requests, bytes int) Option {
	return func(o *options) { o.requests, o.bytes = max(requests, 1), max(bytes, 1) }
}

// WithRetryFor sets for how long requests wait for a lost connection to come back, 5 s by default.
// After that they fail with ErrConnLost, new ones at once, until there is a connection. With 0 they
// never wait.
func WithRetryFor(d time.Duration) Option {
	return func(o *options) { o.retryFor = d }
}

// WithBackoff sets the first and the longest pause between attempts to connect again, 5 ms and 1 s
// by default. Each pause is twice the one before it, and shortened by up to half at random.
func WithBackoff(first, longest time.Duration) Option {
	return func(o *options) {
		o.pauseMin = max(first, time.Millisecond)
		o.pauseMax = max(longest, o.pauseMin)
	}
}

// DefaultSocket returns the path a daemon listens on unless it was told another: $RSKV_SOCKET, or a
// place that depends on the user. The daemon uses the same rule.
func DefaultSocket() string { return ipc.DefaultSocket() }

// Dial connects to the daemon that listens on the Unix socket path, and begins the session if there
// is to be one. The context is for the connecting only. The caller must Close the Client.
func Dial(ctx context.Context, path string, opts ...Option) (*Client, error) {
	if err := ipc.CheckSocketPath(path); err != nil {
		return nil, err
	}
	o := options{
		requests: 16_384, bytes: 64 << 20, retryFor: 5 * time.Second,
		pauseMin: 5 * time.Millisecond, pauseMax: time.Second,
		kept: load{512 << 10, 64 << 20},
	}
	for _, set := range opts {
		set(&o)
	}
	c := &Client{path: path, opt: o, wake: make(chan struct{}, 1), ended: make(chan struct{}), back: make(chan error, 1)}
	c.closing, c.stop = context.WithCancel(context.Background())
	c.mu.gate = gate{maxFlight: load{o.requests, o.bytes}, maxKept: o.kept, session: o.session}
	c.mu.slots = make([]slot, 1, 256) // slot 0 is never used
	c.mu.kept.next = 1
	c.mu.known, c.mu.foreign, c.mu.hello.Session = o.resumed, o.resumed, o.resume
	l, err := c.connect(ctx)
	if err != nil {
		c.stop()
		return nil, fmt.Errorf("connect to the daemon: %w", err)
	}
	// Calls may come before the run goroutine has attached the connection.
	c.mu.hello, c.mu.kept.next = l.hello, l.hello.Applied+1
	go c.run(l)
	return c, nil
}

// Close ends the connection. Everything in flight fails with ErrClosed, as does every later call.
// Writes that were queued may have taken effect. It returns when the Client's goroutines have ended;
// calling it again does nothing.
func (c *Client) Close() error {
	c.mu.Lock()
	c.mu.closed, c.mu.err = true, ErrClosed
	if c.mu.conn != nil {
		_ = c.mu.conn.Close() // the run goroutine sees it and ends
	}
	c.mu.Unlock()
	c.stop()
	<-c.ended
	return nil
}
