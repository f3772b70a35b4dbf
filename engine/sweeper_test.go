package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
	"rskv/engine/internal/timers"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

// tickMS is how long after their time keys are counted out at the latest.
const tickMS = 1 << timers.TickShift

// sweepNow counts out what has expired and is in memory.
func sweepNow(t testing.TB, s *Store) {
	t.Helper()
	require.NoError(t, s.RunTask(context.Background(), TaskExpire))
}

// TestSweep_Len: a key that has expired is counted, or one that has not is not; it
// is counted out twice; or a key that takes its place is not counted; in memory,
// where Len is exact.
func TestSweep_Len(t *testing.T) {
	for _, region := range regions[:2] {
		for _, when := range []string{"before", "between", "after"} {
			t.Run(region.name+"/"+when, func(t *testing.T) {
				s, n, clock, _ := openTimed(t)
				const each = 100
				put := func(kind string, ttl int64) {
					for i := range each {
						require.NoError(t, n.one(&Op{Kind: OpPut, Key: fmt.Appendf(nil, "%s %d", kind, i), Value: []byte("value"), TTL: ttl}))
					}
				}
				kinds := []string{"gone", "put again", "put if absent", "added", "appended", "deleted", "kept", "cas"}
				for _, kind := range kinds {
					put(kind, 1000)
				}
				put("stays", 0)
				put("later", 50_000)
				checkLen(t, s, (len(kinds)+2)*each)
				region.move(t, s, n)
				if when == "before" { // the kept ones are given longer to live in time
					clock.move(500)
				}
				for i := range each {
					_, err := n.Expire(fmt.Appendf(nil, "kept %d", i), 50_000)
					require.NoError(t, err)
				}
				clock.move(1000 + tickMS)
				if when != "after" {
					sweepNow(t, s)
					require.EqualValues(t, 3*each, s.Len(), "kept, stays, later")
				}
				if when == "between" {
					syncStore(t, s)
				}
				for i := range each {
					ops := []Op{
						{Kind: OpPut, Key: fmt.Appendf(nil, "put again %d", i), Value: []byte("new")},
						{Kind: OpPut, Key: fmt.Appendf(nil, "put if absent %d", i), Value: []byte("a longer value than before"), If: IfAbsent},
						{Kind: OpAdd, Key: fmt.Appendf(nil, "added %d", i), Delta: 1},
						{Kind: OpAppend, Key: fmt.Appendf(nil, "appended %d", i), Value: []byte("new"), TTL: 70_000},
						{Kind: OpDelete, Key: fmt.Appendf(nil, "deleted %d", i)},
						{Kind: OpCompareAndSwap, Key: fmt.Appendf(nil, "cas %d", i), OldAbsent: true, Value: []byte("new")},
					}
					n.Do(ops)
					for j := range ops {
						require.NoError(t, ops[j].Err)
						require.Equal(t, ops[j].Kind != OpDelete, ops[j].Found)
					}
				}
				sweepNow(t, s)
				checkLen(t, s, 8*each)
				count, err := s.LenExact(context.Background())
				require.NoError(t, err)
				require.EqualValues(t, 8*each, count.Keys)
				require.EqualValues(t, 8*each, s.Len(), "the count was corrected, and was right")
				clock.move(100_000)
				sweepNow(t, s)
				checkLen(t, s, 5*each)
				require.EqualValues(t, 0, s.Stats().ExpiryTimers)
				n.Close()
				require.NoError(t, s.Close())
			})
		}
	}
}

// TestSweep_ByItself: nobody sweeps unless asked.
func TestSweep_ByItself(t *testing.T) {
	t.Parallel()
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	for i := range 1000 {
		require.NoError(t, n.one(&Op{Kind: OpPut, Key: key64(i), Value: []byte("value"), TTL: 1 + int64(i%50)}))
	}
	syncStore(t, s)
	began := time.Now()
	// The round is counted at its end.
	require.Eventually(t, func() bool { return s.Len() == 0 && s.Stats().ExpirySwept >= 1000 }, 20*time.Second, time.Millisecond)
	t.Logf("after %v", time.Since(began))
	require.EqualValues(t, 1000, s.Stats().ExpirySwept)
	n.Close()
	require.NoError(t, s.Close())
}

