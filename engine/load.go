package engine

import (
	"errors"
	"io"
	"sync"
	"time"

	"rskv/engine/internal/index"
)

// indexLoad fills the index from a snapshot. The caller reads it, block by block, and
// checks every byte; workers put the rows into the index, which is what takes long.
// The rows of one block are not those of another, so nobody meets.
type indexLoad struct {
	s       *Store
	reader  *snapshotReader
	workers []*taskRef
	blocks  []loadBlock // taken in turn

	mu    sync.Mutex
	ready []*loadBlock // guarded by mu: waiting for a worker
}

// loadBlock is a block of rows on its way. The caller owns it until it is ready, and
// from when done is closed.
type loadBlock struct {
	row  uint64
	rows int
	body []byte
	buf  []byte // that body lies in
	done chan struct{}
	err  error
}

// loadAhead is how many blocks are read besides those being worked on.
const loadAhead = 2

// fillIndex fills the index, which is empty and has the size of the snapshot's. With
// an error it is undefined.
func (s *Store) fillIndex(r *snapshotReader) error {
	l := &indexLoad{s: s, reader: r}
	workers := min(s.opt.Runner.Parallel(), passWorkersMax)
	l.blocks = make([]loadBlock, workers+loadAhead)
	for range workers {
		t := &taskRef{}
		t.set(s.opt.Runner.Start("load", l.step))
		l.workers = append(l.workers, t)
	}
	err := l.read()
	for i := range l.blocks {
		err = errors.Join(err, l.settle(&l.blocks[i]))
	}
	for _, t := range l.workers {
		t.Stop()
	}
	return err
}

// read hands all blocks to the workers.
func (l *indexLoad) read() error {
	r := l.reader
	report := l.s.reporter(StageSnapshot, r.in.Size())
	for i := 0; ; i++ {
		b := &l.blocks[i%len(l.blocks)]
		err := l.settle(b)
		if err != nil {
			return err
		}
		r.buf = b.buf
		b.row, b.rows, b.body, err = r.next()
		b.buf = r.buf
		if at, seekErr := r.in.Seek(0, io.SeekCurrent); seekErr == nil {
			report(at)
		}
		if err != nil {
			return err
		}
		if b.rows == 0 {
			if b.row != 1<<r.bits {
				return r.damaged(errSnapshot)
			}
			return nil
		}
		b.done = make(chan struct{})
		l.mu.Lock()
		l.ready = append(l.ready, b)
		l.mu.Unlock()
		for _, t := range l.workers {
			t.Wake()
		}
	}
}

// settle waits until a block has been put into the index, if it is on its way, and
// says whether that went well.
func (l *indexLoad) settle(b *loadBlock) error {
	if b.done == nil {
		return nil
	}
	l.s.opt.Runner.Wait(b.done)
	b.done = nil
	return b.err
}

// step is one step of a worker: one block.
func (l *indexLoad) step() time.Duration {
	l.mu.Lock()
	if len(l.ready) == 0 {
		l.mu.Unlock()
		return -1
	}
	b := l.ready[0]
	l.ready = l.ready[1:]
	l.mu.Unlock()
	done := b.done
	b.err = l.load(b)
	close(done)
	return 0
}

// load puts the rows of a block into the index.
func (l *indexLoad) load(b *loadBlock) (err error) {
	r, body := l.reader, b.body
	for i := range b.rows {
		if body, _, err = l.s.index.LoadRow(body, b.row+uint64(i), r.bits, r.end); err != nil {
			if errors.Is(err, index.ErrFull) {
				return err
			}
			return r.damaged(err)
		}
	}
	if len(body) != 0 {
		return r.damaged(errSnapshot)
	}
	return nil
}
