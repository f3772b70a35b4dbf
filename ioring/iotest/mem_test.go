package iotest_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
	"rskv/ioring/iotest"
)

// The test devices must keep the contract, or tests above them prove nothing.
func TestMem_Contract(t *testing.T) {
	for name, options := range map[string]iotest.MemOptions{
		"default": {}, "random order": {Seed: 7},
		"bytes": {Align: ioring.Align{Offset: 1, Memory: 1}, SegmentSize: 64 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			iotest.Contract(t, func(*testing.T) ioring.Device { return iotest.NewMem(options) })
		})
	}
}

const unit = 512

func block(b byte, units int) []byte {
	p := iotest.Aligned(units * unit)
	for i := range p {
		p[i] = b
	}
	return p
}

func write(t *testing.T, d ioring.Device, off int64, b byte, units int) {
	t.Helper()
	_, err := iotest.Do(t, d, ioring.Write, off, block(b, units))
	require.NoError(t, err)
}

func flush(t *testing.T, d ioring.Device) {
	t.Helper()
	_, err := iotest.Do(t, d, ioring.Sync, 0, nil)
	require.NoError(t, err)
}

// content reads units and gives one letter each: '?' for a mixture, '-' for
// zeros, "gone" without a segment.
func content(t *testing.T, d ioring.Device, off int64, units int) string {
	t.Helper()
	p := iotest.Aligned(units * unit)
	if _, err := iotest.Do(t, d, ioring.Read, off, p); err != nil {
		require.ErrorIs(t, err, ioring.ErrNoSegment)
		return "gone"
	}
	var letters []byte
	for ; len(p) > 0; p = p[unit:] {
		switch letter := p[0]; {
		case !bytes.Equal(p[:unit], bytes.Repeat(p[:1], unit)):
			letters = append(letters, '?')
		case letter == 0:
			letters = append(letters, '-')
		default:
			letters = append(letters, letter)
		}
	}
	return string(letters)
}

// What was synced must survive every crash; what was not may be lost, kept or in
// part, and all of these must be reachable.
func TestMem_CrashImage_Fates(t *testing.T) {
	m := iotest.NewMem(iotest.MemOptions{})
	write(t, m, 0, 'a', 4)
	flush(t, m)
	write(t, m, unit, 'b', 2)
	require.Equal(t, "abba", content(t, m, 0, 4))
	require.Equal(t, "aaaa", content(t, m.CrashImage(iotest.CrashOptions{}), 0, 4))
	require.Equal(t, "abba", content(t, m.CrashImage(iotest.CrashOptions{Keep: 1}), 0, 4))
	seen := map[string]bool{}
	for seed := range uint64(64) {
		options := iotest.CrashOptions{Seed: seed, Tear: 1}
		got := content(t, m.CrashImage(options), 0, 4)
		require.Equal(t, got, content(t, m.CrashImage(options), 0, 4), "the seed decides")
		seen[got] = true
	}
	require.Equal(t, map[string]bool{"aaaa": true, "abaa": true, "aaba": true, "abba": true}, seen)

	image := m.CrashImage(iotest.CrashOptions{Keep: 1})
	require.Equal(t, "abba", content(t, image.CrashImage(iotest.CrashOptions{}), 0, 4), "what an image holds is durable")
	require.NoError(t, m.Close())
	require.Equal(t, "aaaa", content(t, m.CrashImage(iotest.CrashOptions{}), 0, 4), "closing syncs nothing")
}

// Unsynced writes to one place may reach the disk in the wrong order.
func TestMem_CrashImage_Reorder(t *testing.T) {
	m := iotest.NewMem(iotest.MemOptions{})
	write(t, m, 0, 'a', 1)
	write(t, m, 0, 'b', 1)
	seen := map[string]bool{}
	for seed := range uint64(32) {
		seen[content(t, m.CrashImage(iotest.CrashOptions{Seed: seed, Keep: 1, Reorder: true}), 0, 1)] = true
		require.Equal(t, "b", content(t, m.CrashImage(iotest.CrashOptions{Seed: seed, Keep: 1}), 0, 1))
	}
	require.Equal(t, map[string]bool{"a": true, "b": true}, seen)
}