// TestSweep_Restart: after a restart, clean or by a crash at any moment, keys that
// were counted out are counted out again, or those that were not never.
func TestSweep_Restart(t *testing.T) {
	for _, crash := range []bool{false, true} {
		for _, warm := range []bool{false, true} {
			for _, pause := range []int64{0, 10_000} { // while nobody has it open
				s, n, clock, mem := openTimed(t)
				change := func(o *Options) { o.Clock, o.ColdStart = clock, !warm }
				live := 0
				for i := range 900 {
					ttl := []int64{0, 1000, 5000}[i%3]
					require.NoError(t, n.one(&Op{Kind: OpPut, Key: key64(i), Value: []byte("value"), TTL: ttl}))
				}
				syncStore(t, s)
				clock.move(1000 + tickMS)
				sweepNow(t, s)
				live = 600
				require.EqualValues(t, live, s.Len())
				require.NoError(t, n.Put([]byte("the commit"), []byte("says so")))
				syncStore(t, s)
				n.Close()
				var dev ioring.Device = mem.CrashImage(iotest.CrashOptions{})
				if !crash {
					require.NoError(t, s.Close())
					dev = mem.CrashImage(iotest.CrashOptions{})
				}
				clock.move(pause)
				again := openOn(t, dev, change)
				if warm {
					require.Eventually(t, func() bool { return again.warm.finished.Load() }, waitLong, time.Millisecond)
				}
				sweepNow(t, again)
				want := live + 1
				if warm && pause > 0 {
					want = 301 // those of 5 s have gone meanwhile
				}
				require.EqualValues(t, want, again.Len(), "crash %t, warm %t, pause %d", crash, warm, pause)
				n = again.NewSession()
				require.NoError(t, n.Put(key64(1), []byte("new")), "one that was counted out")
				if warm {
					want++ // on disk it would be taken for an overwrite
				}
				require.EqualValues(t, want, again.Len(), "crash %t, warm %t, pause %d", crash, warm, pause)
				count, err := again.LenExact(context.Background())
				require.NoError(t, err)
				exact := 602
				if pause > 0 {
					exact = 302
				}
				require.EqualValues(t, exact, count.Keys)
				require.EqualValues(t, exact, again.Len())
				n.Close()
				require.NoError(t, again.Close())
				if crash {
					require.NoError(t, s.Close())
				}
			}
		}
	}
}

// TestSweep_Compaction: keys that have expired on disk are counted for ever, or
// those that were counted out in memory once more when compaction drops them, also
// over a restart.
func TestSweep_Compaction(t *testing.T) {
	for _, restart := range []string{"no", "checkpoint", "replay"} {
		s, n, clock, mem := openTimed(t)
		change := func(o *Options) { o.Clock = clock }
		put := func(from int, ttl int64) {
			for i := from; i < from+500; i++ {
				require.NoError(t, n.one(&Op{Kind: OpPut, Key: key64(i), Value: valueOf(uint64(i), 1, 200), TTL: ttl}))
			}
		}
		put(0, 1000)      // expire in memory
		put(1000, 50_000) // on disk
		put(2000, 0)
		put(3000, 900_000)
		syncStore(t, s)
		clock.move(1000 + tickMS)
		sweepNow(t, s)
		evict(t, s, n)
		clock.move(tickMS)
		sweepNow(t, s) // notes what has left memory
		filler := s.Len() - 1500
		clock.move(120_000)
		sweepNow(t, s)
		require.EqualValues(t, 1500, s.Len()-filler, "those on disk are still counted")
		syncStore(t, s)
		if restart == "checkpoint" {
			_, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: FullCheckpoint})
			require.NoError(t, err)
		}
		if restart != "no" {
			n.Close()
			require.NoError(t, s.Close())
			s = openOn(t, mem.CrashImage(iotest.CrashOptions{}), change)
			n = s.NewSession()
		}
		expired := s.Stats().ExpiredBytes
		require.Greater(t, expired, int64(1000*200), "expired log, restart: %s", restart)
		require.Greater(t, s.Stats().ExpiringBytes, int64(500*200))
		e := s.EstimateGC()
		require.LessOrEqual(t, e.Live, e.Total-expired)
		_, err := s.Compact(context.Background(), CompactOptions{})
		require.NoError(t, err)
		want := filler + 1000
		if restart == "replay" {
			want -= 500 // nobody knows any more what was in memory when
		}
		require.EqualValues(t, want, s.Len(), "restart: %s", restart)
		require.Less(t, s.Stats().ExpiredBytes, expired/4)
		count, err := s.LenExact(context.Background())
		require.NoError(t, err)
		require.EqualValues(t, filler+1000, count.Keys)
		n.Close()
		require.NoError(t, s.Close())
	}
}

