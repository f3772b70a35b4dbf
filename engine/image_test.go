package engine

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/epoch"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

const imageKeys = 7_000

// imageStore is a store that has taken a snapshot checkpoint in round 1, and in which
// round 2 has been written over it since. Nothing has been synced after the image.
func imageStore(t *testing.T, dev ioring.Device) (s *Store, n *Session, info CheckpointInfo) {
	t.Helper()
	s = openOn(t, dev, nil)
	n = s.NewSession()
	fillKeys(t, n, imageKeys, 0)
	syncStore(t, s) // what follows is a copy, at other addresses
	fillKeys(t, n, imageKeys, 1)
	info = checkpoint(t, s, SnapshotCheckpoint)
	require.Equal(t, SnapshotCheckpoint, info.Kind)
	fillKeys(t, n, imageKeys, 2)
	return s, n, info
}

// TestImage: a snapshot checkpoint freezes what it covers, or what is updated in place
// after it gets into it, or it is durable by the log alone.
func TestImage(t *testing.T) {
	dev := newMem()
	s, n, info := imageStore(t, dev)
	require.Equal(t, info.Version, s.Stats().Durable)
	before := s.Stats()
	fillKeys(t, n, imageKeys, 3)
	after := s.Stats()
	require.Equal(t, before.LogTail, after.LogTail, "it was appended")
	require.Equal(t, before.InPlace+imageKeys, after.InPlace)
	require.Zero(t, s.log.Frozen())
	require.Less(t, s.log.Durable().Bytes(), info.Tail)

	for _, keep := range []float64{0, 1} { // what the log has of it, it has from later
		image := dev.CrashImage(iotest.CrashOptions{Keep: keep})
		for range 2 { // the second time it lies in a closed span
			re := openOn(t, image, nil)
			require.Equal(t, info.Version, re.Recovery().Version)
			requireKeys(t, re, imageKeys, 1)
			live, exact := checkStore(t, re)
			require.True(t, exact)
			require.EqualValues(t, imageKeys, live)
			image = image.CrashImage(iotest.CrashOptions{})
			require.NoError(t, re.Close())
		}
	}

	// A commit of the log itself has what was updated in place.
	version := syncStore(t, s)
	require.Greater(t, version, info.Version)
	image := dev.CrashImage(iotest.CrashOptions{})
	n.Close()
	require.NoError(t, s.Close())
	re := openOn(t, image, nil)
	require.Equal(t, version, re.Recovery().Version)
	requireKeys(t, re, imageKeys, 3)
	require.NoError(t, re.Close())

	// The version of the image is still to be had, instead of what lies over it, and
	// stays when the power fails again.
	re = openOn(t, dev.CrashImage(iotest.CrashOptions{}), func(o *Options) { o.RecoverVersion = info.Version })
	requireKeys(t, re, imageKeys, 1)
	again := re.dev.(*iotest.Mem).CrashImage(iotest.CrashOptions{})
	require.NoError(t, re.Close())
	re = openOn(t, again, nil)
	require.Equal(t, info.Version, re.Recovery().Version)
	requireKeys(t, re, imageKeys, 1)
	require.NoError(t, re.Close())
}

// TestImage_AfterAnother: one image that follows another is not enough, or of more than
// the one before the log is replayed.
func TestImage_AfterAnother(t *testing.T) {
	dev := newMem()
	s, n, first := imageStore(t, dev)
	for round := uint64(3); round < 9; round++ {
		fillKeys(t, n, imageKeys, round)
		info := checkpoint(t, s, SnapshotCheckpoint)
		require.Equal(t, SnapshotCheckpoint, info.Kind)
		require.Greater(t, info.Version, first.Version)
		fillKeys(t, n, imageKeys, 100) // in place, and lost
		image := dev.CrashImage(iotest.CrashOptions{Seed: round, Keep: 0.5, Tear: 0.5})
		res, err := Verify(VerifyOptions{Device: image}, nil)
		require.NoError(t, err)
		require.True(t, res.Opens, res.Why)
		require.Zero(t, res.Damages)
		require.Equal(t, info.Version, res.Version)
		re := openOn(t, image, nil)
		require.Equal(t, info.Version, re.Recovery().Version)
		requireKeys(t, re, imageKeys, round)
		require.NoError(t, re.Close())
	}
	list, err := s.Checkpoints()
	require.NoError(t, err)
	require.Len(t, list, CheckpointsKeptDefault)
	names, err := dev.ListMeta()
	require.NoError(t, err)
	require.Len(t, imageVersions(names), CheckpointsKeptDefault, "an image stays without its checkpoint, or goes before it")
	for i, v := range imageVersions(names) {
		require.Equal(t, list[i].Version, v)
	}
	n.Close()
	require.NoError(t, s.Close())
}

