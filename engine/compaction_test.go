package engine

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

func compact(t *testing.T, s *Store, until int64) CompactResult {
	t.Helper()
	res, err := s.Compact(context.Background(), CompactOptions{Until: until})
	require.NoError(t, err)
	return res
}

// TestCompact_KeepsWhatLives: a pass loses a live record, keeps a dead one, or
// brings a deleted one back, now or after a restart.
func TestCompact_KeepsWhatLives(t *testing.T) {
	seed := newSeed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	dev := newMem()
	s := openOn(t, dev, nil)
	n := s.NewSession()
	const keys = 2000
	versions := map[int]uint64{} // absent: deleted or never written
	size := func(version uint64) int {
		if version%97 == 0 {
			return inlineMax + int(version)%chunkBytes*2 // in chunks
		}
		return int(version * 7919 % 3000)
	}
	number := uint64(0)
	churn := func(writes int) {
		for range writes {
			i := rng.IntN(keys)
			if rng.IntN(4) == 0 {
				delete(versions, i)
				_, err := n.Delete(key64(i))
				require.NoError(t, err)
				continue
			}
			number++
			versions[i] = number
			require.NoError(t, n.Put(key64(i), valueOf(uint64(i), number, size(number))))
		}
	}
	verify := func() {
		for i := range keys {
			value, err := n.Get(key64(i), nil)
			version, there := versions[i]
			if !there {
				require.ErrorIs(t, err, ErrNotFound, "key %d", i)
				continue
			}
			require.NoError(t, err, "key %d", i)
			require.NoError(t, valueIs(value, uint64(i), version, size(version)))
		}
	}
	for round := range 6 {
		churn(6000)
		if round%2 == 0 {
			evict(t, s, n)
		}
		syncStore(t, s)
		before := s.EstimateGC()
		res := compact(t, s, 0)
		require.Greater(t, res.Scanned, res.Copied)
		require.LessOrEqual(t, res.Begin, s.Stats().LogDurable)
		require.Less(t, s.EstimateGC().Total, before.Total, "the log got no shorter")
		verify()
		evict(t, s, n)
		verify()
		checkStore(t, s)
		if round%3 == 2 {
			n.Close()
			require.NoError(t, s.Close())
			dev = dev.CrashImage(iotest.CrashOptions{})
			s = openOn(t, dev, nil)
			n = s.NewSession()
			verify()
		}
	}
	// A second pass over what has been compacted frees only what died since.
	compact(t, s, 0)
	verify()
	begin, end := dev.Extent()
	require.LessOrEqual(t, s.Stats().LogFreed, begin)
	require.Less(t, end-begin, int64(40<<20), "segments were not freed")
	n.Close()
	require.NoError(t, s.Close())
}

// TestCompact_LetsOthersRun: a pass works until its time on a processor is over, be it in
// the middle of a section.
func TestCompact_LetsOthersRun(t *testing.T) {
	r, clock := &yieldCounter{Runner: GoRunner()}, newTestClock()
	s := openOn(t, newMem(), func(o *Options) { o.Runner, o.Clock, o.CommitInterval, o.LiveRatio = r, clock, -1, -1 })
	n := s.NewSession()
	fillKeys(t, n, 20_000, 0)
	n.Close()
	syncStore(t, s)
	ticks := func() { clock.mono.Add(int64(compactTurn)) }
	clock.look.Store(&ticks)
	before := r.yields.Load()
	res := compact(t, s, 0)
	groups := res.Records / compactGroup
	require.Greater(t, groups, int64(100))
	require.GreaterOrEqual(t, r.yields.Load()-before, groups)
	require.NoError(t, s.Close())
}

// TestCompact_UnlinkedChunks: a large value that is being written while its first
// chunks are compacted away is lost.
func TestCompact_UnlinkedChunks(t *testing.T) {
	dev := newMem()
	s := openOn(t, dev, nil)
	n := s.NewSession()
	key, value := []byte("large"), valueOf(1, 1, 5*chunkBytes)
	list, err := n.writeChunks(key, value)
	require.NoError(t, err)
	other := s.NewSession()
	evict(t, s, other)
	syncStore(t, s)
	before := s.log.Begin()
	compact(t, s, 0)
	require.Equal(t, before, s.log.Begin(), "the pass goes over chunks that may still be linked")
	// Now it is linked, as carryOut does it.
	n.plan = plan{value: value, verdict: Replace, blind: true}
	op := Op{Kind: OpPut, Key: key, Value: value}
	require.True(t, n.carryOut(&op, 0x1234, &place{}))
	require.NoError(t, op.Err)
	require.Zero(t, n.unlinked.Load())
	_ = list
	evict(t, s, other)
	syncStore(t, s)
	compact(t, s, 0)
	require.Greater(t, s.log.Begin(), before)
	other.Close()
	n.Close()
	require.NoError(t, s.Close())
}

