// Package page makes reports into one HTML page that needs nothing else: no
// network, no script, plots as inline SVG, readable by day and by night.
//
//	head     machine, commit, command of every report
//	groups   a plot or two, then the table with every row
//	         rows with an X      a line for each Line, over X
//	         rows without        bars with their spread
//	         latencies           percentile curves
//	         rates over time     of the last round
//	         ratios              to each peer
//	trend    the rows of the trend file that this report has too, by commit
package page

import (
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"rskv/bench/internal/measure"
	"rskv/bench/internal/plot"
)

// Write writes the page of reports, and of a trend that may be empty.
func Write(w io.Writer, reports []*measure.Report, trend []*measure.Entry) error {
	p := document{Title: "rskv: figures", Made: time.Now().UTC().Format(time.RFC3339)}
	for _, r := range reports {
		p.Reports = append(p.Reports, head{r, strings.Join(r.Command, " ")})
		p.Groups = append(p.Groups, groupsOf(r)...)
	}
	p.Trend = trendCharts(reports, trend)
	for _, e := range trend {
		p.Claims = append(p.Claims, claim{e.Date.Format(time.DateOnly), short(e.Commit), e.Claim, e.Machine.Load})
	}
	return parsed.Execute(w, p)
}

// document is what the template is filled with.
type document struct {
	Title, Made string
	Reports     []head
	Groups      []*group
	Trend       []template.HTML
	Claims      []claim
}

type head struct {
	*measure.Report
	CommandLine string
}

type claim struct{ Date, Commit, Claim, Load string }

// group is the rows that belong together.
type group struct {
	Name, ID string
	Plots    []template.HTML
	Settings []string
	Rows     []cells
	Shows    columns
	Notes    []string
}

// columns are those of which a group has something to say.
type columns struct{ Hit, Cold, P50, P99, P999, P9999, CPU, Efficiency, Ratio, Target bool }

func (s *columns) see(c *cells) {
	for _, col := range []struct {
		shown *bool
		text  string
	}{
		{&s.Hit, c.Hit}, {&s.Cold, c.Cold}, {&s.P50, c.P50}, {&s.P99, c.P99}, {&s.P999, c.P999}, {&s.P9999, c.P9999},
		{&s.CPU, c.CPU}, {&s.Efficiency, c.Efficiency}, {&s.Ratio, c.Ratio}, {&s.Target, c.Target},
	} {
		*col.shown = *col.shown || col.text != ""
	}
}

// cells are a row of the table.
type cells struct {
	Name, Rate, Spread, Unit, Hit, Cold, Commit, P50, P99, P999, P9999, CPU, Efficiency, Ratio, Target string
	Class                                                                                              string
}

// groupsOf parts a report into its groups.
func groupsOf(r *measure.Report) []*group {
	var list []*group
	for i := 0; i < len(r.Rows); {
		n := i
		for n < len(r.Rows) && r.Rows[n].Group == r.Rows[i].Group {
			n++
		}
		list = append(list, newGroup(r.Rows[i:n]))
		i = n
	}
	return list
}

func newGroup(rows []*measure.Row) *group {
	g := &group{Name: rows[0].Group}
	g.ID = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(g.Name))
	for _, svg := range []string{rates(rows), latencies(rows), overTime(rows), ratios(rows)} {
		if svg != "" {
			// The plot package escapes every text it puts in.
			g.Plots = append(g.Plots, template.HTML(svg))
		}
	}
	said := ""
	for _, r := range rows {
		if r.Setting != said {
			said = r.Setting
			g.Settings = append(g.Settings, r.Name+": "+r.Setting)
		}
		for _, n := range r.Notes {
			g.Notes = append(g.Notes, r.Name+": "+n)
		}
		if r.Control != nil {
			g.Notes = append(g.Notes, r.Name+": "+r.Control.String())
		}
		c := newCells(r)
		g.Rows = append(g.Rows, c)
		g.Shows.see(&c)
	}
	return g
}

func newCells(r *measure.Row) cells {
	c := cells{Name: r.Name, Unit: r.Unit, Commit: r.Commit}
	switch {
	case r.Failed != "":
		c.Spread, c.Class = "FAILED: "+r.Failed, "bad"
		return c
	case r.Missing != "":
		c.Spread, c.Class = "not measured: "+r.Missing, "none"
		return c
	}
	c.Rate, c.Spread = digits(r.Rate.Median), digits(r.Rate.Min)+" - "+digits(r.Rate.Max)
	c.Hit, c.Cold, c.Efficiency = share(r.Hit), share(r.Cold), share(r.Efficiency)
	c.P50, c.P99, c.P999, c.P9999 = optional(r.P50, 1), optional(r.P99, 1), optional(r.P999, 1), optional(r.P9999, 1)
	c.CPU = optional(r.CPU, 1000)
	var over []string
	if r.Ratio != nil {
		over = append(over, fmt.Sprintf("%.2f x %s", r.Ratio.Median, r.Against))
	}
	for _, p := range r.Peers {
		over = append(over, fmt.Sprintf("%.2f x %s", p.Ratio.Median, p.Name))
		if p.Target > 0 {
			c.Target += fmt.Sprintf("%g %s ", p.Target, verdict(p.Ratio.Median >= p.Target))
			c.Class = class(c.Class, p.Ratio.Median >= p.Target)
		}
	}
	c.Ratio = strings.Join(over, "; ")
	if met, known := r.Met(); known {
		c.Target = fmt.Sprintf("%g %s", *r.Target, verdict(met))
		c.Class = class(c.Class, met)
	}
	return c
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "missed"
}