// TestImage_EveryPoint: the power fails at any request of a recovery that puts an image
// back, and the next one finds something else.
func TestImage_EveryPoint(t *testing.T) {
	for _, rollBack := range []bool{false, true} {
		dev := newMem()
		s, n, info := imageStore(t, dev)
		change := func(o *Options) {}
		if rollBack {
			syncStore(t, s)
			change = func(o *Options) { o.RecoverVersion = info.Version }
		}
		rng := rand.New(rand.NewPCG(newSeed(t), 0))
		for k := 0; ; k++ {
			image := dev.CrashImage(iotest.CrashOptions{Seed: rng.Uint64(), Keep: rng.Float64(), Tear: rng.Float64(), Reorder: true})
			image.FailAfter(k)
			re, err := tryOpenOn(image, change)
			if err == nil {
				image.FailAfter(-1)
				require.NoError(t, re.Close())
				require.Greater(t, k, 6, "it failed nowhere")
				break
			}
			require.ErrorIs(t, err, iotest.ErrPowerCut)
			image = image.CrashImage(iotest.CrashOptions{Seed: rng.Uint64(), Keep: rng.Float64(), Tear: rng.Float64(), Reorder: true})
			re = openOn(t, image, nil)
			// Going back counts from when the manifest says so.
			want := uint64(1)
			if rollBack && re.Recovery().Version != info.Version {
				want = 2
			} else {
				require.Equal(t, info.Version, re.Recovery().Version)
			}
			requireKeys(t, re, imageKeys, want)
			require.NoError(t, re.Close())
		}
		n.Close()
		require.NoError(t, s.Close())
	}
}

// TestImage_Damaged: a store opens without the image that it needs, or does not open for
// want of one that it does not need; or nobody finds the damage.
func TestImage_Damaged(t *testing.T) {
	dev := newMem()
	s, n, info := imageStore(t, dev)
	name := imageName(info.Version)
	whole, err := dev.ReadMeta(name)
	require.NoError(t, err)
	damage := map[string]func(image *iotest.Mem) error{
		"missing": func(image *iotest.Mem) error { return image.RemoveMeta(name) },
		"cut":     func(image *iotest.Mem) error { return image.WriteMeta(name, whole[:len(whole)-1]) },
		"empty":   func(image *iotest.Mem) error { return image.WriteMeta(name, nil) },
		"another": func(image *iotest.Mem) error {
			b := bytes.Clone(whole)
			b[20]++
			return image.WriteMeta(name, b)
		},
	}
	for _, at := range []int{0, 9, 33, 41, 50, 60, imageHeader, len(whole) / 2, len(whole) - imageTrailer - 1, len(whole) - 32, len(whole) - 25, len(whole) - 20, len(whole) - 1} {
		damage[fmt.Sprintf("byte %d", at)] = func(image *iotest.Mem) error {
			b := bytes.Clone(whole)
			b[at] ^= 0x10
			return image.WriteMeta(name, b)
		}
	}
	check := func(needed bool) {
		for what, do := range damage {
			image := dev.CrashImage(iotest.CrashOptions{})
			require.NoError(t, do(image))
			res, err := Verify(VerifyOptions{Device: image}, nil)
			require.NoError(t, err, what)
			require.Equal(t, !needed, res.Opens, "%s: %s", what, res.Why)
			if what != "missing" || needed {
				require.NotZero(t, res.Damages, what)
			}
			re, err := tryOpenOn(image, nil)
			if !needed {
				require.NoError(t, err, what)
				requireKeys(t, re, imageKeys, 2)
				require.NoError(t, re.Close())
				continue
			}
			require.ErrorIs(t, err, ErrCorrupt, what)
			if what != "missing" {
				require.ErrorContains(t, err, name, what)
			}
		}
	}
	check(true)
	syncStore(t, s)
	check(false)
	image := dev.CrashImage(iotest.CrashOptions{})
	require.NoError(t, image.RemoveMeta(name))
	_, err = tryOpenOn(image, func(o *Options) { o.RecoverVersion = info.Version })
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, name)
	n.Close()
	require.NoError(t, s.Close())
}

