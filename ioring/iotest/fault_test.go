package iotest_test

import (
	"io/fs"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
	"rskv/ioring/iotest"
)

// Without rules the wrapper must be invisible, also while it reorders.
func TestFault_Contract(t *testing.T) {
	for name, window := range map[string]int{"plain": 0, "reorder": 8} {
		t.Run(name, func(t *testing.T) {
			iotest.Contract(t, func(*testing.T) ioring.Device {
				f := iotest.NewFault(iotest.NewMem(iotest.MemOptions{}), 1)
				f.Reorder(window)
				return f
			})
		})
	}
}

func newFault() *iotest.Fault { return iotest.NewFault(iotest.NewMem(iotest.MemOptions{}), 3) }

// A full disk passes: writes fail while the rule holds and work again after it.
func TestFault_ENOSPC_Passes(t *testing.T) {
	f := newFault()
	write(t, f, 0, 'a', 1)
	remove := f.Inject(iotest.Rule{Kind: ioring.Write, Match: iotest.From(2), Err: syscall.ENOSPC})
	write(t, f, 0, 'b', 1)
	for range 2 {
		_, err := iotest.Do(t, f, ioring.Write, 0, block('c', 1))
		require.ErrorIs(t, err, syscall.ENOSPC)
	}
	require.Equal(t, "b", content(t, f, 0, 1))
	flush(t, f)
	remove()
	write(t, f, 0, 'd', 1)
	require.Equal(t, "d", content(t, f, 0, 1))
	require.EqualValues(t, 2, f.Counters().Errors)
	f.FailMeta(fs.ErrPermission)
	require.ErrorIs(t, f.WriteMeta("x", nil), fs.ErrPermission)
	require.ErrorIs(t, f.RemoveMeta("x"), fs.ErrPermission)
	f.FailMeta(nil)
	require.NoError(t, f.WriteMeta("x", nil))
	require.NoError(t, f.Close())
}

// A failed sync is final, even when the disk seems well again.
func TestFault_Sync_Final(t *testing.T) {
	f := newFault()
	write(t, f, 0, 'a', 1)
	remove := f.Inject(iotest.Rule{Kind: ioring.Sync, Match: iotest.Nth(1), Err: syscall.EIO})
	_, err := iotest.Do(t, f, ioring.Sync, 0, nil)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorIs(t, err, ioring.ErrSyncFailed)
	remove()
	for _, kind := range []ioring.OpKind{ioring.Sync, ioring.Write} {
		_, err = iotest.Do(t, f, kind, 0, block('b', 1))
		require.ErrorIs(t, err, ioring.ErrSyncFailed)
	}
	require.ErrorIs(t, f.WriteMeta("x", nil), ioring.ErrSyncFailed)
	require.Equal(t, "a", content(t, f, 0, 1), "reads go on")
	require.NoError(t, f.Close())
}

// Short and torn transfers must have the effect they report, and no other.
func TestFault_PartialTransfers(t *testing.T) {
	f := newFault()
	write(t, f, 0, 'a', 4)
	f.Inject(iotest.Rule{Kind: ioring.Write, Match: iotest.Nth(1), Transfer: 2*unit + 5})
	n, err := iotest.Do(t, f, ioring.Write, 0, block('b', 4))
	require.ErrorIs(t, err, ioring.ErrShort)
	require.Equal(t, 2*unit, n)
	require.Equal(t, "bbaa", content(t, f, 0, 4))

	f.Inject(iotest.Rule{Kind: ioring.Read, Match: iotest.Nth(1), Transfer: unit, Err: syscall.EIO})
	p := block('z', 2)
	n, err = iotest.Do(t, f, ioring.Read, 0, p)
	require.ErrorIs(t, err, syscall.EIO)
	require.Equal(t, unit, n)
	require.Equal(t, []byte{'b', 'z'}, []byte{p[0], p[unit]})

	f.Inject(iotest.Rule{Kind: ioring.Write, Match: iotest.Covering(9 * unit), Torn: true})
	write(t, f, 8*unit, 'a', 1)
	seen := map[string]bool{}
	for range 40 {
		write(t, f, 10*unit, 'a', 2)
		_, err = iotest.Do(t, f, ioring.Write, 9*unit, block('t', 3))
		require.ErrorIs(t, err, ioring.ErrShort)
		seen[content(t, f, 9*unit, 3)[1:]] = true
	}
	require.Contains(t, seen, "aa")
	require.Contains(t, seen, "tt")
	require.Greater(t, len(seen), 2)
	require.NoError(t, f.Close())
}

