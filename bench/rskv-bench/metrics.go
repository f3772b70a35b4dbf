package main

import (
	"context"
	"fmt"
	"time"

	"rskv/bench/internal/measure"
	"rskv/bench/internal/peer"
	"rskv/bench/internal/wire"
)

const (
	metricsBudget = 256 << 20 // bytes
	metricsKeys   = 500_000
	// metricsTarget is the least share of the rate that is left with counting on.
	metricsTarget = 0.98
	// uncounted is the daemon's program built with the tag nometrics.
	uncounted = "rskvd-nometrics"
)

// metrics is what counting costs: the daemon beside one that was built without,
// under the same pipelined load, in turn.
func (r *runner) metrics(ctx context.Context) (err error) {
	with, withErr := peer.RSKVD(ctx, r.rskvd, r.dir, metricsBudget, time.Second)
	var without *peer.Server
	program, withoutErr := peer.Beside(uncounted)
	if withoutErr != nil {
		withoutErr = fmt.Errorf("%s is not there: make bench-metrics makes it", uncounted)
	} else {
		without, withoutErr = peer.RSKVD(ctx, program, r.dir, metricsBudget, time.Second)
	}
	defer stop(&err, with, without)
	if err := ctx.Err(); err != nil {
		return err
	}
	keys := uint64(metricsKeys)
	if r.small {
		keys = keysMin
	}
	q := &quick{scale: scale{socketKeys: keys}}
	var contenders []measure.Contender
	for _, write := range []bool{false, true} {
		name := "get"
		if write {
			name = "put"
		}
		for _, s := range []struct {
			server *peer.Server
			err    error
			name   string
		}{{without, withoutErr, name + ", nothing counted"}, {with, withErr, name + ", counted"}} {
			row := q.socketRow(s.name)
			row.Group, row.Commit = "price of metrics", "1 s"
			if s.err == nil && !write {
				s.err = q.socketLoad(wire.RSKV{}, s.server, false).Preload(ctx)
			}
			contenders = append(contenders, contender(row, s.err, func() runFunc { return served(s.server, q.socketLoad(wire.RSKV{}, s.server, write)) }))
		}
	}
	if err := r.ran(ctx, contenders); err != nil {
		return err
	}
	for i := 0; i < len(contenders); i += 2 {
		base, row := contenders[i].Row, contenders[i+1].Row
		base.Finish(nil)
		row.Finish(base)
		row.Target = ref(metricsTarget)
		if base.CPU != nil && row.CPU != nil {
			row.Note("%.0f ns of processor time an operation more: %.1f %%", *row.CPU-*base.CPU, 100*(*row.CPU / *base.CPU - 1))
		}
	}
	return nil
}
