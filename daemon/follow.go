package daemon

import (
	"bytes"
	"context"
	"errors"
	"time"

	"rskv/engine"
	"rskv/ipc"
)

// A follower sends a connection's client what is changed in the store, until the
// connection ends or the client does not keep up. The log is its buffer: it takes
// the next changes when there is room for them among the connection's answers, and
// nobody waits for it.
//
//	log --Next--> piece --deliver, when there is room--> output.ready --> client
//
// It ends with a notification of where to go on when the client has taken nothing
// for watch_timeout, and when compaction has passed it.
type follower struct {
	feed *engine.Feed
	ctx  context.Context // ends when it is to end
	end  context.CancelFunc
	told int64 // address of the last commit that is among the answers, or of the begin
}

const (
	// followQueued is how many bytes of changes wait for a client at most, unless
	// one change is longer.
	followQueued = 1 << 20
	// followPiece is how many bytes of changes are made ready at a time.
	followPiece = 64 << 10
	// followPause is how long a follower rests when it has told everything: commits
	// may come thousands a second.
	followPause = time.Millisecond
	// followIdle is how often a commit is told that had no change to tell.
	followIdle = time.Second
)

var (
	errWatching = &ipc.Error{Code: ipc.CodeBadRequest, Message: "watch: one is running on this connection"}
	errWatches  = &ipc.Error{Code: ipc.CodeBusy, Message: "watch: as many as may are running (max_watches)"}
)

// follow carries out the method watch.
func (c *conn) follow(k call) {
	s := c.server
	switch {
	case c.following != nil:
		c.refuse(&k, errWatching)
		return
	case s.count.watches.Add(1) > int64(s.settings().MaxWatches):
		s.count.watches.Add(-1)
		c.refuse(&k, errWatches)
		return
	}
	f := &follower{}
	f.ctx, f.end = context.WithCancel(context.Background())
	c.following = f
	asked := &c.call.Watch
	o := engine.FeedOptions{Prefix: bytes.Clone(asked.Prefix), From: asked.From, Now: !asked.HasFrom}
	c.beside(func() func() {
		feed, err := s.store.OpenFeed(f.ctx, o)
		return func() {
			if err != nil {
				c.followed()
				c.refuse(&k, wireError(err))
				return
			}
			f.feed, f.told = feed, feed.Start()
			c.reply(&k, result{resultInt, f.told})
			c.workers.Add(1)
			go c.tell(f)
		}
	})
}

// endFollow has the connection's follower end. Called with conn.mu held.
func (c *conn) endFollow() {
	if c.following != nil {
		c.following.end()
		c.changed.Broadcast()
	}
}

// followed notes that the follower has ended. Called with conn.mu held.
func (c *conn) followed() {
	c.following.end()
	c.following = nil
	c.server.count.watches.Add(-1)
}

// tell is the follower's goroutine.
func (c *conn) tell(f *follower) {
	defer c.workers.Done()
	err := c.tellAll(f)
	f.feed.Close()
	c.mu.Lock()
	ended := f.ctx.Err() != nil
	c.followed()
	switch {
	case ended, err == nil, errors.Is(err, engine.ErrClosed): // the connection ends
	case errors.Is(err, errLagged), errors.Is(err, engine.ErrCursor):
		c.log.Info("watch ended", "error", err)
		c.server.count.lagged.Add(1)
		c.output.ready = ipc.AppendPlace(c.output.ready, ipc.NotifyLagged, f.told)
	default:
		c.log.Warn("watch failed", "error", err)
		wire := wireError(err)
		c.output.ready = ipc.AppendErrorResponse(c.output.ready, 0, wire.Code, wire.Message)
		c.mu.Unlock()
		c.flush()
		c.stop(false)
		return
	}
	c.mu.Unlock()
	c.flush()
}

// errLagged ends a follower whose client does not take what it is told.
var errLagged = errors.New("the client has taken nothing for the time set as watch_timeout")

