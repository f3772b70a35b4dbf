package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rskv/bench/internal/kv"
	"rskv/bench/internal/load"
	"rskv/bench/internal/measure"
	"rskv/engine"
)

// category is a group of rows, of those that rskv in Rust published: the same
// parameters, but what is read was stored before, and the hit ratio is printed.
type category struct {
	name, about string
	run         func(r *runner, ctx context.Context) error
}

// categories in the order they run.
var categories = []category{
	{"write", "put by size of value, 1 B to 100 KB", (*runner).write},
	{"read", "get by size of value, and by share of the reads that memory answers", (*runner).read},
	{"mixed", "0 to 99 % reads", (*runner).mixed},
	{"threads", "1 to 32 threads, with the efficiency of scaling", (*runner).threads},
	{"concurrency", "1 to 1000 goroutines, in process and on one connection", (*runner).concurrency},
	{"batch", "1 to 1000 operations handed over together", (*runner).batch},
	{"scan", "walks over all keys, with values, without, by prefix; from disk beside fio", (*runner).scan},
	{"ordered", "the ordered index: scans of a range, what it costs writes, memory, collections and Open (2.5 GiB of memory)", (*runner).ordered},
	{"watch", "what a watch of all changes costs a writer", (*runner).watch},
	{"faster", "the setting of C++ FASTER's benchmark: 10 and 50 M keys of 8 + 8 B (5 GiB of memory)", (*runner).faster},
	{"durability", "checkpoints and commits under load, recovery, checksums (6.5 GiB of memory)", (*runner).durability},
	{"metrics", "what counting costs: the daemon beside bin/rskvd-nometrics (make bench-metrics)", (*runner).metrics},
	{"space", "compaction under load at half of the log live", (*runner).compaction},
	{"growth", "an index that grows to 64 times its keys (7 GiB of memory for --keys 64000000)", (*runner).indexGrowth},
	{"latency", "times of single operations at half of the load, beside flush, commits, checkpoints, compaction and growth", (*runner).latency},
	{"overhead", "garbage collection with 16 GiB configured; memory and wake-ups of an idle daemon", (*runner).overhead},
}

// parts of categories, which these run too.
var parts = []category{
	{"checkpoints", "of durability: YCSB A while a checkpoint is taken", (*runner).checkpoints},
	{"holds", "of durability: how long commits hold writers", (*runner).holds},
	{"resident", "of durability: data that fits into memory, while commits drive the log through", (*runner).resident},
	{"recovery", "of durability: Open, by replay and by snapshot", (*runner).recovery},
	{"checksums", "of durability: what checksums cost", (*runner).checksums},
}

// keysMin is the least number of keys with which the groups that take it say
// anything: more than a burst of every goroutine.
const keysMin = 10_000

// runner is one run of categories.
type runner struct {
	*suite
	round time.Duration
	keys  uint64 // of the groups about durability, space and growth
	small bool   // everything smaller: shows that it works, not how fast it is
}

type runFlags struct {
	smoke  bool
	rounds int
	keys   uint64
	time   time.Duration
	json   string
	dir    string
	rskvd  string
}

func runCommand() *cobra.Command {
	var f runFlags
	var about strings.Builder
	for _, c := range slices.Concat(categories, parts) {
		fmt.Fprintf(&about, "  %-12s %s\n", c.name, c.about)
	}
	c := &cobra.Command{
		Use:   "run GROUP...|all",
		Short: "figures by size, hit rate, mix, threads, goroutines and batches",
		Long:  "Measure the store by one parameter at a time:\n\n" + about.String() + "\nStores are loaded before, and every value read is checked.",
		Args: func(_ *cobra.Command, args []string) error {
			_, err := findCategories(args)
			return err
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := findCategories(args)
			if err != nil {
				return err
			}
			return f.run(cmd, list)
		},
	}
	flags := c.Flags()
	flags.BoolVar(&f.smoke, "smoke", false, "small and short: shows that it works, not how fast it is")
	flags.IntVar(&f.rounds, "rounds", 5, "rounds of each row")
	flags.DurationVar(&f.time, "time", time.Second, "length of a round")
	flags.Uint64Var(&f.keys, "keys", 10_000_000, "keys of the groups durability and space, at least 10000; with --smoke 20000")
	flags.StringVar(&f.json, "json", "", "write everything to this file as JSON; - for stdout, instead of the table")
	flags.StringVar(&f.dir, "dir", os.TempDir(), "where data is written, and removed again")
	flags.StringVar(&f.rskvd, "rskvd", "", "the daemon's program (default: beside this one, else in PATH)")
	return c
}

// findCategories finds the categories with these names, in their own order.
func findCategories(names []string) ([]category, error) {
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: no group given (rskv-bench help run lists them)", errUsage)
	}
	if slices.Equal(names, []string{"all"}) {
		return categories, nil
	}
	known := slices.Concat(categories, parts)
	for _, name := range names {
		if !slices.ContainsFunc(known, func(c category) bool { return c.name == name }) {
			return nil, fmt.Errorf("%w: there is no group %q (rskv-bench help run lists them)", errUsage, name)
		}
	}
	return slices.DeleteFunc(known, func(c category) bool { return !slices.Contains(names, c.name) }), nil
}

