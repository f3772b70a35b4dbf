package engine

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
	"rskv/ioring/iotest"
)

// TestPlace_Sizes: records are given fillers that leave a large part of each block free,
// or small ones, of which an allotment is made.
func TestPlace_Sizes(t *testing.T) {
	t.Parallel()
	for size, want := range map[int]bool{
		0: false, 32: false, 512: false, fitMin: false, 576: true, 1008: true, 1024: true, 1040: false, 1360: true,
		1376: false, 2000: true, 2064: false, 3952: false, 3968: true, 4096: true, 4112: false, 8032: true, 7680: false,
		65536: true, 65552: false, 63488: false, 63552: true,
	} {
		require.Equal(t, want, fills(size), "%d bytes", size)
	}
}

// blocksOf is how many blocks a record takes that begins at a byte address.
func blocksOf(at int64, size int) int64 {
	return (at+int64(size)+blockBytes-1)/blockBytes - at/blockBytes
}

// TestPlace_Blocks: in a log of one size records lie in more blocks than they must, or
// fillers take more than they may.
func TestPlace_Blocks(t *testing.T) {
	t.Parallel()
	for _, size := range []int{576, 1024, 1360, 2032, 4032, 4096, 8032, 12256} {
		s := openOn(t, newMem(), nil)
		n := s.NewSession()
		const records = 1000
		more, begin := 0, s.log.Tail().Bytes()
		for i := range records {
			value := valueOf(uint64(i), 1, size-record.HeaderSize-8)
			require.NoError(t, n.Put(key64(i), value))
			if at := s.log.Tail().Bytes() - int64(size); blocksOf(at, size) > blocksOf(0, size) {
				more++
			}
		}
		// Behind the header of a page a record or two may not fit, and none before enough
		// was saved for the first filler.
		took := s.log.Tail().Bytes() - begin
		bytes := float64(took) / float64(records*size)
		require.LessOrEqual(t, more, fitLoss/2+int(2*took/pageSizeMin), "records of %d bytes", size)
		require.Less(t, bytes, 1+2.0/fitLoss+float64(blockBytes)/pageSizeMin, "records of %d bytes", size)
		for i := range records {
			got, err := n.Get(key64(i), nil)
			require.NoError(t, err)
			require.NoError(t, valueIs(got, uint64(i), 1, size-record.HeaderSize-8))
		}
		n.Close()
		require.NoError(t, s.Close())
	}
}

// TestPlace_Mixed: fillers for records between others, of which each would have one,
// take more of the log than a part in sixteen.
func TestPlace_Mixed(t *testing.T) {
	t.Parallel()
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	begin, bytes := s.log.Tail().Bytes(), 0
	for i := range 2000 {
		size := []int{4032, 1200}[i%2]
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 1, size-record.HeaderSize-8)))
		bytes += size
	}
	// The ends of pages are fillers too, of less than the longest record.
	took := s.log.Tail().Bytes() - begin
	pages := took/pageSizeMin + 1
	require.Less(t, took-pages*4032, int64(bytes+2*bytes/fitLoss))
	n.Close()
	require.NoError(t, s.Close())
}

// TestPlace_Everything: sessions that append between each other, passes of compaction
// and a cut of power leave something in the log that is no record and no filler, or a
// record at a place that the filler before it has.
func TestPlace_Everything(t *testing.T) {
	seed := newSeed(t)
	mem := newMem()
	s := openOn(t, mem, nil)
	sizes := []int{0, 8, 100, 552, 600, 1000, 1000, 2008, 4000, 4000, 4072, 8008, 60 << 10}
	const sessions, keys = 4, 60
	versions := [sessions][keys]uint64{}
	lengths := [sessions][keys]int{}
	round := func(number uint64) {
		var wg sync.WaitGroup
		for w := range sessions {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed+number, uint64(w)))
				n := s.NewSession()
				defer n.Close()
				for range 400 {
					k := rng.IntN(keys)
					size := sizes[rng.IntN(len(sizes))]
					versions[w][k]++
					lengths[w][k] = size
					id := w*keys + k
					if err := n.Put(key64(id), valueOf(uint64(id), versions[w][k], size)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	check := func() {
		n := s.NewSession()
		defer n.Close()
		for w := range sessions {
			for k := range keys {
				if versions[w][k] == 0 {
					continue
				}
				id := w*keys + k
				got, err := n.Get(key64(id), nil)
				require.NoError(t, err)
				require.NoError(t, valueIs(got, uint64(id), versions[w][k], lengths[w][k]))
			}
		}
	}
	for number := range uint64(3) {
		round(number)
		syncStore(t, s)
		compact(t, s, s.log.Tail().Bytes()/2)
		check()
		checkStore(t, s)
	}
	syncStore(t, s)
	image := mem.CrashImage(iotest.CrashOptions{})
	require.NoError(t, s.Close())
	res, err := Verify(VerifyOptions{Device: image}, func(d Damage) { t.Error(d) })
	require.NoError(t, err)
	require.Zero(t, res.Damages)
	s = openOn(t, image, nil)
	check()
	checkStore(t, s)
	require.NoError(t, s.Close())
}
