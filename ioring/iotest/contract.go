package iotest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
	"rskv/ioring/iotest/seeds"
)

// waitMax bounds the wait for one operation: it is either lost or the machine
// stands still.
const waitMax = 2 * time.Minute

// Contract runs the tests that every Device has to pass. open returns a fresh,
// empty device with segments of at most 1 MiB and at least 256 KiB of staging
// memory, whose completions run without the test's help; Contract closes it.
func Contract(t *testing.T, open func(t *testing.T) ioring.Device) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(*testing.T, ioring.Device)
	}{
		{"ReadsBackWhatWasWritten", contractReadBack},
		{"RandomOps", contractRandom},
		{"Misuse", contractMisuse},
		{"NoSegment", contractNoSegment},
		{"ExtentAndDiscard", contractExtent},
		{"SubmitFromDone", contractFromDone},
		{"SyncAfterWrites", contractSync},
		{"Prepare", contractPrepare},
		{"PrepareRandom", contractPrepareRandom},
		{"Reserve", contractReserve},
		{"Recycle", contractRecycle},
		{"Metadata", contractMeta},
		{"MetadataStreams", contractStreams},
		{"MetadataStreamsRandom", contractStreamsRandom},
		{"MetadataStreamsClosed", contractStreamsClosed},
		{"Counters", contractCounters},
		{"CloseInFlight", contractClose},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t)
			c.run(t, d)
			require.NoError(t, d.Close())
			require.NoError(t, d.Close(), "a second close")
		})
	}
}

// Do submits one op and waits for it.
func Do(t testing.TB, d ioring.Device, kind ioring.OpKind, off int64, buf []byte) (int, error) {
	t.Helper()
	done := make(chan struct{})
	op := &ioring.Op{Kind: kind, Off: off, Buf: buf, Done: func(*ioring.Op) { close(done) }}
	d.Submit([]*ioring.Op{op})
	await(t, done)
	return op.N, op.Err
}

func await[T any](t testing.TB, done <-chan T) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(waitMax):
		t.Fatal("an operation never finished")
	}
}

// Aligned returns n bytes of Go memory that obey the strictest Align.
func Aligned(n int) []byte {
	whole := make([]byte, n+4096)
	skip := int(-uintptr(unsafe.Pointer(&whole[0])) & 4095)
	return whole[skip : skip+n : skip+n]
}

func fill(rng *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
}

// Bytes must come back from where they were put, whole, whether the buffer is
// staging memory, other memory, small or a whole segment.
func contractReadBack(t *testing.T, d ioring.Device) {
	rng := rand.New(rand.NewPCG(seeds.New(t), 1))
	unit := d.Align().Offset
	segment := int(d.SegmentSize())
	for _, n := range []int{unit, 2 * unit, min(16*4096, segment), segment} {
		data := Aligned(n)
		fill(rng, data)
		off := 3*int64(segment) + int64(segment-n)
		done, err := Do(t, d, ioring.Write, off, data)
		require.NoError(t, err)
		require.Equal(t, n, done)

		plain := Aligned(n)
		done, err = Do(t, d, ioring.Read, off, plain)
		require.NoError(t, err)
		require.Equal(t, n, done)
		require.True(t, bytes.Equal(data, plain), "%d bytes at %d", n, off)

		staged := d.Buffers().Get(n)
		if staged == nil {
			continue // a segment may be larger than the whole budget
		}
		_, err = Do(t, d, ioring.Read, off, staged)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, staged), "%d staged bytes at %d", n, off)
		d.Buffers().Put(staged)
	}
	require.Zero(t, d.Buffers().InUse())
}