// One bit must be wrong, and only in what the reader gets.
func TestFault_Flip(t *testing.T) {
	f := newFault()
	write(t, f, 0, 'a', 2)
	remove := f.Inject(iotest.Rule{Kind: ioring.Read, Flip: true})
	require.Contains(t, content(t, f, 0, 2), "?")
	remove()
	require.Equal(t, "aa", content(t, f, 0, 2))
	require.NoError(t, f.Close())
}

// Answers must come in another order than the questions, and none may be lost
// when the last one waits for others to overtake it.
func TestFault_Reorder(t *testing.T) {
	inside := iotest.NewMem(iotest.MemOptions{Manual: true})
	f := iotest.NewFault(inside, 1)
	f.Reorder(4)
	var order []int64
	var ops []*ioring.Op
	for i := range int64(32) {
		ops = append(ops, &ioring.Op{Kind: ioring.Write, Off: i * unit, Buf: block('x', 1),
			Done: func(op *ioring.Op) { order = append(order, op.Off/unit) }})
	}
	f.Submit(ops)
	inside.Run()
	require.Len(t, order, 32)
	require.False(t, slices.IsSorted(order))
	require.NoError(t, f.Close())
}

// A late answer must be waited for by Close.
func TestFault_Delay(t *testing.T) {
	f := newFault()
	f.Inject(iotest.Rule{Delay: 20 * time.Millisecond})
	answered := false
	f.Submit([]*ioring.Op{{Kind: ioring.Sync, Done: func(*ioring.Op) { answered = true }}})
	require.NoError(t, f.Close())
	require.True(t, answered)
}

// One step of a stream must fail, the k-th, and with it that stream and no other.
func TestFault_FailStream(t *testing.T) {
	f := newFault()
	require.NoError(t, f.WriteMeta("x", []byte("old")))
	stream := func() (written int, err error) {
		w, err := f.CreateMeta("x")
		require.NoError(t, err)
		for range 2 {
			n, _ := w.Write([]byte("1234")) // Commit says what went wrong
			written += n
		}
		err = w.Commit()
		require.ErrorIs(t, w.Abort(), fs.ErrClosed)
		return written, err
	}
	f.FailStreamWrite(4, syscall.ENOSPC)
	_, err := stream()
	require.NoError(t, err)
	require.NoError(t, f.WriteMeta("x", []byte("old")), "not a stream")
	n, err := stream()
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, 4+2, n)
	f.FailStreamWrite(1, syscall.EIO)
	n, err = stream()
	require.ErrorIs(t, err, syscall.EIO)
	require.Equal(t, 2, n, "nothing follows the gap")
	f.FailStreamCommit(1, syscall.EIO)
	_, err = stream()
	require.ErrorIs(t, err, syscall.EIO)
	data, err := f.ReadMeta("x")
	require.NoError(t, err)
	require.Equal(t, "old", string(data))
	require.EqualValues(t, 3, f.Counters().Errors)
	f.FailStreamCommit(1, syscall.EIO)
	f.FailStreamCommit(0, nil)
	_, err = stream()
	require.NoError(t, err)

	w, err := f.CreateMeta("x")
	require.NoError(t, err)
	f.FailMeta(fs.ErrPermission)
	_, err = f.CreateMeta("y")
	require.ErrorIs(t, err, fs.ErrPermission)
	_, err = w.Write([]byte("z"))
	require.ErrorIs(t, err, fs.ErrPermission)
	f.FailMeta(nil)
	require.ErrorIs(t, w.Commit(), fs.ErrPermission)
	data, err = f.ReadMeta("x")
	require.NoError(t, err)
	require.Equal(t, "12341234", string(data))
	require.NoError(t, f.Close())
}
