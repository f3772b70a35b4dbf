//go:build amd64 && !race

package record

import "unsafe"

// wordCopyMax is the longest copy, in bytes, made word by word with sync/atomic;
// longer ones are memmove under the sequence word. On amd64 memmove never
// invents values, and a copy that raced with a writer is thrown away, so the
// second load of word 1 is all the protection it needs. Measured: at 1 KiB
// memmove reads 1.3 times and writes 1.6-2.1 times as fast.
const wordCopyMax = 128

// storeWord stores a word others may be reading. An amd64 processor makes stores
// visible in the order of the program, and the compiler keeps that order, so this
// publishes what was stored before it; sync/atomic would use an XCHG, which is
// ordered against later loads too, and costs as much as the rest of a small put.
// Nothing here relies on that: latches are taken by compare-and-swap.
func storeWord(p unsafe.Pointer, w uint64) { *(*uint64)(p) = w }

func moveOut(dst, src unsafe.Pointer, n int) {
	copy(unsafe.Slice((*byte)(dst), n), unsafe.Slice((*byte)(src), n))
}

func moveIn(dst, src unsafe.Pointer, n int) {
	copy(unsafe.Slice((*byte)(dst), n), unsafe.Slice((*byte)(src), n))
}
