//go:build unix

package ioring

import (
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Names in a volume's directory. Everything else in it is left alone.
//
//	seg26-0000000000000003   segment 3 of 2^26 bytes: addresses [3<<26, 4<<26)
//	spare26-0, recycled26-0  room for a segment, see reserve.go
//	NAME.meta                metadata file NAME
//	NAME.meta.7.new          a new content of it, being written as the 7th
const (
	segmentPrefix = "seg"
	newSuffix     = ".new"

	filePerm = 0o600
	dirPerm  = 0o700

	// sectorMax is assumed where the sector size cannot be found out.
	sectorMax = 4096
)

// volume is a directory of segment files seen as one address space. It knows
// names, files and what has to be synced, and nothing about how bytes are moved.
type volume struct {
	dir    *os.File // holds the lock; immutable
	path   string
	shift  uint // log2 of the segment size
	direct bool
	align  Align

	create sync.Mutex // held while one segment file is made, so that mu is never held over I/O
	floor  int64      // highest bound of a discard; guarded by create
	spares []spare    // the reserve; guarded by create

	spareCount  atomic.Int64  // len(spares); written under create
	wanted      atomic.Int64  // how many spares are wanted
	recycled    atomic.Int64  // how many more may be kept
	overwritten atomic.Uint64 // segments that were made of discarded ones
	spareless   atomic.Bool   // they could not be made for another reason; written by the reserver
	short       atomic.Bool   // there was no room for all of them; written by the reserver

	mu struct {
		sync.RWMutex
		segments map[int64]*segment
		dirty    []*segment // written since the last sync; each holds a reference
		dirDirty bool       // a segment was made since the last sync
		streams  map[*metaWriter]bool
	}

	streams atomic.Uint64 // metadata streams made so far; their names count them

	// failed is the first failed sync, wrapped for callers; set once, then final.
	failed atomic.Pointer[error]
}

// segment is one open file. It is closed when the last reference goes: the table
// holds one, each operation in flight one, the dirty list one.
type segment struct {
	file  *os.File
	fd    int
	name  string
	begin int64 // address of its first byte
	refs  atomic.Int32
	dirty atomic.Bool // it is in the dirty list

	// zeroing is set while the preparer may write zeros into it. It is set before the
	// segment enters the table, so no write comes before it.
	zeroing atomic.Pointer[zeroing]
}

// acquire takes a reference unless the segment is already on its way out.
func (s *segment) acquire() bool {
	for {
		n := s.refs.Load()
		if n == 0 {
			return false
		}
		if s.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// retire takes the table's reference if it is the only one. Nobody gets another
// from then on.
func (s *segment) retire() bool { return s.refs.CompareAndSwap(1, 0) }

func (s *segment) release() {
	if s.refs.Add(-1) == 0 {
		_ = s.file.Close() // nothing unsynced is promised any more
	}
}

// openVolume locks the directory, making it if needed, and opens its segments.
func openVolume(path string, segmentSize int64, noDirect bool) (*volume, error) {
	if err := MakeDir(path); err != nil {
		return nil, fmt.Errorf("create directory: %w", err)
	}
	dir, err := lockDir(path)
	if err != nil {
		return nil, err
	}
	v := &volume{dir: dir, path: path, shift: uint(bits.TrailingZeros64(uint64(segmentSize)))}
	v.mu.segments = make(map[int64]*segment)
	v.mu.streams = make(map[*metaWriter]bool)
	if err := v.measure(noDirect); err != nil {
		v.close()
		return nil, err
	}
	if err := v.removeLeftovers(); err != nil {
		v.close()
		return nil, err
	}
	if err := v.adoptSpares(); err != nil {
		v.close()
		return nil, err
	}
	if err := v.openSegments(); err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

// MakeDir makes a directory and what is missing above it, durably, with the mode
// 0700. One that is there is left as it is.
func MakeDir(path string) error {
	err := os.Mkdir(path, dirPerm)
	if errors.Is(err, fs.ErrNotExist) {
		if err := MakeDir(filepath.Dir(path)); err != nil {
			return err
		}
		err = os.Mkdir(path, dirPerm)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer parent.Close()
	return parent.Sync()
}

// lockDir opens the directory, refuses one that strangers may write to, and
// takes the lock that keeps a second process out. The lock goes with the file.
func lockDir(path string) (*os.File, error) {
	fd, err := openAt(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", path, err)
	}
	dir := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		dir.Close()
		return nil, fmt.Errorf("stat directory %s: %w", path, err)
	}
	if st.Mode&unix.S_IWOTH != 0 {
		dir.Close()
		return nil, fmt.Errorf("directory %s may be written by everybody (mode %#o): %w",
			path, st.Mode&0o7777, fs.ErrPermission)
	}
	err = retry(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		dir.Close()
		return nil, fmt.Errorf("%w: %s", ErrLocked, path)
	}
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("lock directory %s: %w", path, err)
	}
	return dir, nil
}

// openSegments opens what is there. A segment whose making was interrupted is
// shorter than the others: it is extended, and reads as zeros there. All count
// as unsynced: the process before may have been killed between a write and its
// sync, and what is read now must still be there after the next sync.
func (v *volume) openSegments() error {
	names, err := v.list()
	if err != nil {
		return err
	}
	last := int64(none)
	for _, name := range names {
		shift, index, ok := parseSegmentName(name)
		if !ok {
			continue
		}
		if shift != v.shift {
			return fmt.Errorf("open segments: %s holds segments of %d bytes, not of %d",
				v.path, int64(1)<<shift, int64(1)<<v.shift)
		}
		s, err := v.openSegment(name, index, 0)
		if err != nil {
			return err
		}
		v.mu.segments[index] = s
		if err := v.extend(s); err != nil {
			return err
		}
		v.markDirty(s)
		last = max(last, index)
	}
	for i := range int64(blankMax) {
		if s := v.mu.segments[last-i]; s != nil {
			v.findHoles(s)
		}
	}
	v.mu.dirDirty = true
	return nil
}

// extend brings a segment file to its full size.
func (v *volume) extend(s *segment) error {
	st, err := s.file.Stat()
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	size := v.segmentSize()
	switch {
	case !st.Mode().IsRegular():
		return fmt.Errorf("open segment %s: not a regular file", s.name)
	case st.Size() > size:
		return fmt.Errorf("open segment %s: %d bytes, longer than a segment", s.name, st.Size())
	case st.Size() < size:
		if err := s.file.Truncate(size); err != nil {
			return fmt.Errorf("extend segment: %w", err)
		}
	}
	return nil
}

// close frees everything; nothing may be in flight. The lock is released.
func (v *volume) close() error {
	v.mu.Lock()
	for _, s := range v.mu.dirty {
		s.release()
	}
	for _, s := range v.mu.segments {
		s.release()
	}
	v.mu.dirty, v.mu.segments = nil, nil
	streams := v.mu.streams
	v.mu.streams = nil
	v.mu.Unlock()
	for w := range streams {
		_ = w.discard() // what stays is removed by the next open
	}
	return v.dir.Close()
}

func (v *volume) segmentSize() int64 { return 1 << v.shift }

// extent is the range of addresses that segments cover.
func (v *volume) extent() (begin, end int64) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for index := range v.mu.segments {
		if end == 0 || index<<v.shift < begin {
			begin = index << v.shift
		}
		end = max(end, (index+1)<<v.shift)
	}
	return begin, end
}

// readable finds the segment of address off and takes a reference to it.
func (v *volume) readable(off int64) (*segment, error) {
	v.mu.RLock()
	s := v.mu.segments[off>>v.shift]
	v.mu.RUnlock()
	if s == nil || !s.acquire() {
		return nil, fmt.Errorf("%w: address %d", ErrNoSegment, off)
	}
	return s, nil
}

// writable is like readable, for a write of n bytes: it makes the segment if it
// does not exist, and keeps the preparer away from these bytes from here on.
func (v *volume) writable(off, n int64) (*segment, error) {
	if err := v.stuck(); err != nil {
		return nil, err
	}
	s, err := v.readable(off)
	if err != nil {
		s, err = v.findOrMake(off)
	}
	if err != nil {
		return nil, err
	}
	if z := s.zeroing.Load(); z != nil {
		z.claim(off-s.begin, n)
	}
	return s, nil
}

func (v *volume) findOrMake(off int64) (*segment, error) {
	v.create.Lock()
	defer v.create.Unlock()
	if s, err := v.readable(off); err == nil {
		return s, nil
	}
	s, err := v.newSegment(off >> v.shift)
	if err != nil {
		return nil, err
	}
	s.refs.Add(1) // the caller's
	v.enter(s)
	return s, nil
}

// newSegment makes a segment, of a spare if there is one. It has a zeroing unless
// its blocks have been written before. The caller holds create.
func (v *volume) newSegment(index int64) (s *segment, err error) {
	name := segmentName(v.shift, index)
	spare, ok := v.takeSpare(name)
	if ok {
		s, err = v.openSegment(name, index, 0)
	} else {
		s, err = v.makeSegment(index)
	}
	if err == nil && !spare.written {
		s.zeroing.Store(newZeroing(v.segmentSize()))
	}
	return s, err
}

// makeSegment makes a segment file; the caller holds create. Running out of space
// leaves nothing behind, so that it may be tried again.
func (v *volume) makeSegment(index int64) (*segment, error) {
	s, err := v.openSegment(segmentName(v.shift, index), index, unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return nil, err
	}
	if err := allocate(s.fd, v.segmentSize()); err != nil {
		s.release()
		_ = v.unlink(s.name)
		return nil, fmt.Errorf("make segment %s of %d bytes: %w", s.name, v.segmentSize(), err)
	}
	return s, nil
}

// enter puts a new segment into the table: from here on anybody may use it.
func (v *volume) enter(s *segment) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.segments[s.begin>>v.shift] = s
	v.mu.dirDirty = true
}

func (v *volume) openSegment(name string, index int64, flags int) (*segment, error) {
	if v.direct {
		flags |= directFlag
	}
	fd, err := openAt(int(v.dir.Fd()), name, unix.O_RDWR|flags)
	if err != nil {
		return nil, fmt.Errorf("open segment %s: %w", name, err)
	}
	s := &segment{file: os.NewFile(uintptr(fd), filepath.Join(v.path, name)), fd: fd, name: name, begin: index << v.shift}
	s.refs.Store(1) // the table's
	return s, nil
}

// written notes that a write to s has finished. It is called before the write's
// Done, so that a Sync submitted from there covers it.
func (v *volume) written(s *segment) {
	if !s.dirty.Load() {
		v.markDirty(s)
	}
}

func (v *volume) markDirty(s *segment) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !s.dirty.Load() && s.acquire() {
		s.dirty.Store(true)
		v.mu.dirty = append(v.mu.dirty, s)
	}
}

