package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"rskv/bench/internal/fio"
	"rskv/bench/internal/goal"
	"rskv/bench/internal/measure"
	"rskv/bench/internal/page"
)

// trendFile is where the lines of the trend stand, from the repository's top.
const trendFile = "bench/trend.jsonl"

func reportCommand() *cobra.Command {
	var output, trend string
	var markdown, groups bool
	var into string
	c := &cobra.Command{
		Use:   "report A.json...",
		Short: "make reports into one HTML page with plots, or into tables in Markdown",
		Long: "Make what --json wrote, or a run of a job file in fio's JSON, into one HTML page\n" +
			"that needs nothing else. If there is a trend file its lines are drawn too. With\n" +
			"--markdown, hold the rows against the goals of bench/README.md instead, and print\n" +
			"the table that stands there; with --groups, all rows too; with --into, put them\n" +
			"where the file has the lines\n\n" + "  " + figuresBegin + "\n  " + figuresEnd,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("%w: report takes at least one file", errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var reports []*measure.Report
			for _, path := range args {
				r, err := readReport(path)
				if err != nil {
					return err
				}
				reports = append(reports, r)
			}
			if into != "" {
				return putFigures(into, reports, groups)
			}
			if markdown || groups {
				return writeMarkdown(cmd.OutOrStdout(), reports, groups)
			}
			entries, err := measure.ReadTrend(trend)
			if err != nil {
				return err
			}
			write := func(w io.Writer) error { return page.Write(w, reports, entries) }
			if output == "-" {
				return write(cmd.OutOrStdout())
			}
			if err := writeFile(output, write); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), output)
			return nil
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "report.html", "the page; - for stdout")
	c.Flags().StringVar(&trend, "trend", trendFile, "the trend file")
	c.Flags().BoolVar(&markdown, "markdown", false, "print the table of goals, as Markdown, to stdout")
	c.Flags().BoolVar(&groups, "groups", false, "print all rows besides, group by group")
	c.Flags().StringVar(&into, "into", "", "put the table into this file instead, in place of the one that is there")
	return c
}

// Between these lines of a file stand the figures of the last run.
const (
	figuresBegin = "<!-- figures: written by make bench -->"
	figuresEnd   = "<!-- end of the figures -->"
)

// putFigures replaces the figures that stand in a file.
func putFigures(path string, reports []*measure.Report, groups bool) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("put figures: %w", err)
	}
	before, rest, ok := bytes.Cut(b, []byte(figuresBegin+"\n"))
	_, after, found := bytes.Cut(rest, []byte(figuresEnd+"\n"))
	if !ok || !found {
		return fmt.Errorf("put figures: %s has no line %q, or none %q after it", path, figuresBegin, figuresEnd)
	}
	return writeFile(path, func(w io.Writer) error {
		out := bytes.NewBuffer(slices.Clone(before))
		fmt.Fprintf(out, "%s\n\n", figuresBegin)
		_ = writeMarkdown(out, reports, groups) // into a buffer
		fmt.Fprintf(out, "\n%s\n%s", figuresEnd, after)
		_, err := out.WriteTo(w)
		return err
	})
}

// writeMarkdown prints where the reports come from, how they stand to the goals, and
// if asked every row.
func writeMarkdown(w io.Writer, reports []*measure.Report, groups bool) error {
	var out bytes.Buffer
	for _, r := range reports {
		m := &r.Machine
		fmt.Fprintf(&out, " - `%s`: %s, %s, %d cores, %s, %s, %s, commit %.12s, load %s; median of %d [least-most]%s\n",
			r.CommandLine(), r.Date.Format(time.DateOnly), m.Processor, m.Cores, m.Memory, m.System, m.Go, r.Commit, m.Load, r.Rounds, tookWords(r))
	}
	out.WriteString("\n")
	// Writing into a buffer cannot fail.
	_ = goal.Markdown(&out, goal.Stand(reports))
	if groups {
		for _, r := range reports {
			r.Markdown(&out)
		}
	}
	_, err := out.WriteTo(w)
	return err
}

// tookWords says how long the parts of a run took.
func tookWords(r *measure.Report) string {
	text, sum := "", 0.0
	for _, t := range r.Took {
		text += fmt.Sprintf(", %s %.0f s", t.Part, t.Seconds)
		sum += t.Seconds
	}
	if text == "" {
		return ""
	}
	return fmt.Sprintf("; took %.1f min%s", sum/60, text)
}

