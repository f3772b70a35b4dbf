package epoch

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"rskv/ioring/iotest/seeds"
)

// A bump with nobody inside would wait for an exit that never comes.
func TestDomain_Bump_NobodyActive(t *testing.T) {
	d := New()
	s := d.Register()
	runs := 0
	d.Bump(func() { runs++ })
	require.Equal(t, 1, runs)
	s.Enter()
	s.Exit()
	require.Equal(t, 1, runs, "run again")
	require.Zero(t, d.Pending())
}

// The action could run under the feet of an old section, or be held up by a new one.
func TestDomain_Bump_WaitsForOldSectionsOnly(t *testing.T) {
	for _, leave := range []struct {
		name string
		how  func(*Slot)
	}{{"exit", (*Slot).Exit}, {"refresh", (*Slot).Refresh}} {
		t.Run(leave.name, func(t *testing.T) {
			d := New()
			a, b, late := d.Register(), d.Register(), d.Register()
			a.Enter()
			b.Enter()
			runs := 0
			d.Bump(func() { runs++ })
			late.Enter()
			d.Drain()
			require.Zero(t, runs)
			leave.how(a)
			require.Zero(t, runs)
			require.Equal(t, 1, d.Pending())
			leave.how(b)
			require.Equal(t, 1, runs)
			require.Zero(t, d.Pending())
			require.True(t, late.Active())
		})
	}
}

// A bump inside a section could run its action before that section is over.
func TestDomain_Bump_InsideSection(t *testing.T) {
	d := New()
	s := d.Register()
	s.Enter()
	runs := 0
	d.Bump(func() { runs++ })
	d.Drain()
	require.Zero(t, runs)
	s.Refresh()
	require.Equal(t, 1, runs)
	s.Exit()
	require.Equal(t, 1, runs)
}

// A chain of actions that bump could recurse once per link and overflow the stack.
func TestDomain_Bump_InsideAction(t *testing.T) {
	d := New()
	s := d.Register()
	const links = 10_000
	runs, depth, deepest := 0, 0, 0
	var link func()
	link = func() {
		depth++
		deepest = max(deepest, depth)
		if runs++; runs < links {
			d.Bump(link)
		}
		depth--
	}
	s.Enter()
	d.Bump(link)
	require.Zero(t, runs)
	s.Exit()
	require.Equal(t, links, runs)
	require.Equal(t, 1, deepest)
	require.Zero(t, d.Pending())
}

// A full list of waiting actions could lose or reorder some of them.
func TestDomain_Bump_ManyWaiting(t *testing.T) {
	d := New()
	s := d.Register()
	s.Enter()
	var got, want []int
	for i := range 5_000 {
		want = append(want, i)
		d.Bump(func() { got = append(got, i) })
	}
	require.Empty(t, got)
	require.Equal(t, len(want), d.Pending())
	s.Exit()
	require.Equal(t, want, got)
	require.Zero(t, d.Pending())
}

// Actions could be run past the one that is still held up, or kept back behind it for ever.
func TestDomain_Drain_StopsAtTheFirstHeldUp(t *testing.T) {
	d := New()
	a, b := d.Register(), d.Register()
	var got []string
	a.Enter()
	d.Bump(func() { got = append(got, "a") })
	b.Enter()
	d.Bump(func() { got = append(got, "b") })
	b.Exit()
	require.Empty(t, got)
	b.Enter()
	a.Exit()
	require.Equal(t, []string{"a", "b"}, got)
	b.Exit()
}

// The last slot could leave just when another goroutine has looked and found it
// in the way: the action would wait although everybody has gone.
func TestDomain_Exit_MeetsDrainer(t *testing.T) {
	rounds := 60_000
	if testing.Short() {
		rounds = 20_000
	}
	d := New()
	a, b := d.Register(), d.Register()
	var turn, done atomic.Int64 // the round b may leave in; the round it has left in
	go func() {
		for r := int64(1); r <= int64(rounds); r++ {
			for turn.Load() < r {
				runtime.Gosched()
			}
			for range r % 16 { // shift the moment a little
				turn.Load()
			}
			b.Exit()
			done.Store(r)
		}
	}()
	runs := 0
	for r := int64(1); r <= int64(rounds); r++ {
		a.Enter()
		d.Bump(func() { runs++ })
		b.Enter()
		d.Bump(func() { runs++ })
		turn.Store(r)
		a.Exit()
		for done.Load() < r {
			runtime.Gosched()
		}
		require.Zero(t, d.Pending(), "round %d", r)
	}
	require.Equal(t, 2*rounds, runs)
}