// sync makes durable what was written before the call. One caller at a time: a
// second one would find the dirty list empty while the first still works on it.
func (v *volume) sync() error {
	if err := v.stuck(); err != nil {
		return err
	}
	v.mu.Lock()
	dirty, dirDirty := v.mu.dirty, v.mu.dirDirty
	v.mu.dirty, v.mu.dirDirty = nil, false
	for _, s := range dirty {
		// Cleared before the file is synced: a write that ends from here on
		// enters the list again, one that ended before is covered below.
		s.dirty.Store(false)
	}
	v.mu.Unlock()
	var failed error
	for _, s := range dirty {
		if failed == nil {
			if err := retry(func() error { return syncData(s.file) }); err != nil {
				failed = fmt.Errorf("sync segment %s: %w", s.name, err)
			}
		}
		s.release()
	}
	if failed == nil && dirDirty {
		failed = v.syncDir()
	}
	if failed != nil {
		return v.fail(failed)
	}
	return nil
}

// syncDir makes names durable. Its failure is final too: nobody can say which
// names are on disk.
func (v *volume) syncDir() error {
	if err := v.dir.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", v.path, err)
	}
	return nil
}

// fail makes err, a failed sync, final and returns it.
func (v *volume) fail(err error) error {
	final := fmt.Errorf("%w: %w", ErrSyncFailed, err)
	v.failed.CompareAndSwap(nil, &final)
	return final
}

