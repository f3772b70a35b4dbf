package engine

import (
	"context"
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

// TestStore_Checkpoints: a checkpoint forgets its cookie, or old ones pile up.
func TestStore_Checkpoints(t *testing.T) {
	s := openTest(t, t.TempDir(), nil)
	defer func() { require.NoError(t, s.Close()) }()
	n := s.NewSession()
	defer n.Close()
	var last uint64
	for i := range CheckpointsKeptDefault + 2 {
		require.NoError(t, n.Put([]byte("key"), []byte{byte(i)}))
		info, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: LogCheckpoint, Cookie: []byte{7, byte(i)}})
		require.NoError(t, err)
		require.Greater(t, info.Version, last)
		require.EqualValues(t, 1, info.Keys)
		last = info.Version
	}
	list, err := s.Checkpoints()
	require.NoError(t, err)
	require.Len(t, list, CheckpointsKeptDefault)
	require.Equal(t, last, list[0].Version)
	require.Equal(t, []byte{7, CheckpointsKeptDefault + 1}, list[0].Cookie)
	_, err = s.Checkpoint(context.Background(), CheckpointOptions{Kind: 9})
	require.ErrorIs(t, err, ErrBadCheckpoint)
}

// TestCheckpoint_Took: how long a checkpoint took is forgotten, wraps around where it
// does not fit, or lies elsewhere than FORMAT.md says.
func TestCheckpoint_Took(t *testing.T) {
	for took, kept := range map[time.Duration]uint32{
		0: 0, 1500 * time.Nanosecond: 1, 12345 * time.Microsecond: 12345, 100 * time.Hour: math.MaxUint32,
	} {
		b := (&CheckpointInfo{Version: 3, Kind: LogCheckpoint, Tail: 4096, Took: took, Cookie: []byte("cookie")}).encode()
		require.Equal(t, kept, binary.LittleEndian.Uint32(b[100:]))
		info, err := decodeCheckpoint(b)
		require.NoError(t, err)
		require.Equal(t, time.Duration(kept)*time.Microsecond, info.Took)
	}

	s := openTest(t, t.TempDir(), nil)
	defer func() { require.NoError(t, s.Close()) }()
	for _, kind := range []CheckpointKind{FullCheckpoint, LogCheckpoint} {
		info, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: kind})
		require.NoError(t, err)
		list, err := s.Checkpoints()
		require.NoError(t, err)
		require.Positive(t, list[0].Took)
		require.LessOrEqual(t, list[0].Took, info.Took)
	}
}

// TestCheckpoint_Damaged: a flipped bit in the metadata goes unnoticed.
func TestCheckpoint_Damaged(t *testing.T) {
	info := CheckpointInfo{Version: 3, Kind: LogCheckpoint, Tail: 4096, Cookie: []byte("cookie")}
	good := info.encode()
	_, err := decodeCheckpoint(good)
	require.NoError(t, err)
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		_, err := decodeCheckpoint(bad)
		require.Error(t, err, "byte %d", i)
	}
}

// preparing counts how often segments are asked to be written in advance.
type preparing struct {
	ioring.Device
	asked atomic.Int64
}

func (p *preparing) Prepare(until int64) {
	p.asked.Add(1)
	p.Device.Prepare(until)
}

// TestCheckpoint_PreparesNothing: a checkpoint has segments written twice that no
// client with sync will wait for.
func TestCheckpoint_PreparesNothing(t *testing.T) {
	dev := &preparing{Device: newMem()}
	s := openOn(t, dev, nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("k"), []byte("v")))
	_, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: FullCheckpoint})
	require.NoError(t, err)
	require.Zero(t, dev.asked.Load())
	require.NoError(t, n.Put([]byte("k"), []byte("w")))
	syncStore(t, s)
	require.Positive(t, dev.asked.Load())
	n.Close()
	require.NoError(t, s.Close())
}

