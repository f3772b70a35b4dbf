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
	// metricsSlices is how many turns each has from one start of the daemons to the
	// next. A turn takes metricsPart of a round: what is looked for is smaller than
	// what the machine does from one second to the next, so the two are compared as
	// close together and as often as can be.
	metricsSlices = 12
	metricsPart   = 4
	// uncounted is the daemon's program built with the tag nometrics.
	uncounted = "rskvd-nometrics"
)

// priced is one kind of load, without counting and with it.
type priced struct {
	write bool
	rows  [2]*measure.Row
	cpu   [2][]float64 // of the daemon, ns an operation, of each turn
}

// metrics is what counting costs: the daemon beside one that was built without,
// under the same pipelined load, in turn. Both are started anew for each round, as
// where a process finds its memory makes more of a difference than counting.
func (r *runner) metrics(ctx context.Context) error {
	loads := []*priced{{write: false}, {write: true}}
	programs, missing := r.pricedPrograms()
	for _, l := range loads {
		for i, how := range []string{"nothing counted", "counted"} {
			row := r.pricedQuick().socketRow(map[bool]string{false: "get, ", true: "put, "}[l.write] + how)
			row.Group, row.Commit = "price of metrics", "1 s"
			if missing != nil {
				row.Missing = missing.Error()
			}
			l.rows[i] = row
			r.report.Rows = append(r.report.Rows, row)
		}
	}
	if missing != nil {
		return ctx.Err()
	}
	r.line.Steps(4 * metricsSlices * r.report.Rounds)
	for start := range r.report.Rounds {
		if err := r.pricedRound(ctx, start, programs, loads); err != nil {
			return err
		}
	}
	for _, l := range loads {
		l.finish(r.round / metricsPart)
	}
	return nil
}

// pricedPrograms finds the two daemons.
func (r *runner) pricedPrograms() (programs [2]string, err error) {
	if programs[1] = r.rskvd; programs[1] == "" {
		if programs[1], err = peer.Beside("rskvd"); err != nil {
			return programs, err
		}
	}
	if programs[0], err = peer.Beside(uncounted); err != nil {
		err = fmt.Errorf("%s is not there: make bench-metrics makes it", uncounted)
	}
	return programs, err
}

func (r *runner) pricedQuick() *quick {
	if r.small {
		return &quick{scale: scale{socketKeys: keysMin}}
	}
	return &quick{scale: scale{socketKeys: metricsKeys}}
}

// pricedRound starts both daemons and lets them have their turns.
func (r *runner) pricedRound(ctx context.Context, start int, programs [2]string, loads []*priced) (err error) {
	var servers [2]*peer.Server
	defer func() { stop(&err, servers[:]...) }()
	q := r.pricedQuick()
	for n := range servers {
		// The first to be started is the other one each time.
		i := (start + n) % len(servers)
		if servers[i], err = peer.RSKVD(ctx, programs[i], r.dir, metricsBudget, time.Second); err != nil {
			return err
		}
		if err := q.socketLoad(wire.RSKV{}, servers[i], false).Preload(ctx); err != nil {
			return err
		}
	}
	var contenders []measure.Contender
	for _, l := range loads {
		for i := range l.rows {
			contenders = append(contenders, measure.Contender{Row: l.rows[i], Run: l.turn(i, served(servers[i], q.socketLoad(wire.RSKV{}, servers[i], l.write)))})
		}
	}
	return measure.Interleave(ctx, metricsSlices, r.round/metricsPart, contenders, func(n int, row *measure.Row) {
		r.line.Step("%s, start %d of %d, turn %d of %d: %s", row.Group, start+1, r.report.Rounds, n+1, metricsSlices, row.Name)
	})
}

// turn is run, keeping what each one took of the processor.
func (l *priced) turn(i int, run runFunc) runFunc {
	return func(ctx context.Context, d time.Duration) (measure.Sample, error) {
		s, err := run(ctx, d)
		if err == nil && s.Ops > 0 {
			l.cpu[i] = append(l.cpu[i], float64(s.CPU)/float64(s.Ops))
		}
		return s, err
	}
}

// finish fills in the two rows, and says how sure they are.
func (l *priced) finish(turn time.Duration) {
	base, row := l.rows[0], l.rows[1]
	base.Finish(nil)
	row.Finish(base)
	row.Target = ref(metricsTarget)
	ratios := measure.Ratios(row.Rates, base.Rates)
	if low, high, ok := measure.MedianWithin(ratios); ok {
		row.Note("%d turns of %v each; the median ratio of the rates lies between %.3f and %.3f, with 95 %% of certainty", len(ratios), turn, low, high)
	}
	more := measure.Ratios(l.cpu[1], l.cpu[0])
	if low, high, ok := measure.MedianWithin(more); ok {
		row.Note("%.3f times the daemon's processor time of an operation, %.3f to %.3f", measure.SpreadOf(more).Median, low, high)
	}
}
