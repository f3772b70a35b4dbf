package index

import (
	"encoding/binary"
	"errors"
	"sync/atomic"

	"rskv/engine/internal/record"
)

// A snapshot of the index is its rows in order. One row is
//
//	offset  size  field
//	0       2     number of entries, little-endian
//	2       8     first entry
//	10      8     second entry
//	...
//
// Entries without a chain are left out. The anchor must be the same where the
// rows are read back; the size of the table need not.
//
// A snapshot has as many rows as the table had when it began. While it is copied
// the table may grow, even twice: row b of the snapshot is then row b of the
// table and all that have come out of it, b + 2^bits, b + 2*2^bits and so on.
// Entries only ever move to higher numbers, so whoever reads those rows in order
// misses none; one that he meets twice was on its way, and the later place counts.

// ErrRows: the bytes are not rows of such an index.
var ErrRows = errors.New("index rows are inconsistent")

// AppendRow writes a row of the 2^bits that the table had, or might have had,
// when the snapshot began. Others may change it meanwhile: each entry is as it
// was at some moment of the call.
func (x *Index) AppendRow(dst []byte, row uint64, bits uint8) []byte {
	at := len(dst)
	dst = append(dst, 0, 0)
	// How many rows exist is asked only after those before have been read: what
	// moved to a new one before was not missed there.
	for r := row; r == row || r < x.rows(); r += 1 << bits {
		here := len(dst) // entries before this come from rows before this
		for b := x.row(r); b != nil; b = x.next(b) {
			for i := range bucketEntries {
				e := atomic.LoadUint64(&b[i])
				if Address(e) < record.FirstAddr || e&tentative != 0 {
					continue
				}
				dst = appendEntry(dst, at+2, here, e&^moving)
			}
		}
	}
	binary.LittleEndian.PutUint16(dst[at:], uint16((len(dst)-at-2)/8))
	return dst
}

// appendEntry appends an entry to the row's that begin at first, or puts it in
// the place of the one of the same tag before end.
func appendEntry(dst []byte, first, end int, e uint64) []byte {
	for at := first; at < end; at += 8 {
		if binary.LittleEndian.Uint64(dst[at:])>>tagShift == e>>tagShift {
			binary.LittleEndian.PutUint64(dst[at:], e)
			return dst
		}
	}
	return binary.LittleEndian.AppendUint64(dst, e)
}

// LoadRow puts the entries of a row of 2^bits, from the begin of src, into the
// index, where none of them may be, and returns the rest. They point below until.
// Nobody else uses the index, which has the anchor of the one they come from, except
// to load other rows.
func (x *Index) LoadRow(src []byte, row uint64, bits uint8, until record.Addr) (rest []byte, entries int, err error) {
	if len(src) < 2 {
		return nil, 0, ErrRows
	}
	n := int(binary.LittleEndian.Uint16(src))
	if src = src[2:]; len(src) < 8*n || bits < x.anchor {
		return nil, 0, ErrRows
	}
	to := filling{mask: x.shape.Load()}
	for i := range n {
		e := binary.LittleEndian.Uint64(src[8*i:])
		hash := row&(1<<x.anchor-1) | e>>tagShift<<x.anchor
		if e&(tentative|moving) != 0 || Address(e) < record.FirstAddr || Address(e) >= until || hash&(1<<bits-1) != row {
			return nil, 0, ErrRows
		}
		if err := x.load(hash, e, &to); err != nil {
			return nil, 0, err
		}
	}
	return src[8*n:], n, nil
}

// filling is where the last entry of a row was put: the next one of the same row goes
// behind it.
type filling struct {
	mask, row uint64
	bucket    *bucket // nil: none has been put
	next      int
}

// load puts an entry into the first free place of its row.
func (x *Index) load(hash, e uint64, to *filling) error {
	if row := hash & to.mask; to.bucket == nil || row != to.row {
		to.row, to.bucket, to.next = row, x.row(row), 0
	}
	for {
		for ; to.next < bucketEntries; to.next++ {
			if to.bucket[to.next] == 0 {
				to.bucket[to.next] = e
				to.next++
				return nil
			}
		}
		if to.bucket[overflowWord] == 0 {
			n, ok := x.pool.take(x.pool.max)
			if !ok {
				return ErrFull
			}
			to.bucket[overflowWord] = n
		}
		to.bucket, to.next = x.pool.bucket(to.bucket[overflowWord]), 0
	}
}