// A new segment's name is lost without a sync, and a discarded one may be back.
func TestMem_CrashImage_Names(t *testing.T) {
	m := iotest.NewMem(iotest.MemOptions{})
	size := m.SegmentSize()
	write(t, m, 0, 'a', 1)
	require.Equal(t, "gone", content(t, m.CrashImage(iotest.CrashOptions{Tear: 1}), 0, 1))
	flush(t, m)
	require.NoError(t, m.Discard(size))
	require.Equal(t, "gone", content(t, m, 0, 1))
	require.Equal(t, "gone", content(t, m.CrashImage(iotest.CrashOptions{}), 0, 1))
	require.Equal(t, "a", content(t, m.CrashImage(iotest.CrashOptions{Keep: 1}), 0, 1))
	require.NoError(t, m.WriteMeta("x", []byte("1")))
	image := m.CrashImage(iotest.CrashOptions{Keep: 1})
	require.Equal(t, "gone", content(t, image, 0, 1), "the directory was synced")
	data, err := image.ReadMeta("x")
	require.NoError(t, err)
	require.Equal(t, "1", string(data))
}

// A sync must not cover a write that was still under way when it was submitted:
// real devices do not promise that either.
func TestMem_Sync_CoversOnlyFinished(t *testing.T) {
	m := iotest.NewMem(iotest.MemOptions{Manual: true})
	var ops []*ioring.Op
	for _, op := range []ioring.Op{
		{Kind: ioring.Write, Buf: block('a', 1)},
		{Kind: ioring.Write, Off: unit, Buf: block('b', 1)},
		{Kind: ioring.Sync},
	} {
		op.Done = func(*ioring.Op) {}
		ops = append(ops, &op)
	}
	m.Submit(ops[:1])
	require.True(t, m.Step())
	m.Submit(ops[1:]) // the write of 'b' is under way when the sync comes
	m.Run()
	require.False(t, m.Step())
	require.NoError(t, ops[2].Err)
	letters := func(image *iotest.Mem) string {
		p := iotest.Aligned(2 * unit)
		op := &ioring.Op{Kind: ioring.Read, Buf: p, Done: func(*ioring.Op) {}}
		image.Submit([]*ioring.Op{op})
		image.Run()
		require.NoError(t, op.Err)
		return fmt.Sprintf("%c%c", max(p[0], '-'), max(p[unit], '-'))
	}
	require.Equal(t, "a-", letters(m.CrashImage(iotest.CrashOptions{})))
	require.Equal(t, "ab", letters(m.CrashImage(iotest.CrashOptions{Keep: 1})))
}

// A crash at any event must be reachable, with the event itself not done but, if
// it is a write, possibly half way.
func TestMem_OnOp_CutsEverywhere(t *testing.T) {
	m := iotest.NewMem(iotest.MemOptions{})
	var before, half []*iotest.Mem
	m.OnOp(func(n int, e iotest.Event) {
		require.Equal(t, len(before)+1, n)
		before = append(before, m.CrashImage(iotest.CrashOptions{}))
		half = append(half, m.CrashImage(iotest.CrashOptions{Keep: 1}))
	})
	write(t, m, 0, 'a', 1)
	flush(t, m)
	require.NoError(t, m.WriteMeta("x", nil))
	write(t, m, 0, 'b', 1)
	m.OnOp(nil)
	var got []string
	for i := range before {
		got = append(got, content(t, before[i], 0, 1)+" "+content(t, half[i], 0, 1))
	}
	require.Equal(t, []string{"gone a", "gone a", "a a", "a b"}, got)
	require.Equal(t, []iotest.Event{
		{Kind: iotest.EventWrite, Len: unit}, {Kind: iotest.EventSync},
		{Kind: iotest.EventWriteMeta, Name: "x"}, {Kind: iotest.EventWrite, Len: unit},
	}, m.Events())
	_, err := before[2].ReadMeta("x")
	require.ErrorIs(t, err, ioring.ErrNoMeta)
}

