package measure

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is a whole run.
type Report struct {
	Date    time.Time `json:"date"`
	Command []string  `json:"command"`
	Machine Machine   `json:"machine"`
	Commit  string    `json:"commit,omitempty"` // of the source, where the build knows it
	Rounds  int       `json:"rounds"`
	Rows    []*Row    `json:"rows"`
	Took    []Took    `json:"took,omitempty"` // in the order they ran
}

// Took is how long a part of a run took, loading included.
type Took struct {
	Part    string  `json:"part"`
	Seconds float64 `json:"seconds"`
}

// Part does a part of the run, and says how long it took.
func (r *Report) Part(name string, say func(format string, args ...any), do func() error) error {
	begin := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	t := Took{name, time.Since(begin).Seconds()}
	r.Took = append(r.Took, t)
	say("%s took %.0f s", t.Part, t.Seconds)
	return nil
}

// Machine is where it ran.
type Machine struct {
	Processor string `json:"processor"`
	Cores     int    `json:"cores"`
	Memory    string `json:"memory,omitempty"`
	System    string `json:"system"`
	Go        string `json:"go"`
	Load      string `json:"load,omitempty"` // load averages when it began
}

// NewReport describes this run and this machine.
func NewReport(rounds int) *Report {
	r := &Report{
		Date: time.Now().UTC().Truncate(time.Second), Command: os.Args, Rounds: rounds,
		Machine: Machine{
			Processor: field("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(),
			Memory: memory(), Go: runtime.Version(),
			System: runtime.GOOS + "/" + runtime.GOARCH,
		},
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		r.Machine.System += " " + strings.TrimSpace(string(b))
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		if f := strings.Fields(string(b)); len(f) > 3 {
			r.Machine.Load = strings.Join(f[:3], " ")
		}
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				r.Commit = s.Value + r.Commit
			case s.Key == "vcs.modified" && s.Value == "true":
				r.Commit += " and changes"
			}
		}
	}
	if r.Commit == "" {
		r.Commit = checkedOut()
	}
	return r
}

// checkedOut is the commit of the repository that the program lies in, for builds
// that were told not to look (-buildvcs=false); "" outside of one.
func checkedOut() string {
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", append([]string{"-C", filepath.Dir(self)}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	commit, err := git("rev-parse", "HEAD")
	if err != nil {
		return ""
	}
	if changes, err := git("status", "--porcelain", "--untracked-files=no"); err != nil || changes != "" {
		commit += " and changes"
	}
	return commit
}

// memory is the machine's memory, "" where the system does not tell.
func memory() string {
	var kib float64
	if _, err := fmt.Sscanf(field("/proc/meminfo", "MemTotal"), "%f kB", &kib); err != nil {
		return ""
	}
	return fmt.Sprintf("%.1f GiB", kib/(1<<20))
}

