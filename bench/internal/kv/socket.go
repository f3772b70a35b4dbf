package kv

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"rskv/bench/internal/measure"
	"rskv/bench/internal/peer"
	"rskv/client"
)

// Socket is rskv through a daemon of its own.
type Socket struct {
	server *peer.Server
	dir    string
	memory int64
	stats  *client.Client
	shared *client.Client // of all workers, unless it is nil
	sync   bool
}

// SocketOptions of OpenSocket.
type SocketOptions struct {
	// RSKVD is the daemon's program; "": beside this one.
	RSKVD string
	// Dir is where the daemon's own directory is made.
	Dir    string
	Memory int64
	Commit time.Duration // 0: when asked
	// Shared has all workers use one connection, as the goroutines of a program
	// would; else each has its own.
	Shared bool
	// Sync answers a put when it is on stable storage.
	Sync bool
	// Flags are more flags of the daemon.
	Flags []string
}

// OpenSocket starts a daemon.
func OpenSocket(ctx context.Context, o SocketOptions) (*Socket, error) {
	server, err := peer.RSKVD(ctx, o.RSKVD, o.Dir, o.Memory, o.Commit, o.Flags...)
	if err != nil {
		return nil, err
	}
	s := &Socket{server: server, dir: server.Dir, memory: o.Memory, sync: o.Sync}
	if s.stats, err = client.Dial(ctx, server.Socket); err == nil && o.Shared {
		s.shared, err = client.Dial(ctx, server.Socket)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect: %w", err), s.Close())
	}
	return s, nil
}

// Client is the one that all workers share; nil if each has its own.
func (s *Socket) Client() *client.Client { return s.shared }

// Worker implements Store.
func (s *Socket) Worker() (Worker, error) {
	if s.shared != nil {
		return &socketWorker{client: s.shared, sync: s.sync}, nil
	}
	c, err := client.Dial(context.Background(), s.server.Socket)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &socketWorker{client: c, own: true, sync: s.sync}, nil
}

// EngineStats asks the daemon for the counters of its engine, and returns what says one
// by the name it has in stats; what cannot be had is 0.
func (s *Socket) EngineStats() func(name string) float64 {
	ctx, cancel := context.WithTimeout(context.Background(), statsMax)
	defer cancel()
	stats, err := s.stats.Stats(ctx)
	if err != nil {
		return func(string) float64 { return 0 }
	}
	return func(name string) float64 { return number(stats["engine_"+name]) }
}

func number(x any) float64 {
	switch v := reflect.ValueOf(x); {
	case v.CanUint():
		return float64(v.Uint())
	case v.CanInt():
		return float64(v.Int())
	case v.CanFloat():
		return v.Float()
	}
	return 0
}

// statsMax bounds how long the daemon may take to tell its counters.
const statsMax = 10 * time.Second

// Usage implements Store.
func (s *Socket) Usage() Usage {
	u := Usage{CPU: measure.ProcessCPU(s.server.Pid()), Disk: DiskUsage(s.dir), Memory: s.memory}
	stats := s.EngineStats()
	at := func(name string) uint64 { return uint64(stats(name)) }
	u.Reads, u.Cold, u.DeviceReads = at("reads"), at("cold_reads"), at("device_reads")
	u.DeviceRead, u.Writes = at("device_read_bytes"), at("device_written_bytes")
	return u
}

// Close implements Store.
func (s *Socket) Close() error {
	var err error
	for _, c := range []*client.Client{s.stats, s.shared} {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
	}
	return errors.Join(err, s.server.Stop())
}

// socketWorker is a caller of a Client.
type socketWorker struct {
	client *client.Client
	own    bool
	sync   bool
	batch  *client.Batch
}

// options of a put.
func (w *socketWorker) options() []client.WriteOption {
	if w.sync {
		return []client.WriteOption{client.Sync}
	}
	return nil
}

func (w *socketWorker) Get(dst, key []byte) ([]byte, bool, error) {
	v, err := w.client.GetInto(context.Background(), dst, key)
	if errors.Is(err, client.ErrNotFound) {
		return dst, false, nil
	}
	return v, err == nil, err
}

func (w *socketWorker) Put(key, value []byte) error {
	stored, err := w.client.Put(context.Background(), key, value, w.options()...)
	return notStored(stored, err)
}

func notStored(stored bool, err error) error {
	if err == nil && !stored {
		return fmt.Errorf("%w: a put was not carried out", measure.ErrWrong)
	}
	return err
}

func (w *socketWorker) emptied() *client.Batch {
	if w.batch == nil {
		w.batch = w.client.NewBatch()
	}
	w.batch.Reset()
	return w.batch
}

func (w *socketWorker) GetAll(keys [][]byte, each func(int, []byte, bool)) error {
	b := w.emptied()
	for _, k := range keys {
		b.Get(k)
	}
	if err := b.Do(context.Background()); err != nil {
		return err
	}
	for i := range keys {
		v, err := b.Value(i)
		if err != nil && !errors.Is(err, client.ErrNotFound) {
			return err
		}
		each(i, v, err == nil)
	}
	return nil
}

func (w *socketWorker) PutAll(keys, values [][]byte) error {
	b, options := w.emptied(), w.options()
	for i, k := range keys {
		b.Put(k, values[i], options...)
	}
	if err := b.Do(context.Background()); err != nil {
		return err
	}
	for i := range keys {
		if err := notStored(b.Bool(i)); err != nil {
			return err
		}
	}
	return nil
}

func (w *socketWorker) Close() error {
	if w.own {
		return w.client.Close()
	}
	return nil
}
