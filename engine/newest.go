package engine

import (
	"fmt"

	"rskv/engine/internal/index"
	"rskv/engine/internal/record"
)

// opNewest asks whether a record is the newest of its key at or below a cut. The
// chain is walked from its head down to the record; what is above the cut does not
// count. It waits for the disk like any other operation.
//
//	chain:  head --> ... --> cut --> ... --> record
//	        skipped          same key here: not the newest
//
// The address of the record is in Delta and the cut in Int; the cut is the end of
// a commit, so that nothing at or below it changes. With Blind records that
// compaction has moved do not count. Found is the answer, and with it NewAbsent
// whether the key has records above the cut. If the log begins above the record by
// then, there is no saying: ErrCursor.
const opNewest = opForward + 1

// newestRecord makes op the question about the record of key at a.
func (o *Op) newestRecord(a, cut record.Addr, key []byte) {
	*o = Op{Kind: opNewest, Key: key, Delta: int64(a), Int: int64(cut)}
}

func (o *Op) cut() record.Addr { return record.Addr(o.Int) }

// counts reports whether a record of the key with this word 1 at a makes the one
// that an opNewest asks about an older one. It notes those above the cut.
func (o *Op) counts(a record.Addr, w1 uint64) bool {
	if w1&record.Invalid != 0 || o.Blind && w1&record.Moved != 0 {
		return false
	}
	o.NewAbsent = o.NewAbsent || a >= o.cut()
	return a < o.cut()
}

// newest carries out an opNewest as far as memory goes.
func (s *Session) newest(op *Op, hash uint64, at *place) outcome {
	from := op.from()
	if from < s.begin {
		return op.fail(fmt.Errorf("%w: compaction has passed log address %v, the log begins at %v", ErrCursor, from, s.begin))
	}
	log := s.store.log
	at.slot, at.entry = s.store.index.Find(hash)
	at.head = index.Address(at.entry)
	a := at.head
	for a > from {
		if a < s.mem {
			at.kind, at.addr = disk, a
			return onDisk
		}
		p := log.Pointer(a)
		w0 := record.Load0(p)
		if record.KeyEqual(p, w0, op.Key) && op.counts(a, record.Load1(p)) {
			return op.answer(false)
		}
		a = record.Prev(w0)
	}
	return op.answer(a == from)
}

// examineNewest goes on with an opNewest behind the record at a, which is above
// its own and has been read.
func (s *Session) examineNewest(op *Op, a record.Addr, w0, w1 uint64, isKey bool) (verdict readVerdict, decided bool) {
	switch prev := record.Prev(w0); {
	case isKey && op.counts(a, w1):
		op.answer(false)
		return readFound, true
	case prev <= op.from():
		op.answer(prev == op.from())
		return readAbsent, true
	}
	return readOn, false
}
