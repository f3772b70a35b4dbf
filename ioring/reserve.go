//go:build unix

package ioring

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// A reserve is room kept on the disk for segments to come: whole, allocated files
// under another name.
//
//	spare26-0   recycled26-0            seg26-...07  seg26-...08
//	 |     ^      |       ^                 |            ^
//	 |     |      |       '---- Discard ----'            |
//	 |     '-- Reserve makes what is missing             |
//	 '------------'--- renamed by the first write into a segment
//
// A file that is there cannot be taken by somebody else, as free blocks can, so
// whoever has reserved room for what it holds in memory knows that it can write
// it. A spare is blank, or it was a segment before: then its blocks have been
// written, which makes writing them again several times faster, and hold what they
// held. Nothing is ever written to it under its own name.
//
// What a crash leaves: a name is changed in one step, so a file is a segment or a
// spare, never both, and a segment that was discarded may be there again, with its
// own bytes or with those of the segment that it has become meanwhile. Nobody may
// look at it in either case, see Device.Discard; the next Discard takes it.
//
// Beside the spares, which the log may use up, a small file is kept, the ballast: a
// metadata file that finds no room, such as the one that says how a store was closed,
// gets half of what the ballast has. It is as large as ever when there is room again.

const (
	// sparePrefix begins the name of a blank spare, recycledPrefix that of one that
	// was a segment; shift and number follow.
	sparePrefix    = "spare"
	recycledPrefix = "recycled"
	// reserveMax bounds the reserve in segments: 64 GiB of the usual ones.
	reserveMax  = 1024
	ballastName = "ballast"
	// ballastMax bounds it, which is a sixteenth of a segment otherwise; ballastLeast
	// is what is worth keeping: a block.
	ballastMax   = 256 << 10
	ballastLeast = 4 << 10
)

// spare is a file of the reserve.
type spare struct {
	name    string
	written bool // it was a segment
}

// reserver makes and removes spares on a goroutine that exists only while there is
// work.
type reserver struct {
	disk  *disk
	group sync.WaitGroup // the goroutine
	mu    struct {
		sync.Mutex
		running bool
	}
}

// ask is Reserve of an open device.
func (r *reserver) ask(n int) {
	v := r.disk.volume
	v.wanted.Store(int64(min(n, reserveMax)))
	if v.spareCount.Load() >= v.wanted.Load() {
		v.short.Store(false)
		return // usual when the question is repeated, and cheap
	}
	r.run()
}

// keep is Recycle of an open device.
func (r *reserver) keep(n int) {
	v := r.disk.volume
	v.recycled.Store(int64(max(min(n, reserveMax), 0)))
	if v.surplus() > 0 {
		r.run()
	}
}

func (r *reserver) run() {
	v := r.disk.volume
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.running {
		return
	}
	r.mu.running = true
	r.group.Go(func() {
		v.trimSpares()
		err := v.makeSpares()
		if err == nil {
			v.fillBallast()
		}
		v.short.Store(isFull(err))
		v.spareless.Store(err != nil && !isFull(err))
		r.mu.Lock()
		defer r.mu.Unlock()
		r.mu.running = false
	})
}

// stop returns when nothing is being made. Nobody asks any more.
func (r *reserver) stop() { r.group.Wait() }

// makeSpares makes what is missing.
func (v *volume) makeSpares() (err error) {
	for err == nil && v.spareCount.Load() < v.wanted.Load() {
		err = v.makeSpare()
	}
	return err
}

func (v *volume) makeSpare() error {
	v.create.Lock()
	defer v.create.Unlock()
	if err := v.stuck(); err != nil {
		return err
	}
	name := v.freeName(sparePrefix)
	fd, err := openAt(int(v.dir.Fd()), name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return fmt.Errorf("make spare segment: %w", err)
	}
	defer unix.Close(fd)
	if err := allocate(fd, v.segmentSize()); err != nil {
		_ = v.unlink(name)
		return fmt.Errorf("make spare segment: %w", err)
	}
	v.setSpares(append(v.spares, spare{name: name}))
	return nil
}

// surplus is how many spares there are beyond those wanted and those that may be
// kept.
func (v *volume) surplus() int {
	return int(v.spareCount.Load() - v.wanted.Load() - v.recycled.Load())
}

// trimSpares removes the surplus. A spare that cannot be removed is tried again by
// the next call.
func (v *volume) trimSpares() {
	v.create.Lock()
	defer v.create.Unlock()
	for v.surplus() > 0 && v.unlink(v.spares[0].name) == nil {
		v.setSpares(v.spares[1:])
	}
}

