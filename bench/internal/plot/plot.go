// Package plot draws what a report shows as inline SVG: no script, no network,
// nothing but text.
//
//	Chart  lines over an axis, each axis linear or logarithmic
//	Bars   one bar a row, with whiskers from the least to the most
//
// Colours and text sizes are classes of the page's style sheet (c0..c7, axis,
// grid, label), so that the page decides how it looks by day and by night.
package plot

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// Point is one point of a line.
type Point struct{ X, Y float64 }

// Line is one line of a chart, its points in ascending X.
type Line struct {
	Name   string
	Points []Point
}

// Chart is lines over two axes.
type Chart struct {
	Title, X, Y string
	LogX, LogY  bool
	Lines       []Line
	// Ticks names places on the X axis; nil: round numbers.
	Ticks []Tick
}

// Tick is a named place on an axis.
type Tick struct {
	At   float64
	Name string
}

// The size of a chart, and its margins, in px; Colours is how many classes of
// lines there are.
const (
	width, height  = 560, 300
	left, right    = 62, 26
	top, bottom    = 30, 44
	legendHeight   = 18
	legendPerRow   = 2
	Colours        = 8
	barHeight      = 20
	barNames       = 300 // px for the names of bars
	barValues      = 170 // px for their values
	charactersName = 46  // that fit into barNames
	characterWidth = 6.8 // px, about
)

// SVG draws the chart. A chart without two different points is empty text.
func (c *Chart) SVG() string {
	xs, ys := c.extent()
	if xs == nil {
		return ""
	}
	x := newAxis(xs, c.LogX, left, width-right)
	y := newAxis(ys, c.LogY, height-bottom, top)
	legendRows := (len(c.Lines) + legendPerRow - 1) / legendPerRow
	var b strings.Builder
	open(&b, width, height+legendRows*legendHeight, c.Title)
	text(&b, left, 18, "title", "start", c.Title)
	for _, t := range y.ticks() {
		line(&b, left, y.at(t), width-right, y.at(t), "grid")
		text(&b, left-6, y.at(t)+4, "label", "end", number(t))
	}
	ticks := c.Ticks
	if ticks == nil {
		for _, t := range x.ticks() {
			ticks = append(ticks, Tick{t, number(t)})
		}
	}
	last := math.Inf(-1)
	for _, t := range ticks {
		at := x.at(t.At)
		if at < left-1 || at > width-right+1 {
			continue
		}
		line(&b, at, top, at, height-bottom, "grid")
		if room := float64(len(t.Name)) * characterWidth; at-room/2 > last+4 {
			text(&b, at, height-bottom+16, "label", "middle", t.Name)
			last = at + room/2
		}
	}
	line(&b, left, height-bottom, width-right, height-bottom, "axis")
	line(&b, left, top, left, height-bottom, "axis")
	text(&b, (left+width-right)/2, height-bottom+34, "label", "middle", c.X)
	fmt.Fprintf(&b, `<text class="label" text-anchor="middle" transform="translate(13 %d) rotate(-90)">%s</text>`, (top+height-bottom)/2, html.EscapeString(c.Y))
	for i, l := range c.Lines {
		c.draw(&b, i, l, x, y)
	}
	b.WriteString("</svg>")
	return b.String()
}

// draw draws one line and its entry in the legend.
func (c *Chart) draw(b *strings.Builder, i int, l Line, x, y axis) {
	class := "c" + strconv.Itoa(i%Colours)
	var path strings.Builder
	for j, p := range l.Points {
		step := "L"
		if j == 0 {
			step = "M"
		}
		fmt.Fprintf(&path, "%s%.1f %.1f", step, x.at(p.X), y.at(p.Y))
	}
	fmt.Fprintf(b, `<path class="line %s" d="%s"/>`, class, path.String())
	if len(l.Points) <= 24 {
		for _, p := range l.Points {
			fmt.Fprintf(b, `<circle class="dot %s" cx="%.1f" cy="%.1f" r="3"><title>%s: %s, %s</title></circle>`, class,
				x.at(p.X), y.at(p.Y), html.EscapeString(l.Name), number(p.X), number(p.Y))
		}
	}
	column := (width - left - right) / legendPerRow
	lx, ly := left+float64(i%legendPerRow*column), float64(height+i/legendPerRow*legendHeight+4)
	fmt.Fprintf(b, `<rect class="fill %s" x="%.0f" y="%.0f" width="12" height="4"/>`, class, lx, ly)
	text(b, lx+18, ly+6, "label", "start", shorten(l.Name, 38))
}

// extent is what the axes have to show; nil if there is nothing to draw.
func (c *Chart) extent() (xs, ys []float64) {
	for _, l := range c.Lines {
		for _, p := range l.Points {
			if c.LogX && p.X <= 0 || c.LogY && p.Y <= 0 {
				continue
			}
			xs, ys = append(xs, p.X), append(ys, p.Y)
		}
	}
	if len(xs) < 2 {
		return nil, nil
	}
	if !c.LogY {
		ys = append(ys, 0)
	}
	return xs, ys
}

// axis turns values into places.
type axis struct {
	least, most float64 // of the values, as logarithms if log
	log         bool
	from, to    float64 // px
}

