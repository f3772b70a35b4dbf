// Package record is the shape of one log record: what its two header words
// mean, where key and value lie, how its bytes may be shared between readers and
// writers, and how they are checked.
//
// # Layout
//
// A record begins at a multiple of Unit bytes and takes a multiple of Unit:
//
//	+--------+--------+-------------------+----------+-----------------+-----+
//	| word 0 | word 1 | key, padded to 8  | [expiry] | value           | pad |
//	+--------+--------+-------------------+----------+-----------------+-----+
//	0        8        16                                               size
//
//	word 0   bits  0-47  address of the previous record of this chain, in units
//	         bits 48-63  key length in bytes; of a System record: its type
//	word 1   bits  0-31  check, see below
//	         bits 32-56  value length in bytes
//	         bits 57-58  kind: Value, Tombstone, Big, System
//	         bit  59     expiry: eight bytes of wall time (ms) stand before the value
//	         bit  60     invalid: never linked into a chain, skip
//	         bit  61     sealed: a newer copy of this key is already linked
//	         bit  62     moved: a copy made by compaction, which no user has changed
//	         bit  63     swept: in memory only, see Sweep
//
// Multi-byte words are little-endian. The size follows from the two words alone
// and never changes after the record was allocated.
//
// # The check word
//
// While a record is mutable, check is its sequence word: bit 0 is the latch, the
// other bits count finished changes. Latch, length, flags and count change
// together in one 64-bit word, so a reader that loads word 1 before and after
// its copy and finds the same unlatched word has an untorn value.
//
// When no writer can touch the record any more (its address is below the safe
// read-only address) the sealer replaces check by the checksum, once. Bit 0 of
// every checksum is 0: a reader that still takes the record for a mutable one
// finds it unlatched and at worst copies twice.
package record

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

const (
	// Unit is the granule of addresses and record sizes, in bytes.
	Unit = 16
	// HeaderSize is the size of the two header words in bytes.
	HeaderSize = 16
	// MaxKey is the largest key length in bytes: 16 bits hold it.
	MaxKey = 1<<16 - 1
	// MaxValue is the largest length in bytes that word 1 can hold.
	MaxValue = 1<<25 - 1
)

// Addr is a log address in units of 16 bytes. 47 bits are used: 2 PiB of log.
type Addr uint64

const (
	addrBits = 48
	addrMask = 1<<addrBits - 1
	keyShift = 48

	checkMask  = 1<<32 - 1
	lockBit    = 1
	seqStep    = 2
	valueShift = 32
	valueMask  = 1<<25 - 1
	kindShift  = 57
	kindMask   = 3
)

// FirstAddr is the lowest address a record can have; lower ones are marks.
const FirstAddr Addr = 4

// AddrEnd is behind all addresses there can be.
const AddrEnd Addr = 1 << 47

// Bytes returns the address as a byte offset in the log.
func (a Addr) Bytes() int64 { return int64(a) * Unit }

// String prints an address the way FORMAT.md and error texts do: in bytes, hex.
func (a Addr) String() string { return fmt.Sprintf("0x%x", uint64(a)*Unit) }

// Kind says what a record means.
type Kind uint8

const (
	Value     Kind = iota // key and value in this record
	Tombstone             // the key is absent from here on
	Big                   // the value is a list of chunk records, see Big
	System                // no key; word 0 holds the type instead of a key length
)

// Flags of word 1.
const (
	Expiry  uint64 = 1 << 59
	Invalid uint64 = 1 << 60
	Sealed  uint64 = 1 << 61
	Moved   uint64 = 1 << 62
	// Swept is never on disk, see Sweep.
	Swept uint64 = 1 << 63
)

// Types of System records.
const (
	TypeFiller = 0 // room nobody uses: the rest of a page or sector
	TypePage   = 1 // first record of every page
	TypeChunk  = 2 // a piece of a large value
	TypeCommit = 3 // end of a commit group
)

// Word0 packs the first header word.
func Word0(prev Addr, keyLen int) uint64 { return uint64(prev)&addrMask | uint64(keyLen)<<keyShift }