// After the cut nothing may succeed any more, and nothing may change.
func TestMem_FailAfter(t *testing.T) {
	m := iotest.NewMem(iotest.MemOptions{})
	m.FailAfter(2)
	write(t, m, 0, 'a', 1)
	flush(t, m)
	for _, kind := range []ioring.OpKind{ioring.Write, ioring.Sync, ioring.Read} {
		_, err := iotest.Do(t, m, kind, 0, block('b', 1))
		require.ErrorIs(t, err, iotest.ErrPowerCut)
	}
	require.ErrorIs(t, m.WriteMeta("x", nil), iotest.ErrPowerCut)
	require.ErrorIs(t, m.Discard(1<<40), iotest.ErrPowerCut)
	require.Equal(t, "a", content(t, m.CrashImage(iotest.CrashOptions{Keep: 1}), 0, 1))
	m.FailAfter(-1)
	require.Equal(t, "a", content(t, m, 0, 1))
}

// The order of a Manual device must come from its seed alone, or a simulation
// cannot be repeated.
func TestMem_Manual_Repeatable(t *testing.T) {
	run := func(seed uint64) (order []int64) {
		m := iotest.NewMem(iotest.MemOptions{Manual: true, Seed: seed})
		var ops []*ioring.Op
		for i := range int64(16) {
			ops = append(ops, &ioring.Op{Kind: ioring.Write, Off: i * unit, Buf: block('x', 1),
				Done: func(op *ioring.Op) { order = append(order, op.Off/unit) }})
		}
		m.Submit(ops)
		require.Empty(t, order, "nothing happens by itself")
		m.Run()
		require.Len(t, order, 16)
		return order
	}
	require.Equal(t, run(1), run(1))
	require.NotEqual(t, run(1), run(2))
	require.IsIncreasing(t, run(0), "first come, first served")
}

// A page that is changed while it is being flushed must not go unnoticed.
func TestMem_Write_ChangedMemory(t *testing.T) {
	m := iotest.NewMem(iotest.MemOptions{Manual: true})
	p := block('a', 1)
	m.Submit([]*ioring.Op{{Kind: ioring.Write, Buf: p, Done: func(*ioring.Op) {}}})
	p[100]++
	require.Panics(t, func() { m.Step() })
}

// Silent damage must show in reads and survive a crash.
func TestMem_Corrupt(t *testing.T) {
	m := iotest.NewMem(iotest.MemOptions{})
	write(t, m, 0, 'a', 2)
	flush(t, m)
	m.Corrupt(unit+3, func(b byte) byte { return b ^ 1 })
	require.Equal(t, "a?", content(t, m, 0, 2))
	require.Equal(t, "a?", content(t, m.CrashImage(iotest.CrashOptions{}), 0, 2))
}

// A crash inside a stream must leave the old content, one after its commit the
// new, and each step must be a place to crash at.
func TestMem_CreateMeta_Cuts(t *testing.T) {
	m := iotest.NewMem(iotest.MemOptions{})
	require.NoError(t, m.WriteMeta("x", []byte("old")))
	stream := func() error {
		w, err := m.CreateMeta("x")
		if err != nil {
			return err
		}
		for _, piece := range []string{"ne", "w"} {
			if _, err := w.Write([]byte(piece)); err != nil {
				require.ErrorIs(t, w.Commit(), iotest.ErrPowerCut, "nothing can follow a gap")
				return err
			}
		}
		return w.Commit()
	}
	after := func() string {
		data, err := m.CrashImage(iotest.CrashOptions{Keep: 1}).ReadMeta("x")
		require.NoError(t, err)
		return string(data)
	}
	for n := range 4 {
		m.FailAfter(n)
		require.ErrorIs(t, stream(), iotest.ErrPowerCut)
		m.FailAfter(-1)
		require.Equal(t, "old", after(), "%d steps", n)
	}
	var seen []iotest.Event
	m.OnOp(func(_ int, e iotest.Event) {
		seen = append(seen, e)
		require.Equal(t, "old", after(), "%v", e)
	})
	require.NoError(t, stream())
	m.OnOp(nil)
	require.Equal(t, []iotest.Event{
		{Kind: iotest.EventCreateMeta, Name: "x"}, {Kind: iotest.EventStreamMeta, Name: "x", Len: 2},
		{Kind: iotest.EventStreamMeta, Name: "x", Len: 1}, {Kind: iotest.EventCommitMeta, Name: "x", Len: 3},
	}, seen)
	require.Equal(t, "new", after())
	r, err := m.OpenMeta("x")
	require.NoError(t, err)
	m.FailAfter(0)
	_, err = r.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, iotest.ErrPowerCut)
}

