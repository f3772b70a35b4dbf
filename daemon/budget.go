package daemon

import (
	"slices"
	"sync"
	"time"
)

// budget is a number of bytes that many share. Who does not get his at once
// waits in line: a small demand does not overtake a large one for ever.
type budget struct {
	mu struct {
		sync.Mutex
		free  int64
		queue []*demand // first come, first served
	}
}

// demand is one waiter of a budget.
type demand struct {
	bytes   int64
	granted chan struct{} // closed, with the bytes taken
}

func newBudget(bytes int64) *budget {
	b := &budget{}
	b.mu.free = bytes
	return b
}

// take takes n bytes, waiting at most that long (0: without end) or until stop
// is closed. It reports whether it got them.
func (b *budget) take(n int64, wait time.Duration, stop <-chan struct{}) bool {
	b.mu.Lock()
	if len(b.mu.queue) == 0 && b.mu.free >= n {
		b.mu.free -= n
		b.mu.Unlock()
		return true
	}
	d := &demand{n, make(chan struct{})}
	b.mu.queue = append(b.mu.queue, d)
	b.mu.Unlock()

	var late <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-d.granted:
		return true
	case <-late:
	case <-stop:
	}
	return b.withdraw(d)
}

// withdraw ends a wait. It reports whether the bytes had been granted just then.
func (b *budget) withdraw(d *demand) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.mu.queue, d)
	if i < 0 {
		return true
	}
	b.mu.queue = slices.Delete(b.mu.queue, i, i+1)
	b.grantLocked() // those behind may fit where d did not
	return false
}

// give gives n bytes back.
func (b *budget) give(n int64) {
	b.mu.Lock()
	b.mu.free += n
	b.grantLocked()
	b.mu.Unlock()
}

func (b *budget) grantLocked() {
	for len(b.mu.queue) > 0 && b.mu.queue[0].bytes <= b.mu.free {
		d := b.mu.queue[0]
		b.mu.queue = b.mu.queue[1:]
		b.mu.free -= d.bytes
		close(d.granted)
	}
}

// left is how many bytes nobody has.
func (b *budget) left() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.free
}
