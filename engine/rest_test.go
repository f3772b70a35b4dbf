package engine

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
)

// stepCounter is a Runner that counts the steps of all tasks.
type stepCounter struct {
	Runner
	steps atomic.Int64
	names sync.Map // of the tasks that have made a step
}

func (r *stepCounter) Start(name string, step func() time.Duration) Task {
	return r.Runner.Start(name, func() time.Duration {
		r.steps.Add(1)
		n, _ := r.names.LoadOrStore(name, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
		return step()
	})
}

// looks is how many tasks look again when restMax is full.
const looks int64 = 4

// requireIdle fails the test where the tasks go on making steps. A step may be late that
// somebody had been woken for before: then it looks once more.
func requireIdle(t *testing.T, r *stepCounter, during time.Duration) {
	t.Helper()
	steps := int64(0)
	for range 3 {
		before := r.steps.Load()
		time.Sleep(during)
		if steps = r.steps.Load() - before; steps <= looks {
			return
		}
	}
	r.names.Range(func(name, n any) bool {
		t.Logf("%s: %d steps in all", name, n.(*atomic.Int64).Load())
		return true
	})
	require.LessOrEqual(t, steps, looks, "steps of an idle store")
}

// TestRest_Idle: the tasks of an idle store go on looking whether there is something
// to do, or miss that there is.
func TestRest_Idle(t *testing.T) {
	r := &stepCounter{Runner: GoRunner()}
	const interval = 10 * time.Millisecond
	s := openOn(t, newMem(), func(o *Options) { o.Runner, o.CommitInterval, o.LiveRatio, o.Ordered = r, interval, 0.5, true })
	n := s.NewSession()
	resting := func() bool {
		return s.rests.bits.Load() == restCommit|restCheckpoint|restCompact|restExpire|restOrder
	}
	for round := range 2 {
		require.NoError(t, n.Put(key64(round), valueOf(1, uint64(round), 100)))
		written := s.log.Tail()
		require.Eventually(t, func() bool { return s.log.Durable() >= written }, 20*time.Second, interval, "a write is not committed")
		require.Eventually(t, resting, 20*time.Second, interval, "somebody does not rest")
		requireIdle(t, r, 50*interval)
	}
	// A read does not wake anybody, a delete in place does.
	_, err := n.Get(key64(1), nil)
	require.NoError(t, err)
	require.True(t, resting())
	before := r.steps.Load()
	_, err = n.Delete(key64(1))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return r.steps.Load() > before }, 20*time.Second, time.Millisecond, "nobody has been woken")
	n.Close()
	require.NoError(t, s.Close())
}

// TestRest_Timers: a store whose keys expire some day goes on looking at them, or, when
// it rests, misses one that expires before them.
func TestRest_Timers(t *testing.T) {
	r := &stepCounter{Runner: GoRunner()}
	s := openOn(t, newMem(), func(o *Options) { o.Runner, o.CommitInterval = r, 10*time.Millisecond })
	n := s.NewSession()
	put := func(key int, ttl time.Duration) {
		require.NoError(t, n.one(&Op{Kind: OpPut, Key: key64(key), Value: valueOf(1, uint64(key), 100), TTL: ttl.Milliseconds()}))
	}
	resting := func() bool { return s.rests.bits.Load() == restCommit|restCheckpoint|restCompact|restExpire }
	put(1, time.Hour)
	require.Eventually(t, resting, 20*time.Second, time.Millisecond)
	requireIdle(t, r, 10*sweepTick)
	soon := s.clock.now() + (4 * sweepTick).Milliseconds()
	put(2, 4*sweepTick) // while it waits for the first
	require.True(t, s.Len() == 2 || s.clock.now() >= soon)
	require.Eventually(t, func() bool { return s.Len() == 1 }, 20*time.Second, time.Millisecond, "it has expired and is counted")
	require.Eventually(t, resting, 20*time.Second, time.Millisecond)
	n.Close()
	require.NoError(t, s.Close())
}

