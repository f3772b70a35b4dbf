package record

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// benchPage is how many bytes of records are checked before the first again: a page
// of the log.
const benchPage = 1 << 20

// benchRecords runs fn over records side by side in a page, of a header, a key of
// 8 B and a value, all of them sealed.
func benchRecords(b *testing.B, fn func(b *testing.B, page []byte, size int)) {
	for _, value := range []int{8, 72, 1000} {
		w0, w1 := Word0(0, 8), Word1(Value, value, 0)
		size := Size(w0, w1)
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			page := memory(benchPage)
			for at := 0; at+size <= len(page); at += size {
				p := pointer(page[at:])
				Write(p, w0, w1, make([]byte, 8), make([]byte, value))
				StoreHeader(p, w0, w1)
				Seal(p, 1, Addr(at/Unit))
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			fn(b, page, size)
		})
	}
}

func BenchmarkSeal(b *testing.B) {
	benchRecords(b, func(b *testing.B, page []byte, size int) {
		at := 0
		for b.Loop() {
			Seal(pointer(page[at:]), 1, Addr(at/Unit))
			if at += size; at+size > len(page) {
				at = 0
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	benchRecords(b, func(b *testing.B, page []byte, size int) {
		at := 0
		for b.Loop() {
			if _, _, ok := Verify(page[at:], 1, Addr(at/Unit)); !ok {
				require.True(b, ok, "the record at %d", at)
			}
			if at += size; at+size > len(page) {
				at = 0
			}
		}
	})
}

func BenchmarkVerifyRun(b *testing.B) {
	benchRecords(b, func(b *testing.B, page []byte, size int) {
		ends := make([]uint32, len(page)/size)
		for i := 0; i < b.N; i += len(ends) {
			if n := VerifyRun(page, 1, 0, ends); n != len(ends) {
				b.Fatal(n)
			}
		}
	})
}
