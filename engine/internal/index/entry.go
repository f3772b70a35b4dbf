package index

import (
	"sync/atomic"

	"rskv/engine/internal/record"
)

// An entry is one word:
//
//	bit      63  tentative: its creator has not yet looked whether it is alone
//	bits 48..62  tag
//	bit      47  reserved for the read cache: the address is one of its own
//	bits  0..46  address of the newest record of the chain
//
// The word 0 is a free place. A live entry is never 0, since its address is not.
const (
	addrMask  = 1<<47 - 1
	tagShift  = 48
	tagBits   = 15
	tagMask   = 1<<tagBits - 1
	tentative = 1 << 63
)

// Creating is the address in the entry of a chain that has no record yet.
const Creating record.Addr = 1

// Address is the address of the chain's newest record. Below record.FirstAddr
// the chain is empty.
func Address(entry uint64) record.Addr { return record.Addr(entry & addrMask) }

// WithAddress is the entry of the same chain with another newest record.
func WithAddress(entry uint64, addr record.Addr) uint64 {
	return entry&^(1<<tagShift-1) | uint64(addr)
}

// Load reads the entry in slot anew, for the next attempt after a failed CAS or
// for an operation whose earlier Find was a hint. It may have become 0.
func Load(slot *uint64) uint64 { return atomic.LoadUint64(slot) }

// CAS makes addr the newest record of the chain if its entry still is the word
// entry, and reports whether it did. The record must be complete: others follow
// the address from here on.
func CAS(slot *uint64, entry uint64, addr record.Addr) bool {
	return atomic.CompareAndSwapUint64(slot, entry, WithAddress(entry, addr))
}