// TestRest_Lead: a leader ends the rest of the commit task, and nobody wakes it any
// more: what is written without a commit of its own is not committed at all.
func TestRest_Lead(t *testing.T) {
	const interval = time.Millisecond
	s := openOn(t, newMem(), func(o *Options) { o.CommitInterval = interval })
	n := s.NewSession()
	for round := range 300 {
		require.Eventually(t, func() bool { return s.rests.bits.Load()&restCommit != 0 }, 20*time.Second, interval/10, "the task does not rest")
		led := make(chan struct{})
		go func() {
			defer close(led)
			s.Lead(func(uint64, error) {})
		}()
		require.NoError(t, n.Put(key64(round), valueOf(1, uint64(round), 8)))
		<-led
		written := s.log.Tail()
		require.Eventually(t, func() bool { return s.log.Durable() >= written }, 20*time.Second, interval/10, "round %d: a write is not committed", round)
	}
	n.Close()
	require.NoError(t, s.Close())
}

// TestRest_LeadBetween is the same with the leader between a writer's write and its
// look whether somebody rests.
func TestRest_LeadBetween(t *testing.T) {
	s := openOn(t, newMem(), func(o *Options) { o.CommitInterval = 10 * time.Millisecond })
	resting := func() bool { return s.rests.bits.Load()&restCommit != 0 }
	require.Eventually(t, resting, 20*time.Second, time.Millisecond)
	n := s.NewSession()
	require.NoError(t, n.Put(key64(1), valueOf(1, 1, 8)))
	require.Eventually(t, resting, 20*time.Second, time.Millisecond)
	s.commit.join(true, func(commitResult) {}) // as if a write had been seen
	s.commit.lead()
	require.NoError(t, n.Put(key64(2), valueOf(1, 2, 8)))
	written := s.log.Tail()
	require.Eventually(t, func() bool { return s.log.Durable() >= written }, 20*time.Second, time.Millisecond, "nobody has woken the commit task")
	n.Close()
	require.NoError(t, s.Close())
}

// TestLook: writes that do not move the log wake a task again and again, or one that
// rests is not told of those that do.
func TestLook(t *testing.T) {
	s, n, clock, _ := openTimed(t)
	full := restMax - time.Duration(clock.Wall())*time.Millisecond%restMax // those who rest look together
	require.NoError(t, n.Put(key64(1), valueOf(1, 1, 8)))
	var l look // with the bit of a task that this store does not have
	require.Equal(t, time.Second, l.after(s, restOrder, time.Second), "the log has moved")
	require.Equal(t, full, l.after(s, restOrder, time.Second))
	require.Equal(t, full, l.after(s, restOrder, time.Second), "nobody has ended its rest")
	require.NotZero(t, s.rests.bits.Load()&restOrder)
	tail := s.log.Tail()
	require.NoError(t, n.Put(key64(1), valueOf(1, 2, 8)))
	require.Equal(t, tail, s.log.Tail(), "in place")
	require.Zero(t, s.rests.bits.Load()&restOrder, "woken")
	require.Equal(t, time.Second, l.after(s, restOrder, time.Second), "at once it would be woken by the next")
	require.Zero(t, s.rests.bits.Load()&restOrder)
	require.NoError(t, n.Put(key64(2), valueOf(2, 1, 8)))
	require.Equal(t, time.Second, l.after(s, restOrder, time.Second), "the log has moved")
	require.Equal(t, full, l.after(s, restOrder, time.Second))
	require.Greater(t, s.log.Tail(), record.Addr(0))
	n.Close()
	require.NoError(t, s.Close())
}

// yieldCounter counts how often others are let go first.
type yieldCounter struct {
	Runner
	yields atomic.Int64
}

func (r *yieldCounter) Yield() {
	r.yields.Add(1)
	r.Runner.Yield()
}

// TestRest_Processor: writers keep the processors from a pass of compaction, or let
// others go first when nobody wants to.
func TestRest_Processor(t *testing.T) {
	r := &yieldCounter{Runner: GoRunner()}
	s := openOn(t, newMem(), func(o *Options) { o.Runner, o.CommitInterval, o.LiveRatio = r, -1, -1 })
	n := s.NewSession()
	write := func(count int, wanted uint32) int64 {
		before := r.yields.Load()
		for i := range count {
			s.rests.begin(wanted) // the task takes it away where no pass is under way
			require.NoError(t, n.Put(key64(i%10), valueOf(1, uint64(i), 8)))
		}
		return r.yields.Load() - before
	}
	require.Zero(t, write(3*yieldAfter, 0))
	require.GreaterOrEqual(t, write(3*yieldAfter, restProcessor), int64(2))
	n.Close()
	require.NoError(t, s.Close())
}
