package engine

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// taskOf returns what Tasks says of one.
func taskOf(t *testing.T, s *Store, name TaskName) TaskInfo {
	t.Helper()
	for _, info := range s.Tasks() {
		if info.Name == name {
			return info
		}
	}
	t.Fatalf("no task %s", name)
	return TaskInfo{}
}

// TestTasks_ByHand: a task that is run by hand and does nothing, is not counted,
// or cannot be run because it was stopped; one the store needs that can be stopped.
func TestTasks_ByHand(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	ctx := context.Background()
	for i := range 4000 {
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 1, 1000)))
	}
	for _, name := range []TaskName{TaskCommit, TaskCheckpoint, TaskCompact} {
		if name != TaskCommit {
			require.NoError(t, s.StopTask(name))
			require.NoError(t, s.StopTask(name))
			require.True(t, taskOf(t, s, name).Stopped)
		}
		before := taskOf(t, s, name).Runs
		require.NoError(t, s.RunTask(ctx, name), name)
		require.Eventually(t, func() bool { return taskOf(t, s, name).Runs > before }, waitLong, time.Millisecond, name)
		info := taskOf(t, s, name)
		require.False(t, info.LastRun.IsZero())
		require.NoError(t, info.LastErr)
		require.NotEmpty(t, info.Next)
	}
	st := s.Stats()
	require.Equal(t, uint64(1), st.Checkpoints)
	require.Equal(t, uint64(1), st.Compactions)
	require.Equal(t, st.Version, st.Durable, "a commit that was run is not durable")
	for _, name := range []TaskName{TaskFlush, TaskCommit, TaskGrowth, TaskOrder} {
		require.True(t, taskOf(t, s, name).Fixed)
		require.ErrorIs(t, s.StopTask(name), ErrTaskFixed)
		require.NoError(t, s.StartTask(name))
	}
	for _, name := range []TaskName{TaskFlush, TaskGrowth, TaskWarm} {
		require.ErrorIs(t, s.RunTask(ctx, name), ErrTaskFixed)
	}
	require.ErrorIs(t, s.StopTask("sweep"), ErrNoTask)
	require.ErrorIs(t, s.StartTask("sweep"), ErrNoTask)
	require.ErrorIs(t, s.RunTask(ctx, "sweep"), ErrNoTask)
	n.Close()
	require.NoError(t, s.Close())
}

// churnSome overwrites 2,000 keys of 1,000 bytes for so many bytes of log.
func churnSome(t *testing.T, n *Session, bytes int) {
	t.Helper()
	for i := range bytes / 1000 {
		require.NoError(t, n.Put(key64(i%2000), valueOf(uint64(i%2000), uint64(i), 1000)))
	}
}

// TestTasks_Compact: compaction that runs while it is stopped, does not go on when
// it is started, or writers that wait for ever for one that is stopped.
func TestTasks_Compact(t *testing.T) {
	s := openOn(t, newMem(), func(o *Options) { o.LiveRatio = 0.5 })
	n := s.NewSession()
	require.NoError(t, s.StopTask(TaskCompact))
	for range 3 {
		churnSome(t, n, 4<<20)
		evict(t, s, n)
	}
	syncStore(t, s)
	e := s.EstimateGC()
	require.False(t, e.WouldPay)
	require.Contains(t, e.Reason, "stopped")
	require.Less(t, e.Ratio, 0.5)
	require.Zero(t, s.Stats().Compactions)

	// Segments that are there in advance count for what is used, but not for what will be.
	require.NoError(t, s.SetDisk(min(s.Stats().DiskUsed, s.room.taken())))
	require.Equal(t, "disk full", s.Stats().State)
	require.ErrorIs(t, n.Put(key64(1), valueOf(1, 1, 8)), ErrDiskFull)
	_, err := n.Delete(key64(1))
	require.NoError(t, err, "what makes room must go through")

	require.NoError(t, s.StartTask(TaskCompact))
	require.NoError(t, n.Put(key64(2), valueOf(2, 1, 8)), "a writer waits for room")
	// The writer goes on before the pass that has made room has come to its end.
	require.Eventually(t, func() bool { st := s.Stats(); return st.State == "ok" && st.Compactions > 0 }, waitLong, time.Millisecond)
	n.Close()
	require.NoError(t, s.Close())
}

// TestSettings_Live: a budget or ratio that is changed and not kept to, or one out
// of range that is taken.
func TestSettings_Live(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	for range 3 {
		churnSome(t, n, 4<<20)
		evict(t, s, n)
	}
	syncStore(t, s)
	require.Error(t, s.SetLiveRatio(1.1))
	require.Error(t, s.SetDisk(1))
	require.Error(t, s.SetDisk(-1))
	require.Zero(t, s.Stats().Compactions)
	require.False(t, s.EstimateGC().WouldPay)

	require.NoError(t, s.SetLiveRatio(0.9))
	require.Equal(t, 0.9, s.LiveRatio())
	require.Eventually(t, func() bool { return s.Stats().Compactions > 0 }, 20*time.Second, 10*time.Millisecond)
	require.NoError(t, s.SetLiveRatio(-1))

	const budget = 12 << 20
	require.NoError(t, s.SetDisk(budget))
	require.Equal(t, int64(budget), s.Stats().DiskBudget)
	for range 5 {
		churnSome(t, n, 4<<20)
		require.LessOrEqual(t, s.Stats().DiskUsed, int64(budget))
	}
	require.NoError(t, s.SetDisk(0))
	require.Zero(t, s.Stats().DiskBudget)
	require.Equal(t, "ok", s.Stats().State)
	n.Close()
	require.NoError(t, s.Close())
}
