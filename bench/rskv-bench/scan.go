package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"rskv/bench/internal/kv"
	"rskv/bench/internal/load"
	"rskv/bench/internal/measure"
	"rskv/bench/internal/peer"
	"rskv/client"
	"rskv/engine"
)

const (
	scanValue  = 100 // bytes
	scanRecord = recordHeader + load.KeySize + scanValue
	// scanBeyond is how many times its memory the store that is scanned from disk holds.
	scanBeyond = 4
	// scanPage is how many entries are asked for at a time.
	scanPage = 1000
	// scanBlock is what fio reads at a time: as much as a page of the log.
	scanBlock = 1 << 20
)

// scanPrefix is the first byte of keys, which are numbers, the low bytes first: one
// in 256 begins with it.
var scanPrefix = []byte{7}

// walker is a way to walk over all keys of a store.
type walker func(ctx context.Context, keysOnly bool, prefix []byte, each func(key, value []byte) error) error

// scan is walks over all keys: with values, without, by prefix; in memory, from
// disk, over the socket.
func (r *runner) scan(ctx context.Context) (err error) {
	keys := r.keys / 10
	log := int64(keys) * scanRecord
	var stores []*opened
	defer closeAll(&err, &stores)
	var rows []measure.Contender
	for _, s := range []struct {
		name   string
		memory int64
	}{{"in memory", max(64<<20, 4*log)}, {"from disk", max(engine.MemoryMin, log/scanBeyond)}} {
		e, err := kv.OpenEngine(engine.Options{
			Dir: filepath.Join(r.dir, "scan-"+s.name), Memory: s.memory, IndexBits: indexBits(keys, s.memory), CommitInterval: time.Second, LiveRatio: -1,
		})
		if err != nil {
			return err
		}
		o := &opened{e, "store in process, " + s.name + ", memory " + mib(s.memory)}
		stores = append(stores, o)
		if err := r.preload(ctx, o, keys, scanValue); err != nil {
			return err
		}
		for _, w := range []struct {
			keysOnly bool
			prefix   []byte
		}{{}, {keysOnly: true}, {prefix: scanPrefix}} {
			rows = append(rows, walk(s.name, o.about, keys, w.keysOnly, w.prefix, enginePages(e.Store)))
		}
	}
	daemon, missing := kv.OpenSocket(ctx, kv.SocketOptions{RSKVD: r.rskvd, Dir: r.dir, Memory: max(64<<20, 4*log), Commit: time.Second, Shared: true})
	if missing == nil {
		o := &opened{daemon, "daemon, one client, everything in memory"}
		stores = append(stores, o)
		if err := r.preload(ctx, o, keys, scanValue); err != nil {
			return err
		}
		for _, keysOnly := range []bool{false, true} {
			rows = append(rows, walk("over the socket", o.about, keys, keysOnly, nil, clientPages(daemon.Client())))
		}
	} else {
		r.line.Say("scan: without the daemon: %v", missing)
	}
	if err := r.ran(ctx, rows); err != nil {
		return err
	}
	for _, c := range rows {
		c.Row.Finish(nil)
		c.Row.Note("%.0f MB/s of log walked over", c.Row.Rate.Median*scanRecord)
	}
	return r.scanBeside(ctx, stores[1], keys)
}

