package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
	"rskv/ioring/iotest"
)

func checkpoint(t testing.TB, s *Store, kind CheckpointKind) CheckpointInfo {
	t.Helper()
	info, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: kind})
	require.NoError(t, err)
	return info
}

// fillKeys stores round under keys 0 to n-1 of a session.
func fillKeys(t testing.TB, n *Session, keys int, round uint64) {
	t.Helper()
	ops := make([]Op, 0, 64)
	for i := 0; i < keys; {
		ops = ops[:0]
		for len(ops) < cap(ops) && i < keys {
			ops = append(ops, Op{Kind: OpPut, Key: fmt.Appendf(nil, "key-%d", i), Value: binary.LittleEndian.AppendUint64(nil, round)})
			i++
		}
		n.Do(ops)
		for i := range ops {
			require.NoError(t, ops[i].Err)
		}
	}
}

func requireKeys(t testing.TB, s *Store, keys int, round uint64) {
	t.Helper()
	n := s.NewSession()
	defer n.Close()
	for i := range keys {
		v, err := n.Get(fmt.Appendf(nil, "key-%d", i), nil)
		require.NoError(t, err, "key %d", i)
		require.Equal(t, round, binary.LittleEndian.Uint64(v), "key %d", i)
	}
}

// TestRecovery_Snapshot: a snapshot is not used, or what was written after it is
// lost, or a damaged one is believed.
func TestRecovery_Snapshot(t *testing.T) {
	const keys = 20_000
	dev := iotest.NewMem(iotest.MemOptions{})
	s, err := openMem(dev)
	require.NoError(t, err)
	n := s.NewSession()
	fillKeys(t, n, keys, 1)
	first := checkpoint(t, s, FullCheckpoint)
	fillKeys(t, n, keys, 2)
	_, err = s.Sync(context.Background()) // a snapshot begins at what is durable
	require.NoError(t, err)
	second := checkpoint(t, s, IndexCheckpoint)
	fillKeys(t, n, 100, 3)
	last := checkpoint(t, s, LogCheckpoint)
	require.EqualValues(t, 3, s.Stats().Checkpoints)
	whole := s.Stats().LogTail
	image := func() *iotest.Mem { return dev.CrashImage(iotest.CrashOptions{}) }
	reopen := func(dev ioring.Device, change func(*Options)) *Store {
		opt := Options{Device: dev, Memory: MemoryMin, PageSize: 256 << 10, CommitInterval: -1}
		if change != nil {
			change(&opt)
		}
		s, err := Open(opt)
		require.NoError(t, err)
		return s
	}
	check := func(s *Store, used uint64) {
		t.Helper()
		require.Equal(t, used, s.Recovery().Snapshot)
		require.Equal(t, last.Version, s.Recovery().Version)
		n := s.NewSession()
		for i := range keys {
			v, err := n.Get(fmt.Appendf(nil, "key-%d", i), nil)
			require.NoError(t, err)
			want := uint64(2)
			if i < 100 {
				want = 3
			}
			require.Equal(t, want, binary.LittleEndian.Uint64(v), "key %d", i)
		}
		n.Close()
		require.InDelta(t, keys, s.Len(), 3)
		require.NoError(t, s.index.Check())
		require.NoError(t, s.Close())
	}

	re := reopen(image(), nil)
	require.Less(t, re.Recovery().Bytes, whole/2, "the snapshot must spare most of the replay")
	check(re, second.Version)

	// The newest snapshot is damaged at some byte, or missing.
	name := snapshotName(second.snapshot)
	for _, at := range []int64{0, 60, 100, second.Bytes / 2} {
		damaged := image()
		b, err := damaged.ReadMeta(name)
		require.NoError(t, err)
		b = append([]byte(nil), b...)
		b[at] ^= 16
		require.NoError(t, damaged.WriteMeta(name, b))
		check(reopen(damaged, nil), first.Version)
	}
	// It holds, but counts another number of entries than it has; or has no end.
	for _, change := range []func(b []byte) []byte{
		func(b []byte) []byte { b[len(b)-16]++; return b },
		func(b []byte) []byte { return b[:len(b)-snapshotBlock-8] },
	} {
		lying := image()
		b, err := lying.ReadMeta(name)
		require.NoError(t, err)
		b = change(bytes.Clone(b))
		sealSnapshot(b)
		require.NoError(t, lying.WriteMeta(name, b))
		check(reopen(lying, nil), first.Version)
	}
	missing := image()
	require.NoError(t, missing.RemoveMeta(name))
	check(reopen(missing, nil), first.Version)

	// A larger index takes the same snapshot, with the same anchor.
	large := reopen(image(), func(o *Options) { o.IndexBits = 17 })
	require.EqualValues(t, 17, large.index.Bits())
	require.Equal(t, s.index.Anchor(), large.index.Anchor())
	check(large, second.Version)
	n.Close()
	require.NoError(t, s.Close())
}

