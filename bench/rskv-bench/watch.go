package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rskv/bench/internal/measure"
	"rskv/engine"
)

// watchedCommit is how often what is written becomes durable there: changes are told
// commit by commit, so that rounds without a commit measure nothing.
const watchedCommit = 100 * time.Millisecond

// watch is what a watch of all changes costs those who write.
func (r *runner) watch(ctx context.Context) (err error) {
	keys := r.keys / 10
	s, err := r.smallStore("watched", engine.Options{Memory: memoryFor(keys, 4*copies), CommitInterval: watchedCommit}, keys)
	if err != nil {
		return err
	}
	defer r.discard(&err, s, "watched")
	setting := fmt.Sprintf("store in process, memory %s, %s keys x (8+8 B), preloaded, uniform; one goroutine, batches of 32; the feed on another, which takes every change",
		mib(memoryFor(keys, 4*copies)), count(keys))
	row := func(name string) *measure.Row {
		return &measure.Row{Group: "a watch beside a writer", Name: name, Unit: "M/s", Scale: 1e6, Commit: watchedCommit.String(), Threads: 1, Setting: setting}
	}
	load := smallLoad{threads: 1, batch: 32, write: true, source: uniformOver(keys)}
	changes := uint64(0)
	without := measure.Contender{Row: row("put, nobody watches"), Run: func(_ context.Context, d time.Duration) (measure.Sample, error) {
		return s.run(load, d)
	}}
	with := measure.Contender{Row: row("put, a watch of everything"), Run: func(ctx context.Context, d time.Duration) (sample measure.Sample, err error) {
		ctx, cancel := context.WithCancel(ctx)
		feed, err := s.store.OpenFeed(ctx, engine.FeedOptions{Now: true})
		if err != nil {
			cancel()
			return sample, err
		}
		ended := make(chan error, 1)
		go func() {
			for change, err := range feed.Changes(ctx) {
				if err != nil {
					ended <- err
					return
				}
				if change.Kind != engine.ChangeCommit {
					changes++
				}
			}
			ended <- nil
		}()
		sample, err = s.run(load, d)
		cancel()
		watched := <-ended
		feed.Close()
		if errors.Is(watched, context.Canceled) {
			watched = nil
		}
		return sample, errors.Join(err, watched)
	}}
	if err := r.ran(ctx, []measure.Contender{without, with}); err != nil {
		return err
	}
	without.Row.Finish(nil)
	with.Row.Finish(without.Row)
	with.Row.Note("%d changes were told in all", changes)
	if changes == 0 {
		with.Row.Note("no commit fell into a round: the ratio says nothing, a longer --time would")
	}
	return nil
}
