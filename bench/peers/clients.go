package main

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"

	"github.com/bradfitz/gomemcache/memcache"
	"github.com/redis/go-redis/v9"
	"github.com/valkey-io/valkey-go"

	"rskv/bench/internal/kv"
	"rskv/bench/internal/measure"
	"rskv/bench/internal/peer"
)

// served is a server's share of what all clients' stores have in common: one
// client object for all workers.
type served struct{ server *peer.Server }

func (s served) Usage() kv.Usage {
	return kv.Usage{CPU: measure.ProcessCPU(s.server.Pid()), Disk: kv.DiskUsage(s.server.Dir)}
}

// valkeyStore is redis-server asked by valkey-go.
type valkeyStore struct {
	served
	client valkey.Client
}

func newValkey(s *peer.Server) (kv.Store, error) {
	c, err := valkey.NewClient(valkey.ClientOption{
		InitAddress: []string{s.Socket}, DisableCache: true, ForceSingleClient: true,
		DialCtxFn: func(ctx context.Context, path string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "unix", path)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("valkey-go: %w", err)
	}
	return &valkeyStore{served{s}, c}, nil
}

func (s *valkeyStore) Worker() (kv.Worker, error) { return valkeyWorker{s.client}, nil }

func (s *valkeyStore) Close() error {
	s.client.Close()
	return nil
}

type valkeyWorker struct{ client valkey.Client }

func (w valkeyWorker) get(key []byte) valkey.Completed {
	return w.client.B().Get().Key(valkey.BinaryString(key)).Build()
}

func (w valkeyWorker) put(key, value []byte) valkey.Completed {
	return w.client.B().Set().Key(valkey.BinaryString(key)).Value(valkey.BinaryString(value)).Build()
}

func (w valkeyWorker) Get(dst, key []byte) ([]byte, bool, error) {
	v, err := w.client.Do(context.Background(), w.get(key)).AsBytes()
	if valkey.IsValkeyNil(err) {
		return dst, false, nil
	}
	return append(dst, v...), err == nil, err
}

func (w valkeyWorker) Put(key, value []byte) error {
	return w.client.Do(context.Background(), w.put(key, value)).Error()
}

// GetAll implements kv.Batcher with one pipeline.
func (w valkeyWorker) GetAll(keys [][]byte, each func(int, []byte, bool)) error {
	commands := make(valkey.Commands, len(keys))
	for i, k := range keys {
		commands[i] = w.get(k)
	}
	for i, r := range w.client.DoMulti(context.Background(), commands...) {
		v, err := r.AsBytes()
		if err != nil && !valkey.IsValkeyNil(err) {
			return err
		}
		each(i, v, err == nil)
	}
	return nil
}

// PutAll implements kv.Batcher with one pipeline.
func (w valkeyWorker) PutAll(keys, values [][]byte) error {
	commands := make(valkey.Commands, len(keys))
	for i, k := range keys {
		commands[i] = w.put(k, values[i])
	}
	var err error
	for _, r := range w.client.DoMulti(context.Background(), commands...) {
		err = errors.Join(err, r.Error())
	}
	return err
}

func (w valkeyWorker) Close() error { return nil }

// goRedisStore is redis-server asked by go-redis, with its own pool.
type goRedisStore struct {
	served
	client *redis.Client
}

func newGoRedis(s *peer.Server) (kv.Store, error) {
	return &goRedisStore{served{s}, redis.NewClient(&redis.Options{Network: "unix", Addr: s.Socket})}, nil
}

func (s *goRedisStore) Worker() (kv.Worker, error) { return goRedisWorker{s.client}, nil }
func (s *goRedisStore) Close() error               { return s.client.Close() }

type goRedisWorker struct{ client *redis.Client }

func (w goRedisWorker) Get(dst, key []byte) ([]byte, bool, error) {
	v, err := w.client.Get(context.Background(), string(key)).Bytes()
	if errors.Is(err, redis.Nil) {
		return dst, false, nil
	}
	return append(dst, v...), err == nil, err
}

func (w goRedisWorker) Put(key, value []byte) error {
	return w.client.Set(context.Background(), string(key), value, 0).Err()
}

// GetAll implements kv.Batcher with one pipeline.
func (w goRedisWorker) GetAll(keys [][]byte, each func(int, []byte, bool)) error {
	p := w.client.Pipeline()
	answers := make([]*redis.StringCmd, len(keys))
	for i, k := range keys {
		answers[i] = p.Get(context.Background(), string(k))
	}
	if _, err := p.Exec(context.Background()); err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	for i, a := range answers {
		v, err := a.Bytes()
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		each(i, v, err == nil)
	}
	return nil
}

// PutAll implements kv.Batcher with one pipeline.
func (w goRedisWorker) PutAll(keys, values [][]byte) error {
	p := w.client.Pipeline()
	for i, k := range keys {
		p.Set(context.Background(), string(k), values[i], 0)
	}
	_, err := p.Exec(context.Background())
	return err
}

func (w goRedisWorker) Close() error { return nil }

// memcacheIdle is how many idle connections gomemcache keeps: enough for every
// goroutine of the largest row, since it dials anew beyond.
const memcacheIdle = 512

// memcacheStore is memcached asked by gomemcache.
type memcacheStore struct {
	served
	client *memcache.Client
}

func newMemcache(s *peer.Server) (kv.Store, error) {
	list := new(memcache.ServerList)
	if err := list.SetServers(s.Socket); err != nil {
		return nil, fmt.Errorf("gomemcache: %w", err)
	}
	c := memcache.NewFromSelector(list)
	c.MaxIdleConns = memcacheIdle
	return &memcacheStore{served{s}, c}, nil
}

func (s *memcacheStore) Worker() (kv.Worker, error) { return memcacheWorker{s.client}, nil }
func (s *memcacheStore) Close() error               { return s.client.Close() }

// memcacheWorker writes keys in hexadecimal: memcached's own are text.
type memcacheWorker struct{ client *memcache.Client }

func (w memcacheWorker) Get(dst, key []byte) ([]byte, bool, error) {
	item, err := w.client.Get(hex.EncodeToString(key))
	if errors.Is(err, memcache.ErrCacheMiss) {
		return dst, false, nil
	}
	if err != nil {
		return dst, false, err
	}
	return append(dst, item.Value...), true, nil
}

func (w memcacheWorker) Put(key, value []byte) error {
	return w.client.Set(&memcache.Item{Key: hex.EncodeToString(key), Value: value})
}

func (w memcacheWorker) Close() error { return nil }