// class marks a row; one missed target is enough to mark it so.
func class(was string, met bool) string {
	if !met || was == "missed" {
		return "missed"
	}
	return "met"
}

func share(x *float64) string {
	if x == nil {
		return ""
	}
	return fmt.Sprintf("%.1f %%", *x*100)
}

func optional(x *float64, unit float64) string {
	if x == nil {
		return ""
	}
	return digits(*x / unit)
}

// digits prints three significant digits without an exponent.
func digits(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

func short(commit string) string { return commit[:min(len(commit), 12)] }

// measured are the rows that have figures.
func measured(rows []*measure.Row) []*measure.Row {
	return slices.DeleteFunc(slices.Clone(rows), func(r *measure.Row) bool { return len(r.Rates) == 0 })
}

// barsByUnit draws a plot for each unit: bytes are no longer than operations.
func barsByUnit(rows []*measure.Row) string {
	byUnit, units := map[string][]*measure.Row{}, []string{}
	for _, r := range rows {
		if byUnit[r.Unit] == nil {
			units = append(units, r.Unit)
		}
		byUnit[r.Unit] = append(byUnit[r.Unit], r)
	}
	all := ""
	for _, unit := range units {
		if len(byUnit[unit]) > 1 || len(units) == 1 {
			all += rateBars(byUnit[unit])
		}
	}
	return all
}

// rates draws what the rows are about: over X if they have one, else as bars.
func rates(rows []*measure.Row) string {
	rows = measured(rows)
	c := plot.Chart{Title: "rate", Y: "", X: "", LogX: true}
	lines := map[string]int{}
	var ticks []float64
	least, most := math.Inf(1), 0.0
	for _, r := range rows {
		if r.X == nil || r.Line == "" {
			return barsByUnit(rows)
		}
		i, known := lines[r.Line]
		if !known {
			i = len(c.Lines)
			lines[r.Line] = i
			c.Lines = append(c.Lines, plot.Line{Name: r.Line})
		}
		c.Lines[i].Points = append(c.Lines[i].Points, plot.Point{X: *r.X, Y: r.Rate.Median})
		c.X, c.Y = r.Axis, r.Unit
		c.LogX = c.LogX && *r.X > 0
		if !slices.Contains(ticks, *r.X) {
			ticks = append(ticks, *r.X)
		}
		if r.Rate.Median > 0 {
			least = min(least, r.Rate.Median)
		}
		most = max(most, r.Rate.Median)
	}
	if len(ticks) < 2 {
		return barsByUnit(rows)
	}
	slices.Sort(ticks)
	for _, t := range ticks {
		c.Ticks = append(c.Ticks, plot.Tick{At: t, Name: fmt.Sprint(t)})
	}
	c.LogY = most > 50*least
	return c.SVG()
}

func rateBars(rows []*measure.Row) string {
	if len(rows) == 0 {
		return ""
	}
	b := plot.Bars{Title: "rate, median with the least and the most", Unit: rows[0].Unit}
	least, most := math.Inf(1), 0.0
	for i, r := range rows {
		bar := plot.Bar{Name: r.Name, Value: r.Rate.Median, Min: r.Rate.Min, Max: r.Rate.Max}
		if r.Line != "" {
			bar.Colour = i
		}
		if r.Target != nil && r.Against == "" {
			bar.Target = *r.Target
		}
		b.List = append(b.List, bar)
		if r.Rate.Median > 0 {
			least = min(least, r.Rate.Median)
		}
		most = max(most, r.Rate.Median)
	}
	b.Log = most > 100*least
	return b.SVG()
}

// linesMax is how many curves can be told apart in one plot.
const linesMax = plot.Colours

// latencies draws the curves over 1/(1-p), so that every nine has the same room.
func latencies(rows []*measure.Row) string {
	c := plot.Chart{Title: "latency by percentile", X: "percentile", Y: "us", LogX: true, LogY: true}
	for _, r := range spreadOut(rows, func(r *measure.Row) bool { return len(r.Curve) > 1 }) {
		l := plot.Line{Name: r.Name}
		for _, p := range r.Curve {
			if p.Percentile < 100 {
				l.Points = append(l.Points, plot.Point{X: 100 / (100 - p.Percentile), Y: p.Micros})
			}
		}
		c.Lines = append(c.Lines, l)
	}
	for _, p := range []float64{0, 50, 90, 99, 99.9, 99.99, 99.999} {
		c.Ticks = append(c.Ticks, plot.Tick{At: 100 / (100 - p), Name: fmt.Sprintf("%g", p)})
	}
	return c.SVG()
}

// overTime draws the rate in the last round.
func overTime(rows []*measure.Row) string {
	c := plot.Chart{Title: "rate in the last round", X: "s"}
	for _, r := range spreadOut(rows, func(r *measure.Row) bool { return len(r.Over) > 4 }) {
		l := plot.Line{Name: r.Name}
		for i, y := range r.Over {
			l.Points = append(l.Points, plot.Point{X: float64(i+1) * measure.Tick.Seconds(), Y: y})
		}
		c.Lines, c.Y = append(c.Lines, l), r.Unit
	}
	return c.SVG()
}

// spreadOut takes at most linesMax of the rows that have something, evenly.
func spreadOut(rows []*measure.Row, has func(*measure.Row) bool) []*measure.Row {
	all := slices.DeleteFunc(slices.Clone(rows), func(r *measure.Row) bool { return !has(r) })
	if len(all) <= linesMax {
		return all
	}
	some := make([]*measure.Row, linesMax)
	for i := range some {
		some[i] = all[i*(len(all)-1)/(linesMax-1)]
	}
	return some
}

// ratios draws how many times each peer's rate ours is.
func ratios(rows []*measure.Row) string {
	b := plot.Bars{Title: "times the peer's rate, round by round"}
	colour := map[string]int{}
	add := func(name, peer string, s measure.Spread, target float64) {
		if _, known := colour[peer]; !known {
			colour[peer] = len(colour)
		}
		b.List = append(b.List, plot.Bar{
			Name: name, Value: s.Median, Min: s.Min, Max: s.Max, Text: digits(s.Median) + " x", Colour: colour[peer], Target: target,
		})
	}
	most, least := 0.0, math.Inf(1)
	for _, r := range measured(rows) {
		if r.Ratio != nil {
			target := 0.0
			if r.Target != nil {
				target = *r.Target
			}
			add(r.Name+" / "+r.Against, r.Against, *r.Ratio, target)
			most, least = max(most, r.Ratio.Median), min(least, r.Ratio.Median)
		}
		for _, p := range r.Peers {
			add(p.Name, p.Name[strings.LastIndexByte(p.Name, ' ')+1:], p.Ratio, p.Target)
			most, least = max(most, p.Ratio.Median), min(least, p.Ratio.Median)
		}
	}
	b.Log = most > 50*least
	return b.SVG()
}

// trendCharts draws, group by group, the rows that the trend and a report have.
func trendCharts(reports []*measure.Report, trend []*measure.Entry) []template.HTML {
	if len(trend) == 0 {
		return nil
	}
	var out []template.HTML
	for _, r := range reports {
		for _, g := range groupsOfRows(r.Rows) {
			c := plot.Chart{Title: g[0].Group, Y: g[0].Unit}
			for i, e := range trend {
				c.Ticks = append(c.Ticks, plot.Tick{At: float64(i), Name: short(e.Commit)[:min(7, len(e.Commit))]})
			}
			c.Ticks = append(c.Ticks, plot.Tick{At: float64(len(trend)), Name: "now"})
			for _, row := range spreadOut(g, func(r *measure.Row) bool { return len(r.Rates) > 0 }) {
				if l := history(row, trend); len(l.Points) > 1 {
					c.Lines = append(c.Lines, l)
				}
			}
			if svg := c.SVG(); svg != "" {
				out = append(out, template.HTML(svg)) // escaped by plot
			}
		}
	}
	return out
}

func groupsOfRows(rows []*measure.Row) [][]*measure.Row {
	return slices.Collect(slicesBy(rows, func(a, b *measure.Row) bool { return a.Group == b.Group }))
}

// slicesBy parts a list where two neighbours do not belong together.
func slicesBy[T any](list []T, same func(a, b T) bool) func(yield func([]T) bool) {
	return func(yield func([]T) bool) {
		for len(list) > 0 {
			n := 1
			for n < len(list) && same(list[n-1], list[n]) {
				n++
			}
			if !yield(list[:n]) {
				return
			}
			list = list[n:]
		}
	}
}

// history is a row's medians over the lines of the trend, and now.
func history(row *measure.Row, trend []*measure.Entry) plot.Line {
	l := plot.Line{Name: row.Name}
	for i, e := range trend {
		for _, old := range e.Rows {
			if old.Group == row.Group && old.Name == row.Name && old.Unit == row.Unit {
				l.Points = append(l.Points, plot.Point{X: float64(i), Y: measure.SpreadOf(old.Rates).Median})
			}
		}
	}
	l.Points = append(l.Points, plot.Point{X: float64(len(trend)), Y: row.Rate.Median})
	return l
}