// scanBeside is a walk over all keys from disk beside fio, which reads a file as long
// as the log from its begin to its end.
func (r *runner) scanBeside(ctx context.Context, s *opened, keys uint64) error {
	store := s.Store.(*kv.Engine).Store
	st := store.Stats()
	log := st.LogTail - st.LogBegin
	row := func(name, setting string) *measure.Row {
		return &measure.Row{Group: "a scan from disk", Name: name, Unit: "MB/s", Scale: 1e6, Commit: "1 s", Setting: setting}
	}
	theirs := row("sequential reads, fio", fmt.Sprintf("a file of %s, blocks of 1 MiB, O_DIRECT, 2 in flight", mib(log)))
	ours := row("every key and value, All", fmt.Sprintf("%s; a log of %s, pages of 1 MiB, the next read ahead; bytes of log a second; every value checked", s.about, mib(log)))
	file := filepath.Join(r.dir, "fio-scan")
	job := peer.FioJob{File: file, Size: (log + scanBlock - 1) &^ (scanBlock - 1), RW: "write", Block: scanBlock, Depth: 8, Sync: true}
	contenders := []measure.Contender{{Row: theirs, Run: func(ctx context.Context, _ time.Duration) (measure.Sample, error) {
		sample, err := job.Run(ctx)
		sample.Ops, sample.CPU = sample.Ops*scanBlock, 0
		return sample, err
	}}, {Row: ours, Run: func(ctx context.Context, _ time.Duration) (measure.Sample, error) {
		seen := uint64(0)
		cpu, begin := measure.SelfCPU(), time.Now()
		for e, err := range store.All(ctx) {
			if err == nil && !load.Stamped(e.Value, binary.LittleEndian.Uint64(e.Key)) {
				err = fmt.Errorf("%w: key %x", measure.ErrWrong, e.Key)
			}
			if err != nil {
				return measure.Sample{}, err
			}
			seen++
		}
		if seen != keys {
			return measure.Sample{}, fmt.Errorf("%w: %d entries instead of %d", measure.ErrWrong, seen, keys)
		}
		return measure.Sample{Ops: uint64(log), Elapsed: time.Since(begin), CPU: measure.SelfCPU() - cpu}, nil
	}}}
	if _, err := job.Run(ctx); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		theirs.Missing = err.Error()
	}
	defer os.Remove(file)
	job.RW, job.Depth, job.Sync = "read", 2, false
	if err := r.ran(ctx, contenders); err != nil {
		return err
	}
	theirs.Finish(nil)
	ours.Finish(theirs)
	return nil
}

// walk is the row of one kind of walk. A round is one whole walk however long it
// takes; counted are the keys walked over, which a prefix does not make fewer.
func walk(name, about string, keys uint64, keysOnly bool, prefix []byte, all walker) measure.Contender {
	what := "keys and values"
	switch {
	case keysOnly:
		what = "keys"
	case prefix != nil:
		what = "a prefix that 1 of 256 keys has"
	}
	row := &measure.Row{
		Group: "scans", Name: what + ", " + name, Unit: "M/s", Scale: 1e6, Commit: "1 s",
		Setting: fmt.Sprintf("%s; %s keys of %d B x %d B, pages of %d; keys walked over a second; the number of entries and every value checked", about, count(keys), load.KeySize, scanValue, scanPage),
	}
	want := keys
	if prefix != nil {
		want = (keys + 255 - uint64(prefix[0])) / 256
	}
	return measure.Contender{Row: row, Run: func(ctx context.Context, _ time.Duration) (measure.Sample, error) {
		seen := uint64(0)
		cpu, begin := measure.SelfCPU(), time.Now()
		err := all(ctx, keysOnly, prefix, func(key, value []byte) error {
			seen++
			if len(key) != load.KeySize || !keysOnly && !load.Stamped(value, binary.LittleEndian.Uint64(key)) {
				return fmt.Errorf("%w: key %x has %d bytes: %.16x", measure.ErrWrong, key, len(value), value)
			}
			return nil
		})
		if err == nil && seen != want {
			err = fmt.Errorf("%w: %d entries instead of %d", measure.ErrWrong, seen, want)
		}
		return measure.Sample{Ops: keys, Elapsed: time.Since(begin), CPU: measure.SelfCPU() - cpu}, err
	}}
}

// enginePages walks page by page.
func enginePages(s *engine.Store) walker {
	return func(ctx context.Context, keysOnly bool, prefix []byte, each func(key, value []byte) error) error {
		o := engine.ScanOptions{KeysOnly: keysOnly, Prefix: prefix, Count: scanPage}
		for {
			page, err := s.Scan(ctx, o)
			for i := range page.Entries {
				err = errors.Join(err, each(page.Entries[i].Key, page.Entries[i].Value))
			}
			if o.Cursor = page.Next; err != nil || o.Cursor == nil {
				return err
			}
		}
	}
}

// clientPages walks through a client.
func clientPages(c *client.Client) walker {
	return func(ctx context.Context, keysOnly bool, prefix []byte, each func(key, value []byte) error) error {
		for p, err := range c.Scan(ctx, client.ScanOptions{KeysOnly: keysOnly, Prefix: prefix, Count: scanPage}) {
			if err == nil {
				err = each(p.Key, p.Value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}
