package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"iter"

	"rskv/engine/internal/ordered"
)

// A scan in the order of the keys takes them from the ordered index, group by group,
// and asks the store for each: so it costs what it returns. A key that is there from
// its first page to its last has one place in the order, and is never missing from
// the index; what the index has besides is not found, and left out. Nothing is kept
// between two pages but where the next begins, a key.
const (
	// orderGroup is how many keys are asked for at a time, at most. Values may be
	// large: the first group of a page is of orderFirst keys, the others of as many as
	// have orderBytes together if they are like those before.
	orderGroup = 256
	orderFirst = 4
	orderBytes = 1 << 20
	// orderWork is how many keys are looked at for one page: then it ends, though
	// most of them may be gone.
	orderWork = 65_536
)

// A cursor of a scan in order is
//
//	offset  size  field
//	0       1     format, 2
//	1       1     1: the scan goes backwards
//	2       8     checksum, over the store's identity too
//	10            a key: forwards, the next may not be below it, backwards it must be
const (
	orderCursorFormat = 2
	orderCursorHead   = 10
)

func (s *Store) orderCursor(key []byte, reverse bool) []byte {
	b := make([]byte, orderCursorHead, orderCursorHead+len(key))
	if b[0] = orderCursorFormat; reverse {
		b[1] = 1
	}
	b = append(b, key...)
	binary.LittleEndian.PutUint64(b[2:], s.orderSum(b))
	return b
}

func (s *Store) orderSum(b []byte) uint64 {
	return s.cursorSum(append(append(make([]byte, 0, len(b)), b[:2]...), b[orderCursorHead:]...))
}

// orderedFrom reads a cursor; nil: the scan begins.
func (s *Store) orderedFrom(cursor []byte, reverse bool) (key []byte, err error) {
	switch {
	case cursor == nil:
		return nil, nil
	case len(cursor) < orderCursorHead || cursor[0] != orderCursorFormat || binary.LittleEndian.Uint64(cursor[2:]) != s.orderSum(cursor):
		return nil, fmt.Errorf("%w: it is of no scan of this store", ErrCursor)
	case (cursor[1] == 1) != reverse:
		return nil, fmt.Errorf("%w: it is of a scan in the other direction", ErrCursor)
	}
	return cursor[orderCursorHead:], nil
}

// Ordered reports whether the store has been opened with the ordered index.
func (s *Store) Ordered() bool { return s.order.tree != nil }

// inOrder reports whether a scan goes by the ordered index.
func (s *Store) inOrder(opt *ScanOptions) (bool, error) {
	of := len(opt.Cursor) > 0 && opt.Cursor[0] == orderCursorFormat
	switch {
	case s.order.tree != nil:
		return opt.Cursor == nil || of, nil
	case opt.From != nil || opt.To != nil || opt.Reverse:
		return false, fmt.Errorf("%w: scan: from, to and reverse need the ordered index, which this store has not been opened with", ErrBadOp)
	case of:
		return false, fmt.Errorf("scan: %w: this store has not been opened with the ordered index", ErrCursor)
	}
	return false, nil
}

// orderScan is a page of a scan in order that is being put together.
type orderScan struct {
	s       *Store
	opt     *ScanOptions
	session *Session
	lo, hi  []byte // the keys that are left: lo <= key < hi; hi nil: no end
	keys    ordered.Keys
	ops     []Op
	ended   bool
	group   int
	bytes   int
	page    ScanPage
}

// orderedPage returns a page of a scan in order.
func (s *Store) orderedPage(ctx context.Context, opt *ScanOptions) (ScanPage, error) {
	from, err := s.orderedFrom(opt.Cursor, opt.Reverse)
	if err != nil {
		return ScanPage{}, err
	}
	k := &orderScan{s: s, opt: opt, group: orderFirst}
	k.lo, k.hi = bounds(opt)
	switch {
	case from == nil:
	case opt.Reverse:
		k.hi = least(k.hi, from)
	case bytes.Compare(from, k.lo) > 0:
		k.lo = from
	}
	k.session = s.NewSession()
	defer k.session.Close()
	for looked := 0; !k.ended && len(k.page.Entries) < opt.Count && k.bytes < opt.Bytes && looked < orderWork; {
		if err := ctx.Err(); err != nil {
			return ScanPage{}, err
		}
		if err := k.gather(); err != nil {
			return ScanPage{}, err
		}
		looked += k.keys.Len()
		if err := k.take(); err != nil {
			return ScanPage{}, err
		}
	}
	if !k.ended {
		at := k.lo
		if opt.Reverse {
			at = k.hi
		}
		k.page.Next = s.orderCursor(at, opt.Reverse)
	}
	return k.page, nil
}

