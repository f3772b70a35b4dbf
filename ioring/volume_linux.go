package ioring

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// directFlag asks the kernel to move bytes past the page cache.
const directFlag = unix.O_DIRECT

// measure finds out whether O_DIRECT works here and what it asks for.
func (v *volume) measure(noDirect bool) error {
	if !noDirect {
		if align, ok := v.directAlign(); ok {
			v.direct, v.align = true, align
			return nil
		}
	}
	file, err := v.scratch(0)
	if err != nil {
		return fmt.Errorf("write to directory %s: %w", v.path, err)
	}
	defer file.Close()
	v.align = Align{Offset: sectorSize(file), Memory: 1}
	return nil
}

// onFUSE reports whether the directory is on FUSE, virtiofs included. When a
// transfer there is cut short, io_uring asks for the rest at the offset of the
// whole (seen on 6.18: the file system leaves the position of the request as it
// was), and what is written lies in the wrong place. pread and pwrite are right.
func (v *volume) onFUSE() bool {
	var st unix.Statfs_t
	err := unix.Fstatfs(int(v.dir.Fd()), &st)
	return err == nil && st.Type == unix.FUSE_SUPER_MAGIC
}

// directAlign asks statx (6.1 and later, most file systems), and where that says
// nothing tries a block.
func (v *volume) directAlign() (Align, bool) {
	file, err := v.scratch(unix.O_DIRECT)
	if err != nil {
		return Align{}, false
	}
	defer file.Close()
	var st unix.Statx_t
	err = unix.Statx(int(file.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st)
	if err == nil && st.Mask&unix.STATX_DIOALIGN != 0 {
		offset, memory := int(st.Dio_offset_align), int(st.Dio_mem_align)
		if offset == 0 || offset > sectorMax || memory == 0 || memory > sectorMax {
			return Align{}, false
		}
		// Whole physical sectors, so that no write shares one with an older write.
		return Align{Offset: max(offset, sectorSize(file)), Memory: memory}, true
	}
	if !tryDirect(int(file.Fd())) {
		return Align{}, false
	}
	return Align{Offset: sectorMax, Memory: sectorMax}, true
}

// tryDirect writes one block and reads it back: some file systems take the flag
// and refuse the I/O.
func tryDirect(fd int) bool {
	memory, err := AllocMemory(sectorMax)
	if err != nil {
		return false
	}
	defer memory.Free()
	n, err := unix.Pwrite(fd, memory.Bytes(), 0)
	if err != nil || n != sectorMax {
		return false
	}
	n, err = unix.Pread(fd, memory.Bytes(), 0)
	return err == nil && n == sectorMax
}

// sectorSize is the physical sector size of the disk below file, and 4096 where
// there is no single disk to ask.
func sectorSize(file *os.File) int {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return sectorMax
	}
	disk := fmt.Sprintf("/sys/dev/block/%d:%d/", unix.Major(st.Dev), unix.Minor(st.Dev))
	for _, queue := range []string{"queue", "../queue"} { // a disk, a partition of one
		text, err := os.ReadFile(disk + queue + "/physical_block_size")
		if err != nil {
			continue
		}
		size, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err == nil && size >= 512 && size <= sectorMax && size&(size-1) == 0 {
			return size
		}
	}
	return sectorMax
}

// allocate reserves the disk space of a new segment, so that a full disk shows
// here and not in the middle of a flush.
func allocate(fd int, size int64) error {
	err := retry(func() error { return unix.Fallocate(fd, 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return retry(func() error { return unix.Ftruncate(fd, size) })
	}
	return err
}

// syncData makes a file's bytes durable, with what is needed to find them.
func syncData(file *os.File) error { return unix.Fdatasync(int(file.Fd())) }

// startWriteBack begins to write a range of a file to the disk. It is no sync:
// neither the disk's cache nor the way to the bytes is made safe.
func startWriteBack(file *os.File, off, n int64) error {
	return syncRange(file, off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// finishWriteBack waits until a range has been written, which on its own or with
// startWriteBack bounds what is dirty, and lets the page cache forget it.
func finishWriteBack(file *os.File, off, n int64) error {
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	if err := syncRange(file, off, n, all); err != nil {
		return err
	}
	_ = unix.Fadvise(int(file.Fd()), off, n, unix.FADV_DONTNEED)
	return nil
}

func syncRange(file *os.File, off, n int64, flags int) error {
	err := retry(func() error { return unix.SyncFileRange(int(file.Fd()), off, n, flags) })
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // the sync at the end has all the work then
	}
	return err
}

// dropCached lets the page cache forget what of a file is clean.
func dropCached(file *os.File) { _ = unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED) }

// nextData is the first part of a file from off on that is not a hole, or an empty
// one at the file's end. Blocks that have room but were never written are holes.
func nextData(fd int, off int64) (begin, end int64, err error) {
	begin, err = unix.Seek(fd, off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		end, err = unix.Seek(fd, 0, unix.SEEK_END)
		return end, end, err
	}
	if err != nil {
		return 0, 0, err
	}
	end, err = unix.Seek(fd, begin, unix.SEEK_HOLE)
	return begin, end, err
}
