package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"rskv/bench/internal/measure"
	"rskv/engine"
)

// rangeKeys is how many keys have one prefix.
const rangeKeys = 1000

// ordered is scans of the keys with one prefix, in their order: pebble, and rskv with
// its ordered index. Everything is in the memory that each has, if it fits.
func (s *suite) ordered(ctx context.Context) (err error) {
	keys := max(s.keys/rangeKeys, 1) * rangeKeys
	memory := max(cacheBytes, int64(keys)*orderedBytes)
	setting := fmt.Sprintf("%d keys of 8 B, values of %d B, %d with each prefix of 6 B, loaded in random order; a prefix drawn at random; keys returned a second, every key and value checked; memory %d MiB for each",
		keys, valueSize, rangeKeys, memory>>20)
	group := fmt.Sprintf("in process: scan of the %d keys with a prefix, in order", rangeKeys)
	row := func(name string) *measure.Row {
		return &measure.Row{Group: group, Name: "scan of a prefix, " + name, Setting: setting, Commit: "1 s", Unit: "k/s", Scale: 1000}
	}
	ours, theirs := row("rskv"), row("pebble")
	var contenders []measure.Contender
	for _, o := range []struct {
		row  *measure.Row
		open func(memory int64) (orderedStore, error)
	}{{ours, s.openOrdered}, {theirs, s.openPebble}} {
		store, err := o.open(memory)
		if err != nil {
			o.row.Missing = err.Error()
			store = nil
		} else {
			defer func() { err = errors.Join(err, store.close()) }()
			s.line.Say("loading %d keys: %s", keys, o.row.Name)
			if err := loadOrdered(ctx, store, keys); err != nil {
				return err
			}
		}
		contenders = append(contenders, measure.Contender{Row: o.row, Run: func(ctx context.Context, d time.Duration) (measure.Sample, error) {
			return scanPrefixes(ctx, store, keys, d)
		}})
	}
	s.line.Steps(len(contenders) * s.report.Rounds)
	err = measure.Interleave(ctx, s.report.Rounds, s.round, contenders, func(n int, r *measure.Row) {
		s.line.Step("%s, round %d of %d: %s", r.Group, n+1, s.report.Rounds, r.Name)
	})
	s.report.Rows = append(s.report.Rows, ours, theirs)
	theirs.Finish(nil)
	ours.Finish(theirs)
	return err
}

// orderedBytes is the memory in bytes for a key and value that are to stay in it.
const orderedBytes = 320

// orderedStore is a store with keys in order.
type orderedStore interface {
	// put stores some; it may keep nothing of them.
	put(keys, values [][]byte) error
	// scan calls each for all keys with a prefix.
	scan(ctx context.Context, prefix []byte, each func(key, value []byte) error) error
	close() error
}

// orderedKey is key number i: its prefix, and which it is of those.
func orderedKey(dst []byte, i uint64) []byte {
	group := i / rangeKeys * 0x9e3779b97f4a7c15 & (1<<48 - 1)
	return binary.BigEndian.AppendUint64(dst, group<<16|i%rangeKeys)
}

// orderedValue is the value of a key.
func orderedValue(dst, key []byte) []byte {
	for len(dst) < valueSize {
		dst = append(dst, key...)
	}
	return dst[:valueSize]
}

