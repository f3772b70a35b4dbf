//go:build linux

package faultfs_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rskv/ioring"
	"rskv/ioring/iotest"
	"rskv/ioring/iotest/faultfs"
)

func mount(t *testing.T) *faultfs.FS {
	f, err := faultfs.Mount(t.TempDir())
	if err != nil {
		t.Skipf("no FUSE on this machine: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, f.Unmount()) })
	return f
}

// Without rules it must be a file system like any other: the device's contract
// holds on it.
func TestFS_Contract(t *testing.T) {
	f := mount(t)
	iotest.Contract(t, func(t *testing.T) ioring.Device {
		dir := filepath.Join(f.Dir, filepath.Base(t.TempDir())+filepath.Base(t.Name()))
		d, err := ioring.Open(ioring.Options{Dir: dir, SegmentSize: 1 << 20, BufferBytes: 1 << 20})
		require.NoError(t, err)
		return d
	})
}

// A rule that hits another request than the one it names tests nothing.
func TestFS_Rules(t *testing.T) {
	f := mount(t)
	file, err := os.Create(filepath.Join(f.Dir, "a"))
	require.NoError(t, err)
	defer file.Close()
	data := []byte("0123456789")

	remove := f.Inject(faultfs.Rule{Kind: faultfs.Write, From: 2, Count: 1, Err: syscall.ENOSPC})
	_, err = file.WriteAt(data, 0)
	require.NoError(t, err)
	_, err = file.WriteAt(data, 10)
	require.ErrorIs(t, err, syscall.ENOSPC)
	_, err = file.WriteAt(data, 20)
	require.NoError(t, err)
	require.Equal(t, 3, f.Count(faultfs.Write))
	require.Equal(t, []faultfs.Op{{Kind: faultfs.Write, Name: "a", Off: 10, Size: 10}}, f.Hits())
	remove()

	f.Inject(faultfs.Rule{Kind: faultfs.Fsync, Err: syscall.EIO, Match: func(op faultfs.Op) bool { return op.Name == "a" }})
	f.Inject(faultfs.Rule{Kind: faultfs.Allocate, Err: syscall.ENOSPC})
	require.ErrorIs(t, unix.Fdatasync(int(file.Fd())), syscall.EIO)
	require.ErrorIs(t, unix.Fallocate(int(file.Fd()), 0, 0, 100), syscall.ENOSPC)
	dir, err := os.Open(f.Dir)
	require.NoError(t, err)
	require.NoError(t, dir.Sync())
	f.Inject(faultfs.Rule{Kind: faultfs.Fsync, Err: syscall.EIO, Match: func(op faultfs.Op) bool { return op.Name == "" }})
	require.ErrorIs(t, dir.Sync(), syscall.EIO)
	require.NoError(t, dir.Close())

	f.Reset()
	require.Zero(t, f.Count(faultfs.Fsync))
	f.Inject(faultfs.Rule{Short: true, Delay: time.Millisecond})
	begin := time.Now()
	n, err := unix.Pread(int(file.Fd()), make([]byte, 10), 20)
	require.NoError(t, err)
	require.Equal(t, 5, n)
	n, err = unix.Pwrite(int(file.Fd()), data, 0)
	require.NoError(t, err)
	require.Equal(t, 5, n)
	require.GreaterOrEqual(t, time.Since(begin), 2*time.Millisecond)

	below, err := os.ReadFile(filepath.Join(f.Below, "a"))
	require.NoError(t, err)
	require.Equal(t, "0123456789\x00\x00\x00\x00\x00\x00\x00\x00\x00\x000123456789", string(below))
}

// What the kernel has cut short must be completed where it stopped. Its own ring
// asks for the rest at the wrong place here, so it must not be taken.
func TestFS_ShortTransfers(t *testing.T) {
	f := mount(t)
	for _, mode := range []ioring.Mode{ioring.PReadWrite, ioring.Auto} {
		d, err := ioring.Open(ioring.Options{Dir: filepath.Join(f.Dir, string(mode)), Mode: mode, SegmentSize: 1 << 20, BufferBytes: 1 << 20})
		require.NoError(t, err)
		n := 0
		f.Inject(faultfs.Rule{Short: true, Match: func(faultfs.Op) bool { n++; return n%7 != 1 }})
		const size = 128 << 10
		memory, err := ioring.AllocMemory(size)
		require.NoError(t, err)
		content := make([]byte, size)
		rand.NewChaCha8([32]byte{1}).Read(content)
		copy(memory.Bytes(), content)
		_, err = iotest.Do(t, d, ioring.Write, 0, memory.Bytes())
		require.NoError(t, err)
		// Two at once, or the caller's thread does it.
		done := make(chan struct{}, 2)
		ops := make([]*ioring.Op, 2)
		for i := range ops {
			ops[i] = &ioring.Op{Kind: ioring.Read, Off: 4096 * int64(i), Buf: d.Buffers().Get(size - 4096), Done: func(*ioring.Op) { done <- struct{}{} }}
		}
		d.Submit(ops)
		<-done
		<-done
		for i, op := range ops {
			require.NoError(t, op.Err)
			require.True(t, bytes.Equal(content[4096*i:][:size-4096], op.Buf), "%s: read %d has wrong bytes", mode, i)
			d.Buffers().Put(op.Buf)
		}
		require.NotEmpty(t, f.Hits())
		require.NoError(t, d.Close())
		require.NoError(t, memory.Free())
		f.Reset()
	}
}
