package engine

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"rskv/engine/internal/hlog"
	"rskv/engine/internal/record"
)

// A value longer than inlineMax is stored as chunk records of chunkBytes each
// (the last one shorter) and a Big record that lists them:
//
//	offset  size  field
//	0       8     length of the value in bytes
//	8       8     address of the first chunk, in units
//	16      8     address of the second chunk
//	...
//
// The chunks are written first, unlinked, each in a section of its own, so that
// no door ever waits for a long copy; a chunk lives while its Big record does.
// Behind its part of the value a chunk has the key and the key's length in two
// bytes: compaction finds the Big record by it.
const (
	chunkBytes = 64 << 10
	// chunkReads bounds the reads in flight for one value.
	chunkReads = 8
)

// chunkPayload is the size of a chunk's payload: n bytes of the value, the key
// and its length.
func chunkPayload(n int, key []byte) int { return n + len(key) + 2 }

// isChunk reports whether these are the words of a chunk with n bytes of the
// value of key.
func isChunk(w0, w1 uint64, n int, key []byte) bool {
	return record.KindOf(w1) == record.System && record.KeyLen(w0) == record.TypeChunk && record.ValueLen(w1) == chunkPayload(n, key)
}

// errNoRoom: the disk budget has no room for the next chunk.
var errNoRoom = errors.New("no room in the disk budget for a chunk")

// chunkTriesMax is how often a value in chunks is begun for want of room before its
// writer is told that the disk is full.
const chunkTriesMax = 16

// giveUpChunks gives up the chunks that have been written for op, waits for room and
// has the op start over: compaction, which makes room, does not pass chunks that are
// not linked, so nobody may wait for it who has some. It returns true if that has
// been tried too often.
func (s *Session) giveUpChunks(op *Op) bool {
	s.unlinked.Store(0)
	if s.chunkTries++; s.chunkTries == chunkTriesMax {
		op.Err = cmp.Or(s.store.Full(), ErrDiskFull)
		return true
	}
	s.waitSpace()
	return false
}

// writeChunks appends the value of key as chunks and returns the content of the
// Big record, valid until the next call. Until that is linked, or given up, the
// session's unlinked address keeps compaction from taking the chunks for dead.
func (s *Session) writeChunks(key, value []byte) ([]byte, error) {
	s.unlinked.Store(uint64(s.store.log.Tail()))
	n := (len(value) + chunkBytes - 1) / chunkBytes
	list := binary.LittleEndian.AppendUint64(make([]byte, 0, 8+8*n), uint64(len(value)))
	for len(value) > 0 {
		part := value[:min(chunkBytes, len(value))]
		a, err := s.writeChunk(key, part)
		if err != nil {
			return nil, err
		}
		list = binary.LittleEndian.AppendUint64(list, uint64(a))
		value = value[len(part):]
	}
	return list, nil
}

func (s *Session) writeChunk(key, part []byte) (record.Addr, error) {
	log := s.store.log
	for {
		if err := s.enter(true); err != nil {
			return 0, err
		}
		n := chunkPayload(len(part), key)
		a, p, status := record.Addr(0), unsafe.Pointer(nil), hlog.Wait
		if !s.store.room.refuses(s, record.System) {
			a, p, status = log.Allocate(record.SystemSize(n))
		}
		if status == hlog.OK {
			record.Write(p, record.Word0(0, record.TypeChunk), record.Word1(record.System, n, 0), nil, part, key,
				[]byte{byte(len(key)), byte(len(key) >> 8)})
		}
		s.exit()
		switch status {
		case hlog.OK:
			if s.mover {
				s.moved(record.SystemSize(n), 0)
			}
			return a, nil
		case hlog.Again:
			s.pause()
		default:
			var op Op
			if s.failed(&op, noSpace); op.Err != nil {
				return 0, op.Err
			}
			if s.store.room.closed.Load() && !s.mover {
				return 0, errNoRoom
			}
			s.waitSpace()
		}
	}
}

