package hlog

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
)

// TestLog_Full_SyncFailed: a sync that failed for want of room passes for a full
// disk, and the store waits for ever for what can not come back.
func TestLog_Full_SyncFailed(t *testing.T) {
	require.True(t, isFull(fmt.Errorf("write: %w", syscall.ENOSPC)))
	require.False(t, isFull(fmt.Errorf("%w: %w", ioring.ErrSyncFailed, syscall.ENOSPC)))
}
