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
// Entries without a chain are left out. Bits and anchor must be the same where
// the rows are read back.

// ErrRows: the bytes are not rows of such an index.
var ErrRows = errors.New("index rows are inconsistent")

// Rows is the number of rows: one for each bucket of the table.
func (x *Index) Rows() uint64 { return x.mask + 1 }

// Anchor is the number of bits the index was created with.
func (x *Index) Anchor() uint8 { return x.anchor }

// AppendRow writes a row. Others may change it meanwhile: each entry is as it
// was at some moment of the call.
func (x *Index) AppendRow(dst []byte, row uint64) []byte {
	at := len(dst)
	dst = append(dst, 0, 0)
	n := 0
	for b := x.home(row); b != nil; b = x.next(b) {
		for i := range bucketEntries {
			e := atomic.LoadUint64(&b[i])
			if Address(e) < record.FirstAddr || e&tentative != 0 {
				continue
			}
			dst = binary.LittleEndian.AppendUint64(dst, e)
			n++
		}
	}
	binary.LittleEndian.PutUint16(dst[at:], uint16(n))
	return dst
}

// LoadRow fills an empty row from the begin of src and returns the rest. Nobody
// else uses the index.
func (x *Index) LoadRow(row uint64, src []byte) (rest []byte, entries int, err error) {
	if len(src) < 2 {
		return nil, 0, ErrRows
	}
	n := int(binary.LittleEndian.Uint16(src))
	if src = src[2:]; len(src) < 8*n {
		return nil, 0, ErrRows
	}
	b := x.home(row)
	for i := range n {
		if i > 0 && i%bucketEntries == 0 {
			fresh, ok := x.pool.take()
			if !ok {
				return nil, 0, ErrFull
			}
			b[overflowWord] = fresh
			b = x.pool.bucket(fresh)
		}
		e := binary.LittleEndian.Uint64(src[8*i:])
		if e&tentative != 0 || Address(e) < record.FirstAddr {
			return nil, 0, ErrRows
		}
		b[i%bucketEntries] = e
	}
	return src[8*n:], n, nil
}

// Clear empties the index. Nobody else uses it.
func (x *Index) Clear() {
	for row := range x.Rows() {
		clear(x.home(row)[:])
	}
	for n := range x.pool.fresh.Load() {
		clear(x.pool.bucket(n + 1)[:])
	}
	x.pool.fresh.Store(0)
	x.pool.returned.Store(0)
	x.pool.idle.Store(0)
}
