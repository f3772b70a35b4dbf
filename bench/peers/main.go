// Command rskv-peers measures rskv beside the stores a Go program might use
// instead, in one run and in turn:
//
//	memory   in process, everything in memory: xsync, a sharded map, pebble,
//	         badger, bbolt
//	ordered  in process, scans of a prefix in the order of the keys: pebble
//	durable  in process, every put on stable storage before it is answered
//	client   goroutines on one client object: rskv, valkey-go and go-redis with
//	         redis-server, gomemcache with memcached, all on Unix sockets
//	synced   the same for puts that the server makes durable: by itself every
//	         second, or before it answers
//
// It is a module of its own, so that nobody who uses rskv pulls its peers in. Run
// it from its directory: go run . (see README.md in bench).
//
// memory.go, ordered.go and servers.go are the groups; stores.go and clients.go make peers
// into a kv.Store.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"rskv/bench/internal/kv"
	"rskv/bench/internal/live"
	"rskv/bench/internal/load"
	"rskv/bench/internal/measure"
	"rskv/bench/internal/peer"
)

func main() {
	ctx, stop := peer.UntilSignal()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "rskv-peers:", err)
		os.Exit(1)
	}
}

// groups in the order they run.
var groups = []struct {
	name string
	run  func(s *suite, ctx context.Context) error
}{
	{"memory", (*suite).memory},
	{"ordered", (*suite).ordered},
	{"durable", (*suite).durable},
	{"client", (*suite).client},
	{"synced", (*suite).synced},
}

// suite is one run.
type suite struct {
	dir    string // everything written goes below it, and is removed
	rskvd  string
	round  time.Duration
	keys   uint64
	report *measure.Report
	line   *live.Line
}

// run is the program without its process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	f := flag.NewFlagSet("rskv-peers", flag.ContinueOnError)
	f.SetOutput(stderr)
	only := f.String("only", "", "groups to run, of memory,ordered,durable,client,synced")
	rounds := f.Int("rounds", 5, "rounds of each row")
	round := f.Duration("time", time.Second, "length of a round")
	keys := f.Uint64("keys", 1_000_000, "keys of each store")
	file := f.String("json", "", "write everything to this file as JSON")
	parent := f.String("dir", os.TempDir(), "where data is written, and removed again")
	rskvd := f.String("rskvd", "", "the daemon's program (default: beside this one, else in PATH)")
	if err := f.Parse(args); err != nil {
		return err
	}
	names := strings.FieldsFunc(*only, func(r rune) bool { return r == ',' })
	for _, name := range names {
		known := false
		for _, g := range groups {
			known = known || g.name == name
		}
		if !known {
			return fmt.Errorf("there is no group %q", name)
		}
	}
	if f.NArg() > 0 || *rounds < 1 || *round <= 0 || *keys < 1000 {
		return errors.New("no arguments but flags; --rounds and --time above 0, --keys at least 1000")
	}
	dir, err := os.MkdirTemp(*parent, "rskv-peers-")
	if err != nil {
		return fmt.Errorf("make a directory for the data: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := &suite{dir: dir, rskvd: *rskvd, round: *round, keys: *keys, report: measure.NewReport(*rounds), line: live.New(stderr)}
	for _, g := range groups {
		if len(names) > 0 && !slices.Contains(names, g.name) {
			continue
		}
		if err := s.report.Part(g.name, s.line.Say, func() error { return g.run(s, ctx) }); err != nil {
			return err
		}
	}
	s.line.Done()
	return s.write(stdout, *file)
}

// write hands the report out.
func (s *suite) write(stdout io.Writer, file string) error {
	err := s.report.WriteTable(stdout)
	if file != "" {
		out, createErr := os.Create(file)
		if createErr != nil {
			return errors.Join(err, fmt.Errorf("write report: %w", createErr))
		}
		err = errors.Join(err, s.report.WriteJSON(out), out.Close())
	}
	if s.report.Failed() {
		err = errors.Join(err, errors.New("there were wrong answers, see the report"))
	}
	return err
}

// contestant is a store that is measured, or the reason why it is not.
type contestant struct {
	name    string
	commit  string
	store   kv.Store
	missing error
	ours    bool
}

// versus is what all contestants do in turn.
type versus struct {
	group, name, setting string
	load                 load.Load
	targets              map[string]float64 // by peer: least ratio of ours to it
}

// preload fills the contestants' stores. One that cannot be filled is missing.
func (s *suite) preload(ctx context.Context, list []*contestant, size int) error {
	for _, c := range list {
		if c.missing != nil {
			continue
		}
		s.line.Say("loading %d keys: %s", s.keys, c.name)
		l := load.Load{Keys: s.keys, ValueSize: size}
		if err := l.Preload(ctx, c.store); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			c.missing = fmt.Errorf("load: %w", err)
		}
	}
	return nil
}

// contest runs one load on all contestants in turn. Our rows carry the ratio to
// every peer.
func (s *suite) contest(ctx context.Context, v versus, list []*contestant) error {
	contenders := make([]measure.Contender, len(list))
	for i, c := range list {
		row := &measure.Row{
			Group: v.group, Name: v.name + ", " + c.name, Setting: v.setting, Commit: c.commit, Unit: "k/s", Scale: 1000,
			Line: c.name, X: new(float64), Axis: "goroutines",
		}
		*row.X = float64(v.load.Workers)
		if c.missing != nil {
			row.Missing = c.missing.Error()
		}
		contenders[i] = measure.Contender{Row: row, Run: func(ctx context.Context, d time.Duration) (measure.Sample, error) {
			l := v.load
			var counted load.Live
			l.Live = &counted
			stop := s.line.Watch(row.Group+" "+row.Name, d, func() (uint64, uint64) { return counted.Ops.Load(), counted.Nanos.Load() })
			defer stop()
			return l.Run(ctx, c.store, d)
		}}
	}
	s.line.Steps(len(list) * s.report.Rounds)
	err := measure.Interleave(ctx, s.report.Rounds, s.round, contenders, func(n int, r *measure.Row) {
		s.line.Step("%s, round %d of %d: %s", r.Group, n+1, s.report.Rounds, r.Name)
	})
	var peers []*measure.Row
	for i, c := range contenders {
		if !list[i].ours {
			peers = append(peers, c.Row)
		}
	}
	for i, c := range contenders {
		s.report.Rows = append(s.report.Rows, c.Row)
		c.Row.Finish(nil)
		if list[i].ours {
			c.Row.Versus(peers...)
			for j := range c.Row.Peers {
				_, name, _ := strings.Cut(c.Row.Peers[j].Name, v.name+", ")
				c.Row.Peers[j].Target = v.targets[name]
			}
		}
	}
	return err
}

// closeAll closes the stores of a group.
func closeAll(err *error, list []*contestant) {
	for _, c := range list {
		if c.store != nil {
			*err = errors.Join(*err, c.store.Close())
		}
	}
}
