//go:build !amd64 || race

package record

import "unsafe"

// wordCopyMax: everything is copied in atomic words. Weaker memory models ask
// for it, and so does the race detector.
const wordCopyMax = 1 << 30

func moveOut(dst, src unsafe.Pointer, n int) { wordsOut(dst, src, n) }
func moveIn(dst, src unsafe.Pointer, n int)  { wordsIn(dst, src, n) }
