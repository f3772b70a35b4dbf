package hlog

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"rskv/engine/internal/record"
	"rskv/ioring"
)

const (
	// flushDepth bounds the writes in flight; 8 x 1 MiB saturate the disks
	// measured.
	flushDepth = 8
	// fullRetry is how long the flusher waits before it tries a full disk again.
	fullRetry = 50 * time.Millisecond
	// ReserveSegments is how many segments of room are kept for tombstones,
	// compaction and commits, which are what makes room again. See Full and
	// SpendReserve.
	ReserveSegments = 2
	// roomPoll is how often the flusher looks whether room has been made: a file
	// of a segment's size takes a disk about that long.
	roomPoll = time.Millisecond
)

// flusher is the state of the flush task. Fields without a note are owned by
// whoever runs FlushStep.
type flusher struct {
	// queue holds the writes in address order: in flight, finished or to be
	// tried again. flushed passes a write when it and all before it have
	// succeeded.
	queue   []*flushOp
	spare   []*flushOp
	retryAt int64 // clock time before which a full disk is not tried again
	lookAt  int64 // clock time before which a full disk is not asked for its reserve again
	half    int64 // half segments below the tail when the device was last asked for its reserve, plus 1
	reserve int64 // what it was asked for

	mu sync.Mutex
	// finished is guarded by mu: writes whose Done has been called.
	finished []*flushOp
	// submitting is true during Submit of a write: what is done at once needs no
	// wake-up, since the next step follows in any case. Guarded by mu.
	submitting bool
}

type flushOp struct {
	ioring.Op
	until record.Addr
	done  bool
	full  bool // found the disk full, and has not succeeded since
	retry bool // finished, waits to be submitted again
}

// fault says what is wrong with the log, if anything.
type fault struct {
	// err is set once, when a write or sync failed for another reason than a
	// full disk: what is in memory can then not be trusted to reach the disk.
	err atomic.Pointer[error]
	// full is true while the device has no room but its reserve, or not even that.
	full atomic.Bool
	// stuck is true while the device answers that it has no room at all: writes
	// wait in the queue.
	stuck atomic.Bool
}

// Err returns why the log has failed for good, or nil.
func (l *Log) Err() error {
	if p := l.fault.err.Load(); p != nil {
		return *p
	}
	return nil
}

// Full reports whether the disk is full at the moment. The device is asked to keep
// room for all that is in memory only, and ReserveSegments more:
//
//	  on disk, or a segment is there | room reserved         | 2 segments
//	|--------------------------------|-----------------------|------------|
//	                              flushed                   tail
//
// When there is no room for that the log is full, although everything that is in
// it can still be flushed and become durable. What is left is for tombstones,
// compaction and commits; the caller of Allocate sees to it that nothing else
// takes from it.
func (l *Log) Full() bool { return l.fault.full.Load() }

// Stuck reports whether not even the reserve has room: nothing becomes durable
// until there is some.
func (l *Log) Stuck() bool { return l.fault.stuck.Load() }

// Fail makes the log fail for good, and wakes everyone who waits for it. The
// first reason stays.
func (l *Log) Fail(err error) {
	l.fault.err.CompareAndSwap(nil, &err)
	l.space.broadcast()
}

// FlushStep does what there is to do: collects finished writes, moves flushed
// and head, seals what has become immutable and submits it. It returns how long
// to wait for the next step if nobody calls Wake: 0 when there is more to do at
// once, negative when nothing is expected. now is the clock in nanoseconds. One
// goroutine at a time runs it.
func (l *Log) FlushStep(now int64) time.Duration {
	l.collect()
	l.advance()
	l.moveHead()
	wait := l.resubmit(now)
	if l.Err() != nil {
		return -1
	}
	if l.issue() {
		return 0
	}
	if again := l.lookForRoom(now); wait < 0 {
		wait = again
	}
	return wait
}

// lookForRoom keeps the device's reserve as large as it has to be, says how far the
// tail may go, and whether the disk is full. Whoever waits for space looks again
// then, since it depends on what is to be written whether there is any. It returns
// how long to wait before the next look, negative if nothing is expected.
func (l *Log) lookForRoom(now int64) time.Duration {
	f, size := &l.flush, l.dev.SegmentSize()
	tail := l.Tail().Bytes()
	_, end := l.dev.Extent()
	have := max(end, l.Flushed().Bytes()) / size
	need := l.needed(tail)
	reserve := l.reserve.Load()
	// Asked again where it was not enough: a write into a new segment may have
	// overtaken the one into the segment before, which then counted as there.
	missing := l.fault.full.Load() || l.room.Load() < need
	if half := 2 * tail / size; half+1 != f.half || reserve != f.reserve || missing && now >= f.lookAt {
		f.half, f.reserve, f.lookAt = half+1, reserve, now+int64(fullRetry)
		l.dev.Reserve(int(max(need-have, 0) + reserve))
	}
	reserved, short := l.dev.Room()
	full := short || l.fault.stuck.Load()
	// What is there goes to the log first, what is left is the reserve.
	room := have + max(int64(reserved)-reserve, 0)
	before := l.room.Swap(room)
	moved := before < need && before < room
	if was := l.fault.full.Swap(full); was || full || moved {
		l.space.broadcast()
	}
	switch {
	case full:
		return fullRetry
	case l.room.Load() < need:
		return roomPoll // it is being made
	}
	return -1
}

