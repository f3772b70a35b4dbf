package measure

import "reflect"

// apartBytes is how far from everything else Apart keeps what it returns. Lines are
// fetched in pairs, and who reads several in a row has those behind them fetched too.
const apartBytes = 1 << 10

// Apart returns n zeroed elements that lie at least 1 KiB from whatever else the program
// has, for what one goroutine of several writes all the time. Made one after the other,
// such things lie on the same lines or on neighbouring ones, and the processors take
// these from each other: of two goroutines, each with its own batches, that cost up to
// half of the rate, more where the machine's processors are far from each other.
func Apart[T any](n int) []T {
	size := max(int(reflect.TypeFor[T]().Size()), 1)
	pad := (apartBytes + size - 1) / size // of bytes so many that they begin on a line
	all := make([]T, pad+n+pad)
	return all[pad : pad+n : pad+n]
}
