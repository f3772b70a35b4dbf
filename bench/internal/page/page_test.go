package page

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/bench/internal/measure"
)

// A page that loads anything from elsewhere shows nothing on a machine without a
// network, and what stands in a report must not become part of the page.
func TestWrite(t *testing.T) {
	x := func(v float64) *float64 { return &v }
	rates := []float64{10, 11, 12}
	row := func(r measure.Row) *measure.Row {
		if r.Missing == "" {
			r.Rates, r.Rate = rates, measure.SpreadOf(rates)
		}
		r.Unit = "k/s"
		return &r
	}
	r := &measure.Report{Date: time.Unix(1e9, 0).UTC(), Command: []string{"rskv-bench", "<script>alert(1)</script>"}, Commit: "abcdef0123456789", Rows: []*measure.Row{
		row(measure.Row{Group: "scaling", Name: "1 thread", Line: "get", X: x(1), Efficiency: x(1)}),
		row(measure.Row{Group: "scaling", Name: "2 threads", Line: "get", X: x(2), Efficiency: x(0.9), Over: []float64{1, 2, 3, 4, 5, 6}}),
		row(measure.Row{Group: "peers", Name: "ours <b>", P50: x(3), P99: x(9), Target: x(20), Curve: []measure.Point{{Percentile: 50, Micros: 3}, {Percentile: 99, Micros: 9}},
			Peers: []measure.Peer{{Name: "get, xsync", Ratio: measure.SpreadOf([]float64{2, 3}), Target: 2}}}),
		row(measure.Row{Group: "peers", Name: "gone", Missing: "not installed"}),
	}}
	e, err := measure.NewEntry(r, "faster & better")
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, Write(&out, []*measure.Report{r}, []*measure.Entry{e}))
	page := out.String()
	for _, want := range []string{"scaling", "ours &lt;b&gt;", "not measured: not installed", "20 missed", "90.0 %", "2.50 x get, xsync", "abcdef0123456789",
		"latency by percentile", "rate in the last round", "times the peer", "faster &amp; better", "&lt;script&gt;"} {
		require.True(t, strings.Contains(page, want), "the page lacks %q", want)
	}
	require.GreaterOrEqual(t, strings.Count(page, "<svg"), 6)
	require.NotContains(t, page, "<script")
	require.NotContains(t, page, "http")
	require.NotContains(t, page, "src=")
	require.NotContains(t, page, "NaN")
}
