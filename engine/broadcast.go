package engine

import (
	"sync"
	"sync/atomic"
)

// broadcast wakes all who wait for something. While nobody does, waking costs one
// look.
type broadcast struct {
	waiting atomic.Bool

	mu sync.Mutex
	ch chan struct{} // closed by the next wake; nil: nobody has asked since the last; guarded by mu
}

// wait returns a channel that the next wake closes. Take it first, then look, then
// wait.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	b.waiting.Store(true)
	return b.ch
}

func (b *broadcast) wake() {
	if !b.waiting.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting.Store(false)
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
