package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"rskv/bench/internal/fio"
	"rskv/bench/internal/live"
)

// fioFlags are the arguments of the command.
type fioFlags struct {
	versus    bool
	rounds    int
	engine    string
	fioEngine string
	dir       string
	rskvd     string
	format    string
	output    string
	theirs    string
}

func fioCommand() *cobra.Command {
	var f fioFlags
	c := &cobra.Command{
		Use:   "fio JOB",
		Short: "run a job file of fio on rskv",
		Long: "Run a job file in fio's own format on the device layer (ioengine=rskv-uring or\n" +
			"rskv-sync), on the store in process (rskv-engine: blocks are values) or through a\n" +
			"daemon's socket (rskv-socket). With --vs-fio, fio runs the same job beside it, in\n" +
			"turn, and the ratios are printed. Data goes below the job's directory, or --dir,\n" +
			"and is removed. An option that is not understood is an error.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%w: fio takes one job file", errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	flags := c.Flags()
	flags.BoolVar(&f.versus, "vs-fio", false, "run fio on the same job beside it, and print the ratios")
	flags.IntVar(&f.rounds, "rounds", 5, "rounds of each program with --vs-fio")
	flags.StringVar(&f.engine, "ioengine", "", "take this engine for every job")
	flags.StringVar(&f.fioEngine, "fio-engine", "", "fio's engine with --vs-fio (default: io_uring, else libaio)")
	flags.StringVar(&f.dir, "dir", "", "where data is written, and removed again (default: the job's directory, else the temporary one)")
	flags.StringVar(&f.rskvd, "rskvd", "", "the daemon's program (default: beside this one, else in PATH)")
	flags.StringVar(&f.format, "output-format", "normal", "normal: a short table; json: fio's JSON")
	flags.StringVar(&f.output, "output", "", "write to this file instead of stdout")
	flags.StringVar(&f.theirs, "fio-output", "", "with --vs-fio: write fio's own JSON, one document a round, to this file")
	return c
}

func (f *fioFlags) check() error {
	switch {
	case f.rounds < 1:
		return fmt.Errorf("%w: --rounds %d: want at least 1", errUsage, f.rounds)
	case f.format != "normal" && f.format != "json":
		return fmt.Errorf("%w: --output-format %q is neither normal nor json", errUsage, f.format)
	case f.theirs != "" && !f.versus:
		return fmt.Errorf("%w: --fio-output needs --vs-fio", errUsage)
	}
	if f.engine != "" {
		if _, err := fio.ParseEngine(f.engine); err != nil {
			return fmt.Errorf("%w: --ioengine: %w", errUsage, err)
		}
	}
	return nil
}

func (f *fioFlags) run(cmd *cobra.Command, path string) (err error) {
	if err := f.check(); err != nil {
		return err
	}
	file, err := fio.ReadFile(path)
	if err != nil {
		return err
	}
	override := fio.Engine("")
	if f.engine != "" {
		override, _ = fio.ParseEngine(f.engine) // check has seen it
	}
	jobs, err := file.Jobs(override)
	if err != nil {
		return err
	}
	dir, remove, err := f.place(jobs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	line := live.New(cmd.ErrOrStderr())
	defer line.Done()
	ours := dir + "/rskv"
	bench, err := fio.Start(cmd.Context(), jobs, fio.Config{
		Dir: ours, RSKVD: f.rskvd, Say: line.Say,
		Watch: func(name string, length time.Duration, l *fio.Live) func() {
			return line.Watch(name, length, func() (uint64, uint64) { return l.Ops.Load(), l.Nanos.Load() })
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bench.Close()) }()
	if f.versus {
		return f.compare(cmd, file, bench, dir, line)
	}
	out, err := bench.Run(cmd.Context())
	if err != nil {
		return err
	}
	out.About = bench.About()
	line.Done()
	return f.write(cmd.OutOrStdout(), out.WriteTable, out.WriteJSON)
}

// place makes the directory that everything is written in.
func (f *fioFlags) place(jobs []*fio.Job) (dir string, remove func() error, err error) {
	parent := f.dir
	for _, j := range jobs {
		if parent == "" {
			parent = j.Directory
		}
		if f.dir == "" && j.Directory != parent && j.Directory != "" {
			return "", nil, fmt.Errorf("%s: job %s: all jobs need one directory, or --dir", j.Place, j.Name)
		}
	}
	dir, err = os.MkdirTemp(parent, "rskv-bench-")
	if err == nil {
		dir, err = filepath.Abs(dir) // fio runs in another one
	}
	if err != nil {
		return "", nil, fmt.Errorf("make a directory for the data: %w", err)
	}
	return dir, func() error { return os.RemoveAll(dir) }, nil
}

// compare runs fio beside ours.
func (f *fioFlags) compare(cmd *cobra.Command, file *fio.File, bench *fio.Bench, dir string, line *live.Line) error {
	beside := dir + "/fio"
	if err := os.Mkdir(beside, 0o755); err != nil {
		return fmt.Errorf("make a directory for fio: %w", err)
	}
	theirs, err := fio.NewTheirs(cmd.Context(), beside, f.fioEngine)
	if err != nil {
		return err
	}
	line.Steps(2 * f.rounds)
	c, err := fio.Compare(cmd.Context(), file, bench, theirs, f.rounds, line.Step)
	if err != nil {
		return err
	}
	line.Done()
	if f.theirs != "" {
		err = writeFile(f.theirs, func(w io.Writer) error {
			for _, o := range c.Theirs {
				if err := o.WriteJSON(w); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return errors.Join(err, f.write(cmd.OutOrStdout(), c.WriteTable, func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(c)
	}))
}

// write hands the result out in the form and to the place asked for.
func (f *fioFlags) write(stdout io.Writer, table, document func(io.Writer) error) error {
	write := table
	if f.format == "json" {
		write = document
	}
	if f.output != "" {
		return writeFile(f.output, write)
	}
	return write(stdout)
}

// runVersus is `rskv-bench --vs-fio JOB`, the short way to write it.
func runVersus(ctx context.Context, job string, stdout, stderr io.Writer) error {
	c := fioCommand()
	c.SetArgs([]string{"--vs-fio", job})
	c.SetOut(stdout)
	c.SetErr(stderr)
	c.SilenceErrors, c.SilenceUsage = true, true
	return c.ExecuteContext(ctx)
}
