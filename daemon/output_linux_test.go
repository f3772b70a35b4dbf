package daemon

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/engine"
	"rskv/ipc"
)

// TestConn_AwaitRoom: a reader waits for room that there is, and for ever: it has seen
// answers on their way while the memory for those of all was spent, and nobody tells it
// that they are sent. So its client is not heard any more, and not seen to go.
func TestConn_AwaitRoom(t *testing.T) {
	c := loneConn(t, engine.MemoryMin)
	s := c.server

	s.queued.Add(int64(s.limits.QueuedAll) + 1) // by others
	c.output.writing, c.output.unsent = true, 10
	there := make(chan bool, 1)
	go func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		there <- c.awaitRoom()
	}()
	require.Eventually(t, func() bool { return s.count.heldUp.Load() == 1 }, time.Minute, time.Millisecond)
	// Whoever was sending goes on to what is ready by now.
	c.mu.Lock() // the reader waits
	c.output.writing, c.output.unsent = false, 0
	c.output.ready = ipc.AppendStrResult(nil, 1, "pong")
	c.mu.Unlock()
	c.flush()
	select {
	case ok := <-there:
		require.True(t, ok)
	case <-time.After(time.Minute):
		t.Fatal("it waits for ever")
	}
	c.mu.Lock()
	require.Zero(t, c.owed())
	c.mu.Unlock()
}
