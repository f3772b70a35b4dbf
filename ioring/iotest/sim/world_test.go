package sim

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestWorld_Ends: what cannot come to an end is not told, or not with the reason.
func TestWorld_Ends(t *testing.T) {
	w := NewWorld(1)
	require.ErrorContains(t, w.Run(func() { w.Wait(make(chan struct{})) }), "everybody waits: main waits for a channel")
	w = NewWorld(1)
	require.ErrorContains(t, w.Run(func() {
		for {
			w.Yield()
		}
	}), "no end after 1000000 steps")
	w = NewWorld(1)
	require.ErrorContains(t, w.Run(func() { w.Go("child", func() { w.Sleep(time.Hour) }) }), "left behind: child")
	w = NewWorld(1)
	failure := errors.New("failure")
	require.ErrorIs(t, w.Run(func() { w.Group("g", func() { w.Fail(failure) }, func() { w.Sleep(time.Hour) }) }), failure)
}

// TestWorld_Guard: a fiber that waits for a lock of another one stops the world
// without a word about its seed.
func TestWorld_Guard(t *testing.T) {
	w := NewWorld(42)
	told := make(chan error, 1)
	over := make(chan struct{})
	var mu sync.Mutex
	go w.guard(over, 300*time.Millisecond, func(err error) {
		told <- err
		mu.Unlock() // which is how the test comes to an end
	})
	require.NoError(t, w.Run(func() {
		mu.Lock()
		w.Group("g", func() { mu.Lock() })
	}))
	require.ErrorContains(t, <-told, "seed 42: step 2 does not end")
	close(over)
}
