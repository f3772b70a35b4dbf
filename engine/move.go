package engine

import (
	"encoding/binary"
	"slices"
	"unsafe"

	"rskv/engine/internal/hlog"
	"rskv/engine/internal/index"
	"rskv/engine/internal/record"
)

// What compaction does to a record is an operation like any other, so that it
// waits, reads and retries as they do (FASTER calls it compaction by lookup):
//
//	opMove       copy a record to the tail, if it is the newest of its key
//	opMoveChunk  write a large value anew, if the chunk is a part of it
//	opForward    what opMove does, of a record in memory and as far as that goes, see
//	             forward.go
//
// A record that has expired is not moved, nor is a chunk of one: all older ones of
// its key are below it, and go with it. If it is the newest, and was not counted out
// before, the key leaves the count then; no read is made to find that out.
//
// A record is the newest if no other of its key has a higher address, a tombstone
// included. The chain is walked from its head down to the record; the copy is
// published by a compare-and-swap of the very entry the walk began at, so nothing
// can come between. If the chain has grown meanwhile, only the new part is walked:
// above is the highest address up to which the key is known to have no other.
const (
	opMove OpKind = iota + OpNote + 1
	opMoveChunk
	opForward
)

// An opMove has the image of its record in Value, its address in Delta and above
// in Int; so does an opForward. An opMoveChunk has the address of the chunk in Delta.

// moveRecord makes op the move of the record at a, of whose key there is nothing
// in (a, above].
func (o *Op) moveRecord(a record.Addr, key, image []byte, above record.Addr) {
	*o = Op{Kind: opMove, Key: key, Value: image, Delta: int64(a), Int: int64(above)}
}

// forwardRecord makes op the move of a record that is in memory, or was just now.
func (o *Op) forwardRecord(a record.Addr, key, image []byte) {
	*o = Op{Kind: opForward, Key: key, Value: image, Delta: int64(a), Int: int64(a)}
}

// moveChunk makes op the move of the chunk at a, which belongs to key.
func (o *Op) moveChunk(a record.Addr, key []byte) {
	*o = Op{Kind: opMoveChunk, Key: key, Delta: int64(a)}
}

func (o *Op) from() record.Addr  { return record.Addr(o.Delta) }
func (o *Op) above() record.Addr { return record.Addr(o.Int) }

// move carries out an opMove. Found says whether the record was copied.
func (s *Session) move(op *Op, hash uint64, at *place) outcome {
	from := op.from()
	for range spinMax {
		s.find(hash, op.Key, at)
		switch {
		case at.kind == absent, at.kind == inMemory && at.addr != from, at.addr < from:
			return op.answer(false)
		case at.kind == disk && at.addr > op.above():
			if op.Kind == opForward {
				return op.answer(false)
			}
			return onDisk
		}
		out, ok := s.appendCopy(op.Value, at)
		if ok {
			return op.answer(true)
		}
		if out != finished {
			return s.failed(op, out)
		}
	}
	return again
}

// appendCopy writes a record's image at the tail and links it, as append does.
func (s *Session) appendCopy(image []byte, at *place) (out outcome, ok bool) {
	a, p, status := s.place(len(image))
	switch status {
	case hlog.Again:
		return again, false
	case hlog.OK:
	default:
		return noSpace, false
	}
	w0, w1 := record.Words(image)
	w1 = record.Word1(record.KindOf(w1), record.ValueLen(w1), w1&record.Expiry|record.Moved)
	body := image[record.HeaderSize:]
	record.CopyIn(unsafe.Add(p, record.HeaderSize), unsafe.Pointer(unsafe.SliceData(body)), len(body))
	record.StoreHeader(p, record.Word0(at.head, record.KeyLen(w0)), w1)
	if !index.CAS(at.slot, at.entry, a) {
		record.Store1(p, w1|record.Invalid)
		return finished, false
	}
	s.moved(len(image), 1)
	if w1&record.Expiry != 0 {
		r := logRecord{addr: a, w0: w0, w1: w1, image: image}
		s.noteExpiry(a, r.expiry(), r.weight(), true)
		if at.kind == inMemory && !s.takeCount(at) {
			// It was swept meanwhile, so it has expired.
			record.UnlockChanged(p, w1, record.Word1(record.Tombstone, record.ValueLen(w1), record.Expiry|record.Moved))
		}
	}
	return finished, true
}

