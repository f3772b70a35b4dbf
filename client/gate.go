package client

import "context"

// gate bounds what is in flight, and what a session keeps: requests and their bytes, and writes and
// theirs. Who does not fit waits in line; who comes later waits behind, so that a large batch is not
// starved by small calls. One that exceeds a bound by itself enters when nothing else counts against
// that bound.
//
// All fields are guarded by the Client's mu, and so must be the calls.
type gate struct {
	maxFlight load // immutable after Dial
	maxKept   load // immutable after Dial; of use only with a session
	session   bool // immutable after Dial: writes are kept

	flight load // in flight
	kept   load // writes in the log, or about to be
	line   []*waiter
}

// load is a number of requests and their bytes.
type load struct{ count, bytes int }

func (l *load) add(more load)   { l.count += more.count; l.bytes += more.bytes }
func (l *load) sub(less load)   { l.count -= less.count; l.bytes -= less.bytes }
func (l load) negative() load   { return load{-l.count, -l.bytes} }
func (l load) half() load       { return load{l.count / 2, l.bytes / 2} }
func (l load) over(m load) bool { return l.count > m.count || l.bytes > m.bytes }

// fits reports whether more can be added within most; to nothing it always can.
func (l load) fits(more, most load) bool {
	if l.count == 0 || more.count == 0 {
		return true
	}
	l.add(more)
	return !l.over(most)
}

// waiter is one flight in line.
type waiter struct {
	all, writes load
	admitted    chan struct{} // closed when the gate has counted it in, or err is set
	err         error         // why it never will be; written before admitted is closed
}

func (g *gate) fits(all, writes load) bool {
	return g.flight.fits(all, g.maxFlight) && (!g.session || g.kept.fits(writes, g.maxKept))
}

func (g *gate) count(all, writes load) {
	g.flight.add(all)
	if g.session {
		g.kept.add(writes)
	}
}

// enter counts a flight in, and returns nil, or puts it in line.
func (g *gate) enter(all, writes load) *waiter {
	if len(g.line) == 0 && g.fits(all, writes) {
		g.count(all, writes)
		return nil
	}
	w := &waiter{all: all, writes: writes, admitted: make(chan struct{})}
	g.line = append(g.line, w)
	return w
}

// leave counts out what is no longer in flight and lets in who fits now.
func (g *gate) leave(all load) {
	g.flight.sub(all)
	g.admit()
}

// forget counts out writes that are no longer kept and lets in who fits now.
func (g *gate) forget(writes load) {
	g.kept.sub(writes)
	g.admit()
}

// refund undoes enter for a flight that was counted in and not submitted.
func (g *gate) refund(all, writes load) {
	g.count(all.negative(), writes.negative())
	g.admit()
}

func (g *gate) admit() {
	for len(g.line) > 0 {
		w := g.line[0]
		if !g.fits(w.all, w.writes) {
			return
		}
		g.count(w.all, w.writes)
		g.line = g.line[1:]
		close(w.admitted)
	}
	g.line = nil
}

// blocked reports whether the first in line waits for kept writes to become durable.
func (g *gate) blocked() bool {
	return len(g.line) > 0 && g.session && !g.kept.fits(g.line[0].writes, g.maxKept)
}

// turnAway fails who waits at the head of the line for kept writes to become durable.
func (g *gate) turnAway(err error) {
	for g.blocked() {
		w := g.line[0]
		g.line = g.line[1:]
		w.err = err
		close(w.admitted)
	}
	g.admit()
}

// drop takes w, whose caller gave up, out of line; if it was admitted meanwhile, it is counted out.
func (g *gate) drop(w *waiter) {
	for i, other := range g.line {
		if other == w {
			g.line = append(g.line[:i], g.line[i+1:]...)
			g.admit() // who stood behind may fit
			return
		}
	}
	if w.err == nil {
		g.refund(w.all, w.writes)
	}
}

// pass brings f through the gate. It returns with mu locked, and with the context's error if that
// ended first.
func (c *Client) pass(ctx context.Context, f *flight) error {
	c.mu.Lock()
	w := c.mu.gate.enter(load{len(f.ops), len(f.buf)}, f.writes)
	if w == nil {
		return nil
	}
	c.askSyncLocked()
	c.mu.Unlock()
	select {
	case <-w.admitted:
		c.mu.Lock()
		return w.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	c.mu.gate.drop(w)
	return ctx.Err()
}
