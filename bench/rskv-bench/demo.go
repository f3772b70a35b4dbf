package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"rskv/bench/internal/live"
	"rskv/bench/internal/measure"
)

// demoRound is long enough for a figure and short enough to watch.
const demoRound = 400 * time.Millisecond

// demoSteps are the categories that the demo shows, and what to look at.
var demoSteps = []struct{ category, say string }{
	{"write", "Puts over keys that are there. Values up to 1 KB are changed in place; larger ones are new\nrecords. In batches the waiting for memory overlaps: look at the small values."},
	{"read", "Gets from memory, and then from a store eight times as large as its memory, by the share of\nhot keys. A cold get is one read of the disk; in batches of 64 the disk does them side by side."},
	{"mixed", "Reads and writes together."},
	{"threads", "More threads. On a machine with two processors nothing gets faster from four on; it must not\nget slower either."},
	{"concurrency", "Many goroutines with one operation at a time. On one connection they share the way to the\ndaemon: the more there are, the less each request costs."},
	{"batch", "The same operations, handed over 1 to 1000 at a time."},
}

func demoCommand() *cobra.Command {
	var dir, rskvd string
	c := &cobra.Command{
		Use:   "demo",
		Short: "watch the main figures, one group at a time",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo(cmd, dir, rskvd, cmd.InOrStdin())
		},
	}
	c.Flags().StringVar(&dir, "dir", os.TempDir(), "where data is written, and removed again")
	c.Flags().StringVar(&rskvd, "rskvd", "", "the daemon's program (default: beside this one, else in PATH)")
	return c
}

// demo shows group after group with bars. On a terminal it waits for Enter
// between them.
func demo(cmd *cobra.Command, dir, rskvd string, in io.Reader) (err error) {
	out := cmd.OutOrStdout()
	ask := false
	if f, ok := in.(*os.File); ok {
		ask = term.IsTerminal(int(f.Fd()))
	}
	keyboard := bufio.NewReader(in)
	s, err := newSuite(cmd, dir, rskvd, 1)
	if err != nil {
		return err
	}
	defer s.close(&err)
	fmt.Fprint(out, "One round of each row, short: watch the shapes. For figures: rskv-bench run all.\n")
	for i, step := range demoSteps {
		list, err := findCategories([]string{step.category})
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "\n%d of %d  %s\n%s\n", i+1, len(demoSteps), list[0].about, step.say)
		if ask {
			fmt.Fprint(out, "\nEnter to go on, q to end: ")
			answer, err := keyboard.ReadString('\n')
			if err != nil || strings.HasPrefix(answer, "q") {
				return nil
			}
		}
		first := len(s.report.Rows)
		if err := list[0].run(&runner{suite: s, round: demoRound, small: true}, cmd.Context()); err != nil {
			return err
		}
		s.line.Done()
		bars(out, s.report.Rows[first:])
	}
	return nil
}

// barWidth is how many characters the longest bar has.
const barWidth = 40

// bars draws the rates of rows, group by group.
func bars(out io.Writer, rows []*measure.Row) {
	group, most := "", 0.0
	for i, r := range rows {
		if r.Group != group {
			group, most = r.Group, 0
			for _, other := range rows[i:] {
				if other.Group == group {
					most = max(most, other.Rate.Median)
				}
			}
			fmt.Fprintf(out, "\n%s\n", group)
		}
		if r.Missing+r.Failed != "" {
			fmt.Fprintf(out, "  %-44s %s%s\n", r.Name, r.Missing, r.Failed)
			continue
		}
		cold := ""
		if r.Cold != nil && *r.Cold > 0 {
			cold = fmt.Sprintf("  %.0f%% cold", *r.Cold*100)
		}
		length := int(r.Rate.Median / max(most, 1e-9) * barWidth)
		fmt.Fprintf(out, "  %-44s %9s/s %s%s\n", r.Name, live.Short(r.Rate.Median*r.Scale), strings.Repeat("#", max(length, 1)), cold)
	}
}
