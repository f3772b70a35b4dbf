//go:build unix && !linux

package ioring

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// directFlag: only Linux moves bytes past the page cache here.
const directFlag = 0

// measure finds out that the directory can be written to.
func (v *volume) measure(bool) error {
	file, err := v.scratch(0)
	if err != nil {
		return fmt.Errorf("write to directory %s: %w", v.path, err)
	}
	defer file.Close()
	v.align = Align{Offset: sectorMax, Memory: 1}
	return nil
}

// onFUSE matters where there is io_uring.
func (v *volume) onFUSE() bool { return false }

func allocate(fd int, size int64) error {
	return retry(func() error { return unix.Ftruncate(fd, size) })
}

// syncData is a full sync: on macOS the library call does F_FULLFSYNC, without
// which the disk may keep the bytes in its cache.
func syncData(file *os.File) error { return file.Sync() }

// startWriteBack, finishWriteBack and dropCached: only Linux lets a program steer
// the page cache; elsewhere the sync at the end has all the work.
func startWriteBack(*os.File, int64, int64) error { return nil }

func finishWriteBack(*os.File, int64, int64) error { return nil }

func dropCached(*os.File) {}

// nextData: what is a hole counts where segments have room of their own in advance.
func nextData(int, int64) (begin, end int64, err error) { return 0, 0, unix.ENOTSUP }
