package rskvtest

import (
	"io"
	"net"
	"sync"
)

// relay passes connections on from one Unix socket to another, and can cut them.
//
//	closed   connections wait in the socket's queue, as they do under systemd
//	open     they are accepted and passed on
type relay struct {
	path string // of its own socket
	to   string // of the daemon's
	l    net.Listener
	all  sync.WaitGroup // goroutines

	mu struct {
		sync.Mutex
		gate  chan struct{} // closed while the relay is open
		pairs map[*pair]struct{}
		ended bool
	}
}

// pair is one connection and its continuation.
type pair struct{ client, daemon net.Conn }

func (p *pair) close() {
	_ = p.client.Close()
	_ = p.daemon.Close()
}

// newRelay listens, and is closed at first.
func newRelay(path, to string) (*relay, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	r := &relay{path: path, to: to, l: l}
	r.mu.gate, r.mu.pairs = make(chan struct{}), map[*pair]struct{}{}
	r.all.Go(r.accept)
	return r, nil
}

// accept passes on what comes, as far as the gate is open, until the listener is closed.
func (r *relay) accept() {
	for {
		conn, err := r.l.Accept()
		if err != nil {
			return
		}
		for !r.passOn(conn) {
			r.mu.Lock()
			gate, ended := r.mu.gate, r.mu.ended
			r.mu.Unlock()
			if ended {
				_ = conn.Close()
				return
			}
			<-gate
		}
	}
}

// passOn begins to pass on a connection, and reports false if the gate is closed.
func (r *relay) passOn(conn net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.mu.gate:
	default:
		return false
	}
	if r.mu.ended {
		_ = conn.Close()
		return true
	}
	next, err := net.Dial("unix", r.to)
	if err != nil { // the daemon is full, or gone: the client sees a lost connection
		_ = conn.Close()
		return true
	}
	p := &pair{conn, next}
	r.mu.pairs[p] = struct{}{}
	r.all.Go(func() { r.copy(p, p.daemon, p.client) })
	r.all.Go(func() { r.copy(p, p.client, p.daemon) })
	return true
}

// copy copies one direction until it ends, and then hangs up on both.
func (r *relay) copy(p *pair, dst, src net.Conn) {
	_, _ = io.Copy(dst, src)
	r.mu.Lock()
	delete(r.mu.pairs, p)
	r.mu.Unlock()
	p.close()
}

// open lets connections through.
func (r *relay) open() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.mu.gate:
	default:
		close(r.mu.gate)
	}
}

// shut keeps new connections waiting.
func (r *relay) shut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.mu.gate:
		r.mu.gate = make(chan struct{})
	default:
	}
}

// cut loses every connection: what is under way in either direction may arrive or not.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.mu.pairs {
		p.close()
	}
}

// close ends the relay and its connections. A nil relay has none.
func (r *relay) close() {
	if r == nil {
		return
	}
	r.mu.Lock()
	r.mu.ended = true
	r.mu.Unlock()
	_ = r.l.Close()
	r.open()
	r.cut()
	r.all.Wait()
}
