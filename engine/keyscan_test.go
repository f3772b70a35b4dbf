package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
	"rskv/ioring/iotest"
)

// scanAll collects a whole scan, page by page.
func scanAll(t testing.TB, s *Store, opt ScanOptions) (all map[string][]byte, pages int) {
	t.Helper()
	all = map[string][]byte{}
	for {
		page, err := s.Scan(context.Background(), opt)
		require.NoError(t, err, "page %d", pages)
		pages++
		for _, e := range page.Entries {
			_, twice := all[string(e.Key)]
			require.False(t, twice, "key %q appears twice", e.Key)
			all[string(e.Key)] = e.Value
		}
		if opt.Cursor = page.Next; opt.Cursor == nil {
			return all, pages
		}
	}
}

// TestScan_EveryKind: a scan misses a kind of record, returns what is deleted or
// older, or ignores what it was asked for.
func TestScan_EveryKind(t *testing.T) {
	dev := newMem()
	s := openOn(t, dev, nil)
	n := s.NewSession()
	all, _ := scanAll(t, s, ScanOptions{})
	require.Empty(t, all, "an empty store")
	large := valueOf(1, 1, 3*chunkBytes+17)
	want := map[string][]byte{"empty": {}, "large": large, "a": []byte("new"), "ab": []byte("2"), "b": []byte("3")}
	require.NoError(t, n.Put([]byte("a"), []byte("old")))
	require.NoError(t, n.Put([]byte("gone"), []byte("x")))
	require.NoError(t, n.Put([]byte("emptied"), large))
	syncStore(t, s)
	for k, v := range want {
		require.NoError(t, n.Put([]byte(k), v))
	}
	for _, k := range []string{"gone", "emptied"} {
		_, err := n.Delete([]byte(k))
		require.NoError(t, err)
	}
	check := func() {
		t.Helper()
		all, _ := scanAll(t, s, ScanOptions{})
		require.Len(t, all, len(want))
		for k, v := range want {
			require.True(t, bytes.Equal(v, all[k]), "key %q", k)
		}
		all, pages := scanAll(t, s, ScanOptions{Prefix: []byte("a"), Count: 1, KeysOnly: true})
		require.Equal(t, map[string][]byte{"a": nil, "ab": nil}, all)
		require.GreaterOrEqual(t, pages, 2)
		_, pages = scanAll(t, s, ScanOptions{Bytes: 1})
		require.GreaterOrEqual(t, pages, len(want))
	}
	check()
	evict(t, s, n)
	for i := range 64 {
		_, err := n.Delete(binary.BigEndian.AppendUint64([]byte("evict"), uint64(i)))
		require.NoError(t, err)
	}
	check()
	n.Close()
	require.NoError(t, s.Close())
	s = openOn(t, dev.CrashImage(iotest.CrashOptions{}), nil)
	check()
	found := 0
	for e, err := range s.All(context.Background()) {
		require.NoError(t, err)
		require.True(t, bytes.Equal(want[string(e.Key)], e.Value))
		found++
	}
	require.Equal(t, len(want), found)
	for _, bad := range []ScanOptions{{Count: -1}, {Count: ScanCountMax + 1}, {Bytes: -1}} {
		_, err := s.Scan(context.Background(), bad)
		require.ErrorIs(t, err, ErrBadOp)
	}
	require.NoError(t, s.Close())
	_, err := s.Scan(context.Background(), ScanOptions{})
	require.ErrorIs(t, err, ErrClosed)
}

