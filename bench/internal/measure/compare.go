package measure

import (
	"math"
	"slices"
)

// Change is one row of two reports.
type Change struct {
	Group, Name, Unit string
	Old, New          Spread
	Ratio             float64 // of the medians, new to old
	P                 float64 // how likely such a difference is if nothing has changed
	Rounds            [2]int
}

// Alpha is the P below which a change is called one, as benchstat has it.
const Alpha = 0.05

// Significant reports whether the change is more than noise.
func (c *Change) Significant() bool { return c.P < Alpha }

// Compare finds the rows that two reports share, in the order of the new one.
func Compare(old, now *Report) []Change {
	type key struct{ group, name string }
	before := map[key]*Row{}
	for _, r := range old.Rows {
		before[key{r.Group, r.Name}] = r
	}
	var list []Change
	for _, r := range now.Rows {
		o := before[key{r.Group, r.Name}]
		if o == nil || len(o.Rates) == 0 || len(r.Rates) == 0 || o.Unit != r.Unit {
			continue
		}
		c := Change{
			Group: r.Group, Name: r.Name, Unit: r.Unit, Old: SpreadOf(o.Rates), New: SpreadOf(r.Rates),
			P: MannWhitney(o.Rates, r.Rates), Rounds: [2]int{len(o.Rates), len(r.Rates)},
		}
		if c.Old.Median > 0 {
			c.Ratio = c.New.Median / c.Old.Median
		}
		list = append(list, c)
	}
	return list
}

// exactMax is how many figures both sides together may have for the exact
// distribution to be counted out.
const exactMax = 40

// MannWhitney is the two-sided p-value of the rank-sum test (Mann and Whitney,
// 1947): how likely two samples from the same population differ that much, with
// nothing supposed about its shape. It counts the distribution out for samples
// without ties, and takes the normal approximation with the correction for ties
// otherwise. Less than one figure on a side says nothing: 1.
func MannWhitney(a, b []float64) float64 {
	if len(a) == 0 || len(b) == 0 {
		return 1
	}
	u, ties := rankSum(a, b)
	n, m := float64(len(a)), float64(len(b))
	if ties == 0 && len(a)+len(b) <= exactMax {
		return exactP(int(math.Min(u, n*m-u)), len(a), len(b))
	}
	all := n + m
	variance := n * m / 12 * (all + 1 - ties/(all*(all-1)))
	if variance <= 0 {
		return 1 // all figures are the same
	}
	z := (math.Abs(u-n*m/2) - 0.5) / math.Sqrt(variance)
	return math.Min(1, math.Erfc(math.Max(z, 0)/math.Sqrt2))
}

// rankSum returns U of a, and the sum of t^3-t over groups of t equal figures.
func rankSum(a, b []float64) (u, ties float64) {
	all := slices.Sorted(slices.Values(append(slices.Clone(a), b...)))
	rank := map[float64]float64{}
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j] == all[i] {
			j++
		}
		rank[all[i]] = float64(i+j+1) / 2 // the mean of ranks i+1 to j
		t := float64(j - i)
		ties += t*t*t - t
		i = j
	}
	for _, x := range a {
		u += rank[x]
	}
	return u - float64(len(a)*(len(a)+1))/2, ties
}

// exactP is the share of the arrangements of n and m figures whose U is at most u
// or, on the other side, at least n*m-u.
func exactP(u, n, m int) float64 {
	// ways[k][s] is the number of ways to choose k of the figures seen so far with
	// a sum s of places, which is U counted from the least possible.
	most := n * m
	ways := make([][]float64, n+1)
	for k := range ways {
		ways[k] = make([]float64, most+1)
	}
	ways[0][0] = 1
	for place := 1; place <= n+m; place++ {
		for k := min(place, n); k >= 1; k-- {
			// The k-th chosen figure at this place has place-k of the others below it.
			below := place - k
			if below > m {
				continue
			}
			for s := most; s >= below; s-- {
				ways[k][s] += ways[k-1][s-below]
			}
		}
	}
	sum, tail := 0.0, 0.0
	for s, w := range ways[n] {
		sum += w
		if s <= u {
			tail += w
		}
	}
	return math.Min(1, 2*tail/sum)
}
