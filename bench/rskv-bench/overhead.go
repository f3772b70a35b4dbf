package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	"rskv/bench/internal/load"
	"rskv/bench/internal/measure"
	"rskv/bench/internal/peer"
	"rskv/bench/internal/wire"
	"rskv/client"
	"rskv/engine"
)

// overheadSetting is the size of what is measured.
type overheadSetting struct {
	memory   int64  // of the store beside a collection
	keys     uint64 // in it
	sessions int
	daemon   int64         // the daemon's budget
	settle   time.Duration // from its last request until it counts as idle
	idle     time.Duration // how long it is watched then
}

func (r *runner) overheadSetting() overheadSetting {
	if r.small {
		return overheadSetting{memory: 64 << 20, keys: 2 * keysMin, sessions: 10, daemon: 32 << 20, settle: 200 * time.Millisecond, idle: 300 * time.Millisecond}
	}
	return overheadSetting{memory: 16 << 30, keys: r.keys, sessions: 1000, daemon: 256 << 20, settle: 5 * time.Second, idle: 2 * time.Minute}
}

// overhead is what a store and its daemon need besides what they do: the garbage
// collector's work, memory over the budget, wake-ups while nobody asks.
func (r *runner) overhead(ctx context.Context) error {
	return inTurn(ctx, r.collection, r.idleDaemon)
}

func overheadRow(name, unit, setting string) *measure.Row {
	return &measure.Row{Group: "what the store and its daemon need besides", Name: name, Unit: unit, Scale: 1, Commit: "1 s", Setting: setting}
}

// collection is a full collection of the Go heap beside a large store in process.
func (r *runner) collection(ctx context.Context) (err error) {
	o := r.overheadSetting()
	r.line.Say("loading %s keys into a store of %s", count(o.keys), mib(o.memory))
	store, err := engine.Open(engine.Options{Dir: filepath.Join(r.dir, "collection"), Memory: o.memory, IndexBits: smallIndex(o.keys)})
	if err != nil {
		return err
	}
	s := &small{store: store, keys: o.keys}
	defer r.discard(&err, s, "collection")
	if err := s.preload(); err != nil {
		return err
	}
	sessions := make([]*engine.Session, o.sessions)
	for i := range sessions {
		sessions[i] = store.NewSession()
		defer sessions[i].Close()
	}
	runtime.GC() // what the loading has left behind
	row := overheadRow("full collection of the Go heap", "ms",
		fmt.Sprintf("store in process with a budget of %s, %s keys x (8+8 B), %d sessions; the wall time of runtime.GC", mib(o.memory), count(o.keys), o.sessions))
	for range r.report.Rounds {
		if err := ctx.Err(); err != nil {
			return err
		}
		begin := time.Now()
		runtime.GC()
		row.Rates = append(row.Rates, float64(time.Since(begin))/1e6)
	}
	row.Finish(nil)
	r.report.Rows = append(r.report.Rows, row)
	return nil
}

// idleDaemon is a daemon whose memory has been filled, and that nobody asks.
func (r *runner) idleDaemon(ctx context.Context) (err error) {
	o := r.overheadSetting()
	setting := fmt.Sprintf("budget %s, filled twice over by values of 1000 B; watched for %v, from %v after the last request on; one connection open", mib(o.daemon), o.idle, o.settle)
	memory, wakes, cpu := overheadRow("idle daemon: memory over the budget", "MiB", setting),
		overheadRow("idle daemon: wake-ups", "/s", setting), overheadRow("idle daemon: processor time", "us/s", setting)
	r.report.Rows = append(r.report.Rows, memory, wakes, cpu)
	server, err := peer.RSKVD(ctx, r.rskvd, r.dir, o.daemon, time.Second)
	if err != nil {
		for _, row := range []*measure.Row{memory, wakes, cpu} {
			row.Missing = err.Error()
		}
		return ctx.Err()
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	l := wire.Load{Dialect: wire.RSKV{}, Socket: server.Socket, Connections: 1, Window: 64, Keys: uint64(2 * o.daemon / (1000 + load.KeySize)), ValueSize: 1000}
	r.line.Say("filling the daemon's memory")
	if err := l.Preload(ctx); err != nil {
		return err
	}
	idle, err := client.Dial(ctx, server.Socket)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, idle.Close()) }()
	if err := sleep(ctx, o.settle); err != nil {
		return err
	}
	return watchIdle(ctx, server.Pid(), o, memory, wakes, cpu)
}

// watchIdle fills the rows about an idle process.
func watchIdle(ctx context.Context, pid int, o overheadSetting, memory, wakes, cpu *measure.Row) error {
	before, err := measure.ProcessWakes(pid)
	used, begin := measure.ProcessCPU(pid), time.Now()
	if err == nil {
		err = sleep(ctx, o.idle)
	}
	took := time.Since(begin).Seconds()
	resident, memoryErr := measure.ProcessMemory(pid)
	after, wakesErr := measure.ProcessWakes(pid)
	if err := errors.Join(err, memoryErr, wakesErr); err != nil {
		for _, row := range []*measure.Row{memory, wakes, cpu} {
			row.Missing = err.Error()
		}
		return ctx.Err()
	}
	memory.Rates = []float64{float64(resident-o.daemon) / (1 << 20)}
	memory.Note("resident %s", mib(resident))
	wakes.Rates = []float64{float64(after-before) / took}
	wakes.Note("voluntary context switches of all its threads")
	cpu.Rates = []float64{float64(measure.ProcessCPU(pid)-used) / 1e3 / took}
	for _, row := range []*measure.Row{memory, wakes, cpu} {
		row.Finish(nil)
	}
	return nil
}
