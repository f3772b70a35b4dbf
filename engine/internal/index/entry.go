package index

import (
	"sync/atomic"

	"rskv/engine/internal/record"
)

// An entry is one word:
//
//	bit      63  tentative: its creator has not yet looked whether it is alone
//	bits 48..62  tag
//	bit      47  moving: a copy of it is made in another row. Its address may be
//	             followed, the word is not changed but to 0
//	bits  0..46  address of the newest record of the chain; in a tentative entry
//	             anything
//
// The word 0 is a free place. A live entry is never 0, since its address is not.
const (
	addrMask  = 1<<47 - 1
	moving    = 1 << 47
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

// Is reports whether the word in a slot that Find gave still is entry. If so, the
// entry is what Find would return now, even while the table grows: one that is on
// its way to another row is marked.
func Is(slot *uint64, entry uint64) bool { return atomic.LoadUint64(slot) == entry }

// CAS makes addr the newest record of the chain if its entry still is the word
// entry, and reports whether it did. The record must be complete: others follow
// the address from here on. If not, the chain has changed or its entry moves to
// another place, and the caller looks it up again.
func CAS(slot *uint64, entry uint64, addr record.Addr) bool {
	return atomic.CompareAndSwapUint64(slot, entry, WithAddress(entry, addr))
}
