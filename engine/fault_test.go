package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/hlog"
	"rskv/engine/internal/record"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

// openFault opens a store on a device that goes wrong by rules.
func openFault(t testing.TB, change func(*Options)) (*Store, *iotest.Fault, *iotest.Mem) {
	mem := newMem()
	dev := iotest.NewFault(mem, 1)
	return openOn(t, dev, change), dev, mem
}

// writesOf is one op of every kind that writes, on one key.
func writesOf(key []byte) []Op {
	return []Op{
		{Kind: OpPut, Key: key, Value: []byte("new")},
		{Kind: OpPut, If: IfPresent, Key: key, Value: []byte("new")},
		{Kind: OpDelete, Key: key},
		{Kind: OpDelete, Blind: true, Key: key},
		{Kind: OpCompareAndSwap, Key: key, Old: []byte("old"), Value: []byte("new")},
		{Kind: OpAdd, Key: key, Delta: 1},
		{Kind: OpAppend, Key: key, Value: []byte("new")},
		{Kind: OpUpdate, Key: key, Fn: func([]byte, bool) ([]byte, Verdict) { return []byte("new"), Replace }},
		{Kind: OpPut, Key: key, Value: make([]byte, 3*chunkBytes)},
	}
}

// TestFault_Write: after a write has failed, something is acknowledged that can
// never become durable, a refused write takes effect, or reads stop.
func TestFault_Write(t *testing.T) {
	s, dev, _ := openFault(t, nil)
	n := s.NewSession()
	for _, key := range []string{"hot", "cold"} {
		require.NoError(t, n.Put([]byte(key), []byte("old")))
	}
	evict(t, s, n)
	require.NoError(t, n.Put([]byte("hot"), []byte("old")))
	dev.Inject(iotest.Rule{Kind: ioring.Write, Err: syscall.EIO})
	_, err := s.Sync(context.Background())
	require.ErrorIs(t, err, ErrReadOnly)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorIs(t, s.Err(), ErrReadOnly)
	require.Contains(t, s.Stats().State, "read-only")

	for _, key := range []string{"hot", "cold", "none"} {
		ops := append([]Op{{Kind: OpGet, Key: []byte(key)}}, writesOf([]byte(key))...)
		n.Do(ops)
		require.NoError(t, ops[0].Err)
		for _, op := range ops[1:] {
			require.ErrorIs(t, op.Err, ErrReadOnly, "%s, kind %d", key, op.Kind)
			single := op
			require.ErrorIs(t, n.one(&single), ErrReadOnly, "%s, kind %d", key, op.Kind)
		}
		value, err := n.Get([]byte(key), nil)
		if key == "none" {
			require.ErrorIs(t, err, ErrNotFound, "a refused write took effect")
			continue
		}
		require.NoError(t, err)
		require.Equal(t, "old", string(value), "a refused write took effect")
	}
	_, err = s.Sync(context.Background())
	require.ErrorIs(t, err, ErrReadOnly)
	n.Close()
	checkStore(t, s)
	require.ErrorIs(t, s.Close(), ErrReadOnly)
}

// TestFault_WritePending: a read-modify-write that waited for the disk while the
// store became read-only is acknowledged.
func TestFault_WritePending(t *testing.T) {
	s, dev, _ := openFault(t, nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("cold"), []byte("old")))
	evict(t, s, n)
	require.NoError(t, n.Put([]byte("dirty"), nil))
	ops := writesOf([]byte("cold"))[1:2]
	require.Equal(t, 1, n.Start(ops))
	dev.Inject(iotest.Rule{Kind: ioring.Write, Err: syscall.EIO})
	_, err := s.Sync(context.Background())
	require.ErrorIs(t, err, ErrReadOnly)
	n.wait(func(op *Op) { err = op.Err })
	require.ErrorIs(t, err, ErrReadOnly)
	value, err := n.Get([]byte("cold"), nil)
	require.NoError(t, err)
	require.Equal(t, "old", string(value))
	n.Close()
	checkStore(t, s)
	require.ErrorIs(t, s.Close(), ErrReadOnly)
}

// TestFault_WaitingForSpace: a writer that waits for a log page when the store
// becomes read-only waits for ever.
func TestFault_WaitingForSpace(t *testing.T) {
	s, dev, _ := openFault(t, nil)
	dev.Inject(iotest.Rule{Kind: ioring.Write, Err: syscall.EIO, Match: iotest.From(3)})
	n := s.NewSession()
	value := make([]byte, 60<<10)
	waitFor(t, "a writer on a broken disk", background(func() {
		for i := 0; ; i++ {
			if err := n.Put(key64(i), value); err != nil {
				require.ErrorIs(t, err, ErrReadOnly)
				return
			}
		}
	}))
	n.Close()
	require.ErrorIs(t, s.Close(), ErrReadOnly)
}