// readReport reads a report, or makes one of a run in fio's JSON.
func readReport(path string) (*measure.Report, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	if bytes.Contains(b, []byte(`"fio version"`)) {
		o, err := fio.ReadJSON(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return o.Report(path), nil
	}
	r, err := measure.ReadReport(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

func compareCommand() *cobra.Command {
	var trend string
	var loss float64
	c := &cobra.Command{
		Use:   "compare [OLD.json] NEW.json",
		Short: "say what has become faster or slower, and whether that is more than noise",
		Long: "Compare the rates of the rows that two reports share: medians, their ratio, and the\n" +
			"p-value of the Mann-Whitney test. ~ stands for no significant change (p >= 0.05). Without\n" +
			"OLD the last line of the trend file is taken. It takes at least four rounds on each\n" +
			"side to show anything.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return fmt.Errorf("%w: compare takes one or two files", errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			now, err := readReport(args[len(args)-1])
			if err != nil {
				return err
			}
			old, err := olderReport(args, trend)
			if err != nil {
				return err
			}
			return writeChanges(cmd.OutOrStdout(), measure.Compare(old, now), loss)
		},
	}
	c.Flags().StringVar(&trend, "trend", trendFile, "the trend file")
	c.Flags().Float64Var(&loss, "max-loss", 0, "fail if a row has become significantly slower by more than this many percent; 0: never")
	return c
}

func olderReport(args []string, trend string) (*measure.Report, error) {
	if len(args) == 2 {
		return readReport(args[0])
	}
	entries, err := measure.ReadTrend(trend)
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("%s has no line to compare with", trend)
	}
	return entries[len(entries)-1].Report(), nil
}

// writeChanges prints changes group by group, and fails if one is a loss of more
// than so many percent.
func writeChanges(w io.Writer, list []measure.Change, loss float64) error {
	if len(list) == 0 {
		return errors.New("the reports share no row")
	}
	var out bytes.Buffer
	tw := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	group, sum, n, lost := "", 0.0, 0, 0
	finish := func() {
		if n > 1 {
			fmt.Fprintf(tw, "  geometric mean\t\t\t\t%+.2f%%\n", (math.Exp(sum/float64(n))-1)*100)
		}
		sum, n = 0, 0
	}
	for _, c := range list {
		if c.Group != group {
			finish()
			group = c.Group
			fmt.Fprintf(tw, "%s\told\tnew\tunit\tchange\n", group)
		}
		change := "~"
		if c.Significant() {
			change = fmt.Sprintf("%+.2f%%", (c.Ratio-1)*100)
			if loss > 0 && (1-c.Ratio)*100 > loss {
				change += " LOSS"
				lost++
			}
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\t%s (p=%.3f n=%d+%d)\n", c.Name, around(c.Old), around(c.New), c.Unit, change, c.P, c.Rounds[0], c.Rounds[1])
		if c.Ratio > 0 {
			sum, n = sum+math.Log(c.Ratio), n+1
		}
	}
	finish()
	// Writing into a buffer cannot fail.
	_ = tw.Flush()
	if _, err := out.WriteTo(w); err != nil {
		return err
	}
	if lost > 0 {
		return fmt.Errorf("%d rows have become slower by more than %g %%", lost, loss)
	}
	return nil
}

// around prints a median, and how far the rounds were from it.
func around(s measure.Spread) string {
	if s.Median == 0 {
		return "0"
	}
	off := max(s.Max-s.Median, s.Median-s.Min) / s.Median * 100
	return fmt.Sprintf("%.4g ± %.0f%%", s.Median, off)
}

func trendCommand() *cobra.Command {
	var file, claim string
	c := &cobra.Command{
		Use:   "trend A.json --claim TEXT",
		Short: "add a line to the trend file: what this commit claims, and its figures",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%w: trend takes one file", errUsage)
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := readReport(args[0])
			if err != nil {
				return err
			}
			e, err := measure.NewEntry(r, claim)
			if err != nil {
				return err
			}
			return measure.AppendTrend(file, e)
		},
	}
	c.Flags().StringVar(&file, "trend", trendFile, "the trend file")
	c.Flags().StringVar(&claim, "claim", "", "what has become faster, in one sentence")
	return c
}
