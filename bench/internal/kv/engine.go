package kv

import (
	"context"
	"errors"
	"fmt"

	"rskv/bench/internal/measure"
	"rskv/engine"
)

// Engine is rskv in process.
type Engine struct {
	*engine.Store
	// SyncEach answers a put when it is on stable storage. Set before the first
	// Worker.
	SyncEach bool
	dir      string
}

// OpenEngine opens a store in opt.Dir.
func OpenEngine(opt engine.Options) (*Engine, error) {
	s, err := engine.Open(opt)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return &Engine{Store: s, dir: opt.Dir}, nil
}

// Worker implements Store.
func (e *Engine) Worker() (Worker, error) {
	return &engineWorker{store: e, session: e.NewSession()}, nil
}

// Usage implements Store.
func (e *Engine) Usage() Usage {
	s := e.Stats()
	return Usage{
		Disk: DiskUsage(e.dir), Memory: s.Memory, Reads: s.Reads, Cold: s.ColdReads,
		DeviceReads: s.DeviceReads, DeviceRead: s.DeviceRead, Writes: s.DeviceWritten,
	}
}

// engineWorker is a session.
type engineWorker struct {
	store   *Engine
	session *engine.Session
	ops     []engine.Op
}

func (w *engineWorker) Get(dst, key []byte) ([]byte, bool, error) {
	v, err := w.session.Get(key, dst)
	if errors.Is(err, engine.ErrNotFound) {
		return dst, false, nil
	}
	return v, err == nil, err
}

func (w *engineWorker) Put(key, value []byte) error {
	err := w.session.Put(key, value)
	if err == nil && w.store.SyncEach {
		_, err = w.store.Sync(context.Background())
	}
	return err
}

func (w *engineWorker) room(n int) []engine.Op {
	if len(w.ops) < n {
		w.ops = measure.Apart[engine.Op](n)
	}
	return w.ops[:n]
}

func (w *engineWorker) GetAll(keys [][]byte, each func(int, []byte, bool)) error {
	ops := w.room(len(keys))
	for i, k := range keys {
		op := &ops[i]
		op.Kind, op.Key, op.Value, op.Err = engine.OpGet, k, nil, nil
	}
	w.session.Do(ops)
	for i := range ops {
		op := &ops[i]
		if op.Err != nil {
			return op.Err
		}
		each(i, op.Value, op.Found)
	}
	return nil
}

func (w *engineWorker) PutAll(keys, values [][]byte) error {
	ops := w.room(len(keys))
	for i, k := range keys {
		op := &ops[i]
		op.Kind, op.Key, op.Value, op.Err = engine.OpPut, k, values[i], nil
	}
	w.session.Do(ops)
	for i := range ops {
		if err := ops[i].Err; err != nil {
			return err
		}
	}
	if w.store.SyncEach {
		_, err := w.store.Sync(context.Background())
		return err
	}
	return nil
}

func (w *engineWorker) Close() error {
	w.session.Close()
	return nil
}
