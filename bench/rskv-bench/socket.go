package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"rskv/bench/internal/draw"
	"rskv/bench/internal/measure"
	"rskv/bench/internal/peer"
	"rskv/bench/internal/wire"
	"rskv/client"
)

const (
	socketConnections = 8
	socketWindow      = 128
	socketValue       = 100 // bytes
	socketTarget      = 2   // times redis-server
)

// socket measures rskvd against redis-server, both pipelined, by one generator,
// and the Go client's Batch beside them.
func (q *quick) socket(ctx context.Context) (err error) {
	names := []string{"get, redis-server", "get, rskvd", "get, rskvd through client.Batch",
		"put, redis-server", "put, rskvd", "put, rskvd through client.Batch"}
	rows := make([]*measure.Row, len(names))
	for i, name := range names {
		rows[i] = q.socketRow(name)
	}
	ours, oursErr := peer.RSKVD(ctx, q.rskvd, q.dir, q.socketBudget, time.Second)
	redis, redisErr := peer.Redis(ctx, q.dir, peer.Never)
	defer stop(&err, ours, redis)
	if err := ctx.Err(); err != nil {
		return err
	}
	if oursErr == nil {
		q.say("socket: preloading %s keys into rskvd", count(q.socketKeys))
		oursErr = q.socketLoad(wire.RSKV{}, ours, false).Preload(ctx)
	}
	if redisErr == nil {
		q.say("socket: preloading %s keys into redis-server", count(q.socketKeys))
		redisErr = q.socketLoad(wire.RESP{}, redis, false).Preload(ctx)
	}
	contenders := []measure.Contender{
		contender(rows[0], redisErr, func() runFunc { return served(redis, q.socketLoad(wire.RESP{}, redis, false)) }),
		contender(rows[1], oursErr, func() runFunc { return served(ours, q.socketLoad(wire.RSKV{}, ours, false)) }),
		contender(rows[2], oursErr, func() runFunc { return batched(ours, q.socketKeys, false) }),
		contender(rows[3], redisErr, func() runFunc { return served(redis, q.socketLoad(wire.RESP{}, redis, true)) }),
		contender(rows[4], oursErr, func() runFunc { return served(ours, q.socketLoad(wire.RSKV{}, ours, true)) }),
		contender(rows[5], oursErr, func() runFunc { return batched(ours, q.socketKeys, true) }),
	}
	if err := q.interleave(ctx, contenders); err != nil {
		return err
	}
	for i, r := range rows {
		switch i {
		case 0, 3:
			r.Commit = "never"
			r.Finish(nil)
		default:
			r.Commit = "1 s"
			r.Finish(rows[i/3*3])
		}
	}
	rows[1].Target = ref(float64(socketTarget))
	rows[0].Note("redis-server %s", peer.RedisVersion(ctx))
	if redisErr == nil {
		q.crossCheck(ctx, redis, rows[0])
	}
	return nil
}

// crossCheck lets redis-benchmark ask the same server, so that one can see that
// the generator here does not hold Redis back.
func (q *quick) crossCheck(ctx context.Context, redis *peer.Server, row *measure.Row) {
	set, get, err := peer.RedisBenchmark(ctx, redis, q.benchmarkOps, q.socketKeys, socketConnections, socketWindow, socketValue)
	if err != nil {
		row.Note("no cross-check: %v", err)
		return
	}
	row.Note("redis-benchmark -P %d -c %d on the same server, one run: GET %.0f k/s, SET %.0f k/s",
		socketWindow, socketConnections, get/1000, set/1000)
}

func (q *quick) socketRow(name string) *measure.Row {
	return &measure.Row{
		Group: "Unix socket, pipelined", Name: name, Unit: "k/s", Scale: 1000,
		Setting: fmt.Sprintf("%s keys of %d B, values of %d B, uniform, preloaded; %d connections with windows of %d; every value checked; CPU/op is the server's",
			count(q.socketKeys), wire.KeySize, socketValue, socketConnections, socketWindow),
	}
}

func (q *quick) socketLoad(d wire.Dialect, s *peer.Server, write bool) *wire.Load {
	return &wire.Load{
		Dialect: d, Socket: s.Socket, Connections: socketConnections, Window: socketWindow,
		Keys: q.socketKeys, ValueSize: socketValue, Write: write, Source: reseeding(q.socketKeys),
	}
}