// field returns what stands behind the first "name :" in a file, "" if nothing.
func field(file, name string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// Failed reports whether a row met a wrong answer.
func (r *Report) Failed() bool {
	for _, row := range r.Rows {
		if row.Failed != "" {
			return true
		}
	}
	return false
}

// WriteJSON writes everything, for programs.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// WriteTable writes a table for people, group by group.
func (r *Report) WriteTable(w io.Writer) error {
	var out bytes.Buffer
	m := r.Machine
	fmt.Fprintf(&out, "%s\n%s, %d cores, %s, %s, %s; load %s\n", r.Date.Format(time.RFC3339),
		m.Processor, m.Cores, m.Memory, m.System, m.Go, m.Load)
	if r.Commit != "" {
		fmt.Fprintf(&out, "source %s\n", r.Commit)
	}
	fmt.Fprintf(&out, "median of %d interleaved rounds [least-most]; ratios are taken round by round\n", r.Rounds)
	for i := 0; i < len(r.Rows); {
		n := i
		for n < len(r.Rows) && r.Rows[n].Group == r.Rows[i].Group {
			n++
		}
		writeGroup(&out, r.Rows[i:n])
		i = n
	}
	_, err := out.WriteTo(w)
	return err
}

func writeGroup(out *bytes.Buffer, rows []*Row) {
	fmt.Fprintf(out, "\n%s\n", rows[0].Group)
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	scaling := ""
	if slices.ContainsFunc(rows, func(r *Row) bool { return r.Efficiency != nil }) {
		scaling = "\tefficiency"
	}
	fmt.Fprintln(tw, "  what\tmedian\tspread\tunit\thit\tcold\tcommit\tp50/99/99.9/99.99 us\tCPU/op\tratio\ttarget\tto"+scaling)
	for _, r := range rows {
		fmt.Fprintf(tw, "  %s\t%s\t%s\n", r.Name, strings.Join(r.cells(), "\t"), percent(r.Efficiency))
	}
	// Writing into a buffer cannot fail.
	_ = tw.Flush()
	for _, line := range sayings(rows) {
		fmt.Fprintf(out, "  - %s\n", line)
	}
}

// sayings are what is to be said of a group's rows besides their figures.
func sayings(rows []*Row) (list []string) {
	said := ""
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	for _, r := range rows {
		if r.Setting != said {
			said = r.Setting
			say("%s: %s", r.Name, r.Setting)
		}
		for _, n := range r.Notes {
			say("%s: %s", r.Name, n)
		}
		if t := r.Control; t != nil {
			say("%s: %s", r.Name, t)
		}
		for _, p := range r.Peers {
			say("%s: %.2f [%.2f-%.2f] times %s%s", r.Name, p.Ratio.Median, p.Ratio.Min, p.Ratio.Max, p.Name, p.verdict())
		}
		if r.Missing != "" {
			say("%s: not measured: %s", r.Name, r.Missing)
		}
		if r.Failed != "" {
			say("%s: FAILED: %s", r.Name, r.Failed)
		}
	}
	return list
}

// verdict says what became of the target.
func (p *Peer) verdict() string {
	switch {
	case p.Target == 0:
		return ""
	case p.Ratio.Median >= p.Target:
		return fmt.Sprintf(", target %g met", p.Target)
	}
	return fmt.Sprintf(", target %g missed", p.Target)
}

// cells are the columns of a row behind its name.
func (r *Row) cells() []string {
	if len(r.Rates) == 0 {
		return []string{"-", "", r.Unit, "", "", r.Commit, "", "", "", "", ""}
	}
	c := []string{
		Number(r.Rate.Median), fmt.Sprintf("[%s-%s]", Number(r.Rate.Min), Number(r.Rate.Max)), r.Unit,
		percent(r.Hit), percent(r.Cold), r.Commit, "", "", "", "", r.Against,
	}
	if r.P50 != nil && r.P99 != nil {
		c[6] = r.percentiles()
	}
	if r.CPU != nil {
		c[7] = duration(*r.CPU)
	}
	if r.Ratio != nil {
		c[8] = fmt.Sprintf("%.2f [%.2f-%.2f]", r.Ratio.Median, r.Ratio.Min, r.Ratio.Max)
	}
	if met, known := r.Met(); known {
		verdict := "missed"
		if met {
			verdict = "met"
		}
		c[9] = fmt.Sprintf("%g %s", *r.Target, verdict)
	}
	return c
}

func (t *Tail) String() string {
	return fmt.Sprintf("the control beside it: p50 %s us, p99 %s us, p99.9 %s us, p99.99 %s us, longest %s us",
		Number(t.P50), Number(t.P99), Number(t.P999), Number(t.P9999), Number(t.Max))
}

// percentiles prints the latencies of a row.
func (r *Row) percentiles() string {
	text := Number(*r.P50) + "/" + Number(*r.P99)
	for _, p := range []*float64{r.P999, r.P9999} {
		if p != nil {
			text += "/" + Number(*p)
		}
	}
	return text
}

// percent prints a share, nothing if it is not known.
func percent(share *float64) string {
	if share == nil {
		return ""
	}
	return fmt.Sprintf("%.4g%%", *share*100)
}

// Number prints three significant digits without an exponent.
func Number(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// duration prints nanoseconds.
func duration(ns float64) string {
	if ns >= 1000 {
		return Number(ns/1000) + " us"
	}
	return Number(ns) + " ns"
}

// CommandLine is the command as it was given, its program without a directory.
func (r *Report) CommandLine() string {
	if len(r.Command) == 0 {
		return ""
	}
	return strings.Join(append([]string{filepath.Base(r.Command[0])}, r.Command[1:]...), " ")
}

// Markdown writes every group as a table, and what is to be said of its rows.
func (r *Report) Markdown(out *bytes.Buffer) {
	for i, row := range r.Rows {
		if i == 0 || r.Rows[i-1].Group != row.Group {
			fmt.Fprintf(out, "\n### %s\n\n", row.Group)
			out.WriteString("| | median | least-most | unit | hit | cold | commit | p50/99/99.9/99.99 us | CPU/op | ratio | target | to |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n")
		}
		fmt.Fprintf(out, "| %s | %s |\n", row.Name, strings.Join(row.cells(), " | "))
		if i+1 == len(r.Rows) || r.Rows[i+1].Group != row.Group {
			first := i
			for first > 0 && r.Rows[first-1].Group == row.Group {
				first--
			}
			said := sayings(r.Rows[first : i+1])
			if len(said) > 0 {
				out.WriteString("\n")
			}
			for _, line := range said {
				fmt.Fprintf(out, "- %s\n", line)
			}
		}
	}
}