func newAxis(values []float64, log bool, from, to float64) axis {
	a := axis{least: math.Inf(1), most: math.Inf(-1), log: log, from: from, to: to}
	for _, v := range values {
		if log {
			v = math.Log10(v)
		}
		a.least, a.most = min(a.least, v), max(a.most, v)
	}
	switch {
	case a.least == a.most:
		a.least, a.most = a.least-0.5, a.most+0.5
	case !log && from > to: // room above the highest point
		a.most += (a.most - a.least) * 0.05
	}
	return a
}

// at is the place of a value; what a logarithm cannot show lies at the edge.
func (a axis) at(v float64) float64 {
	if a.log {
		v = math.Log10(max(v, math.Pow(10, a.least)))
	}
	return a.from + (v-a.least)/(a.most-a.least)*(a.to-a.from)
}

// ticks are round values, about five of them.
func (a axis) ticks() []float64 {
	var list []float64
	if a.log {
		steps := []float64{1, 2, 5}
		if a.most-a.least > 2 {
			steps = steps[:1]
		}
		skip := max(int(math.Ceil((a.most-a.least)/7)), 1)
		for e := math.Floor(a.least); e <= a.most; e += float64(skip) {
			for _, s := range steps {
				if v := math.Log10(s) + e; v >= a.least-1e-9 && v <= a.most+1e-9 {
					list = append(list, math.Pow(10, e)*s)
				}
			}
		}
		return list
	}
	step := math.Pow(10, math.Floor(math.Log10((a.most-a.least)/4)))
	for _, s := range []float64{1, 2, 5, 10} {
		if (a.most-a.least)/(step*s) <= 6 {
			step *= s
			break
		}
	}
	for v := math.Ceil(a.least/step) * step; v <= a.most; v += step {
		list = append(list, v)
	}
	return list
}

// Bar is one bar, with its spread.
type Bar struct {
	Name            string
	Value, Min, Max float64
	Text            string // behind the bar; "": the value
	Colour          int
	Target          float64 // a mark; 0: none
}

// Bars are bars from zero, or, with Log, from the least of them downwards a bit.
type Bars struct {
	Title, Unit string
	Log         bool
	List        []Bar
}

// SVG draws the bars; without any it is empty text.
func (c *Bars) SVG() string {
	if len(c.List) == 0 {
		return ""
	}
	const full = 900
	most, least := 0.0, math.Inf(1)
	for _, b := range c.List {
		most = max(most, b.Value, b.Max, b.Target)
		if b.Value > 0 {
			least = min(least, b.Value)
		}
	}
	if most == 0 {
		return ""
	}
	from, to := float64(barNames), float64(full-barValues)
	at := func(v float64) float64 { return from + v/most*(to-from) }
	if c.Log && least < most {
		low, high := math.Log10(least/2), math.Log10(most)
		at = func(v float64) float64 { return from + max(0, math.Log10(max(v, 1e-300))-low)/(high-low)*(to-from) }
	}
	var b strings.Builder
	open(&b, full, top+len(c.List)*barHeight+8, c.Title)
	title := c.Title
	if c.Log {
		title += " (logarithmic)"
	}
	text(&b, 0, 18, "title", "start", title)
	for i, bar := range c.List {
		y := float64(top + i*barHeight)
		text(&b, barNames-8, y+14, "label", "end", shorten(bar.Name, charactersName))
		fmt.Fprintf(&b, `<rect class="fill c%d" x="%.1f" y="%.1f" width="%.1f" height="%d"><title>%s</title></rect>`, bar.Colour%Colours, from, y+3,
			max(at(bar.Value)-from, 1), barHeight-6, html.EscapeString(bar.Name))
		if bar.Max > bar.Min {
			line(&b, at(bar.Min), y+barHeight/2, at(bar.Max), y+barHeight/2, "whisker")
		}
		if bar.Target > 0 {
			line(&b, at(bar.Target), y+1, at(bar.Target), y+barHeight-1, "target")
		}
		words := bar.Text
		if words == "" {
			words = number(bar.Value) + " " + c.Unit
		}
		text(&b, max(at(bar.Value), at(bar.Max), at(bar.Target))+6, y+14, "label", "start", words)
	}
	b.WriteString("</svg>")
	return b.String()
}

func open(b *strings.Builder, w, h int, title string) {
	fmt.Fprintf(b, `<svg viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">`, w, h, w, h, html.EscapeString(title))
}

func line(b *strings.Builder, x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(b, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, class, x1, y1, x2, y2)
}

func text(b *strings.Builder, x, y float64, class, anchor, words string) {
	fmt.Fprintf(b, `<text class="%s" text-anchor="%s" x="%.1f" y="%.1f">%s</text>`, class, anchor, x, y, html.EscapeString(words))
}

// shorten cuts the middle out of what is too long.
func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n/2-1]) + "..." + string(r[len(r)-n/2+2:])
}

// number prints three digits, with k and M.
func number(x float64) string {
	scaled := func(x float64, suffix string) string {
		return strconv.FormatFloat(x, 'g', 3, 64) + suffix
	}
	switch a := math.Abs(x); {
	case a >= 1e9:
		return strconv.FormatFloat(x, 'e', 1, 64)
	case a >= 999_500:
		return scaled(x/1e6, " M")
	case a >= 9_999.5:
		return scaled(x/1e3, " k")
	case a >= 999.5:
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return scaled(x, "")
}
