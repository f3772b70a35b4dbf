package engine

import (
	"fmt"
	"unsafe"

	"github.com/cespare/xxhash/v2"

	"rskv/engine/internal/record"
	"rskv/ioring"
)

// Where records are small and most of the log is on disk, finding out one by one
// whether a record is the newest of its key costs a random read for each that is
// not. A sieve reads the whole log instead, in order, and finds out for all
// records of a pass at once:
//
//	begin        until                              end
//	|-- fill ----|------------- strike -------------|
//
//	fill    remember the newest record of every key in the region of the pass
//	strike  forget the keys that have a record behind it
//
// What is left is the newest of its key up to end; a record that was struck is
// dead. Keys are told apart by 84 and more bits of two independent hashes, one of
// them with the store's own seed, so that taking a live record for a dead one is
// as unlikely as damage that no checksum notices.
//
// A sieve is memory outside the Go heap, taken from the log's for the time of the
// pass; if the region has more keys than it holds, the region is cut.
type sieve struct {
	memory  *ioring.Memory
	entries []sieveEntry
	mask    uint64
	room    int         // entries that may still be used
	begin   record.Addr // of the region
}

// sieveEntry is one key. The word 0 of place means that it is free.
type sieveEntry struct {
	sum   uint64 // xxhash64 of the key
	high  uint32 // upper half of the store's hash; the lower one chose the entry
	place uint32 // of its newest record: units from begin, plus 1
}

const (
	sieveEntryBytes = 16
	// sieveStruck is the place of a key whose records in the region are all dead.
	sieveStruck = 1<<32 - 1
	// sieveShare is the part of the memory budget that a sieve may take.
	sieveShare = 8
	// sievePages is the least memory, in pages: it holds the keys of two, however
	// small their records.
	sievePages = 2
	// sieveRead is what a random read costs, in bytes read in order: about 20 us of
	// processor and device together.
	sieveRead = 16 << 10
	// sieveRegion bounds the region of a sieve, so that a place fits its word.
	sieveRegion = record.Addr(1<<32 - 2)
)

// newSieve returns a sieve that takes at most so many bytes.
func newSieve(bytes int64, begin record.Addr) (*sieve, error) {
	n := uint64(1)
	for n*2*sieveEntryBytes <= uint64(bytes) {
		n *= 2
	}
	memory, err := ioring.AllocMemory(int64(n) * sieveEntryBytes)
	if err != nil {
		return nil, fmt.Errorf("memory for compaction: %w", err)
	}
	return &sieve{
		memory: memory, mask: n - 1, room: int(n / 8 * 7), begin: begin,
		entries: unsafe.Slice((*sieveEntry)(memory.Pointer()), n),
	}, nil
}

func (v *sieve) free() error { return v.memory.Free() }

// find returns the entry of a key, or the free one where it belongs.
func (v *sieve) find(hash uint64, key []byte) (e *sieveEntry, sum uint64) {
	sum = xxhash.Sum64(key)
	for i := hash & v.mask; ; i = (i + 1) & v.mask {
		e = &v.entries[i]
		if e.place == 0 || e.sum == sum && e.high == uint32(hash>>32) {
			return e, sum
		}
	}
}

// fill notes a record of the region. Records come in order, so it is the newest.
func (v *sieve) fill(hash uint64, key []byte, a record.Addr, tombstone bool) {
	e, sum := v.find(hash, key)
	if e.place == 0 {
		v.room--
		e.sum, e.high = sum, uint32(hash>>32)
	}
	e.place = uint32(a-v.begin) + 1
	if tombstone {
		e.place = sieveStruck
	}
}

// strike notes a record behind the region.
func (v *sieve) strike(hash uint64, key []byte) {
	if e, _ := v.find(hash, key); e.place != 0 {
		e.place = sieveStruck
	}
}

// live reports whether the record of the key at a was left.
func (v *sieve) live(hash uint64, key []byte, a record.Addr) bool {
	e, _ := v.find(hash, key)
	return e.place == uint32(a-v.begin)+1
}
