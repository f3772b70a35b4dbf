//go:build giouring && linux

package ioring

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/pawelgaczynski/giouring"
	"golang.org/x/sys/unix"
)

const (
	// submitMax is how many entries one io_uring_enter hands over while more
	// wait: the disk begins while the rest is prepared (measured at depth 32:
	// 1.02-1.05 of fio, against 0.81 with everything in one call).
	submitMax = 4
	// reapMax is how many completions are copied at a time.
	reapMax = 128
	// registerMax bounds the registered part of the staging memory, which is
	// resident from the start: 2,048 reads of 4 KiB, and the usual
	// RLIMIT_MEMLOCK.
	registerMax = 8 << 20
	// registerMin is the smallest part worth registering.
	registerMin = 64 << 10
	// memoryTries and memoryPause: the kernel gives the locked memory of a closed
	// ring back a moment later, and until then a new one may find none.
	memoryTries = 50
	memoryPause = 4 * time.Millisecond
	// retryPause is waited when the kernel has no memory for requests and no
	// completion is there that could give some back.
	retryPause = time.Millisecond
	// wakeMark is the user data of the wake-up; all others are slot numbers.
	wakeMark = ^uint64(0)
)

// ring moves bytes through io_uring: one owner for reads, one for writes, so
// that a flush does not delay a cold read.
type ring struct{ reads, writes *owner }

// newRing starts both owners, or says why io_uring cannot be used. The second
// result is about registered memory.
func newRing(d *disk, depth int) (backend, string, error) {
	if err := probeKernel(); err != nil {
		return nil, "", err
	}
	if err := probeFiles(d.volume); err != nil {
		return nil, "", err
	}
	// The reads come second, because registering memory takes what RLIMIT_MEMLOCK
	// has left.
	writes, err := startOwner(d, depth, nil)
	if err != nil {
		return nil, "", err
	}
	reads, err := startOwner(d, depth, d.buffers)
	if err != nil {
		writes.stop()
		return nil, "", err
	}
	return &ring{reads, writes}, reads.about, nil
}

func (r *ring) read(ops opList)  { r.reads.add(ops) }
func (r *ring) write(ops opList) { r.writes.add(ops) }
func (r *ring) stop()            { r.reads.stop(); r.writes.stop() }

// owner is one ring and the goroutine that alone touches it, on a thread of its
// own (the kernel is told so, which saves it locks and interrupts).
//
//	add -> queue -> waiting -> slot, SQE -> kernel -> CQE -> finish -> Done
//	                   ^________________________________|
//	                     short transfer, EAGAIN: the rest again
//
// It sleeps in io_uring_enter. Callers wake it through an eventfd, one read of
// which is always in flight, and only if it says that it sleeps.
type owner struct {
	disk *disk

	queue    atomic.Pointer[Op] // stack of ops linked by next; pushed by callers, emptied by the owner
	sleeping atomic.Bool        // set by the owner before it sleeps; whoever clears it must wake it
	stopping atomic.Bool        // set by stop
	eventFD  int                // immutable
	done     chan struct{}      // closed at the very end
	about    string             // immutable once started

	// All below is the owner goroutine's.

	ring    *giouring.Ring
	fixed   []byte   // registered memory, buffer index 0
	slots   []slot   // as many as ops may be in flight; the CQ has twice that and so room for the wake-up
	free    []uint32 // slots not in use
	again   []uint32 // slots whose rest has to be submitted
	waiting opList
	armed   bool // the read of the eventfd is in flight
	wakeBuf *[8]byte
	cqes    []*giouring.CompletionQueueEvent
	reaped  []completion
}

// slot is an op in flight. Its number is the user data of its SQE.
type slot struct {
	op      *Op
	segment *segment // a reference
	n       int      // bytes transferred so far
}

// completion is a copy of a CQE: the kernel may overwrite the original as soon
// as it has been advanced over.
type completion struct {
	mark   uint64
	result int32
}

// startOwner makes a ring on a thread of its own. With buffers, as much of them
// as the limits allow is registered.
func startOwner(d *disk, depth int, buffers *Buffers) (*owner, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	o := &owner{
		disk: d, eventFD: fd, done: make(chan struct{}),
		slots: make([]slot, depth), free: make([]uint32, depth), again: make([]uint32, 0, depth),
		wakeBuf: new([8]byte),
		cqes:    make([]*giouring.CompletionQueueEvent, reapMax),
		reaped:  make([]completion, 0, reapMax),
	}
	for i := range o.free {
		o.free[i] = uint32(depth - 1 - i)
	}
	started := make(chan error)
	go func() {
		defer close(o.done)
		defer unix.Close(fd)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ring, disabled, err := setupRing(uint32(depth))
		if err != nil {
			started <- err
			return
		}
		o.ring = ring
		o.register(buffers)
		if disabled {
			err = restrict(ring)
		}
		if err != nil {
			ring.QueueExit()
			started <- err
			return
		}
		started <- nil
		o.run()
		ring.QueueExit()
	}()
	if err := <-started; err != nil {
		<-o.done
		return nil, explainSetup(err)
	}
	return o, nil
}

