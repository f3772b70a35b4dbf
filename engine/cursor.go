package engine

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"rskv/engine/internal/record"
)

// A cursor is where a scan goes on. It is all that is kept of a scan between two
// pages, and survives the process:
//
//	offset  size  field
//	0       1     format, 1
//	1       8     end of the scan: address of the cut it began with, in units
//	9       8     address of the next record, in units
//	17      8     generation of the span that the end lies in
//	25      8     number of the scan, see scanHolds
//	33      8     checksum, over the store's identity too
//
// The checksum keeps cursors of other stores, and what was never one, from being
// taken for a place in this log.
type cursor struct {
	end        record.Addr
	at         record.Addr
	generation uint64
	id         uint64
}

const (
	cursorFormat = 1
	cursorSize   = 41
)

// encode returns the cursor as bytes.
func (c *cursor) encode(s *Store) []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 0, cursorSize), cursorFormat)
	for _, v := range []uint64{uint64(c.end), uint64(c.at), c.generation, c.id} {
		b = le.AppendUint64(b, v)
	}
	return le.AppendUint64(b, s.cursorSum(b))
}

// decodeCursor returns the cursor in b; ok is false for anything that no scan of
// this store has returned.
func (s *Store) decodeCursor(b []byte) (c cursor, ok bool) {
	if len(b) != cursorSize || b[0] != cursorFormat {
		return c, false
	}
	le := binary.LittleEndian
	c = cursor{
		end: record.Addr(le.Uint64(b[1:])), at: record.Addr(le.Uint64(b[9:])),
		generation: le.Uint64(b[17:]), id: le.Uint64(b[25:]),
	}
	return c, le.Uint64(b[33:]) == s.cursorSum(b[:33]) && c.at <= c.end
}

func (s *Store) cursorSum(b []byte) uint64 {
	h := xxhash.NewWithSeed(s.seed)
	s.mu.Lock()
	id := s.mu.manifest.StoreID
	s.mu.Unlock()
	_, _ = h.Write(id[:]) // a hash takes everything
	_, _ = h.Write(b)
	return h.Sum64()
}
