//go:build unix

package ioring

import "sync"

const (
	// readersDefault: 4 KiB reads at random from 64 callers, GOMAXPROCS 2, gave
	// 22, 24, 27 and 24 k/s with 2, 4, 16 and 64 readers.
	readersDefault = 16
	// writers: one transfers while the other fetches its next op; page flushes
	// are long, more threads gain nothing.
	writers = 2
)

// pool moves bytes by pread and pwrite on its own goroutines. Each occupies a
// thread while its call blocks, so their number is bounded and reads and writes
// do not wait for each other.
//
// What limits it is the scheduler: a blocked call keeps its P until the monitor
// thread takes it back, some 70 us later, so the rate grows with GOMAXPROCS (26,
// 49 and 54 k/s at 2, 4 and 8 on two cores, where io_uring does 55-60 at 2). It is
// not raised here, because that is the whole program's affair. Locking the
// readers to their threads was tried: 19 instead of 27 k/s.
type pool struct {
	disk   *disk
	reads  workQueue
	writes workQueue
	group  sync.WaitGroup
}

// newPool starts readers and writers. Zero readers means the default.
func newPool(d *disk, readers int) *pool {
	if readers == 0 {
		readers = readersDefault
	}
	p := &pool{disk: d}
	p.reads.init()
	p.writes.init()
	for range readers {
		p.group.Go(func() {
			for op := p.reads.next(); op != nil; op = p.reads.next() {
				n, err := d.pread(op)
				d.finishRead(op, n, err)
			}
		})
	}
	for range writers {
		p.group.Go(func() {
			for op := p.writes.next(); op != nil; op = p.writes.next() {
				n, err := d.pwrite(op)
				d.finishWrite(op, n, err)
			}
		})
	}
	return p
}

func (p *pool) read(ops opList)  { p.reads.add(ops) }
func (p *pool) write(ops opList) { p.writes.add(ops) }

func (p *pool) stop() {
	p.reads.stop()
	p.writes.stop()
	p.group.Wait()
}

// workQueue is what the workers of one kind take their ops from. Its length is
// bounded by the callers: it holds only ops, which are theirs.
type workQueue struct {
	mu struct {
		sync.Mutex
		ops     opList
		idle    int // workers that wait
		stopped bool
	}
	more sync.Cond // ops came, or stopped
}

func (q *workQueue) init() { q.more.L = &q.mu }

func (q *workQueue) add(ops opList) {
	count := 0
	for op := ops.first; op != nil; op = op.next {
		count++
	}
	q.mu.Lock()
	q.mu.ops.append(ops)
	wake := min(count, q.mu.idle)
	q.mu.Unlock()
	for range wake {
		q.more.Signal()
	}
}

// next waits for an op; nil says stop.
func (q *workQueue) next() *Op {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if op := q.mu.ops.pop(); op != nil {
			return op
		}
		if q.mu.stopped {
			return nil
		}
		q.mu.idle++
		q.more.Wait()
		q.mu.idle--
	}
}

func (q *workQueue) stop() {
	q.mu.Lock()
	q.mu.stopped = true
	q.mu.Unlock()
	q.more.Broadcast()
}
