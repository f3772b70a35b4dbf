package epoch

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring/iotest/seeds"
)

// fakeClock is a clock that stands still unless told otherwise.
type fakeClock struct{ ns atomic.Int64 }

func (c *fakeClock) now() int64 { return c.ns.Load() }

func wallClock() int64 { return time.Now().UnixNano() }

// A door with nobody inside could wait for a leaver that never comes.
func TestDoor_Close_NobodyInside(t *testing.T) {
	d := New()
	s := d.Register()
	var clock fakeClock
	runs := 0
	held, ok := d.Door().Close(func() {
		runs++
		clock.ns.Add(7)
		require.False(t, s.BeginWrite())
		require.False(t, s.Writing(), "a refused writer must not count as inside")
	}, 0, clock.now)
	require.True(t, ok)
	require.Equal(t, 1, runs)
	require.Equal(t, 7*time.Nanosecond, held)
	d.Door().Wait()
	require.True(t, s.BeginWrite())
	s.EndWrite()
}

// Readers must never notice the door.
func TestDoor_Close_ReadersPass(t *testing.T) {
	d := New()
	reader := d.Register()
	reader.Enter()
	ran := false
	_, ok := d.Door().Close(func() {
		ran = true
		reader.Refresh()
	}, 0, wallClock)
	require.True(t, ok && ran)
	reader.Exit()
}

// The last writer to leave must complete the closing without the committer's help.
func TestDoor_EndWrite_LastLeaverCompletes(t *testing.T) {
	d := New()
	a, b := d.Register(), d.Register()
	require.True(t, a.BeginWrite())
	require.True(t, b.BeginWrite())
	var ran atomic.Bool
	closed := make(chan bool)
	go func() {
		_, ok := d.Door().Close(func() { ran.Store(true) }, 0, wallClock)
		closed <- ok
	}()
	untilShut(d)
	// Give the committer time to park: from then on only the writers can do it.
	time.Sleep(10 * time.Millisecond)
	a.EndWrite()
	require.False(t, ran.Load())
	b.EndWrite()
	require.True(t, ran.Load(), "not run by the last leaver")
	require.True(t, <-closed)
}

// A writer that came too late must not be what the closing waits for.
func TestDoor_BeginWrite_RefusedDoesNotCount(t *testing.T) {
	d := New()
	inside, late := d.Register(), d.Register()
	require.True(t, inside.BeginWrite())
	var ran atomic.Bool
	closed := make(chan bool)
	go func() {
		_, ok := d.Door().Close(func() { ran.Store(true) }, 0, wallClock)
		closed <- ok
	}()
	untilShut(d)
	require.False(t, late.BeginWrite())
	require.False(t, ran.Load())
	inside.EndWrite()
	require.True(t, <-closed)
	d.Door().Wait()
	require.True(t, late.BeginWrite())
	late.EndWrite()
}

// A stuck writer could hold everybody up for ever: after the limit the door
// reopens, nothing having run, and the next attempt can succeed.
func TestDoor_Close_ReopensAfterLimit(t *testing.T) {
	d := New()
	stuck, other := d.Register(), d.Register()
	require.True(t, stuck.BeginWrite())
	var clock fakeClock
	runs := 0
	type result struct {
		held time.Duration
		ok   bool
	}
	closed := make(chan result)
	go func() {
		held, ok := d.Door().Close(func() { runs++ }, 200*time.Microsecond, clock.now)
		closed <- result{held, ok}
	}()
	untilShut(d)
	require.False(t, other.BeginWrite())
	select {
	case <-closed:
		t.Fatal("reopened before the limit")
	case <-time.After(5 * time.Millisecond):
	}
	clock.ns.Store(int64(200 * time.Microsecond))
	require.Equal(t, result{200 * time.Microsecond, false}, <-closed)
	require.Zero(t, runs)
	require.True(t, other.BeginWrite(), "still shut")
	other.EndWrite()
	stuck.EndWrite()
	require.Zero(t, runs, "an abandoned action has run")
	_, ok := d.Door().Close(func() { runs++ }, time.Millisecond, clock.now)
	require.True(t, ok)
	require.Equal(t, 1, runs)
}

