package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"rskv/engine/internal/manifest"
	"rskv/engine/internal/record"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

const prefixKeys = 40

// prefixState is what a store holds: the number that was written last under each
// key, from which the value follows; and the number of writes of the run so far.
type prefixState map[int]uint64

// prefixSize is the size of a value: some are inline, some are in chunks.
func prefixSize(number uint64) int {
	if number%17 == 0 {
		return 2*chunkBytes + int(number%1000)
	}
	return int(number * 7919 % 9000)
}

// change is one batch: at most a section's worth, so that no commit divides it.
func (c prefixState) change(rng *rand.Rand, number uint64) (next prefixState, ops []Op) {
	next = maps.Clone(c)
	for range 1 + rng.IntN(6) {
		key := rng.IntN(prefixKeys)
		if rng.IntN(4) == 0 {
			delete(next, key)
			ops = append(ops, Op{Kind: OpDelete, Blind: true, Key: key64(key)})
			continue
		}
		next[key] = number
		ops = append(ops, Op{Kind: OpPut, Key: key64(key), Value: valueOf(uint64(key), number, prefixSize(number))})
	}
	return next, ops
}

// difference says where the store is not in this state.
func (c prefixState) difference(n *Session) error {
	for key := range prefixKeys {
		value, err := n.Get(key64(key), nil)
		number, present := c[key]
		switch {
		case !present && err == ErrNotFound:
		case err != nil:
			return fmt.Errorf("key %d: %w, want number %d (present %t)", key, err, number, present)
		case !present:
			return fmt.Errorf("key %d is there: %d bytes", key, len(value))
		default:
			if err := valueIs(value, uint64(key), number, prefixSize(number)); err != nil {
				return err
			}
		}
	}
	return nil
}

// prefixRun is one run of a store, up to its end without Close.
type prefixRun struct {
	mu     sync.Mutex
	states []prefixState // before the first write, after it, after the next ...; guarded by mu
	issued atomic.Int64  // index of the last state whose writing has begun
	synced atomic.Int64  // index of the last state that a Sync has covered
	number uint64        // of the last write, never used again
}

// write makes n changes, each with its own Sync if sync, and notes how far it is.
func (r *prefixRun) write(t *testing.T, s *Store, rng *rand.Rand, changes, syncEvery int) {
	n := s.NewSession()
	defer n.Close()
	for range changes {
		r.number++
		r.mu.Lock()
		next, ops := r.states[len(r.states)-1].change(rng, r.number)
		r.states = append(r.states, next)
		r.mu.Unlock()
		r.issued.Add(1)
		n.Do(ops)
		for _, op := range ops {
			require.NoError(t, op.Err)
		}
		if rng.IntN(syncEvery) == 0 {
			syncStore(t, s)
			r.synced.Store(r.issued.Load())
		}
	}
}

// match finds the state that a recovered store is in: one at or behind the last
// that was synced, and not behind the last that was begun.
func match(t *testing.T, s *Store, states []prefixState, synced, issued int64) prefixState {
	t.Helper()
	n := s.NewSession()
	defer n.Close()
	var why error
	for i := issued; i >= synced; i-- {
		if why = states[i].difference(n); why == nil {
			live, exact := checkStore(t, s)
			require.True(t, exact)
			require.EqualValues(t, len(states[i]), live)
			require.Equal(t, s.Recovery().Keys, s.Len())
			return states[i]
		}
	}
	t.Fatalf("the store is in no state from %d to %d; not in %d: %v", synced, issued, synced, why)
	return nil
}

// powerFates are ways in which a disk may lose what was not synced.
func powerFates(seed uint64) iotest.CrashOptions {
	rng := rand.New(rand.NewPCG(seed, 5))
	return iotest.CrashOptions{
		Seed: seed, Keep: []float64{0, 0.5, 0.5, 0.9, 1}[rng.IntN(5)], Tear: []float64{0, 0.5, 1}[rng.IntN(3)], Reorder: true,
	}
}

