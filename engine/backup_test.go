package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
	"rskv/ioring/iotest"
)

// backupOf takes a backup into memory.
func backupOf(t testing.TB, s *Store) ([]byte, BackupInfo) {
	t.Helper()
	var b bytes.Buffer
	var done, total int64
	info, err := s.Backup(context.Background(), &b, func(d, n int64) { done, total = d, n })
	require.NoError(t, err)
	require.EqualValues(t, b.Len(), info.Bytes)
	require.Equal(t, info.Bytes, total)
	require.Equal(t, total, done)
	return b.Bytes(), info
}

// TestBackup_Concurrent: a backup of a store that is being written to holds a
// write that came after its checkpoint, or lacks one that came before, or half of
// one moment and half of another.
func TestBackup_Concurrent(t *testing.T) {
	// During each backup every worker has so many rounds to write, and no more:
	// the store would grow without limit on a fast machine.
	const workers, keys, rounds = 4, 150, 10
	s := openOn(t, newMem(), func(o *Options) { o.CommitInterval = 5e6; o.IndexBits = 8 })
	defer func() { require.NoError(t, s.Close()) }()
	// Every worker writes its keys round by round, all with the number of the
	// round: at any moment a prefix of them has the newer, the rest the older.
	var group sync.WaitGroup
	var stop atomic.Bool
	var acknowledged [workers]atomic.Uint64 // rounds whose last write was synced
	var allowed atomic.Uint64               // rounds
	allowed.Store(rounds)
	value := func(worker, key int, round uint64) []byte {
		n := 10 + (key*7)%300
		if key%100 == 0 {
			n = inlineMax + 1000*worker + key
		}
		return valueOf(uint64(worker*keys+key), round, n)
	}
	for w := range workers {
		group.Add(1)
		go func() {
			defer group.Done()
			n := s.NewSession()
			defer n.Close()
			for round := uint64(1); ; round++ {
				for round > allowed.Load() && !stop.Load() {
					time.Sleep(time.Millisecond)
				}
				if stop.Load() {
					return
				}
				for k := range keys {
					if err := n.Put(fmt.Appendf(nil, "%d-%d", w, k), value(w, k, round)); err != nil {
						t.Error(err)
						return
					}
				}
				if _, err := s.Sync(context.Background()); err != nil {
					t.Error(err)
					return
				}
				acknowledged[w].Store(round)
			}
		}()
	}
	for i := range 3 {
		for w := range workers {
			for acknowledged[w].Load() < uint64(rounds*i+2) && !t.Failed() {
				time.Sleep(time.Millisecond)
			}
		}
		var before, after [workers]uint64
		for w := range workers {
			before[w] = acknowledged[w].Load()
		}
		stream, info := backupOf(t, s)
		for w := range workers {
			after[w] = acknowledged[w].Load() + 1
		}
		allowed.Add(rounds)
		seen, err := VerifyBackup(bytes.NewReader(stream))
		require.NoError(t, err)
		require.Equal(t, info, seen)
		dev := iotest.NewMem(iotest.MemOptions{SegmentSize: 4 << 20, BufferBytes: 2 << 20})
		seen, err = Restore(bytes.NewReader(stream), Options{Device: keepOpen{dev}})
		require.NoError(t, err)
		require.Equal(t, info, seen)
		res, list := collect(t, dev.CrashImage(iotest.CrashOptions{}))
		require.Empty(t, list)
		require.True(t, res.Opens, res.Why)
		re := openOn(t, dev, func(o *Options) { o.IndexBits = 8 })
		require.Equal(t, info.Version, re.Recovery().Version)
		require.Equal(t, info.Version, re.Recovery().Snapshot)
		n := re.NewSession()
		for w := range workers {
			last := uint64(0)
			for k := range keys {
				v, err := n.Get(fmt.Appendf(nil, "%d-%d", w, k), nil)
				require.NoError(t, err)
				round := before[w]
				for round <= after[w] && !bytes.Equal(v, value(w, k, round)) {
					round++
				}
				require.LessOrEqual(t, round, after[w], "worker %d key %d: none of the rounds %d to %d", w, k, before[w], after[w])
				require.True(t, k == 0 || round == last || round == last-1, "worker %d key %d: round %d after %d", w, k, round, last)
				last = round
			}
		}
		n.Close()
		require.EqualValues(t, workers*keys, info.Keys)
		require.NoError(t, re.Close())
	}
	stop.Store(true)
	group.Wait()
}

// keepOpen is a device that its user may close and we still look at.
type keepOpen struct{ ioring.Device }

