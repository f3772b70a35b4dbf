package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/cespare/xxhash/v2"

	"rskv/bench/internal/kv"
	"rskv/bench/internal/load"
	"rskv/bench/internal/measure"
	"rskv/engine"
)

const (
	recordHeader = 16 // bytes, not hashed together with the rest
	// hashedPage is how many bytes of records are hashed before the first again: a
	// page of the log.
	hashedPage = 1 << 20
	// checksumBytes is how much log of each size of record there is: twice what
	// memory holds, so that there is something to read from the device.
	checksumBytes = 64 << 20
	// checksumIndex is the memory in bytes that a key adds: 27 in the index, which may
	// take five eighths.
	checksumIndex = 64
)

// checksumValues are the sizes of values whose records are 32, 96 and 1024 B, all
// of them without padding.
var checksumValues = []int{8, 72, 1000}

// checksums is what the check of every record costs: the hash by itself, whole
// stretches of log sealed and verified, and reads from the device.
//
// Nothing can turn checksums off, so the share of the hash is told from processor
// time: that of a record sealed, verified or read, and that of its hash.
func (r *runner) checksums(ctx context.Context) (err error) {
	var stores []*opened
	defer closeAll(&err, &stores)
	var contenders []measure.Contender
	var use kv.Usage          // by the cold reads
	var hashes []*measure.Row // that a row's record takes one of; nil: it is one
	for i, size := range checksumValues {
		record, last := recordHeader+load.KeySize+size, i == len(checksumValues)-1
		bytes := int64(checksumBytes)
		if r.small && !last {
			bytes /= 16
		}
		keys := uint64(bytes) / uint64(record)
		s, err := r.engine(fmt.Sprintf("checked-%d", size), engine.MemoryMin+int64(keys)*checksumIndex, keys)
		if err != nil {
			return err
		}
		stores = append(stores, s)
		if err := r.preload(ctx, s, keys, size); err != nil {
			return err
		}
		store := s.Store.(*kv.Engine).Store
		if _, err := store.Sync(ctx); err != nil {
			return err
		}
		row := func(name string) *measure.Row {
			return &measure.Row{
				Group: "price of checksums", Commit: "off", Unit: "M records/s", Scale: 1e6, Name: fmt.Sprintf("%s, records of %d B", name, record),
				Setting: fmt.Sprintf("%s of records; CPU/op is that of a record; hashed: xxHash64 of all but the header; header and address come on top: go test -bench 'Seal|Verify' ./engine/internal/record", mib(bytes)),
			}
		}
		hash := row("hashed")
		contenders = append(contenders,
			measure.Contender{Row: hash, Run: func(_ context.Context, d time.Duration) (measure.Sample, error) { return hashed(record, d), nil }},
			measure.Contender{Row: row("sealed and written"), Run: func(ctx context.Context, _ time.Duration) (measure.Sample, error) {
				return r.sealed(ctx, keys, size, bytes)
			}},
			measure.Contender{Row: row("read and verified"), Run: func(ctx context.Context, _ time.Duration) (measure.Sample, error) {
				return scrubbed(ctx, store)
			}})
		hashes = append(hashes, nil, hash, hash)
		if last {
			// What was stored first has left the memory.
			l := load.Load{Workers: writers, Batch: 64, Reads: 1, Keys: keys / 4, ValueSize: size}
			got := row("got, cold")
			got.Unit, got.Scale = "k records/s", 1000
			contenders = append(contenders, measure.Contender{Row: got, Run: func(ctx context.Context, d time.Duration) (measure.Sample, error) {
				from := s.Usage()
				sample, err := l.Run(ctx, s, d)
				use = grown(use, from, s.Usage())
				return sample, err
			}})
			hashes = append(hashes, hash)
		}
	}
	if err := r.ran(ctx, contenders); err != nil {
		return err
	}
	for i, c := range contenders {
		c.Row.Finish(nil)
		noteHash(c.Row, hashes[i], checksumValues[min(i/3, len(checksumValues)-1)]+load.KeySize+recordHeader)
	}
	noteReads(contenders[len(contenders)-1].Row, use)
	return nil
}

// noteHash says how many MB/s a row is, and how much of its processor time the hash is.
func noteHash(row, hash *measure.Row, record int) {
	if len(row.Rates) == 0 {
		return
	}
	row.Note("%.0f MB/s", row.Rate.Median*row.Scale*float64(record)/1e6)
	if row.CPU != nil && hash != nil && hash.CPU != nil && *row.CPU > 0 {
		row.Note("of %.0f ns of processor time a record, the hash alone is %.1f ns: %.1f %%", *row.CPU, *hash.CPU, 100**hash.CPU / *row.CPU)
	}
}

// hashed hashes the bodies of records side by side in a page, for d.
func hashed(record int, d time.Duration) (s measure.Sample) {
	page := make([]byte, hashedPage)
	for i := range page {
		page[i] = byte(i * 7)
	}
	var sum uint64
	cpu, begin := measure.SelfCPU(), time.Now()
	for time.Since(begin) < d {
		for at := 0; at+record <= len(page); at += record {
			sum ^= xxhash.Sum64(page[at+recordHeader : at+record])
			s.Ops++
		}
	}
	s.Elapsed, s.CPU = time.Since(begin), measure.SelfCPU()-cpu
	runtime.KeepAlive(sum) // or nobody needs the hashes
	return s
}

// sealed times the commit of a store of which nothing has been written yet: every
// record is sealed, and its page written and synced.
func (r *runner) sealed(ctx context.Context, keys uint64, size int, bytes int64) (s measure.Sample, err error) {
	dir := filepath.Join(r.dir, "sealed")
	memory := 2*bytes + memoryFor(keys, 1)
	e, err := kv.OpenEngine(engine.Options{Dir: dir, Memory: memory, CommitInterval: -1, CheckpointDistance: -1, LiveRatio: -1, IndexBits: smallIndex(keys)})
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, e.Close(), os.RemoveAll(dir)) }()
	l := load.Load{Keys: keys, ValueSize: size}
	if err := l.Preload(ctx, e); err != nil {
		return s, err
	}
	from := e.Stats()
	cpu, begin := measure.SelfCPU(), time.Now()
	if _, err := e.Sync(ctx); err != nil {
		return s, err
	}
	s.Elapsed, s.CPU = time.Since(begin), measure.SelfCPU()-cpu
	s.Ops = uint64(e.Stats().LogDurable-max(from.LogFlushed, from.LogDurable)) / uint64(recordHeader+load.KeySize+size)
	return s, nil
}

// scrubbed reads and verifies the whole log of a store as fast as it goes.
func scrubbed(ctx context.Context, store *engine.Store) (s measure.Sample, err error) {
	cpu, begin := measure.SelfCPU(), time.Now()
	res, err := store.Scrub(ctx, engine.ScrubOptions{BytesPerSecond: -1}, nil)
	s.Elapsed, s.CPU, s.Ops = time.Since(begin), measure.SelfCPU()-cpu, res.Records
	if err == nil && res.Damages > 0 {
		err = fmt.Errorf("%w: %d damaged stretches of log", measure.ErrWrong, res.Damages)
	}
	return s, err
}