// tellAll tells changes until the follower is to end: then the error is nil.
func (c *conn) tellAll(f *follower) error {
	p := piece{told: f.told, at: time.Now()}
	for {
		more := f.feed.More()
		for {
			change, ok, err := f.feed.Next(f.ctx)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			p.add(&change)
			if len(p.bytes) >= followPiece {
				if ok, err := c.deliver(f, &p); !ok {
					return err
				}
			}
		}
		if len(p.bytes) > 0 {
			if ok, err := c.deliver(f, &p); !ok {
				return err
			}
		}
		if ended, err := c.awaitMore(f, &p, more); ended || err != nil {
			return err
		}
	}
}

// awaitMore rests, waits for more to be told, and tells where to go on meanwhile. It
// reports whether the follower is to end.
func (c *conn) awaitMore(f *follower, p *piece, more <-chan struct{}) (ended bool, err error) {
	rest := time.NewTimer(followPause)
	defer rest.Stop()
	select {
	case <-f.ctx.Done():
		return true, nil
	case <-rest.C:
	}
	var idle <-chan time.Time
	if p.held != 0 {
		timer := time.NewTimer(followIdle - time.Since(p.at))
		defer timer.Stop()
		idle = timer.C
	}
	select {
	case <-f.ctx.Done():
		return true, nil
	case <-more:
	case <-idle:
		p.commit(p.held)
		ok, err := c.deliver(f, p)
		return !ok, err
	}
	return false, nil
}

// piece is notifications that are ready to be sent.
type piece struct {
	bytes   []byte
	changes uint64    // in them
	told    int64     // last commit in them, or before
	since   bool      // there are changes behind it
	held    int64     // a commit without a change that was not told yet; 0: none
	at      time.Time // when a commit was told last
}

// add adds a step of a feed.
func (p *piece) add(c *engine.Change) {
	switch c.Kind {
	case engine.ChangePut:
		p.bytes = ipc.AppendPutChange(p.bytes, c.Addr, c.Key, c.Value)
	case engine.ChangeDelete:
		p.bytes = ipc.AppendDeleteChange(p.bytes, c.Addr, c.Key)
	default:
		if p.held = c.Addr; p.since || time.Since(p.at) >= followIdle {
			p.commit(c.Addr)
		}
		return
	}
	p.since = true
	p.changes++
}

func (p *piece) commit(at int64) {
	p.bytes = ipc.AppendPlace(p.bytes, ipc.NotifyCommit, at)
	p.told, p.since, p.held, p.at = at, false, 0, time.Now()
}

// deliver puts a piece among the connection's answers, when there is room. If ok is
// false the follower ends, with an error if the client is to blame.
func (c *conn) deliver(f *follower, p *piece) (ok bool, err error) {
	c.mu.Lock()
	if ok, err = c.awaitTaken(f, len(p.bytes)); !ok {
		c.mu.Unlock()
		return false, err
	}
	c.output.ready = append(c.output.ready, p.bytes...)
	f.told = p.told
	c.account()
	c.mu.Unlock()
	c.server.count.changes.Add(p.changes)
	p.changes = 0
	if p.bytes = p.bytes[:0]; cap(p.bytes) > 4*followPiece {
		p.bytes = nil
	}
	c.flush()
	return true, nil
}

// awaitTaken waits until the client has taken enough of what waits for it for n
// bytes more. Called with conn.mu held.
func (c *conn) awaitTaken(f *follower, n int) (ok bool, err error) {
	room := min(followQueued, c.limits.Queued)
	full := func() bool {
		owed := c.owed()
		return owed > 0 && (owed+n > room || c.server.crowded())
	}
	if !full() {
		return f.ctx.Err() == nil, nil
	}
	patience, since, owed := c.server.settings().WatchTimeout, time.Now(), c.owed()
	if patience == 0 {
		patience = timeoutMax // answer_timeout ends the connection before
	}
	timer := time.AfterFunc(patience, func() {
		c.mu.Lock()
		c.changed.Broadcast()
		c.mu.Unlock()
	})
	defer timer.Stop()
	for full() && f.ctx.Err() == nil && !c.dead {
		c.changed.Wait()
		now := c.owed()
		if now < owed {
			since = time.Now()
			timer.Reset(patience)
		} else if time.Since(since) >= patience {
			return false, errLagged
		}
		owed = now
	}
	return f.ctx.Err() == nil && !c.dead, nil
}
