package record

import (
	"unsafe"

	"github.com/cespare/xxhash/v2"
)

// Seed makes the checksums of one store and generation differ from all others,
// so that stale bytes of an earlier run, or of another store, never verify.
type Seed uint64

// NewSeed derives the seed of a generation of a store.
func NewSeed(storeID [16]byte, generation uint64) Seed {
	var b [24]byte
	copy(b[:], storeID[:])
	for i := range 8 {
		b[16+i] = byte(generation >> (8 * i))
	}
	return Seed(xxhash.Sum64(b[:]))
}

const (
	c1 = 0x9e3779b185ebca87
	c2 = 0xc2b2ae3d27d4eb4f
	c3 = 0x165667b19e3779f9
)

// Checksum is the 31-bit check (bit 0 is zero) of a record at addr whose words
// are w0 and w1 and whose bytes behind the header are body, padding included. It
// covers the whole record but the check bits themselves, and the address, so
// that a record that landed at a wrong place does not verify. Fillers are
// checked by their header alone.
func Checksum(seed Seed, addr Addr, w0, w1 uint64, body []byte) uint32 {
	x := uint64(seed)
	if len(body) > 0 {
		x ^= xxhash.Sum64(body)
	}
	x = (x ^ w0) * c1
	x ^= x >> 32
	x = (x ^ w1&^uint64(checkMask)) * c2
	x ^= x >> 29
	x = (x ^ uint64(addr)) * c3
	x ^= x >> 32
	x *= c1
	return uint32(x>>32) &^ lockBit
}

// IsFiller reports whether the words are those of a filler.
func IsFiller(w0, w1 uint64) bool { return KindOf(w1) == System && KeyLen(w0) == TypeFiller }

func bodyOf(p unsafe.Pointer, w0, w1 uint64) []byte {
	if IsFiller(w0, w1) {
		return nil
	}
	return Bytes(p, HeaderSize, Size(w0, w1)-HeaderSize)
}

// Seal computes the checksum of the record at p and puts it in place of the
// sequence word. No writer can reach the record any more.
func Seal(p unsafe.Pointer, seed Seed, addr Addr) (size int) {
	w0, w1 := Load0(p), Load1(p)
	Store1(p, WithCheck(w1, Checksum(seed, addr, w0, w1, bodyOf(p, w0, w1))))
	return Size(w0, w1)
}

// Verify checks a sealed record whose bytes begin buf, and returns its words. ok
// is false if buf is too short for it, or the checksum does not hold.
func Verify(buf []byte, seed Seed, addr Addr) (w0, w1 uint64, ok bool) {
	if len(buf) < HeaderSize {
		return 0, 0, false
	}
	w0, w1 = Words(buf)
	size := Size(w0, w1)
	if size > len(buf) {
		return w0, w1, false
	}
	body := buf[HeaderSize:size]
	if IsFiller(w0, w1) {
		body = nil
	}
	return w0, w1, Checksum(seed, addr, w0, w1, body) == Check(w1)
}