// TestSweep_Space: log whose keys have expired on disk is never given back, since
// nothing has been overwritten or deleted.
func TestSweep_Space(t *testing.T) {
	clock := newTestClock()
	s := openOn(t, newMem(), func(o *Options) { o.Clock = clock; o.LiveRatio = 0.5 })
	n := s.NewSession()
	for i := range 60_000 {
		require.NoError(t, n.one(&Op{Kind: OpPut, Key: key64(i), Value: make([]byte, 1000), TTL: 10_000}))
	}
	syncStore(t, s)
	require.Zero(t, s.Stats().Compactions)
	freed := s.Stats().LogFreed
	clock.move(20_000)
	require.Eventually(t, func() bool {
		clock.move(300) // compaction has its pace
		return s.Stats().LogFreed > freed+40<<20
	}, waitLong, 10*time.Millisecond, "%+v", s.EstimateGC())
	require.Less(t, s.Len(), int64(40_000))
	n.Close()
	require.NoError(t, s.Close())
}

// TestSweep_Budget: timers take memory that nobody counts, or without bounds; or
// those of records that have left memory are kept.
func TestSweep_Budget(t *testing.T) {
	s, n, clock, _ := openTimed(t)
	logBefore := s.Stats().MemoryLog
	for i := range 400_000 {
		require.NoError(t, n.one(&Op{Kind: OpPut, Key: key64(i), TTL: 3_600_000 + int64(i)}))
		if i%100_000 == 0 {
			sweepNow(t, s)
		}
	}
	st := s.Stats()
	require.Greater(t, st.MemoryTimers, int64(2<<20))
	require.LessOrEqual(t, st.MemoryTimers, st.Memory/timersShare)
	require.Eventually(t, func() bool { return s.Stats().MemoryLog < logBefore }, waitLong, time.Millisecond)
	require.Zero(t, st.ExpiryDropped)
	// What is written now pushes them out of memory, and their timers are forgotten.
	for i := range 3 {
		evict(t, s, n)
		clock.move(tickMS)
		sweepNow(t, s)
		if i == 0 {
			for i := range 400_000 {
				require.NoError(t, n.one(&Op{Kind: OpPut, Key: key64(1<<20 + i), TTL: 7_200_000}))
			}
		}
	}
	for range 16 {
		clock.move(tickMS)
		sweepNow(t, s)
	}
	require.Less(t, s.Stats().ExpiryTimers, 400_000)
	n.Close()
	require.NoError(t, s.Close())
}

// TestSweep_Stop: a sweep that was stopped goes on, or one that is asked for is not
// made.
func TestSweep_Stop(t *testing.T) {
	s, n, clock, _ := openTimed(t)
	require.NoError(t, s.StopTask(TaskExpire))
	require.NoError(t, n.one(&Op{Kind: OpPut, Key: []byte("key"), Value: []byte("value"), TTL: 10}))
	clock.move(10 + tickMS)
	s.sweep.task.Wake()
	time.Sleep(20 * time.Millisecond)
	require.EqualValues(t, 1, s.Len())
	_, err := n.Get([]byte("key"), nil)
	require.ErrorIs(t, err, ErrNotFound, "it is gone all the same")
	sweepNow(t, s)
	require.Zero(t, s.Len())
	require.NoError(t, n.one(&Op{Kind: OpPut, Key: []byte("key"), Value: []byte("value"), TTL: 10}))
	clock.move(10 + tickMS)
	require.NoError(t, s.StartTask(TaskExpire))
	require.Eventually(t, func() bool { return s.Len() == 0 }, 20*time.Second, time.Millisecond)
	n.Close()
	require.NoError(t, s.Close())
}