// TestCompact_Automatic: a store that is written for ever grows for ever.
func TestCompact_Automatic(t *testing.T) {
	dev := newMem()
	const disk = 24 << 20
	s := openOn(t, dev, func(o *Options) {
		o.LiveRatio = 0
		o.Disk = disk
		o.CommitInterval = 20 * time.Millisecond
		o.CheckpointDistance = 4 << 20
	})
	n := s.NewSession()
	const keys = 4000
	written := int64(0)
	for version := uint64(1); written < 8*disk; version++ {
		for i := range keys {
			require.NoError(t, n.Put(key64(i), valueOf(uint64(i), version, 2000)))
			written += 2000
			if i%500 == 0 {
				st := s.Stats()
				require.LessOrEqual(t, st.DiskUsed, int64(disk), "%+v", st)
			}
		}
		for i := range keys {
			value, err := n.Get(key64(i), nil)
			require.NoError(t, err)
			require.NoError(t, valueIs(value, uint64(i), version, 2000))
		}
	}
	st := s.Stats()
	require.Positive(t, st.Compactions)
	require.Zero(t, st.CompactErr)
	require.InDelta(t, keys*2032, st.LiveBytes, keys*200)
	n.Close()
	require.NoError(t, s.Close())
}

// TestCompact_FreesWhatIsTold: a pass that leaves its commit to the next one frees what
// no commit has told yet, or never, where nobody writes any more.
func TestCompact_FreesWhatIsTold(t *testing.T) {
	seed := newSeed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	dev := newMem()
	s := openOn(t, dev, func(o *Options) { o.LiveRatio, o.CommitInterval = LiveRatioDefault, time.Second })
	n := s.NewSession()
	const keys = 2000
	number := uint64(0)
	last := map[int]uint64{}
	owed := false
	for end := time.Now().Add(waitLong); time.Now().Before(end) && !(owed && s.Stats().LogFreed > 0); {
		for range 500 {
			i := rng.IntN(keys)
			number++
			last[i] = number
			require.NoError(t, n.Put(key64(i), valueOf(uint64(i), number, 1000)))
		}
		// In this order: what is told only rises.
		freed := record.Addr(s.stats.freed.Load())
		told := record.Addr(s.commit.toldBegin.Load())
		require.LessOrEqual(t, freed, told, "freed what a crash would look for")
		owed = owed || s.log.Begin() > told
	}
	require.True(t, owed, "no pass has left its commit to the next one")
	size := record.Addr(s.dev.SegmentSize() / record.Unit)
	require.Eventually(t, func() bool {
		begin := s.log.Begin()
		return record.Addr(s.stats.freed.Load()) == begin&^(size-1) && record.Addr(s.commit.toldBegin.Load()) == begin
	}, waitLong, time.Millisecond, "what is dead stays on the disk")
	require.Positive(t, s.Stats().LogFreed)
	syncStore(t, s)
	dev = dev.CrashImage(iotest.CrashOptions{})
	n.Close()
	require.NoError(t, s.Close())
	s = openOn(t, dev, nil)
	n = s.NewSession()
	for i, version := range last {
		value, err := n.Get(key64(i), nil)
		require.NoError(t, err, "key %d", i)
		require.NoError(t, valueIs(value, uint64(i), version, 1000))
	}
	n.Close()
	require.NoError(t, s.Close())
}

