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

// stand says how a record compares with the others of its key.
type stand uint8

const (
	superseded stand = iota // there is a newer one at or below the cut
	newest                  // it is the newest of all
	newestThen              // it was at the cut, and there are newer ones above
)

// standing is what is known about a list of records, and the memory to find it out.
type standing struct {
	stands  []stand
	ops     []Op
	asked   []int // for which records the ops are
	hashes  []uint64
	slots   [standBlock]*uint64
	entries [standBlock]uint64
}

const (
	// standBlock is for how many records the index is looked into together, and
	// standAhead how many records before that its buckets are asked for.
	standBlock = 8
	standAhead = 16
)

// judge finds out how each of some records stands, the lowest first, all below a cut.
// Most of a log that is worth scanning are heads of their chains, which the index
// says without a look at any record. The others are asked for, and may wait for the
// disk.
func (t *standing) judge(s *Session, list []logRecord, cut record.Addr) error {
	t.stands, t.ops, t.asked = t.stands[:0], t.ops[:0], t.asked[:0]
	if len(list) == 0 {
		return nil
	}
	t.hashes = t.hashes[:0]
	for i := range list {
		t.hashes = append(t.hashes, record.Hash(s.store.seed, list[i].key()))
	}
	if err := s.enter(false); err != nil {
		return err
	}
	s.store.index.Prefetch(t.hashes[:min(standAhead, len(list))])
	for i := 0; i < len(list); i += standBlock {
		ahead := min(i+standAhead, len(list))
		s.store.index.Prefetch(t.hashes[ahead:min(ahead+standBlock, len(list))])
		t.heads(s, list, i, min(i+standBlock, len(list)), cut)
	}
	s.exit()
	s.Do(t.ops)
	for i := range t.ops {
		op := &t.ops[i]
		switch at := t.asked[i]; {
		case op.Err != nil:
			return op.Err
		case !op.Found:
		case op.NewAbsent:
			t.stands[at] = newestThen
		default:
			t.stands[at] = newest
		}
	}
	return nil
}

// heads looks records from number i to end up in the index.
func (t *standing) heads(s *Session, list []logRecord, i, end int, cut record.Addr) {
	n := end - i
	s.store.index.FindAll(t.hashes[i:end], t.slots[:n], t.entries[:n])
	for j := range n {
		r := &list[i+j]
		if index.Address(t.entries[j]) == r.addr && r.addr >= s.begin {
			t.stands = append(t.stands, newest)
			continue
		}
		t.stands = append(t.stands, superseded)
		t.asked = append(t.asked, i+j)
		t.ops = append(t.ops, Op{})
		t.ops[len(t.ops)-1].newestRecord(r.addr, cut, r.key())
	}
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
