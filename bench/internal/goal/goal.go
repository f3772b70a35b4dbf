// Package goal is the figures that rskv wants to reach, and how a run of the
// benchmarks stands to them.
//
// A goal names the row that measures it, by group and name. Three kinds of figure
// are held against it:
//
//	Times    a ratio to a peer measured in the same rounds, or to a published figure
//	CPU      the processor time of an operation, as a ratio to the peer's
//	Value    the row's own figure, mostly less is better
//
// list.go has them.
package goal

import (
	"fmt"
	"io"
	"strings"

	"rskv/bench/internal/measure"
)

// Kind is what is held against a goal.
type Kind uint8

const (
	Times Kind = iota
	CPU
	Value
)

// Goal is one figure to reach.
type Goal struct {
	What       string
	Group, Row string // of the row that measures it
	Kind       Kind
	// Peer is the row it is compared with, if that is not the one the row itself
	// says; Published stands for a peer that is not run here, with the figure in
	// the row's unit.
	Peer      string
	Published *Published
	Target    float64
	Beyond    float64 // 0: none
	Less      bool    // less is better
}

// Published is a figure that others have published, or measured elsewhere.
type Published struct {
	Who  string
	Rate float64 // in the unit of the row
}

// Standing is how a goal stands after a run.
type Standing struct {
	Goal
	Found  *measure.Row   // nil: the run has no such row
	Peer   *measure.Row   // nil: there is none
	Figure measure.Spread // what is held against Target; N is 0 if it is not known
}

// Reached is "beyond", "met", "missed" or, without a figure, "not measured".
func (s *Standing) Reached() string {
	switch {
	case s.Figure.N == 0:
		return "not measured"
	case s.Beyond > 0 && s.reaches(s.Beyond):
		return "beyond"
	case s.reaches(s.Target):
		return "met"
	}
	return "missed"
}

func (s *Standing) reaches(x float64) bool {
	if s.Less {
		return s.Figure.Median <= x
	}
	return s.Figure.Median >= x
}

// Stand holds reports against all goals, in the order of the list.
func Stand(reports []*measure.Report) []Standing {
	list := make([]Standing, len(All))
	for i, g := range All {
		list[i] = Standing{Goal: g}
		list[i].look(reports)
	}
	return list
}

// look finds the rows and the figure. Of several reports the last counts.
func (s *Standing) look(reports []*measure.Report) {
	for _, r := range reports {
		for _, row := range r.Rows {
			if row.Group == s.Group && row.Name == s.Row {
				s.Found = row
			}
		}
	}
	if s.Found == nil || len(s.Found.Rates) == 0 {
		return
	}
	name := s.Found.Against
	if s.Goal.Peer != "" {
		name = s.Goal.Peer
	}
	for _, r := range reports {
		for _, row := range r.Rows {
			if name != "" && row.Group == s.Group && row.Name == name {
				s.Peer = row
			}
		}
	}
	s.Figure = s.figure()
}

func (s *Standing) figure() measure.Spread {
	row, peer := s.Found, s.Peer
	switch {
	case s.Kind == Value:
		return row.Rate
	case s.Kind == CPU:
		if peer == nil || row.CPU == nil || peer.CPU == nil || *peer.CPU == 0 {
			return measure.Spread{}
		}
		x := *row.CPU / *peer.CPU
		return measure.Spread{Median: x, Min: x, Max: x, N: 1}
	case s.Published != nil:
		return over(row.Rate, s.Published.Rate)
	case peer == nil:
		return measure.Spread{}
	}
	return measure.SpreadOf(measure.Ratios(row.Rates, peer.Rates))
}

func over(s measure.Spread, by float64) measure.Spread {
	return measure.Spread{Median: s.Median / by, Min: s.Min / by, Max: s.Max / by, N: s.N}
}

// Markdown writes the standings as a table.
func Markdown(w io.Writer, list []Standing) error {
	var out strings.Builder
	out.WriteString("| | rskv | peer | ratio | target | beyond | |\n|---|---|---|---|---|---|---|\n")
	for i := range list {
		s := &list[i]
		fmt.Fprintf(&out, "| %s | %s | %s | %s | %s | %s | %s |\n", s.What, s.ours(), s.theirs(), s.ratio(), s.bound(s.Target), s.bound(s.Beyond), s.verdict())
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// ours is the row's own figure, and how it commits.
func (s *Standing) ours() string {
	if s.Found == nil || len(s.Found.Rates) == 0 {
		return "-"
	}
	if s.Kind == CPU && s.Found.CPU != nil {
		return fmt.Sprintf("%.3g us", *s.Found.CPU/1000)
	}
	return spread(s.Found.Rate, s.Found.Unit) + commit(s.Found)
}

func (s *Standing) theirs() string {
	switch {
	case s.Published != nil:
		return fmt.Sprintf("%s: %.4g %s", s.Published.Who, s.Published.Rate, unitOf(s.Found))
	case s.Peer == nil || s.Kind == Value:
		return ""
	case len(s.Peer.Rates) == 0:
		return s.Peer.Name + ": " + s.Peer.Missing
	case s.Kind == CPU && s.Peer.CPU != nil:
		return fmt.Sprintf("%s: %.3g us", s.Peer.Name, *s.Peer.CPU/1000)
	}
	return s.Peer.Name + ": " + spread(s.Peer.Rate, s.Peer.Unit) + commit(s.Peer)
}

func (s *Standing) ratio() string {
	if s.Kind == Value || s.Figure.N == 0 {
		return ""
	}
	return spread(s.Figure, "x")
}

func (s *Standing) bound(x float64) string {
	if x == 0 {
		return ""
	}
	unit := "x"
	if s.Kind == Value {
		unit = unitOf(s.Found)
	}
	text := strings.TrimSpace(fmt.Sprintf("%g %s", x, unit))
	if s.Less {
		text = "<= " + text
	}
	return strings.ReplaceAll(text, " x", "x")
}

func (s *Standing) verdict() string {
	if v := s.Reached(); v != "missed" {
		return v
	}
	return "**missed**"
}

func unitOf(r *measure.Row) string {
	if r == nil {
		return ""
	}
	return r.Unit
}

func commit(r *measure.Row) string {
	if r.Commit == "" {
		return ""
	}
	return ", commit " + r.Commit
}

// spread prints a median, with least and most where there are several rounds.
func spread(s measure.Spread, unit string) string {
	text := measure.Number(s.Median) + " " + unit
	if unit == "x" {
		text = measure.Number(s.Median) + "x"
	}
	if s.N > 1 {
		text += fmt.Sprintf(" [%s-%s]", measure.Number(s.Min), measure.Number(s.Max))
	}
	return text
}
