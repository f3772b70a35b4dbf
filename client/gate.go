package client

import "context"

// gate bounds what is in flight: a number of requests and their bytes. Who does not fit waits in
// line; who comes later waits behind, so that a large batch is not starved by small calls. One that
// exceeds a bound by itself enters when nothing else is in flight.
//
// All fields are guarded by the Client's mu, and so must be the calls.
type gate struct {
	maxRequests, maxBytes int // immutable after Dial
	requests, bytes       int // in flight
	line                  []*waiter
}

// waiter is one flight in line.
type waiter struct {
	requests, bytes int
	admitted        chan struct{} // closed when the gate has counted it in
}

func (g *gate) fits(requests, bytes int) bool {
	return g.requests == 0 || g.requests+requests <= g.maxRequests && g.bytes+bytes <= g.maxBytes
}

// enter counts a flight in, and returns nil, or puts it in line.
func (g *gate) enter(requests, bytes int) *waiter {
	if len(g.line) == 0 && g.fits(requests, bytes) {
		g.requests += requests
		g.bytes += bytes
		return nil
	}
	w := &waiter{requests, bytes, make(chan struct{})}
	g.line = append(g.line, w)
	return w
}

// leave counts out what is no longer in flight and lets in who fits now.
func (g *gate) leave(requests, bytes int) {
	g.requests -= requests
	g.bytes -= bytes
	for len(g.line) > 0 {
		w := g.line[0]
		if !g.fits(w.requests, w.bytes) {
			return
		}
		g.requests += w.requests
		g.bytes += w.bytes
		g.line = g.line[1:]
		close(w.admitted)
	}
	g.line = nil
}

// drop takes w, whose caller gave up, out of line; if it was admitted meanwhile, it is counted out.
func (g *gate) drop(w *waiter) {
	for i, other := range g.line {
		if other == w {
			g.line = append(g.line[:i], g.line[i+1:]...)
			g.leave(0, 0) // who stood behind may fit
			return
		}
	}
	g.leave(w.requests, w.bytes)
}

// pass brings a flight through the gate. It returns with mu locked, and with the context's error if
// that ended first.
func (c *Client) pass(ctx context.Context, requests, bytes int) error {
	c.mu.Lock()
	w := c.mu.gate.enter(requests, bytes)
	if w == nil {
		return nil
	}
	c.mu.Unlock()
	var err error
	select {
	case <-w.admitted:
	case <-ctx.Done():
		err = ctx.Err()
	}
	c.mu.Lock()
	if err != nil {
		c.mu.gate.drop(w)
	}
	return err
}
