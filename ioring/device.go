package ioring

import (
	"errors"
	"io"
)

// OpKind says what an Op asks of the device.
type OpKind uint8

const (
	// Read fills Buf from the address space at Off.
	Read OpKind = iota + 1
	// Write stores Buf at Off. A finished write is not yet durable.
	Write
	// Sync makes every write that had finished before the Sync was submitted
	// durable, together with the directory entries of the segments they are in.
	// A failed Sync is final: the device answers ErrSyncFailed to every later
	// write and sync (fsync that failed once may report success afterwards
	// although the data is gone).
	Sync
)

// Op is one request. Its life has three steps:
//
//  1. the caller fills Kind, Off, Buf and Done;
//  2. Submit passes the Op and its Buf to the device: the caller may neither
//     read nor change them;
//  3. the device sets N and Err and calls Done exactly once: the Op and its Buf
//     are the caller's again, and may be submitted again, from inside Done too.
//
// Done runs on a goroutine of the device or, before Submit returns, on the
// submitter's own. It must be short, must not block and must not hold up the
// device; the submitter must not hold a lock that Done takes.
type Op struct {
	Kind OpKind
	// Off is the byte address in the flat address space. With Buf it must obey
	// Align and lie inside one segment.
	Off int64
	Buf []byte
	// N is the number of bytes transferred: len(Buf) unless Err is set.
	N   int
	Err error
	// Done is called when the operation has finished.
	Done func(*Op)

	next  *Op   // owned by the device between Submit and Done, as is began
	began int64 // when it was submitted, by the device's clock
}

// Errors a device answers with. The operating system's own errors (EIO, ENOSPC,
// EFBIG, EDQUOT, ...) are wrapped, so errors.Is finds them too.
var (
	// ErrClosed: the device has been closed.
	ErrClosed = errors.New("ioring: device closed")
	// ErrNoSegment: a read of a segment that does not exist (never written, or
	// discarded).
	ErrNoSegment = errors.New("ioring: no such segment")
	// ErrMisaligned: offset, length or memory of an Op breaks Align, or the Op
	// crosses a segment border.
	ErrMisaligned = errors.New("ioring: operation is not aligned")
	// ErrSyncFailed: an earlier sync or write-back failed; nothing written since
	// can be trusted to be durable.
	ErrSyncFailed = errors.New("ioring: an earlier sync failed")
	// ErrShort: the file ended, or the device stopped, inside an operation.
	ErrShort = errors.New("ioring: short transfer")
	// ErrLocked: another process has the directory open.
	ErrLocked = errors.New("ioring: directory is in use")
	// ErrNoMeta: no such metadata file.
	ErrNoMeta = errors.New("ioring: no such metadata file")
)

// Align holds the constraints on the operations of a device, in bytes; each is a
// power of two between 1 and 4096.
type Align struct {
	Offset int // of Op.Off and len(Op.Buf)
	Memory int // of the address of Op.Buf[0]
}

// Info describes an open device for logs and statistics.
type Info struct {
	Backend string // "io_uring", "pread/pwrite", or a test device's name
	Why     string // one sentence: why this backend
	Direct  bool   // O_DIRECT is in force
	Detail  string // one sentence on O_DIRECT, registered memory and the like
}

// Counters of a device since it was opened.
type Counters struct {
	Reads, ReadBytes   uint64
	Writes, WriteBytes uint64
	Syncs              uint64
	Errors             uint64
	PrepareBytes       uint64 // zeros written by Prepare
	PrepareErrors      uint64 // segments whose preparation failed, for want of room mostly
	Recycled           uint64 // segments that were made of discarded ones
	Spares             int64  // segments' worth of room that is reserved or kept at the moment
	InFlight           int64

	// How long the operations took; a device that has no clock leaves them zero.
	ReadTimes, WriteTimes, SyncTimes Times
}

// MetaWriter writes the new content of a metadata file from front to back. Its
// life has three steps:
//
//  1. CreateMeta: nothing is visible, and the old content stays;
//  2. Write, any number of times: each is a system call, so pieces of 64 KiB and
//     more are best; a Write that fails is final, Commit fails with its error;
//  3. Commit or Abort, once.
//
// All calls after the third step fail with fs.ErrClosed, so Abort may be
// deferred; all calls after the device was closed fail with ErrClosed, and the
// device has then thrown the content away. One goroutine at a time may use it.
type MetaWriter interface {
	io.Writer
	// Commit puts the content in the place of the old one in one step, and
	// returns when content and directory entry are durable. If it fails with
	// anything but ErrSyncFailed the old content is still there.
	Commit() error
	// Abort throws the content away.
	Abort() error
}