// setupRing asks for the cheapest kind of ring and then for less: deferred task
// work came with 6.1, cooperative with 5.19, restrictions with 5.10. One that can
// be restricted is disabled until then.
func setupRing(entries uint32) (ring *giouring.Ring, disabled bool, err error) {
	kinds := []uint32{
		giouring.SetupSingleIssuer | giouring.SetupDeferTaskrun | giouring.SetupTaskrunFlag | giouring.SetupRDisabled,
		giouring.SetupCoopTaskrun | giouring.SetupTaskrunFlag | giouring.SetupRDisabled,
		giouring.SetupRDisabled,
		0,
	}
	for _, flags := range kinds {
		ring := giouring.NewRing()
		if err = patiently(func() error { return ring.QueueInit(entries, flags) }); err == nil {
			return ring, flags != 0, nil
		}
		if !errors.Is(err, unix.EINVAL) {
			break
		}
	}
	return nil, false, err
}

// operations are all that this package does through a ring.
var operations = []struct {
	code uint8
	name string
}{{giouring.OpRead, "READ"}, {giouring.OpWrite, "WRITE"}, {giouring.OpReadFixed, "READ_FIXED"}}

// restrict makes the kernel refuse everything else on a ring, which is enabled
// then: other operations, flags that chain them or hand them over, and to register
// anything more. Whoever got hold of the ring could do no more with it than with
// its files.
func restrict(ring *giouring.Ring) error {
	var allowed []giouring.Restriction
	for _, op := range operations {
		allowed = append(allowed, giouring.Restriction{OpCode: uint16(giouring.RestrictionSQEOp), OpFlags: op.code})
	}
	if _, err := ring.RegisterRestrictions(allowed); err != nil {
		return fmt.Errorf("restrict the ring: %w", err)
	}
	if _, err := ring.EnableRings(); err != nil {
		return fmt.Errorf("enable the ring: %w", err)
	}
	return nil
}

// patiently repeats f while the kernel has no locked memory, for a fifth of a
// second at most.
func patiently(f func() error) error {
	err := f()
	for i := 1; i < memoryTries && errors.Is(err, unix.ENOMEM); i++ {
		time.Sleep(memoryPause)
		err = f()
	}
	return err
}

// register pins the front of the staging memory, where the small reads are.
// ENOMEM means RLIMIT_MEMLOCK: half of it may fit. Reads work without as well,
// they only cost the kernel a page lookup each.
func (o *owner) register(buffers *Buffers) {
	if buffers == nil {
		return
	}
	size := min(len(buffers.bytes), registerMax)
	var err error
	for ; size >= registerMin; size /= 2 {
		part := buffers.bytes[:size]
		if _, err = o.ring.RegisterBuffers([]syscall.Iovec{{Base: &part[0], Len: uint64(size)}}); err == nil {
			o.fixed = part
			o.about = fmt.Sprintf("%d KiB of staging memory registered", size>>10)
			return
		}
		if !errors.Is(err, unix.ENOMEM) {
			break
		}
	}
	o.about = fmt.Sprintf("no staging memory registered: %v", err)
	if errors.Is(err, unix.ENOMEM) {
		o.about += " (RLIMIT_MEMLOCK)"
	}
}

// add hands ops to the owner. Called by anybody.
func (o *owner) add(ops opList) {
	for {
		head := o.queue.Load()
		ops.last.next = head
		if o.queue.CompareAndSwap(head, ops.first) {
			break // from here on the ops are the owner's
		}
	}
	if o.sleeping.Load() && o.sleeping.CompareAndSwap(true, false) {
		o.kick()
	}
}

// wakeOne is what an eventfd wants to be written.
var wakeOne = []byte{1, 0, 0, 0, 0, 0, 0, 0}

func (o *owner) kick() {
	if err := retry(func() error { _, err := unix.Write(o.eventFD, wakeOne); return err }); err != nil {
		panic(fmt.Sprintf("ioring: wake the ring: %v", err))
	}
}

// stop ends the goroutine; nothing of a caller's is in flight. The eventfd's
// read is, and the kick completes it, so that the ring is empty at its end.
func (o *owner) stop() {
	o.stopping.Store(true)
	o.kick()
	<-o.done
}

func (o *owner) run() {
	for {
		if !o.armed && !o.stopping.Load() {
			o.arm()
		}
		o.collect()
		o.start()
		o.enter()
		o.reap()
		if o.stopping.Load() && !o.armed {
			if len(o.free) != len(o.slots) || o.waiting.first != nil {
				panic(fmt.Sprintf("ioring: ring stopped with %d ops in flight", len(o.slots)-len(o.free)))
			}
			return
		}
	}
}