// TestImage_WithoutItsName: the image is whole, and the power fails before the checkpoint
// is named, or its name is damaged: what it holds is lost although it may have been
// told, or it is used although a later commit is there.
func TestImage_WithoutItsName(t *testing.T) {
	dev := newMem()
	s, n, info := imageStore(t, dev)
	for _, late := range []bool{false, true} {
		if late {
			syncStore(t, s)
		}
		for _, do := range []func(*iotest.Mem, string) error{
			(*iotest.Mem).RemoveMeta,
			func(m *iotest.Mem, name string) error { return m.WriteMeta(name, []byte("damaged")) },
		} {
			image := dev.CrashImage(iotest.CrashOptions{})
			require.NoError(t, do(image, checkpointName(info.Version)))
			re := openOn(t, image, nil)
			want := uint64(1)
			if late {
				want = 2
			}
			requireKeys(t, re, imageKeys, want)
			require.NoError(t, re.Close())
		}
	}
	n.Close()
	require.NoError(t, s.Close())
}

// TestImage_Salvage: what only an image holds is not saved.
func TestImage_Salvage(t *testing.T) {
	dev := newMem()
	s, n, _ := imageStore(t, dev)
	image := dev.CrashImage(iotest.CrashOptions{})
	n.Close()
	require.NoError(t, s.Close())
	to := newMem()
	res, err := Salvage(VerifyOptions{Device: image}, Options{Device: to, Memory: MemoryMin, CommitInterval: -1}, nil)
	require.NoError(t, err)
	require.EqualValues(t, imageKeys, res.Keys)
	re := openOn(t, to.CrashImage(iotest.CrashOptions{}), nil)
	requireKeys(t, re, imageKeys, 1)
	require.NoError(t, re.Close())
}

// TestImage_Fails: the device fails at any point of a snapshot checkpoint, and writers
// stay held back from what was frozen, or a version is used twice, or what follows is
// not durable.
func TestImage_Fails(t *testing.T) {
	gone := errors.New("gone")
	for k := 1; ; k++ {
		dev := newMem()
		fault := iotest.NewFault(dev, 1)
		s := openOn(t, fault, nil)
		n := s.NewSession()
		fillKeys(t, n, imageKeys, 1)
		fault.FailStreamWrite(k, gone)
		info, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: SnapshotCheckpoint})
		require.Zero(t, s.log.Frozen())
		if err == nil {
			require.Greater(t, k, 4, "it failed nowhere")
			n.Close()
			require.NoError(t, s.Close())
			break
		}
		require.ErrorIs(t, err, gone)
		cut := strings.Contains(err.Error(), imagePrefix)
		fault.FailStreamWrite(0, nil)
		before := s.Stats()
		fillKeys(t, n, imageKeys, 2)
		require.Equal(t, before.LogTail, s.Stats().LogTail)
		// The number of the one that failed may be lost: the next has a commit of the log.
		info, err = s.Checkpoint(context.Background(), CheckpointOptions{Kind: SnapshotCheckpoint})
		require.NoError(t, err)
		require.Equal(t, cut, info.Kind == FullCheckpoint)
		fillKeys(t, n, imageKeys, 3)
		image := dev.CrashImage(iotest.CrashOptions{})
		n.Close()
		require.NoError(t, s.Close())
		re := openOn(t, image, nil)
		require.Equal(t, info.Version, re.Recovery().Version)
		requireKeys(t, re, imageKeys, 2)
		require.NoError(t, re.Close())
	}
}