// SpendReserve has the log take the reserve for its pages, and not make another, or
// keep one again. Whoever bounds what the log takes on the disk calls it where the
// bound is reached and only tombstones, compaction and commits go on.
func (l *Log) SpendReserve(spend bool) {
	n := int64(ReserveSegments)
	if spend {
		n = 0
	}
	if l.reserve.Swap(n) != n {
		l.wake()
	}
}

// needed is how many segments of the address space the log wants to have while its
// tail is at that byte: up to that of the next page and, from the middle of the
// tail's on, the next one.
func (l *Log) needed(tail int64) int64 {
	size, page := l.dev.SegmentSize(), int64(l.pageSize)
	return max(tail+size/2, tail&^(page-1)+page)/size + 1
}

// Wanted is the byte address up to which segments exist or will soon.
func (l *Log) Wanted() int64 {
	_, end := l.dev.Extent()
	return max(end, l.needed(l.Tail().Bytes())*l.dev.SegmentSize())
}

// collect takes over the writes that have finished.
func (l *Log) collect() {
	f := &l.flush
	f.mu.Lock()
	finished := f.finished
	f.finished = f.finished[len(f.finished):]
	f.mu.Unlock()
	for _, op := range finished {
		switch {
		case op.Err == nil:
			op.done, op.full = true, false
		case isFull(op.Err):
			op.full, op.retry = true, true
		default:
			l.Fail(fmt.Errorf("flush of %d bytes at 0x%x: %w", len(op.Buf), op.Off, op.Err))
		}
	}
}

// isFull tells a full disk, which passes, from what is final. A sync that failed
// for want of room is final too: what it should have covered may be gone.
func isFull(err error) bool {
	if errors.Is(err, ioring.ErrSyncFailed) {
		return false
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// advance moves flushed over the writes that have succeeded without a gap.
func (l *Log) advance() {
	f := &l.flush
	moved := false
	for len(f.queue) > 0 && f.queue[0].done {
		op := f.queue[0]
		f.queue = f.queue[1:]
		moved = raise(&l.flushed, op.until) || moved
		f.spare = append(f.spare, op)
	}
	if moved {
		l.checkOrder()
		l.space.broadcast()
	}
}

// resubmit tries writes again that found the disk full, every fullRetry.
func (l *Log) resubmit(now int64) time.Duration {
	f := &l.flush
	var again []*ioring.Op
	full := false
	for _, op := range f.queue {
		full = full || op.full
		if op.retry {
			again = append(again, &op.Op)
		}
	}
	if !full && l.fault.stuck.CompareAndSwap(true, false) {
		l.space.broadcast()
	}
	if len(again) == 0 {
		return -1
	}
	if l.fault.stuck.CompareAndSwap(false, true) {
		l.fault.full.Store(true)
		f.retryAt = now + int64(fullRetry)
		l.space.broadcast()
	}
	if wait := time.Duration(f.retryAt - now); wait > 0 {
		return wait
	}
	f.retryAt = now + int64(fullRetry)
	for _, op := range f.queue {
		if op.retry {
			op.N, op.Err, op.retry = 0, nil, false
		}
	}
	l.dev.Submit(again)
	return fullRetry
}

// issue seals and submits the next stretch below safeReadOnly, at most to the
// end of its page. It reports whether there may be more.
func (l *Log) issue() bool {
	f := &l.flush
	from, until := record.Addr(l.sealed.Load()), record.Addr(l.safeReadOnly.Load())
	if from >= until || len(f.queue) >= flushDepth {
		return false
	}
	until = min(until, l.PageEnd(from))
	l.seal(from, until)
	// The bytes are final from here on.
	raise(&l.sealed, until)
	op := f.op(l)
	op.Off, op.until = from.Bytes(), until
	op.Buf = unsafe.Slice((*byte)(l.Pointer(from)), (until-from)*record.Unit)
	f.queue = append(f.queue, op)
	f.setSubmitting(true)
	l.dev.Submit([]*ioring.Op{&op.Op})
	f.setSubmitting(false)
	return true
}

func (f *flusher) setSubmitting(on bool) {
	f.mu.Lock()
	f.submitting = on
	f.mu.Unlock()
}

// op returns a clean write.
func (f *flusher) op(l *Log) *flushOp {
	if n := len(f.spare); n > 0 {
		op := f.spare[n-1]
		f.spare = f.spare[:n-1]
		op.N, op.Err, op.done = 0, nil, false
		return op
	}
	op := &flushOp{}
	op.Kind = ioring.Write
	op.Done = func(*ioring.Op) {
		f.mu.Lock()
		f.finished = append(f.finished, op)
		submitting := f.submitting
		f.mu.Unlock()
		if !submitting {
			l.wake()
		}
	}
	return op
}

// seal puts the checksums into the records of [from, until), a stretch of one
// page that is tiled with records.
func (l *Log) seal(from, until record.Addr) {
	p := l.Pointer(from)
	a := from
	for a < until {
		size := record.Seal(p, l.seed, a)
		a += record.Addr(size / record.Unit)
		p = unsafe.Add(p, size)
	}
	if a != until {
		panic(fmt.Sprintf("hlog: records run from %v to %v, past %v", from, a, until))
	}
}

// Idle reports whether no write is in flight. Only the flush task may ask.
func (l *Log) Idle() bool { return len(l.flush.queue) == 0 }
