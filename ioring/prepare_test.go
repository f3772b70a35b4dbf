//go:build unix

package ioring

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring/iotest/seeds"
)

const prepareSegment = 1 << 20

func openPrepare(t *testing.T) *disk {
	d, err := Open(Options{Dir: t.TempDir(), SegmentSize: prepareSegment, BufferBytes: 1 << 20})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d.(*disk)
}

// A write must never be under way in a piece together with zeros, nor come before
// them there: the race detector and the final bytes both tell.
func TestZeroing_Exclusive(t *testing.T) {
	seed := seeds.New(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	const size, writers = 1 << 16, 4
	for range 200 {
		z := newZeroing(size)
		memory := make([]byte, size)
		for i := range memory {
			memory[i] = 'o'
		}
		drawn := [writers]uint64{rng.Uint64(), rng.Uint64(), rng.Uint64(), rng.Uint64()}
		var group sync.WaitGroup
		for w := range writers {
			group.Go(func() {
				rng := rand.New(rand.NewPCG(drawn[w], 0))
				share := memory[w*size/writers:][:size/writers]
				for range 3 {
					off := rng.IntN(len(share))
					n := 1 + rng.IntN(min(len(share)-off, 9000))
					z.claim(int64(w*size/writers+off), int64(n))
					for i := range n {
						share[off+i] = 'w'
					}
				}
			})
		}
		zeroed := 0
		for i := range z.pieces() {
			if z.begin(i) {
				clear(memory[int64(i)*z.piece:][:z.piece])
				z.end()
				zeroed++
			}
		}
		group.Wait()
		for i, taken := range z.mu.taken {
			piece := memory[int64(i)*z.piece:][:z.piece]
			require.Equal(t, taken, contains(piece, 'w'), "piece %d", i)
			require.True(t, taken || !contains(piece, 'o'), "piece %d is neither zero nor taken", i)
		}
	}
}

func contains(p []byte, b byte) bool {
	for _, c := range p {
		if c == b {
			return true
		}
	}
	return false
}

// Pieces must cover a segment exactly and never be larger than what a write may
// wait for.
func TestZeroing_Pieces(t *testing.T) {
	for size, piece := range map[int64]int64{4096: 4096, 1 << 16: 4096, 1 << 20: 1 << 16, 64 << 20: 1 << 20, 1 << 30: 1 << 20} {
		z := newZeroing(size)
		require.Equal(t, piece, z.piece, "%d", size)
		require.EqualValues(t, size, int64(z.pieces())*z.piece)
	}
}

// A segment that has been discarded must not come back because somebody asked for
// it long ago; one that exists must not be zeroed.
func TestVolume_MakeBlank_Refuses(t *testing.T) {
	d := openPrepare(t)
	v := d.volume
	require.NoError(t, d.Discard(2*prepareSegment))
	for index := range int64(2) {
		s, file, err := v.makeBlank(index)
		require.NoError(t, err)
		require.Nil(t, s)
		require.Nil(t, file)
	}
	s, file, err := v.makeBlank(2)
	require.NoError(t, err)
	defer file.Close()
	require.True(t, v.wants(s))
	again, _, err := v.makeBlank(2)
	require.NoError(t, err)
	require.Nil(t, again)
	begin, end := v.extent()
	require.Equal(t, [2]int64{2 * prepareSegment, 3 * prepareSegment}, [2]int64{begin, end})

	// Discarded while it is being filled, and made anew by a write.
	require.NoError(t, d.Discard(3*prepareSegment))
	require.False(t, v.wants(s))
	fresh, err := v.writable(2*prepareSegment, 4096)
	require.NoError(t, err)
	defer fresh.release()
	require.NotSame(t, s, fresh)
	require.False(t, v.wants(s))
	_ = v.fail(os.ErrInvalid)
	require.False(t, v.wants(fresh), "a failed sync ends it")
	other, _, err := v.makeBlank(7)
	require.NoError(t, err)
	require.Nil(t, other)
}

// A write must wait for the zeros that are just being written, and for no others.
func TestVolume_Writable_WaitsForPiece(t *testing.T) {
	d := openPrepare(t)
	s, file, err := d.volume.makeBlank(0)
	require.NoError(t, err)
	defer file.Close()
	z := s.zeroing.Load()
	require.True(t, z.begin(3))
	elsewhere, err := d.volume.writable(4*z.piece, 4096)
	require.NoError(t, err)
	elsewhere.release()
	through := make(chan bool)
	go func() {
		s, err := d.volume.writable(3*z.piece+4096, 4096)
		if err == nil {
			s.release()
		}
		through <- err == nil
	}()
	select {
	case <-through:
		t.Fatal("a write began while zeros were being written there")
	case <-time.After(20 * time.Millisecond):
	}
	z.end()
	require.True(t, <-through)
	require.False(t, z.begin(3))
	require.False(t, z.begin(4))
	require.True(t, z.begin(5))
	z.end()
}

// Only so much must wait as is asked for ahead, however often one asks, and the
// segment that is written next must not lose its turn to the one behind it.
func TestPreparer_Ask_Bounded(t *testing.T) {
	d := openPrepare(t)
	p := &d.prepares
	p.mu.running = true // nobody takes what waits
	for index := range int64(100) {
		d.Prepare((index + 1) * prepareSegment)
	}
	begin, end := d.Extent()
	require.Equal(t, [2]int64{0, blankMax * prepareSegment}, [2]int64{begin, end}, "made at once")
	require.Len(t, p.mu.blank, blankMax)
	require.EqualValues(t, 0, p.mu.blank[0].segment.begin)
	p.group.Go(p.run)
	p.group.Wait()
	require.EqualValues(t, blankMax*prepareSegment, d.Counters().PrepareBytes)
	require.Nil(t, d.volume.mu.segments[0].zeroing.Load(), "writes do not ask any more")
	d.Prepare(3 * prepareSegment)
	require.Eventually(t, func() bool { return d.Counters().PrepareBytes == 3*prepareSegment }, 30*time.Second, time.Millisecond)
}

// Closing must not wait for a whole segment, nor leave goroutines or files.
func TestPreparer_Close(t *testing.T) {
	const size = 64 << 20
	var dir string
	var d Device
	// A fast disk may be through before it is seen to have begun, but not each time.
	for written, try := uint64(size), 0; written == size; try++ {
		require.Less(t, try, 20, "it waits for the whole segment")
		dir = t.TempDir()
		var err error
		d, err = Open(Options{Dir: dir, SegmentSize: size, BufferBytes: 1 << 20})
		require.NoError(t, err)
		d.Prepare(size)
		require.Eventually(t, func() bool { return d.Counters().PrepareBytes > 0 }, 30*time.Second, 100*time.Microsecond)
		require.NoError(t, d.Close())
		written = d.Counters().PrepareBytes
	}
	require.False(t, d.(*disk).prepares.mu.running)
	st, err := os.Stat(filepath.Join(dir, segmentName(26, 0)))
	require.NoError(t, err)
	require.EqualValues(t, size, st.Size())
}

// A segment that a write has made, or that was there before, must get its zeros, but
// not where something was written: that would be lost.
func TestPreparer_HalfWritten(t *testing.T) {
	dir := t.TempDir()
	options := Options{Dir: dir, SegmentSize: prepareSegment, BufferBytes: 1 << 20}
	open := func() *disk {
		d, err := Open(options)
		require.NoError(t, err)
		return d.(*disk)
	}
	block := bytes.Repeat([]byte{'a'}, 4096)
	write := func(d *disk, off int64) {
		s, err := d.volume.writable(off, 4096)
		require.NoError(t, err)
		_, err = s.file.WriteAt(alignedCopy(t, block), off-s.begin)
		require.NoError(t, err)
		s.release()
	}
	const piece = prepareSegment / piecesMin
	d := open()
	for _, off := range []int64{0, 5*piece + 4096, prepareSegment, 3 * prepareSegment} {
		write(d, off)
	}
	d.Prepare(prepareSegment)
	require.Eventually(t, func() bool { return d.Counters().PrepareBytes == prepareSegment-2*piece }, 30*time.Second, time.Millisecond)
	d.Prepare(prepareSegment)
	require.True(t, d.volume.prepared(0))
	require.False(t, d.volume.prepared(1))
	require.NoError(t, d.Close())

	d = open()
	defer func() { require.NoError(t, d.Close()) }()
	if d.volume.prepared(3) {
		t.Skip("this file system does not tell which blocks were never written")
	}
	require.True(t, d.volume.prepared(1), "not one of the last two")
	write(d, 3*prepareSegment+9*piece)
	d.Prepare(4 * prepareSegment)
	require.Eventually(t, func() bool { return d.Counters().PrepareBytes == prepareSegment-2*piece }, 30*time.Second, time.Millisecond)
	want := map[int64]bool{0: true, 5*piece + 4096: true, prepareSegment: true, 3 * prepareSegment: true, 3*prepareSegment + 9*piece: true}
	got := alignedCopy(t, block)
	for _, index := range []int64{0, 1, 3} {
		for off := index * prepareSegment; off < (index+1)*prepareSegment; off += 4096 {
			s, err := d.volume.readable(off)
			require.NoError(t, err)
			_, err = s.file.ReadAt(got, off-s.begin)
			s.release()
			require.NoError(t, err)
			require.Equal(t, want[off], bytes.Equal(block, got), "block at %d", off)
			require.True(t, want[off] || bytes.Count(got, []byte{0}) == 4096, "block at %d", off)
		}
	}
}

// A segment that becomes another one must not be given to the preparer, nor the other
// way round: its zeros would destroy what the other one holds.
func TestZeroing_Given(t *testing.T) {
	for range 500 {
		z := newZeroing(1 << 16)
		var got [2]bool
		var group sync.WaitGroup
		for i, to := range []zeroingOwner{prepares, discards} {
			group.Go(func() { got[i] = z.give(to) })
		}
		group.Wait()
		require.NotEqual(t, got[0], got[1])
		require.False(t, z.available())
	}
}
