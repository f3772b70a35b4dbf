package hlog

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

// TestLog_Full_SyncFailed: a sync that failed for want of room passes for a full
// disk, and the store waits for ever for what can not come back.
func TestLog_Full_SyncFailed(t *testing.T) {
	require.True(t, isFull(fmt.Errorf("write: %w", syscall.ENOSPC)))
	require.False(t, isFull(fmt.Errorf("%w: %w", ioring.ErrSyncFailed, syscall.ENOSPC)))
}

// TestLog_Room: more is taken than there is room for on the disk, so that it can
// never be flushed; or the tail goes on waiting when there is room.
func TestLog_Room(t *testing.T) {
	r := newRig(t, 40, 0, nil) // ten segments of memory
	r.mem.SetRoom(5)
	take := func() (n int) {
		for ; !r.Full(); n++ {
			r.slot.Enter()
			_, p, status := r.Allocate(60_000)
			if status == OK {
				record.PutFiller(record.Bytes(p, 0, 60_000))
			}
			r.slot.Exit()
			if status == Wait {
				require.False(t, r.Ready())
				break
			}
		}
		return n
	}
	require.Less(t, take(), 5, "nobody has said that there is room")
	for !r.Full() {
		r.lookForRoom(r.now)
		take()
	}
	require.LessOrEqual(t, r.Tail().Bytes(), int64(3<<20), "the last two segments are the reserve")
	require.Greater(t, r.Tail().Bytes(), int64(2<<20))
	require.False(t, r.Stuck())
	_, end, ok := r.Cut(make([]byte, 64), 0)
	require.True(t, ok)
	r.flush()
	require.Equal(t, end, r.Flushed(), "what was taken has its room")
	// Whoever may takes the reserve.
	for r.Tail().Bytes() < 5<<20-testPage {
		_, status := r.put(60_000)
		require.Equal(t, OK, status)
	}
	_, end, ok = r.Cut(make([]byte, 64), 0)
	require.True(t, ok)
	r.flush()
	require.Equal(t, end, r.Flushed(), "the reserve is there")
	require.False(t, r.Stuck())
	require.True(t, r.Full())
	r.mem.SetRoom(0)
	space := r.Space()
	r.flush()
	require.False(t, r.Full())
	<-space
	require.NoError(t, r.Free())
}

// TestLog_RoomAskedAgain: room that was made for the log goes elsewhere, to a write
// into a segment that counted as there since a later one was, and is never asked for
// again.
func TestLog_RoomAskedAgain(t *testing.T) {
	r := newRig(t, 40, 0, nil)
	for r.Tail().Bytes() < 2<<20+700_000 {
		_, status := r.put(60_000)
		require.Equal(t, OK, status)
	}
	_, _, ok := r.Cut(make([]byte, 64), 0)
	require.True(t, ok)
	r.flush()
	require.Negative(t, r.lookForRoom(r.now), "there is room for the next segment")
	require.NoError(t, r.mem.Discard(1<<20))
	r.mem.Recycle(0)
	op := &ioring.Op{Kind: ioring.Write, Buf: iotest.Aligned(SectorSize), Done: func(*ioring.Op) {}}
	r.mem.Submit([]*ioring.Op{op})
	require.True(t, r.mem.Step())
	require.NoError(t, op.Err)
	require.Positive(t, r.lookForRoom(r.now), "it has gone")
	r.now += int64(2 * fullRetry)
	r.lookForRoom(r.now)
	require.Negative(t, r.lookForRoom(r.now))
	require.NoError(t, r.Free())
}
