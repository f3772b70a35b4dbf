//go:build unix

package ioring

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A sync that failed once must stay failed although the next fdatasync would
// succeed: the kernel reports lost pages only once.
func TestVolume_Sync_Final(t *testing.T) {
	for _, mode := range []Mode{PReadWrite, Auto} {
		device, err := Open(Options{Dir: t.TempDir(), Mode: mode, SegmentSize: 1 << 20, BufferBytes: 1 << 20})
		require.NoError(t, err)
		defer device.Close()
		d := device.(*disk)
		run := func(kind OpKind) error {
			done := make(chan error, 1)
			memory, err := AllocMemory(4096)
			require.NoError(t, err)
			defer memory.Free()
			d.Submit([]*Op{{Kind: kind, Buf: memory.Bytes(), Done: func(op *Op) { done <- op.Err }}})
			return <-done
		}
		require.NoError(t, run(Write))
		require.NoError(t, run(Sync))
		require.NoError(t, run(Write))
		// An fdatasync that fails: of a file that does not know how.
		s := d.volume.mu.segments[0]
		whole := s.file
		broken, end, err := os.Pipe()
		require.NoError(t, err)
		require.NoError(t, end.Close())
		s.file = broken
		err = run(Sync)
		s.file = whole
		require.NoError(t, broken.Close())
		require.ErrorIs(t, err, ErrSyncFailed)
		require.ErrorIs(t, err, unix.EINVAL)
		require.ErrorContains(t, err, s.name)
		require.ErrorIs(t, run(Sync), ErrSyncFailed)
		require.ErrorIs(t, run(Write), ErrSyncFailed)
		require.ErrorIs(t, device.WriteMeta("x", nil), ErrSyncFailed)
		require.ErrorIs(t, device.RemoveMeta("x"), ErrSyncFailed)
		require.NoError(t, run(Read))
	}
}

// A name must be the one spelling of its segment, or two files would be one.
func TestVolume_SegmentNames(t *testing.T) {
	for _, index := range []int64{0, 1, 255, 1 << 36} {
		shift, got, ok := parseSegmentName(segmentName(26, index))
		require.True(t, ok)
		require.EqualValues(t, 26, shift)
		require.Equal(t, index, got)
	}
	for _, name := range []string{"", "seg", "seg26", "seg26-", "seg26-1", "seg6-0000000000000001", "seg026-0000000000000001",
		"seg26-000000000000000A", "seg26-ffffffffffffffff", "seg26-0000002000000000", "seg63-0000000000000000", "seg26-0000000000000001.meta"} {
		_, _, ok := parseSegmentName(name)
		require.False(t, ok, name)
	}
}

// An administrator must be sent to the right switch.
func TestProbe_Sentences(t *testing.T) {
	require.ErrorContains(t, explainSetup(unix.ENOSYS), "no io_uring")
	require.ErrorContains(t, explainSetup(unix.ENOMEM), "RLIMIT_MEMLOCK")
	require.ErrorContains(t, explainSetup(unix.EMFILE), "file descriptor")
	require.ErrorIs(t, explainSetup(unix.EINVAL), unix.EINVAL)
	require.NotEmpty(t, explainSetup(unix.EPERM).Error())
	require.Contains(t, explainForbidden("1"), "io_uring_disabled=1")
	require.Contains(t, explainForbidden("2"), "io_uring_disabled=2")
	require.Contains(t, explainForbidden("0"), "seccomp")
	require.Empty(t, readSysctl("/nonexistent"))
}