// collect takes what callers have pushed, oldest first.
func (o *owner) collect() {
	var oldest *Op
	for op := o.queue.Swap(nil); op != nil; {
		next := op.next
		op.next = oldest
		oldest, op = op, next
	}
	for oldest != nil {
		next := oldest.next
		o.waiting.push(oldest)
		oldest = next
	}
}

// start puts waiting ops into free slots and hands them to the kernel in small
// groups. What finds no slot waits for a completion.
func (o *owner) start() {
	for len(o.again) > 0 {
		i := o.again[len(o.again)-1]
		if !o.prepare(i) {
			return
		}
		o.again = o.again[:len(o.again)-1]
	}
	group := 0
	for len(o.free) > 0 && o.waiting.first != nil {
		op := o.waiting.pop()
		s, err := o.segment(op)
		if err != nil {
			o.finish(op, 0, err)
			continue
		}
		i := o.free[len(o.free)-1]
		o.free = o.free[:len(o.free)-1]
		o.slots[i] = slot{op: op, segment: s}
		if !o.prepare(i) {
			o.again = append(o.again, i)
			return
		}
		if group++; group%submitMax == 0 && o.waiting.first != nil {
			o.submitted(o.ring.Submit())
		}
	}
}

func (o *owner) segment(op *Op) (*segment, error) {
	if op.Kind == Write {
		return o.disk.volume.writable(op.Off, int64(len(op.Buf)))
	}
	return o.disk.volume.readable(op.Off)
}

// entry returns an empty SQE, or nil if the queue is full and the kernel takes
// nothing at the moment. It is zeroed because stale fields of its last use make
// the kernel answer EINVAL.
func (o *owner) entry() *giouring.SubmissionQueueEntry {
	sqe := o.ring.GetSQE()
	if sqe == nil {
		o.submitted(o.ring.Submit())
		if sqe = o.ring.GetSQE(); sqe == nil {
			return nil
		}
	}
	*sqe = giouring.SubmissionQueueEntry{}
	return sqe
}

// prepare fills an SQE with what is left of slot i.
func (o *owner) prepare(i uint32) bool {
	sqe := o.entry()
	if sqe == nil {
		return false
	}
	s := &o.slots[i]
	buf := s.op.Buf[s.n:]
	// The address outlives the garbage collector's view of it: the slot holds
	// the op, the op holds Buf, and heap objects do not move.
	address := uintptr(unsafe.Pointer(unsafe.SliceData(buf)))
	off := uint64(s.op.Off - s.segment.begin + int64(s.n))
	switch {
	case s.op.Kind == Write:
		sqe.PrepareWrite(s.segment.fd, address, uint32(len(buf)), off)
	case o.isFixed(address, len(buf)):
		sqe.PrepareReadFixed(s.segment.fd, address, uint32(len(buf)), off, 0)
	default:
		sqe.PrepareRead(s.segment.fd, address, uint32(len(buf)), off)
	}
	sqe.UserData = uint64(i)
	return true
}

// isFixed tells whether memory lies in what is registered.
func (o *owner) isFixed(address uintptr, n int) bool {
	if len(o.fixed) == 0 {
		return false
	}
	off := address - uintptr(unsafe.Pointer(&o.fixed[0]))
	return off < uintptr(len(o.fixed)) && uintptr(n) <= uintptr(len(o.fixed))-off
}

// arm puts the read of the eventfd in flight.
func (o *owner) arm() {
	sqe := o.entry()
	if sqe == nil {
		return // tried again in the next turn
	}
	sqe.PrepareRead(o.eventFD, uintptr(unsafe.Pointer(o.wakeBuf)), uint32(len(o.wakeBuf)), 0)
	sqe.UserData = wakeMark
	o.armed = true
}

// enter hands the rest to the kernel and sleeps until a completion or a caller
// comes. Nobody is missed: the owner says that it sleeps, then looks once more;
// a caller pushes, then looks whether it sleeps.
func (o *owner) enter() {
	o.sleeping.Store(true)
	busy := o.queue.Load() != nil || len(o.again) > 0 || !o.armed || o.ring.CQReady() > 0
	if busy {
		o.sleeping.Store(false)
		o.submitted(o.ring.Submit())
		return
	}
	_, err := o.ring.SubmitAndWait(1)
	o.sleeping.Store(false)
	o.submitted(0, err)
}

