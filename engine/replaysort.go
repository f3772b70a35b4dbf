package engine

import (
	"errors"
	"fmt"
	"sync"

	"rskv/engine/internal/epoch"
	"rskv/engine/internal/index"
	"rskv/engine/internal/record"
)

// replaySort sorts the records of a replay by the part of the index they belong to: a
// stretch of its rows, told by the upper bits of their number. One worker at a time is
// at a part. So it needs no atomic operations, of which one by one every record took
// two, and for some hundred records it stays within a small piece of memory.
//
//	             by hash
//	worker 1: --------------> | batch of part 0 | batch of part 1 | ...  being filled
//	worker 2: --------------> | batch of part 0 | batch of part 1 | ...
//	                               | full             | full
//	                               v                  v
//	waiting:                    part 0, batches    part 1, batches ...
//	                               |
//	                               v when no batch is free, for the part that has most
//	                          RaiseAlone, by the worker that needs one: some are free
//
// In what order a part gets its records does not matter, see above logPass: an entry is
// raised only. A row belongs to its part for good: when the table grows, the row that
// comes out of it has the same bits, and belongs to it too.
//
// The memory is bounded, whatever the log and the index: see newReplaySort. What is
// left in it at the end, Open raises.
type replaySort struct {
	s     *Store
	shift uint8  // from a hash to its part
	mask  uint64 // parts less one

	mu    sync.Mutex
	free  *replayBatch // batches that nobody has; guarded by mu
	parts []replayPart // guarded by mu
}

// replayPart is what waits for a part.
type replayPart struct {
	full *replayBatch
	n    int  // batches
	busy bool // a worker is at the part
}

// replayBatch is records of one part, and takes 4 KiB.
type replayBatch struct {
	next   *replayBatch // in a list
	n      int
	hashes [255]uint64
	addrs  [255]record.Addr
}

// replayParts is log2 of the parts there are at most: with 32 of them the batches being
// filled stay in a processor's cache.
const replayParts = 5

// newReplaySort has two batches for each part and worker, so that about half of them
// wait: 512 KiB for two workers, 2 MiB for eight. A log of so many bytes, that does not
// fill them, gets fewer parts.
func newReplaySort(s *Store, workers int, length int64) *replaySort {
	size, bits := s.index.Bits(), uint8(0)
	for bits < min(replayParts, size) && length>>(bits+1) >= int64(workers*len(replayBatch{}.addrs)*record.Unit*2) {
		bits++
	}
	q := &replaySort{s: s, shift: size - bits, mask: 1<<bits - 1, parts: make([]replayPart, 1<<bits)}
	batches := make([]replayBatch, 2*workers*len(q.parts))
	for i := range batches {
		batches[i].next, q.free = q.free, &batches[i]
	}
	return q
}

// part is the part of a hash.
func (q *replaySort) part(hash uint64) uint64 { return hash >> (q.shift & 63) & q.mask }

// add notes a record that the index is to be raised by.
func (w *passWorker) add(hash uint64, a record.Addr) error {
	q := w.pass.sort
	part := q.part(hash)
	b := w.batches[part]
	if b == nil || b.n == len(b.addrs) {
		var err error
		if b, err = w.turn(part); err != nil {
			return err
		}
	}
	b.hashes[b.n], b.addrs[b.n] = hash, a
	b.n++
	return nil
}

// turn lets the worker's batch of a part wait, and returns an empty one, for which it
// may have to raise some part's entries.
func (w *passWorker) turn(part uint64) (*replayBatch, error) {
	q := w.pass.sort
	q.mu.Lock()
	defer q.mu.Unlock()
	q.giveLocked(part, w.batches[part])
	w.batches[part] = nil
	for q.free == nil {
		if err := q.raiseLocked(q.fullestLocked(), w.slot); err != nil {
			return nil, err
		}
	}
	b := q.free
	q.free, b.next = b.next, nil
	w.batches[part] = b
	return b, nil
}

// giveLocked lets a batch, or nil, wait for its part.
func (q *replaySort) giveLocked(part uint64, b *replayBatch) {
	if b != nil {
		p := &q.parts[part]
		b.next, p.full = p.full, b
		p.n++
	}
}

// fullestLocked is the part for which most waits, of those that nobody is at; nil if
// nothing waits but for these.
func (q *replaySort) fullestLocked() (fullest *replayPart) {
	for i := range q.parts {
		if p := &q.parts[i]; !p.busy && p.n > 0 && (fullest == nil || p.n > fullest.n) {
			fullest = p
		}
	}
	return fullest
}

// raiseLocked raises the entries of a part, whose batches are free then; those of none
// when others are at all of them, and will free some. It unlocks mu meanwhile.
func (q *replaySort) raiseLocked(p *replayPart, slot *epoch.Slot) (err error) {
	if p == nil {
		q.mu.Unlock()
		q.s.opt.Runner.Yield()
		q.mu.Lock()
		return nil
	}
	for p.busy = true; p.full != nil && err == nil; {
		b := p.full
		p.full, b.next = b.next, nil
		p.n--
		q.mu.Unlock()
		err = q.raise(b, slot)
		q.mu.Lock()
		b.n, b.next, q.free = 0, q.free, b
	}
	p.busy = false
	return err
}

// raise makes the records of a batch the newest of their chains, where these have no
// newer one.
func (q *replaySort) raise(b *replayBatch, slot *epoch.Slot) error {
	x := q.s.index
	for done := 0; done < b.n; {
		slot.Enter()
		n, err := x.RaiseAlone(b.hashes[done:b.n], b.addrs[done:b.n])
		slot.Exit()
		if x.Growing() {
			x.Step() // the growth task does not run yet
		}
		if done += n; errors.Is(err, index.ErrBusy) {
			q.s.opt.Runner.Yield()
		} else if err != nil {
			return fmt.Errorf("%w: %d bytes hold no index for the keys of this store", ErrMemoryTooSmall, q.s.opt.Memory)
		}
	}
	return nil
}

// finish raises what is left after all pages have been looked at.
func (q *replaySort) finish(workers []*passWorker) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, w := range workers {
		for part, b := range w.batches {
			q.giveLocked(uint64(part), b)
			w.batches[part] = nil
		}
	}
	for p := q.fullestLocked(); p != nil; p = q.fullestLocked() {
		if err := q.raiseLocked(p, workers[0].slot); err != nil {
			return err
		}
	}
	return nil
}
