package fio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"rskv/bench/internal/measure"
	"rskv/bench/internal/peer"
)

// Rewrite gives the job file as fio is to run it: on another engine, in another
// directory, without what only rskv understands. Includes are resolved.
func (f *File) Rewrite(engine, dir string) string {
	var out strings.Builder
	fmt.Fprintf(&out, "[global]\nioengine=%s\ndirectory=%s\n", engine, dir)
	for _, s := range f.Sections {
		fmt.Fprintf(&out, "\n[%s]\n", s.Name)
		for _, set := range s.Settings {
			switch {
			case set.Name == "ioengine" || set.Name == "directory" || strings.HasPrefix(set.Name, "rskv_"):
			case set.Bare:
				fmt.Fprintln(&out, set.Name)
			case set.Name == "random_distribution" && set.Value == "uniform":
				fmt.Fprintln(&out, "random_distribution=random")
			default:
				fmt.Fprintf(&out, "%s=%s\n", set.Name, set.Value)
			}
		}
	}
	return out.String()
}

// theirEngines are tried in this order: what fio's figures are best with.
var theirEngines = []string{"io_uring", "libaio"}

// Theirs is fio with a job file, run again and again in one directory.
type Theirs struct{ program, dir, engine string }

// NewTheirs looks for fio and finds an engine of it that works: engine, if that
// is not "". Its files lie in dir, which must exist.
func NewTheirs(ctx context.Context, dir, engine string) (*Theirs, error) {
	program, err := exec.LookPath("fio")
	if err != nil {
		return nil, errors.New("fio is not installed")
	}
	engines := theirEngines
	if engine != "" {
		engines = []string{engine}
	}
	var failed error
	for _, e := range engines {
		t := &Theirs{program, dir, e}
		probe, err := Parse("probe", "[probe]\nrw=write\nbs=4k\nsize=4k\n")
		if err != nil {
			return nil, err
		}
		if _, err = t.Run(ctx, probe); err == nil {
			return t, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}

// Engine is the name of fio's engine that is used.
func (t *Theirs) Engine() string { return t.engine }

// Run runs the job file once.
func (t *Theirs) Run(ctx context.Context, f *File) (*Output, error) {
	path := filepath.Join(t.dir, "job.fio")
	if err := os.WriteFile(path, []byte(f.Rewrite(t.engine, t.dir)), 0o644); err != nil {
		return nil, fmt.Errorf("write job file for fio: %w", err)
	}
	cmd := peer.Command(ctx, t.program, "--output-format=json", path)
	cmd.Dir = t.dir
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		line, _, _ := strings.Cut(strings.TrimSpace(said.String()+string(out)), "\n")
		return nil, fmt.Errorf("fio with %s: %w: %s", t.engine, err, line)
	}
	o, err := ReadJSON(out)
	if err != nil {
		return nil, err
	}
	for _, j := range o.Jobs {
		if j.Error != 0 {
			return nil, fmt.Errorf("fio with %s: job %s ended with error %d", t.engine, j.Name, j.Error)
		}
	}
	return o, nil
}

// Comparison is runs of one job file by both programs, in turn.
type Comparison struct {
	Engine string    `json:"fio_engine"`
	About  []string  `json:"rskv"`
	Rounds int       `json:"rounds"`
	Lines  []*Versus `json:"lines"`
	Ours   []*Output `json:"-"`
	Theirs []*Output `json:"-"`
}

// Versus is one direction of one job.
type Versus struct {
	Job     string   `json:"job"`
	Side    string   `json:"side"`
	Metrics []Metric `json:"metrics"`
}

// Metric is one figure of both, and ours divided by theirs, round by round.
type Metric struct {
	Name   string         `json:"name"`
	Unit   string         `json:"unit"`
	More   bool           `json:"more_is_better"`
	Ours   measure.Spread `json:"rskv"`
	Theirs measure.Spread `json:"fio"`
	Ratio  measure.Spread `json:"ratio"`
}

// metrics are what is compared. 0 means that a run does not know.
var metrics = []struct {
	name, unit string
	scale      float64
	more       bool
	of         func(j *JobOutput, s *SideOutput) float64
}{
	{"IOPS", "k/s", 1e3, true, func(_ *JobOutput, s *SideOutput) float64 { return s.IOPS }},
	{"bandwidth", "MiB/s", 1 << 20, true, func(_ *JobOutput, s *SideOutput) float64 { return float64(s.BWBytes) }},
	{"p50", "us", 1e3, false, func(_ *JobOutput, s *SideOutput) float64 { return float64(s.Clat.At(50)) }},
	{"p99", "us", 1e3, false, func(_ *JobOutput, s *SideOutput) float64 { return float64(s.Clat.At(99)) }},
	{"CPU per I/O", "us", 1e3, false, func(j *JobOutput, _ *SideOutput) float64 { return j.CPU() }},
}

// Compare lets both programs run in turn, each first in every other round.
func Compare(ctx context.Context, f *File, b *Bench, t *Theirs, rounds int, say func(format string, args ...any)) (*Comparison, error) {
	c := &Comparison{Engine: t.engine, About: b.About(), Rounds: rounds}
	for round := range rounds {
		for turn := range 2 {
			if (round+turn)%2 == 0 {
				say("round %d of %d: rskv", round+1, rounds)
				o, err := b.Run(ctx)
				if err != nil {
					return nil, err
				}
				c.Ours = append(c.Ours, o)
				continue
			}
			say("round %d of %d: fio with %s", round+1, rounds, t.engine)
			o, err := t.Run(ctx, f)
			if err != nil {
				return nil, err
			}
			c.Theirs = append(c.Theirs, o)
		}
	}
	return c, c.sum()
}

// sum compares line by line.
func (c *Comparison) sum() error {
	for i, j := range c.Ours[0].Jobs {
		for _, o := range c.Theirs {
			if len(o.Jobs) != len(c.Ours[0].Jobs) || o.Jobs[i].Name != j.Name {
				return fmt.Errorf("fio reports %d jobs, rskv %d, or in another order", len(o.Jobs), len(c.Ours[0].Jobs))
			}
		}
		for _, s := range j.sides() {
			v := &Versus{Job: j.Name, Side: s.name}
			for _, m := range metrics {
				ours, theirs := series(c.Ours, i, s.name, m.of), series(c.Theirs, i, s.name, m.of)
				if len(ours) != c.Rounds || len(theirs) != c.Rounds {
					continue
				}
				v.Metrics = append(v.Metrics, Metric{
					Name: m.name, Unit: m.unit, More: m.more, Ours: measure.SpreadOf(scaled(ours, m.scale)),
					Theirs: measure.SpreadOf(scaled(theirs, m.scale)), Ratio: measure.SpreadOf(measure.Ratios(ours, theirs)),
				})
			}
			c.Lines = append(c.Lines, v)
		}
	}
	return nil
}

// series is a figure over the rounds, without those that do not have it.
func series(outputs []*Output, job int, side string, of func(*JobOutput, *SideOutput) float64) []float64 {
	var list []float64
	for _, o := range outputs {
		j := o.Jobs[job]
		s := &j.Read
		if side == "write" {
			s = &j.Write
		}
		if x := of(j, s); x > 0 {
			list = append(list, x)
		}
	}
	return list
}

func scaled(list []float64, unit float64) []float64 {
	out := make([]float64, len(list))
	for i, x := range list {
		out[i] = x / unit
	}
	return out
}

// WriteTable writes both figures and the ratio of each metric.
func (c *Comparison) WriteTable(w io.Writer) error {
	var out bytes.Buffer
	for _, line := range c.About {
		fmt.Fprintf(&out, "rskv: %s\n", line)
	}
	fmt.Fprintf(&out, "fio:  ioengine=%s\nmedian of %d interleaved rounds; ratio rskv/fio, median [least-most]\n", c.Engine, c.Rounds)
	tw := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "job\tdoes\tfigure\trskv\tfio\tunit\tratio\tbetter is\t")
	for _, v := range c.Lines {
		for _, m := range v.Metrics {
			better := "less"
			if m.More {
				better = "more"
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%.2f\t%.2f\t%s\t%.2f [%.2f-%.2f]\t%s\t\n", v.Job, v.Side, m.Name,
				m.Ours.Median, m.Theirs.Median, m.Unit, m.Ratio.Median, m.Ratio.Min, m.Ratio.Max, better)
		}
	}
	// Writing into a buffer cannot fail.
	_ = tw.Flush()
	_, err := out.WriteTo(w)
	return err
}
