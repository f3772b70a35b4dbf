package timers

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
	"rskv/ioring/iotest/seeds"
)

var newRand = seeds.Rand

const tick = 1 << TickShift

// TestWheel_Model: a timer is lost, comes twice, too early or too late, whatever
// the distances, the jumps of the clock, and what is forgotten.
func TestWheel_Model(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	for range 20 {
		now := int64(1_700_000_000_000) + rng.Int64N(1<<40)
		w := New(now, 1<<40)
		set := map[record.Addr]int64{} // when it was set to come
		next := record.Addr(1)
		// Those that the levels did not reach when they were set.
		far, era := map[record.Addr]bool{}, func(ms int64) int64 { return ms >> (TickShift + reachBits) }
		spans := []int64{1000, 100_000, 10_000_000, 4_000_000_000, 1 << 41}
		for range 300 {
			switch rng.IntN(10) {
			case 0:
				below := record.Addr(rng.Uint64N(uint64(next) + 1))
				for slot := range PurgeSlots {
					w.Purge(slot, below)
				}
				// Those that are due already may be forgotten or not.
				for a := range set {
					if a < below {
						delete(set, a)
					}
				}
			case 1, 2, 3:
				before := w.Next()
				for _, when := range set {
					require.LessOrEqual(t, before, when>>TickShift<<TickShift+tick, "it would be late")
				}
				now += rng.Int64N(spans[rng.IntN(len(spans))])
				into := make([]record.Addr, 1+rng.IntN(200))
				for {
					n, settled := w.Due(now, into)
					require.True(t, n == 0 || now >= before, "%d ms before Next", before-now)
					for _, a := range into[:n] {
						when, known := set[a]
						if !known {
							continue // forgotten
						}
						early := when>>TickShift<<TickShift + tick - now
						if !far[a] {
							require.LessOrEqual(t, early, int64(128*tick), "timer %d comes %d ms early", a, early)
						}
						if early > 0 {
							require.Zero(t, w.Insert([]Timer{{a, when}}))
							far[a] = era(when) != era(w.at<<TickShift)
							continue
						}
						delete(set, a)
					}
					if n == 0 {
						require.LessOrEqual(t, settled, now)
						require.Greater(t, settled, now-2*tick)
						for a, when := range set {
							require.Greater(t, when, settled, "timer %d is late", a)
						}
						break
					}
					require.Zero(t, settled)
				}
			default:
				var list []Timer
				for range rng.IntN(200) {
					when := now + rng.Int64N(spans[rng.IntN(len(spans))]) - 500
					list = append(list, Timer{next, when})
					set[next], far[next] = when, era(when) != era(w.at<<TickShift)
					next++
				}
				require.Zero(t, w.Insert(list))
			}
			require.NoError(t, w.Check())
			require.GreaterOrEqual(t, w.Len(), len(set))
		}
		w.Free()
		require.Zero(t, w.Bytes())
	}
}

// TestWheel_EveryTick: a timer that is set for a tick does not come in the one
// behind it, at any place of the wheel.
func TestWheel_EveryTick(t *testing.T) {
	t.Parallel()
	for _, start := range []int64{0, 255, 256, 65_534, 1<<32 + 100} {
		now := start << TickShift
		w := New(now, 1<<30)
		var timers []Timer
		for i := range int64(70_000) {
			timers = append(timers, Timer{record.Addr(i + 1), now + i*tick})
		}
		require.Zero(t, w.Insert(timers))
		into := make([]record.Addr, 10)
		for i := range int64(70_000) {
			n, _ := w.Due(now+i*tick+tick-1, into)
			require.Zero(t, n, "tick %d", i)
			n, _ = w.Due(now+(i+1)*tick, into)
			require.Equal(t, []record.Addr{record.Addr(i + 1)}, into[:n], "tick %d", i)
		}
		w.Free()
	}
}

// TestWheel_Limit: more memory is taken than may be, or the memory of what has
// come is not used again.
func TestWheel_Limit(t *testing.T) {
	t.Parallel()
	w := New(0, 2*BlockBytes+1)
	const many = 2 * blockChunks * chunkTimers
	var timers []Timer
	for i := range many + 100 {
		timers = append(timers, Timer{record.Addr(i + 1), 5 * tick})
	}
	require.Equal(t, 100, w.Insert(timers))
	require.EqualValues(t, 2*BlockBytes, w.Bytes())
	into := make([]record.Addr, 1000)
	var got []record.Addr
	for {
		n, _ := w.Due(6*tick, into)
		if n == 0 {
			break
		}
		got = append(got, into[:n]...)
		require.Zero(t, w.Insert(timers[:10]), "one that is taken makes room for one")
		if len(got) > 2*many {
			break
		}
		n, _ = w.Due(6*tick, into[:10])
		require.Equal(t, 10, n)
	}
	slices.Sort(got)
	require.Len(t, slices.Compact(got), many)
	require.Zero(t, w.Len())
	require.Zero(t, w.Bytes(), "an empty wheel keeps memory")

	// What is spread needs a chunk a slot, whatever the limit.
	w.SetLimit(BlockBytes)
	timers = timers[:0]
	for i := range blockChunks * chunkTimers {
		timers = append(timers, Timer{record.Addr(i + 1), (256 + int64(i)%256) * tick})
	}
	require.Zero(t, w.Insert(timers))
	seen := 0
	for now := int64(0); now < 600*tick; now += tick {
		n, _ := w.Due(now, into)
		for ; n > 0; n, _ = w.Due(now, into) {
			seen += n
		}
	}
	require.Equal(t, len(timers), seen)
}

func BenchmarkWheel_Insert(b *testing.B) {
	w := New(0, 1<<30)
	defer w.Free()
	var batch [16]Timer
	b.ReportAllocs()
	i := 0
	into := make([]record.Addr, 1024)
	for b.Loop() {
		for j := range batch {
			i++
			batch[j] = Timer{record.Addr(i), int64(i) & (1<<24 - 1)}
		}
		w.Insert(batch[:])
		if w.count > 1<<20 {
			b.StopTimer()
			for n := 1; n > 0; n, _ = w.Due(1<<30, into) {
			}
			w.at = 0
			b.StartTimer()
		}
	}
}