// TestCompact_FullOfLive: a store whose budget is full of live data hangs, or
// cannot be emptied.
func TestCompact_FullOfLive(t *testing.T) {
	s := openOn(t, newMem(), func(o *Options) {
		o.LiveRatio = 0
		o.Disk = 16 << 20
		o.CommitInterval = 20 * time.Millisecond
	})
	n := s.NewSession()
	keys := 0
	var err error
	for ; err == nil; keys++ {
		require.Less(t, keys, 16<<10)
		err = n.Put(key64(keys), make([]byte, 2000))
	}
	require.ErrorIs(t, err, ErrDiskFull)
	require.ErrorContains(t, err, "disk budget")
	require.Equal(t, err, s.Full())
	keys--
	require.Greater(t, keys, 4000, "much less fits than the budget")
	_, err = n.Get(key64(0), nil)
	require.NoError(t, err)
	for i := range keys * 3 / 4 {
		_, err := n.Delete(key64(i))
		require.NoError(t, err, "key %d", i)
	}
	require.Eventually(t, func() bool { return n.Put([]byte("new"), make([]byte, 2000)) == nil }, waitLong, 10*time.Millisecond,
		"%+v", s.Stats())
	for i := keys * 3 / 4; i < keys; i++ {
		_, err := n.Get(key64(i), nil)
		require.NoError(t, err)
	}
	n.Close()
	require.NoError(t, s.Close())
}

// TestCompact_IndexEntries: a store whose keys come and go fills its index with
// entries of keys that are gone.
func TestCompact_IndexEntries(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	const keys = 5000
	entries := func() (count int) {
		s.index.Range(func(_, _ uint64) bool { count++; return true })
		return count
	}
	require.NoError(t, n.Put([]byte("stays"), []byte("x")))
	for round := range 5 {
		for i := range keys {
			require.NoError(t, n.Put(key64(round*keys+i), make([]byte, 100)))
		}
		for i := range keys {
			there, err := n.Delete(key64(round*keys + i))
			require.NoError(t, err)
			require.True(t, there)
		}
		require.NoError(t, n.Put([]byte("pad"), make([]byte, pageSizeMin/4)))
		require.NoError(t, n.Put([]byte("pad"), make([]byte, pageSizeMin/4)))
		syncStore(t, s)
		for range 3 { // the last page, which is not full, stays
			require.NoError(t, n.Put([]byte("pad"), make([]byte, 60<<10)))
			require.NoError(t, n.Put([]byte("pad"), make([]byte, 60<<10)))
			syncStore(t, s)
			compact(t, s, 0)
		}
		require.Eventually(t, func() bool { return entries() < keys/2 }, waitLong, time.Millisecond, "round %d", round)
	}
	require.Positive(t, s.Stats().IndexSwept)
	_, err := n.Get([]byte("stays"), nil)
	require.NoError(t, err)
	n.Close()
	checkStore(t, s)
	require.NoError(t, s.Close())
}

// TestCompact_Suspects: where nearly everything is on disk, a pass takes a live record
// for a dead one, copies one that is dead, or reads for each by itself.
func TestCompact_Suspects(t *testing.T) {
	seed := newSeed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	s := openOn(t, newMem(), func(o *Options) { o.Memory = 33 << 20 })
	n := s.NewSession()
	const keys = 120_000
	writes := uint64(6 * keys)
	if raceEnabled {
		writes = 3 * keys
	}
	versions := make([]uint64, keys)
	for number := uint64(1); number < writes; number++ {
		i := rng.IntN(keys)
		versions[i] = number
		if number%(keys/8) == 0 {
			syncStore(t, s) // makes the next write of a key a new record
		}
		if number%5 == 0 {
			versions[i] = 0
			_, err := n.Delete(key64(i))
			require.NoError(t, err)
			continue
		}
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), number, 120)))
	}
	syncStore(t, s)
	require.Greater(t, s.log.Head(), s.log.Tail()/4, "most of the log has to be on disk")
	before := s.Stats()
	res := compact(t, s, s.log.Tail().Bytes()/2)
	st := s.Stats()
	require.Less(t, st.ColdReads-before.ColdReads, uint64(res.Scanned/160/4), "records were looked up one by one")
	require.Less(t, res.Copied, res.Scanned)
	require.Eventually(t, func() bool { return s.Stats().MemoryLog == before.MemoryLog }, waitLong, time.Millisecond,
		"the pass's memory did not come back")
	for i, version := range versions {
		value, err := n.Get(key64(i), nil)
		if version == 0 {
			require.ErrorIs(t, err, ErrNotFound)
			continue
		}
		require.NoError(t, err)
		require.NoError(t, valueIs(value, uint64(i), version, 120))
	}
	n.Close()
	checkStore(t, s)
	require.NoError(t, s.Close())
}