// TestRecover_EveryPoint: after a crash at some moment something synced is
// missing, or what is there is no state that the store ever was in.
func TestRecover_EveryPoint(t *testing.T) {
	seed := newSeed(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	mem := newMem()
	s := openOn(t, mem, nil)
	run := &prefixRun{states: []prefixState{{}}}
	images := 0
	mem.OnOp(func(n int, e iotest.Event) {
		synced := run.synced.Load()
		image := mem.CrashImage(powerFates(seed + uint64(n)))
		issued := run.issued.Load()
		run.mu.Lock()
		states, skip := run.states, testing.Short() && n%4 != 0 // they only grow, and grew before issued did
		if !skip {
			images++
		}
		run.mu.Unlock()
		if skip {
			return
		}
		again := openOn(t, image, nil)
		match(t, again, states, synced, issued)
		require.NoError(t, again.Close())
	})
	run.write(t, s, rng, 100, 3)
	require.NoError(t, s.Close())
	mem.OnOp(nil)
	s = openOn(t, mem.CrashImage(iotest.CrashOptions{}), nil)
	match(t, s, run.states, run.issued.Load(), run.issued.Load())
	require.NoError(t, s.Close())
	require.Greater(t, images, 10)
}

// TestRecover_Generations: a crash leaves records behind the last commit, and the
// next crash, which leaves the tail in the middle of them, brings them back; or
// a version is given out twice.
func TestRecover_Generations(t *testing.T) {
	seed := newSeed(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	dev := newMem()
	states, synced, issued := []prefixState{{}}, int64(0), int64(0)
	number, version := uint64(0), uint64(0)
	runs := 40
	if testing.Short() {
		runs = 10
	}
	for range runs {
		s := openOn(t, dev, nil)
		require.GreaterOrEqual(t, s.Recovery().Version, version, "a version that was answered is gone")
		run := &prefixRun{number: number, states: []prefixState{match(t, s, states, synced, issued)}}
		var mu sync.Mutex // a task may be at the disk
		var image *iotest.Mem
		var at [2]int64
		point := rng.IntN(12)
		// One moment of the run, or its end.
		dev.OnOp(func(n int, _ iotest.Event) {
			mu.Lock()
			defer mu.Unlock()
			if point--; point == 0 {
				at[0] = run.synced.Load()
				image = dev.CrashImage(powerFates(seed ^ number))
				at[1] = run.issued.Load()
			}
		})
		run.write(t, s, rng, 3+rng.IntN(30), 6)
		dev.OnOp(nil)
		mu.Lock()
		if image == nil {
			at = [2]int64{run.synced.Load(), run.issued.Load()}
			image = dev.CrashImage(powerFates(seed ^ number))
		} else {
			version = s.Recovery().Version // what was answered later is not in the image
		}
		mu.Unlock()
		if at[0] == run.synced.Load() {
			version = max(version, s.Stats().Durable)
		}
		_ = s.Close() // of a machine that has lost its power
		dev, states, synced, issued, number = image, run.states, at[0], at[1], run.number
	}
}

// TestRecover_VersionsRise: a version that was answered is answered again after a
// crash, for other content.
func TestRecover_VersionsRise(t *testing.T) {
	dev := newMem()
	last := uint64(0)
	for i := range 10 {
		s := openOn(t, dev, nil)
		require.Equal(t, last, s.Recovery().Version)
		n := s.NewSession()
		for j := range 1 + i%3 {
			require.NoError(t, n.Put(key64(j), key64(i)))
			version := syncStore(t, s)
			require.Greater(t, version, last)
			last = version
		}
		n.Close()
		if i%2 == 0 {
			dev = dev.CrashImage(iotest.CrashOptions{})
			continue
		}
		require.NoError(t, s.Close())
		dev = dev.CrashImage(iotest.CrashOptions{})
		last = s.Stats().Version
	}
}

// TestRecover_TwentyOpens: opening a store again and again, with and without
// anything to write, loses something or makes the manifest grow without need.
func TestRecover_TwentyOpens(t *testing.T) {
	dev := newMem()
	size := 0
	for i := range 20 {
		s := openOn(t, dev, nil)
		n := s.NewSession()
		for j := range i / 2 {
			value, err := n.Get(key64(j), nil)
			require.NoError(t, err)
			require.NoError(t, valueIs(value, uint64(j), 1, 100+j))
		}
		if i%2 == 0 {
			require.NoError(t, n.Put(key64(i/2), valueOf(uint64(i/2), 1, 100+i/2)))
		}
		n.Close()
		checkLen(t, s, i/2+1)
		require.NoError(t, s.Close())
		if i%4 == 3 {
			size = len(readManifest(t, dev).Spans)
		}
		dev = dev.CrashImage(iotest.CrashOptions{})
	}
	require.LessOrEqual(t, size, 12, "runs that wrote nothing leave no span behind")
}

func readManifest(t *testing.T, dev *iotest.Mem) *manifest.Manifest {
	t.Helper()
	b, err := dev.CrashImage(iotest.CrashOptions{}).ReadMeta(manifest.Name)
	require.NoError(t, err)
	m, err := manifest.Decode(b)
	require.NoError(t, err)
	return m
}

// TestRecover_OtherOptions: a store that is opened with other sizes of memory,
// page, and index does not find its keys.
func TestRecover_OtherOptions(t *testing.T) {
	dev := newMem()
	const keys = 3000
	most := 0
	for i, change := range []func(*Options){
		func(o *Options) { o.IndexBits = 12 },
		func(o *Options) { o.IndexBits = 6 },
		func(o *Options) { o.Memory = 64 << 20; o.PageSize = 1 << 20; o.SegmentSize = 64 << 20 },
		func(o *Options) { o.IndexBits = 15 },
		func(o *Options) {},
	} {
		s := openOn(t, dev, change)
		require.Equal(t, pageSizeMin, s.Options().PageSize, "the page size of the store")
		require.EqualValues(t, 1<<20, s.Options().SegmentSize)
		require.GreaterOrEqual(t, s.Options().IndexBits, most, "an index never shrinks")
		most = s.Options().IndexBits
		n := s.NewSession()
		for j := range keys {
			if i > 0 {
				value, err := n.Get(key64(j), nil)
				require.NoError(t, err, "key %d", j)
				require.NoError(t, valueIs(value, uint64(j), uint64(i-1), 50))
			}
			require.NoError(t, n.Put(key64(j), valueOf(uint64(j), uint64(i), 50)))
		}
		n.Close()
		live, exact := checkStore(t, s)
		require.True(t, exact)
		require.EqualValues(t, keys, live)
		require.NoError(t, s.Close())
		dev = dev.CrashImage(iotest.CrashOptions{})
	}
	// An index for which the memory is too small is refused.
	s := openOn(t, dev, func(o *Options) { o.Memory = 256 << 20; o.IndexBits = 20 })
	require.NoError(t, s.Close())
	_, err := tryOpenOn(dev.CrashImage(iotest.CrashOptions{}), nil)
	require.ErrorIs(t, err, ErrMemoryTooSmall)
	require.ErrorContains(t, err, "needs")
}

// TestRecover_Refused: something that is not a store is taken for an empty one,
// and overwritten; or the message does not say what is wrong.
func TestRecover_Refused(t *testing.T) {
	dev := newMem()
	s := openOn(t, dev, nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("key"), []byte("value")))
	n.Close()
	require.NoError(t, s.Close())
	b, err := dev.CrashImage(iotest.CrashOptions{}).ReadMeta(manifest.Name)
	require.NoError(t, err)

	for _, c := range []struct {
		name   string
		change func(*iotest.Mem)
		want   error
		say    string
	}{
		{"another version", func(m *iotest.Mem) {
			other := append(bytes.Clone(b[:8]), append([]byte{manifest.Version + 1, 0, 0, 0}, b[12:len(b)-8]...)...)
			writeMeta(t, m, binary.LittleEndian.AppendUint64(other, xxhash.Sum64(other)))
		}, ErrFormat, fmt.Sprintf("version %d", manifest.Version+1)},
		{"damaged", func(m *iotest.Mem) {
			writeMeta(t, m, append(bytes.Clone(b[:20]), append([]byte{b[20] ^ 1}, b[21:]...)...))
		}, ErrCorrupt, "MANIFEST"},
		{"foreign", func(m *iotest.Mem) { writeMeta(t, m, []byte("Manifest-Version: 1.0\nCreated-By: somebody else\n")) }, ErrNotAStore, "MANIFEST"},
		{"empty", func(m *iotest.Mem) { writeMeta(t, m, nil) }, ErrNotAStore, "MANIFEST"},
		{"no manifest, and a damaged copy", func(m *iotest.Mem) {
			require.NoError(t, m.RemoveMeta(manifest.Name))
			require.NoError(t, m.WriteMeta(manifestCopy, append(bytes.Clone(b[:20]), append([]byte{b[20] ^ 1}, b[21:]...)...)))
		}, ErrCorrupt, "MANIFEST.copy"},
		{"none", func(m *iotest.Mem) {
			require.NoError(t, m.RemoveMeta(manifest.Name))
			require.NoError(t, m.RemoveMeta(manifestCopy))
		}, ErrNotAStore, "MANIFEST"},
	} {
		image := dev.CrashImage(iotest.CrashOptions{})
		c.change(image)
		events := len(image.Events())
		_, err := tryOpenOn(image, nil)
		require.ErrorIs(t, err, c.want, c.name)
		require.ErrorContains(t, err, c.say, c.name)
		require.Len(t, image.Events(), events, "%s: something was changed", c.name)
	}
}

// writeMeta writes both copies of the manifest.
func writeMeta(t *testing.T, m *iotest.Mem, b []byte) {
	t.Helper()
	require.NoError(t, m.WriteMeta(manifest.Name, b))
	require.NoError(t, m.WriteMeta(manifestCopy, b))
}

// TestRecover_ForeignDirectory: a second daemon opens the same directory, or a
// foreign MANIFEST is overwritten.
func TestRecover_ForeignDirectory(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, nil)
	_, err := Open(Options{Dir: dir, Memory: MemoryMin, IO: ioring.PReadWrite})
	require.ErrorIs(t, err, ErrLocked)
	checkStore(t, s)
	require.NoError(t, s.Close())

	dir = t.TempDir()
	foreign := filepath.Join(dir, manifest.Name+".meta")
	require.NoError(t, os.WriteFile(foreign, []byte("not ours"), 0o644))
	_, err = Open(Options{Dir: dir, Memory: MemoryMin, IO: ioring.PReadWrite})
	require.ErrorIs(t, err, ErrNotAStore)
	b, err := os.ReadFile(foreign)
	require.NoError(t, err)
	require.Equal(t, "not ours", string(b))
}