func (f *runFlags) run(cmd *cobra.Command, list []category) (err error) {
	if f.rounds < 1 || f.time <= 0 {
		return fmt.Errorf("%w: --rounds and --time must be above 0", errUsage)
	}
	if f.keys < keysMin {
		return fmt.Errorf("%w: --keys %d: want at least %d", errUsage, f.keys, keysMin)
	}
	if f.smoke {
		f.keys = min(f.keys, 2*keysMin)
		f.rounds, f.time = min(f.rounds, 2), min(f.time, 50*time.Millisecond)
	}
	s, err := newSuite(cmd, f.dir, f.rskvd, f.rounds)
	if err != nil {
		return err
	}
	defer s.close(&err)
	r := &runner{suite: s, round: f.time, keys: f.keys, small: f.smoke}
	for _, c := range list {
		if err := r.report.Part(c.name, r.line.Say, func() error { return c.run(r, cmd.Context()) }); err != nil {
			return err
		}
	}
	return s.write(cmd, f.json)
}

// series is one row to be: a point on a line of its group's plot.
type series struct {
	name  string // of the row
	line  string // of the plot
	x     float64
	store *opened
	load  load.Load
	// target is the least rate in k/s, 0 if there is none.
	target float64
	// single is the row of the same line with one thread, which the efficiency of
	// scaling is against.
	single bool
}

// opened is a store in use by rows.
type opened struct {
	kv.Store
	about string // how it was opened
}

// engine opens a store of the group's own with a memory budget in bytes. Commits
// are off, as they were in the figures of rskv in Rust.
func (r *runner) engine(name string, memory int64, keys uint64) (*opened, error) {
	s, err := kv.OpenEngine(engine.Options{
		Dir: filepath.Join(r.dir, name), Memory: memory, CommitInterval: -1, IndexBits: indexBits(keys, memory),
	})
	if err != nil {
		return nil, err
	}
	return &opened{s, fmt.Sprintf("store in process, memory %s", mib(memory))}, nil
}

// measure runs rows side by side and finishes them. axis says what their x counts.
func (r *runner) measure(ctx context.Context, group, axis, setting string, list []series) error {
	contenders := make([]measure.Contender, len(list))
	before := make([]kv.Usage, len(list))
	for i, s := range list {
		row := &measure.Row{
			Group: group, Name: s.name, Line: s.line, X: ref(s.x), Axis: axis, Commit: "off", Unit: "k/s", Scale: 1000,
			Setting: fmt.Sprintf("%s, %s; %s keys of %d B, preloaded; every value checked", s.store.about, setting, count(s.load.Keys), load.KeySize),
		}
		if s.target > 0 {
			row.Target = &list[i].target
		}
		var counted load.Live
		s.load.Live = &counted
		var use kv.Usage // of all rounds of this row
		contenders[i] = measure.Contender{Row: row, Run: func(ctx context.Context, d time.Duration) (measure.Sample, error) {
			stop := r.line.Watch(group+" "+s.name, d, func() (uint64, uint64) { return counted.Ops.Load(), counted.Nanos.Load() })
			defer stop()
			from := s.store.Usage()
			sample, err := s.load.Run(ctx, s.store, d)
			use = grown(use, from, s.store.Usage())
			before[i] = use
			return sample, err
		}}
	}
	r.line.Steps(len(list) * r.report.Rounds)
	if err := r.interleave(ctx, r.round, contenders); err != nil {
		return err
	}
	for i, c := range contenders {
		c.Row.Finish(nil)
		noteReads(c.Row, before[i])
		if mean := c.Row.Rate.Median; list[i].load.ValueSize > 0 && mean > 0 {
			c.Row.Note("%.0f MB/s of keys and values", mean*c.Row.Scale*float64(list[i].load.ValueSize+load.KeySize)/1e6)
		}
	}
	efficiency(list, contenders)
	return nil
}

// grown adds what a round used.
func grown(sum, from, to kv.Usage) kv.Usage {
	sum.Reads += to.Reads - from.Reads
	sum.Cold += to.Cold - from.Cold
	sum.DeviceReads += to.DeviceReads - from.DeviceReads
	sum.DeviceRead += to.DeviceRead - from.DeviceRead
	sum.Writes += to.Writes - from.Writes
	sum.Disk, sum.Memory = to.Disk, to.Memory
	return sum
}

// noteReads says how many reads went to the device, and what they read there.
func noteReads(row *measure.Row, u kv.Usage) {
	if u.Reads == 0 || len(row.Rates) == 0 {
		return
	}
	row.Cold = ref(min(float64(u.Cold)/float64(u.Reads), 1))
	if u.DeviceReads > 0 {
		row.Note("%.3f device reads and %.0f bytes read from the device for each get", float64(u.DeviceReads)/float64(u.Reads),
			float64(u.DeviceRead)/float64(u.Reads))
	}
}

// efficiency tells of every row on a line with a single-threaded one how much of
// the ideal it reached: so many times that one, as there are threads or
// processors, whichever are fewer.
func efficiency(list []series, contenders []measure.Contender) {
	for i, s := range list {
		for j, one := range list {
			if !one.single || one.line != s.line || contenders[j].Row.Rate.Median == 0 {
				continue
			}
			row := contenders[i].Row
			ideal := min(s.x, float64(runtime.GOMAXPROCS(0)))
			row.Efficiency = ref(row.Rate.Median / contenders[j].Row.Rate.Median / ideal)
		}
	}
}

// preload fills a store.
func (r *runner) preload(ctx context.Context, s *opened, keys uint64, size int) error {
	r.line.Say("loading %s keys with values of %s: %s", count(keys), bytesWords(size), s.about)
	l := load.Load{Keys: keys, ValueSize: size}
	return l.Preload(ctx, s)
}

// closeAll closes stores at the end of a group.
func closeAll(err *error, stores *[]*opened) {
	for _, s := range *stores {
		*err = errors.Join(*err, s.Close())
	}
}

// bytesWords prints a size as rskv in Rust did: 1 KB is 1024 bytes.
func bytesWords(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// plural prints a number of things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
