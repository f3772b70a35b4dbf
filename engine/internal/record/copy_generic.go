//go:build !amd64 || race

package record

import (
	"sync/atomic"
	"unsafe"
)

// wordCopyMax: everything is copied in atomic words. Weaker memory models ask
// for it, and so does the race detector.
const wordCopyMax = 1 << 30

// storeWord stores a word others may be reading, after what was stored before.
func storeWord(p unsafe.Pointer, w uint64) { atomic.StoreUint64((*uint64)(p), w) }

func moveOut(dst, src unsafe.Pointer, n int) { wordsOut(dst, src, n) }
func moveIn(dst, src unsafe.Pointer, n int)  { wordsIn(dst, src, n) }