// assembly collects the chunks of a value.
type assembly struct {
	seen     observation // what the op relies on, without the value
	chunks   []record.Addr
	value    []byte
	next     int // first chunk not asked for yet
	inFlight int
	missing  int
	granted  int64 // bytes taken from the budget for large values
	verdict  readVerdict
}

// leave counts a read that brought nothing, and reports whether it was the last.
func (a *assembly) leave() bool {
	a.inFlight--
	a.next = len(a.chunks)
	return a.inFlight == 0
}

// largeBudget bounds the memory of large values on their way to a caller.
type largeBudget struct {
	mu    sync.Mutex
	limit int64 // guarded by mu; at least twice the largest value
	used  int64 // guarded by mu
}

// largeLimit is the part of a budget that large values may take.
func largeLimit(memory int64, maxValue int) int64 { return max(memory/8, 2*int64(maxValue)) }

func (b *largeBudget) setLimit(limit int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit = limit
}

// take reports whether n more bytes may be used. One value may always be on its
// way: it may come from a time when MaxValue was larger than the limit.
func (b *largeBudget) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used > 0 && b.used+n > b.limit {
		return false
	}
	b.used += n
	return true
}

func (b *largeBudget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
}

var errChunkList = errors.New("list of chunks is inconsistent")

// pendLarge makes op wait for the chunks that the plan's observation lists. Even
// if all of them are in memory, Complete collects them: Start hands nothing out.
func (s *Session) pendLarge(op *Op, hash uint64) {
	seen := s.plan.seen
	p := s.newPending(op, hash)
	p.begin = s.begin
	p.listChunks(seen)
	s.queue.hungry = append(s.queue.hungry, p)
	s.signal()
}

// opChunks collects a large value that is known by its list of chunks, in Old; Key
// is its key, and Value lends memory for the answer. Where compaction has passed a
// chunk the answer is ErrCursor. It is for Do only.
const opChunks = opNewest + 1

// chunksOf makes op the question for the value of key in these chunks.
func (o *Op) chunksOf(key, list, dst []byte) {
	*o = Op{Kind: opChunks, Key: key, Old: list, Value: dst}
}

// collect carries out an opChunks as far as memory goes.
func (s *Session) collect(op *Op) outcome {
	_, chunks, err := chunkList(op.Old)
	if err != nil {
		return op.fail(corrupt("value in chunks", 0, err))
	}
	for _, a := range chunks {
		if a < s.begin {
			return op.fail(fmt.Errorf("%w: compaction has passed a part of the value, the log begins at %v", ErrCursor, s.begin))
		}
	}
	s.plan = plan{seen: observation{found: true, value: op.Old}}
	return inChunks
}

// startLarge begins to collect the chunks listed in seen.value.
func (s *Session) startLarge(p *pendingOp, seen observation, fn func(*Op)) {
	p.listChunks(seen)
	s.collectChunks(p, fn)
}

// listChunks reads the list of chunks in seen.value.
func (p *pendingOp) listChunks(seen observation) {
	list := seen.value
	seen.value = nil
	a := &assembly{seen: seen}
	p.large = a
	total := 0
	if len(list) >= 8 {
		total = int(binary.LittleEndian.Uint64(list))
	}
	n := (total + chunkBytes - 1) / chunkBytes
	if total <= 0 || total > MaxValueDefault || len(list) != 8+8*n {
		p.op.Err = corrupt("value in chunks", seen.addr, errChunkList)
		return
	}
	for i := range n {
		a.chunks = append(a.chunks, record.Addr(binary.LittleEndian.Uint64(list[8+8*i:])))
	}
	a.missing = n
	a.granted = -int64(total) // wanted
}

// collectChunks goes on collecting. Chunks in memory are copied, the others read.
// It ends with the op settled, waiting for reads, or waiting for the budget.
func (s *Session) collectChunks(p *pendingOp, fn func(*Op)) {
	a := p.large
	if p.op.Err == nil && a.granted < 0 && p.op.Kind == OpGet && s.admit != nil {
		p.op.Err = s.admit(int(-a.granted))
	}
	if p.op.Err != nil {
		s.finish(p, fn)
		return
	}
	if a.granted < 0 {
		if !s.store.large.take(-a.granted) {
			s.queue.hungry = append(s.queue.hungry, p)
			return
		}
		a.granted = -a.granted
		a.value = make([]byte, a.granted)
	}
	if err := s.askForChunks(p, a); err != nil {
		p.op.Err = err
	}
	if a.inFlight > 0 {
		return
	}
	s.assembled(p, a, fn)
}