// TestImage_Lost: the commit record of an image that came to nothing is flushed in time,
// with what was updated in place since, and counts; or its number is used again.
func TestImage_Lost(t *testing.T) {
	dev := newMem()
	fault := iotest.NewFault(dev, 1)
	s := openOn(t, fault, nil)
	n := s.NewSession()
	fillKeys(t, n, imageKeys, 0)
	last := syncStore(t, s)
	fillKeys(t, n, imageKeys, 1)
	blocks := (1<<s.index.Bits() + snapshotRows - 1) / snapshotRows
	fault.FailStreamWrite(blocks+4, errors.New("gone")) // behind header and end of the snapshot, and the image's header
	_, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: SnapshotCheckpoint})
	require.ErrorContains(t, err, imagePrefix)
	fault.FailStreamWrite(0, nil)
	fillKeys(t, n, imageKeys, 2)
	cut := s.log.Tail()
	evict(t, s, n)
	require.Greater(t, s.log.Flushed(), cut)
	image := dev.CrashImage(iotest.CrashOptions{Keep: 1})
	version := syncStore(t, s)
	re := openOn(t, image, nil)
	require.Equal(t, last, re.Recovery().Version)
	requireKeys(t, re, imageKeys, 0)
	m := re.NewSession()
	require.NoError(t, m.Put([]byte("another"), nil))
	require.Greater(t, syncStore(t, re), version)
	m.Close()
	require.NoError(t, re.Close())

	// The next begins where read-only is by now.
	fillKeys(t, n, imageKeys, 3)
	evict(t, s, n)
	require.Less(t, s.log.Durable(), s.log.ReadOnly())
	checkpoint(t, s, SnapshotCheckpoint)
	require.Equal(t, s.log.ReadOnly(), s.settled())
	info := checkpoint(t, s, SnapshotCheckpoint)
	require.Equal(t, s.settled(), info.start)
	image = dev.CrashImage(iotest.CrashOptions{})
	n.Close()
	require.NoError(t, s.Close())
	re = openOn(t, image, nil)
	require.Equal(t, info.Version, re.Recovery().Version)
	requireKeys(t, re, imageKeys, 3)
	require.NoError(t, re.Close())
}

// TestImage_NotReadBack: an image that cannot be read back, and that nobody was told of,
// keeps the store from opening.
func TestImage_NotReadBack(t *testing.T) {
	for _, part := range []string{"header", "body"} {
		dev := newMem()
		seen := false
		s := openOn(t, &hookedMeta{Device: dev, read: func(b []byte, off int64) {
			header := bytes.HasPrefix(b, []byte(imageMagic))
			if header == (part == "header") && (seen || header) && len(b) > imageTrailer {
				b[20] ^= 1
			}
			seen = seen || header
		}}, nil)
		n := s.NewSession()
		fillKeys(t, n, 100, 1)
		last := syncStore(t, s)
		fillKeys(t, n, 100, 2)
		_, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: SnapshotCheckpoint})
		require.ErrorIs(t, err, ErrCorrupt, part)
		require.ErrorContains(t, err, imagePrefix, part)
		require.Equal(t, last, s.Stats().Durable)
		image := dev.CrashImage(iotest.CrashOptions{})
		n.Close()
		require.NoError(t, s.Close())
		re := openOn(t, image, nil)
		require.Equal(t, last, re.Recovery().Version)
		requireKeys(t, re, 100, 1)
		require.NoError(t, re.Close())
	}
}

// TestImage_Beside: while writers go on, read-only passes what is being copied, others
// commit, and the power fails: a counter is not what its session says.
func TestImage_Beside(t *testing.T) {
	dev := iotest.NewMem(iotest.MemOptions{SegmentSize: 1 << 20, BufferBytes: 2 << 20})
	s := openOn(t, dev, func(o *Options) { o.Random = crand.Reader })
	const writers, counters = 3, 50
	stop := make(chan struct{})
	// Locked while what is left of it is looked at: how long that takes is not to be how
	// much is written meanwhile, all of which is kept in memory.
	var pause sync.RWMutex
	var wg sync.WaitGroup
	var ledgers [writers]*Ledger
	for w := range writers {
		l, err := s.NewLedger()
		require.NoError(t, err)
		ledgers[w] = l
		wg.Go(func() {
			n := s.NewSession()
			defer n.Close()
			n.Attach(l)
			large := make([]byte, 1000)
			for number := uint64(1); ; number += 3 {
				select {
				case <-stop:
					return
				default:
				}
				// Mostly in place; what is appended turns pages meanwhile.
				ops := []Op{
					{Kind: OpAdd, Key: fmt.Appendf(nil, "counter-%d-%d", w, number/3%counters), Delta: 1, Number: number},
					{Kind: OpAdd, Key: fmt.Appendf(nil, "shared-%d", number/3%counters), Delta: 1, Number: number + 1},
					{Kind: OpPut, Key: fmt.Appendf(nil, "large-%d-%d", w, number%700), Value: large[:number%1000], Number: number + 2},
				}
				pause.RLock()
				n.Do(ops)
				pause.RUnlock()
				for _, op := range ops {
					if op.Err != nil {
						t.Error(op.Err)
						return
					}
				}
			}
		})
	}
	for round := range 8 {
		var applied [writers]uint64
		for w, l := range ledgers {
			applied[w] = l.Applied()
		}
		info, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: SnapshotCheckpoint})
		require.NoError(t, err)
		for w, l := range ledgers {
			require.GreaterOrEqual(t, l.Durable(), applied[w])
		}
		if round%4 == 3 {
			syncStore(t, s)
		}
		image := dev.CrashImage(iotest.CrashOptions{Seed: uint64(round), Keep: 0.5, Tear: 0.5, Reorder: true})
		pause.Lock()
		re := openOn(t, image, func(o *Options) { o.Random = crand.Reader })
		require.GreaterOrEqual(t, re.Recovery().Version, info.Version)
		m := re.NewSession()
		sumOf := func(prefix string) (sum int64) {
			for i := range counters {
				ops := []Op{{Kind: OpAdd, Key: fmt.Appendf(nil, "%s-%d", prefix, i)}}
				m.Do(ops)
				require.NoError(t, ops[0].Err)
				sum += ops[0].Int
			}
			return sum
		}
		shared := int64(0)
		for w := range writers {
			l, err := re.FindLedger(ledgers[w].ID())
			require.NoError(t, err)
			require.EqualValues(t, (l.Applied()+2)/3, sumOf(fmt.Sprintf("counter-%d", w)), "round %d, writer %d", round, w)
			shared += int64(l.Applied()+1) / 3
		}
		require.Equal(t, shared, sumOf("shared"), "round %d", round)
		m.Close()
		require.NoError(t, re.Close())
		pause.Unlock()
	}
	close(stop)
	wg.Wait()
	require.NoError(t, s.Close())
}

