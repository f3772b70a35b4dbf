package fio

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"rskv/ioring"
)

const (
	// segmentSize is what a store has unless it is told otherwise.
	segmentSize = 64 << 20
	// stampEvery is the distance of the stamps in a block in bytes: no file system
	// has a smaller unit for direct I/O.
	stampEvery = 512
	// queueDepth is the least depth of the rings: what a store has.
	queueDepth = 256
	// bufferMin is the least staging memory that a device takes, in bytes.
	bufferMin = 1 << 20
)

// deviceTarget is one device; a job's file is a range of its segments.
type deviceTarget struct {
	device ioring.Device
	clock  clock
	begin  map[string]int64 // address of each file; written before jobs run
	end    int64            // of the last file
}

// openDevice opens the device for all jobs that have the same engine and direct.
func openDevice(dir string, jobs []*Job, c clock) (*deviceTarget, error) {
	mode := ioring.Auto
	switch jobs[0].Engine {
	case Uring:
		mode = ioring.URing
	case Sync:
		mode = ioring.PReadWrite
	}
	depth, buffers := 0, int64(bufferMin)
	for _, j := range jobs {
		depth += j.Depth + layoutDepth
		// A buffer is rounded up to its class, to twice its size at most.
		buffers += 2 * int64(j.Depth) * max(j.biggest(), 4096)
	}
	d, err := ioring.Open(ioring.Options{
		Dir: dir, Mode: mode, SegmentSize: segmentSize, BufferBytes: buffers,
		QueueDepth: min(max(depth, queueDepth), 4096), NoDirect: !jobs[0].Direct,
	})
	if err != nil {
		return nil, fmt.Errorf("open device: %w", err)
	}
	t := &deviceTarget{device: d, clock: c, begin: map[string]int64{}}
	for _, j := range jobs {
		if err := t.place(j); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	return t, nil
}

// place gives a job's file its segments.
func (t *deviceTarget) place(j *Job) error {
	align := int64(t.device.Align().Offset)
	for d, used := range [2]bool{j.Read, j.Write} {
		if b := j.Block[d]; used && (b.Least%align != 0 || b.Most%align != 0) {
			return fmt.Errorf("%s: job %s: blocks of %d to %d bytes: this device wants multiples of %d", j.Place, j.Name, b.Least, b.Most, align)
		}
	}
	if _, known := t.begin[j.File]; known {
		return nil
	}
	t.begin[j.File] = t.end
	t.end += (j.Size + segmentSize - 1) / segmentSize * segmentSize
	return nil
}

func (t *deviceTarget) segment() int64     { return segmentSize }
func (t *deviceTarget) cpu() time.Duration { return 0 }
func (t *deviceTarget) close() error       { return t.device.Close() }

func (t *deviceTarget) about() string {
	i := t.device.Info()
	cached := "O_DIRECT"
	if !i.Direct {
		cached = "through the page cache"
	}
	return fmt.Sprintf("device layer, %s (%s), %s", i.Backend, i.Why, cached)
}

func (t *deviceTarget) open(j *Job) (backend, error) {
	return &deviceBackend{
		target: t, begin: t.begin[j.File], ready: make(chan struct{}, 1), stamps: min(stampEvery, j.unit()),
		ops: make([]ioring.Op, j.Depth),
	}, nil
}

// deviceBackend is the way of one job to the device.
type deviceBackend struct {
	target  *deviceTarget
	begin   int64       // address of the job's file
	stamps  int64       // distance of the stamps in bytes
	ops     []ioring.Op // by slot
	batch   []*ioring.Op
	staging [][]byte         // of the device, to give back
	own     []*ioring.Memory // where its staging memory was used up
	ready   chan struct{}    // has a value when mu.done may have something

	mu struct {
		sync.Mutex
		done []*request
	}
}

func (b *deviceBackend) room(size int64) ([]byte, error) {
	if buf := b.target.device.Buffers().Get(int(size)); buf != nil {
		b.staging = append(b.staging, buf)
		return buf, nil
	}
	m, err := ioring.AllocMemory(size)
	if err != nil {
		return nil, fmt.Errorf("memory for a buffer: %w", err)
	}
	b.own = append(b.own, m)
	return m.Bytes()[:size], nil
}

func (b *deviceBackend) submit(rs []*request) {
	b.batch = b.batch[:0]
	for _, r := range rs {
		op := &b.ops[r.slot]
		*op = ioring.Op{Off: b.begin + r.off, Buf: r.buf, Done: func(op *ioring.Op) { b.finish(r, op.Err) }}
		switch r.kind {
		case reading:
			op.Kind = ioring.Read
		case writing:
			op.Kind = ioring.Write
		default:
			op.Kind, op.Off, op.Buf = ioring.Sync, 0, nil
		}
		b.batch = append(b.batch, op)
	}
	b.target.device.Submit(b.batch)
}

// finish runs on a goroutine of the device.
func (b *deviceBackend) finish(r *request, err error) {
	r.done, r.err = b.target.clock.now(), err
	b.mu.Lock()
	b.mu.done = append(b.mu.done, r)
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

func (b *deviceBackend) reap(dst []*request, wait time.Duration) []*request {
	n := len(dst)
	if dst = b.take(dst); len(dst) > n || wait == 0 {
		return dst
	}
	for len(dst) == n {
		if !waitFor(b.ready, nil, wait) {
			return dst
		}
		dst = b.take(dst)
	}
	return dst
}

func (b *deviceBackend) take(dst []*request) []*request {
	b.mu.Lock()
	defer b.mu.Unlock()
	dst = append(dst, b.mu.done...)
	clear(b.mu.done)
	b.mu.done = b.mu.done[:0]
	return dst
}

// waitFor waits for a value from either channel and reports whether one came; a
// negative wait has no end.
func waitFor(a, b <-chan struct{}, wait time.Duration) bool {
	if wait < 0 {
		select {
		case <-a:
		case <-b:
		}
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-a:
	case <-b:
	case <-timer.C:
		return false
	}
	return true
}

// stamp says in every piece of a block where it belongs.
func (b *deviceBackend) stamp(r *request) {
	for at := int64(0); at < int64(len(r.buf)); at += b.stamps {
		putStamp(r.buf[at:], uint64(r.off+at))
	}
}

func (b *deviceBackend) check(r *request) error { return checkStamp(r.buf, uint64(r.off)) }

func (b *deviceBackend) close() error {
	for _, buf := range b.staging {
		b.target.device.Buffers().Put(buf)
	}
	var err error
	for _, m := range b.own {
		err = errors.Join(err, m.Free())
	}
	return err
}