// TestRecover_DamagedLog: a record that was committed and is damaged ends the log
// silently, and everything behind it is lost.
func TestRecover_DamagedLog(t *testing.T) {
	dev := newMem()
	s := openOn(t, dev, nil)
	n := s.NewSession()
	var addrs []int64
	for i := range 20 {
		addrs = append(addrs, s.log.Tail().Bytes())
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 1, 1000)))
	}
	n.Close()
	require.NoError(t, s.Close())
	for _, i := range []int{0, 1, 10, 19} {
		image := dev.CrashImage(iotest.CrashOptions{})
		image.Corrupt(addrs[i]+100, func(b byte) byte { return b ^ 0x40 })
		_, err := tryOpenOn(image, nil)
		require.ErrorIs(t, err, ErrCorrupt)
		var where *CorruptError
		require.ErrorAs(t, err, &where)
		require.Equal(t, addrs[i], where.Addr)
		require.ErrorContains(t, err, fmt.Sprintf("0x%x", addrs[i]))
	}
	image := dev.CrashImage(iotest.CrashOptions{})
	require.NoError(t, image.Discard(image.SegmentSize()))
	_, err := tryOpenOn(image, nil)
	require.ErrorIs(t, err, ErrCorrupt, "the segment is gone")
}

// TestRecover_PageBorder: a commit that ends at or near the end of a page loses
// the page behind it, or the record before it.
func TestRecover_PageBorder(t *testing.T) {
	step := 16
	if testing.Short() || raceEnabled {
		step = 1024
	}
	for rest := 0; rest <= 9000; rest += step {
		if step == 16 && rest == 400 {
			step = 16 * 13
		}
		dev := newMem()
		s := openOn(t, dev, nil)
		n := s.NewSession()
		// Fill the first page until only rest bytes are left.
		i := 0
		for {
			left := pageSizeMin - int(s.log.Tail().Bytes()) - rest
			size := min(left-record.SizeFor(8, 0), 60_000)
			if left < record.SizeFor(8, 0)+16 {
				break
			}
			if left-record.SizeFor(8, size) < record.SizeFor(8, 0)+16 {
				size = left - record.SizeFor(8, 8) + 8
			}
			require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 1, size)))
			i++
			if s.log.Tail().Bytes() >= int64(pageSizeMin-rest) {
				break
			}
		}
		syncStore(t, s)
		require.NoError(t, n.Put([]byte("behind"), []byte("value")))
		syncStore(t, s)
		n.Close()
		again := openOn(t, dev.CrashImage(iotest.CrashOptions{}), nil)
		checkLen(t, again, i+1)
		require.NoError(t, again.Close())
		_ = s.Close()
	}
}

