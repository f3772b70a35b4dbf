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
//
// The wall is looked at by whoever asks for the time of a key, if that was not done
// for a while; so a store that nobody asks has no timer for it, and its first
// operation after a machine's sleep has the right time already. The expire task
// looks too, and is the one that reports.
type storeClock struct {
	clock Clock
	log   *slog.Logger
	// ahead is what is added to the monotonic clock, in ms. Atomic; only rises.
	ahead atomic.Int64
	// lookAt is the monotonic time from which on the wall is to be looked at again.
	// Atomic; raised by who takes it upon himself.
	lookAt atomic.Int64
	// followed is the jumps that were followed and not reported yet, in ms. Atomic.
	followed atomic.Int64
	told     bool // of a jump that is not followed; owned by the task that calls follow
}

const (
	// clockJumpMax is the largest jump of the wall clock that is followed.
	clockJumpMax = time.Hour
	// clockStep is the smallest: below, it is how the two clocks are read.
	clockStep = time.Second
	// clockLook is how long the wall is not looked at again.
	clockLook = time.Second
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

// fresh is now, after a look at the wall if it is time for one. It may be called
// inside a section: it does not report.
func (c *storeClock) fresh() int64 {
	mono := c.clock.Monotonic()
	if at := c.lookAt.Load(); mono >= at && c.lookAt.CompareAndSwap(at, mono+int64(clockLook)) {
		c.catchUp()
	}
	return c.ahead.Load() + mono/int64(time.Millisecond)
}

// catchUp follows the wall if that is ahead, and says how far it was; negative:
// behind.
func (c *storeClock) catchUp() (jump time.Duration) {
	if jump = ms(c.clock.Wall() - c.now()); jump >= clockStep && jump <= clockJumpMax {
		c.followed.Add(jump.Milliseconds())
		c.raise(c.clock.Wall())
	}
	return jump
}

// follow looks at the wall and reports. One task calls it now and then.
func (c *storeClock) follow() {
	jump := c.catchUp()
	if n := c.followed.Swap(0); n > 0 {
		c.log.Info("the wall clock is ahead and is followed", slog.Duration("jump", ms(n)))
	}
	if far := jump.Abs() > clockJumpMax; far != c.told {
		if c.told = far; far {
			c.log.Warn("the wall clock has jumped and is not followed: keys expire by the time that has passed since the store was opened",
				slog.Duration("jump", jump))
		}
	}
}
