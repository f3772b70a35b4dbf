package engine

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
	"rskv/ioring/iotest"
)

// TestLead: a commit that the caller's goroutine can make is left to the task, or
// one that it cannot end is forgotten.
func TestLead(t *testing.T) {
	// A file: short writes and syncs are done where they are asked for.
	s := openTest(t, t.TempDir(), func(o *Options) { o.CommitInterval = -1 })
	n := s.NewSession()
	before := s.Stats().Commits
	inPlace := 0
	for i := 0; i < 10 || inPlace == 0 && i < 1000; i++ {
		require.NoError(t, n.Put(key64(i), []byte("v")))
		version := make(chan uint64, 1)
		s.Lead(func(v uint64, err error) {
			require.NoError(t, err)
			version <- v
		})
		inPlace += len(version) // else the task was at it, and goes on
		waitFor(t, "a commit that was led", background(func() {
			told := <-version
			require.Equal(t, s.commit.durable.Load(), told)
		}))
		require.EqualValues(t, i+1, s.Stats().Commits-before)
	}
	require.Positive(t, inPlace, "answered before Lead returns")

	n.Close()
	require.NoError(t, s.Close())

	// A device that answers later: the task goes on.
	dev := iotest.NewFault(newMem(), 1)
	s = openOn(t, dev, nil)
	n = s.NewSession()
	for _, kind := range []ioring.OpKind{ioring.Write, ioring.Sync} {
		remove := dev.Inject(iotest.Rule{Kind: kind, Delay: 2 * time.Millisecond})
		require.NoError(t, n.Put([]byte("k"), []byte{byte(kind)}))
		done := make(chan struct{})
		s.Lead(func(_ uint64, err error) {
			require.NoError(t, err)
			close(done)
		})
		waitFor(t, "a commit that was begun by its caller", done)
		remove()
	}
	n.Close()
	require.NoError(t, s.Close())
}

// TestLead_Many: of many who lead, ask and sync, one is not answered, or is before
// what he wrote is durable.
func TestLead_Many(t *testing.T) {
	dev := iotest.NewFault(newMem(), 1)
	s := openOn(t, dev, nil)
	dev.Inject(iotest.Rule{Kind: ioring.Sync, Match: func(_ *ioring.Op, k int) bool { return k%3 == 0 }, Delay: 50 * time.Microsecond})
	const writers, rounds = 8, 60
	var answered atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			n := s.NewSession()
			defer n.Close()
			for i := range rounds {
				if err := n.Put(key64(w), valueOf(uint64(w), uint64(i), 20)); err != nil {
					t.Error(err)
				}
				tail := s.log.Tail()
				ask := s.Commit
				if (w+i)%3 > 0 {
					ask = s.Lead
				}
				done := make(chan struct{})
				ask(func(_ uint64, err error) {
					if err != nil || s.log.Durable() < tail {
						t.Errorf("durable up to %v, written up to %v: %v", s.log.Durable(), tail, err)
					}
					answered.Add(1)
					close(done)
				})
				select {
				case <-done:
				case <-time.After(20 * time.Second):
					t.Error("nobody answers")
					return
				}
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, writers*rounds, answered.Load())
	require.NoError(t, s.Close())
	s.Lead(func(_ uint64, err error) {
		require.ErrorIs(t, err, ErrClosed)
		answered.Add(1)
	})
	require.EqualValues(t, writers*rounds+1, answered.Load())
}

// joining is a Runner at whose yields something happens.
type joining struct {
	Runner
	yields atomic.Int64
	yield  atomic.Pointer[func()]
}

func (j *joining) Yield() {
	j.yields.Add(1)
	if f := j.yield.Load(); f != nil {
		(*f)()
	}
	j.Runner.Yield()
}