// TestRecovery_Version: an older version shows something of a newer one, or its
// number comes up again.
func TestRecovery_Version(t *testing.T) {
	const keys = 3000
	dev := iotest.NewMem(iotest.MemOptions{})
	s, err := openMem(dev)
	require.NoError(t, err)
	n := s.NewSession()
	var versions []uint64
	for round := range uint64(3) {
		fillKeys(t, n, keys, round)
		versions = append(versions, checkpoint(t, s, FullCheckpoint).Version)
	}
	fillKeys(t, n, keys, 99)
	newest, err := s.Sync(context.Background())
	require.NoError(t, err)
	n.Close()
	for round, version := range versions {
		image := dev.CrashImage(iotest.CrashOptions{})
		open := func(version uint64) (*Store, error) {
			return Open(Options{Device: image, Memory: MemoryMin, PageSize: 256 << 10, CommitInterval: -1, RecoverVersion: version})
		}
		re, err := open(version)
		require.NoError(t, err)
		require.Equal(t, version, re.Recovery().Version)
		requireKeys(t, re, keys, uint64(round))
		require.InDelta(t, keys, re.Len(), 3)
		n := re.NewSession()
		fillKeys(t, n, 10, 7)
		n.Close()
		again := checkpoint(t, re, LogCheckpoint)
		require.Greater(t, again.Version, newest)
		list, err := re.Checkpoints()
		require.NoError(t, err)
		for _, c := range list[1:] {
			require.LessOrEqual(t, c.Version, version)
		}
		image = image.CrashImage(iotest.CrashOptions{})
		require.NoError(t, re.Close())
		re, err = open(0)
		require.NoError(t, err)
		require.Equal(t, again.Version, re.Recovery().Version)
		requireKeys(t, re, 10, 7)
		require.NoError(t, re.Close())
	}
	_, err = Open(Options{Device: dev.CrashImage(iotest.CrashOptions{}), Memory: MemoryMin, PageSize: 256 << 10, RecoverVersion: 1 << 40})
	require.ErrorIs(t, err, ErrBadCheckpoint)
	require.NoError(t, s.Close())
}

// TestCheckpoint_Auto: the log to be replayed grows without limit when nobody
// asks for a checkpoint; or the task runs for nothing.
func TestCheckpoint_Auto(t *testing.T) {
	dev := iotest.NewMem(iotest.MemOptions{})
	s, err := Open(Options{Device: dev, Memory: MemoryMin, PageSize: 256 << 10, CommitInterval: 20e6, CheckpointDistance: 1 << 20, IndexBits: 10})
	require.NoError(t, err)
	n := s.NewSession()
	require.Eventually(t, func() bool {
		fillKeys(t, n, 2000, 5)
		_, err := s.Sync(context.Background())
		require.NoError(t, err)
		return s.Stats().Checkpoints >= 2
	}, waitLong, 1e6)
	names, err := dev.ListMeta()
	require.NoError(t, err)
	snapshots := 0
	for _, name := range names {
		if strings.HasPrefix(name, snapshotPrefix) {
			snapshots++
		}
	}
	require.LessOrEqual(t, snapshots, CheckpointsKeptDefault+1)
	n.Close()
	require.NoError(t, s.Close())
}

