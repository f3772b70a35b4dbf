//go:build linux

package faultfs

import (
	"context"
	"path/filepath"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// openFlags keep the page cache out of the way: every read and write of a
// program arrives here.
const openFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES

// node is a file or directory; the loopback does what is not overridden here.
type node struct {
	*fs.LoopbackNode
	owner *FS
}

// WrapChild implements fs.NodeWrapChilder: what the loopback makes becomes ours.
func (n *node) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{ops.(*fs.LoopbackNode), n.owner}
}

func (n *node) name() string { return n.Path(n.Root()) }

// below is where the node's file lies.
func (n *node) below() string { return filepath.Join(n.owner.Below, n.name()) }

// Open implements fs.NodeOpener.
func (n *node) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	f, errno := n.owner.open(n.below(), n.name(), flags, 0)
	return f, openFlags, errno
}

// Create implements fs.NodeCreater.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	f, errno := n.owner.open(filepath.Join(n.below(), name), filepath.Join(n.name(), name), flags|unix.O_CREAT, mode)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(f.fd, &st); err != nil {
		f.Release(ctx)
		return nil, nil, 0, fs.ToErrno(err)
	}
	out.FromStat(&st)
	child := &fs.LoopbackNode{RootData: n.RootData}
	return n.NewInode(ctx, child, fs.StableAttr{Mode: st.Mode, Ino: st.Ino}), f, openFlags, 0
}

// Fsync implements fs.NodeFsyncer, for files. What is below only has to outlive
// the process, so nothing is synced there.
func (n *node) Fsync(_ context.Context, file fs.FileHandle, _ uint32) syscall.Errno {
	op := Op{Kind: Fsync, Name: n.name()}
	if h, ok := file.(*handle); ok {
		op.WriteOnly = h.writeOnly
	}
	errno, _ := n.owner.judge(op)
	return errno
}

// OpendirHandle implements fs.NodeOpendirHandler.
func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	file, fuseFlags, errno := n.LoopbackNode.OpendirHandle(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return &dirHandle{file.(dirStream), n}, fuseFlags, 0
}

// dirStream is what the loopback's directories can do.
type dirStream interface {
	fs.FileReaddirenter
	fs.FileReleasedirer
	fs.FileSeekdirer
}

// dirHandle is an open directory.
type dirHandle struct {
	dirStream
	node *node
}

// Fsyncdir implements fs.FileFsyncdirer.
func (d *dirHandle) Fsyncdir(context.Context, uint32) syscall.Errno {
	errno, _ := d.node.owner.judge(Op{Kind: Fsync, Name: d.node.name()})
	return errno
}

// handle is an open file.
type handle struct {
	*fs.LoopbackFile
	owner     *FS
	fd        int // the LoopbackFile's
	name      string
	writeOnly bool
}

// open opens a file below for one open file above. O_DIRECT is the program's
// affair and would only bring the alignment of the disk below into play.
func (f *FS) open(path, name string, flags, mode uint32) (*handle, syscall.Errno) {
	fd, err := unix.Open(path, int(flags)&^(unix.O_APPEND|unix.O_DIRECT)|unix.O_CLOEXEC, mode)
	if err != nil {
		return nil, fs.ToErrno(err)
	}
	return &handle{
		LoopbackFile: fs.NewLoopbackFile(fd).(*fs.LoopbackFile), owner: f, fd: fd, name: name,
		writeOnly: flags&unix.O_ACCMODE == unix.O_WRONLY,
	}, 0
}

func (h *handle) judge(kind Kind, off int64, size int) (errno syscall.Errno, short bool) {
	return h.owner.judge(Op{Kind: kind, Name: h.name, Off: off, Size: size, WriteOnly: h.writeOnly})
}

// Read implements fs.FileReader.
func (h *handle) Read(_ context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	errno, short := h.judge(Read, off, len(dest))
	if errno != 0 {
		return nil, errno
	}
	if short {
		dest = dest[:(len(dest)+1)/2]
	}
	n, err := unix.Pread(h.fd, dest, off)
	if err != nil {
		return nil, fs.ToErrno(err)
	}
	return fuse.ReadResultData(dest[:n]), 0
}

// Write implements fs.FileWriter.
func (h *handle) Write(_ context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	errno, short := h.judge(Write, off, len(data))
	if errno != 0 {
		return 0, errno
	}
	if short {
		data = data[:(len(data)+1)/2]
	}
	n, err := unix.Pwrite(h.fd, data, off)
	return uint32(n), fs.ToErrno(err)
}

// Flush implements fs.FileFlusher: not at all, so that the kernel does not ask
// again. A process that dies closes its files when nobody answers any more.
func (h *handle) Flush(context.Context) syscall.Errno { return syscall.ENOSYS }

// Allocate implements fs.FileAllocater.
func (h *handle) Allocate(_ context.Context, off, size uint64, mode uint32) syscall.Errno {
	if errno, _ := h.judge(Allocate, int64(off), int(size)); errno != 0 {
		return errno
	}
	return fs.ToErrno(unix.Fallocate(h.fd, mode, int64(off), int64(size)))
}