// TestCompact_CrashWithoutCheckpoint: a store whose log has lost its beginning to a
// pass does not open after a crash, where there is no checkpoint to begin from.
func TestCompact_CrashWithoutCheckpoint(t *testing.T) {
	dev := newMem()
	s := openOn(t, dev, nil)
	n := s.NewSession()
	const keys = 500
	for round := range uint64(8) {
		for i := range keys {
			require.NoError(t, n.Put(key64(i), valueOf(uint64(i), round, 2000)))
		}
		syncStore(t, s)
	}
	res := compact(t, s, 0)
	require.Positive(t, res.Freed)
	image := dev.CrashImage(iotest.CrashOptions{})
	n.Close()
	require.NoError(t, s.Close())
	s = openOn(t, image, nil)
	n = s.NewSession()
	for i := range keys {
		value, err := n.Get(key64(i), nil)
		require.NoError(t, err, "key %d", i)
		require.NoError(t, valueIs(value, uint64(i), 7, 2000))
	}
	n.Close()
	checkStore(t, s)
	require.NoError(t, s.Close())
}

// TestCompact_MetadataFails: log that compaction is done with waits for a checkpoint
// that cannot be written, and so writers wait for ever for room in the disk budget.
func TestCompact_MetadataFails(t *testing.T) {
	s, dev, _ := openFault(t, func(o *Options) { o.Disk = 12 << 20 })
	n := s.NewSession()
	require.NoError(t, n.Put(key64(0), make([]byte, 60<<10)))
	_, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: FullCheckpoint})
	require.NoError(t, err)
	dev.FailMeta(syscall.EIO)
	waitFor(t, "a writer whose room is held back by a broken disk", background(func() {
		for i := 0; err == nil && i < 10_000; i++ {
			err = n.Put(key64(i%20), make([]byte, 60<<10))
		}
	}))
	require.ErrorIs(t, err, ErrDiskFull)
	dev.FailMeta(nil)
	s.checkpoints.want()
	require.Eventually(t, func() bool {
		_, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: FullCheckpoint})
		return err == nil && n.Put(key64(1), nil) == nil
	}, waitLong, 10*time.Millisecond, "it is never over")
	n.Close()
	require.NoError(t, s.Close())
}

// closeRoom writes values over one another until those who write more wait for room in
// the disk budget, which nobody makes.
func closeRoom(t *testing.T, s *Store, n *Session, value []byte) {
	t.Helper()
	for i := range 160 {
		require.NoError(t, n.Put(key64(i%20), value))
	}
	syncStore(t, s)
	s.compaction.task.Stop() // it would make room
	require.NoError(t, s.SetDisk(8<<20))
	require.True(t, s.room.closed.Load() && !s.room.full.Load())
}

// TestCompact_LargeWaits: the writer of a large value waits for room in the disk
// budget, and the room for compaction, which does not pass the chunks that are there.
func TestCompact_LargeWaits(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	value := make([]byte, 60<<10)
	closeRoom(t, s, n, value)
	_, err := n.Delete(key64(0))
	require.NoError(t, err)
	before := s.Stats().SpaceWaits
	done := background(func() { err = n.Put([]byte("large"), valueOf(1, 1, 5*chunkBytes)) })
	require.Eventually(t, func() bool { return s.Stats().SpaceWaits > before }, waitLong, time.Millisecond)
	syncStore(t, s) // the tail moves on
	require.Equal(t, s.log.Tail(), s.compaction.unlinked(), "it holds compaction back")
	require.NoError(t, s.SetDisk(0))
	waitFor(t, "a large value that has room", done)
	require.NoError(t, err)
	got, err := n.Get([]byte("large"), nil)
	require.NoError(t, err)
	require.NoError(t, valueIs(got, 1, 1, 5*chunkBytes))
	n.Close()
	require.NoError(t, s.Close())
}

