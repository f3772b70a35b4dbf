package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"rskv/bench/internal/kv"
	"rskv/bench/internal/load"
	"rskv/bench/internal/measure"
)

// socketLatency is the times of single operations of callers on one connection, at
// half of what they could ask for, with commits and without.
func (r *runner) socketLatency(ctx context.Context, group string, keys uint64) (err error) {
	var stores []*opened
	defer closeAll(&err, &stores)
	var contenders []measure.Contender
	for _, commit := range []time.Duration{0, time.Second, commitsOften} {
		row := &measure.Row{
			Group: group, Name: "get and put, commit " + commitWords(commit), Unit: "k/s", Scale: 1000, Commit: commitWords(commit),
			Setting: fmt.Sprintf("daemon, %s keys of %d B x %d B preloaded, %d callers on one connection, half of the operations gets, at half of the rate that they reach without a pause; times as in process; the control sleeps and looks how late it wakes",
				count(keys), load.KeySize, latencyValue, socketCallers),
		}
		socket, missing := kv.OpenSocket(ctx, kv.SocketOptions{RSKVD: r.rskvd, Dir: r.dir, Memory: max(64<<20, int64(keys)*400), Commit: commit, Shared: true})
		if missing != nil {
			row.Missing = missing.Error()
			contenders = append(contenders, measure.Contender{Row: row})
			continue
		}
		o := &opened{socket, row.Name}
		stores = append(stores, o)
		if err := r.preload(ctx, o, keys, latencyValue); err != nil {
			return err
		}
		contenders = append(contenders, r.calls(row, o, keys))
	}
	r.line.Steps(len(contenders) * r.report.Rounds)
	if err := r.interleave(ctx, r.round, contenders); err != nil {
		return err
	}
	for _, c := range contenders {
		c.Row.Finish(nil)
	}
	return nil
}

// calls fills a row: the rate without a pause first, then half of it.
func (r *runner) calls(row *measure.Row, o *opened, keys uint64) measure.Contender {
	control := measure.NewTimes()
	full := load.Load{Workers: socketCallers, Reads: 0.5, Keys: keys, ValueSize: latencyValue}
	return measure.Contender{Row: row, Run: func(ctx context.Context, length time.Duration) (measure.Sample, error) {
		fast, err := full.Run(ctx, o, length/2)
		if err != nil || fast.Ops == 0 {
			return fast, err
		}
		interval := 2 * socketCallers * fast.Elapsed / time.Duration(fast.Ops)
		s := measure.Sample{Times: measure.NewTimes()}
		var wg sync.WaitGroup
		var mu sync.Mutex
		var ops, reads, hits atomic.Uint64
		errs := make([]error, socketCallers)
		begin := time.Now()
		for i := range socketCallers {
			wg.Go(func() {
				lane := &latencyLane{keys: keys, size: latencyValue, odd: true}
				if lane.worker, errs[i] = o.Worker(); errs[i] != nil {
					return
				}
				times := measure.NewTimes()
				first := begin.Add(interval * time.Duration(i) / socketCallers)
				n, err := runPaced(ctx, first, begin.Add(length), interval, func(time.Duration) error {
					from := time.Now()
					err := lane.do()
					// In range, so recording cannot fail.
					_ = times.RecordCorrectedValue(max(int64(time.Since(from)), 1), int64(interval))
					return err
				})
				errs[i] = errors.Join(err, lane.worker.Close())
				ops.Add(n)
				reads.Add(lane.reads)
				hits.Add(lane.hits)
				mu.Lock()
				s.Times.Merge(times)
				mu.Unlock()
			})
		}
		_, _ = runPaced(ctx, begin, begin.Add(length), interval, func(late time.Duration) error {
			measure.Record(control, int64(late))
			return nil
		})
		wg.Wait()
		s.Ops, s.Reads, s.Hits, s.Elapsed = ops.Load(), reads.Load(), hits.Load(), time.Since(begin)
		noteControl(row, control)
		return s, errors.Join(errs...)
	}}
}

// runPaced calls do at the times first, first + interval and so on until end, or at
// once where it is late, and tells it how late it is.
func runPaced(ctx context.Context, first, end time.Time, interval time.Duration, do func(late time.Duration) error) (n uint64, err error) {
	for at := first; ctx.Err() == nil && time.Now().Before(end); at = at.Add(interval) {
		if early := time.Until(at); early > 0 {
			time.Sleep(early)
		}
		if err := do(max(time.Since(at), 0)); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