// Word1 packs the second header word with a zero check.
func Word1(kind Kind, valueLen int, flags uint64) uint64 {
	return uint64(valueLen)<<valueShift | uint64(kind)<<kindShift | flags
}

// Prev is the address of the next older record of the chain.
func Prev(w0 uint64) Addr { return Addr(w0 & addrMask) }

// KeyLen is the key length in bytes; of a System record it is its type.
func KeyLen(w0 uint64) int { return int(w0 >> keyShift) }

// KindOf returns the kind.
func KindOf(w1 uint64) Kind { return Kind(w1 >> kindShift & kindMask) }

// ValueLen is the length of the value in bytes.
func ValueLen(w1 uint64) int { return int(w1 >> valueShift & valueMask) }

// Locked reports whether a writer holds the record's latch.
func Locked(w1 uint64) bool { return w1&lockBit != 0 }

// Readable reports whether a record with this second word is a value that can be
// copied without further questions: of this kind, linked, without expiry, and
// with nobody's latch on it.
func Readable(w1 uint64) bool { return w1&(kindMask<<kindShift|Expiry|Invalid|lockBit) == 0 }

// Plain reports whether a record with this second word is a value of n bytes,
// unlatched and without any flag.
func Plain(w1 uint64, n int) bool {
	return w1>>valueShift == uint64(n) && w1&lockBit == 0
}

// Check returns the checksum of a sealed record.
func Check(w1 uint64) uint32 { return uint32(w1) }

// WithCheck replaces the check bits.
func WithCheck(w1 uint64, check uint32) uint64 { return w1&^checkMask | uint64(check) }

func pad8(n int) int { return (n + 7) &^ 7 }

// ValueOffset is where the value begins, in bytes from the record's first.
func ValueOffset(w0, w1 uint64) int {
	if KindOf(w1) == System {
		return HeaderSize
	}
	off := HeaderSize + pad8(KeyLen(w0))
	if w1&Expiry != 0 {
		off += ExpirySize
	}
	return off
}

// PlainOffset is where the value of a record without expiry begins.
func PlainOffset(keyLen int) int { return HeaderSize + pad8(keyLen) }

// Size is the size of the record in bytes, a multiple of Unit.
func Size(w0, w1 uint64) int {
	return (ValueOffset(w0, w1) + ValueLen(w1) + Unit - 1) &^ (Unit - 1)
}

// SizeFor is the size in bytes of a record without expiry.
func SizeFor(keyLen, valueLen int) int {
	return (HeaderSize + pad8(keyLen) + valueLen + Unit - 1) &^ (Unit - 1)
}

// ExpirySize is how many bytes an expiry takes in a record.
const ExpirySize = 8

// SystemSize is the size in bytes of a System record with a payload of n bytes.
func SystemSize(n int) int { return (HeaderSize + n + Unit - 1) &^ (Unit - 1) }

// The functions below take a pointer to a record in a page frame. They are sound
// because frames are never Go-managed objects that move, the caller is inside an
// epoch section (or otherwise keeps the frame), and the record lies wholly in it.

// Load0 loads the first header word.
func Load0(p unsafe.Pointer) uint64 { return atomic.LoadUint64((*uint64)(p)) }

// Load1 loads the second header word.
func Load1(p unsafe.Pointer) uint64 { return atomic.LoadUint64((*uint64)(unsafe.Add(p, 8))) }

// LoadExpiry loads the expiry of a record that has one, in ms since 1970. Of a
// mutable record it counts, like its value, only if word 1 is the same before and
// after.
func LoadExpiry(p unsafe.Pointer, w0 uint64) int64 {
	return int64(atomic.LoadUint64((*uint64)(unsafe.Add(p, HeaderSize+pad8(KeyLen(w0))))))
}

// StoreExpiry stores the expiry, in ms since 1970, of a record that is not linked
// yet, or whose latch the caller holds.
func StoreExpiry(p unsafe.Pointer, w0 uint64, ms int64) {
	storeWord(unsafe.Add(p, HeaderSize+pad8(KeyLen(w0))), uint64(ms))
}