// askForChunks copies what is in memory and starts reads for the rest.
func (s *Session) askForChunks(p *pendingOp, a *assembly) error {
	if err := s.enter(false); err != nil {
		return err
	}
	defer s.exit()
	for a.next < len(a.chunks) && a.inFlight < chunkReads {
		i := a.next
		addr := a.chunks[i]
		switch {
		case addr < s.begin:
			a.verdict, a.next = readStale, len(a.chunks)
		case addr >= s.mem:
			a.next++
			if !a.copyChunk(i, p.op.Key, s.store.log.Pointer(addr)) {
				return corrupt("chunk", addr, errChunkList)
			}
		default:
			a.next++
			a.inFlight++
			r := s.newRead()
			r.p, r.chunk = p, i
			s.aim(r, addr, record.SystemSize(chunkPayload(len(a.part(i)), p.op.Key)))
		}
	}
	return nil
}

// part is where chunk i belongs.
func (a *assembly) part(i int) []byte {
	return a.value[i*chunkBytes : min((i+1)*chunkBytes, len(a.value))]
}

// copyChunk takes chunk i from memory. Chunks never change once they are written.
func (a *assembly) copyChunk(i int, key []byte, ptr unsafe.Pointer) bool {
	return a.fill(i, key, record.Load0(ptr), record.Load1(ptr), func(n int) []byte {
		return record.Bytes(ptr, record.HeaderSize, n)
	})
}

func (a *assembly) fill(i int, key []byte, w0, w1 uint64, bytes func(n int) []byte) bool {
	part := a.part(i)
	if !isChunk(w0, w1, len(part), key) {
		return false
	}
	copy(part, bytes(len(part)))
	a.missing--
	return true
}

// chunkArrived is called inside a section, and ends it.
func (s *Session) chunkArrived(p *pendingOp, r *readOp, fn func(*Op)) {
	a := p.large
	a.inFlight--
	switch {
	case r.Err != nil:
		a.verdict = s.readError(p, r)
	default:
		buf := r.Buf[r.skip:]
		w0, w1, ok := record.Verify(buf, s.store.seedAt(r.addr), r.addr)
		ok = ok && a.fill(r.chunk, p.op.Key, w0, w1, func(n int) []byte { return buf[record.HeaderSize : record.HeaderSize+n] })
		if !ok {
			a.verdict = s.damaged(p, r)
		}
		s.store.stats.coldBytes.Add(uint64(len(r.Buf)))
	}
	if a.verdict != readOn {
		a.next = len(a.chunks)
	}
	s.releaseBuffer(r)
	s.forget(r)
	s.exit()
	if a.verdict == readOn && a.next < len(a.chunks) {
		if err := s.askForChunks(p, a); err != nil && p.op.Err == nil {
			p.op.Err = err
		}
	}
	if a.inFlight == 0 {
		s.assembled(p, a, fn)
	}
}

// assembled carries on when no read of the assembly is in flight any more.
func (s *Session) assembled(p *pendingOp, a *assembly, fn func(*Op)) {
	switch {
	case p.op.Err != nil:
		s.finish(p, fn)
	case a.verdict == readStale:
		s.dropLarge(p)
		s.resume(p, fresh, fn)
	case a.missing > 0:
		p.op.Err = corrupt("value in chunks", a.seen.addr, errChunkList)
		s.finish(p, fn)
	default:
		seen := a.seen
		seen.value = a.value
		s.settle(p, seen, fn)
	}
}

// dropLarge gives the memory of a collected value back.
func (s *Session) dropLarge(p *pendingOp) {
	a := p.large
	if a == nil {
		return
	}
	p.large = nil
	if a.granted > 0 {
		s.store.large.give(a.granted)
		s.store.stats.released.Add(1)
		s.store.feed()
	}
}