// bounds are those of all keys that a scan is about.
func bounds(opt *ScanOptions) (lo, hi []byte) {
	lo, hi = opt.From, opt.To
	if bytes.Compare(opt.Prefix, lo) > 0 {
		lo = opt.Prefix
	}
	if end := behind(opt.Prefix); end != nil {
		hi = least(hi, end)
	}
	return lo, hi
}

// least is the lower one of two ends, of which nil is none.
func least(a, b []byte) []byte {
	if a == nil || b != nil && bytes.Compare(b, a) < 0 {
		return b
	}
	return a
}

// behind is the least key above all that begin with prefix; nil: there is none.
func behind(prefix []byte) []byte {
	for n := len(prefix); n > 0; n-- {
		if prefix[n-1] < 0xff {
			end := bytes.Clone(prefix[:n])
			end[n-1]++
			return end
		}
	}
	return nil
}

// gather takes the next keys from the index.
func (k *orderScan) gather() error {
	if n := len(k.page.Entries); n > 0 {
		k.group = min(max(orderBytes*n/max(k.bytes, 1), orderFirst), orderGroup)
	}
	n := min(k.group, k.opt.Count-len(k.page.Entries))
	for {
		if k.hi != nil && bytes.Compare(k.lo, k.hi) >= 0 {
			k.keys.Reset()
			k.ended = true
			return nil
		}
		if err := k.session.enter(false); err != nil {
			return err
		}
		var next []byte
		var st ordered.Status
		k.keys.Reset()
		if k.opt.Reverse {
			next, st = k.s.order.tree.PageBefore(k.hi, n, &k.keys, nil)
		} else {
			next, st = k.s.order.tree.Page(k.lo, n, &k.keys, nil)
		}
		k.session.exit()
		if st == ordered.Again {
			k.session.pause()
			continue
		}
		k.trim()
		if next == nil {
			k.ended = true
			return nil
		}
		if k.opt.Reverse {
			k.hi = next
		} else {
			k.lo = next
		}
		if k.keys.Len() > 0 {
			return nil
		}
	}
}

// trim drops the keys that the scan is not about any more, all at the end.
func (k *orderScan) trim() {
	n := k.keys.Len()
	for n > 0 {
		key := k.keys.At(n - 1)
		if k.opt.Reverse && bytes.Compare(key, k.lo) >= 0 || !k.opt.Reverse && (k.hi == nil || bytes.Compare(key, k.hi) < 0) {
			break
		}
		n--
	}
	k.keys.Cut(n)
}

// take asks the store for the keys, and makes entries of those that are there.
func (k *orderScan) take() error {
	kind := OpGet
	if k.opt.KeysOnly {
		kind = OpExists
	}
	k.ops = k.ops[:0]
	for i := range k.keys.Len() {
		k.ops = append(k.ops, Op{Kind: kind, Key: k.keys.At(i)})
	}
	k.session.Do(k.ops)
	size := 0
	for i := range k.ops {
		if op := &k.ops[i]; op.Found {
			size += len(op.Key) + len(op.Value)
		}
	}
	room := make([]byte, 0, size) // of all entries of the group
	if k.page.Entries == nil {
		k.page.Entries = make([]Entry, 0, min(k.opt.Count, orderGroup))
	}
	for i := range k.ops {
		op := &k.ops[i]
		switch {
		case op.Err != nil:
			return op.Err
		case !op.Found:
			k.session.doubtDead(op.Key)
			continue
		case k.bytes >= k.opt.Bytes:
			// The rest is for the next page.
			if k.ended = false; k.opt.Reverse {
				k.hi = append(bytes.Clone(op.Key), 0)
			} else {
				k.lo = bytes.Clone(op.Key)
			}
			return nil
		}
		at, n := len(room), len(op.Key)
		room = append(append(room, op.Key...), op.Value...)
		e := Entry{Key: room[at:][:n:n]}
		if !k.opt.KeysOnly {
			e.Value = room[at+n : len(room) : len(room)]
		}
		k.bytes += len(room) - at
		k.page.Entries = append(k.page.Entries, e)
	}
	return nil
}

// Range returns the entries of a scan, page by page; Cursor says where it begins, as
// ever. The memory of an entry is the caller's. The second is the error that ended
// it: it comes with an empty entry, as the last.
func (s *Store) Range(ctx context.Context, opt ScanOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for {
			page, err := s.Scan(ctx, opt)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, e := range page.Entries {
				if !yield(e, nil) {
					return
				}
			}
			if opt.Cursor = page.Next; opt.Cursor == nil {
				return
			}
		}
	}
}
