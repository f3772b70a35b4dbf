package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rskv/bench/internal/live"
	"rskv/bench/internal/measure"
)

// group is one part of the suite: it fills rows and appends them to the report.
// An error ends the run; what is only missing is said in the rows.
type group struct {
	name string
	run  func(q *quick, ctx context.Context) error
}

var groups = []group{
	{"engine", (*quick).engine},
	{"socket", (*quick).socket},
	{"cold", (*quick).cold},
	{"cache", (*quick).cache},
	{"durable", (*quick).durable},
	{"flush", (*quick).flush},
}

// quick is one run of the quick suite.
type quick struct {
	scale
	dir    string // everything written goes below it, and is removed
	rskvd  string // path of the daemon's program; "": beside this one
	report *measure.Report
	line   *live.Line
}

// scale is how much is done. All sizes in bytes.
type scale struct {
	rounds int
	round  time.Duration // of one row in one round

	memoryKeys   uint64 // of the engine in memory
	memoryBudget int64
	socketKeys   uint64
	socketBudget int64
	benchmarkOps uint64 // of redis-benchmark
	coldBudget   int64
	coldData     int64
	flushBudget  int64
	flushData    int64
}

var (
	fullScale = scale{
		rounds: 5, round: time.Second,
		memoryKeys: 10_000_000, memoryBudget: 1 << 30,
		socketKeys: 1_000_000, socketBudget: 512 << 20, benchmarkOps: 2_000_000,
		coldBudget: 64 << 20, coldData: 640 << 20,
		flushBudget: 128 << 20, flushData: 1 << 30,
	}
	smokeScale = scale{
		rounds: 3, round: 100 * time.Millisecond,
		memoryKeys: 1_000_000, memoryBudget: 256 << 20,
		socketKeys: 100_000, socketBudget: 128 << 20, benchmarkOps: 100_000,
		coldBudget: 32 << 20, coldData: 128 << 20,
		flushBudget: 32 << 20, flushData: 128 << 20,
	}
)

// quickFlags are the arguments of the command.
type quickFlags struct {
	smoke   bool
	rounds  int
	only    []string
	json    string
	dir     string
	rskvd   string
	profile string
}

func quickCommand() *cobra.Command {
	var f quickFlags
	names := make([]string, len(groups))
	for i, g := range groups {
		names[i] = g.name
	}
	c := &cobra.Command{
		Use:   "quick",
		Short: "the first figures, in about four minutes",
		Long: "Measure the engine in memory and beyond it, and the daemon, beside redis-server\n" +
			"and fio where they are installed. Absolute figures of a shared machine drift;\n" +
			"look at the ratios, which are taken between neighbours in time.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: quick takes no arguments, got %q", errUsage, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := c.Flags()
	flags.BoolVar(&f.smoke, "smoke", false, "small and short: shows that it works, not how fast it is")
	flags.IntVar(&f.rounds, "rounds", 0, "rounds of each measurement (default 5, with --smoke 3)")
	flags.StringSliceVar(&f.only, "only", nil, "groups to run, of "+strings.Join(names, ","))
	flags.StringVar(&f.json, "json", "", "write everything to this file as JSON; - for stdout, instead of the table")
	flags.StringVar(&f.dir, "dir", os.TempDir(), "where data is written, and removed again")
	flags.StringVar(&f.rskvd, "rskvd", "", "the daemon's program (default: beside this one, else in PATH)")
	flags.StringVar(&f.profile, "profile", "", "write a CPU profile of this process to this file")
	return c
}

// check finds what is wrong with the arguments.
func (f *quickFlags) check() error {
	if f.rounds < 0 {
		return fmt.Errorf("%w: --rounds %d: want at least 1", errUsage, f.rounds)
	}
	for _, name := range f.only {
		if !slices.ContainsFunc(groups, func(g group) bool { return g.name == name }) {
			return fmt.Errorf("%w: --only %s: there is no such group", errUsage, name)
		}
	}
	return nil
}

func (f *quickFlags) run(cmd *cobra.Command) (err error) {
	if err := f.check(); err != nil {
		return err
	}
	q := &quick{scale: fullScale, rskvd: f.rskvd, line: live.New(cmd.ErrOrStderr())}
	if f.smoke {
		q.scale = smokeScale
	}
	if f.rounds > 0 {
		q.rounds = f.rounds
	}
	if q.dir, err = os.MkdirTemp(f.dir, "rskv-bench-"); err != nil {
		return fmt.Errorf("make a directory for the data: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(q.dir)) }()
	if f.profile != "" {
		stop, err := profile(f.profile)
		if err != nil {
			return err
		}
		defer stop()
	}
	q.report = measure.NewReport(q.rounds)
	for _, g := range groups {
		if len(f.only) > 0 && !slices.Contains(f.only, g.name) {
			continue
		}
		if err := q.report.Part(g.name, q.line.Say, func() error { return g.run(q, cmd.Context()) }); err != nil {
			return err
		}
	}
	q.line.Done()
	return writeReport(cmd.OutOrStdout(), q.report, f.json)
}

func writeFile(path string, write func(io.Writer) error) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if err := errors.Join(write(file), file.Close()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// profile starts a CPU profile.
func profile(path string) (stop func(), err error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("write profile: %w", err)
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, errors.Join(fmt.Errorf("write profile: %w", err), file.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		file.Close() // pprof does not tell whether it could write
	}, nil
}

// interleave runs contenders side by side and appends their rows to the report.
func (q *quick) interleave(ctx context.Context, contenders []measure.Contender) error {
	q.line.Steps(q.rounds * len(contenders))
	err := measure.Interleave(ctx, q.rounds, q.round, contenders, func(round int, r *measure.Row) {
		q.line.Step("%s, round %d of %d: %s", r.Group, round+1, q.rounds, r.Name)
	})
	for _, c := range contenders {
		q.report.Rows = append(q.report.Rows, c.Row)
	}
	return err
}

// say tells whoever waits what is going on.
func (q *quick) say(format string, args ...any) { q.line.Say(format, args...) }

// sub makes a directory for one store or file below the run's own.
func (q *quick) sub(name string) (string, error) {
	path := filepath.Join(q.dir, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		return "", fmt.Errorf("make a directory for %s: %w", name, err)
	}
	return path, nil
}

// ref makes a pointer for a row's optional figures.
func ref[T any](v T) *T { return &v }

// count prints a number of keys the way people write them.
func count(n uint64) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return fmt.Sprintf("%d M", n/1_000_000)
	case n >= 1000 && n%1000 == 0:
		return fmt.Sprintf("%d k", n/1000)
	}
	return fmt.Sprint(n)
}

// mib prints a size.
func mib(bytes int64) string { return fmt.Sprintf("%d MiB", bytes>>20) }