// TestCommit_Gathers: those who come back together after a commit are served by
// many commits; or a lone client waits for nobody.
func TestCommit_Gathers(t *testing.T) {
	runner := &joining{Runner: GoRunner()}
	s := openOn(t, newMem(), func(o *Options) { o.Runner = runner })
	n := s.NewSession()
	var served sync.WaitGroup
	ask := func() {
		served.Add(1)
		if !s.commit.join(false, func(r commitResult) {
			if r.err != nil {
				t.Error(r.err)
			}
			served.Done()
		}) {
			t.Error("there will be no commit")
		}
	}
	round := func(first int) (commits uint64) {
		before := s.Stats().Commits
		require.NoError(t, n.Put([]byte("k"), binary.LittleEndian.AppendUint64(nil, before)))
		s.commit.stepping.Lock() // the task may still be at the end of the last one
		for range first {
			ask()
		}
		s.commit.stepping.Unlock()
		s.commit.task.Wake()
		served.Wait()
		return s.Stats().Commits - before
	}
	require.EqualValues(t, 1, round(1))
	require.Zero(t, runner.yields.Load(), "a lone client waits")
	require.EqualValues(t, 1, round(3))

	late := 2 // they come one at a time
	join := func() {
		if late > 0 {
			late--
			ask()
		}
	}
	runner.yield.Store(&join)
	require.EqualValues(t, 1, round(1), "others were about to come")
	require.Zero(t, late)

	runner.yields.Store(0)
	runner.yield.Store(nil)
	require.EqualValues(t, 1, round(1))
	require.LessOrEqual(t, runner.yields.Load(), int64(gatherTurns), "nobody comes any more")
	n.Close()
	require.NoError(t, s.Close())
}

// TestLead_Yields: the task waits for a lock that a leader has while it lets others
// run, which may need the task's goroutine: a simulation stands still.
func TestLead_Yields(t *testing.T) {
	runner := &joining{Runner: GoRunner()}
	s := openOn(t, newMem(), func(o *Options) { o.Runner, o.CommitInterval = runner, -1 })
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("k"), []byte("v")))
	led := make(chan struct{})
	require.True(t, s.commit.join(false, func(commitResult) {}))
	require.True(t, s.commit.join(false, func(commitResult) { close(led) }))
	stepped := make(chan time.Duration, gatherTurns)
	step := func() { stepped <- s.commit.step() }
	runner.yield.Store(&step)
	waitFor(t, "a leader that has yielded to the task", background(s.commit.lead))
	runner.yield.Store(nil)
	require.Positive(t, <-stepped, "the task looks again")
	waitFor(t, "the commit", led)
	n.Close()
	require.NoError(t, s.Close())
}

// TestCommit_Spaced: where others write much, one who asks for commits again and
// again freezes what they could update in place each time; or commits are held back
// where nobody else writes.
func TestCommit_Spaced(t *testing.T) {
	dev := iotest.NewFault(newMem(), 1)
	s := openOn(t, dev, nil)
	n, c := s.NewSession(), &s.commit
	beside := 0
	undo := dev.Inject(iotest.Rule{Kind: ioring.Sync, Match: func(*ioring.Op, int) bool {
		for i := range beside {
			if err := n.Put(key64(i), make([]byte, 1000)); err != nil {
				t.Error(err)
			}
		}
		return false
	}})
	state := func(serving int) (beside uint64, early, late time.Duration) {
		c.stepping.Lock()
		defer c.stepping.Unlock()
		c.serving = make([]waiter, serving)
		defer func() { c.serving = nil }()
		return c.beside, c.space(c.cutAt + int64(spacing)/4), c.space(c.cutAt + int64(spacing))
	}
	require.NoError(t, n.Put(key64(0), []byte("v")))
	syncStore(t, s)
	bytes, early, _ := state(1)
	require.Less(t, bytes, uint64(spacingBytes))
	require.Zero(t, early)
	beside = 40
	require.NoError(t, n.Put(key64(0), []byte("w")))
	syncStore(t, s)
	bytes, early, late := state(1)
	require.Greater(t, bytes, uint64(beside*1000))
	require.Equal(t, spacing*3/4, early)
	require.Zero(t, late)
	_, early, _ = state(10) // as many as wait have written that much
	require.Zero(t, early)
	_, early, _ = state(0) // of itself: commit_interval
	require.Zero(t, early)

	undo()

	// Who asks is held back, and told when the time has come.
	c.stepping.Lock()
	c.cutAt = s.opt.Clock.Monotonic() + int64(time.Hour)
	done := make(chan struct{})
	require.True(t, c.join(false, func(r commitResult) {
		if r.err != nil {
			t.Error(r.err)
		}
		close(done)
	}))
	version := s.ledgers.version.Load()
	require.Greater(t, c.begin(), time.Hour/2)
	require.Equal(t, version, s.ledgers.version.Load())
	c.cutAt -= int64(2 * time.Hour)
	c.stepping.Unlock()
	c.task.Wake()
	waitFor(t, "a commit", done)
	n.Close()
	require.NoError(t, s.Close())
}