// stuck is the failed sync, or nil.
func (v *volume) stuck() error {
	if err := v.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// discard removes the segments that lie wholly below until, lowest first, or keeps
// them as spares. That is not made durable: after a crash some may be back.
func (v *volume) discard(until int64) error {
	v.create.Lock() // a segment being prepared is in the table when this is held
	v.floor = max(v.floor, until)
	v.create.Unlock()
	v.mu.RLock()
	var gone []int64
	for index := range v.mu.segments {
		if (index+1)<<v.shift <= until {
			gone = append(gone, index)
		}
	}
	v.mu.RUnlock()
	slices.Sort(gone)
	for _, index := range gone {
		if err := v.drop(index); err != nil {
			return fmt.Errorf("discard segment: %w", err)
		}
	}
	return nil
}

// drop takes a segment out of the table. Its file becomes a spare only if nobody
// can be using it: a read that is late would find, or the preparer overwrite, what
// another segment has there.
func (v *volume) drop(index int64) error {
	v.mu.RLock()
	s := v.mu.segments[index]
	v.mu.RUnlock()
	if s == nil {
		return nil
	}
	z := s.zeroing.Load()
	unused := (z == nil || z.give(discards)) && s.retire()
	if !unused || !v.recycle(s.name) {
		if err := v.unlink(s.name); err != nil {
			if unused {
				s.refs.Store(1) // it stays in the table
			}
			return err
		}
	}
	v.mu.Lock()
	delete(v.mu.segments, index)
	v.mu.Unlock()
	if unused {
		_ = s.file.Close() // nothing unsynced is promised any more
	} else {
		s.release()
	}
	return nil
}

// list returns the names in the directory, sorted. It opens it anew, because
// reading moves a position that all users of one open directory share.
func (v *volume) list() ([]string, error) {
	fd, err := openAt(int(v.dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, fmt.Errorf("list directory %s: %w", v.path, err)
	}
	dir := os.NewFile(uintptr(fd), v.path)
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list directory %s: %w", v.path, err)
	}
	slices.Sort(names)
	return names, nil
}

// unlink removes a name; a missing one is no error.
func (v *volume) unlink(name string) error {
	err := unix.Unlinkat(int(v.dir.Fd()), name, 0)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// scratchName is a file that exists only while a device is being opened.
const scratchName = "scratch" + newSuffix

// scratch makes a small file without a name, opened with flags, to find out what
// the file system can do.
func (v *volume) scratch(flags int) (*os.File, error) {
	if err := v.unlink(scratchName); err != nil {
		return nil, err
	}
	fd, err := openAt(int(v.dir.Fd()), scratchName, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|flags)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), scratchName), v.unlink(scratchName)
}

