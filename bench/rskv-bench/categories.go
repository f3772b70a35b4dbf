package main

import (
	"context"
	"fmt"

	"rskv/bench/internal/draw"
	"rskv/bench/internal/kv"
	"rskv/bench/internal/load"
)

const (
	kib = 1 << 10
	// resident is how many bytes of values a store that is to stay in memory holds:
	// more than the processor's cache, less than half of the budget.
	resident = 100 << 20
	// roundBytes bounds what one round writes in values that are too large to be
	// updated in place, so that a run does not fill the disk.
	roundBytes = 256 << 20
	// inPlaceMax is the largest value in bytes that the store updates in place.
	inPlaceMax = 1 << 10
	// rustWrites is what rskv in Rust published for puts of 1 KB by one thread, in
	// k/s (Criterion, release build, nothing on disk); rustTimes what is to be
	// reached of it.
	rustWrites = 490
	rustTimes  = 5
)

var (
	valueSizes   = []int{1, 100, kib, 10 * kib, 100 * kib}
	readShares   = []int{0, 50, 90, 95, 99}
	threadCounts = []int{1, 2, 4, 8, 16, 24, 32}
	taskCounts   = []int{1, 2, 4, 8, 16, 32, 200, 1000}
	batchSizes   = []int{1, 10, 32, 100, 1000}
	// hotShares are the percents of gets that go to keys that memory holds.
	hotShares = []int{100, 99, 90, 50, 0}
)

// keysFor is how many values of a size stay in memory.
func (r *runner) keysFor(size int) uint64 {
	bytes := uint64(resident)
	if r.small {
		bytes /= 64
	}
	return min(max(bytes/uint64(size+48), 64), 1_000_000)
}

// write is put by size of value.
func (r *runner) write(ctx context.Context) (err error) {
	var stores []*opened
	defer closeAll(&err, &stores)
	var list []series
	for _, size := range valueSizes {
		keys := r.keysFor(size)
		s, err := r.engine(fmt.Sprintf("write-%d", size), 256<<20, keys)
		if err != nil {
			return err
		}
		stores = append(stores, s)
		if err := r.preload(ctx, s, keys, size); err != nil {
			return err
		}
		for _, batch := range []int{1, 32} {
			l := load.Load{Workers: 1, Batch: batch, Keys: keys, ValueSize: size}
			if size > inPlaceMax {
				l.Limit = roundBytes / uint64(size)
			}
			row := series{name: fmt.Sprintf("put, %s%s", bytesWords(size), batchWords(batch)), line: "put" + batchWords(batch), x: float64(size), store: s, load: l}
			if size == kib && batch == 1 {
				row.target = rustWrites * rustTimes
			}
			list = append(list, row)
		}
	}
	return r.measure(ctx, "write by size of value", "bytes of value", "1 thread, uniform, keys that are there", list)
}

func batchWords(n int) string {
	if n <= 1 {
		return ""
	}
	return fmt.Sprintf(", batches of %d", n)
}

// read is get by size of value, and by where the value is.
func (r *runner) read(ctx context.Context) (err error) {
	var stores []*opened
	defer closeAll(&err, &stores)
	var list []series
	for _, size := range valueSizes {
		keys := r.keysFor(size)
		s, err := r.engine(fmt.Sprintf("read-%d", size), 256<<20, keys)
		if err != nil {
			return err
		}
		stores = append(stores, s)
		if err := r.preload(ctx, s, keys, size); err != nil {
			return err
		}
		for _, batch := range []int{1, 32} {
			list = append(list, series{
				name: fmt.Sprintf("get, %s%s", bytesWords(size), batchWords(batch)), line: "get" + batchWords(batch), x: float64(size), store: s,
				load: load.Load{Workers: 1, Batch: batch, Reads: 1, Keys: keys, ValueSize: size},
			})
		}
	}
	if err := r.measure(ctx, "read by size of value", "bytes of value", "1 thread, uniform, all in memory", list); err != nil {
		return err
	}
	return r.readCold(ctx)
}

// readCold is get by the share that memory answers. Keys are loaded in order, so
// the last ones are in memory and the first ones are not.
func (r *runner) readCold(ctx context.Context) (err error) {
	memory, keys := int64(64<<20), uint64(512<<10)
	if r.small {
		memory, keys = 32<<20, 48<<10
	}
	s, err := r.engine("read-cold", memory, keys)
	if err != nil {
		return err
	}
	stores := []*opened{s}
	defer closeAll(&err, &stores)
	if err := r.preload(ctx, s, keys, kib); err != nil {
		return err
	}
	// A quarter of the budget is surely in memory, a half of the keys surely not.
	hot, cold := uint64(memory)/4/(kib+48), keys/2
	var list []series
	for _, share := range hotShares {
		for _, batch := range []int{1, 64} {
			list = append(list, series{
				name: fmt.Sprintf("get, %d %% of them hot%s", share, batchWords(batch)), line: "get" + batchWords(batch), x: float64(share), store: s,
				load: load.Load{Workers: 2, Batch: batch, Reads: 1, Keys: keys, ValueSize: kib, Times: true, Source: func(worker int) draw.Source {
					return &halves{hot: draw.NewUniform(hot, uint64(worker)*2+11), cold: draw.NewUniform(cold, uint64(worker)*2+12), first: keys - hot,
						which: draw.NewUniform(100, uint64(worker)+77), share: uint64(share)}
				}},
			})
		}
	}
	return r.measure(ctx, "read by share of hot keys", "percent of the gets to keys in memory", fmt.Sprintf("2 threads, values of 1 KB, %s of records", mib(int64(keys)*(kib+24))), list)
}

