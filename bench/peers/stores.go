package main

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/dgraph-io/badger/v4"
	"github.com/puzpuzpuz/xsync/v4"
	"go.etcd.io/bbolt"

	"rskv/bench/internal/kv"
)

// cacheBytes is the memory that each of the stores on disk gets: as much as rskv.
const cacheBytes = 512 << 20

// mapStore is what maps in memory have in common: one worker for all, no disk.
type mapStore struct {
	get func(key []byte) ([]byte, bool)
	put func(key string, value []byte)
}

func (m *mapStore) Worker() (kv.Worker, error) { return m, nil }
func (m *mapStore) Usage() kv.Usage            { return kv.Usage{} }
func (m *mapStore) Close() error               { return nil }

// Get copies the value, as a caller of rskv gets a copy.
func (m *mapStore) Get(dst, key []byte) ([]byte, bool, error) {
	v, ok := m.get(key)
	return append(dst, v...), ok, nil
}

func (m *mapStore) Put(key, value []byte) error {
	m.put(string(key), bytes.Clone(value))
	return nil
}

// newXsync is xsync's concurrent map.
func newXsync(keys uint64) kv.Store {
	m := xsync.NewMap[string, []byte](xsync.WithPresize(int(keys)))
	return &mapStore{
		get: func(key []byte) ([]byte, bool) { return m.Load(string(key)) },
		put: func(key string, value []byte) { m.Store(key, value) },
	}
}

// shards is how many locks the sharded map has: many more than processors.
const shards = 256

// newSharded is Go's map behind locks, the first thing one would write.
func newSharded(keys uint64) kv.Store {
	type shard struct {
		mu   sync.RWMutex
		data map[string][]byte // guarded by mu
		_    [64]byte          // no two locks in one cache line
	}
	list := make([]shard, shards)
	for i := range list {
		list[i].data = make(map[string][]byte, keys/shards)
	}
	seed := maphash.MakeSeed()
	return &mapStore{
		get: func(key []byte) ([]byte, bool) {
			s := &list[maphash.Bytes(seed, key)%shards]
			s.mu.RLock()
			defer s.mu.RUnlock()
			v, ok := s.data[string(key)]
			return v, ok
		},
		put: func(key string, value []byte) {
			s := &list[maphash.String(seed, key)%shards]
			s.mu.Lock()
			defer s.mu.Unlock()
			s.data[key] = value
		},
	}
}

// makeDir makes a directory for a store.
func makeDir(parent, name string) (string, error) {
	dir := filepath.Join(parent, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make a directory for %s: %w", name, err)
	}
	return dir, nil
}

// pebbleStore is CockroachDB's Pebble.
type pebbleStore struct {
	db      *pebble.DB
	dir     string
	options *pebble.WriteOptions
}

func newPebble(parent string, durable bool) (kv.Store, error) {
	dir, err := makeDir(parent, fmt.Sprintf("pebble-%t", durable))
	if err != nil {
		return nil, err
	}
	cache := pebble.NewCache(cacheBytes / 2)
	defer cache.Unref()
	db, err := pebble.Open(dir, &pebble.Options{Cache: cache, MemTableSize: cacheBytes / 8, MemTableStopWritesThreshold: 4, Logger: quiet{}})
	if err != nil {
		return nil, err
	}
	s := &pebbleStore{db, dir, pebble.NoSync}
	if durable {
		s.options = pebble.Sync
	}
	return s, nil
}

func (s *pebbleStore) Worker() (kv.Worker, error) { return pebbleWorker{s}, nil }
func (s *pebbleStore) Usage() kv.Usage            { return kv.Usage{Disk: kv.DiskUsage(s.dir)} }
func (s *pebbleStore) Close() error               { return s.db.Close() }

type pebbleWorker struct{ *pebbleStore }

func (w pebbleWorker) Get(dst, key []byte) ([]byte, bool, error) {
	v, closer, err := w.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return dst, false, nil
	}
	if err != nil {
		return dst, false, err
	}
	return append(dst, v...), true, closer.Close()
}

func (w pebbleWorker) Put(key, value []byte) error { return w.db.Set(key, value, w.options) }
func (w pebbleWorker) Close() error                { return nil }

// quiet drops what Pebble and Badger would log.
type quiet struct{}

