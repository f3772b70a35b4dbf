package daemon

import (
	"context"
	"sync/atomic"
	"time"

	"rskv/engine"
)

// pulse is what the server does now and then beside its connections, while there
// is something going on: it tells clients with a session how far that is durable,
// and looks whether the store takes writes.
//
//	beating   a tick every CommitInterval, at least notifyMin and at most writableTick
//	resting   when a tick has found that nobody has asked for anything since the last
//	          one, that no session has more to be told, and that the store is well;
//	          until somebody asks, or the engine's tasks look: an idle daemon wakes nobody
type pulse struct {
	// asked says that a burst has come since the last tick. Atomic; set by
	// connections, cleared by ticks.
	asked   atomic.Bool
	resting atomic.Bool
	wake    chan struct{} // capacity 1
}

const (
	// notifyMin is the least time between two words to a client about what is
	// durable: enough for it not to keep much, too little to be a burden.
	notifyMin = 100 * time.Millisecond
	// writableTick is how often the store is looked at, for the log, although
	// nobody asks how it is.
	writableTick = time.Second
)

func (p *pulse) init() { p.wake = make(chan struct{}, 1) }

// beat says that somebody has asked for something.
func (p *pulse) beat() {
	if p.asked.Load() {
		return
	}
	p.asked.Store(true)
	if p.resting.Load() && p.resting.CompareAndSwap(true, false) {
		select {
		case p.wake <- struct{}{}:
		default: // it is being woken already
		}
	}
}

// run ticks until ctx ends. tick reports whether it wants to be called again
// although nobody asks.
func (p *pulse) run(ctx context.Context, every time.Duration, tick func() (more bool)) {
	timer := time.NewTimer(every)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.wake:
		}
		p.resting.Store(false)
		asked := p.asked.Swap(false)
		wait := every
		if !tick() && !asked {
			p.resting.Store(true)
			if !p.asked.Load() { // else by somebody who has not seen the rest
				wait = restLeft()
			}
		}
		timer.Reset(wait)
	}
}

// restLeft is how long to rest: until the engine's tasks look too.
func restLeft() time.Duration { return engine.RestLeft(time.Now().UnixMilli()) }

// tick is one tick of the server's pulse.
func (s *server) tick() (more bool) {
	behind, more := s.sessions.behind()
	for _, c := range behind {
		c.notifyDurable()
	}
	is, _, _ := s.writable.look()
	return more || is != stateOK
}