// TestCheckpoint_BesideCompaction: compaction raises the begin of the log between a
// checkpoint's commit and its name. The checkpoint is noted with the new begin,
// though it does not hold the copies, or what it needs is freed: opened as of it, or
// restored from a backup of it, the store has lost live records.
func TestCheckpoint_BesideCompaction(t *testing.T) {
	s, dev, _ := openFault(t, func(o *Options) { o.CheckpointDistance = -1 })
	n := s.NewSession()
	for i := range 100 {
		require.NoError(t, n.Put(key64(i), make([]byte, 60<<10)))
	}
	n.Close()
	syncStore(t, s)
	s.compaction.task.Stop()
	begin, version := s.log.Begin(), s.ledgers.version.Load()
	synced := make(chan struct{})
	remove := dev.Inject(iotest.Rule{Kind: ioring.Sync, Until: synced})
	var info CheckpointInfo
	var err error
	done := background(func() { info, err = s.Checkpoint(context.Background(), CheckpointOptions{Kind: FullCheckpoint}) })
	require.Eventually(t, func() bool { return s.ledgers.version.Load() > version }, waitLong, time.Microsecond)
	// As a pass ends.
	s.compaction.durable = record.Addr(4 << 20 / record.Unit)
	s.log.SetBegin(s.compaction.durable)
	free, freeErr := s.compaction.freeable()
	require.NoError(t, freeErr)
	close(synced)
	require.Equal(t, begin, free, "the checkpoint that is being taken needs it")
	waitFor(t, "a checkpoint", done)
	require.NoError(t, err)
	require.Equal(t, begin.Bytes(), info.Begin)
	free, err = s.compaction.freeable()
	require.NoError(t, err)
	require.Equal(t, begin, free, "the checkpoint needs it")
	remove()
	require.NoError(t, s.Close())
}

// holding keeps operations of a kind to itself until they are let go.
type holding struct {
	ioring.Device
	kind ioring.OpKind
	mu   sync.Mutex
	held []*ioring.Op // guarded by mu
	hold bool         // guarded by mu
}

func (h *holding) Submit(ops []*ioring.Op) {
	h.mu.Lock()
	if h.hold {
		ops = slices.DeleteFunc(slices.Clone(ops), func(op *ioring.Op) bool {
			if op.Kind == h.kind {
				h.held = append(h.held, op)
			}
			return op.Kind == h.kind
		})
	}
	h.mu.Unlock()
	if len(ops) > 0 {
		h.Device.Submit(ops)
	}
}

func (h *holding) letGo() {
	h.mu.Lock()
	held := h.held
	h.held, h.hold = nil, false
	h.mu.Unlock()
	h.Device.Submit(held)
}

// TestStats_Checkpointing: a checkpoint that is under way is not seen, or one that has
// ended still is.
func TestStats_Checkpointing(t *testing.T) {
	dev := &holding{Device: newMem(), kind: ioring.Sync}
	s := openOn(t, dev, nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("k"), []byte("v")))
	require.False(t, s.Stats().Checkpointing)
	dev.mu.Lock()
	dev.hold = true
	dev.mu.Unlock()
	done := background(func() {
		_, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: LogCheckpoint})
		require.NoError(t, err)
	})
	require.Eventually(t, func() bool { return s.Stats().Checkpointing }, time.Minute, time.Millisecond)
	require.Eventually(t, func() bool {
		dev.mu.Lock()
		defer dev.mu.Unlock()
		return len(dev.held) > 0
	}, time.Minute, time.Millisecond)
	require.True(t, s.Stats().Checkpointing)
	dev.letGo()
	waitFor(t, "the checkpoint", done)
	require.False(t, s.Stats().Checkpointing)
	n.Close()
	require.NoError(t, s.Close())
}

// overtaken has a checkpoint replaced by a newer one between a look at the names and
// the reading of it.
type overtaken struct {
	ioring.Device
	between func()
}

func (o *overtaken) ReadMeta(name string) ([]byte, error) {
	if f := o.between; f != nil && strings.HasPrefix(name, checkpointPrefix) {
		o.between = nil
		f()
	}
	return o.Device.ReadMeta(name)
}

// TestCheckpoints_Overtaken: while one checkpoint takes the place of another, the list
// has none, and compaction frees what the new one needs.
func TestCheckpoints_Overtaken(t *testing.T) {
	dev := &overtaken{Device: newMem()}
	s := openOn(t, dev, func(o *Options) { o.CheckpointsKept, o.CheckpointDistance = 1, -1 })
	take := func() {
		_, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: FullCheckpoint})
		require.NoError(t, err)
	}
	take()
	dev.between = take
	list, err := s.Checkpoints()
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.NoError(t, s.Close())
}

