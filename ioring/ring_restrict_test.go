//go:build giouring && linux

package ioring

import (
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"github.com/pawelgaczynski/giouring"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestRing_Restricted: a ring that would do more for who got hold of it than
// move the bytes of its files.
func TestRing_Restricted(t *testing.T) {
	if ok, why := Probe(); !ok {
		t.Skip(why)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ring, disabled, err := setupRing(8)
	require.NoError(t, err)
	defer ring.QueueExit()
	if !disabled {
		t.Skip("this kernel cannot restrict a ring (5.10 and later do)")
	}
	require.NoError(t, restrict(ring))
	result := func(prepare func(*giouring.SubmissionQueueEntry)) error {
		sqe := ring.GetSQE()
		*sqe = giouring.SubmissionQueueEntry{}
		prepare(sqe)
		_, err := ring.SubmitAndWait(1)
		require.NoError(t, err)
		cqes := make([]*giouring.CompletionQueueEvent, 1)
		require.EqualValues(t, 1, ring.PeekBatchCQE(cqes))
		n := cqes[0].Res
		ring.CQAdvance(1)
		if n < 0 {
			return syscall.Errno(-n)
		}
		return nil
	}
	var pipe [2]int
	require.NoError(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	buf := []byte("word")
	address := uintptr(unsafe.Pointer(&buf[0]))
	require.NoError(t, result(func(e *giouring.SubmissionQueueEntry) { e.PrepareWrite(pipe[1], address, 4, 0) }))
	require.NoError(t, result(func(e *giouring.SubmissionQueueEntry) { e.PrepareRead(pipe[0], address, 4, 0) }))
	path := []byte("/etc/passwd\x00")
	for name, prepare := range map[string]func(*giouring.SubmissionQueueEntry){
		"OPENAT": func(e *giouring.SubmissionQueueEntry) { e.PrepareOpenat(unix.AT_FDCWD, path, unix.O_RDONLY, 0) },
		"NOP":    func(e *giouring.SubmissionQueueEntry) { e.PrepareNop() },
		"SEND":   func(e *giouring.SubmissionQueueEntry) { e.PrepareSend(pipe[1], address, 4, 0) },
		"a chain": func(e *giouring.SubmissionQueueEntry) {
			e.PrepareWrite(pipe[1], address, 4, 0)
			e.Flags |= giouring.SqeIOLink
		},
	} {
		require.ErrorIs(t, result(prepare), unix.EACCES, name)
	}
	_, err = ring.RegisterBuffers([]syscall.Iovec{{Base: &buf[0], Len: 4}})
	require.ErrorIs(t, err, unix.EACCES)
	runtime.KeepAlive(buf)
}
