package record

import (
	"sync/atomic"
	"unsafe"
)

// CopyOut copies n bytes of a possibly changing record to private memory. The
// source is 8-byte aligned and readable up to the next multiple of 8 (records
// are padded). What was copied counts only if word 1 is the same, and unlocked,
// before and after.
func CopyOut(dst, src unsafe.Pointer, n int) {
	if n > wordCopyMax {
		moveOut(dst, src, n)
		return
	}
	wordsOut(dst, src, n)
}

// CopyIn copies n private bytes into a record whose latch the caller holds. The
// destination is 8-byte aligned and writable up to the next multiple of 8; the
// bytes behind the n-th up to there become zero.
func CopyIn(dst, src unsafe.Pointer, n int) {
	if n > wordCopyMax {
		// The last word first: it also zeroes the padding.
		if r := n & 7; r != 0 {
			wordsIn(unsafe.Add(dst, n-r), unsafe.Add(src, n-r), r)
			n -= r
		}
		moveIn(dst, src, n)
		return
	}
	wordsIn(dst, src, n)
}

func wordsOut(dst, src unsafe.Pointer, n int) {
	i := 0
	for ; i+8 <= n; i += 8 {
		*(*uint64)(unsafe.Add(dst, i)) = atomic.LoadUint64((*uint64)(unsafe.Add(src, i)))
	}
	if i < n {
		w := atomic.LoadUint64((*uint64)(unsafe.Add(src, i)))
		for ; i < n; i++ {
			*(*byte)(unsafe.Add(dst, i)) = byte(w)
			w >>= 8
		}
	}
}

func wordsIn(dst, src unsafe.Pointer, n int) {
	i := 0
	for ; i+8 <= n; i += 8 {
		storeWord(unsafe.Add(dst, i), *(*uint64)(unsafe.Add(src, i)))
	}
	if i < n {
		var w uint64
		for j := n - 1; j >= i; j-- {
			w = w<<8 | uint64(*(*byte)(unsafe.Add(src, j)))
		}
		storeWord(unsafe.Add(dst, i), w)
	}
}