// TestFault_Sync: a failed sync is taken back by a later one that succeeds, or
// what it should have covered counts as durable.
func TestFault_Sync(t *testing.T) {
	s, dev, mem := openFault(t, nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("safe"), []byte("1")))
	first := syncStore(t, s)
	remove := dev.Inject(iotest.Rule{Kind: ioring.Sync, Err: syscall.EIO})
	require.NoError(t, n.Put([]byte("lost"), []byte("2")))
	version, err := s.Sync(context.Background())
	require.ErrorIs(t, err, ErrReadOnly)
	require.ErrorIs(t, err, ioring.ErrSyncFailed)
	require.Equal(t, first, version, "the version that is durable")
	remove()
	_, err = s.Sync(context.Background())
	require.ErrorIs(t, err, ErrReadOnly)
	require.ErrorIs(t, n.Put([]byte("more"), nil), ErrReadOnly)
	value, err := n.Get([]byte("lost"), nil)
	require.NoError(t, err)
	require.Equal(t, "2", string(value), "reads go on")
	n.Close()
	checkStore(t, s)
	require.ErrorIs(t, s.Close(), ErrReadOnly)

	s = openOn(t, mem.CrashImage(iotest.CrashOptions{}), nil)
	require.Equal(t, first, s.Recovery().Version)
	n = s.NewSession()
	_, err = n.Get([]byte("safe"), nil)
	require.NoError(t, err)
	n.Close()
	checkStore(t, s)
	require.NoError(t, s.Close())
}

// TestFault_DiskFull: a full disk hangs writers or those who wait for a commit,
// stops reads, or is not forgotten when there is room again.
func TestFault_DiskFull(t *testing.T) {
	s, dev, _ := openFault(t, nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("before"), []byte("1")))
	syncStore(t, s)
	remove := dev.Inject(iotest.Rule{Kind: ioring.Write, Err: syscall.ENOSPC})
	require.NoError(t, n.Put([]byte("during"), []byte("2")))
	_, err := s.Sync(context.Background())
	require.ErrorIs(t, err, ErrDiskFull)
	require.NoError(t, s.Err(), "a full disk is no failure")
	require.Equal(t, "disk full", s.Stats().State)

	// A second one, that asks while the first group still waits for room.
	var again error
	waitFor(t, "a second Sync on a full disk", background(func() { _, again = s.Sync(context.Background()) }))
	require.ErrorIs(t, again, ErrDiskFull)

	value := make([]byte, 60<<10)
	written := 0
	waitFor(t, "a writer on a full disk", background(func() {
		for again = nil; again == nil; written++ {
			again = n.Put(key64(written), value)
		}
	}))
	require.ErrorIs(t, again, ErrDiskFull)
	written--
	large := writesOf([]byte("large"))
	require.ErrorIs(t, n.one(&large[len(large)-1]), ErrDiskFull)
	for _, key := range []string{"before", "during"} {
		_, err := n.Get([]byte(key), nil)
		require.NoError(t, err)
	}

	remove()
	require.Eventually(t, func() bool {
		_, err := s.Sync(context.Background())
		return err == nil
	}, waitLong, time.Millisecond)
	require.NoError(t, n.Put([]byte("after"), []byte("3")))
	syncStore(t, s)
	require.Equal(t, "ok", s.Stats().State)
	for i := range written {
		got, err := n.Get(key64(i), nil)
		require.NoError(t, err, "key %d", i)
		require.Len(t, got, len(value))
	}
	n.Close()
	checkLen(t, s, written+3)
	require.NoError(t, s.Close())
}

// TestFault_CloseDiskFull: a store on a full disk can not be closed.
func TestFault_CloseDiskFull(t *testing.T) {
	s, dev, mem := openFault(t, nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("safe"), []byte("1")))
	syncStore(t, s)
	dev.Inject(iotest.Rule{Kind: ioring.Write, Err: syscall.ENOSPC})
	require.NoError(t, n.Put([]byte("lost"), []byte("2")))
	_, err := s.Sync(context.Background())
	require.ErrorIs(t, err, ErrDiskFull)
	n.Close()
	waitFor(t, "Close on a full disk", background(func() { err = s.Close() }))
	require.ErrorIs(t, err, ErrDiskFull)

	s = openOn(t, mem.CrashImage(iotest.CrashOptions{}), nil)
	checkLen(t, s, 1)
	require.NoError(t, s.Close())
}

