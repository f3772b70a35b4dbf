//go:build linux

// Package loopfs mounts real file systems, ext4 and XFS, that lie in a file, for
// tests of what only they do: fill up, stand still, lose what was not synced when
// the power goes, or be slow. It needs root and loop devices.
package loopfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rskv/ioring/iotest/mounts"
)

// Kind is a file system's.
type Kind string

const (
	Ext4 Kind = "ext4" // without blocks reserved for root
	XFS  Kind = "xfs"  // of XFSMin at least
)

// XFSMin is the least size in bytes that mkfs.xfs takes.
const XFSMin = 300 << 20

// imagePrefix begins the names of images, and the process that made them follows:
// so those that killed runs have left are known.
const imagePrefix = "rskv-loopfs-"

// FS is one mounted file system.
type FS struct {
	Dir   string // where it is mounted
	image string
}

// Mount makes a file system of size bytes, with an image and a directory below
// base. The error says why this machine has none.
func Mount(base string, kind Kind, size int64) (*FS, error) {
	mounts.RemoveStale(unix.MNT_DETACH, owner)
	f := &FS{Dir: filepath.Join(base, "mnt"), image: filepath.Join(base, imagePrefix+strconv.Itoa(os.Getpid()))}
	if err := os.Mkdir(f.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(f.image, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(f.image, size); err != nil {
		return nil, err
	}
	mkfs := []string{"mkfs.ext4", "-q", "-m", "0", f.image}
	if kind == XFS {
		mkfs = []string{"mkfs.xfs", "-q", f.image}
	}
	if out, err := exec.Command(mkfs[0], mkfs[1:]...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", mkfs[0], err, out)
	}
	return f, f.mount()
}

// ForTest is Mount until the end of a test, which is skipped where it fails.
func ForTest(t testing.TB, kind Kind, size int64) *FS {
	t.Helper()
	f, err := Mount(t.TempDir(), kind, size)
	if err != nil {
		t.Skipf("no %s in a file on this machine: %v", kind, err)
	}
	t.Cleanup(func() {
		_ = f.Thaw()
		if err := f.Unmount(); err != nil {
			t.Fatal(err)
		}
	})
	return f
}

// mount makes the loop device and asks the kernel to drop it with the mount.
func (f *FS) mount() error {
	if out, err := exec.Command("mount", "-o", "loop", f.image, f.Dir).CombinedOutput(); err != nil {
		return fmt.Errorf("mount: %w: %s", err, out)
	}
	return nil
}

// unmountMax is how long the last file may take to be closed: what a ring had in
// flight is given back a moment later.
const unmountMax = 10 * time.Second

// Unmount ends it. Nobody may use it.
func (f *FS) Unmount() error {
	var err error
	for begin := time.Now(); time.Since(begin) < unmountMax; time.Sleep(5 * time.Millisecond) {
		if err = unix.Unmount(f.Dir, 0); err == nil || !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return errors.Join(fmt.Errorf("unmount %s: %w", f.Dir, err), unix.Unmount(f.Dir, unix.MNT_DETACH))
}

// The requests of ioctl, the same for both kinds; see ioctl_fs(2) and the kernel's
// EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN.
const (
	ioctlFreeze   = 0xc0045877
	ioctlThaw     = 0xc0045878
	ioctlShutdown = 0x8004587d
	// noLogFlush: what is in memory is lost, also what the journal has not written.
	noLogFlush = 2
)

// PowerCut makes the file system forget all that is not on its disk, and fail
// from then on. What was written and not synced is gone; Remount finds what a
// machine finds whose power went at that moment, but for writes that went past the
// page cache.
func (f *FS) PowerCut() error {
	return f.onDir(func(fd int) error { return unix.IoctlSetPointerInt(fd, ioctlShutdown, noLogFlush) })
}

// Remount mounts it again. Nobody may use it.
func (f *FS) Remount() error {
	if err := f.Unmount(); err != nil {
		return err
	}
	return f.mount()
}

// Freeze makes everybody who writes wait, until Thaw.
func (f *FS) Freeze() error {
	return f.onDir(func(fd int) error { return unix.IoctlSetInt(fd, ioctlFreeze, 0) })
}

// Thaw ends a Freeze; without one it does nothing.
func (f *FS) Thaw() error {
	err := f.onDir(func(fd int) error { return unix.IoctlSetInt(fd, ioctlThaw, 0) })
	if errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

// Device is the loop device, as control groups name it: "major:minor".
func (f *FS) Device() (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(f.Dir, &st); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)), nil
}

func (f *FS) onDir(do func(fd int) error) error {
	dir, err := os.Open(f.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return do(int(dir.Fd()))
}

// owner is the process that mounted a loop device, if it was one with an image of ours.
func owner(source string) (pid string, ours bool) {
	if !strings.HasPrefix(source, "/dev/loop") {
		return "", false
	}
	backing, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(source), "loop/backing_file"))
	if err != nil {
		return "", false
	}
	return strings.CutPrefix(filepath.Base(strings.TrimSuffix(strings.TrimSpace(string(backing)), " (deleted)")), imagePrefix)
}