// reseeding gives every connection of every round other draws.
func reseeding(keys uint64) func(int) draw.Source {
	var seed atomic.Uint64
	return func(int) draw.Source { return draw.NewUniform(keys, seed.Add(1)) }
}

type runFunc = func(ctx context.Context, d time.Duration) (measure.Sample, error)

// contender is a row with what fills it, or with the reason why nothing does.
func contender(row *measure.Row, err error, run func() runFunc) measure.Contender {
	if err != nil {
		row.Missing = err.Error()
		return measure.Contender{Row: row}
	}
	return measure.Contender{Row: row, Run: run()}
}

// served runs a load and adds what the server spent on it.
func served(s *peer.Server, l *wire.Load) runFunc {
	return func(ctx context.Context, d time.Duration) (measure.Sample, error) {
		before := measure.ProcessCPU(s.Pid())
		sample, err := l.Run(ctx, d)
		sample.CPU = measure.ProcessCPU(s.Pid()) - before
		return sample, err
	}
}

// batched does the same through the Go client: a Batch on a Client of its own
// for each connection.
func batched(s *peer.Server, keys uint64, write bool) runFunc {
	return func(ctx context.Context, d time.Duration) (sample measure.Sample, err error) {
		callers := make([]*batchCaller, socketConnections)
		for i := range callers {
			c, err := client.Dial(ctx, s.Socket)
			if err != nil {
				return sample, err
			}
			defer func() { err = errors.Join(err, c.Close()) }()
			callers[i] = &batchCaller{batch: c.NewBatch(), source: draw.NewUniform(keys, uint64(time.Now().UnixNano())+uint64(i)), write: write}
		}
		var stop atomic.Bool
		var wg sync.WaitGroup
		before, begin := measure.ProcessCPU(s.Pid()), time.Now()
		timer := time.AfterFunc(d, func() { stop.Store(true) })
		defer timer.Stop()
		for _, c := range callers {
			wg.Go(func() { c.loop(ctx, &stop) })
		}
		wg.Wait()
		sample.Elapsed = time.Since(begin)
		sample.CPU = measure.ProcessCPU(s.Pid()) - before
		for _, c := range callers {
			sample.Ops += c.ops
			if !write {
				sample.Reads += c.ops
				sample.Hits += c.hits
			}
			err = errors.Join(err, c.err)
		}
		return sample, err
	}
}

// batchCaller is one goroutine with one Client and one Batch.
type batchCaller struct {
	batch  *client.Batch
	source draw.Source
	write  bool

	ops, hits uint64
	err       error
}

func (c *batchCaller) loop(ctx context.Context, stop *atomic.Bool) {
	numbers := make([]uint64, socketWindow)
	var key, value []byte
	for c.err == nil && (c.ops == 0 || !stop.Load()) {
		c.source.Fill(numbers)
		for _, n := range numbers {
			key = wire.AppendKey(key[:0], n)
			if c.write {
				value = wire.AppendValue(value[:0], n, socketValue)
				c.batch.Put(key, value)
			} else {
				c.batch.Get(key)
			}
		}
		if c.err = c.batch.Do(ctx); c.err != nil {
			return
		}
		for i, n := range numbers {
			if c.err = c.check(i, wire.AppendKey(key[:0], n)); c.err != nil {
				return
			}
		}
		c.ops += uint64(len(numbers))
	}
}

// check looks at the answer to request i.
func (c *batchCaller) check(i int, key []byte) error {
	if c.write {
		stored, err := c.batch.Bool(i)
		if err == nil && !stored {
			err = fmt.Errorf("%w: a put was not carried out", measure.ErrWrong)
		}
		return err
	}
	v, err := c.batch.Value(i)
	switch {
	case errors.Is(err, client.ErrNotFound):
		return nil
	case err != nil:
		return err
	case len(v) != socketValue || !bytes.HasPrefix(v, key):
		return fmt.Errorf("%w: %s has %.40q", measure.ErrWrong, key, v)
	}
	c.hits++
	return nil
}

// stop ends the servers that were started.
func stop(err *error, servers ...*peer.Server) {
	for _, s := range servers {
		if s != nil {
			*err = errors.Join(*err, s.Stop())
		}
	}
}