func (keepOpen) Close() error { return nil }

// smallBackup is a backup of a small store, the more interesting for a second
// generation and a ledger.
func smallBackup(t testing.TB) (stream []byte, info BackupInfo, ledger LedgerID) {
	dev := newMem()
	s := openOn(t, dev, func(o *Options) { o.IndexBits = 6 })
	n := s.NewSession()
	fillKeys(t, n, 200, 1)
	require.NoError(t, n.Put([]byte("large"), valueOf(1, 1, 100_000)))
	n.Close()
	require.NoError(t, s.Close())
	s = openOn(t, dev.CrashImage(iotest.CrashOptions{}), func(o *Options) { o.IndexBits = 6 })
	n = s.NewSession()
	fillKeys(t, n, 100, 2)
	l, err := s.NewLedger()
	require.NoError(t, err)
	n.Attach(l)
	ops := []Op{{Kind: OpPut, Key: []byte("counted"), Value: []byte("x"), Number: 17}}
	n.Do(ops)
	require.NoError(t, ops[0].Err)
	stream, info = backupOf(t, s)
	ops[0].Number = 18
	n.Do(ops)
	n.Close()
	require.NoError(t, s.Close())
	return stream, info, l.ID()
}

// TestRestore_Ledgers: a restored store tells a client that writes are done which
// came after the backup, or forgets some that it holds; or uses a version number
// or a generation a second time.
func TestRestore_Ledgers(t *testing.T) {
	stream, info, id := smallBackup(t)
	dev := newMem()
	_, err := Restore(bytes.NewReader(stream), Options{Device: keepOpen{dev}})
	require.NoError(t, err)
	s := openOn(t, dev, func(o *Options) { o.IndexBits = 6 })
	l, err := s.FindLedger(id)
	require.NoError(t, err)
	require.EqualValues(t, 17, l.Applied())
	require.EqualValues(t, 17, l.Durable())
	m := s.mu.manifest
	require.Equal(t, info.StoreID, m.StoreID)
	require.EqualValues(t, 3, m.Generation)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("new"), []byte("x")))
	require.Greater(t, syncStore(t, s), info.Version)
	v, err := n.Get([]byte("large"), nil)
	require.NoError(t, err)
	require.NoError(t, valueIs(v, 1, 1, 100_000))
	n.Close()
	require.NoError(t, s.Close())
}

// TestRestore_Dir: a directory that holds something is overwritten; or the error
// does not say what is in it; or what is restored into a directory is another
// store than what is restored to a device.
func TestRestore_Dir(t *testing.T) {
	stream, info, _ := smallBackup(t)
	dir := filepath.Join(t.TempDir(), "new", "store")
	got, err := Restore(bytes.NewReader(stream), Options{Dir: dir, IO: ioring.PReadWrite})
	require.NoError(t, err)
	require.Equal(t, info, got)
	_, err = Restore(bytes.NewReader(stream), Options{Dir: dir, IO: ioring.PReadWrite})
	require.ErrorIs(t, err, ErrNotEmpty)
	require.ErrorContains(t, err, dir)

	before := listing(t, dir)
	var damages []Damage
	res, err := Verify(VerifyOptions{Dir: dir}, func(d Damage) { damages = append(damages, d) })
	require.NoError(t, err)
	require.Empty(t, damages)
	require.True(t, res.Opens, res.Why)
	require.Equal(t, before, listing(t, dir), "verify has changed something")
	s := openTest(t, dir, func(o *Options) { o.IndexBits = 6; o.SegmentSize = 1 << 20 })
	require.Equal(t, info.Version, s.Recovery().Version)
	_, err = Verify(VerifyOptions{Dir: dir}, nil)
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, s.Close())
	_, err = Verify(VerifyOptions{Dir: filepath.Join(dir, "missing")}, nil)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Verify(VerifyOptions{Dir: t.TempDir()}, nil)
	require.ErrorIs(t, err, ErrNotAStore)
}

// listing is the names, sizes and times of a directory's files.
func listing(t *testing.T, dir string) (list []string) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		list = append(list, fmt.Sprint(info.Name(), info.Size(), info.ModTime()))
	}
	return list
}

