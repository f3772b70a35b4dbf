// Package ioring is asynchronous storage: a directory of files seen as one flat
// address space, with two ways to move the bytes.
//
//	         Submit(ops)                          Done(op)
//	             |                                   ^
//	disk         v                                   |
//	.------------------------------------------------------------.
//	| check: alignment, one segment, open, no failed sync        |
//	|    reads              writes              syncs            |
//	'------|-------------------|------------------|--------------'
//	       v                   v                  v
//	.----------------------------------.   .---------------------.
//	| ring   one io_uring each         |   | syncer   rounds of  |
//	| pool   16 threads   2 threads    |   |          fdatasync  |
//	'----------------------------------'   '---------------------'
//	       |                   |                  |
//	       v                   v                  v
//	volume   seg26-0000000000000007 | ...08 | ...09 |   NAME.meta
//	         ^ begin                               ^ end
//
// # What it guarantees
//
//   - Every op is answered exactly once, also when the device is closed.
//   - A Sync covers every write that had finished when it was submitted, the
//     directory entries of new segments, and what a process before this one left
//     unsynced. A failed sync is final: nothing is promised durable afterwards.
//   - A full disk, a quota or a file size limit fails the op that met it and is
//     forgotten: the same op may succeed later.
//   - Submit never waits for the disk, except for a lone read, which is done on
//     the caller's thread because two wake-ups cost more than the read.
//   - Memory is bounded: the staging memory of Buffers is the budget given to
//     Open, the rings hold a fixed number of ops, and what waits for them are the
//     callers' own Ops, linked, not copied.
//
// Nothing orders operations that are in flight together: who needs an order waits
// for Done.
//
// # Vocabulary
//
// A segment is one file, made whole by the first write into it, or before that by
// Prepare, and removed whole by Discard. An address is a byte offset into the
// sequence of all segments. Staging memory is what cold reads land in. Metadata
// are files that are replaced in one step, small ones at once, large ones as a
// stream.
//
// # Where to read
//
// device.go is the contract, disk.go how it is met, volume.go the files, prepare.go
// what is done to a segment before its first write, metafile.go metadata; ring.go
// and pool.go are the two backends, open.go chooses between them with the help of
// probe.go. buffer.go is the staging memory and memory.go what it is made of.
// Package iotest has a device in memory that can crash, one that fails on demand,
// and the contract as a test.
//
// # Building
//
// io_uring needs the build tag giouring and, because its binding reaches into the
// syscall package, the linker flag:
//
//	go build -tags giouring -ldflags=-checklinkname=0
//
// Without the tag, and on other systems, everything works through pread/pwrite.
package ioring
