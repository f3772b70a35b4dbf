package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"rskv/bench/internal/measure"
	"rskv/engine"
)

const (
	watchGroup = "a watch beside a writer"
	// watchedCommit is how often what is written becomes durable there: changes are
	// told commit by commit, so that rounds without a commit measure nothing.
	watchedCommit = 100 * time.Millisecond
	// watchTurns is how often writers with and without a watch take turns in a round:
	// the effect is smaller than what a machine drifts by within seconds.
	watchTurns = 4
)

// watched are the rows of watch, and what fills them.
type watched struct {
	s    *small
	load smallLoad
	// rate, own: puts by the time that passes, and by the processor time of the
	// writer's own thread, which those who run elsewhere can only slow down.
	rate, own     [2]*measure.Row // without, with
	told          *measure.Row    // changes told, and the processor time of the thread that takes them
	changes, puts uint64          // of the rounds with a watch
	cpu           time.Duration   // of the thread that takes changes
}

// watch is what a watch of all changes costs those who write.
func (r *runner) watch(ctx context.Context) (err error) {
	keys := r.keys / 10
	memory := memoryFor(keys, 4*copies)
	s, err := r.smallStore("watched", engine.Options{Memory: memory, CommitInterval: watchedCommit}, keys)
	if err != nil {
		return err
	}
	defer r.discard(&err, s, "watched")
	w := &watched{s: s, load: smallLoad{threads: 1, batch: 32, write: true, source: uniformOver(keys)}}
	setting := fmt.Sprintf("store in process, memory %s, %s keys x (8+8 B), preloaded, uniform; one goroutine, batches of 32; the feed on another, which takes every change; they take turns, %d a round",
		mib(memory), count(keys), watchTurns)
	row := func(name string) *measure.Row {
		return &measure.Row{Group: watchGroup, Name: name, Unit: "M/s", Scale: 1e6, Commit: watchedCommit.String(), Setting: setting}
	}
	for i, name := range []string{"nobody watches", "a watch of everything"} {
		w.rate[i] = row("put, " + name)
		w.rate[i].Threads = 1
		w.own[i] = row("put, by its thread's processor time, " + name)
	}
	w.told = row("changes told")
	// The log goes through its memory once: from then on that has come from the system.
	for st := s.store.Stats(); !r.small && s.store.Stats().LogTail < st.LogTail+st.MemoryLog; {
		if _, err := s.run(w.load, r.round/4); err != nil {
			return err
		}
	}
	turns := []measure.Contender{{Row: w.rate[0], Run: w.alone}, {Row: w.rate[1], Run: w.beside}}
	r.line.Steps(len(turns) * watchTurns * r.report.Rounds)
	err = measure.Interleave(ctx, watchTurns*r.report.Rounds, max(r.round/watchTurns, min(r.round, watchTurns*watchedCommit)), turns,
		func(n int, row *measure.Row) { r.line.Step("%s, turn %d: %s", row.Group, n+1, row.Name) })
	r.report.Rows = append(r.report.Rows, w.rate[0], w.rate[1])
	for _, row := range []*measure.Row{w.rate[0], w.rate[1], w.own[0], w.own[1], w.told} {
		row.Rates = byRound(row.Rates)
	}
	if err != nil {
		return err
	}
	w.finish(r)
	return nil
}

// byRound makes one figure of the turns of each round: their median.
func byRound(turns []float64) (rounds []float64) {
	for round := range slices.Chunk(turns, watchTurns) {
		rounds = append(rounds, measure.SpreadOf(round).Median)
	}
	return rounds
}

func (w *watched) finish(r *runner) {
	w.rate[0].Finish(nil)
	w.rate[1].Finish(w.rate[0])
	if w.changes == 0 {
		w.rate[1].Note("no commit fell into a round: the ratio says nothing, a longer --time would")
		return
	}
	w.rate[1].Note("%.2f changes were told for each put", float64(w.changes)/float64(w.puts))
	if w.cpu == 0 {
		return
	}
	w.own[0].Finish(nil)
	w.own[1].Finish(w.own[0])
	w.told.Finish(nil)
	w.told.CPU = ref(float64(w.cpu) / float64(w.changes))
	w.told.Note("the CPU is that of the thread that takes the changes, %.1f ns for each put beside it", float64(w.cpu)/float64(w.puts))
	r.report.Rows = append(r.report.Rows, w.own[0], w.own[1], w.told)
}

// alone is a turn without a watch.
func (w *watched) alone(_ context.Context, d time.Duration) (measure.Sample, error) {
	return w.write(0, d)
}

// write puts for d, on a thread of its own.
func (w *watched) write(i int, d time.Duration) (sum measure.Sample, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	w.s.pass.Add(1)
	worker := newSmallWorker(w.s, w.load, w.load.source(0))
	defer worker.session.Close()
	var stop atomic.Bool
	defer time.AfterFunc(d, func() { stop.Store(true) }).Stop()
	own, cpu, begin := measure.ThreadCPU(), measure.SelfCPU(), time.Now()
	worker.loop(&stop)
	sum = measure.Sample{Ops: worker.ops, Elapsed: time.Since(begin), CPU: measure.SelfCPU() - cpu}
	if own = measure.ThreadCPU() - own; own > 0 {
		w.own[i].Rates = append(w.own[i].Rates, float64(sum.Ops)/own.Seconds()/w.own[i].Scale)
	}
	return sum, worker.err
}

// beside is a turn with a watch.
func (w *watched) beside(ctx context.Context, d time.Duration) (sum measure.Sample, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	feed, err := w.s.store.OpenFeed(ctx, engine.FeedOptions{Now: true})
	if err != nil {
		return sum, err
	}
	defer feed.Close()
	ended := make(chan error, 1)
	changes, begin := uint64(0), time.Now()
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cpu := measure.ThreadCPU()
		for change, err := range feed.Changes(ctx) {
			if err != nil {
				w.cpu += measure.ThreadCPU() - cpu
				ended <- err
				return
			}
			if change.Kind != engine.ChangeCommit {
				changes++
			}
		}
	}()
	sum, err = w.write(1, d)
	cancel()
	if watch := <-ended; !errors.Is(watch, context.Canceled) {
		err = errors.Join(err, watch)
	}
	w.told.Rates = append(w.told.Rates, float64(changes)/time.Since(begin).Seconds()/w.told.Scale)
	w.changes += changes
	w.puts += sum.Ops
	return sum, err
}
