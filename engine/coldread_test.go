package engine

import (
	"math"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

// coldRecord is a record that has been written for a test of cold reads.
type coldRecord struct {
	key, value []byte
	addr       record.Addr
	size       int
}

// putCold writes records of each size, until they have begun at every place of a
// block, and takes them out of memory.
func putCold(t testing.TB, s *Store, n *Session, sizes ...int) (list []coldRecord) {
	t.Helper()
	put := func(key []byte, size int) coldRecord {
		r := coldRecord{key: key, size: size}
		r.value = valueOf(uint64(len(list)), 1, size-record.HeaderSize-len(key))
		require.NoError(t, n.Put(r.key, r.value))
		r.addr = s.log.Tail() - record.Addr(size/record.Unit)
		return r
	}
	n.fitCredit = math.MinInt32 // no fillers: every place is wanted
	defer func() { n.fitCredit = 0 }()
	pads := 0
	for _, size := range sizes {
		begins := map[int64]bool{}
		for len(begins) < blockBytes/record.Unit {
			for begins[s.log.Tail().Bytes()%blockBytes] {
				pads++
				put(key64(-pads), 3*record.Unit)
			}
			r := put(key64(len(list)), size)
			begins[r.addr.Bytes()%blockBytes] = true
			list = append(list, r)
		}
	}
	evict(t, s, n)
	return list
}

// readsOf is how many reads a record takes if the first is made for so many bytes.
func (r *coldRecord) readsOf(s *Store, guess int64) uint64 {
	begin := r.addr.Bytes() / s.align * s.align
	blocks := (r.addr.Bytes() + max(guess, 1) - begin + blockBytes - 1) / blockBytes
	end := min(begin+min(blocks, guessMax/blockBytes)*blockBytes, s.pageEnd(r.addr))
	if r.addr.Bytes()+int64(r.size) > end {
		return 2
	}
	return 1
}

// readEverywhere gets records that begin everywhere in a block, with guesses that are
// too short, exact and too long.
func readEverywhere(t *testing.T, dev ioring.Device) {
	s := openOn(t, dev, nil)
	n := s.NewSession()
	list := putCold(t, s, n, 48, 1072, 4032, 16496)
	seen := map[uint64]int{}
	for _, r := range list {
		size := int64(r.size)
		for _, guess := range []int64{0, size / 2, size - record.Unit, size, size + record.Unit, 2 * guessMax} {
			s.coldSize.bytes.Store(guess)
			before := s.stats.coldReads.Load()
			got, err := n.Get(r.key, nil)
			require.NoError(t, err)
			require.Equal(t, r.value, got)
			reads := s.stats.coldReads.Load() - before
			require.Equal(t, r.readsOf(s, guess), reads, "record of %d bytes at %v, guess %d", r.size, r.addr, guess)
			seen[reads]++
		}
	}
	require.Greater(t, seen[1], len(list))
	require.Greater(t, seen[2], len(list)/8)
	n.Close()
	require.NoError(t, s.Close())
}

// TestColdRead_EveryPlace: a record that is not wholly in what was read first is cut
// off, or read again although it is.
func TestColdRead_EveryPlace(t *testing.T) {
	for name, open := range map[string]func(*testing.T) ioring.Device{
		"sectors of 512":  func(*testing.T) ioring.Device { return memOfSectors(512) },
		"sectors of 4096": func(*testing.T) ioring.Device { return memOfSectors(4096) },
		"pread":           func(t *testing.T) ioring.Device { return smallDisk(t, ioring.PReadWrite) },
		"ring":            func(t *testing.T) ioring.Device { return smallDisk(t, ioring.URing) },
	} {
		t.Run(name, func(t *testing.T) { readEverywhere(t, open(t)) })
	}
}

func memOfSectors(n int) *iotest.Mem {
	return iotest.NewMem(iotest.MemOptions{SegmentSize: 1 << 20, BufferBytes: 2 << 20, Align: ioring.Align{Offset: n, Memory: n}})
}

// smallDisk is a device over files of a backend, which may not be there.
func smallDisk(t *testing.T, mode ioring.Mode) ioring.Device {
	if ok, why := ioring.Probe(); !ok && mode == ioring.URing {
		t.Skip(why)
	}
	dev, err := ioring.Open(ioring.Options{Dir: t.TempDir(), Mode: mode, SegmentSize: 1 << 20, BufferBytes: 2 << 20})
	require.NoError(t, err)
	return dev
}

// TestColdRead_SecondFails: an error of the second read passes for an answer, or
// a record whose length is another one in the second read is read for ever.
func TestColdRead_SecondFails(t *testing.T) {
	mem := memOfSectors(4096)
	dev := iotest.NewFault(mem, 1)
	s := openOn(t, dev, nil)
	n := s.NewSession()
	list := putCold(t, s, n, 1072)
	var r *coldRecord
	for i := range list {
		if list[i].readsOf(s, 0) == 2 {
			r = &list[i]
		}
	}
	require.NotNil(t, r)
	second := func(rule iotest.Rule) (reads uint64, err error) {
		s.coldSize.bytes.Store(0)
		before := s.stats.coldReads.Load()
		rule.Kind = ioring.Read
		remove := dev.Inject(rule)
		defer remove()
		_, err = n.Get(r.key, nil)
		return s.stats.coldReads.Load() - before, err
	}

	reads, err := second(iotest.Rule{Match: iotest.Nth(2), Err: syscall.EIO})
	require.ErrorIs(t, err, ErrIO)
	require.ErrorIs(t, err, syscall.EIO)
	require.EqualValues(t, 2, reads)

	for bit := range 8 * record.HeaderSize {
		flip := func() {
			mem.Corrupt(r.addr.Bytes()+int64(bit/8), func(b byte) byte { return b ^ 1<<(bit%8) })
		}
		reads, err := second(iotest.Rule{Match: func(_ *ioring.Op, k int) bool {
			if k == 2 {
				flip() // what the second read finds
			}
			return false
		}})
		require.ErrorIs(t, err, ErrCorrupt, "bit %d", bit)
		require.EqualValues(t, 2, reads, "bit %d", bit)
		reads, err = second(iotest.Rule{Match: iotest.Nth(100), Err: syscall.EIO})
		require.ErrorIs(t, err, ErrCorrupt, "bit %d", bit)
		require.LessOrEqual(t, reads, uint64(2), "bit %d", bit)
		flip()
	}
	got, err := n.Get(r.key, nil)
	require.NoError(t, err)
	require.Equal(t, r.value, got)
	n.Close()
	require.NoError(t, s.Close())
}

// TestSizeGuess: the guess does not follow the records, overshoots them, leaves
// its bounds, or follows the few that are longer than the others.
func TestSizeGuess(t *testing.T) {
	var g sizeGuess
	see := func(times int, sizes ...int) {
		for range times {
			for _, size := range sizes {
				g.learn(size)
			}
		}
	}
	require.EqualValues(t, blockBytes, g.first(0), "nothing has been read yet")
	for _, size := range []int{1024, 4032, 64 << 10, 48, 1 << 20, 32} {
		see(1000, size)
		require.EqualValues(t, size, g.bytes.Load(), "all are of one size")
		see(1, size-record.Unit, size)
		require.EqualValues(t, size, g.bytes.Load(), "one is a little shorter")
	}
	// Of ten one is longer: less than one in eight, so they take their second reads.
	see(200, 112, 112, 112, 112, 10_000, 112, 112, 112, 112, 112)
	require.Less(t, g.bytes.Load(), int64(1024))
	// Of ten two are.
	see(200, 112, 112, 112, 10_000, 112, 112, 112, 112, 10_000, 112)
	require.Greater(t, g.bytes.Load(), int64(9000))
	require.LessOrEqual(t, g.bytes.Load(), int64(10_000))
	for _, guess := range []int64{0, 1, 4095, 4096, 4097, 65_535, 65_536, math.MaxInt32} {
		for _, skip := range []int64{0, record.Unit, 4096 - record.Unit} {
			g.bytes.Store(guess)
			first := g.first(skip)
			require.Zero(t, first%blockBytes)
			require.GreaterOrEqual(t, first, int64(blockBytes))
			require.LessOrEqual(t, first, int64(guessMax))
			require.GreaterOrEqual(t, first, min(skip+guess, guessMax))
		}
	}
}