// A released slot could be handed to two owners, or be released while in use.
func TestSlot_Release(t *testing.T) {
	d := New()
	a := d.Register()
	a.Enter()
	require.Panics(t, a.Release)
	a.Exit()
	require.True(t, a.BeginWrite())
	require.Panics(t, a.Release)
	a.EndWrite()
	a.Release()
	require.Panics(t, a.Release)
	b, c := d.Register(), d.Register()
	require.Same(t, a, b)
	require.NotSame(t, b, c)
}

// Neighbouring slots on one cache line cost ten times as much.
func TestSlot_Aligned(t *testing.T) {
	d := New()
	for range 100 {
		require.Zero(t, uintptr(unsafe.Pointer(d.Register()))%slotSize)
	}
}

// page is what a section reads and an action frees. The fields are plain, so
// that the race detector checks the order of the two besides.
type page struct {
	value int
	freed bool
	runs  atomic.Int32
}

// An action could run twice, never, or while a section still holds what it
// frees. Sections come and go, refresh, register and release at random; pages
// are replaced and freed all the time, from inside and outside of sections.
func TestDomain_Stress(t *testing.T) {
	seed := seeds.New(t)
	workers, rounds := 16, 6_000
	if testing.Short() {
		rounds = 1_500
	}
	d := New()
	var current atomic.Pointer[page]
	current.Store(&page{value: 1})
	var replaced atomic.Int64
	var mu sync.Mutex
	var all []*page
	replace := func() {
		old := current.Swap(&page{value: 1})
		replaced.Add(1)
		mu.Lock()
		all = append(all, old)
		mu.Unlock()
		d.Bump(func() {
			old.runs.Add(1)
			old.freed, old.value = true, 0
		})
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewPCG(seed, uint64(w)))
			s := d.Register()
			for range rounds {
				s.Enter()
				p := current.Load()
				for range rnd.IntN(4) {
					switch rnd.IntN(8) {
					case 0:
						runtime.Gosched()
					case 1:
						replace()
					case 2:
						s.Refresh()
						p = current.Load()
					}
					if p.freed || p.value != 1 {
						t.Errorf("a page was freed inside a section")
					}
				}
				s.Exit()
				switch rnd.IntN(64) {
				case 0:
					replace()
				case 1:
					s.Release()
					s = d.Register()
				}
			}
			s.Release()
		}()
	}
	wg.Wait()
	require.Zero(t, d.Pending(), "actions left over although everybody has gone")
	require.Equal(t, int(replaced.Load()), len(all))
	require.Greater(t, len(all), rounds/4)
	for _, p := range all {
		require.EqualValues(t, 1, p.runs.Load())
	}
}

func BenchmarkSlot_EnterExit(b *testing.B) {
	d := New()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		s := d.Register()
		for pb.Next() {
			s.Enter()
			s.Exit()
		}
	})
}

func BenchmarkSlot_EnterWriteExit(b *testing.B) {
	d := New()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		s := d.Register()
		for pb.Next() {
			if !s.BeginWrite() {
				b.Error("refused by an open door")
				return
			}
			s.Enter()
			s.Exit()
			s.EndWrite()
		}
	})
}

// What an exit costs while an action waits for somebody else, with many slots.
func BenchmarkSlot_EnterExitHeldUp(b *testing.B) {
	d := New()
	for range 500 {
		d.Register()
	}
	holder := d.Register()
	holder.Enter()
	d.Bump(func() {})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		s := d.Register()
		for pb.Next() {
			s.Enter()
			s.Exit()
		}
	})
	holder.Exit()
}
