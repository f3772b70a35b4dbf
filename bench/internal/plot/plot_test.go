package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// wellFormed fails if a browser could not read the drawing.
func wellFormed(t *testing.T, svg string) {
	t.Helper()
	require.NotContains(t, svg, "NaN")
	require.NotContains(t, svg, "Inf")
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%v in %s", err, svg)
		}
	}
}

// A drawing with NaN in it is blank; names come from files and may hold anything.
func TestChart_SVG(t *testing.T) {
	c := Chart{Title: `a <b> & "c"`, X: "x", Y: "y", Lines: []Line{
		{"one </svg>", []Point{{1, 5}, {2, 7}, {32, 6}}}, {"flat", []Point{{1, 5}, {2, 5}}}, {"empty", nil},
	}}
	for _, logs := range [][2]bool{{false, false}, {true, false}, {false, true}, {true, true}} {
		c.LogX, c.LogY = logs[0], logs[1]
		svg := c.SVG()
		wellFormed(t, svg)
		require.Contains(t, svg, "one &lt;/svg&gt;")
		require.Equal(t, 1, strings.Count(svg, "</svg>"))
	}
	require.Empty(t, (&Chart{}).SVG())
	require.Empty(t, (&Chart{Lines: []Line{{"p", []Point{{1, 1}}}}}).SVG())
	require.Empty(t, (&Chart{LogY: true, Lines: []Line{{"p", []Point{{1, 0}, {2, 0}}}}}).SVG())
	zero := Chart{LogX: true, LogY: true, Lines: []Line{{"p", []Point{{0, 1}, {1, 0}, {2, 3}, {3, 3}}}}}
	wellFormed(t, zero.SVG())
}

// A bar of the wrong length lies.
func TestBars_SVG(t *testing.T) {
	b := Bars{Title: "t", Unit: "k/s", List: []Bar{{Name: "a", Value: 100, Min: 90, Max: 110}, {Name: "b", Value: 55, Target: 80, Colour: 9}, {Name: "none"}}}
	wellFormed(t, b.SVG())
	require.Contains(t, b.SVG(), `width="390.9"`, "100 of 110 over 430 px")
	b.Log = true
	wellFormed(t, b.SVG())
	require.Empty(t, (&Bars{}).SVG())
	require.Empty(t, (&Bars{List: []Bar{{Name: "x"}}}).SVG())
}

// Ticks outside the axis are drawn over its neighbours; too many cannot be read.
func TestAxis_Ticks(t *testing.T) {
	for _, values := range [][]float64{{0, 1}, {0, 1234567}, {3, 3.0001}, {0.001, 0.002}, {1, 1e9}} {
		for _, log := range []bool{false, true} {
			if log && values[0] == 0 {
				continue
			}
			a := newAxis(values, log, 0, 100)
			ticks := a.ticks()
			require.LessOrEqual(t, len(ticks), 12, "%v %v", values, ticks)
			for _, x := range ticks {
				require.False(t, math.IsNaN(a.at(x)))
				require.InDelta(t, 50, a.at(x), 51, "%v %v", values, ticks)
			}
		}
	}
}

func TestNumber(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 0.125: "0.125", 12.34: "12.3", 999.9: "1000", 1234: "1234", 12345: "12.3 k", 2.5e6: "2.5 M", 3e9: "3.0e+09"} {
		require.Equal(t, want, number(x))
	}
	require.Equal(t, "abc", shorten("abc", 5))
	require.Len(t, shorten(strings.Repeat("x", 50), 20), 20)
}