// TestFault_Read: a failed read passes for an absent key, or breaks more than
// the operation that needed it.
func TestFault_Read(t *testing.T) {
	s, dev, _ := openFault(t, nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("cold"), []byte("old")))
	require.NoError(t, n.Put([]byte("large"), valueOf(1, 1, 5*chunkBytes)))
	require.NoError(t, n.Put([]byte("sum"), binary.LittleEndian.AppendUint64(nil, 7)))
	evict(t, s, n)
	remove := dev.Inject(iotest.Rule{Kind: ioring.Read, Err: syscall.EIO})
	ops := []Op{
		{Kind: OpGet, Key: []byte("cold")},
		{Kind: OpExists, Key: []byte("cold")},
		{Kind: OpGet, Key: []byte("large")},
		{Kind: OpAdd, Key: []byte("sum"), Delta: 1},
		{Kind: OpDelete, Key: []byte("cold")},
		{Kind: OpAppend, Key: []byte("cold"), Value: []byte("x")},
		{Kind: OpPut, If: IfAbsent, Key: []byte("cold"), Value: []byte("x")},
	}
	n.Do(ops)
	for _, op := range ops {
		require.ErrorIs(t, op.Err, ErrIO, "kind %d", op.Kind)
		require.ErrorIs(t, op.Err, syscall.EIO)
		require.False(t, op.Found)
	}
	require.NoError(t, n.Put([]byte("hot"), []byte("1")), "writes go on")
	require.NoError(t, s.Err())
	remove()
	// A chunk fails, not the record that lists them.
	dev.Inject(iotest.Rule{Kind: ioring.Read, Err: syscall.EIO, Match: func(op *ioring.Op, _ int) bool { return len(op.Buf) > chunkBytes }})
	_, err := n.Get([]byte("large"), nil)
	require.ErrorIs(t, err, ErrIO)
	sum, err := n.Add([]byte("sum"), 1)
	require.NoError(t, err)
	require.EqualValues(t, 8, sum)
	n.Close()
	require.NotZero(t, s.Stats().ReadErrors)
	checkStore(t, s)
	require.NoError(t, s.Close())
}

// TestFault_FlippedBit: a flipped bit in a cold record becomes a wrong value, an
// absent key, or an error that does not say where.
func TestFault_FlippedBit(t *testing.T) {
	s, _, mem := openFault(t, nil)
	n := s.NewSession()
	const size = 300
	require.NoError(t, n.Put([]byte("cold"), valueOf(1, 1, size)))
	addr := s.log.Tail().Bytes() - int64(record.SizeFor(len("cold"), size))
	require.NoError(t, n.Put([]byte("large"), valueOf(2, 1, 3*chunkBytes)))
	evict(t, s, n)
	for at := addr; at < addr+16+8+size; at++ {
		bit := byte(1) << (at % 8)
		mem.Corrupt(at, func(b byte) byte { return b ^ bit })
		_, err := n.Get([]byte("cold"), nil)
		require.ErrorIs(t, err, ErrCorrupt, "byte %d", at-addr)
		var where *CorruptError
		require.ErrorAs(t, err, &where)
		require.Equal(t, addr, where.Addr, "byte %d", at-addr)
		ok, err := n.PutIf([]byte("cold"), []byte("x"), IfAbsent)
		require.ErrorIs(t, err, ErrCorrupt)
		require.False(t, ok)
		mem.Corrupt(at, func(b byte) byte { return b ^ bit })
	}
	value, err := n.Get([]byte("cold"), nil)
	require.NoError(t, err)
	require.NoError(t, valueIs(value, 1, 1, size))
	// The middle chunk of a large value.
	mem.Corrupt(addr+2*chunkBytes, func(b byte) byte { return b ^ 1 })
	_, err = n.Get([]byte("large"), nil)
	require.ErrorIs(t, err, ErrCorrupt)
	require.NotZero(t, s.Stats().Corrupt)
	n.Close()
	require.NoError(t, s.Close())
}

// TestFault_LostSegment: a segment that is gone passes for "never written".
func TestFault_LostSegment(t *testing.T) {
	s, _, mem := openFault(t, nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("cold"), []byte("old")))
	evict(t, s, n)
	require.NoError(t, mem.Discard(mem.SegmentSize()))
	_, err := n.Get([]byte("cold"), nil)
	require.ErrorIs(t, err, ErrCorrupt)
	n.Close()
	require.NoError(t, s.Close())
}