// TestCheckpoint_Fails: a checkpoint whose files cannot be written counts, or
// takes the store with it.
func TestCheckpoint_Fails(t *testing.T) {
	dev := iotest.NewFault(iotest.NewMem(iotest.MemOptions{}), 1)
	s, err := Open(Options{Device: dev, Memory: MemoryMin, PageSize: 256 << 10, CommitInterval: -1})
	require.NoError(t, err)
	n := s.NewSession()
	fillKeys(t, n, 100, 1)
	broken := errors.New("broken")
	dev.FailMeta(broken)
	_, err = s.Checkpoint(context.Background(), CheckpointOptions{Kind: FullCheckpoint})
	require.ErrorIs(t, err, broken)
	dev.FailMeta(nil)
	fillKeys(t, n, 100, 2)
	checkpoint(t, s, FullCheckpoint)
	list, err := s.Checkpoints()
	require.NoError(t, err)
	require.Len(t, list, 1)
	n.Close()
	require.NoError(t, s.Close())
}

// TestCheckpoint_NothingNew: a checkpoint of a store that has just been opened
// finds nothing to commit, and has neither a version of its own nor a commit that
// makes its snapshot valid.
func TestCheckpoint_NothingNew(t *testing.T) {
	dev := iotest.NewMem(iotest.MemOptions{})
	s, err := openMem(dev)
	require.NoError(t, err)
	n := s.NewSession()
	fillKeys(t, n, 1000, 1)
	n.Close()
	syncStore(t, s)
	dev = dev.CrashImage(iotest.CrashOptions{})
	require.NoError(t, s.Close())
	s, err = openMem(dev)
	require.NoError(t, err)
	old := s.Recovery().Version
	first := checkpoint(t, s, FullCheckpoint)
	second := checkpoint(t, s, FullCheckpoint)
	require.Greater(t, first.Version, old)
	require.Greater(t, second.Version, first.Version)
	dev = dev.CrashImage(iotest.CrashOptions{})
	require.NoError(t, s.Close())
	s, err = openMem(dev)
	require.NoError(t, err)
	require.Equal(t, second.Version, s.Recovery().Snapshot)
	requireKeys(t, s, 1000, 1)
	require.NoError(t, s.Close())
}

// TestRecovery_VersionBeforeDamage: damage keeps a store from being opened as of a
// checkpoint that is older than the damage, or versions are used twice after it.
func TestRecovery_VersionBeforeDamage(t *testing.T) {
	mem := newMem()
	s := openOn(t, mem, nil)
	n := s.NewSession()
	fillKeys(t, n, 100, 1)
	version := checkpoint(t, s, FullCheckpoint).Version
	damage := s.log.Tail().Bytes() + 100
	fillKeys(t, n, 100, 2)
	for range 5 {
		require.NoError(t, n.Put([]byte("key"), nil))
		syncStore(t, s)
	}
	newest := syncStore(t, s)
	n.Close()
	require.NoError(t, s.Close())
	image := mem.CrashImage(iotest.CrashOptions{})
	image.Corrupt(damage, func(b byte) byte { return b ^ 4 })
	_, err := tryOpenOn(image.CrashImage(iotest.CrashOptions{}), nil)
	require.ErrorIs(t, err, ErrCorrupt)
	s = openOn(t, image, func(o *Options) { o.RecoverVersion = version })
	requireKeys(t, s, 100, 1)
	n = s.NewSession()
	require.NoError(t, n.Put([]byte("key"), nil))
	n.Close()
	require.Greater(t, syncStore(t, s), newest)
	require.NoError(t, s.Close())
}