// TestCompact_LastPass: what a pass says it did, and the statistics of it, is not what
// it was given to do.
func TestCompact_LastPass(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	require.Zero(t, s.Stats().LastPass)
	const keys, over, gone = 3000, 1200, 500 // keys written, of them twice, of them deleted at the end
	big := bytes.Repeat([]byte{'b'}, 3*chunkBytes/2)
	for i := range keys {
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 1, 500)))
	}
	require.NoError(t, n.Put([]byte("large"), big))
	evict(t, s, n)
	syncStore(t, s)
	until := s.log.Tail().Bytes()
	for i := range over {
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 2, 500)))
	}
	for i := keys - gone; i < keys; i++ {
		_, err := n.Delete(key64(i))
		require.NoError(t, err)
	}
	syncStore(t, s)
	require.Equal(t, s.EstimateGC().Reclaimable, s.Stats().DeadBytes)
	res := compact(t, s, until)
	st := s.Stats()
	require.GreaterOrEqual(t, res.Records, int64(keys))
	require.GreaterOrEqual(t, res.Removed, int64(over+gone))
	require.Equal(t, res.Records-res.Removed, int64(s.stats.movedRecords.Load()))
	require.Less(t, res.From, res.Begin)
	require.Equal(t, res.Scanned, res.Begin-res.From)
	require.GreaterOrEqual(t, res.Copied, int64(len(big)), "a large value does not count")
	require.Equal(t, PassStats{
		Scanned: res.Scanned, Copied: res.Copied, Freed: res.Freed, Records: res.Records, Removed: res.Removed,
		TookNS: int64(res.Took), EndedMS: st.LastPass.EndedMS,
	}, st.LastPass)
	require.Positive(t, st.LastPass.EndedMS)
	require.Greater(t, st.WriteAmplification, 1.0)
	n.Close()
	require.NoError(t, s.Close())
}

// TestCompact_StaysInMemory: a record that could be read without the disk cannot any
// more when it has been copied.
func TestCompact_StaysInMemory(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	const keys = 5000
	for i := range keys {
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 1, 300)))
	}
	syncStore(t, s)
	res := compact(t, s, 0)
	require.Greater(t, res.Copied, int64(keys*300/2))
	for i := range keys {
		value, err := n.Get(key64(i), nil)
		require.NoError(t, err)
		require.NoError(t, valueIs(value, uint64(i), 1, 300))
	}
	require.Zero(t, s.Stats().ColdReads)
	n.Close()
	require.NoError(t, s.Close())
}

// TestCompact_CheckpointsInBudget: kept checkpoints pin log until the disk budget is
// broken or writes wait for ever; or the last one goes, or nothing is said.
func TestCompact_CheckpointsInBudget(t *testing.T) {
	const disk, keys, size = 24 << 20, 2000, 1000
	dev := newMem()
	var mu sync.Mutex
	var said bytes.Buffer
	open := func(dev ioring.Device) *Store {
		return openOn(t, dev, func(o *Options) {
			o.Disk, o.LiveRatio, o.CheckpointsKept, o.CheckpointDistance = disk, 0, 3, -1
			o.CommitInterval = 10 * time.Millisecond
			o.Logger = slog.New(slog.NewTextHandler(lockedWriter{&mu, &said}, nil))
		})
	}
	s := open(dev)
	n := s.NewSession()
	version := uint64(0)
	overwrite := func() {
		version++
		for i := range keys {
			require.NoError(t, n.Put(key64(i), valueOf(uint64(i), version, size)))
			if i%200 == 0 {
				require.LessOrEqual(t, s.Stats().DiskUsed, int64(disk))
				list, err := s.Checkpoints()
				require.NoError(t, err)
				require.True(t, version == 1 || len(list) > 0, "no checkpoint is left")
			}
		}
	}
	overwrite()
	var taken []uint64
	for range 3 {
		info, err := s.Checkpoint(t.Context(), CheckpointOptions{Kind: FullCheckpoint})
		require.NoError(t, err)
		taken = append(taken, info.Version)
		overwrite()
	}
	for written := int64(0); written < 6*disk; written += keys * size {
		overwrite() // nobody takes checkpoints any more
	}
	syncStore(t, s)
	list, err := s.Checkpoints()
	require.NoError(t, err)
	require.NotEmpty(t, list)
	for _, info := range list {
		require.NotContains(t, taken, info.Version, "it pins what the budget needs")
	}
	names, err := dev.ListMeta()
	require.NoError(t, err)
	snapshots := slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, snapshotPrefix) })
	require.LessOrEqual(t, len(snapshots), len(list)+1, "a snapshot of one that was dropped is left")
	mu.Lock()
	require.Contains(t, said.String(), "checkpoint dropped")
	require.Contains(t, said.String(), fmt.Sprintf("version=%d", taken[0]))
	mu.Unlock()
	n.Close()
	image := dev.CrashImage(iotest.CrashOptions{})
	require.NoError(t, s.Close())
	s = open(image)
	n = s.NewSession()
	for i := range keys {
		value, err := n.Get(key64(i), nil)
		require.NoError(t, err)
		require.NoError(t, valueIs(value, uint64(i), version, size))
	}
	n.Close()
	require.NoError(t, s.Close())
}

type lockedWriter struct {
	mu *sync.Mutex
	to *bytes.Buffer
}

func (w lockedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(b)
}