// TestSweep_Contention: keys are counted out, put again, deleted and given longer to
// live by many at a time, and Len is off in the end; in place, frozen, and on the
// way from one to the other.
func TestSweep_Contention(t *testing.T) {
	seed := newSeed(t)
	rounds := 30
	if testing.Short() || raceEnabled {
		rounds = 6
	}
	s := openOn(t, newMem(), func(o *Options) { o.IndexBits = indexBitsMin; o.Memory = 64 << 20 })
	const keys, workers = 400, 4
	for round := range rounds {
		var wg sync.WaitGroup
		for id := range workers {
			wg.Go(func() {
				n := s.NewSession()
				defer n.Close()
				rng := rand.New(rand.NewPCG(seed, uint64(round*workers+id)))
				for range 3000 {
					op := Op{Key: key64(rng.IntN(keys)), Value: make([]byte, 8*rng.IntN(3))}
					switch rng.IntN(8) {
					case 0:
						op.Kind, op.Value = OpDelete, nil
					case 1:
						op.Kind, op.Value, op.TTL = OpExpire, nil, int64(rng.IntN(40))
					case 2:
						op.Kind, op.If = OpPut, Cond(rng.IntN(3))
					case 3:
						op.Kind, op.TTL = OpAppend, int64(rng.IntN(20))
						op.Value = op.Value[:min(len(op.Value), 1)]
					default:
						op.Kind, op.TTL = OpPut, int64(rng.IntN(30))
					}
					if err := n.one(&op); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		stop := make(chan struct{})
		commits := background(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
				}
				syncStore(t, s)
				s.sweep.task.Wake()
			}
		})
		wg.Wait()
		close(stop)
		<-commits
		time.Sleep(300 * time.Millisecond) // all of them expire
		syncStore(t, s)
		require.Eventually(t, func() bool {
			s.sweep.task.Wake()
			live, exact := liveIn(t, s)
			require.True(t, exact)
			return live == s.Len()
		}, waitLong, 20*time.Millisecond, "round %d: Len is %d, there are %d", round, s.Len(), func() int64 { n, _ := liveIn(t, s); return n }())
	}
	require.NoError(t, s.Close())
}

// TestSweep_WhoCounts: a key that is put again while it is counted out is counted
// twice or not at all.
func TestSweep_WhoCounts(t *testing.T) {
	rounds := 40
	if testing.Short() || raceEnabled {
		rounds = 8
	}
	clock := newTestClock()
	s := openOn(t, newMem(), func(o *Options) { o.Clock, o.Memory = clock, 64<<20 })
	n := s.NewSession()
	const keys = 20_000
	for round := range rounds {
		for i := range keys {
			require.NoError(t, n.one(&Op{Kind: OpPut, Key: key64(i), TTL: 1}))
		}
		syncStore(t, s)
		require.NoError(t, s.StopTask(TaskExpire))
		clock.move(1 + tickMS)
		swept := background(func() { sweepNow(t, s) })
		ops := make([]Op, 0, 32)
		for i := 0; i < keys; {
			for ops = ops[:0]; len(ops) < cap(ops) && i < keys; i++ {
				ops = append(ops, Op{Kind: OpPut, Key: key64(i)})
			}
			n.Do(ops)
		}
		waitFor(t, "the sweep", swept)
		require.EqualValues(t, keys, s.Len(), "round %d", round)
		require.NoError(t, s.StartTask(TaskExpire))
	}
	n.Close()
	require.NoError(t, s.Close())
}

// TestSweep_InFlight: a record is marked while its bytes are on their way to the
// device, which then has a mark that its checksum does not know.
func TestSweep_InFlight(t *testing.T) {
	mem, clock := newMem(), newTestClock()
	dev := iotest.NewFault(mem, 1)
	s := openOn(t, dev, func(o *Options) { o.Clock = clock })
	n := s.NewSession()
	for i := range 100 {
		require.NoError(t, n.one(&Op{Kind: OpPut, Key: key64(i), Value: []byte("value"), TTL: 10}))
	}
	remove := dev.Inject(iotest.Rule{Kind: ioring.Write, Delay: 50 * time.Millisecond})
	synced := background(func() { syncStore(t, s) })
	require.Eventually(t, func() bool { return s.log.ReadOnly() == s.log.Tail() }, waitLong, time.Millisecond)
	clock.move(10 + tickMS)
	for range 5 {
		sweepNow(t, s)
	}
	for i := range 50 {
		require.NoError(t, n.Put(key64(i), []byte("new")))
	}
	waitFor(t, "the commit", synced)
	remove()
	sweepNow(t, s)
	require.EqualValues(t, 50, s.Len())
	syncStore(t, s)
	n.Close()
	require.NoError(t, s.Close())
	res, err := Verify(VerifyOptions{Device: mem.CrashImage(iotest.CrashOptions{})}, nil)
	require.NoError(t, err)
	require.Zero(t, res.Damages)
}

// liveIn counts the live keys by the chains.
func liveIn(t testing.TB, s *Store) (int64, bool) {
	t.Helper()
	return checkStore(t, s)
}

// TestSweep_Cuts: the power goes while keys expire and are counted out, and Len is
// off by more than the keys of one tick, what had expired is there again, or what
// had not is gone.
func TestSweep_Cuts(t *testing.T) {
	rng := rand.New(rand.NewPCG(newSeed(t), 1))
	cuts := 60
	if testing.Short() {
		cuts = 10
	}
	for range cuts {
		clock, mem := newTestClock(), newMem()
		s := openOn(t, mem, func(o *Options) { o.Clock = clock })
		n := s.NewSession()
		expiry := map[int]int64{} // by key; 0: none
		cut := mem.CrashImage
		var image *iotest.Mem
		var at int64
		atTick := 0
		steps := 20 + rng.IntN(60)
		for step := range steps {
			for range rng.IntN(60) {
				key, ttl := rng.IntN(500), rng.Int64N(3)*rng.Int64N(2000)
				require.NoError(t, n.one(&Op{Kind: OpPut, Key: key64(key), Value: valueOf(uint64(key), 1, rng.IntN(300)), TTL: ttl}))
				if expiry[key] = 0; ttl > 0 {
					expiry[key] = clock.Wall() + ttl
				}
			}
			clock.move(rng.Int64N(300))
			switch rng.IntN(4) {
			case 0:
				sweepNow(t, s)
			case 1:
				_, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: FullCheckpoint})
				require.NoError(t, err)
			case 2:
				syncStore(t, s)
				_, err := s.Compact(context.Background(), CompactOptions{})
				require.NoError(t, err)
			}
			if step == steps-1 {
				sweepNow(t, s)
				syncStore(t, s)
				image, at = cut(iotest.CrashOptions{}), clock.Wall()
				for _, e := range expiry {
					if e != 0 && e <= at && e > at-2*tickMS {
						atTick++
					}
				}
			}
		}
		clock.wall.Add(-rng.Int64N(2) * 1_000_000)
		again := openOn(t, image, func(o *Options) { o.Clock, o.ColdStart = clock, false })
		require.Eventually(t, func() bool { return again.warm.finished.Load() }, waitLong, time.Millisecond)
		now := again.clock.now()
		n2 := again.NewSession()
		live := int64(0)
		for key, e := range expiry {
			found, err := n2.Exists(key64(key))
			require.NoError(t, err)
			require.Equal(t, e == 0 || e > now, found, "key %d, expiry %d, now %d", key, e, now)
			if found {
				live++
			}
		}
		clock.move(tickMS)
		sweepNow(t, again)
		for _, e := range expiry {
			if e > now && e <= again.clock.now() {
				live--
			}
		}
		require.InDelta(t, live, again.Len(), float64(atTick+1))
		n2.Close()
		require.NoError(t, again.Close())
		n.Close()
		require.NoError(t, s.Close())
	}
}