// MetaReader reads the content that a metadata file had when it was opened,
// also when it is replaced or removed meanwhile. It is safe for concurrent use,
// except that nobody may be in ReadAt when Close is called. After Close all calls
// but Size fail with fs.ErrClosed; after the device was closed ReadAt fails with
// ErrClosed, and Close has still to be called.
type MetaReader interface {
	io.ReaderAt
	io.Closer
	// Size is the number of bytes.
	Size() int64
}

// Device is one directory: a flat address space of bytes cut into segments of
// equal size, and a few metadata files. All methods are safe for
// concurrent use.
type Device interface {
	// Submit starts every op of ops, in any order; the ops of one call are
	// handed over together. It does not wait for them, except that a single
	// read, sync or short write may be done at once on the caller's thread when
	// nothing of its kind is in flight (that is faster than two wake-ups). The
	// slice is the caller's again when Submit returns.
	Submit(ops []*Op)

	// SegmentSize is the size of a segment in bytes, a power of two.
	SegmentSize() int64
	// Align is what operations must obey.
	Align() Align
	// Extent is the range of addresses that existing segments cover,
	// [begin, end), both multiples of SegmentSize; both zero when there is none.
	// Segments made by Prepare count, also after a crash or a new open.
	Extent() (begin, end int64)
	// Discard removes every segment that lies wholly below until. The caller
	// guarantees that nobody relies on what is read there from now on, and that a
	// crash may bring some of them back, with any content.
	Discard(until int64) error
	// Recycle says how many discarded segments, at most 1024, may be kept beside
	// what Reserve asks for, instead of being removed; none at first. They are part
	// of the reserve, and the first to be taken: writing over blocks is several
	// times faster than writing them for the first time. Where a segment that was
	// made so has not been written yet, it reads as whatever was there before. With
	// a smaller number than are kept the others are removed soon.
	Recycle(segments int)
	// Prepare asks that the segment with address until-1 be made, of the reserve if
	// there is one, and, unless it is made of a discarded one, that what nobody has
	// written of it be written once with zeros, so that commits into it are as fast
	// as overwriting: otherwise each has to tell the file system too that a block is
	// in use. It doubles what is written, so it is for writers who are slow between
	// commits.
	//
	// The segment is there when it returns; the writing is done in pieces, with
	// pauses; a write waits for one piece at most, and what has once been written
	// is never zeroed. A segment that has been prepared, that was there before this
	// open but for the last two, or lies below the bound of a Discard, is left alone.
	// While two segments wait to be written nothing more is done.
	// Failures are only counted; a segment that there was no room for leaves
	// nothing behind and may be asked for again.
	Prepare(until int64)

	// Reserve asks that room for so many segments, at most 1024, be kept on the
	// disk for those to come: a write into a new segment takes it from there, and
	// WriteMeta takes from it when it finds no room. It returns at once. What has
	// been taken, or could not be made for want of room, is made by the next
	// Reserve. What is there stays when the device is closed.
	Reserve(segments int)
	// Room says how many segments have room reserved for them at the moment, and
	// whether more were asked for that there is no room for. Where reserving fails
	// for any other reason it says that there is room: a write will meet the error.
	Room() (reserved int, full bool)

	// Buffers is the device's staging memory for reads.
	Buffers() *Buffers

	// ReadMeta returns the content of a metadata file of at most 1 GiB, or
	// ErrNoMeta.
	ReadMeta(name string) ([]byte, error)
	// WriteMeta replaces a metadata file in one step and returns when content
	// and directory entry are durable: after a crash either the old or the new
	// content is there, whole.
	WriteMeta(name string, data []byte) error
	// CreateMeta is WriteMeta for content that shall not be held in memory: it
	// keeps the promise of WriteMeta at Commit. Several may be open, for one
	// name too; the last Commit wins.
	CreateMeta(name string) (MetaWriter, error)
	// OpenMeta is ReadMeta for content of any size.
	OpenMeta(name string) (MetaReader, error)
	// RemoveMeta removes a metadata file durably; a missing one is no error.
	RemoveMeta(name string) error
	// ListMeta lists the metadata files, sorted by name.
	ListMeta() ([]string, error)

	Info() Info
	Counters() Counters

	// Close waits for what is in flight, then frees everything. Operations
	// submitted afterwards fail with ErrClosed.
	Close() error
}
