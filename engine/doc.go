// Package engine is the store: a hybrid log and a hash index, in the manner of
// FASTER (Chandramouli et al., SIGMOD 2018), whose memory and disk are one
// address space.
//
//	            hash              newest record of a chain
//	key ---------------> index ------------+
//	                                       v
//	+-----------------+-----------+--------------+------------+----+
//	|  on disk        |  frozen,  |   mutable    |            | log|
//	|                 |  in memory|              |            |    |
//	+-----------------+-----------+--------------+------------+----+
//	^ begin           ^ head      ^ read-only    ^ tail
//
// Hot records are updated in place at the mutable end; others are copied to the
// tail. Pages that have become read-only are checksummed, flushed and, when their
// memory is needed, let go; a record that is not in memory is read from the
// device, verified, and never believed otherwise.
//
// # What it guarantees
//
//   - An operation takes effect at one moment between call and answer. Those of
//     one session on one key take effect in the order given.
//   - What was applied before a Sync is on stable storage when it returns nil.
//     Without being asked a commit follows every Options.CommitInterval.
//   - Open brings back exactly the state at the last commit: one moment of the
//     whole store, see commit.go. A Ledger tells how many of a client's writes
//     are in it.
//   - A value that does not verify is an error, never an answer. Damage below
//     what was known to be durable keeps the store from opening, with the place.
//   - What has expired is gone at once, for everybody and for good, see expiry.go.
//   - Memory is what Options.Memory says, outside the Go heap, plus what answers
//     and sessions hold.
//   - Reads never wait for commits or checkpoints; writes wait for the moment of
//     the cut, microseconds.
//
// Len is kept by counters. It is exact while the chains it meets are in memory. A
// put that meets a chain going on on disk is taken for an overwrite, and a blind
// delete for one of a key that was there, since finding out would cost a read; so
// it misses a new key that shares its chain with one on disk, and where keys are
// deleted and put again while they are on disk, it drifts. LenExact counts by a
// scan and corrects it. Keys that have expired leave it within a second where they
// are in memory, else with the compaction that meets them.
//
// # Where things are
//
//	store.go       Open and Close, the stages of each
//	session.go     a caller's way in: sections, the door, the blocking methods
//	op.go          operations and their answers
//	expiry.go      keys that are gone after a time; clock.go by which time;
//	               sweeper.go how they leave Len, expiring.go what they take
//	readcache.go   copies of records on disk that are read often
//	batch.go       Start: groups of operations in one section
//	pipeline.go    the stages of a group, which hide the memory's latency
//	allotment.go   room at the tail for what a group appends; placement.go where
//	               in a block a record begins
//	ops.go         what each operation does where it finds its record; modify.go
//	               those that depend on the present value
//	pending.go     operations that wait for the disk or for their turn; coldread.go
//	               the reads they wait for
//	large.go       values in chunks
//	commit.go      the commit task; ledger.go what commits say about clients
//	checkpoint.go  checkpoints; checkpointer.go their task; snapshot.go the index,
//	               image.go the end of the log, imagecut.go the commit it is made for,
//	               metastream.go how both are written
//	recover.go     what Open does with what it finds; replay.go its way over the log,
//	               load.go over an index snapshot
//	warm.go        memory filled again after it
//	rest.go        tasks of an idle store; grace.go how tasks wait for sections to end
//	forward.go     live records kept in memory when their page leaves
//	growth.go      the index grows
//	tasks.go       the background tasks, listed, stopped and run by hand
//	compaction.go  when old log is freed; compactor.go the pass, pace.go how far and
//	               how fast; judge.go what a worker does with a page, suspects.go
//	               and resolver.go what the disk decides, move.go what is moved
//	               like any operation; freeing.go, room.go the disk budget
//	keyscan.go     scans of the live keys; newest.go what they ask of each record,
//	               cursor.go what is kept between pages, scanreader.go the log,
//	               scanholds.go how compaction waits for them
//	history.go     what the log still has of older versions
//	order.go       the keys in their order, kept in memory; orderscan.go scans by it
//	feed.go        what was changed, commit by commit
//	FORMAT.md      every byte on disk
//	internal/      record, hlog, index, ordered, epoch, manifest, timers, cache: each
//	               explains itself; seeds for tests
//
// Read session.go first, then batch.go and ops.go; then hlog/log.go and epoch.
//
// The engine starts no goroutine and reads no clock: both come in by Options.
package engine
