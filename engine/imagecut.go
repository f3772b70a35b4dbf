package engine

import "time"

// imageCut is a cut for an image until that is durable, or a later commit is.
type imageCut struct {
	version uint64        // 0: there is none
	counts  []ledgerCount // in it
}

// askImage has the next group cut for an image: fn is told at once, behind the cut, and
// owes beginImage and then imaged. If the last one has come to nothing, so that the number
// of its version may be lost in a crash, it gets an ordinary commit, which is durable
// when it is told, and without the mark that it is for an image.
func (c *committer) askImage(fn waiter) {
	c.mu.Lock()
	stopped := c.mu.stopped
	if !stopped {
		c.mu.image = fn
	}
	c.mu.Unlock()
	if stopped {
		fn(commitResult{version: c.durable.Load(), err: ErrClosed})
		return
	}
	c.task.Wake()
}

// imaged tells that the image of a version is durable, and so its commit.
func (c *committer) imaged(version uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if version == c.mu.cut.version {
		c.raiseImagedLocked()
		c.durable.Store(max(c.durable.Load(), version))
		c.store.stats.commits.Add(1)
	}
}

// raiseImagedLocked tells the ledgers that the last cut for an image is durable: by the
// image, or by a commit behind it.
func (c *committer) raiseImagedLocked() {
	raiseCounts(c.mu.cut.counts)
	c.mu.cut = imageCut{counts: c.mu.cut.counts[:0]}
}

func raiseCounts(list []ledgerCount) {
	for _, l := range list {
		l.ledger.durable.Store(max(l.ledger.durable.Load(), l.number))
	}
}

// imagePending reports whether there is a cut for an image that is not durable, nor a later
// commit.
func (c *committer) imagePending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.cut.version != 0
}

// beginImage cuts a group for an image.
func (c *committer) beginImage(now int64) time.Duration {
	s := c.store
	if wait := time.Duration(c.againAt - now); c.attempts > 0 && wait > 0 {
		return wait
	}
	switch c.cutImage() {
	case cutRefused:
		return c.refused()
	case cutNoPage:
		c.waiting.Store(true)
		if s.log.Stuck() {
			c.answerImage(commitResult{version: c.durable.Load(), err: errDeviceFull})
		}
		return fullWait
	}
	c.attempts = 0
	return 0
}

// answerImage tells who wants a cut for an image.
func (c *committer) answerImage(r commitResult) {
	fn := c.imageFor
	c.imageFor = nil
	if fn != nil {
		fn(r)
	}
}

// cutImage ends a group for an image, and tells who wants that. What is at the tail
// stays as dirty as it is.
func (c *committer) cutImage() cutOutcome {
	s := c.store
	var bits uint8
	g, outcome := c.close(commitImage, func(g *cutGroup) (ok bool) {
		bits = s.index.Bits()
		g.rec, g.end, ok = s.log.CutImage(c.payload[:], g.changed*ledgerEntry)
		return ok
	})
	if outcome != cutMade {
		return outcome
	}
	c.mu.Lock()
	c.mu.cut.version = g.version
	c.mu.cut.counts = s.ledgers.collect(g.version, g.rec, c.mu.cut.counts)
	c.encoded = appendCounts(c.encoded[:0], c.mu.cut.counts)
	c.mu.Unlock()
	s.log.FinishImage(g.rec, commitPayload, c.encoded)
	r := c.result(nil)
	r.version, r.end, r.imaged, r.indexBits = g.version, g.end, true, bits
	c.answerImage(r)
	return cutMade
}