// TestExpiring_Model: the estimate of what has expired is far from what has.
func TestExpiring_Model(t *testing.T) {
	rng := rand.New(rand.NewPCG(newSeed(t), 2))
	now := int64(1_700_000_000_000)
	var x expiring
	all := map[int]expiryNote{}
	for i := range 20_000 {
		far := []int64{60_000, 3_600_000, 86_400_000, 100 * 86_400_000, MaxTTL}[rng.IntN(5)]
		note := expiryNote{expiry: now + rng.Int64N(far), bytes: 1 + rng.Int64N(1000)}
		x.add([]expiryNote{note}, now)
		all[i] = note
		for key, note := range all { // some go again
			if rng.IntN(3) == 0 {
				note.bytes = -note.bytes
				x.add([]expiryNote{note}, now)
				delete(all, key)
			}
			break
		}
		if i%100 == 0 {
			now += rng.Int64N(200_000)
		}
	}
	check := func(x *expiring) {
		var soon, late, total int64
		for _, n := range all {
			total += n.bytes
			if n.expiry <= now-60_000 {
				soon += n.bytes
			}
			if n.expiry <= now+60_000 {
				late += n.bytes
			}
		}
		expired, ahead := x.sum(now)
		require.InDelta(t, total, expired+ahead, float64(total)/1000)
		require.GreaterOrEqual(t, expired, soon-total/50)
		require.LessOrEqual(t, expired, late+total/50)
	}
	check(&x)
	require.LessOrEqual(t, len(x.spans), expiringMax)
	b := x.append(nil)
	var y expiring
	rest, err := y.restore(append(b, 7))
	require.NoError(t, err)
	require.Equal(t, []byte{7}, rest)
	require.Equal(t, x.spans, y.spans)
	for n := range len(b) {
		if _, err := y.restore(b[:n]); err == nil {
			t.Fatalf("cut to %d bytes", n)
		}
	}
	binary.LittleEndian.PutUint64(b[4:], 1<<60)
	_, err = y.restore(b)
	require.Error(t, err)
	x.forget(now)
	expired, _ := x.sum(now)
	require.Less(t, expired, int64(1_000_000))
}

