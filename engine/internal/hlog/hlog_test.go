package hlog

import (
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/epoch"
	"rskv/engine/internal/record"
	"rskv/ioring"
	"rskv/ioring/iotest"
	"rskv/ioring/iotest/seeds"
)

const (
	testPageBits = 18
	testPage     = 1 << testPageBits
	testUnits    = testPage / record.Unit
)

// rig is a log on a device that does nothing until it is told to.
type rig struct {
	*Log
	t     testing.TB
	mem   *iotest.Mem
	epoch *epoch.Domain
	slot  *epoch.Slot
	wakes int
	now   int64
}

func newRig(t testing.TB, pages int, seed uint64, wrap func(*iotest.Mem) ioring.Device) *rig {
	r := &rig{t: t, epoch: epoch.New()}
	r.mem = iotest.NewMem(iotest.MemOptions{Manual: true, Seed: seed, SegmentSize: 1 << 20})
	var dev ioring.Device = r.mem
	if wrap != nil {
		dev = wrap(r.mem)
	}
	r.slot = r.epoch.Register()
	var err error
	r.Log, err = New(Options{
		Device: dev, Epoch: r.epoch, PageBits: testPageBits, Pages: pages,
		StoreID: [16]byte{1}, Generation: 3, Wake: func() { r.wakes++ },
	})
	require.NoError(t, err)
	return r
}

// put allocates and writes a record of size bytes, with room on the disk.
func (r *rig) put(size int) (record.Addr, Status) {
	r.lookForRoom(r.now)
	r.slot.Enter()
	defer r.slot.Exit()
	a, p, status := r.Allocate(size)
	if status == OK {
		n := size - record.SizeFor(8, 0)
		record.Write(p, record.Word0(0, 8), record.Word1(record.Value, n, 0), []byte("12345678"), make([]byte, n))
	}
	return a, status
}

// flush lets the device and the flusher work until there is nothing to do.
func (r *rig) flush() {
	for {
		r.now += int64(fullRetry)
		wait := r.FlushStep(r.now)
		if !r.mem.Step() && wait != 0 {
			return
		}
	}
}

// tiled walks the bytes of a page that was read back and returns the address
// behind the last record that verifies.
func (r *rig) tiled(page int64) (records int, end int64) {
	buf := make([]byte, testPage+4096)
	skip := int(-uintptr(unsafe.Pointer(&buf[0])) & 4095)
	buf = buf[skip : skip+testPage]
	op := &ioring.Op{Kind: ioring.Read, Off: page * testPage, Buf: buf, Done: func(*ioring.Op) {}}
	r.mem.Submit([]*ioring.Op{op})
	r.mem.Run()
	require.NoError(r.t, op.Err)
	off := 0
	for off < testPage {
		a := record.Addr((page*testPage + int64(off)) / record.Unit)
		w0, w1, ok := record.Verify(buf[off:], r.seed, a)
		if !ok {
			break
		}
		if off == 0 {
			require.Equal(r.t, record.System, record.KindOf(w1))
			require.Equal(r.t, record.TypePage, record.KeyLen(w0))
			header := pageHeader(3, uint64(page))
			require.Equal(r.t, header[:], record.ValueOf(buf, w0, w1))
			require.Equal(r.t, PageHeaderSize, record.Size(w0, w1))
		}
		records++
		off += record.Size(w0, w1)
	}
	return records, page*testPage + int64(off)
}

// TestLog_PageTurn: a record crosses a page, the rest of a page is not a record,
// or the markers get out of order, at any length of the rest.
func TestLog_PageTurn(t *testing.T) {
	for rest := 0; rest <= 160; rest += record.Unit {
		r := newRig(t, PagesMin, 0, nil)
		room := testPage - FirstOffset - rest
		for room > 0 {
			size := min(room, 60_000)
			if left := room - size; left > 0 && left < 32 {
				size -= 32
			}
			_, status := r.put(size / record.Unit * record.Unit)
			require.Equal(t, OK, status)
			room -= size / record.Unit * record.Unit
		}
		require.EqualValues(t, testPage-rest, r.Tail().Bytes())
		a, status := r.put(192)
		require.Equal(t, OK, status)
		require.EqualValues(t, testUnits+FirstOffset/record.Unit, a, "rest of %d bytes", rest)
		require.EqualValues(t, testPage+FirstOffset+192, r.Tail().Bytes())
		_, end, ok := r.Cut(make([]byte, 64), 0)
		require.True(t, ok)
		r.flush()
		require.Equal(t, end, r.Flushed())
		_, until := r.tiled(0)
		require.EqualValues(t, testPage, until, "the first page is tiled")
		_, until = r.tiled(1)
		require.Equal(t, end.Bytes(), until)
		require.NoError(t, r.Free())
	}
}