// TestScan_Model: beside writers, compaction and growth, a key that is there all
// the time is missing or appears twice, one that was gone before appears, or a
// value is nobody's. The exact count at rest is not the model's.
func TestScan_Model(t *testing.T) {
	seed := newSeed(t)
	dev := newMem()
	s := openOn(t, dev, func(o *Options) {
		o.IndexBits = indexBitsMin
		o.CommitInterval = 5 * time.Millisecond
		o.LiveRatio = 0.6
	})
	const (
		writers = 2
		stable  = 1500 // keys of a writer that are always there
		fleet   = 1500 // that come and go
	)
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	size := func(version uint64) int {
		if version%499 == 0 {
			return inlineMax + int(version)%chunkBytes*2
		}
		return 8 + int(version*7919%1500)
	}
	value := func(i int, version uint64) []byte {
		return append(binary.LittleEndian.AppendUint64(nil, version), valueOf(uint64(i), version, size(version))...)
	}
	dead := s.NewSession()
	for i := range 500 {
		require.NoError(t, dead.Put(fmt.Appendf(nil, "dead%d", i), []byte("x")))
		_, err := dead.Delete(fmt.Appendf(nil, "dead%d", i))
		require.NoError(t, err)
	}
	dead.Close()
	var stop atomic.Bool
	var wg, written sync.WaitGroup
	live := make([]map[int]bool, writers)
	for w := range writers {
		live[w] = map[int]bool{}
		written.Add(1)
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(w)))
			n := s.NewSession()
			defer n.Close()
			version := uint64(0)
			put := func(i int) {
				version++
				live[w][i] = true
				if err := n.Put(key64(i), value(i, version)); err != nil {
					t.Error(err)
				}
			}
			base := w * (stable + fleet)
			for i := range stable {
				put(base + i)
			}
			written.Done()
			for !stop.Load() && !t.Failed() {
				if rng.IntN(40) == 0 {
					time.Sleep(time.Millisecond) // so that scans are not left behind
				}
				if i := base + rng.IntN(stable+fleet); i < base+stable || rng.IntN(2) == 0 {
					put(i)
				} else {
					delete(live[w], i)
					if _, err := n.Delete(key64(i)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	written.Wait()
	compacting := background(func() {
		for passes := 0; !stop.Load() || passes == 0; passes++ {
			if _, err := s.Compact(context.Background(), CompactOptions{}); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	rng := rand.New(rand.NewPCG(seed, 99))
	for round := range rounds {
		all, _ := scanAll(t, s, ScanOptions{Count: 1 + rng.IntN(2000), KeysOnly: round%4 == 3})
		for k, v := range all {
			require.Len(t, k, 8, "key %q was deleted before the scan began", k)
			i := int(binary.LittleEndian.Uint64([]byte(k)))
			if round%4 != 3 {
				require.Greater(t, len(v), 8)
				version := binary.LittleEndian.Uint64(v)
				require.NoError(t, valueIs(v[8:], uint64(i), version, size(version)))
			}
		}
		for w := range writers {
			for i := range stable {
				require.Contains(t, all, string(key64(w*(stable+fleet)+i)), "round %d: a key that is always there", round)
			}
		}
		_, err := s.LenExact(context.Background())
		require.NoError(t, err)
	}
	stop.Store(true)
	waitFor(t, "compaction", compacting)
	wg.Wait()
	resume := quiet(t, s) // a pass that begins by itself corrects the estimate, and looks at the scans
	want := len(live[0]) + len(live[1])
	count, err := s.LenExact(context.Background())
	require.NoError(t, err)
	require.EqualValues(t, want, count.Keys)
	require.EqualValues(t, want, s.Len())
	require.Equal(t, count.Bytes, s.Stats().LiveBytes)
	all, _ := scanAll(t, s, ScanOptions{KeysOnly: true})
	require.Len(t, all, want)
	st := s.Stats()
	require.Positive(t, st.Compactions)
	require.Positive(t, st.IndexDoublings)
	require.Empty(t, s.scans.held, "a scan that has ended still holds compaction back")
	checkStore(t, s)
	resume()
	require.NoError(t, s.Close())
}

// TestScan_CursorAndRestart: a scan begins again, or skips, when the store was
// closed or crashed between two pages.
func TestScan_CursorAndRestart(t *testing.T) {
	dev := newMem()
	s := openOn(t, dev, nil)
	n := s.NewSession()
	const keys = 3000
	for i := range keys {
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 1, 500)))
	}
	all := map[string]bool{}
	opt := ScanOptions{Count: 400}
	for round := 0; ; round++ {
		page, err := s.Scan(context.Background(), opt)
		require.NoError(t, err)
		for _, e := range page.Entries {
			require.False(t, all[string(e.Key)])
			all[string(e.Key)] = true
		}
		if opt.Cursor = page.Next; opt.Cursor == nil {
			break
		}
		require.NoError(t, n.Put(key64(keys+round), []byte("later")))
		for i := range 50 {
			require.NoError(t, n.Put(key64(i*7), valueOf(uint64(i), 2, 600)))
		}
		syncStore(t, s)
		if round%2 == 0 {
			n.Close()
			require.NoError(t, s.Close())
		}
		dev = dev.CrashImage(iotest.CrashOptions{})
		s = openOn(t, dev, nil)
		n = s.NewSession()
	}
	require.Len(t, all, keys)
	require.NoError(t, s.Close())
}

// TestScan_BadCursors: what is no cursor, or one of another store, is taken for a
// place in the log.
func TestScan_BadCursors(t *testing.T) {
	s := openOn(t, newMem(), nil)
	other := openOn(t, newMem(), func(o *Options) { o.Random = bytes.NewReader([]byte("another identity HASHSEED")) })
	for _, one := range []*Store{s, other} {
		n := one.NewSession()
		for i := range 100 {
			require.NoError(t, n.Put(key64(i), key64(i)))
		}
		n.Close()
	}
	page, err := s.Scan(context.Background(), ScanOptions{Count: 10})
	require.NoError(t, err)
	refused := func(one *Store, cursor []byte) {
		t.Helper()
		_, err := one.Scan(context.Background(), ScanOptions{Cursor: cursor})
		require.ErrorIs(t, err, ErrCursor)
		require.True(t, IsRecoverable(err))
	}
	refused(other, page.Next)
	refused(s, []byte{})
	refused(s, page.Next[1:])
	for i := range page.Next {
		b := bytes.Clone(page.Next)
		b[i] ^= 0x10
		refused(s, b)
	}
	ahead := cursor{end: s.log.Tail() + 1<<20, at: 10, generation: 1}
	refused(s, ahead.encode(s))
	before := cursor{end: s.log.Durable(), at: 10, generation: 7}
	refused(s, before.encode(s))
	_, err = s.Scan(context.Background(), ScanOptions{Cursor: page.Next})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, other.Close())
}

// FuzzCursor: bytes that no scan has returned are decoded, or do not come back as
// they went.
func FuzzCursor(f *testing.F) {
	s := openOn(f, newMem(), nil)
	f.Cleanup(func() { _ = s.Close() })
	good := cursor{end: 100, at: 50, generation: 1, id: 3}
	f.Add(good.encode(s))
	f.Add([]byte{})
	f.Add(make([]byte, cursorSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, ok := s.decodeCursor(b); ok && !bytes.Equal(c.encode(s), b) {
			t.Fatalf("%x was decoded as %+v", b, c)
		}
	})
}

// TestScan_Compaction: a pass takes away what a scan has not seen yet and the scan
// ends as if nothing were missing, or the pass waits for a scan for ever.
func TestScan_Compaction(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	const keys = 2000
	for i := range keys {
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 1, 2000)))
	}
	syncStore(t, s)
	page, err := s.Scan(context.Background(), ScanOptions{Count: 50})
	require.NoError(t, err)
	c, ok := s.decodeCursor(page.Next)
	require.True(t, ok)
	passed := background(func() { compact(t, s, 0) })
	select {
	case <-passed:
		t.Fatal("the pass did not wait for the scan")
	case <-time.After(200 * time.Millisecond):
	}
	rest, _ := scanAll(t, s, ScanOptions{Cursor: page.Next, Count: 500})
	require.Len(t, rest, keys-50)
	waitFor(t, "the pass behind the scan", passed)
	require.Greater(t, s.log.Begin(), c.at)

	_, err = s.Scan(context.Background(), ScanOptions{Cursor: page.Next})
	require.ErrorIs(t, err, ErrCursor)

	// A scan that is given up holds nothing back.
	page, err = s.Scan(context.Background(), ScanOptions{Count: 1})
	require.NoError(t, err)
	require.NotEmpty(t, s.scans.held)
	for id, held := range s.scans.held {
		held.until = s.opt.Clock.Monotonic() - 1
		s.scans.held[id] = held
	}
	evict(t, s, n)
	syncStore(t, s)
	compact(t, s, 0)
	require.Empty(t, s.scans.held)
	_, err = s.Scan(context.Background(), ScanOptions{Cursor: page.Next})
	require.ErrorIs(t, err, ErrCursor)
	n.Close()
	require.NoError(t, s.Close())
}