// halves draws from the keys in memory with a share, else from those on disk.
type halves struct {
	hot, cold, which *draw.Uniform
	first            uint64 // of the hot keys
	share            uint64 // percent
}

// Fill implements draw.Source.
func (h *halves) Fill(dst []uint64) {
	h.which.Fill(dst)
	for i, w := range dst {
		if w < h.share {
			h.hot.Fill(dst[i : i+1])
			dst[i] += h.first
		} else {
			h.cold.Fill(dst[i : i+1])
		}
	}
}

// mixed is by share of reads.
func (r *runner) mixed(ctx context.Context) (err error) {
	keys := r.keysFor(kib)
	s, err := r.engine("mixed", 256<<20, keys)
	if err != nil {
		return err
	}
	stores := []*opened{s}
	defer closeAll(&err, &stores)
	if err := r.preload(ctx, s, keys, kib); err != nil {
		return err
	}
	var list []series
	for _, share := range readShares {
		for _, batch := range []int{1, 32} {
			list = append(list, series{
				name: fmt.Sprintf("%d %% reads%s", share, batchWords(batch)), line: "mixed" + batchWords(batch), x: float64(share), store: s,
				load: load.Load{Workers: 1, Batch: batch, Reads: float64(share) / 100, Keys: keys, ValueSize: kib, Times: true},
			})
		}
	}
	return r.measure(ctx, "mixed reads and writes", "percent reads", "1 thread, values of 1 KB, uniform", list)
}

// threads is writes, reads and 70 % reads by number of threads.
func (r *runner) threads(ctx context.Context) (err error) {
	keys := r.keysFor(kib)
	s, err := r.engine("threads", 512<<20, keys)
	if err != nil {
		return err
	}
	stores := []*opened{s}
	defer closeAll(&err, &stores)
	if err := r.preload(ctx, s, keys, kib); err != nil {
		return err
	}
	var list []series
	for _, kind := range []struct {
		name  string
		reads float64
	}{{"write", 0}, {"read", 1}, {"70 % reads", 0.7}} {
		for _, n := range threadCounts {
			list = append(list, series{
				name: kind.name + ", " + plural(n, "thread"), line: kind.name, x: float64(n), store: s, single: n == 1,
				load: load.Load{Workers: n, Batch: 32, Reads: kind.reads, Keys: keys, ValueSize: kib},
			})
		}
	}
	return r.measure(ctx, "scaling by threads", "threads", "values of 1 KB, uniform, batches of 32; a thread is a goroutine with a session", list)
}

// concurrency is many goroutines, each with one operation at a time, on sessions
// of their own in process, and on one connection through the daemon.
func (r *runner) concurrency(ctx context.Context) (err error) {
	var stores []*opened
	defer closeAll(&err, &stores)
	const size = 256
	keys := r.keysFor(size)
	inside, err := r.engine("concurrency", 256<<20, keys)
	if err != nil {
		return err
	}
	stores = append(stores, inside)
	if err := r.preload(ctx, inside, keys, size); err != nil {
		return err
	}
	type side struct {
		name  string
		store *opened
	}
	sides := []side{{"in process", inside}}
	daemon, missing := kv.OpenSocket(ctx, kv.SocketOptions{RSKVD: r.rskvd, Dir: r.dir, Memory: 256 << 20, Shared: true})
	if missing == nil {
		socket := &opened{daemon, "daemon, one client for all, memory 256 MiB"}
		stores = append(stores, socket)
		if err := r.preload(ctx, socket, keys, size); err != nil {
			return err
		}
		sides = append(sides, side{"one connection", socket})
	} else {
		r.line.Say("concurrency: without the daemon: %v", missing)
	}
	var list []series
	for _, s := range sides {
		for _, reads := range []float64{0.5, 0.2} {
			for _, n := range taskCounts {
				line := fmt.Sprintf("%s, %.0f %% reads", s.name, reads*100)
				list = append(list, series{
					name: line + ", " + plural(n, "goroutine"), line: line, x: float64(n), store: s.store, single: n == 1,
					load: load.Load{Workers: n, Reads: reads, Keys: keys, ValueSize: size, Times: true},
				})
			}
		}
	}
	return r.measure(ctx, "concurrency", "goroutines", "values of 256 B, uniform, one operation at a time each; CPU/op of the daemon is its own", list)
}

// batch is by number of operations handed over together.
func (r *runner) batch(ctx context.Context) (err error) {
	keys := r.keysFor(kib)
	s, err := r.engine("batch", 256<<20, keys)
	if err != nil {
		return err
	}
	stores := []*opened{s}
	defer closeAll(&err, &stores)
	if err := r.preload(ctx, s, keys, kib); err != nil {
		return err
	}
	var list []series
	for _, kind := range []struct {
		name  string
		reads float64
	}{{"put", 0}, {"get", 1}} {
		for _, n := range batchSizes {
			list = append(list, series{
				name: fmt.Sprintf("%s, batches of %d", kind.name, n), line: kind.name, x: float64(n), store: s,
				load: load.Load{Workers: 1, Batch: n, Reads: kind.reads, Keys: keys, ValueSize: kib},
			})
		}
	}
	return r.measure(ctx, "batches", "operations in a batch", "1 thread, values of 1 KB, uniform", list)
}
