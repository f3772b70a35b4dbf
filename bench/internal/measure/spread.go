package measure

import (
	"math"
	"slices"
)

// Spread is what several rounds of one measurement gave.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

// SpreadOf sums up figures. Of an even number it takes the mean of the middle
// two as the median; of none it is the zero Spread.
func SpreadOf(figures []float64) Spread {
	n := len(figures)
	if n == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(figures))
	return Spread{
		Median: (sorted[(n-1)/2] + sorted[n/2]) / 2,
		Min:    sorted[0],
		Max:    sorted[n-1],
		N:      n,
	}
}

// Ratios divides a by b round by round. A round that one of them lacks, or in
// which b is zero, is left out.
func Ratios(a, b []float64) []float64 {
	var out []float64
	for i := range min(len(a), len(b)) {
		if b[i] != 0 {
			out = append(out, a[i]/b[i])
		}
	}
	return out
}

// MedianWithin returns between which of the figures the median of all that could have
// been measured lies, with 95 % of certainty, whatever their distribution: the order
// statistics around the middle, by the normal approximation of the sign test. Of
// fewer than ten figures it says nothing.
func MedianWithin(figures []float64) (low, high float64, ok bool) {
	n := len(figures)
	if n < 10 {
		return 0, 0, false
	}
	sorted := slices.Sorted(slices.Values(figures))
	from := int(math.Floor((float64(n) - 1.96*math.Sqrt(float64(n))) / 2))
	return sorted[max(from, 0)], sorted[n-1-max(from, 0)], true
}