// TestScan_Damage: a scan skips what does not verify as if nothing were missing.
func TestScan_Damage(t *testing.T) {
	dev := newMem()
	s := openOn(t, dev, nil)
	n := s.NewSession()
	for i := range 100 {
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 1, 1000)))
	}
	evict(t, s, n) // what is in memory is read there
	syncStore(t, s)
	dev.Corrupt(50_000, func(b byte) byte { return b ^ 0x40 })
	_, err := s.Scan(context.Background(), ScanOptions{})
	require.ErrorIs(t, err, ErrCorrupt)
	_, err = s.LenExact(context.Background())
	require.ErrorIs(t, err, ErrCorrupt)
	require.Empty(t, s.scans.held)
	n.Close()
	require.NoError(t, s.Close())
}

// TestLenExact_Corrects: counters that have drifted, because keys were deleted and
// put again unseen, stay wrong.
func TestLenExact_Corrects(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	const keys = 2000
	for i := range keys {
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 1, 500)))
	}
	require.NoError(t, n.Put([]byte("large"), make([]byte, 5*chunkBytes)))
	evict(t, s, n)
	for i := range keys {
		n.Do([]Op{{Kind: OpDelete, Key: key64(i), Blind: true}})
		n.Do([]Op{{Kind: OpDelete, Key: key64(keys + i), Blind: true}})
	}
	evict(t, s, n)
	for i := range keys / 2 {
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 1, 500)))
	}
	want := int64(keys/2 + 1 + 64)
	require.NotEqual(t, want, s.Len(), "the counters have not drifted")
	count, err := s.LenExact(context.Background())
	require.NoError(t, err)
	require.Equal(t, want, count.Keys)
	require.Equal(t, want, s.Len())
	require.Equal(t, count.Bytes, s.liveBytes.Load())
	size := int64(record.SizeFor(8, 500))
	require.InDelta(t, keys/2*size+5*chunkBytes+64*61_000, float64(count.Bytes), 64*1000)
	s.counting.Lock()
	_, err = s.LenExact(context.Background())
	s.counting.Unlock()
	require.ErrorIs(t, err, ErrBusy)
	n.Close()
	require.NoError(t, s.Close())
}