// loadOrdered stores every key once, in random order.
func loadOrdered(ctx context.Context, s orderedStore, n uint64) error {
	const batch = 256
	step := n/2 | 1 // goes over all of them: it has no factor in common with n
	for gcd(step, n) != 1 {
		step += 2
	}
	keys, values := make([][]byte, 0, batch), make([][]byte, 0, batch)
	at := uint64(0)
	for i := range n {
		key := orderedKey(nil, at)
		keys, values = append(keys, key), append(values, orderedValue(nil, key))
		at = (at + step) % n
		if len(keys) == batch || i == n-1 {
			if err := errors.Join(s.put(keys, values), ctx.Err()); err != nil {
				return err
			}
			keys, values = keys[:0], values[:0]
		}
	}
	return nil
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// scanPrefixes scans for d.
func scanPrefixes(ctx context.Context, s orderedStore, n uint64, d time.Duration) (sum measure.Sample, err error) {
	rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
	cpu, begin := measure.SelfCPU(), time.Now()
	var want, value []byte
	for time.Since(begin) < d {
		first := rng.Uint64N(n/rangeKeys) * rangeKeys
		i := first
		want = orderedKey(want[:0], first)
		err := s.scan(ctx, want[:6:6], func(key, v []byte) error {
			want = orderedKey(want[:0], i)
			if value = orderedValue(value[:0], want); string(key) != string(want) || string(v) != string(value) {
				return fmt.Errorf("%w: key %x for %x", measure.ErrWrong, key, want)
			}
			i++
			return nil
		})
		if err == nil && i != first+rangeKeys {
			err = fmt.Errorf("%w: %d keys instead of %d", measure.ErrWrong, i-first, rangeKeys)
		}
		if err != nil {
			return sum, err
		}
		sum.Ops += rangeKeys
	}
	sum.Elapsed, sum.CPU = time.Since(begin), measure.SelfCPU()-cpu
	return sum, nil
}

// orderedEngine is rskv with its ordered index.
type orderedEngine struct {
	*engine.Store
	session *engine.Session
	ops     []engine.Op
}

func (s *suite) openOrdered(memory int64) (orderedStore, error) {
	store, err := engine.Open(engine.Options{Dir: filepath.Join(s.dir, "ordered"), Memory: memory, CommitInterval: time.Second, Ordered: true})
	if err != nil {
		return nil, err
	}
	return &orderedEngine{Store: store, session: store.NewSession()}, nil
}

func (e *orderedEngine) put(keys, values [][]byte) error {
	e.ops = e.ops[:0]
	for i := range keys {
		e.ops = append(e.ops, engine.Op{Kind: engine.OpPut, Key: keys[i], Value: values[i]})
	}
	e.session.Do(e.ops)
	for i := range e.ops {
		if err := e.ops[i].Err; err != nil {
			return err
		}
	}
	return nil
}

func (e *orderedEngine) scan(ctx context.Context, prefix []byte, each func(key, value []byte) error) error {
	page, err := e.Scan(ctx, engine.ScanOptions{Prefix: prefix, Count: rangeKeys})
	for i := range page.Entries {
		err = errors.Join(err, each(page.Entries[i].Key, page.Entries[i].Value))
	}
	return err
}

func (e *orderedEngine) close() error {
	e.session.Close()
	return e.Close()
}

// orderedPebble is pebble, all of whose memory is for blocks.
type orderedPebble struct{ db *pebble.DB }

func (s *suite) openPebble(memory int64) (orderedStore, error) {
	dir, err := makeDir(s.dir, "pebble-ordered")
	if err != nil {
		return nil, err
	}
	cache := pebble.NewCache(memory * 7 / 8)
	defer cache.Unref()
	db, err := pebble.Open(dir, &pebble.Options{Cache: cache, MemTableSize: uint64(memory / 16), MemTableStopWritesThreshold: 2, Logger: quiet{}})
	if err != nil {
		return nil, err
	}
	return &orderedPebble{db}, nil
}

func (p *orderedPebble) put(keys, values [][]byte) error {
	b := p.db.NewBatch()
	for i := range keys {
		if err := b.Set(keys[i], values[i], nil); err != nil {
			return err
		}
	}
	return b.Commit(pebble.NoSync)
}

func (p *orderedPebble) scan(ctx context.Context, prefix []byte, each func(key, value []byte) error) (err error) {
	end := append([]byte{}, prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			break
		}
	}
	it, err := p.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: prefix, UpperBound: end})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.First(); it.Valid(); it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		// Copied, as a caller who keeps them would, and as rskv's are.
		both := append(append(make([]byte, 0, len(it.Key())+len(value)), it.Key()...), value...)
		if err := each(both[:len(it.Key())], both[len(it.Key()):]); err != nil {
			return err
		}
	}
	return it.Error()
}

func (p *orderedPebble) close() error { return p.db.Close() }
