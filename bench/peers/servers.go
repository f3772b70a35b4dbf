package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rskv/bench/internal/kv"
	"rskv/bench/internal/load"
	"rskv/bench/internal/peer"
)

// serverMemory is what each server may use, in bytes.
const serverMemory = 512 << 20

// goroutines on one client object, and how many times valkey-go's gets ours are
// to reach.
var (
	goroutines    = []int{1, 16, 64, 256}
	clientTargets = map[int]float64{1: 1, 64: 2, 256: 4}
	// alwaysTargets are the same for durable puts.
	alwaysTargets = map[int]float64{1: 1.2, 50: 1.5}
)

// servers are started ones, to be stopped.
type servers []*peer.Server

func (l servers) stop(err *error) {
	for _, s := range l {
		*err = errors.Join(*err, s.Stop())
	}
}

// redis starts redis-server and makes a contestant for each client of it.
func (s *suite) redis(ctx context.Context, list *servers, fsync peer.Fsync, commit string) []*contestant {
	server, err := peer.Redis(ctx, s.dir, fsync)
	if err == nil {
		*list = append(*list, server)
	}
	var out []*contestant
	for _, c := range []struct {
		name string
		open func(*peer.Server) (kv.Store, error)
	}{{"valkey-go", newValkey}, {"go-redis", newGoRedis}} {
		if err != nil {
			out = append(out, &contestant{name: c.name, commit: commit, missing: err})
			continue
		}
		store, err := c.open(server)
		out = append(out, opened(c.name, commit, store, err))
	}
	return out
}

// daemon starts rskvd with one client for all.
func (s *suite) daemon(ctx context.Context, commit time.Duration, durable bool) *contestant {
	words := commit.String()
	if durable {
		words = "each"
	}
	store, err := kv.OpenSocket(ctx, kv.SocketOptions{
		RSKVD: s.rskvd, Dir: s.dir, Memory: serverMemory, Commit: commit, Shared: true, Sync: durable,
	})
	if err != nil {
		return &contestant{name: "rskv", commit: words, missing: err, ours: true}
	}
	return &contestant{name: "rskv", commit: words, store: store, ours: true}
}

// client is goroutines on one client object.
func (s *suite) client(ctx context.Context) (err error) {
	var running servers
	defer running.stop(&err)
	list := []*contestant{s.daemon(ctx, time.Second, false)}
	list = append(list, s.redis(ctx, &running, peer.Never, "never")...)
	memcached, missing := peer.Memcached(ctx, s.dir, serverMemory>>20)
	if missing == nil {
		running = append(running, memcached)
		store, err := newMemcache(memcached)
		list = append(list, opened("memcached", "never", store, err))
	} else {
		list = append(list, &contestant{name: "memcached", commit: "never", missing: missing})
	}
	defer func() { closeAll(&err, list) }()
	if err := s.preload(ctx, list, valueSize); err != nil {
		return err
	}
	for _, reads := range []float64{1, 0} {
		what := map[float64]string{1: "get", 0: "put"}[reads]
		for _, n := range goroutines {
			v := s.onSocket(what, n, reads)
			if reads == 1 {
				v.targets = map[string]float64{"valkey-go": clientTargets[n]}
			}
			if err := s.contest(ctx, v, list); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *suite) onSocket(what string, n int, reads float64) versus {
	return versus{
		group: "Unix socket, goroutines on one client: " + what, name: fmt.Sprintf("%s, goroutines: %d", what, n),
		load:    load.Load{Workers: n, Reads: reads, Keys: s.keys, ValueSize: valueSize, Times: true},
		setting: s.setting("valkey-go and go-redis ask one redis-server, gomemcache memcached; CPU/op is the server's"),
	}
}

// synced is puts that the server makes durable.
func (s *suite) synced(ctx context.Context) (err error) {
	for _, mode := range []struct {
		fsync   peer.Fsync
		durable bool
		name    string
		commit  string
	}{{peer.EverySec, false, "put, durable within a second", "1s"}, {peer.Always, true, "put, durable when answered", "each"}} {
		if err := s.syncedMode(ctx, mode.fsync, mode.durable, mode.name, mode.commit); err != nil {
			return err
		}
	}
	return nil
}

func (s *suite) syncedMode(ctx context.Context, fsync peer.Fsync, durable bool, name, commit string) (err error) {
	var running servers
	defer running.stop(&err)
	list := append([]*contestant{s.daemon(ctx, time.Second, durable)}, s.redis(ctx, &running, fsync, commit)...)
	defer func() { closeAll(&err, list) }()
	for _, n := range []int{1, 50} {
		v := s.onSocket(name, n, 0)
		if durable {
			v.targets = map[string]float64{"valkey-go": alwaysTargets[n], "go-redis": alwaysTargets[n]}
		}
		if err := s.contest(ctx, v, list); err != nil {
			return err
		}
	}
	return nil
}
