package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"rskv/bench/internal/live"
	"rskv/bench/internal/measure"
)

// suite is what every command that measures rows has: a directory, a report, and
// somebody who waits.
type suite struct {
	dir    string // everything written goes below it, and is removed
	rskvd  string // the daemon's program; "": beside this one
	report *measure.Report
	line   *live.Line
}

func newSuite(cmd *cobra.Command, parent, rskvd string, rounds int) (*suite, error) {
	dir, err := os.MkdirTemp(parent, "rskv-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the data: %w", err)
	}
	return &suite{dir: dir, rskvd: rskvd, report: measure.NewReport(rounds), line: live.New(cmd.ErrOrStderr())}, nil
}

func (s *suite) close(err *error) {
	s.line.Done()
	*err = errors.Join(*err, os.RemoveAll(s.dir))
}

// interleave runs contenders side by side and appends their rows to the report.
func (s *suite) interleave(ctx context.Context, round time.Duration, contenders []measure.Contender) error {
	err := measure.Interleave(ctx, s.report.Rounds, round, contenders, func(n int, r *measure.Row) {
		s.line.Step("%s, round %d of %d: %s", r.Group, n+1, s.report.Rounds, r.Name)
	})
	for _, c := range contenders {
		s.report.Rows = append(s.report.Rows, c.Row)
	}
	return err
}

// write hands the report out: as JSON to the file, - being stdout, else as a table.
func (s *suite) write(cmd *cobra.Command, file string) error {
	s.line.Done()
	return writeReport(cmd.OutOrStdout(), s.report, file)
}

func writeReport(stdout io.Writer, r *measure.Report, file string) error {
	var err error
	if file == "-" {
		err = r.WriteJSON(stdout)
	} else {
		err = r.WriteTable(stdout)
	}
	if file != "" && file != "-" {
		err = errors.Join(err, writeFile(file, r.WriteJSON))
	}
	if r.Failed() {
		err = errors.Join(err, errors.New("there were wrong answers, see the report"))
	}
	return err
}
