package measure

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/ioring/iotest/seeds"
)

// A p-value that is too small calls noise a regression, one too large hides it.
// The first ones can be counted by hand: 2 of the 252 arrangements of five and
// five figures are as extreme, 2 of the 20 of three and three.
func TestMannWhitney(t *testing.T) {
	for _, c := range []struct {
		a, b []float64
		want float64
	}{
		{[]float64{1, 2, 3, 4, 5}, []float64{6, 7, 8, 9, 10}, 0.007936508},
		{[]float64{1, 2, 3}, []float64{4, 5, 6}, 0.1},
		{[]float64{1, 3, 5, 7, 9}, []float64{2, 4, 6, 8, 10}, 0.6904762},
		{[]float64{1}, []float64{2}, 1},
		{[]float64{0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46}, []float64{1.15, 0.88, 0.90, 0.74, 1.21}, 0.2544123},
		{[]float64{5, 5, 5}, []float64{5, 5, 5}, 1},
		{nil, []float64{1}, 1},
	} {
		require.InDelta(t, c.want, MannWhitney(c.a, c.b), 1e-6, "%v %v", c.a, c.b)
		require.InDelta(t, c.want, MannWhitney(c.b, c.a), 1e-6, "the sides may change places")
	}
	// With ties, by hand: U = 1, ties 36, variance 21.91, z = 11/4.681 = 2.3408 after
	// the correction for continuity.
	require.InDelta(t, 0.0192436, MannWhitney([]float64{1, 2, 2, 3, 3}, []float64{3, 4, 5, 5, 6}), 1e-6)
}

// Where nothing has changed, one comparison in twenty may be called a change.
func TestMannWhitney_FalseAlarms(t *testing.T) {
	seed := seeds.New(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	alarms := 0
	const runs = 4000
	for range runs {
		a, b := make([]float64, 5), make([]float64, 7)
		for i := range a {
			a[i] = rng.ExpFloat64()
		}
		for i := range b {
			b[i] = rng.ExpFloat64()
		}
		if MannWhitney(a, b) < Alpha {
			alarms++
		}
	}
	require.Less(t, alarms, runs*7/100)
	require.Greater(t, alarms, runs*2/100)
}

// Rows that are not the same thing must not be compared.
func TestCompare(t *testing.T) {
	row := func(group, name, unit string, rates ...float64) *Row {
		return &Row{Group: group, Name: name, Unit: unit, Rates: rates}
	}
	old := &Report{Rows: []*Row{row("g", "a", "k/s", 1, 2, 3, 4, 5), row("g", "gone", "k/s", 1), row("h", "b", "k/s", 1, 2, 3), row("g", "c", "k/s")}}
	now := &Report{Rows: []*Row{row("g", "new", "k/s", 1), row("g", "a", "k/s", 6, 7, 8, 9, 10), row("h", "b", "M/s", 1, 2, 3), row("g", "c", "k/s", 1)}}
	list := Compare(old, now)
	require.Len(t, list, 1)
	require.Equal(t, "a", list[0].Name)
	require.InDelta(t, 8.0/3, list[0].Ratio, 1e-9)
	require.True(t, list[0].Significant())
}

// A trend that loses a line, or takes one without a claim, proves nothing.
func TestTrend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trend.jsonl")
	list, err := ReadTrend(path)
	require.NoError(t, err)
	require.Empty(t, list)
	r := &Report{Commit: "abc", Rows: []*Row{{Group: "g", Name: "a", Unit: "k/s", Rates: []float64{1, 2, 3}}, {Group: "g", Name: "none"}}}
	for _, claim := range []string{"first", "second"} {
		e, err := NewEntry(r, claim)
		require.NoError(t, err)
		require.NoError(t, AppendTrend(path, e))
	}
	list, err = ReadTrend(path)
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, "second", list[1].Claim)
	require.Len(t, list[1].Rows, 1)
	changes := Compare(list[0].Report(), r)
	require.Len(t, changes, 1)
	require.False(t, changes[0].Significant())
	_, err = NewEntry(r, "")
	require.Error(t, err)
	_, err = NewEntry(&Report{Rows: r.Rows}, "no commit")
	require.Error(t, err)
	_, err = NewEntry(&Report{Commit: "abc"}, "no rows")
	require.Error(t, err)
	require.NoError(t, os.WriteFile(path, []byte("{\n"), 0o644))
	_, err = ReadTrend(path)
	require.ErrorContains(t, err, ":1:")
}