// TestFault_Manifest: a store whose manifest can not be written is opened all
// the same, and writes under a generation that nobody knows of.
func TestFault_Manifest(t *testing.T) {
	dev := iotest.NewFault(newMem(), 1)
	dev.FailMeta(syscall.EIO)
	_, err := tryOpenOn(dev, nil)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorContains(t, err, "MANIFEST")

	s, dev, mem := openFault(t, nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("key"), []byte("1")))
	n.Close()
	dev.FailMeta(syscall.ENOSPC)
	require.ErrorIs(t, s.Close(), syscall.ENOSPC)
	s = openOn(t, mem.CrashImage(iotest.CrashOptions{}), nil)
	checkLen(t, s, 1)
	require.NoError(t, s.Close(), "what was committed is there")
}

// TestFault_CommitCallback: a commit that fails tells some of those who wait.
func TestFault_CommitCallback(t *testing.T) {
	s, dev, _ := openFault(t, nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("key"), []byte("1")))
	dev.Inject(iotest.Rule{Kind: ioring.Sync, Err: syscall.EIO, Delay: 5 * time.Millisecond})
	const callers = 20
	answers := make(chan error, 2*callers)
	for range callers {
		s.Commit(func(_ uint64, err error) { answers <- err })
	}
	for range callers {
		select {
		case err := <-answers:
			require.ErrorIs(t, err, ErrReadOnly)
		case <-time.After(10 * time.Second):
			t.Fatal("an answer is missing")
		}
	}
	n.Close()
	require.ErrorIs(t, s.Close(), ErrReadOnly)
	s.Commit(func(_ uint64, err error) { answers <- err })
	require.ErrorIs(t, <-answers, ErrClosed)
	require.Empty(t, answers, "an answer was given twice")
	_, err := s.Sync(context.Background())
	require.ErrorIs(t, err, ErrClosed)
	require.True(t, errors.Is(s.Close(), ErrClosed))
}

// TestFault_WaitingForRoom: a writer that waits for room in the disk budget when the
// store becomes read-only waits for ever.
func TestFault_WaitingForRoom(t *testing.T) {
	s, dev, _ := openFault(t, nil)
	n := s.NewSession()
	value := make([]byte, 60<<10)
	closeRoom(t, s, n, value)
	var err error
	before := s.Stats().SpaceWaits
	done := background(func() { err = n.Put(key64(0), value) })
	require.Eventually(t, func() bool { return s.Stats().SpaceWaits > before }, waitLong, time.Millisecond)
	dev.Inject(iotest.Rule{Kind: ioring.Write, Err: syscall.EIO})
	s.commit.ask(true, func(commitResult) {})
	waitFor(t, "a writer that waits for room", done)
	require.ErrorIs(t, err, ErrReadOnly)
	n.Close()
	require.ErrorIs(t, s.Close(), ErrReadOnly)
}

// TestFault_StuckNoPage: a commit asked for while the disk takes nothing and all pages
// wait for it waits too, for ever; or it is not made when there is room again.
func TestFault_StuckNoPage(t *testing.T) {
	fault := iotest.NewFault(newMem(), 1)
	dev := &holding{Device: fault, kind: ioring.Write}
	s := openOn(t, dev, func(o *Options) {
		o.Memory += 3 * pageSizeMin // whole segments: of the room made for the log nothing is left either
	})
	dev.mu.Lock()
	dev.hold = true
	dev.mu.Unlock()
	remove := fault.Inject(iotest.Rule{Kind: ioring.Write, Err: syscall.ENOSPC})
	n := s.NewSession()
	// Eight records are a page: no rest of one is left for a commit.
	const eighth = (pageSizeMin - hlog.FirstOffset) / 8 &^ (record.Unit - 1)
	value := make([]byte, eighth-record.HeaderSize-len(key64(0)))
	written := 0
	filled := background(func() {
		for n.Put(key64(written), value) == nil {
			written++
		}
	})
	require.Eventually(t, func() bool { return !s.log.Ready() && s.log.Tail().Bytes() > s.log.Memory()-2*pageSizeMin }, waitLong, time.Millisecond)
	dev.letGo()
	waitFor(t, "a writer on a full disk", filled)
	require.True(t, s.log.Stuck())
	for range 3 {
		_, err := s.Sync(context.Background())
		require.ErrorIs(t, err, ErrDiskFull)
	}
	remove()
	require.Eventually(t, func() bool { _, err := s.Sync(context.Background()); return err == nil }, waitLong, time.Millisecond)
	n.Close()
	checkLen(t, s, written)
	require.NoError(t, s.Close())
}