// TestRestore_Damaged: a backup that was cut short or damaged anywhere is taken
// for a whole one, or leaves behind something that opens.
func TestRestore_Damaged(t *testing.T) {
	seed := newSeed(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	stream, _, _ := smallBackup(t)
	refused := func(what string, b []byte) {
		t.Helper()
		_, err := VerifyBackup(bytes.NewReader(b))
		require.Error(t, err, what)
		require.True(t, errors.Is(err, ErrBackup) || errors.Is(err, ErrFormat), "%s: %v", what, err)
		dev := newMem()
		_, err = Restore(bytes.NewReader(b), Options{Device: keepOpen{dev}})
		require.True(t, errors.Is(err, ErrBackup) || errors.Is(err, ErrFormat), "%s: %v", what, err)
		names, err := dev.ListMeta()
		require.NoError(t, err)
		require.Empty(t, names, what)
		begin, end := dev.Extent()
		require.Equal(t, begin, end, "%s: log segments stay", what)
	}
	for n := 0; n < len(stream); n += 1 << 10 {
		refused(fmt.Sprintf("cut to %d bytes", n), stream[:n])
		at := n + rng.IntN(min(1<<10, len(stream)-n))
		b := bytes.Clone(stream)
		b[at] ^= 1 << rng.IntN(8)
		refused(fmt.Sprintf("flipped at %d", at), b)
	}
	for _, n := range []int{1, 2, 40, backupFrame, backupFrame + 1} {
		refused(fmt.Sprintf("%d bytes less", n), stream[:len(stream)-n])
	}
	refused("a byte more", append(bytes.Clone(stream), 0))
	refused("twice", append(bytes.Clone(stream), stream...))
	refused("something else", []byte("PK\x03\x04 this is a zip file, and a rather long one, as headers go, is it not? yes"))
	for at := range backupHeader {
		b := bytes.Clone(stream)
		b[at] ^= 1
		refused(fmt.Sprintf("header flipped at %d", at), b)
	}
}

// TestRestore_Fails: a restore that cannot write leaves behind something that
// opens as a store, or an empty one.
func TestRestore_Fails(t *testing.T) {
	stream, _, _ := smallBackup(t)
	mem := newMem()
	_, err := Restore(bytes.NewReader(stream), Options{Device: keepOpen{mem}})
	require.NoError(t, err)
	events := len(mem.Events())
	require.Greater(t, events, 10)
	for k := range events {
		dev := newMem()
		dev.FailAfter(k)
		_, err := Restore(bytes.NewReader(stream), Options{Device: keepOpen{dev}})
		require.Error(t, err, "after %d events", k)
		image := dev.CrashImage(iotest.CrashOptions{})
		_, err = Verify(VerifyOptions{Device: image}, nil)
		if err == nil {
			// Only the last manifest was missing: the copy does.
			require.GreaterOrEqual(t, k, events-2)
			continue
		}
		require.ErrorIs(t, err, ErrNotAStore, "after %d events", k)
	}
}

// TestBackup_Ends: a backup goes on after its context has ended or its writer has
// failed, or such a one does not return.
func TestBackup_Ends(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	fillKeys(t, n, 2000, 1)
	n.Close()
	ctx, cancel := context.WithCancel(context.Background())
	var out bytes.Buffer
	_, err := s.Backup(ctx, &out, func(done, total int64) {
		if done > total/2 {
			cancel()
		}
	})
	require.ErrorIs(t, err, context.Canceled)
	require.NotZero(t, out.Len())
	_, err = VerifyBackup(&out)
	require.ErrorIs(t, err, ErrBackup)

	broken := errors.New("broken pipe")
	for _, room := range []int{0, 10, backupHeader, 500, 70_000} {
		_, err = s.Backup(context.Background(), &limitedWriter{room, broken}, nil)
		require.ErrorIs(t, err, broken)
	}
	require.NoError(t, s.Close())
	_, err = s.Backup(context.Background(), io.Discard, nil)
	require.ErrorIs(t, err, ErrClosed)
}

// limitedWriter fails after some bytes.
type limitedWriter struct {
	room int
	err  error
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	if len(p) > w.room {
		return w.room, w.err
	}
	w.room -= len(p)
	return len(p), nil
}

// TestBackup_Damage: a backup carries damage on, and is the only copy when that
// is found out.
func TestBackup_Damage(t *testing.T) {
	dev := newMem()
	s := openOn(t, dev, nil)
	n := s.NewSession()
	fillKeys(t, n, 200, 1)
	syncStore(t, s)
	at := s.log.Durable().Bytes() / 2
	dev.Corrupt(at, func(b byte) byte { return b ^ 8 })
	_, err := s.Backup(context.Background(), io.Discard, nil)
	require.ErrorIs(t, err, ErrCorrupt)
	var where *CorruptError
	require.ErrorAs(t, err, &where)
	require.InDelta(t, at, where.Addr, 64)
	n.Close()
	require.NoError(t, s.Close())
}
