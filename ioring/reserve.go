//go:build unix

package ioring

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// A reserve is room kept on the disk for segments to come: whole, allocated,
// empty files under another name.
//
//	spare26-0  spare26-1              seg26-...07  seg26-...08
//	    |          ^                                 ^
//	    |          '--- Reserve makes what is missing
//	    '--- renamed by the first write into a segment
//
// A file that is there cannot be taken by somebody else, as free blocks can, so
// whoever has reserved room for what it holds in memory knows that it can write
// it. A spare is blank: nothing is ever written to it under its own name.

const (
	// sparePrefix begins the name of a spare; shift and number follow.
	sparePrefix = "spare"
	// reserveMax bounds the reserve in segments: 64 GiB of the usual ones.
	reserveMax = 1024
)

// reserver makes spares on a goroutine that exists only while there is work.
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
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.running {
		return
	}
	r.mu.running = true
	r.group.Go(func() {
		err := v.makeSpares()
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
	i := 0
	for slices.Contains(v.spares, v.spareName(i)) {
		i++
	}
	name := v.spareName(i)
	fd, err := openAt(int(v.dir.Fd()), name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return fmt.Errorf("make spare segment: %w", err)
	}
	defer unix.Close(fd)
	if err := allocate(fd, v.segmentSize()); err != nil {
		_ = v.unlink(name)
		return fmt.Errorf("make spare segment: %w", err)
	}
	v.setSpares(append(v.spares, name))
	return nil
}

func (v *volume) spareName(i int) string { return fmt.Sprintf("%s%02d-%d", sparePrefix, v.shift, i) }

// setSpares changes the list; the caller holds create, or is opening the volume.
func (v *volume) setSpares(spares []string) {
	v.spares = spares
	v.spareCount.Store(int64(len(spares)))
}

// takeSpare gives a spare the name of a segment; false if there is none. The
// caller holds create.
func (v *volume) takeSpare(segment string) bool {
	for len(v.spares) > 0 {
		spare := v.spares[len(v.spares)-1]
		v.setSpares(v.spares[:len(v.spares)-1])
		dir := int(v.dir.Fd())
		if err := unix.Renameat(dir, spare, dir, segment); err == nil {
			return true
		}
	}
	return false
}

// instead removes a spare and calls f while nobody makes a new one, so that there
// is room for something small that has to be written. Without a spare it returns
// err.
func (v *volume) instead(err error, f func() error) error {
	v.create.Lock()
	defer v.create.Unlock()
	if len(v.spares) == 0 {
		return err
	}
	spare := v.spares[len(v.spares)-1]
	v.setSpares(v.spares[:len(v.spares)-1])
	if gone := v.unlink(spare); gone != nil {
		return err
	}
	return f()
}

// adoptSpares takes over what an earlier process has reserved, and removes what
// it has not finished.
func (v *volume) adoptSpares() error {
	names, err := v.list()
	if err != nil {
		return err
	}
	for _, name := range names {
		var i int
		if _, err := fmt.Sscanf(name, sparePrefix+"%02d-%d", new(uint), &i); err != nil || name != v.spareName(i) {
			continue
		}
		var st unix.Stat_t
		err := unix.Fstatat(int(v.dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == v.segmentSize() {
			v.setSpares(append(v.spares, name))
			continue
		}
		if err := v.unlink(name); err != nil {
			return err
		}
	}
	return nil
}

// isFull tells errors that say that there is no room.
func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
