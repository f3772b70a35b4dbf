package record

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// Constants of the key hash: odd, with well mixed bits. They are part of the
// format: chains on disk depend on the hash.
const (
	h1 = 0xa0761d6478bd642f
	h2 = 0xe7037ed1a0b428db
	h3 = 0x8ebc6af09c88c6e3
)

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// Hash is the key hash: multiply-and-fold in the manner of wyhash (Wang Yi),
// seeded per store, so that nobody can prepare keys that share a chain. Word
// reads are little-endian.
func Hash(seed uint64, key []byte) uint64 {
	if len(key) == 8 {
		return HashWord(seed, key)
	}
	return hashLong(seed, key)
}

// HashWord is Hash for a key of eight bytes, small enough to be inlined.
func HashWord(seed uint64, key []byte) uint64 {
	v := *(*uint64)(unsafe.Pointer(unsafe.SliceData(key)))
	return mix(v^h1^seed, mix(v^h2, seed^8^h3))
}

func hashLong(seed uint64, k []byte) uint64 {
	n := len(k)
	s := seed ^ h3
	var a, b uint64
	switch {
	case n > 16:
		p := k
		for len(p) > 16 {
			s = mix(binary.LittleEndian.Uint64(p)^h1, binary.LittleEndian.Uint64(p[8:])^s)
			p = p[16:]
		}
		a = binary.LittleEndian.Uint64(k[n-16:])
		b = binary.LittleEndian.Uint64(k[n-8:])
	case n > 8:
		a = binary.LittleEndian.Uint64(k)
		b = binary.LittleEndian.Uint64(k[n-8:])
	case n >= 4:
		a = uint64(binary.LittleEndian.Uint32(k))
		b = uint64(binary.LittleEndian.Uint32(k[n-4:]))
	case n > 0:
		a = uint64(k[0])<<16 | uint64(k[n>>1])<<8 | uint64(k[n-1])
	}
	hi, lo := bits.Mul64(a^h2, b^s)
	return mix(hi^h1^uint64(n), lo^h2^seed)
}
