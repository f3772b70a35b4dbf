package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"rskv/bench/internal/kv"
	"rskv/bench/internal/load"
	"rskv/engine"
)

// valueSize of all loads here, in bytes.
const valueSize = 100

// opened makes a contestant of what a constructor returns.
func opened(name, commit string, store kv.Store, err error) *contestant {
	if err != nil {
		return &contestant{name: name, commit: commit, missing: err}
	}
	return &contestant{name: name, commit: commit, store: store}
}

// rskv opens the engine.
func (s *suite) rskv(name string, commit time.Duration, durable bool) *contestant {
	words := commit.String()
	switch {
	case durable:
		words = "each"
	case commit < 0:
		words = "off"
	}
	store, err := kv.OpenEngine(engine.Options{Dir: filepath.Join(s.dir, name), Memory: cacheBytes, CommitInterval: commit})
	if err != nil {
		return &contestant{name: "rskv", commit: words, missing: err, ours: true}
	}
	store.SyncEach = durable
	return &contestant{name: "rskv", commit: words, store: store, ours: true}
}

func (s *suite) setting(more string) string {
	return fmt.Sprintf("%d keys of %d B, values of %d B, uniform, preloaded; every value checked; %s", s.keys, load.KeySize, valueSize, more)
}

// memory is stores in process, nothing made durable before it is answered.
func (s *suite) memory(ctx context.Context) (err error) {
	list := []*contestant{s.rskv("memory", time.Second, false)}
	list = append(list, opened("xsync", "never", newXsync(s.keys), nil), opened("sharded map", "never", newSharded(s.keys), nil))
	for _, o := range []struct {
		name string
		open func(string, bool) (kv.Store, error)
	}{{"pebble", newPebble}, {"badger", newBadger}, {"bbolt", newBolt}} {
		store, err := o.open(s.dir, false)
		list = append(list, opened(o.name, "off", store, err))
	}
	defer func() { closeAll(&err, list) }()
	if err := s.preload(ctx, list, valueSize); err != nil {
		return err
	}
	for _, v := range []struct {
		name    string
		load    load.Load
		targets map[string]float64
	}{
		{"get, 1 goroutine", load.Load{Workers: 1, Reads: 1}, map[string]float64{"xsync": 1.5, "pebble": 8}},
		{"get, 2 goroutines", load.Load{Workers: 2, Reads: 1}, map[string]float64{"xsync": 1.5, "pebble": 8}},
		{"get, 2 goroutines, batches of 32", load.Load{Workers: 2, Reads: 1, Batch: 32}, nil},
		{"put, 1 goroutine", load.Load{Workers: 1}, nil},
		{"put, 2 goroutines", load.Load{Workers: 2}, nil},
		{"put, 2 goroutines, batches of 32", load.Load{Workers: 2, Batch: 32}, nil},
		{"half gets, half puts, 2 goroutines", load.Load{Workers: 2, Reads: 0.5}, nil},
	} {
		v.load.Keys, v.load.ValueSize = s.keys, valueSize
		err := s.contest(ctx, versus{
			group: "in process: " + v.name, name: v.name, load: v.load, targets: v.targets,
			setting: s.setting("memory 512 MiB for each store on disk; a batch is one transaction where there are any, and one by one for maps and pebble"),
		}, list)
		if err != nil {
			return err
		}
	}
	return nil
}

// durable is stores in process whose puts are on stable storage when they return.
func (s *suite) durable(ctx context.Context) (err error) {
	list := []*contestant{s.rskv("durable", time.Second, true)}
	for _, o := range []struct {
		name string
		open func(string, bool) (kv.Store, error)
	}{{"pebble", newPebble}, {"badger", newBadger}, {"bbolt", newBolt}} {
		store, err := o.open(s.dir, true)
		list = append(list, opened(o.name, "each", store, err))
	}
	defer func() { closeAll(&err, list) }()
	for _, n := range []int{1, 50} {
		name := fmt.Sprintf("durable put, %d at a time", n)
		err := s.contest(ctx, versus{
			group: "in process: " + name, name: name,
			load:    load.Load{Workers: n, Keys: s.keys, ValueSize: valueSize, Times: true},
			setting: fmt.Sprintf("keys drawn from %d, empty stores at first, values of %d B", s.keys, valueSize),
		}, list)
		if err != nil {
			return err
		}
	}
	return nil
}