// TestScan_FromEndOfPage: who looks behind a torn tail that begins in the last
// sector of a page reads into memory that another read is still writing to.
func TestScan_FromEndOfPage(t *testing.T) {
	s, dev, _ := openFault(t, nil)
	n := s.NewSession()
	for i := range 50 {
		require.NoError(t, n.Put(key64(i), make([]byte, 60<<10)))
	}
	n.Close()
	syncStore(t, s)
	m := s.manifestUntil(s.log.Tail())
	span := m.Spans[len(m.Spans)-1]
	span.End = 0
	dev.Inject(iotest.Rule{Kind: ioring.Read, Match: iotest.Nth(1), Delay: 20 * time.Millisecond})
	r := s.newScan(m, span, record.Addr((2*pageSizeMin-8)/record.Unit))
	durable, err := r.attested()
	require.NoError(t, err)
	require.Less(t, durable, s.log.Durable())
	r.close()
	require.NoError(t, s.Close())
}

// TestRecover_RecycledSegment: what a segment still holds from the time when it was
// another one, of the same generation, is taken for log behind the last commit.
func TestRecover_RecycledSegment(t *testing.T) {
	dev := newMem()
	size := dev.SegmentSize()
	s := openOn(t, dev, nil)
	n := s.NewSession()
	last := map[int]uint64{}
	version := uint64(0)
	put := func(i int) {
		version++
		last[i] = version
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), version, 1000)))
	}
	// Until the log is behind the begin of a segment that was another one before.
	block := iotest.Aligned(4096)
	recycled := func() bool {
		tail := s.log.Durable().Bytes()
		if tail%size < size/8 || tail%size > size/2 {
			return false
		}
		_, err := iotest.Do(t, dev, ioring.Read, tail/size*size+size-4096, block)
		return err == nil && !bytes.Equal(block, make([]byte, len(block)))
	}
	for !recycled() {
		for i := range 100 {
			put(i)
		}
		syncStore(t, s)
		if s.log.Tail()-s.log.Begin() > record.Addr(4*size/record.Unit) {
			compact(t, s, 0)
		}
		require.Less(t, version, uint64(1<<20), "no segment is written over")
	}
	put(0)
	syncStore(t, s)
	end := s.log.Durable()
	want := maps.Clone(last)
	put(1) // never durable
	image := dev.CrashImage(iotest.CrashOptions{})
	require.NoError(t, s.Close())

	// The rest of the segment is full of records that verify where they once were.
	base := end.Bytes() / size * size
	_, until := image.Extent()
	require.Equal(t, base+size, until)
	buf := iotest.Aligned(int(size))
	_, err := iotest.Do(t, image, ioring.Read, base, buf)
	require.NoError(t, err)
	old := 0
	for a := end; a < record.Addr(until/record.Unit); a++ {
		part := buf[a.Bytes()-base:]
		_, _, ok := record.Verify(part, s.seedAt(a), a)
		require.False(t, ok, "it verifies at its new place, %v", a)
		for was := a; was.Bytes() >= size; {
			was -= record.Addr(size / record.Unit)
			if _, _, ok := record.Verify(part, s.seedAt(was), was); ok {
				old++
			}
		}
	}
	require.Greater(t, old, 100, "nothing old is left in the segment")

	res, err := Verify(VerifyOptions{Device: image.CrashImage(iotest.CrashOptions{})}, nil)
	require.NoError(t, err)
	require.True(t, res.Opens, res.Why)
	require.Equal(t, [2]int64{end.Bytes(), 0}, [2]int64{res.Tail, res.DamagedBytes})

	s = openOn(t, image, nil)
	require.Equal(t, end, s.recovery.end)
	require.Zero(t, s.Recovery().Discarded)
	n = s.NewSession()
	for i, version := range want {
		value, err := n.Get(key64(i), nil)
		require.NoError(t, err)
		require.NoError(t, valueIs(value, uint64(i), version, 1000))
	}
	n.Close()
	checkStore(t, s)
	require.NoError(t, s.Close())
}
