package daemon

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestPulse: an idle server goes on ticking, or one that is asked does not tick, or
// stops before its last tick has nothing to do.
func TestPulse(t *testing.T) {
	const every = 5 * time.Millisecond
	var p pulse
	p.init()
	var ticks atomic.Int64
	var more atomic.Bool
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.run(ctx, every, func() bool {
			ticks.Add(1)
			return more.Load()
		})
	}()
	resting := func() bool { return p.resting.Load() }
	for range 3 {
		require.Eventually(t, resting, patience, every)
		before, begun := ticks.Load(), time.Now()
		time.Sleep(20 * every)
		// Every other minute all who rest look, see engine.RestLeft.
		const look = 2 * time.Minute
		if n := ticks.Load(); begun.Add(-10 * time.Second).Truncate(look).Equal(time.Now().Truncate(look)) {
			require.Equal(t, before, n, "ticks of an idle server")
		}

		more.Store(true)
		p.beat()
		require.Eventually(t, func() bool { return ticks.Load() > before+3 }, patience, every, "there is more")
		more.Store(false)
		p.beat()
	}
	stop()
	<-done
}

// TestPulse_Beats: beats from many sides block, or get lost beside a rest.
func TestPulse_Beats(t *testing.T) {
	var p pulse
	p.init()
	var work, seen atomic.Int64 // asked for, and seen by a tick
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.run(ctx, 50*time.Microsecond, func() bool {
			seen.Store(work.Load())
			return false
		})
	}()
	for range 2000 {
		n := work.Add(1)
		p.beat()
		require.Eventually(t, func() bool { return seen.Load() >= n }, patience, 10*time.Microsecond, "a beat was lost")
	}
	stop()
	<-done
}
