package ioring_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rskv/ioring"
)

// A full disk must fail writes that need a new segment and nothing else, and a
// later write must succeed once there is room. This needs the right to mount.
func TestDisk_Write_DiskFull(t *testing.T) {
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			options.Dir = t.TempDir()
			err := unix.Mount("tmpfs", options.Dir, "tmpfs", 0, "size=1m,mode=0700")
			if errors.Is(err, unix.EPERM) {
				t.Skip("mounting a small file system is not permitted")
			}
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, unix.Unmount(options.Dir, 0)) })
			d := open(t, options)
			defer d.Close()
			last := int64(-1)
			for err = nil; err == nil; {
				last++
				require.Less(t, last, int64(5))
				err = do(t, d, ioring.Write, last*testSegment, filled(4096, byte(last)))
			}
			require.ErrorIs(t, err, unix.ENOSPC)
			_, end := d.Extent()
			require.Equal(t, last*testSegment, end)
			require.NoError(t, do(t, d, ioring.Write, 4096, filled(4096, 'x')))
			require.NoError(t, do(t, d, ioring.Sync, 0, nil), "ENOSPC is not sticky")
			require.NoError(t, d.Discard(testSegment))
			require.NoError(t, do(t, d, ioring.Write, last*testSegment, filled(4096, 'y')))
			require.NoError(t, do(t, d, ioring.Sync, 0, nil))
			require.NoError(t, d.Close())
		})
	}
}
