package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"rskv/bench/internal/measure"
	"rskv/bench/internal/peer"
	"rskv/engine"
)

const (
	flushValue = 4000 // bytes
	flushBlock = 1 << 20
	flushDepth = 8
)

// flush measures how fast new data leaves memory, against fio writing a new file
// in blocks of a page's size. A round is a fixed amount of data.
func (q *quick) flush(ctx context.Context) error {
	what := fmt.Sprintf("%s into new files, synced at the end", mib(q.flushData))
	fio := &measure.Row{
		Group: "pages written", Name: "sequential writes, fio", Commit: "at the end", Unit: "MB/s", Scale: 1e6,
		Setting: fmt.Sprintf("%s; blocks of 1 MiB, O_DIRECT, %d in flight", what, flushDepth),
	}
	ours := &measure.Row{
		Group: "pages written", Name: "put of new keys, engine", Commit: "at the end", Unit: "MB/s", Scale: 1e6,
		Setting: fmt.Sprintf("%s; values of %d B in batches of 32, 1 goroutine, budget %s", what, flushValue, mib(q.flushBudget)),
	}
	round := 0
	contenders := []measure.Contender{
		{Row: fio, Run: func(ctx context.Context, _ time.Duration) (measure.Sample, error) {
			file := filepath.Join(q.dir, "fio-write")
			defer os.Remove(file)
			job := peer.FioJob{File: file, Size: q.flushData, RW: "write", Block: flushBlock, Depth: flushDepth, Sync: true}
			s, err := job.Run(ctx)
			s.Ops, s.CPU = s.Ops*flushBlock, 0 // bytes; their time tells nothing
			return s, err
		}},
		{Row: ours, Run: func(ctx context.Context, _ time.Duration) (measure.Sample, error) {
			round++
			return q.flushRound(ctx, fmt.Sprintf("flush-%d", round))
		}},
	}
	if err := q.interleave(ctx, contenders); err != nil {
		return err
	}
	fio.Finish(nil)
	ours.Finish(fio)
	return nil
}

// flushRound fills a store of its own. Its operations are bytes of keys and values.
func (q *quick) flushRound(ctx context.Context, name string) (s measure.Sample, err error) {
	dir, err := q.sub(name)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	store, err := engine.Open(engine.Options{Dir: dir, Memory: q.flushBudget, CommitInterval: -1})
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	c := &coldStore{store: store, value: flushValue, keys: uint64(q.flushData / (smallSize + flushValue))}
	begin := time.Now()
	if err := c.preload(); err != nil {
		return s, err
	}
	if _, err := store.Sync(ctx); err != nil {
		return s, err
	}
	s.Ops = c.keys * (smallSize + flushValue)
	s.Elapsed = time.Since(begin)
	return s, nil
}