// Preparing is an event, once; until a sync a crash may take the segment away, and
// what was written into it must survive as in any other segment.
func TestMem_Prepare_Crash(t *testing.T) {
	m := iotest.NewMem(iotest.MemOptions{})
	size := m.SegmentSize()
	require.NoError(t, m.Discard(size))
	m.Prepare(size)
	m.Prepare(size + 1)
	m.Prepare(2 * size)
	require.Equal(t, []iotest.Event{{Kind: iotest.EventDiscard, Off: size}, {Kind: iotest.EventPrepare, Off: size}}, m.Events())
	require.Equal(t, "gone", content(t, m, 0, 1), "discarded")
	require.Equal(t, "gone", content(t, m.CrashImage(iotest.CrashOptions{}), size, 1))
	require.Equal(t, "--", content(t, m.CrashImage(iotest.CrashOptions{Keep: 1}), size, 2))
	write(t, m, size, 'a', 1)
	flush(t, m)
	require.Equal(t, "a-", content(t, m.CrashImage(iotest.CrashOptions{}), size, 2))
	m.FailAfter(0)
	m.Prepare(3 * size)
	m.FailAfter(-1)
	require.Equal(t, "gone", content(t, m, 2*size, 1))
}

// A segment that has become another one must be there under one of its names at
// most after a crash, with what was written to it under the new one; after a sync
// only under that.
func TestMem_Recycle_Crash(t *testing.T) {
	m := iotest.NewMem(iotest.MemOptions{SegmentSize: 4096})
	m.Recycle(2)
	write(t, m, 0, 'a', 8)
	flush(t, m)
	require.NoError(t, m.Discard(4096))
	require.EqualValues(t, 1, m.Counters().Spares)
	write(t, m, 4096, 'b', 4)
	seen := map[string]bool{}
	for seed := range uint64(200) {
		image := m.CrashImage(iotest.CrashOptions{Seed: seed, Keep: 0.5})
		begin, end := image.Extent()
		switch [2]int64{begin, end} {
		case [2]int64{}:
			seen["gone"] = true
		case [2]int64{0, 4096}:
			seen["old "+content(t, image, 0, 8)] = true
		case [2]int64{4096, 8192}:
			seen["new "+content(t, image, 4096, 8)] = true
		default:
			t.Fatalf("seed %d: segments cover [%d, %d)", seed, begin, end)
		}
	}
	require.Equal(t, map[string]bool{
		"gone": true, "old aaaaaaaa": true, "old bbbbaaaa": true, "new aaaaaaaa": true, "new bbbbaaaa": true,
	}, seen)
	flush(t, m)
	image := m.CrashImage(iotest.CrashOptions{})
	begin, end := image.Extent()
	require.Equal(t, [2]int64{4096, 8192}, [2]int64{begin, end})
	require.Equal(t, "bbbbaaaa", content(t, image, 4096, 8))

	// One that was only kept stays kept, and what is made of it holds the old bytes.
	flush(t, m)
	require.NoError(t, m.Discard(8192))
	image = m.CrashImage(iotest.CrashOptions{})
	write(t, image, 8192, 'c', 1)
	require.Equal(t, "cbbbaaaa", content(t, image, 8192, 8))
}