// If only the committer looked at the limit, a committer without a processor
// would hold all writers up: a waiting writer must reopen the door too.
func TestDoor_Wait_WriterReopensAfterLimit(t *testing.T) {
	d := New()
	stuck, other := d.Register(), d.Register()
	require.True(t, stuck.BeginWrite())
	var clock fakeClock
	a := &attempt{
		action: func() { t.Error("ran with a writer inside") }, now: clock.now,
		deadline: 10, reopened: make(chan struct{}),
	}
	d.door.shut.Store(1) // a committer that has lost its processor here
	d.door.attempt.Store(a)
	require.False(t, other.BeginWrite())
	clock.ns.Store(10)
	d.Door().Wait()
	require.Equal(t, abandoned, phase(a.phase.Load()))
	require.True(t, other.BeginWrite())
	other.EndWrite()
	stuck.EndWrite()
}

// A waiting writer that parked could miss the reopening.
func TestDoor_Wait_ParkedIsWoken(t *testing.T) {
	d := New()
	inside := d.Register()
	require.True(t, inside.BeginWrite())
	closed := make(chan bool)
	go func() {
		_, ok := d.Door().Close(func() {}, 0, wallClock)
		closed <- ok
	}()
	untilShut(d)
	const waiters = 50
	var wg sync.WaitGroup
	for range waiters {
		wg.Add(1)
		go func() {
			defer wg.Done()
			s := d.Register()
			defer s.Release()
			for !s.BeginWrite() {
				d.Door().Wait()
			}
			s.EndWrite()
		}()
	}
	time.Sleep(10 * time.Millisecond)
	inside.EndWrite()
	require.True(t, <-closed)
	wg.Wait()
}

// The action could run beside a writer, twice, or not at all; a writer or the
// committer could sleep for ever. Two hundred writers come and go, some
// dawdle inside, and the committer goes through all its limits again and again.
func TestDoor_Stress(t *testing.T) {
	seed := seeds.New(t)
	const writers = 200
	commits := 400
	if testing.Short() {
		commits = 100
	}
	d := New()
	var (
		stop   atomic.Bool
		inside atomic.Int64
		writes atomic.Int64
		wg     sync.WaitGroup
		// version is plain: written by the action, read by writers inside. The
		// race detector objects if the two can meet.
		version int
	)
	for w := range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewPCG(seed, uint64(w)))
			s := d.Register()
			defer s.Release()
			for !stop.Load() {
				inSection := rnd.IntN(2) == 0
				if inSection {
					s.Enter()
				}
				if !s.BeginWrite() {
					if inSection {
						s.Exit()
					}
					d.Door().Wait()
					continue
				}
				inside.Add(1)
				before := version
				for range rnd.IntN(3) {
					runtime.Gosched()
				}
				if rnd.IntN(2000) == 0 {
					time.Sleep(300 * time.Microsecond)
				}
				if version != before {
					t.Error("the version changed under a writer")
				}
				inside.Add(-1)
				writes.Add(1)
				s.EndWrite()
				if inSection {
					s.Exit()
				}
			}
		}()
	}
	abandonedCount, longest := 0, time.Duration(0)
	for n := range commits {
		done := false
		for attempt := range CloseAttempts + 1 {
			held, ok := d.Door().Close(func() {
				if inside.Load() != 0 {
					t.Error("the action runs beside a writer")
				}
				version++
			}, CloseLimit(attempt), wallClock)
			longest = max(longest, held)
			if ok {
				done = true
				break
			}
			abandonedCount++
		}
		require.True(t, done)
		require.Equal(t, n+1, version)
		runtime.Gosched()
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d commits, %d attempts abandoned, longest hold %v, %d writes", commits, abandonedCount, longest, writes.Load())
	require.NotZero(t, writes.Load())
}

// untilShut returns when a Close has shut the door.
func untilShut(d *Domain) {
	for d.door.attempt.Load() == nil {
		runtime.Gosched()
	}
}
