package measure

import (
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// extent is where something lies in memory.
type extent struct {
	from, until uintptr
	apart       bool // it is to be alone
}

// extentOf is where the elements of a slice lie.
func extentOf[T any](s []T, apart bool) extent {
	from := uintptr(unsafe.Pointer(unsafe.SliceData(s)))
	return extent{from, from + uintptr(len(s))*unsafe.Sizeof(*new(T)), apart}
}

// What shares a line with what another goroutine writes, or lies on the next, loses half
// of its rate to it, and no other test would notice.
func TestApart_Alone(t *testing.T) {
	type odd [3]byte
	type wide [3000]byte
	var kept []any // so that nothing is freed, and its place given to another
	var all []extent
	add := func(e extent, what any) { all, kept = append(all, e), append(kept, what) }
	for range 50 {
		bytes, words, odds, wides := Apart[byte](8), Apart[uint64](32), Apart[odd](5), Apart[wide](2)
		plain, times := make([]byte, 8), NewTimes()
		add(extentOf(bytes, true), bytes)
		add(extentOf(plain, false), plain)
		add(extentOf(words, true), words)
		add(extentOf(odds, true), odds)
		add(extentOf(wides, true), wides)
		from := uintptr(unsafe.Pointer(times))
		add(extent{from, from + unsafe.Sizeof(*times), true}, times)
	}
	slices.SortFunc(all, func(a, b extent) int { return int(a.from) - int(b.from) })
	for i, e := range all[1:] {
		if before := all[i]; e.apart || before.apart {
			require.GreaterOrEqual(t, e.from, before.until+apartBytes, "%v and %v", before, e)
		}
	}
	runtime.KeepAlive(kept)
}

// Who appends to it must get other memory, not what keeps it apart.
func TestApart_Bounds(t *testing.T) {
	for _, n := range []int{0, 1, 7, 5000} {
		s := Apart[uint32](n)
		require.Len(t, s, n)
		require.Equal(t, n, cap(s))
		require.Equal(t, make([]uint32, n), s)
		require.Len(t, Apart[struct{}](n), n, "elements without a size")
	}
}
