package draw

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// A skewed "uniform" load measures the processor's cache instead of the store.
func TestUniform_EveryKeyAlike(t *testing.T) {
	const n, draws = 100, 1_000_000
	counts := histogram(t, NewUniform(n, 1), n, draws)
	for key, c := range counts {
		// The standard deviation is 100; six of them do not happen.
		require.InDelta(t, draws/n, c, 600, "key %d", key)
	}
}

// A zipf whose head is too light or too heavy makes figures that cannot be
// compared with anybody's.
func TestZipf_Weights(t *testing.T) {
	const n, draws, theta = 1000, 1_000_000, 0.99
	z := NewZipf(n, theta, 7)
	counts := make([]float64, n)
	for range draws {
		counts[z.rank()]++
	}
	sum := 0.0
	for i := 1; i <= n; i++ {
		sum += math.Pow(float64(i), -theta)
	}
	// Ranks 0 and 1 are exact; the others come from a curve laid through them.
	for rank, tolerance := range map[int]float64{0: 0.02, 1: 0.02, 9: 0.2, 99: 0.2} {
		want := draws * math.Pow(float64(rank+1), -theta) / sum
		require.InEpsilon(t, want, counts[rank], tolerance, "rank %d", rank)
	}
}

// Hot keys in a row share cache lines and flatter the store.
func TestZipf_HotKeysAreScattered(t *testing.T) {
	const n = 10_000
	counts := histogram(t, NewZipf(n, 0.99, 3), n, 200_000)
	var hot []int
	for key, c := range counts {
		if c > 1000 {
			hot = append(hot, key)
		}
	}
	require.Greater(t, len(hot), 5)
	neighbours := 0
	for i := 1; i < len(hot); i++ {
		if hot[i]-hot[i-1] == 1 {
			neighbours++
		}
	}
	// By chance there may be one such pair, unscattered all of them would be.
	require.LessOrEqual(t, neighbours, 1)
	require.Greater(t, hot[len(hot)-1]-hot[0], n/2)
}

// Two goroutines with the same draws would warm the cache for each other.
func TestZipf_ReseededDiffers(t *testing.T) {
	z := NewZipf(1000, 0.99, 1)
	var a, b, again [64]uint64
	z.Reseeded(5).Fill(a[:])
	z.Reseeded(6).Fill(b[:])
	z.Reseeded(5).Fill(again[:])
	require.NotEqual(t, a, b)
	require.Equal(t, a, again)
}

// An off-by-one at the wrap would read past the table or skip a number.
func TestReplay_Wraps(t *testing.T) {
	var want, got [12]uint64
	NewUniform(50, 9).Fill(want[:5])
	copy(want[5:], want[:5])
	copy(want[10:], want[:2])
	r := NewReplay(NewUniform(50, 9), 5)
	r.Fill(got[:3])
	r.Fill(got[3:])
	require.Equal(t, want, got)
}

func histogram(t *testing.T, s Source, n, draws int) []int {
	t.Helper()
	counts := make([]int, n)
	buf := make([]uint64, 1000)
	for drawn := 0; drawn < draws; drawn += len(buf) {
		s.Fill(buf)
		for _, x := range buf {
			if x >= uint64(n) {
				t.Fatalf("drew %d of %d keys", x, n)
			}
			counts[x]++
		}
	}
	return counts
}

// A number left out or given twice would be a block never read, or read in the
// place of another.
func TestShuffle_EveryNumberOnce(t *testing.T) {
	for _, n := range []uint64{1, 2, 3, 4, 5, 17, 1000, 4096, 65537} {
		s, seen, moved := NewShuffle(n, n+7), make([]bool, n), uint64(0)
		for i := range n {
			x := s.At(i)
			require.Less(t, x, n)
			require.False(t, seen[x], "%d of %d came twice", x, n)
			seen[x] = true
			if i > 0 && x != s.At(i-1)+1 {
				moved++
			}
		}
		if n > 100 {
			require.Greater(t, moved, n*9/10, "neighbours of %d stay neighbours", n)
		}
	}
}

// YCSB's own numbers are what others are compared by: its hottest key has one in
// 26.47 of the draws, and all keys are below n.
func TestScrambled_LikeYCSB(t *testing.T) {
	const n, draws = 1000, 400_000
	counts := histogram(t, NewScrambled(n, 5), n, draws)
	hottest := 0
	for _, c := range counts {
		hottest = max(hottest, c)
	}
	// Other ranks land on the same key, about one in a thousand of them.
	require.InEpsilon(t, draws/26.469, float64(hottest), 0.06)
}
