package daemon

import (
	"runtime"
	"sync"
)

// deliverer answers the connections whose commit has ended. A commit serves many,
// each of which owes a few bytes to its client: one goroutine that goes from one
// to the next costs half of what it takes to wake each connection's helper for
// that, and they all go out while the next commit is under way.
//
//	commit --> add, add, add --> connections --> run: answer, send
//
// A connection that somebody is in is not waited for: its helper does it.
type deliverer struct {
	mu      sync.Mutex
	conns   []*conn // guarded by mu, as all below
	running int
	group   sync.WaitGroup // of those who run
}

// deliverEach is how many connections must wait for another goroutine to be worth
// its start.
const deliverEach = 32

// add has c look at its inbox. It never blocks: the engine calls it.
func (d *deliverer) add(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns = append(d.conns, c)
	if d.running == 0 || len(d.conns) > d.running*deliverEach && d.running < runtime.GOMAXPROCS(0)/2 {
		d.running++
		d.group.Go(d.run)
	}
}

func (d *deliverer) run() {
	for {
		d.mu.Lock()
		n := len(d.conns)
		if n == 0 {
			d.running--
			d.mu.Unlock()
			return
		}
		n = min(n, deliverEach)
		var part [deliverEach]*conn
		copy(part[:], d.conns[:n])
		d.conns = d.conns[:copy(d.conns, d.conns[n:])]
		d.mu.Unlock()
		for _, c := range part[:n] {
			c.answerCommitted()
		}
	}
}

// answerCommitted takes in what is in the inbox, and sends the answers, unless somebody is
// at the connection.
func (c *conn) answerCommitted() {
	if !c.mu.TryLock() {
		c.wakeHelper()
		return
	}
	c.takeEvents()
	c.leave()
}
