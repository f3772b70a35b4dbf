package main

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rskv/bench/internal/kv"
	"rskv/bench/internal/live"
	"rskv/bench/internal/measure"
	"rskv/bench/internal/ycsb"
	"rskv/engine"
)

// ycsbFlags are the arguments of the command.
type ycsbFlags struct {
	on         []string
	properties []string
	rounds     int
	time       time.Duration
	memory     int64 // MiB
	commit     time.Duration
	json       string
	dir        string
	rskvd      string
}

// ycsbStores are what workloads can run on.
var ycsbStores = []string{"engine", "socket"}

func ycsbCommand() *cobra.Command {
	var f ycsbFlags
	c := &cobra.Command{
		Use:   "ycsb [A|B|C|D|E|F|FILE]...",
		Short: "run YCSB's workloads on the store in process and through the socket",
		Long: "Run the core workloads of YCSB, or property files with YCSB's own names, on the\n" +
			"store in process (engine) and through a daemon (socket), interleaved. Records are\n" +
			"loaded before. With -p target=N operations begin at intended times, and latency\n" +
			"counts from there.",
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	flags := c.Flags()
	flags.StringSliceVar(&f.on, "on", ycsbStores, "stores to run on")
	flags.StringArrayVarP(&f.properties, "property", "p", nil, "set a property, name=value; may be repeated")
	flags.IntVar(&f.rounds, "rounds", 5, "rounds of each workload on each store")
	flags.DurationVar(&f.time, "time", 2*time.Second, "length of a round, unless operationcount or maxexecutiontime is set")
	flags.Int64Var(&f.memory, "memory", 256, "memory of the store in MiB")
	flags.DurationVar(&f.commit, "commit-interval", time.Second, "how often the store commits; 0: never")
	flags.StringVar(&f.json, "json", "", "write everything to this file as JSON; - for stdout, instead of the table")
	flags.StringVar(&f.dir, "dir", os.TempDir(), "where data is written, and removed again")
	flags.StringVar(&f.rskvd, "rskvd", "", "the daemon's program (default: beside this one, else in PATH)")
	return c
}

func (f *ycsbFlags) check() error {
	switch {
	case f.rounds < 1:
		return fmt.Errorf("%w: --rounds %d: want at least 1", errUsage, f.rounds)
	case f.time <= 0:
		return fmt.Errorf("%w: --time %s: want more than 0", errUsage, f.time)
	case f.commit < 0:
		return fmt.Errorf("%w: --commit-interval %s: want 0 or more", errUsage, f.commit)
	case f.memory<<20 < engine.MemoryMin:
		return fmt.Errorf("%w: --memory %d: want at least %d", errUsage, f.memory, engine.MemoryMin>>20)
	}
	for _, name := range f.on {
		if !slices.Contains(ycsbStores, name) {
			return fmt.Errorf("%w: --on %s: want some of %s", errUsage, name, strings.Join(ycsbStores, ","))
		}
	}
	return nil
}

// workloads loads what the arguments name, all six without any.
func (f *ycsbFlags) workloads(names []string) ([]*ycsb.Workload, error) {
	if len(names) == 0 {
		names = []string{"A", "B", "C", "F", "D", "E"} // YCSB's order: those that insert come last
	}
	list := make([]*ycsb.Workload, len(names))
	for i, name := range names {
		w, err := ycsb.Load(name, f.properties)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errUsage, err)
		}
		if first := list[0]; i > 0 && !ycsb.NewSpace(first).Fits(w) {
			return nil, fmt.Errorf("%w: workloads %s and %s have different records, run them apart", errUsage, first.Name, w.Name)
		}
		list[i] = w
	}
	return list, nil
}

func (f *ycsbFlags) run(cmd *cobra.Command, names []string) (err error) {
	if err := f.check(); err != nil {
		return err
	}
	workloads, err := f.workloads(names)
	if err != nil {
		return err
	}
	s, err := newSuite(cmd, f.dir, f.rskvd, f.rounds)
	if err != nil {
		return err
	}
	defer s.close(&err)
	if err := s.report.Part("ycsb", s.line.Say, func() error { return f.all(cmd.Context(), s, workloads) }); err != nil {
		return err
	}
	return s.write(cmd, f.json)
}

// all runs workloads one after the other.
func (f *ycsbFlags) all(ctx context.Context, s *suite, workloads []*ycsb.Workload) (err error) {
	stores, err := f.open(ctx, s, workloads[0])
	defer func() {
		for _, t := range stores {
			err = errors.Join(err, t.store.Close())
		}
	}()
	if err != nil {
		return err
	}
	s.line.Steps(f.rounds * len(workloads) * len(stores))
	for _, w := range workloads {
		if err := f.workload(ctx, s, w, stores); err != nil {
			return err
		}
	}
	return nil
}

// loaded is a store with its records.
type loaded struct {
	name  string
	store kv.Store
	space *ycsb.Space
}