// TestLog_CutEverywhere: a commit group that ends at some offset of a page is not
// tiled, does not end on a sector, or writes a sector twice.
func TestLog_CutEverywhere(t *testing.T) {
	r := newRig(t, 8, 0, nil)
	seen := map[int64]bool{}
	last := record.Addr(0)
	for i := 0; r.Tail() < 20*testUnits; i++ {
		size := 32 + i%256*record.Unit
		if _, status := r.put(size); status != OK {
			r.flush()
			continue
		}
		rec, end, ok := r.Cut(make([]byte, 64), 0)
		if !ok {
			r.flush()
			continue
		}
		require.Zero(t, end.Bytes()%SectorSize)
		require.Greater(t, rec, last)
		require.Equal(t, end, r.Tail())
		require.Equal(t, end, r.SafeReadOnly())
		last = rec
		r.flush()
		require.Equal(t, end, r.Flushed())
	}
	for _, e := range r.mem.Events() {
		for off := e.Off; off < e.Off+int64(e.Len); off += SectorSize {
			require.False(t, seen[off], "the sector at 0x%x is written twice", off)
			seen[off] = true
		}
	}
	for page := range int64(20) {
		_, until := r.tiled(page)
		require.EqualValues(t, (page+1)*testPage, until, "page %d", page)
	}
	require.NoError(t, r.Free())
}

// TestLog_Recycle: a frame is given to a new page while the old one is still
// needed, or never; a full log hands out memory that is not there.
func TestLog_Recycle(t *testing.T) {
	for _, pages := range []int{PagesMin, 7, 16, 40} {
		r := newRig(t, pages, 0, nil)
		waits := 0
		for r.Tail() < record.Addr(5*pages*testUnits) {
			_, status := r.put(50_000)
			switch status {
			case OK:
				require.LessOrEqual(t, int(r.Tail()>>r.unitBits)-int(r.Head()>>r.unitBits), pages)
			case Wait:
				waits++
				space := r.Space()
				require.False(t, r.Ready())
				r.flush()
				select {
				case <-space:
				default:
					t.Fatal("there is room, and nobody is told")
				}
				require.True(t, r.Ready())
			default:
				t.Fatalf("status %d", status)
			}
		}
		require.NotZero(t, waits, "%d pages", pages)
		require.GreaterOrEqual(t, int64(r.Head()), int64(4*pages*testUnits), "the head stays behind")
		r.flush()
		free := r.free.count.Load()
		used := int64(r.Tail()>>r.unitBits) - int64(r.safeHead.Load()>>r.unitBits) + 1
		require.EqualValues(t, pages, free+used, "a frame was lost")
		require.NoError(t, r.Free())
	}
}

// TestLog_SectionHoldsFrames: a page is taken away, or sealed, while somebody in a
// section may still look at it or write to it.
func TestLog_SectionHoldsFrames(t *testing.T) {
	r := newRig(t, PagesMin, 0, nil)
	other := r.epoch.Register()
	first, _ := r.put(64)
	other.Enter()
	for {
		if _, status := r.put(60_000); status == Wait {
			break
		}
	}
	r.flush()
	require.Greater(t, r.ReadOnly(), first)
	require.Zero(t, r.SafeReadOnly(), "somebody may still write below read-only")
	require.Zero(t, r.Flushed())
	other.Exit()
	r.flush()
	require.NotZero(t, r.SafeReadOnly())
	other.Enter()
	before := r.safeHead.Load()
	for r.Head() == record.Addr(before) {
		if _, status := r.put(60_000); status == Wait {
			r.flush()
		}
	}
	require.Equal(t, before, r.safeHead.Load(), "somebody may still look below head")
	other.Exit()
	require.EqualValues(t, r.Head(), r.safeHead.Load())
	require.NoError(t, r.Free())
}

// TestLog_OutOfOrder: a write that finishes before one at a lower address moves
// flushed over a gap.
func TestLog_OutOfOrder(t *testing.T) {
	seed := seeds.New(t)
	r := newRig(t, 24, seed, nil)
	for r.Tail() < 100*testUnits {
		_, status := r.put(60_000)
		if status == OK {
			continue
		}
		for range 3 {
			r.FlushStep(0)
		}
		r.mem.Step()
		r.FlushStep(0)
		// Everything below flushed has been written.
		written := map[int64]bool{}
		for _, e := range r.mem.Events() {
			written[e.Off/testPage] = true
		}
		for page := range r.Flushed().Bytes() / testPage {
			require.True(t, written[page], "flushed has passed page %d", page)
		}
	}
	_, end, ok := r.Cut(make([]byte, 64), 0)
	for !ok {
		r.flush()
		_, end, ok = r.Cut(make([]byte, 64), 0)
	}
	r.flush()
	require.Equal(t, end, r.Flushed())
	require.True(t, r.Idle())
	require.NoError(t, r.Free())
}

