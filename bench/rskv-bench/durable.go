package main

import (
	"context"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rskv/bench/internal/measure"
	"rskv/bench/internal/peer"
	"rskv/bench/internal/wire"
)

// manyClients is how many callers share a commit in the second pair of rows.
const manyClients = 50

// durable measures puts that are on stable storage when they are answered, one
// at a time from 1 and from 50 connections.
func (q *quick) durable(ctx context.Context) (err error) {
	ours, oursErr := peer.RSKVD(ctx, q.rskvd, q.dir, q.socketBudget, time.Second)
	redis, redisErr := peer.Redis(ctx, q.dir, peer.Always)
	defer stop(&err, ours, redis)
	if err := ctx.Err(); err != nil {
		return err
	}
	var contenders []measure.Contender
	var times []*hdrhistogram.Histogram
	for _, clients := range []int{1, manyClients} {
		for _, side := range []struct {
			name    string
			err     error
			server  *peer.Server
			dialect wire.Dialect
		}{
			{"redis-server", redisErr, redis, wire.RESP{}},
			{"rskvd", oursErr, ours, wire.RSKV{Sync: true}},
		} {
			h := hdrhistogram.New(1, int64(time.Minute), 3)
			times = append(times, h)
			contenders = append(contenders, contender(q.durableRow(side.name, clients), side.err, func() runFunc {
				return served(side.server, &wire.Load{
					Dialect: side.dialect, Socket: side.server.Socket, Connections: clients, Window: 1,
					Keys: q.socketKeys, ValueSize: socketValue, Write: true, Source: reseeding(q.socketKeys), Times: h,
				})
			}))
		}
	}
	if err := q.interleave(ctx, contenders); err != nil {
		return err
	}
	for i, c := range contenders {
		if h := times[i]; h.TotalCount() > 0 {
			c.Row.P50 = ref(float64(h.ValueAtQuantile(50)) / 1000)
			c.Row.P99 = ref(float64(h.ValueAtQuantile(99)) / 1000)
			c.Row.Note("p50 %.0f us, p99 %.0f us", *c.Row.P50, *c.Row.P99)
		}
		if i%2 == 0 {
			c.Row.Finish(nil)
		} else {
			c.Row.Finish(contenders[i-1].Row)
		}
	}
	return nil
}

func (q *quick) durableRow(server string, clients int) *measure.Row {
	return &measure.Row{
		Group: "Unix socket, every put on stable storage before its answer",
		Name:  fmt.Sprintf("put, %s, %d at a time", server, clients), Commit: "each", Unit: "k/s", Scale: 1000,
		Setting: fmt.Sprintf("%s keys of %d B, values of %d B, uniform; rskvd: put with sync; redis-server: appendfsync always; CPU/op is the server's",
			count(q.socketKeys), wire.KeySize, socketValue),
	}
}