// Many operations at once must not mix up their buffers, addresses or answers:
// goroutines write blocks that say where they belong and read them again.
func contractRandom(t *testing.T, d ioring.Device) {
	seed := seeds.New(t)
	unit := int64(d.Align().Offset)
	const workers, rounds, batch = 6, 40, 24
	share := 2 * d.SegmentSize() // of the address space, for each worker
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(w)))
			version := make(map[int64]byte)
			for range rounds {
				if err := randomBatch(d, rng, int64(w)*share, share/unit, unit, batch, version); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

// randomBatch submits reads and writes of different blocks in one call.
func randomBatch(d ioring.Device, rng *rand.Rand, base, blocks, unit int64, batch int, version map[int64]byte) error {
	chosen := make(map[int64]bool)
	done := make(chan *ioring.Op, batch)
	var ops []*ioring.Op
	for range batch {
		block := rng.Int64N(blocks)
		if chosen[block] {
			continue
		}
		chosen[block] = true
		op := &ioring.Op{Kind: ioring.Read, Off: base + block*unit, Buf: Aligned(int(unit)), Done: func(op *ioring.Op) { done <- op }}
		if rng.IntN(2) == 0 || version[block] == 0 {
			op.Kind = ioring.Write
			version[block]++
			stamp(op.Buf, op.Off, version[block])
		}
		ops = append(ops, op)
	}
	d.Submit(ops)
	for range ops {
		op := <-done
		if op.Err != nil || op.N != len(op.Buf) {
			return fmt.Errorf("op of kind %d at %d: %d bytes, %w", op.Kind, op.Off, op.N, op.Err)
		}
		want := Aligned(int(unit))
		stamp(want, op.Off, version[(op.Off-base)/unit])
		if op.Kind == ioring.Read && !bytes.Equal(op.Buf, want) {
			return fmt.Errorf("wrong bytes at %d", op.Off)
		}
	}
	return nil
}

func stamp(b []byte, off int64, version byte) {
	for i := range b {
		b[i] = byte(off>>12) ^ byte(i) ^ version*31
	}
}

// A device must refuse what it cannot do by an error on that op alone, and do
// the others of the same call.
func contractMisuse(t *testing.T, d ioring.Device) {
	unit := d.Align().Offset
	good := Aligned(unit)
	_, err := Do(t, d, ioring.Write, 0, good)
	require.NoError(t, err)
	for name, op := range map[string]ioring.Op{
		"empty":     {Kind: ioring.Read, Off: 0},
		"negative":  {Kind: ioring.Read, Off: -int64(unit), Buf: good},
		"far":       {Kind: ioring.Write, Off: (1<<63 - 1) &^ (1<<12 - 1), Buf: good},
		"crossing":  {Kind: ioring.Write, Off: d.SegmentSize() - int64(unit), Buf: Aligned(2 * unit)},
		"offset":    {Kind: ioring.Read, Off: 1, Buf: good},
		"length":    {Kind: ioring.Write, Off: 0, Buf: good[:unit-1]},
		"memory":    {Kind: ioring.Write, Off: 0, Buf: Aligned(unit + 1)[1:]},
		"over size": {Kind: ioring.Write, Off: 0, Buf: Aligned(int(d.SegmentSize()) + unit)},
	} {
		if (name == "offset" || name == "length") && unit == 1 || name == "memory" && d.Align().Memory == 1 {
			continue // not a misuse of this device
		}
		n, err := Do(t, d, op.Kind, op.Off, op.Buf)
		require.ErrorIs(t, err, ioring.ErrMisaligned, name)
		require.Zero(t, n, name)
	}
	bad := &ioring.Op{Kind: ioring.Read, Off: -1, Buf: good}
	fine := &ioring.Op{Kind: ioring.Read, Off: 0, Buf: Aligned(unit)}
	done := make(chan bool, 2)
	for _, op := range []*ioring.Op{bad, fine} {
		op.Done = func(*ioring.Op) { done <- true }
	}
	d.Submit([]*ioring.Op{bad, fine})
	await(t, done)
	await(t, done)
	require.ErrorIs(t, bad.Err, ioring.ErrMisaligned)
	require.NoError(t, fine.Err)
	require.Panics(t, func() { d.Submit([]*ioring.Op{{Kind: 77, Done: func(*ioring.Op) {}}}) })
	d.Submit(nil)
}

// A segment that does not exist must be told from one full of zeros.
func contractNoSegment(t *testing.T, d ioring.Device) {
	unit := d.Align().Offset
	_, err := Do(t, d, ioring.Read, 0, Aligned(unit))
	require.ErrorIs(t, err, ioring.ErrNoSegment)
	_, err = Do(t, d, ioring.Write, 0, Aligned(unit))
	require.NoError(t, err)
	_, err = Do(t, d, ioring.Read, d.SegmentSize(), Aligned(unit))
	require.ErrorIs(t, err, ioring.ErrNoSegment)

	rest := Aligned(unit)
	rest[0] = 1
	_, err = Do(t, d, ioring.Read, d.SegmentSize()-int64(unit), rest)
	require.NoError(t, err)
	require.Equal(t, make([]byte, unit), rest, "the part never written")
}

// Discard must remove whole segments below its bound, and nothing else.
func contractExtent(t *testing.T, d ioring.Device) {
	unit := d.Align().Offset
	size := d.SegmentSize()
	begin, end := d.Extent()
	require.Equal(t, [2]int64{0, 0}, [2]int64{begin, end})
	for _, index := range []int64{5, 2, 3, 4} {
		_, err := Do(t, d, ioring.Write, index*size, Aligned(unit))
		require.NoError(t, err)
	}
	for _, step := range [][3]int64{{0, 2, 6}, {3*size - 1, 2, 6}, {3 * size, 3, 6}, {5*size + 1, 5, 6}, {100 * size, 0, 0}} {
		require.NoError(t, d.Discard(step[0]))
		begin, end = d.Extent()
		require.Equal(t, [2]int64{step[1] * size, step[2] * size}, [2]int64{begin, end}, "discard %d", step[0])
	}
	_, err := Do(t, d, ioring.Read, 5*size, Aligned(unit))
	require.ErrorIs(t, err, ioring.ErrNoSegment)
	_, err = Do(t, d, ioring.Write, 2*size, Aligned(unit))
	require.NoError(t, err, "an address may come back")
	_, err = Do(t, d, ioring.Sync, 0, nil)
	require.NoError(t, err)
}

// An op must be its owner's again inside Done: a chain of resubmissions must not
// deadlock, nor grow a stack by one frame for each link.
func contractFromDone(t *testing.T, d ioring.Device) {
	unit := d.Align().Offset
	_, err := Do(t, d, ioring.Write, 0, Aligned(unit))
	require.NoError(t, err)
	const links, chains = 300, 4
	done := make(chan error, chains)
	for range chains {
		left := links
		op := &ioring.Op{Kind: ioring.Read, Buf: Aligned(unit)}
		op.Done = func(op *ioring.Op) {
			left--
			switch {
			case op.Err != nil || left == 0:
				done <- op.Err
			case left%100 == 0:
				op.Kind = ioring.Sync
				d.Submit([]*ioring.Op{op})
			default:
				op.Kind = ioring.Read
				d.Submit([]*ioring.Op{op})
			}
		}
		d.Submit([]*ioring.Op{op})
	}
	for range chains {
		select {
		case err := <-done:
			require.NoError(t, err)
		case <-time.After(waitMax):
			t.Fatal("a chain of operations stopped")
		}
	}
}

// Many syncs at once, some with nothing to do, must all be answered.
func contractSync(t *testing.T, d ioring.Device) {
	unit := d.Align().Offset
	_, err := Do(t, d, ioring.Sync, 0, nil)
	require.NoError(t, err, "nothing written")
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			for i := range 5 {
				off := int64(i)*d.SegmentSize() + int64(w*unit)
				if _, err := Do(t, d, ioring.Write, off, Aligned(unit)); err != nil {
					t.Error(err)
				}
				if _, err := Do(t, d, ioring.Sync, 0, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

// Metadata must be replaced whole, listed in order, and kept apart from files
// by odd names.
func contractMeta(t *testing.T, d ioring.Device) {
	_, err := d.ReadMeta("manifest")
	require.ErrorIs(t, err, ioring.ErrNoMeta)
	require.NoError(t, d.RemoveMeta("manifest"))
	names, err := d.ListMeta()
	require.NoError(t, err)
	require.Empty(t, names)

	content := []byte("one")
	require.NoError(t, d.WriteMeta("manifest", content))
	content[0] = 'X' // the device must have its own copy
	require.NoError(t, d.WriteMeta("a-1", nil))
	big := bytes.Repeat([]byte("0123456789"), 50_000)
	require.NoError(t, d.WriteMeta("zz.snapshot", big))
	data, err := d.ReadMeta("manifest")
	require.NoError(t, err)
	require.Equal(t, "one", string(data))
	data[0] = 'Y'
	data, err = d.ReadMeta("manifest")
	require.NoError(t, err)
	require.Equal(t, "one", string(data), "a reader may change its copy")
	data, err = d.ReadMeta("a-1")
	require.NoError(t, err)
	require.Empty(t, data)

	require.NoError(t, d.WriteMeta("manifest", []byte("2")))
	data, err = d.ReadMeta("manifest")
	require.NoError(t, err)
	require.Equal(t, "2", string(data))
	data, err = d.ReadMeta("zz.snapshot")
	require.NoError(t, err)
	require.True(t, bytes.Equal(big, data))
	names, err = d.ListMeta()
	require.NoError(t, err)
	require.Equal(t, []string{"a-1", "manifest", "zz.snapshot"}, names)

	require.NoError(t, d.RemoveMeta("a-1"))
	names, err = d.ListMeta()
	require.NoError(t, err)
	require.Equal(t, []string{"manifest", "zz.snapshot"}, names)
	for _, name := range []string{"", ".", "..", "a/b", "/etc/passwd", ".hidden", "a b", "a\x00b", string(make([]byte, 65))} {
		require.Error(t, d.WriteMeta(name, content), "%q", name)
		_, err := d.ReadMeta(name)
		require.Error(t, err, "%q", name)
		require.False(t, errors.Is(err, ioring.ErrNoMeta), "%q", name)
		require.Error(t, d.RemoveMeta(name), "%q", name)
	}
}

// Figures that operators see must be right.
func contractCounters(t *testing.T, d ioring.Device) {
	unit := d.Align().Offset
	for range 3 {
		_, err := Do(t, d, ioring.Write, 0, Aligned(2*unit))
		require.NoError(t, err)
	}
	for range 2 {
		_, err := Do(t, d, ioring.Read, 0, Aligned(unit))
		require.NoError(t, err)
	}
	_, err := Do(t, d, ioring.Sync, 0, nil)
	require.NoError(t, err)
	_, err = Do(t, d, ioring.Read, 7*d.SegmentSize(), Aligned(unit))
	require.Error(t, err)
	// The count goes down just after Done.
	require.Eventually(t, func() bool { return d.Counters().InFlight == 0 }, waitMax, time.Millisecond)
	c := d.Counters()
	require.EqualValues(t, 3, c.Writes)
	require.EqualValues(t, 6*unit, c.WriteBytes)
	require.EqualValues(t, 3, c.Reads)
	require.EqualValues(t, 2*unit, c.ReadBytes)
	require.EqualValues(t, 1, c.Syncs)
	require.EqualValues(t, 1, c.Errors)
	timed := func(of ioring.Times) (n uint64) {
		for _, in := range of.Counts {
			n += in
		}
		return n
	}
	if reads := timed(c.ReadTimes); reads > 0 { // it has a clock
		require.Equal(t, []uint64{3, 3, 1}, []uint64{reads, timed(c.WriteTimes), timed(c.SyncTimes)})
		require.Positive(t, c.WriteTimes.Sum)
		require.Less(t, c.WriteTimes.Sum, waitMax)
	}
	info := d.Info()
	require.NotEmpty(t, info.Backend)
	require.NotEmpty(t, info.Why)
	align := d.Align()
	for _, n := range []int{align.Offset, align.Memory} {
		require.True(t, n >= 1 && n <= 4096 && n&(n-1) == 0, "alignment %d", n)
	}
}

// Close must wait for what is in flight, and every op must be answered exactly
// once whether it came before, during or after.
func contractClose(t *testing.T, d ioring.Device) {
	unit := d.Align().Offset
	_, err := Do(t, d, ioring.Write, 0, Aligned(unit))
	require.NoError(t, err)
	const submitters, each = 4, 200
	type result struct{ fine, closed int }
	results := make(chan result, submitters)
	begun := make(chan bool, submitters)
	for range submitters {
		go func() {
			var r result
			done := make(chan error, each)
			ops := make([]*ioring.Op, each)
			for i := range ops {
				ops[i] = &ioring.Op{Kind: []ioring.OpKind{ioring.Read, ioring.Write, ioring.Sync}[i%3], Buf: Aligned(unit),
					Done: func(op *ioring.Op) { done <- op.Err }}
			}
			d.Submit(ops[:each/2])
			begun <- true
			for _, op := range ops[each/2:] {
				d.Submit([]*ioring.Op{op})
			}
			for range ops {
				switch err := <-done; {
				case err == nil:
					r.fine++
				case errors.Is(err, ioring.ErrClosed):
					r.closed++
				}
			}
			results <- r
		}()
	}
	for range submitters {
		<-begun
	}
	require.NoError(t, d.Close())
	for range submitters {
		select {
		case r := <-results:
			require.Equal(t, each, r.fine+r.closed)
			require.GreaterOrEqual(t, r.fine, each/2)
		case <-time.After(waitMax):
			t.Fatal("operations were lost")
		}
	}
	for _, kind := range []ioring.OpKind{ioring.Read, ioring.Write, ioring.Sync} {
		_, err := Do(t, d, kind, 0, Aligned(unit))
		require.ErrorIs(t, err, ioring.ErrClosed)
	}
	require.ErrorIs(t, d.WriteMeta("a", nil), ioring.ErrClosed)
	require.ErrorIs(t, d.Discard(1), ioring.ErrClosed)
}