// open makes the stores and loads them.
func (f *ycsbFlags) open(ctx context.Context, s *suite, w *ycsb.Workload) ([]*loaded, error) {
	var list []*loaded
	for _, name := range f.on {
		t := &loaded{name: name, space: ycsb.NewSpace(w)}
		var err error
		switch name {
		case "engine":
			commit := f.commit
			if commit == 0 {
				commit = -1
			}
			t.store, err = kv.OpenEngine(engine.Options{
				Dir: filepath.Join(s.dir, "ycsb-engine"), Memory: f.memory << 20, CommitInterval: commit,
				IndexBits: indexBits(w.Records, f.memory<<20),
			})
		case "socket":
			t.store, err = kv.OpenSocket(ctx, kv.SocketOptions{RSKVD: f.rskvd, Dir: s.dir, Memory: f.memory << 20, Commit: f.commit})
		}
		if err != nil {
			return list, err
		}
		list = append(list, t)
		s.line.Say("loading %s records of %d B: %s", count(w.Records), w.Size(), name)
		if err := t.space.Preload(ctx, t.store); err != nil {
			return list, err
		}
	}
	return list, nil
}

// indexBits is an index for that many keys, but never more than a quarter of the
// memory.
func indexBits(keys uint64, memory int64) int {
	want := bits.Len64(max(keys/keysPerBucket, 1024) - 1)
	return min(want, bits.Len64(uint64(memory)/4/64)-1)
}

// workload runs one workload on all stores in turn.
func (f *ycsbFlags) workload(ctx context.Context, s *suite, w *ycsb.Workload, stores []*loaded) error {
	contenders := make([]measure.Contender, len(stores))
	results := make([]*ycsb.Result, len(stores))
	before := make([]kv.Usage, len(stores))
	seed := uint64(0)
	for i, t := range stores {
		before[i] = t.store.Usage()
		results[i] = &ycsb.Result{}
		row := &measure.Row{
			Group: "YCSB " + w.Name, Name: t.name, Setting: f.setting(w), Commit: commitWords(f.commit), Unit: "k/s", Scale: 1000,
		}
		contenders[i] = measure.Contender{Row: row, Run: func(ctx context.Context, round time.Duration) (measure.Sample, error) {
			d := w.Time
			if d == 0 && w.Operations == 0 {
				d = round
			}
			seed++
			var counted ycsb.Live
			stop := s.line.Watch(row.Group+" "+row.Name, d, func() (uint64, uint64) { return counted.Ops.Load(), counted.Nanos.Load() })
			defer stop()
			r, err := w.Run(ctx, t.store, t.space, d, seed, &counted)
			if err != nil {
				return measure.Sample{}, err
			}
			results[i].Take(r)
			return r.Sample, nil
		}}
	}
	err := s.interleave(ctx, f.time, contenders)
	for i, c := range contenders {
		c.Row.Finish(nil)
		if len(c.Row.Rates) > 0 {
			noteUsage(c.Row, results[i].Ops, before[i], stores[i].store.Usage())
			noteResult(c.Row, results[i])
		}
	}
	return err
}

func (f *ycsbFlags) setting(w *ycsb.Workload) string {
	loop := "closed loop"
	if w.Target > 0 {
		loop = fmt.Sprintf("open loop at %g ops/s, latency from the intended start", w.Target)
	}
	batch := ""
	if w.Batch > 1 {
		batch = fmt.Sprintf(", batches of %d", w.Batch)
	}
	return fmt.Sprintf("%s records of %d B, %s, %d threads%s, %s, memory %d MiB, preloaded; every value checked",
		count(w.Records), w.Size(), w.Distribution, w.Threads, batch, loop, f.memory)
}

func commitWords(d time.Duration) string {
	if d <= 0 {
		return "off"
	}
	return d.String()
}

// noteResult says what was done, and how late.
func noteResult(row *measure.Row, r *ycsb.Result) {
	var parts []string
	for k, n := range r.Counts {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, ycsb.Kinds[k]))
		}
	}
	row.Note("%s", strings.Join(parts, ", "))
	if r.Service != nil {
		row.Note("from the actual start: p50 %s, p99 %s; the last operation began %s late",
			nanos(r.Service.ValueAtQuantile(50)), nanos(r.Service.ValueAtQuantile(99)), r.Behind.Round(time.Microsecond))
	}
}

// noteUsage says what the rounds cost: space, and reads from the device.
func noteUsage(row *measure.Row, ops uint64, before, after kv.Usage) {
	row.Note("%.1f MiB on disk, memory %d MiB", float64(after.Disk)/(1<<20), after.Memory>>20)
	reads, cold := after.Reads-before.Reads, after.Cold-before.Cold
	if reads > 0 {
		row.Cold = ref(min(float64(cold)/float64(reads), 1))
		row.Note("%.2f%% of the reads were cold; %.3f device reads and %.0f bytes read for each operation", *row.Cold*100,
			float64(after.DeviceReads-before.DeviceReads)/float64(max(ops, 1)), float64(after.DeviceRead-before.DeviceRead)/float64(max(ops, 1)))
	}
}

func nanos(ns int64) string { return live.Short(float64(ns)/1000) + " us" }
