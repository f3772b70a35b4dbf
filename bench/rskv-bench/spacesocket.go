package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"rskv/bench/internal/kv"
	"rskv/bench/internal/measure"
)

// compactionSocket is the same as compaction, as the programs of a machine see it: the
// stores are daemons, and the load comes over their sockets. Passes are not waited for:
// the log stays at its half.
func (r *runner) compactionSocket(ctx context.Context, s spaceSetting, budget int64) (err error) {
	var stores []*opened
	defer closeAll(&err, &stores)
	var contenders []measure.Contender
	var daemons []*kv.Socket
	for _, one := range []struct{ name, ratio string }{
		{"put over the socket, passes run", strconv.FormatFloat(liveWanted, 'f', -1, 64)},
		{"put over the socket, none run", "0"},
	} {
		row := &measure.Row{
			Group: "compaction under load", Name: one.name, Commit: s.commit.String(), Unit: "k/s", Scale: 1000,
			Setting: fmt.Sprintf("as in process, in a daemon, %d connections; the passes are those that keep %.0f %% of the log live", writers, 100*liveWanted),
		}
		flags := []string{"--live-ratio", one.ratio, "--segment-size", strconv.FormatInt(s.segment, 10), "--page-size", strconv.Itoa(s.page)}
		if one.ratio != "0" {
			flags = append(flags, "--disk", strconv.FormatInt(budget, 10))
		}
		daemon, missing := kv.OpenSocket(ctx, kv.SocketOptions{RSKVD: r.rskvd, Dir: r.dir, Memory: s.memory, Commit: s.commit, Flags: flags})
		if missing != nil {
			row.Missing = missing.Error()
			contenders = append(contenders, measure.Contender{Row: row})
			continue
		}
		o := &opened{daemon, one.name}
		stores, daemons = append(stores, o), append(daemons, daemon)
		err := r.overwrite(ctx, o, s, func() (int64, bool) {
			stat := daemon.EngineStats()
			return int64(stat("log_tail") - stat("log_begin")), stat("compactions") > 0
		})
		if err != nil {
			return err
		}
		contenders = append(contenders, measure.Contender{Row: row, Run: func(ctx context.Context, d time.Duration) (measure.Sample, error) {
			return s.load.Run(ctx, o, passRounds*d)
		}})
	}
	if err := r.ran(ctx, contenders); err != nil {
		return err
	}
	with, without := contenders[0].Row, contenders[1].Row
	without.Finish(nil)
	with.Finish(without)
	if len(daemons) == 2 {
		stat := daemons[0].EngineStats()
		with.Note("%.0f passes ended, bytes of log written for one appended by users: %.2f", stat("compactions"), stat("write_amplification"))
		with.Note("writes waited for room or memory %.0f times", stat("space_waits"))
	}
	return nil
}