// Store1 stores the second header word, after everything that was stored before.
func Store1(p unsafe.Pointer, w1 uint64) { storeWord(unsafe.Add(p, 8), w1) }

// TryLock takes the latch of a record whose second word was just seen as w1. It
// fails if the word has changed or the latch is held.
func TryLock(p unsafe.Pointer, w1 uint64) bool {
	return w1&lockBit == 0 && atomic.CompareAndSwapUint64((*uint64)(unsafe.Add(p, 8)), w1, w1|lockBit)
}

// Latched is word 1 of a record that is linked with its latch held by its writer.
func Latched(w1 uint64) uint64 { return w1 | lockBit }

// Sweep marks a record, which the device already has as it is and which nobody
// changes any more, as one that does not count as a live key, and reports whether
// it did so itself. Exactly one of several succeeds. The checksum does not know of
// the mark: who copies a record from memory and verifies it calls Unmark first.
func Sweep(p unsafe.Pointer) bool {
	for {
		w1 := Load1(p)
		if w1&Swept != 0 {
			return false
		}
		if atomic.CompareAndSwapUint64((*uint64)(unsafe.Add(p, 8)), w1, w1|Swept) {
			return true
		}
	}
}

// Unlock releases the latch taken on w1 and leaves everything as it was.
func Unlock(p unsafe.Pointer, w1 uint64) { Store1(p, w1) }

// UnlockChanged releases the latch taken on w1, publishing kind, length and
// flags of next together with a new sequence number.
func UnlockChanged(p unsafe.Pointer, w1, next uint64) {
	// Publish: readers may copy this value from here on.
	Store1(p, next&^checkMask|(w1+seqStep)&checkMask)
}

// KeyEqual reports whether the record with first word w0 has this key. The key
// of a record never changes.
func KeyEqual(p unsafe.Pointer, w0 uint64, key []byte) bool {
	if KeyLen(w0) != len(key) {
		return false
	}
	k := unsafe.Add(p, HeaderSize)
	if len(key) == 8 {
		return *(*uint64)(k) == *(*uint64)(unsafe.Pointer(unsafe.SliceData(key)))
	}
	return string(unsafe.Slice((*byte)(k), len(key))) == string(key)
}

// Bytes returns n bytes of the record from off on. They may only be read while
// no writer can change them, or by their writer.
func Bytes(p unsafe.Pointer, off, n int) []byte {
	return unsafe.Slice((*byte)(unsafe.Add(p, off)), n)
}

// Write fills freshly allocated, still unlinked memory of Size(w0, w1) bytes with
// a record, of which more is the rest of the value. Padding is zeroed, so that the
// image is the same every time. The expiry of a record that has one is stored
// after that, before it is linked.
func Write(p unsafe.Pointer, w0, w1 uint64, key, value []byte, more ...[]byte) {
	size := Size(w0, w1)
	*(*uint64)(unsafe.Add(p, size-8)) = 0
	if KindOf(w1) != System {
		if k := len(key); k&7 != 0 {
			*(*uint64)(unsafe.Add(p, HeaderSize+k&^7)) = 0
		}
		copy(unsafe.Slice((*byte)(unsafe.Add(p, HeaderSize)), len(key)), key)
	}
	at := ValueOffset(w0, w1)
	if e := (at + ValueLen(w1)) &^ 7; e < size-8 {
		*(*uint64)(unsafe.Add(p, e)) = 0
	}
	at += copy(unsafe.Slice((*byte)(unsafe.Add(p, at)), len(value)), value)
	for _, b := range more {
		at += copy(unsafe.Slice((*byte)(unsafe.Add(p, at)), len(b)), b)
	}
	StoreHeader(p, w0, w1)
}

// StoreHeader stores both words of a record that is not linked yet.
func StoreHeader(p unsafe.Pointer, w0, w1 uint64) {
	*(*uint64)(p) = w0
	Store1(p, w1)
}