// TestRemoveCheckpoints: too many go, or too few; the one that a recovery begins with
// does; files of theirs stay; or what they take on disk is not known.
func TestRemoveCheckpoints(t *testing.T) {
	dev := newMem()
	s := openOn(t, dev, func(o *Options) { o.CheckpointsKept, o.CheckpointDistance = 10, -1 })
	n := s.NewSession()
	ctx := context.Background()
	take := func(kind CheckpointKind) {
		require.NoError(t, n.Put([]byte("k"), []byte("v")))
		_, err := s.Checkpoint(ctx, CheckpointOptions{Kind: kind})
		require.NoError(t, err)
	}
	for range 4 {
		take(FullCheckpoint)
	}
	take(LogCheckpoint)
	take(LogCheckpoint)
	bytesOf := func() (sum int64) {
		list, err := s.Checkpoints()
		require.NoError(t, err)
		for _, info := range list {
			sum += info.Bytes
		}
		return sum
	}
	require.Equal(t, bytesOf(), s.Stats().CheckpointBytes)
	for _, c := range []struct{ keep, removed, left int }{{10, 0, 6}, {4, 2, 4}, {1, 2, 2}, {1, 0, 2}} {
		removed, err := s.RemoveCheckpoints(ctx, c.keep)
		require.NoError(t, err)
		require.Equal(t, c.removed, removed)
		list, err := s.Checkpoints()
		require.NoError(t, err)
		require.Len(t, list, c.left)
		require.Equal(t, bytesOf(), s.Stats().CheckpointBytes)
	}
	names, err := dev.ListMeta()
	require.NoError(t, err)
	snapshots := slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, snapshotPrefix) })
	require.Len(t, snapshots, 1)
	_, err = s.RemoveCheckpoints(ctx, 0)
	require.ErrorIs(t, err, ErrBadOptions)
	over, cancel := context.WithCancel(ctx)
	cancel()
	if _, err = s.RemoveCheckpoints(over, 1); err != nil { // it may have been faster
		require.ErrorIs(t, err, context.Canceled)
	}
	n.Close()
	require.NoError(t, s.Close())
	_, err = s.RemoveCheckpoints(ctx, 1)
	require.ErrorIs(t, err, ErrClosed)
	s = openOn(t, dev.CrashImage(iotest.CrashOptions{}), nil)
	require.NotZero(t, s.Recovery().Snapshot)
	require.NoError(t, s.Close())
}

// TestSync_Context: a commit or checkpoint whose caller's context ends keeps the caller,
// or does not go on without.
func TestSync_Context(t *testing.T) {
	mem := newMem()
	dev := &holding{Device: keepOpen{mem}, kind: ioring.Sync}
	s := openOn(t, dev, nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("k"), []byte("v")))
	within, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := s.Sync(within)
	require.NoError(t, err)
	_, err = s.Checkpoint(within, CheckpointOptions{Kind: LogCheckpoint})
	require.NoError(t, err)

	dev.mu.Lock()
	dev.hold = true
	dev.mu.Unlock()
	require.NoError(t, n.Put([]byte("k"), []byte("w")))
	for _, ask := range []func() error{
		func() error { _, err := s.Sync(within); return err },
		func() error { _, err := s.Checkpoint(within, CheckpointOptions{Kind: LogCheckpoint}); return err },
	} {
		time.AfterFunc(time.Millisecond, cancel)
		waitFor(t, "who has given up", background(func() { err = ask() }))
		require.ErrorIs(t, err, context.Canceled)
	}
	n.Close()
	dev.letGo()
	require.Eventually(t, func() bool {
		list, err := s.Checkpoints()
		return err == nil && len(list) == 2
	}, waitLong, time.Millisecond)
	require.NoError(t, s.Close())
	s = openOn(t, mem, nil)
	requireAll(t, s, map[string]string{"k": "w"}, "after both")
	require.NoError(t, s.Close())
}
