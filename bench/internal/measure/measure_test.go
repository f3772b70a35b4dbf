package measure

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A median of the wrong element makes every figure of the report wrong.
func TestSpreadOf(t *testing.T) {
	require.Equal(t, Spread{}, SpreadOf(nil))
	require.Equal(t, Spread{Median: 4, Min: 4, Max: 4, N: 1}, SpreadOf([]float64{4}))
	require.Equal(t, Spread{Median: 3, Min: 1, Max: 9, N: 5}, SpreadOf([]float64{9, 1, 3, 2, 5}))
	require.Equal(t, Spread{Median: 2.5, Min: 1, Max: 9, N: 4}, SpreadOf([]float64{9, 1, 3, 2}))
	figures := []float64{3, 1, 2}
	SpreadOf(figures)
	require.Equal(t, []float64{3, 1, 2}, figures, "the rounds stay in their order")
}

// Division by a peer's empty round would put infinity into the report.
func TestRatios(t *testing.T) {
	require.Equal(t, []float64{2, 3}, Ratios([]float64{4, 1, 9, 7}, []float64{2, 0, 3}))
}

// A drift of the machine must meet all contenders alike, and the end of one
// must not be the end of the others.
func TestInterleave_OrderAndErrors(t *testing.T) {
	var order string
	contender := func(name string, fails int, err error) Contender {
		runs := 0
		return Contender{&Row{Name: name, Scale: 1}, func(context.Context, time.Duration) (Sample, error) {
			order += name
			if runs++; runs == fails {
				return Sample{}, err
			}
			return Sample{Ops: 10, Elapsed: time.Second}, nil
		}}
	}
	wrong := fmt.Errorf("key 7: %w", ErrWrong)
	cs := []Contender{contender("a", 0, nil), contender("b", 2, errors.New("gone")), contender("c", 1, wrong)}
	require.NoError(t, Interleave(t.Context(), 3, time.Millisecond, cs, nil))
	require.Equal(t, "abc"+"ba"+"a", order)
	require.Equal(t, []float64{10, 10, 10}, cs[0].Row.Rates)
	require.Equal(t, "gone", cs[1].Row.Missing)
	require.Empty(t, cs[1].Row.Failed)
	require.Equal(t, "key 7: wrong answer", cs[2].Row.Failed)
}

// An interrupted run must stop, not report half a round.
func TestInterleave_ContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	row := &Row{Scale: 1}
	err := Interleave(ctx, 5, time.Millisecond, []Contender{{row, func(context.Context, time.Duration) (Sample, error) {
		cancel()
		return Sample{Ops: 1, Elapsed: 1}, nil
	}}}, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, row.Rates)
}

// "Met" by a figure that is not there, or held against the wrong one, is a lie.
func TestRow_Met(t *testing.T) {
	target := 2.0
	peer := &Row{Name: "peer", Rates: []float64{10, 10, 10}}
	for _, c := range []struct {
		name       string
		rates      []float64
		peer       *Row
		met, known bool
	}{
		{"ratio reached", []float64{19, 20, 30}, peer, true, true},
		{"ratio missed", []float64{19, 19, 30}, peer, false, true},
		{"rate reached", []float64{2, 2, 1}, nil, true, true},
		{"rate missed", []float64{2, 1, 1}, nil, false, true},
		{"no figure", nil, peer, false, false},
		{"no peer's figure", []float64{50}, &Row{Name: "peer"}, false, false},
	} {
		r := &Row{Rates: c.rates, Target: &target}
		r.Finish(c.peer)
		met, known := r.Met()
		require.Equal(t, c.met, met, c.name)
		require.Equal(t, c.known, known, c.name)
	}
}

// A figure from a machine that was busy with something else must say so.
func TestRow_Starved(t *testing.T) {
	for _, c := range []struct {
		cpu  time.Duration
		want int // notes
	}{{2 * time.Second, 0}, {1900 * time.Millisecond, 0}, {time.Second, 1}, {0, 0}} {
		r := &Row{Scale: 1, Threads: 2}
		r.add(Sample{Ops: 10, Elapsed: time.Second, CPU: c.cpu})
		r.Finish(nil)
		require.Len(t, r.Notes, c.want, "%v: %q", c.cpu, r.Notes)
	}
}

// The name of a process may hold anything.
func TestParseStat(t *testing.T) {
	line := "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0\n"
	require.Equal(t, 3*time.Second, parseStat([]byte(line)))
	require.Zero(t, parseStat([]byte("42 (short) S 1")))
	require.Zero(t, parseStat(nil))
}

// A report must say what is missing or wrong, in the table and for programs.
func TestReport_Writes(t *testing.T) {
	target := 2.0
	peer := &Row{Group: "socket", Name: "get, redis", Setting: "P=128", Unit: "k/s", Scale: 1000}
	ours := &Row{Group: "socket", Name: "get, rskvd", Setting: "P=128", Unit: "k/s", Scale: 1000, Target: &target}
	for range 3 {
		peer.add(Sample{Ops: 1000, Elapsed: time.Second})
		ours.add(Sample{Ops: 3000, Reads: 3000, Hits: 1500, Elapsed: time.Second, CPU: 3 * time.Millisecond})
	}
	peer.Finish(nil)
	ours.Finish(peer)
	gone := &Row{Group: "disk", Name: "fio", Missing: "fio is not installed"}
	bad := &Row{Group: "disk", Name: "cold", Failed: "key 7: wrong answer"}
	r := NewReport(3)
	r.Rows = []*Row{peer, ours, gone, bad}
	require.True(t, r.Failed())

	var text bytes.Buffer
	require.NoError(t, r.WriteTable(&text))
	for _, want := range []string{"3.00 [3.00-3.00]", "2 met", "50%", "1.00 us", "fio: not measured: fio is not installed", "cold: FAILED: key 7"} {
		require.Contains(t, text.String(), want)
	}
	var doc bytes.Buffer
	require.NoError(t, r.WriteJSON(&doc))
	var back Report
	require.NoError(t, json.Unmarshal(doc.Bytes(), &back))
	require.Equal(t, []float64{3, 3, 3}, back.Rows[1].Rates)
	require.InDelta(t, 3, back.Rows[1].Ratio.Median, 1e-9)
}

// TestMedianWithin: the median of what is drawn from lies outside more often than it
// may, or the bounds are so wide that it never does.
func TestMedianWithin(t *testing.T) {
	_, _, ok := MedianWithin(make([]float64, 9))
	require.False(t, ok)
	rng := rand.New(rand.NewPCG(1, 2))
	const tries = 2000
	outside := 0
	for range tries {
		figures := make([]float64, 60)
		for i := range figures {
			figures[i] = rng.ExpFloat64()
		}
		low, high, ok := MedianWithin(figures)
		require.True(t, ok)
		require.LessOrEqual(t, low, SpreadOf(figures).Median)
		require.GreaterOrEqual(t, high, SpreadOf(figures).Median)
		if low > math.Ln2 || high < math.Ln2 {
			outside++
		}
	}
	require.Less(t, outside, tries/15)
	require.Greater(t, outside, tries/100)
}

// TestProcessCPU: a process's own time as others see it is not what it sees.
func TestProcessCPU(t *testing.T) {
	for begin := SelfCPU(); SelfCPU() < begin+50*time.Millisecond; {
	}
	before := SelfCPU()
	seen := ProcessCPU(os.Getpid())
	if seen == 0 {
		t.Skip("this system does not tell of another process's processor time")
	}
	require.GreaterOrEqual(t, seen+tick, before)
	require.LessOrEqual(t, seen, SelfCPU()+tick)
}