// TestLog_UnfinishedCut: a commit record whose payload is still being collected
// is sealed and written, because the writers have gone on for pages meanwhile.
func TestLog_UnfinishedCut(t *testing.T) {
	r := newRig(t, PagesMin, 0, nil)
	r.put(64)
	rest := []byte("the rest of the payload, collected after the door has opened....")
	rec, end, ok := r.Cut(make([]byte, 64), len(rest))
	require.True(t, ok)
	for range 3 {
		for {
			if _, status := r.put(60_000); status != OK {
				break
			}
		}
		r.flush()
	}
	require.LessOrEqual(t, r.SafeReadOnly(), rec)
	r.FinishCut(rec, end, 64, rest)
	require.GreaterOrEqual(t, r.SafeReadOnly(), end)
	r.flush()
	require.GreaterOrEqual(t, r.Flushed(), end)
	_, until := r.tiled(0)
	require.EqualValues(t, testPage, until)
	_, status := r.put(60_000)
	require.Equal(t, OK, status, "the log goes on")
	require.NoError(t, r.Free())
}

// TestLog_DiskFull: a full disk is taken for a broken one, or is not tried again.
func TestLog_DiskFull(t *testing.T) {
	var dev *iotest.Fault
	r := newRig(t, PagesMin, 0, func(m *iotest.Mem) ioring.Device { dev = iotest.NewFault(m, 1); return dev })
	remove := dev.Inject(iotest.Rule{Kind: ioring.Write, Err: syscall.EDQUOT})
	status := OK
	for status == OK {
		_, status = r.put(60_000)
	}
	for range 5 {
		r.now += int64(fullRetry)
		r.FlushStep(r.now)
		r.mem.Run()
	}
	require.True(t, r.Full())
	require.NoError(t, r.Err())
	_, status = r.put(60_000)
	require.Equal(t, Full, status)
	require.True(t, r.Ready(), "whoever waits hears of it")
	remove()
	r.flush()
	require.False(t, r.Full())
	_, status = r.put(60_000)
	require.Equal(t, OK, status)
	require.NoError(t, r.Free())
}

// TestLog_Failed: a broken disk is tried again, or hides behind a full one.
func TestLog_Failed(t *testing.T) {
	var dev *iotest.Fault
	r := newRig(t, PagesMin, 0, func(m *iotest.Mem) ioring.Device { dev = iotest.NewFault(m, 1); return dev })
	dev.Inject(iotest.Rule{Kind: ioring.Write, Err: syscall.EIO, Match: iotest.Nth(1)})
	status := OK
	for status == OK {
		_, status = r.put(60_000)
	}
	space := r.Space()
	for range 3 {
		r.FlushStep(0)
		r.mem.Run()
	}
	require.ErrorIs(t, r.Err(), syscall.EIO)
	<-space
	_, status = r.put(60_000)
	require.Equal(t, Failed, status)
	require.Zero(t, r.Flushed(), "flushed stops at the first failure")
	require.NoError(t, r.Free())
}

// TestLog_Refused: a log with too few pages, or one that begins inside a page,
// is made all the same.
func TestLog_Refused(t *testing.T) {
	opt := Options{Device: iotest.NewMem(iotest.MemOptions{}), Epoch: epoch.New(), PageBits: testPageBits, Pages: PagesMin - 1, Wake: func() {}}
	_, err := New(opt)
	require.ErrorContains(t, err, "need at least 6")
	opt.Pages, opt.Start = PagesMin, 1
	require.Panics(t, func() { _, _ = New(opt) })
}

// TestLog_LargeCut: the commit record of a store in which every ledger changed
// since the last commit, 4,096 of 32 bytes, does not fit the smallest page.
func TestLog_LargeCut(t *testing.T) {
	r := newRig(t, PagesMin, 0, nil)
	for range 3 { // the second finds no room in its page
		rest := make([]byte, 4096*32)
		rec, end, ok := r.Cut(make([]byte, 64), len(rest))
		require.True(t, ok)
		r.FinishCut(rec, end, 64, rest)
		r.flush()
		require.Equal(t, end, r.Flushed())
	}
	require.NoError(t, r.Free())
}
