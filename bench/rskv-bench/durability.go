package main

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"rskv/bench/internal/draw"
	"rskv/bench/internal/kv"
	"rskv/bench/internal/load"
	"rskv/bench/internal/measure"
	"rskv/engine"
	"rskv/ioring"
)

const (
	// writers is how many goroutines load the store in the groups about durability
	// and space.
	writers = 2
	// keyMemory is the memory in bytes for a key of 8 + 8 B that is to stay in it:
	// 59 are needed.
	keyMemory = 107
	// copies is how much more where every checkpoint and commit has records appended
	// anew instead of written over.
	copies = 2
)

// durability is what it costs that data survives: checkpoints and commits under
// load, what these drive out of memory, recovery, checksums.
func (r *runner) durability(ctx context.Context) error {
	return inTurn(ctx, r.checkpoints, r.holds, r.resident, r.recovery, r.checksums)
}

// inTurn does the parts of a group one after the other, up to the first error.
func inTurn(ctx context.Context, parts ...func(context.Context) error) error {
	for _, part := range parts {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// memoryFor is a budget in bytes that keeps the keys in memory, n times over.
func memoryFor(keys uint64, n int64) int64 { return max(64<<20, int64(keys)*keyMemory) * n }

// smallStore makes a store of keys of 8 B and values of 8 B, and loads it. Neither
// checkpoints nor compaction happen by themselves.
func (r *runner) smallStore(name string, opt engine.Options, keys uint64) (*small, error) {
	r.line.Say("loading %s keys of 8 B with values of 8 B", count(keys))
	opt.Dir, opt.CheckpointDistance, opt.LiveRatio = filepath.Join(r.dir, name), -1, -1
	if opt.IndexBits == 0 {
		opt.IndexBits = smallIndex(keys)
	}
	store, err := engine.Open(opt)
	if err != nil {
		return nil, err
	}
	s := &small{store: store, keys: keys}
	if err := s.preload(); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return s, nil
}

// smallIndex is the size of an index for so many keys, as Options.IndexBits.
func smallIndex(keys uint64) int { return max(6, bits.Len64(keys/keysPerBucket-1)) }

// discard closes a store and removes it, so that the next one has its room.
func (r *runner) discard(err *error, s *small, name string) {
	s.close(err)
	*err = errors.Join(*err, os.RemoveAll(filepath.Join(r.dir, name)))
}

// figure appends a row that is one figure: not a rate, and of no round.
func (r *runner) figure(like *measure.Row, name, unit string, value float64) *measure.Row {
	row := &measure.Row{Group: like.Group, Name: name, Setting: like.Setting, Commit: like.Commit, Unit: unit, Scale: 1, Rates: []float64{value}}
	row.Finish(nil)
	r.report.Rows = append(r.report.Rows, row)
	return row
}

// ran hands the rows to the report after their rounds.
func (r *runner) ran(ctx context.Context, contenders []measure.Contender) error {
	r.line.Steps(len(contenders) * r.report.Rounds)
	return r.interleave(ctx, r.round, contenders)
}

// turnOver writes keys anew, with commits, until the log has gone through memory once:
// from then on all of that memory has come from the system, which on a virtual machine
// may take longer than what is to be measured. Puts only: gets might wait for the
// device.
func (r *runner) turnOver(ctx context.Context, s *small) error {
	from := s.store.Stats()
	until := from.LogTail + from.MemoryLog
	if r.small {
		until = from.LogTail + from.MemoryLog/8
	}
	for s.store.Stats().LogTail < until {
		if _, err := s.runMix(fasterMix{name: "puts"}, writers, uniformOver(r.keys), r.round/4); err != nil {
			return err
		}
		if _, err := s.store.Sync(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// uniformOver draws from keys, differently for every thread and round.
func uniformOver(keys uint64) func(int) draw.Source {
	return func(int) draw.Source { return draw.NewUniform(keys, rand.Uint64()) }
}

// sleep waits for d, or until the context ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// checkpoints is the load of YCSB A from the request of a checkpoint to a round's
// length after it is durable, of both kinds, beside the same load without.
func (r *runner) checkpoints(ctx context.Context) (err error) {
	memory := memoryFor(r.keys, copies)
	var stores [3]*small
	for i, name := range []string{"checkpointed", "imaged", "unchecked"} {
		if stores[i], err = r.smallStore(name, engine.Options{Memory: memory, CommitInterval: -1}, r.keys); err != nil {
			return err
		}
		defer r.discard(&err, stores[i], name)
		if err := r.turnOver(ctx, stores[i]); err != nil {
			return err
		}
	}
	row := func(name string) *measure.Row {
		return &measure.Row{
			Group: "a checkpoint under load", Name: name, Commit: "off", Unit: "M/s", Scale: 1e6, Threads: writers,
			Setting: fmt.Sprintf("%s keys x (8+8 B), preloaded, uniform, 50 %% reads, %d goroutines, batches of 32, memory %s, all of it in use before; every value read checked; measured from the request of the checkpoint to %v after it is durable, and about as long without",
				count(r.keys), writers, mib(memory), r.round),
		}
	}
	length := 2 * r.round // of the last round with a checkpoint
	taking := func(s *small, name string, kind engine.CheckpointKind) *checkpointed {
		c := &checkpointed{row: row(name)}
		c.run = func(ctx context.Context, d time.Duration) (measure.Sample, error) {
			sample, err := s.runMixDuring(fasterMixes[0], writers, uniformOver(r.keys), func() error {
				info, err := s.store.Checkpoint(ctx, engine.CheckpointOptions{Kind: kind})
				if err != nil {
					return err
				}
				if info.Kind != kind {
					return fmt.Errorf("%s: the checkpoint is of kind %d", name, info.Kind)
				}
				c.took, c.size = append(c.took, info.Took.Seconds()), info.Bytes
				return sleep(ctx, d)
			})
			length = sample.Elapsed
			return sample, err
		}
		return c
	}
	full := taking(stores[0], "50 % reads, a checkpoint", engine.FullCheckpoint)
	imaged := taking(stores[1], "50 % reads, a snapshot checkpoint", engine.SnapshotCheckpoint)
	without := row("50 % reads, none")
	contenders := []measure.Contender{
		{Row: full.row, Run: full.run},
		{Row: imaged.row, Run: imaged.run},
		{Row: without, Run: func(ctx context.Context, _ time.Duration) (measure.Sample, error) {
			return stores[2].runMix(fasterMixes[0], writers, uniformOver(r.keys), length)
		}},
	}
	if err := r.ran(ctx, contenders); err != nil {
		return err
	}
	without.Finish(nil)
	for _, c := range []*checkpointed{full, imaged} {
		c.row.Finish(without)
		t := measure.SpreadOf(c.took)
		c.row.Note("a checkpoint of %s besides the log took %.2f s [%.2f-%.2f]", mib(c.size), t.Median, t.Min, t.Max)
	}
	return nil
}

// checkpointed is a load during which a checkpoint is taken.
type checkpointed struct {
	row  *measure.Row
	run  func(ctx context.Context, d time.Duration) (measure.Sample, error)
	took []float64 // seconds, of each checkpoint
	size int64     // of the last, in bytes besides the log
}

// holds is how long commits hold writers, with a commit every second and with
// commits one after the other.
func (r *runner) holds(ctx context.Context) (err error) {
	const name = "holds"
	memory := memoryFor(r.keys, copies)
	s, err := r.smallStore(name, engine.Options{Memory: memory, CommitInterval: time.Second}, r.keys)
	if err != nil {
		return err
	}
	defer r.discard(&err, s, name)
	row := func(name, commit string) *measure.Row {
		return &measure.Row{
			Group: "writers held by commits", Name: name, Commit: commit, Unit: "M/s", Scale: 1e6,
			Setting: fmt.Sprintf("%s keys x (8+8 B), preloaded, uniform, 50 %% reads, %d goroutines, batches of 32, memory %s; another goroutine calls Sync again and again",
				count(r.keys), writers, mib(memory)),
		}
	}
	plain, synced := row("50 % reads, no Sync", "1 s"), row("50 % reads, a stream of Sync", "1 s and asked")
	plain.Threads = writers
	times := measure.NewTimes() // of Sync, ns
	contenders := []measure.Contender{
		{Row: plain, Run: func(_ context.Context, d time.Duration) (measure.Sample, error) {
			return s.runMix(fasterMixes[0], writers, uniformOver(r.keys), d)
		}},
		{Row: synced, Run: func(ctx context.Context, d time.Duration) (measure.Sample, error) {
			return s.runMixDuring(fasterMixes[0], writers, uniformOver(r.keys), func() error {
				for end := time.Now().Add(d); time.Now().Before(end); {
					begin := time.Now()
					if _, err := s.store.Sync(ctx); err != nil {
						return err
					}
					measure.Record(times, int64(time.Since(begin)))
				}
				return nil
			})
		}},
	}
	if err := r.ran(ctx, contenders); err != nil {
		return err
	}
	plain.Finish(nil)
	synced.Finish(plain)
	synced.Note("%d calls of Sync: p50 %.2f ms, p99 %.2f ms, longest %.2f ms", times.TotalCount(),
		float64(times.ValueAtQuantile(50))/1e6, float64(times.ValueAtQuantile(99))/1e6, float64(times.Max())/1e6)
	st := s.store.Stats()
	synced.Note("writers were held %d times since the store was opened, loading included; less is better in the rows of holds", st.Commits)
	r.figure(synced, "write hold, p50", "us", float64(st.HoldP50)/1000)
	r.figure(synced, "write hold, p99.99", "us", float64(st.HoldP9999)/1000)
	r.figure(synced, "write hold, longest", "us", float64(st.HoldMax)/1000)
	return nil
}

// errRecovery: an Open did not do what its row is about.
var errRecovery = errors.New("open did not recover as it should")

// recovery is the time of Open, over a log without a snapshot and with a fresh one.
func (r *runner) recovery(ctx context.Context) (err error) {
	memory := memoryFor(r.keys, 1)
	row := func(name, unit string) *measure.Row {
		return &measure.Row{
			Group: "recovery", Name: name, Commit: "before it was closed", Unit: unit, Scale: 1e6,
			Setting: fmt.Sprintf("%s keys x (8+8 B), each stored once, memory %s, cold start; the whole time of Open counts", count(r.keys), mib(memory)),
		}
	}
	replayed, loaded := row("open, log replayed", "MB/s"), row("open, snapshot loaded", "M keys/s")
	longer := row("open, log of longer records replayed", "MB/s")
	longKeys := r.keys / 4 // as much log
	longer.Setting = fmt.Sprintf("%s keys x (8+%d B), else the same", count(longKeys), longValue)
	for _, name := range []string{"replay", "snapshot", "longer"} {
		if name == "longer" {
			err = r.leaveLonger(ctx, name, memory, longKeys)
		} else {
			err = r.leave(ctx, name, memory, name == "snapshot")
		}
		defer func() { err = errors.Join(err, os.RemoveAll(filepath.Join(r.dir, name))) }()
		if err != nil {
			return err
		}
	}
	last := map[*measure.Row]engine.Recovery{} // of those that replayed
	replay := func(row *measure.Row, name string, keys uint64) measure.Contender {
		return measure.Contender{Row: row, Run: func(context.Context, time.Duration) (measure.Sample, error) {
			rec, s, err := r.reopen(name, memory, keys)
			if err == nil && (rec.Snapshot != 0 || rec.Records < keys) {
				err = fmt.Errorf("%w: %d records replayed of %d keys", errRecovery, rec.Records, keys)
			}
			s.Ops, last[row] = uint64(rec.Bytes), rec
			return s, err
		}}
	}
	contenders := []measure.Contender{
		replay(replayed, "replay", r.keys), replay(longer, "longer", longKeys),
		{Row: loaded, Run: func(context.Context, time.Duration) (measure.Sample, error) {
			rec, s, err := r.reopen("snapshot", memory, r.keys)
			if err == nil && rec.Snapshot == 0 {
				err = fmt.Errorf("%w: no snapshot was loaded", errRecovery)
			}
			s.Ops = uint64(rec.Keys)
			return s, err
		}},
	}
	if err := r.ran(ctx, contenders); err != nil {
		return err
	}
	for _, c := range contenders {
		c.Row.Finish(nil)
	}
	for row, rec := range last {
		if rec.Bytes > 0 {
			row.Note("%.2f M records/s; the CPU is that of a byte of log", row.Rate.Median*float64(rec.Records)/float64(rec.Bytes))
		}
	}
	loaded.Note("%s", firstTouch())
	loaded.Note("the CPU is that of a key")
	return nil
}

// leave makes a store and closes it, with or without a checkpoint.
func (r *runner) leave(ctx context.Context, name string, memory int64, checkpoint bool) (err error) {
	s, err := r.smallStore(name, engine.Options{Memory: memory, CommitInterval: -1}, r.keys)
	if err != nil {
		return err
	}
	defer s.close(&err)
	if _, err := s.store.Sync(ctx); err != nil || !checkpoint {
		return err
	}
	_, err = s.store.Checkpoint(ctx, engine.CheckpointOptions{Kind: engine.FullCheckpoint})
	return err
}

// longValue is a value's size in bytes in longer records: 128 B with key and header.
const longValue = 104

// leaveLonger makes a store of longer records and closes it.
func (r *runner) leaveLonger(ctx context.Context, name string, memory int64, keys uint64) (err error) {
	r.line.Say("loading %s keys of 8 B with values of %d B", count(keys), longValue)
	e, err := kv.OpenEngine(engine.Options{
		Dir: filepath.Join(r.dir, name), Memory: memory, IndexBits: smallIndex(keys), CommitInterval: -1, CheckpointDistance: -1, LiveRatio: -1,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	l := load.Load{Keys: keys, ValueSize: longValue}
	if err := l.Preload(ctx, e); err != nil {
		return err
	}
	_, err = e.Sync(ctx)
	return err
}

// firstTouch says how fast the system gives memory to who uses it first: a limit for
// an index that is filled.
func firstTouch() string {
	m, err := ioring.AllocMemory(touchBytes)
	if err != nil {
		return err.Error()
	}
	begin := time.Now()
	for at := 0; at < len(m.Bytes()); at += os.Getpagesize() {
		m.Bytes()[at] = 1
	}
	took := time.Since(begin)
	if err := m.Free(); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("new memory came from the system at %.0f MB/s by one thread; an index takes 27 B a key", touchBytes/1e6/took.Seconds())
}

// touchBytes is how much memory is touched to see that.
const touchBytes = 256 << 20

// reopen opens a store that was left, looks whether everything is there, and closes
// it. The sample is that of Open, without operations.
func (r *runner) reopen(name string, memory int64, keys uint64) (rec engine.Recovery, s measure.Sample, err error) {
	cpu, begin := measure.SelfCPU(), time.Now()
	store, err := engine.Open(engine.Options{
		Dir: filepath.Join(r.dir, name), Memory: memory, IndexBits: smallIndex(keys),
		CommitInterval: -1, CheckpointDistance: -1, LiveRatio: -1, ColdStart: true,
	})
	if err != nil {
		return rec, s, err
	}
	s.Elapsed, s.CPU = time.Since(begin), measure.SelfCPU()-cpu
	defer func() { err = errors.Join(err, store.Close()) }()
	rec = store.Recovery()
	if uint64(rec.Keys) != keys {
		err = fmt.Errorf("%w: %d keys after recovery instead of %d", measure.ErrWrong, rec.Keys, keys)
	}
	return rec, s, err
}

// runMixDuring lets threads do a mix while during runs.
func (s *small) runMixDuring(mix fasterMix, threads int, source func(int) draw.Source, during func() error) (measure.Sample, error) {
	var stop atomic.Bool
	var wg sync.WaitGroup
	workers := make([]*smallWorker, threads)
	for t := range workers {
		workers[t] = newSmallWorker(s, smallLoad{batch: 32}, source(t))
	}
	cpu, begin := measure.SelfCPU(), time.Now()
	for _, w := range workers {
		wg.Go(func() { w.mixed(mix, &stop) })
	}
	errs := []error{during()}
	stop.Store(true)
	wg.Wait()
	sum := measure.Sample{Elapsed: time.Since(begin), CPU: measure.SelfCPU() - cpu}
	for _, w := range workers {
		sum.Ops += w.ops
		sum.Reads += w.reads
		sum.Hits += w.hits
		errs = append(errs, w.err)
		w.session.Close()
	}
	return sum, errors.Join(errs...)
}