func segmentName(shift uint, index int64) string {
	return fmt.Sprintf("%s%02d-%016x", segmentPrefix, shift, index)
}

// parseSegmentName is the inverse of segmentName; other spellings do not count.
func parseSegmentName(name string) (shift uint, index int64, ok bool) {
	rest, ok := strings.CutPrefix(name, segmentPrefix)
	if !ok {
		return 0, 0, false
	}
	size, number, _ := strings.Cut(rest, "-")
	s, err1 := strconv.ParseUint(size, 10, 8)
	n, err2 := strconv.ParseUint(number, 16, 63)
	if err1 != nil || err2 != nil || s > 62 || n >= 1<<(63-s) || segmentName(uint(s), int64(n)) != name {
		return 0, 0, false
	}
	return uint(s), int64(n), true
}

// openAt opens without following a link and without passing the file on.
func openAt(dir int, name string, flags int) (fd int, err error) {
	if flags&unix.O_DIRECTORY == 0 {
		flags |= unix.O_NOFOLLOW // the directory itself may be a link: that is its owner's choice
	}
	err = retry(func() error {
		fd, err = unix.Openat(dir, name, flags|unix.O_CLOEXEC, filePerm)
		return err
	})
	return fd, err
}

// retry repeats f while a signal interrupts it.
func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