// TestSweptPast_Model: up to when a record was swept before it left memory is
// forgotten, or taken for later than it was.
func TestSweptPast_Model(t *testing.T) {
	rng := rand.New(rand.NewPCG(newSeed(t), 3))
	for range 50 {
		var p sweptPast
		const size = 5000
		var want [size]int64
		for i := range int64(400) {
			from := record.Addr(rng.IntN(size))
			until := min(from+record.Addr(rng.IntN(size/10)), size)
			p.set(from, until, i)
			for a := from; a < until; a++ {
				want[a] = i
			}
			exact := len(p.ranges) < sweptRangesMax
			require.LessOrEqual(t, len(p.ranges), sweptRangesMax)
			require.True(t, slices.IsSortedFunc(p.ranges, func(a, b sweptRange) int { return int(a.from) - int(b.from) }))
			for range 20 {
				a := rng.IntN(size)
				if got := p.at(record.Addr(a)); exact {
					require.Equal(t, want[a], got, "address %d", a)
				}
			}
		}
		b := p.append(nil, 0)
		var q sweptPast
		require.NoError(t, q.restore(b))
		require.Equal(t, p.ranges, q.ranges)
		require.Error(t, q.restore(b[:len(b)-1]))
		require.Error(t, q.restore(append(b, 0)))
	}
}

// TestSweep_Backup: a key of a restored backup expires at another time than that of
// the store, comes back, or is counted twice when it is counted out.
func TestSweep_Backup(t *testing.T) {
	s, n, clock, _ := openTimed(t)
	const each = 200
	for i := range 3 * each {
		ttl := []int64{0, 1000, 60_000}[i%3]
		require.NoError(t, n.one(&Op{Kind: OpPut, Key: key64(i), Value: valueOf(uint64(i), 1, 50), TTL: ttl}))
	}
	syncStore(t, s)
	clock.move(1000 + tickMS)
	sweepNow(t, s)
	require.EqualValues(t, 2*each, s.Len())
	var stream bytes.Buffer
	_, err := s.Backup(context.Background(), &stream, nil)
	require.NoError(t, err)
	n.Close()
	require.NoError(t, s.Close())

	dev := newMem()
	_, err = Restore(&stream, Options{Device: keepOpen{dev}})
	require.NoError(t, err)
	clock.wall.Add(-10_000_000) // on a machine whose clock is behind
	again := openOn(t, dev, func(o *Options) { o.Clock, o.ColdStart = clock, false })
	require.Eventually(t, func() bool { return again.warm.finished.Load() }, waitLong, time.Millisecond)
	n = again.NewSession()
	look := func(want [3]bool) {
		t.Helper()
		for i := range 3 * each {
			found, err := n.Exists(key64(i))
			require.NoError(t, err)
			require.Equal(t, want[i%3], found, "key %d", i)
		}
	}
	look([3]bool{true, false, true})
	left, err := n.TTL(key64(2))
	require.NoError(t, err)
	require.InDelta(t, 60_000-1000-tickMS, left, 1)
	sweepNow(t, again)
	require.EqualValues(t, 2*each, again.Len())
	clock.move(left - 1)
	look([3]bool{true, false, true})
	clock.move(1)
	look([3]bool{true, false, false})
	clock.move(tickMS)
	sweepNow(t, again)
	require.EqualValues(t, each, again.Len())
	n.Close()
	require.NoError(t, again.Close())
}
