package engine

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// storeClock is the time by which records expire, in ms since 1970:
//
//	wall time when the store was opened, or the time of the last commit if that is
//	later, and from there on what the monotonic clock has advanced
//
// It never goes back, not even over a restart on a machine whose clock was set
// back: what has expired once stays so, see expiry.go. A machine that was
// suspended, or whose clock was put right by less than clockJumpMax, is followed
// forwards. A larger jump while the store is open is more likely a mistake, and
// would expire what nobody can bring back: it is reported and not followed, until
// the store is opened again.
type storeClock struct {
	clock Clock
	log   *slog.Logger
	// ahead is what is added to the monotonic clock, in ms. Atomic; only rises.
	ahead atomic.Int64
	told  bool // of a jump that is not followed; owned by the task that calls follow
}

const (
	// clockJumpMax is the largest jump of the wall clock that is followed.
	clockJumpMax = time.Hour
	// clockStep is the smallest: below, it is how the two clocks are read.
	clockStep = time.Second
)

// init starts the clock; mark is the time of the last commit, 0 for none.
func (c *storeClock) init(opt *Options, mark int64) {
	c.clock, c.log = opt.Clock, opt.Logger
	wall := c.clock.Wall()
	if mark > wall {
		c.log.Warn("the wall clock is behind the last commit: keys expire by the time of that", slog.Duration("behind", ms(mark-wall)))
	}
	c.ahead.Store(max(wall, mark) - c.monotonic())
}

func ms(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

func (c *storeClock) monotonic() int64 { return c.clock.Monotonic() / int64(time.Millisecond) }

// now is the time in ms since 1970.
func (c *storeClock) now() int64 { return c.ahead.Load() + c.monotonic() }

// raise makes the clock show at least t.
func (c *storeClock) raise(t int64) {
	for {
		ahead := c.ahead.Load()
		next := t - c.monotonic()
		if next <= ahead || c.ahead.CompareAndSwap(ahead, next) {
			return
		}
	}
}

// follow compares the clock with the wall. One task calls it now and then.
func (c *storeClock) follow() {
	jump := ms(c.clock.Wall() - c.now())
	switch {
	case jump > clockJumpMax || jump < -clockJumpMax:
		if !c.told {
			c.log.Warn("the wall clock has jumped and is not followed: keys expire by the time that has passed since the store was opened",
				slog.Duration("jump", jump))
		}
		c.told = true
		return
	case jump >= clockStep:
		c.log.Info("the wall clock is ahead and is followed", slog.Duration("jump", jump))
		c.raise(c.clock.Wall())
	}
	c.told = false
}