// submitted handles the outcome of io_uring_enter. What was not taken stays in
// the queue and goes with the next call.
//
//	EINTR    a signal came: again
//	EAGAIN   no memory for requests at the moment: reap, then again
//	EBUSY    completions have overflowed the CQ: reap, then again
//	EBADR    completions were lost, which needs EBUSY to have been ignored
//	EBADF, EFAULT, EINVAL, ENXIO, EOPNOTSUPP, EEXIST, EBADFD
//	         a bug here: wrong ring, wrong thread, bad entry
func (o *owner) submitted(_ uint, err error) {
	switch {
	case err == nil, errors.Is(err, unix.EINTR), errors.Is(err, unix.EBUSY):
	case errors.Is(err, unix.EAGAIN):
		if o.ring.CQReady() == 0 {
			time.Sleep(retryPause)
		}
	default:
		panic(fmt.Sprintf("ioring: io_uring_enter: %v", err))
	}
}

// reap copies completions, gives their entries back and only then acts on them:
// Done may take a while, and the kernel wants the room.
func (o *owner) reap() {
	for {
		count := o.ring.PeekBatchCQE(o.cqes)
		if count == 0 {
			return
		}
		o.reaped = o.reaped[:0]
		for _, cqe := range o.cqes[:count] {
			o.reaped = append(o.reaped, completion{cqe.UserData, cqe.Res})
		}
		o.ring.CQAdvance(count)
		for _, c := range o.reaped {
			o.complete(c)
		}
	}
}

func (o *owner) complete(c completion) {
	if c.mark == wakeMark {
		o.armed = false
		return
	}
	s := &o.slots[c.mark]
	if s.op == nil {
		panic(fmt.Sprintf("ioring: completion of empty slot %d", c.mark))
	}
	var err error
	switch {
	case c.result > 0:
		if s.n += int(c.result); s.n < len(s.op.Buf) {
			o.again = append(o.again, uint32(c.mark))
			return
		}
	case c.result < 0:
		errno := syscall.Errno(-c.result)
		if errno == unix.EINTR || errno == unix.EAGAIN {
			o.again = append(o.again, uint32(c.mark))
			return
		}
		err = errno
	}
	op, segment, n := s.op, s.segment, s.n
	*s = slot{}
	o.free = append(o.free, uint32(c.mark))
	if op.Kind == Write {
		o.disk.volume.written(segment) // a failed write may have changed the file too
	}
	err = explainTransfer(op, segment, n, err)
	segment.release()
	o.finish(op, n, err)
}

func (o *owner) finish(op *Op, n int, err error) {
	if op.Kind == Write {
		o.disk.finishWrite(op, n, err)
	} else {
		o.disk.finishRead(op, n, err)
	}
}

// probeKernel makes a small ring and looks for the operations used here.
func probeKernel() error {
	var probe *giouring.Probe
	err := patiently(func() (err error) {
		probe, err = giouring.GetProbe()
		return err
	})
	if err != nil {
		return explainSetup(err)
	}
	for _, op := range operations {
		if !probe.IsSupported(op.code) {
			return fmt.Errorf("this kernel's io_uring has no %s (5.6 and later do)", op.name)
		}
	}
	return nil
}

// probeFiles writes a block of a file without a name and reads it back, because
// some file systems refuse what the kernel allows.
func probeFiles(v *volume) error {
	flags := 0
	if v.direct {
		flags = directFlag
	}
	file, err := v.scratch(flags)
	if err != nil {
		return fmt.Errorf("try io_uring on a file: %w", err)
	}
	defer file.Close()
	memory, err := AllocMemory(sectorMax)
	if err != nil {
		return fmt.Errorf("try io_uring on a file: %w", err)
	}
	defer memory.Free()
	if err := tryFile(file, memory.Bytes()); err != nil {
		return fmt.Errorf("io_uring does not work on this file system: %w", err)
	}
	return nil
}

func tryFile(file *os.File, block []byte) error {
	ring := giouring.NewRing()
	if err := patiently(func() error { return ring.QueueInit(2, 0) }); err != nil {
		return explainSetup(err)
	}
	defer ring.QueueExit()
	address := uintptr(unsafe.Pointer(&block[0]))
	for _, kind := range []OpKind{Write, Read} {
		sqe := ring.GetSQE()
		*sqe = giouring.SubmissionQueueEntry{}
		if kind == Write {
			sqe.PrepareWrite(int(file.Fd()), address, uint32(len(block)), 0)
		} else {
			sqe.PrepareRead(int(file.Fd()), address, uint32(len(block)), 0)
		}
		cqes := make([]*giouring.CompletionQueueEvent, 1)
		for ring.PeekBatchCQE(cqes) == 0 {
			// It may return without a completion; a signal may end it early.
			if _, err := ring.SubmitAndWait(1); err != nil && !errors.Is(err, unix.EINTR) {
				return err
			}
		}
		result := cqes[0].Res
		ring.CQAdvance(1)
		if result < 0 {
			return syscall.Errno(-result)
		}
		if int(result) != len(block) {
			return ErrShort
		}
	}
	return nil
}