// TestImage_Thaw: writers of a moment do not agree on what is frozen.
func TestImage_Thaw(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("key"), nil))
	s.commit.stepping.Lock()
	_, outcome := s.commit.close(commitImage, func(g *cutGroup) (ok bool) {
		g.rec, g.end, ok = s.log.CutImage(s.commit.payload[:], 0)
		return ok
	})
	s.commit.stepping.Unlock()
	require.Equal(t, cutMade, outcome)
	end := s.log.Frozen()
	require.Equal(t, s.log.Tail(), end)
	require.NoError(t, n.enter(true))
	require.Equal(t, end, n.ro)
	require.Positive(t, s.thaw(0, 0), "a writer is inside")
	require.Equal(t, end, s.log.Frozen())
	n.exit()
	require.Zero(t, s.thaw(0, epoch.CloseAttempts))
	require.NoError(t, n.enter(true))
	require.Less(t, n.ro, end)
	n.exit()
	n.Close()
	require.NoError(t, s.Close())
}

// TestImage_StaleSight: what somebody has seen of a record that was frozen is taken for
// final after it has been updated in place again.
func TestImage_StaleSight(t *testing.T) {
	s := openOn(t, newMem(), nil)
	a, b := s.NewSession(), s.NewSession()
	require.NoError(t, a.Put([]byte("key"), []byte("00000001")))
	frozen := func(do func(g *cutGroup) bool) {
		s.commit.stepping.Lock()
		defer s.commit.stepping.Unlock()
		_, outcome := s.commit.close(commitImage, do)
		require.Equal(t, cutMade, outcome)
	}
	freeze := func(g *cutGroup) (ok bool) {
		g.rec, g.end, ok = s.log.CutImage(s.commit.payload[:], 0)
		return ok
	}
	frozen(freeze)
	calls := 0
	err := a.Update([]byte("key"), func(old []byte, found bool) ([]byte, Verdict) {
		if calls++; calls == 1 {
			require.Equal(t, "00000001", string(old))
			require.Zero(t, s.thaw(0, epoch.CloseAttempts))
			require.NoError(t, b.Put([]byte("key"), []byte("00000002")))
			frozen(freeze)
		} else {
			require.Equal(t, "00000002", string(old))
		}
		return []byte("00000003"), Replace
	})
	require.NoError(t, err)
	require.Equal(t, 2, calls, "what b wrote is lost")
	require.Zero(t, s.thaw(0, epoch.CloseAttempts))
	value, err := a.Get([]byte("key"), nil)
	require.NoError(t, err)
	require.Equal(t, "00000003", string(value))
	a.Close()
	b.Close()
	require.NoError(t, s.Close())
}