func (quiet) Infof(string, ...any)      {}
func (quiet) Errorf(string, ...any)     {}
func (quiet) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

// badgerStore is Dgraph's Badger.
type badgerStore struct {
	db  *badger.DB
	dir string
}

func newBadger(parent string, durable bool) (kv.Store, error) {
	dir, err := makeDir(parent, fmt.Sprintf("badger-%t", durable))
	if err != nil {
		return nil, err
	}
	opt := badger.DefaultOptions(dir).WithLogger(nil).WithSyncWrites(durable).WithBlockCacheSize(cacheBytes / 2).
		WithMemTableSize(cacheBytes / 8)
	db, err := badger.Open(opt)
	if err != nil {
		return nil, err
	}
	return &badgerStore{db, dir}, nil
}

func (s *badgerStore) Worker() (kv.Worker, error) { return badgerWorker{s}, nil }
func (s *badgerStore) Usage() kv.Usage            { return kv.Usage{Disk: kv.DiskUsage(s.dir)} }
func (s *badgerStore) Close() error               { return s.db.Close() }

type badgerWorker struct{ *badgerStore }

func (w badgerWorker) Get(dst, key []byte) (value []byte, found bool, err error) {
	err = w.db.View(func(tx *badger.Txn) error {
		item, err := tx.Get(key)
		if err != nil {
			return err
		}
		value, err = item.ValueCopy(dst[:0])
		return err
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return dst, false, nil
	}
	return value, err == nil, err
}

// Put gives Badger copies: a transaction keeps its key and value.
func (w badgerWorker) Put(key, value []byte) error {
	return w.db.Update(func(tx *badger.Txn) error { return tx.Set(bytes.Clone(key), bytes.Clone(value)) })
}

// GetAll implements kv.Batcher with one transaction.
func (w badgerWorker) GetAll(keys [][]byte, each func(int, []byte, bool)) error {
	return w.db.View(func(tx *badger.Txn) error {
		for i, k := range keys {
			item, err := tx.Get(k)
			if errors.Is(err, badger.ErrKeyNotFound) {
				each(i, nil, false)
				continue
			}
			if err == nil {
				err = item.Value(func(v []byte) error { each(i, v, true); return nil })
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// PutAll implements kv.Batcher with Badger's batch.
func (w badgerWorker) PutAll(keys, values [][]byte) error {
	b := w.db.NewWriteBatch()
	defer b.Cancel()
	for i, k := range keys {
		if err := b.Set(bytes.Clone(k), bytes.Clone(values[i])); err != nil {
			return err
		}
	}
	return b.Flush()
}

func (w badgerWorker) Close() error { return nil }

// boltStore is etcd's bbolt.
type boltStore struct {
	db  *bbolt.DB
	dir string
}

var bucket = []byte("b")

func newBolt(parent string, durable bool) (kv.Store, error) {
	dir, err := makeDir(parent, fmt.Sprintf("bbolt-%t", durable))
	if err != nil {
		return nil, err
	}
	db, err := bbolt.Open(filepath.Join(dir, "db"), 0o600, &bbolt.Options{NoSync: !durable, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &boltStore{db, dir}, nil
}

func (s *boltStore) Worker() (kv.Worker, error) { return boltWorker{s}, nil }
func (s *boltStore) Usage() kv.Usage            { return kv.Usage{Disk: kv.DiskUsage(s.dir)} }
func (s *boltStore) Close() error               { return s.db.Close() }

type boltWorker struct{ *boltStore }

func (w boltWorker) Get(dst, key []byte) (value []byte, found bool, err error) {
	err = w.db.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucket).Get(key)
		value, found = append(dst, v...), v != nil
		return nil
	})
	return value, found, err
}

func (w boltWorker) Put(key, value []byte) error {
	return w.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Put(key, value) })
}

// GetAll implements kv.Batcher with one transaction.
func (w boltWorker) GetAll(keys [][]byte, each func(int, []byte, bool)) error {
	return w.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		for i, k := range keys {
			v := b.Get(k)
			each(i, v, v != nil)
		}
		return nil
	})
}

// PutAll implements kv.Batcher with one transaction.
func (w boltWorker) PutAll(keys, values [][]byte) error {
	return w.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		for i, k := range keys {
			if err := b.Put(k, values[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w boltWorker) Close() error { return nil }