// moved counts what has been copied, for compaction or to stay in memory.
func (s *Session) moved(bytes, records int) {
	if s.forwards {
		s.tally.forwarded += uint64(bytes)
		return
	}
	s.tally.moved += uint64(bytes)
	s.tally.movedRecords += uint64(records)
}

// unmoved carries on with an opMove whose chain was walked on disk down to its
// record: found is whether a newer one of the key was met.
func (s *Session) unmoved(p *pendingOp, found bool, fn func(*Op)) {
	if found {
		p.op.answer(false)
		s.finish(p, fn)
		return
	}
	// What was in memory when the walk began has been looked at as well.
	p.op.Int = max(p.op.Int, int64(p.head))
	s.resume(p, fresh, fn)
}

// ownsChunk reports whether the record that an opMoveChunk has seen lists its
// chunk.
func (o *Op) ownsChunk(seen *observation) bool {
	if !seen.found || seen.kind != record.Big {
		return false
	}
	_, chunks, err := chunkList(seen.value)
	return err == nil && slices.Contains(chunks, o.from())
}

// weigh is by how many bytes a new record adds to what is live. What it takes the
// place of is known if it is in memory; on disk it is taken to be as large, or a
// deleted one of average size: no estimate is worth a read.
func (s *Session) weigh(key []byte, c *contents, at *place, counted bool) int64 {
	n := weightOf(key, c)
	switch {
	case at.kind == inMemory:
		return n - s.weightAt(at, record.Load1(at.ptr))
	case at.kind == disk && c.kind == record.Tombstone:
		return -s.store.liveBytes.Load() / max(s.store.live.Load(), 1)
	case at.kind == disk && counted:
		return 0
	}
	return n
}

// weightOf is what a record of these contents takes; of a tombstone nothing counts.
func weightOf(key []byte, c *contents) int64 {
	switch c.kind {
	case record.Value:
		return int64(c.size(len(key)))
	case record.Big:
		return int64(c.size(len(key))) + bigBytes(c.value, len(key))
	}
	return 0
}

// reweigh is by how many bytes a change in place adds to what is live.
func (s *Session) reweigh(at *place, w1 uint64, c *contents) (n int64) {
	switch c.kind {
	case record.Value:
		n = int64(record.Size(at.w0, w1))
	case record.Big:
		n = int64(record.Size(at.w0, w1)) + bigBytes(c.value, record.KeyLen(at.w0))
	}
	return n - s.weightAt(at, w1)
}

// weightAt is what the live record found in memory takes.
func (s *Session) weightAt(at *place, w1 uint64) int64 {
	if !counts(w1) {
		return 0
	}
	return s.weightOfRecord(at, w1)
}

// weightOfRecord is what the record found in memory takes, live or not.
func (s *Session) weightOfRecord(at *place, w1 uint64) int64 {
	if record.KindOf(w1) == record.Big {
		total := record.Bytes(at.ptr, record.ValueOffset(at.w0, w1), 8)
		return int64(record.Size(at.w0, w1)) + bigBytes(total, record.KeyLen(at.w0))
	}
	return int64(record.Size(at.w0, w1))
}

// bigBytes is the size in bytes of the chunks that a Big record lists.
func bigBytes(list []byte, keyLen int) int64 {
	if len(list) < 8 {
		return 0
	}
	total := int64(binary.LittleEndian.Uint64(list))
	n := (total + chunkBytes - 1) / chunkBytes
	return total + n*int64(record.SystemSize(keyLen+2))
}