// recycle makes a spare of a segment that nobody uses any more, if one more may be
// kept.
func (v *volume) recycle(segment string) bool {
	v.create.Lock()
	defer v.create.Unlock()
	if v.surplus() >= 0 || v.stuck() != nil {
		return false
	}
	name, dir := v.freeName(recycledPrefix), int(v.dir.Fd())
	if err := unix.Renameat(dir, segment, dir, name); err != nil {
		return false
	}
	v.setSpares(append(v.spares, spare{name: name, written: true}))
	return true
}

// freeName is a name that no spare has; the caller holds create.
func (v *volume) freeName(prefix string) string {
	for i := 0; ; i++ {
		name := v.spareName(prefix, i)
		if !slices.ContainsFunc(v.spares, func(s spare) bool { return s.name == name }) {
			return name
		}
	}
}

func (v *volume) spareName(prefix string, i int) string {
	return fmt.Sprintf("%s%02d-%d", prefix, v.shift, i)
}

// setSpares changes the list; the caller holds create, or is opening the volume.
func (v *volume) setSpares(spares []spare) {
	v.spares = spares
	v.spareCount.Store(int64(len(spares)))
}

// takeSpare gives a spare the name of a segment, one whose blocks have been written
// if there is one; ok is false if there is none at all. The caller holds create.
func (v *volume) takeSpare(segment string) (s spare, ok bool) {
	for len(v.spares) > 0 {
		i := len(v.spares) - 1
		for i > 0 && !v.spares[i].written {
			i--
		}
		s = v.spares[i]
		v.setSpares(slices.Delete(v.spares, i, i+1))
		dir := int(v.dir.Fd())
		if err := unix.Renameat(dir, s.name, dir, segment); err == nil {
			if s.written {
				v.overwritten.Add(1)
			}
			return s, true
		}
	}
	return spare{}, false
}

// instead removes a spare and calls f while nobody makes a new one, so that there
// is room for something small that has to be written. Without a spare the ballast
// has to do; without either it returns err.
func (v *volume) instead(err error, f func() error) error {
	v.create.Lock()
	defer v.create.Unlock()
	if len(v.spares) == 0 {
		if v.cutBallast() {
			return f()
		}
		return err
	}
	gone := v.unlink(v.spares[0].name)
	v.setSpares(v.spares[1:])
	if gone != nil {
		return err
	}
	return f()
}

// makeRoom removes a spare that nobody wanted but that was kept, for something
// that finds no room; false if there is none.
func (v *volume) makeRoom() bool {
	v.create.Lock()
	defer v.create.Unlock()
	if v.spareCount.Load() <= v.wanted.Load() || v.unlink(v.spares[0].name) != nil {
		return false
	}
	v.setSpares(v.spares[1:])
	return true
}

// fillBallast gives the ballast its whole size. Where that fails it is tried again
// with the next spares.
func (v *volume) fillBallast() {
	v.create.Lock()
	defer v.create.Unlock()
	size := min(v.segmentSize()/16, ballastMax)
	if v.stuck() != nil || v.ballastSize() >= size {
		return
	}
	fd, err := openAt(int(v.dir.Fd()), ballastName, unix.O_RDWR|unix.O_CREAT)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	_ = allocate(fd, size)
}

// cutBallast gives half of the ballast back to the file system, all of it where that
// would be less than a block; false if there is none. The caller holds create.
func (v *volume) cutBallast() bool {
	size := v.ballastSize()
	if size == 0 {
		return false
	}
	half := size / 2 &^ (ballastLeast - 1)
	if half == 0 {
		return v.unlink(ballastName) == nil
	}
	fd, err := openAt(int(v.dir.Fd()), ballastName, unix.O_RDWR)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return retry(func() error { return unix.Ftruncate(fd, half) }) == nil
}

// ballastSize is what the ballast has in bytes, 0 if there is none.
func (v *volume) ballastSize() int64 {
	var st unix.Stat_t
	err := unix.Fstatat(int(v.dir.Fd()), ballastName, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0
	}
	return st.Size
}

// adoptSpares takes over what an earlier process has reserved or kept, and removes
// what it has not finished.
func (v *volume) adoptSpares() error {
	names, err := v.list()
	if err != nil {
		return err
	}
	for _, name := range names {
		written, ok := v.parseSpareName(name)
		if !ok {
			continue
		}
		var st unix.Stat_t
		err := unix.Fstatat(int(v.dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == v.segmentSize() {
			v.setSpares(append(v.spares, spare{name, written}))
			continue
		}
		if err := v.unlink(name); err != nil {
			return err
		}
	}
	return nil
}

// parseSpareName is the inverse of spareName; other spellings do not count.
func (v *volume) parseSpareName(name string) (written, ok bool) {
	var i int
	for _, prefix := range []string{sparePrefix, recycledPrefix} {
		if _, err := fmt.Sscanf(name, prefix+"%02d-%d", new(uint), &i); err == nil && name == v.spareName(prefix, i) {
			return prefix == recycledPrefix, true
		}
	}
	return false, false
}

// isFull tells errors that say that there is no room.
func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
