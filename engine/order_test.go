package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
	"rskv/ioring/iotest"
)

// inOrder collects a whole scan, and wants its keys in their order.
func inOrder(t testing.TB, s *Store, opt ScanOptions) (all []Entry, pages int) {
	t.Helper()
	for {
		page, err := s.Scan(context.Background(), opt)
		require.NoError(t, err, "page %d", pages)
		pages++
		for _, e := range page.Entries {
			if n := len(all); n > 0 {
				c := bytes.Compare(all[n-1].Key, e.Key)
				require.True(t, c < 0 && !opt.Reverse || c > 0 && opt.Reverse, "%q behind %q", e.Key, all[n-1].Key)
			}
			all = append(all, e)
		}
		if opt.Cursor = page.Next; opt.Cursor == nil {
			return all, pages
		}
	}
}

func keysOf(all []Entry) (keys []string) {
	for _, e := range all {
		keys = append(keys, string(e.Key))
	}
	return keys
}

func openOrdered(t testing.TB, dev ioring.Device, change func(*Options)) *Store {
	t.Helper()
	return openOn(t, dev, func(o *Options) {
		o.Ordered = true
		if change != nil {
			change(o)
		}
	})
}

// TestOrder_Scan: a range that has other keys than those between its bounds, or in
// another order, or ends too early.
func TestOrder_Scan(t *testing.T) {
	dev := newMem()
	s := openOrdered(t, dev, nil)
	n := s.NewSession()
	all, _ := inOrder(t, s, ScanOptions{})
	require.Empty(t, all)
	large := valueOf(1, 1, 3*chunkBytes)
	want := []string{"\x00", "a", "a\x00", "ab", "abc", "b", "\xff", "\xff\xff", "\xff\xff\xff"}
	for _, k := range []string{"b", "abc", "\xff\xff", "a", "\x00", "\xff", "gone", "ab", "a\x00", "\xff\xff\xff"} {
		value := []byte("v" + k)
		if k == "ab" {
			value = large
		}
		require.NoError(t, n.Put([]byte(k), value))
	}
	_, err := n.Delete([]byte("gone"))
	require.NoError(t, err)
	check := func() {
		t.Helper()
		for _, x := range []struct {
			opt  ScanOptions
			want []string
		}{
			{ScanOptions{}, want},
			{ScanOptions{Prefix: []byte("a")}, want[1:5]},
			{ScanOptions{Prefix: []byte("ab")}, want[3:5]},
			{ScanOptions{Prefix: []byte("\xff")}, want[6:]},
			{ScanOptions{Prefix: []byte("\xff\xff")}, want[7:]},
			{ScanOptions{Prefix: []byte("c")}, nil},
			{ScanOptions{From: []byte("ab")}, want[3:]},
			{ScanOptions{From: []byte("aa")}, want[3:]},
			{ScanOptions{To: []byte("ab")}, want[:3]},
			{ScanOptions{From: []byte("a\x00"), To: []byte("b")}, want[2:5]},
			{ScanOptions{From: []byte("b"), To: []byte("a")}, nil},
			{ScanOptions{To: []byte{}}, nil},
			{ScanOptions{Prefix: []byte("a"), From: []byte("ab"), To: []byte("z")}, want[3:5]},
		} {
			for count := range 4 {
				opt := x.opt
				opt.Count, opt.KeysOnly = count, count == 2
				got, pages := inOrder(t, s, opt)
				require.Equal(t, x.want, keysOf(got), "%+v", opt)
				if count > 0 {
					require.GreaterOrEqual(t, pages, len(got)/count)
				}
				for _, e := range got {
					switch {
					case opt.KeysOnly:
						require.Nil(t, e.Value)
					case string(e.Key) == "ab":
						require.True(t, bytes.Equal(large, e.Value))
					default:
						require.Equal(t, "v"+string(e.Key), string(e.Value))
					}
				}
				opt.Reverse = true
				got, _ = inOrder(t, s, opt)
				down := slices.Clone(x.want)
				slices.Reverse(down)
				require.Equal(t, down, keysOf(got), "%+v", opt)
			}
		}
		got, pages := inOrder(t, s, ScanOptions{Bytes: 1})
		require.Equal(t, want, keysOf(got))
		require.GreaterOrEqual(t, pages, len(want))
		got, _ = inOrder(t, s, ScanOptions{Bytes: 1, Reverse: true})
		require.Len(t, got, len(want))
	}
	check()
	n.Close()
	require.NoError(t, s.Close())
	s = openOrdered(t, dev.CrashImage(iotest.CrashOptions{}), nil) // filled from the log
	check()
	n = s.NewSession()
	evict(t, s, n) // the values are on disk
	for i := range 64 {
		_, err := n.Delete(binary.BigEndian.AppendUint64([]byte("evict"), uint64(i)))
		require.NoError(t, err)
	}
	check()
	found := 0
	for e, err := range s.Range(context.Background(), ScanOptions{From: []byte("a"), Count: 2}) {
		require.NoError(t, err)
		require.Equal(t, want[1+found], string(e.Key))
		if found++; found == 3 {
			break
		}
	}
	n.Close()
	require.NoError(t, s.Close())
}

// TestOrder_Cursors: a cursor is not good any more after a restart, is taken by a
// store it is not of, or goes on in the other direction.
func TestOrder_Cursors(t *testing.T) {
	dev := newMem()
	s := openOrdered(t, dev, nil)
	n := s.NewSession()
	for i := range 100 {
		require.NoError(t, n.Put(fmt.Appendf(nil, "%02d", i), []byte("v")))
	}
	n.Close()
	ctx := context.Background()
	page, err := s.Scan(ctx, ScanOptions{Count: 30})
	require.NoError(t, err)
	cursor := page.Next
	refused := func(s *Store, opt ScanOptions, want error) {
		t.Helper()
		_, err := s.Scan(ctx, opt)
		require.ErrorIs(t, err, want)
	}
	refused(s, ScanOptions{Cursor: cursor, Reverse: true}, ErrCursor)
	refused(s, ScanOptions{Cursor: cursor[:5]}, ErrCursor)
	refused(s, ScanOptions{Cursor: []byte{}}, ErrCursor)
	for i := range cursor {
		b := bytes.Clone(cursor)
		b[i] ^= 0x10
		refused(s, ScanOptions{Cursor: b}, ErrCursor)
	}
	require.NoError(t, s.Close())

	dev = dev.CrashImage(iotest.CrashOptions{})
	s = openOn(t, dev, nil)
	refused(s, ScanOptions{Cursor: cursor}, ErrCursor)
	for _, opt := range []ScanOptions{{From: []byte("a")}, {To: []byte("a")}, {Reverse: true}} {
		refused(s, opt, ErrBadOp)
	}
	page, err = s.Scan(ctx, ScanOptions{Count: 30})
	require.NoError(t, err)
	byLog := page.Next
	require.NoError(t, s.Close())

	s = openOrdered(t, dev.CrashImage(iotest.CrashOptions{}), nil)
	rest, _ := inOrder(t, s, ScanOptions{Cursor: cursor})
	require.Len(t, rest, 70)
	require.Equal(t, "30", string(rest[0].Key))
	left, _ := scanAll(t, s, ScanOptions{Cursor: byLog}) // it goes on by the log
	require.Len(t, left, 70)
	require.NoError(t, s.Close())
}

// orderSettled waits until the index has no key that the store has not. A doubt may be
// lost where two are at one leaf: scans put in doubt again what they do not find.
func orderSettled(t testing.TB, s *Store, want int) {
	t.Helper()
	for end := time.Now().Add(waitLong); s.order.tree.Stats().Keys != int64(want); time.Sleep(time.Millisecond) {
		_, err := scanInOrder(s, ScanOptions{Count: 500, KeysOnly: true})
		require.NoError(t, err)
		s.order.task.Wake()
		require.True(t, time.Now().Before(end), "the index has %d keys, not %d", s.order.tree.Stats().Keys, want)
	}
}

// checkOrder looks at the tree of a store that nobody uses at the moment.
func checkOrder(t testing.TB, s *Store) {
	t.Helper()
	defer quiet(t, s)()
	require.NoError(t, s.order.tree.Check())
}

// TestOrder_Model: beside writers, compaction, growth, expiry and restarts, a scan in
// order misses a key that is there all the time, or returns one that is not. What was
// deleted or has expired stays in the index.
func TestOrder_Model_Pool(t *testing.T) {
	orderModel(t, onFiles(t, ioring.PReadWrite))
}

// TestOrder_Model_Ring: the same over io_uring.
func TestOrder_Model_Ring(t *testing.T) {
	orderModel(t, onFiles(t, ioring.URing))
}

// orderWriter writes keys of its own: some are always there, some come and go, some
// expire.
type orderWriter struct {
	id     int
	rng    *rand.Rand
	stable int
	live   map[int]bool
	number uint64
}

func (w *orderWriter) key(i int) []byte { return fmt.Appendf(nil, "%03d/%d/%d", i%97, w.id, i) }

func (w *orderWriter) put(n *Session, i int, ttl int64) error {
	w.number++
	size := 8 + int(w.number*7919%1200)
	if w.number%701 == 0 {
		size = inlineMax + int(w.number)%chunkBytes
	}
	value := valueOf(uint64(i), w.number, size)
	binary.LittleEndian.PutUint64(value, w.number)
	op := Op{Kind: OpPut, Key: w.key(i), Value: value, TTL: ttl}
	return n.one(&op)
}

func (w *orderWriter) step(n *Session) (err error) {
	switch i := w.rng.IntN(3 * w.stable); {
	case i < w.stable:
		err = w.put(n, i, 0)
	case w.rng.IntN(8) == 0: // one that is soon gone, and never comes back
		err = w.put(n, 1_000_000+int(w.number), 1+w.rng.Int64N(30))
	case w.live[i] && w.rng.IntN(2) == 0:
		delete(w.live, i)
		switch w.rng.IntN(3) {
		case 0:
			_, err = n.Delete(w.key(i))
		case 1:
			op := Op{Kind: OpDelete, Key: w.key(i), Blind: true}
			err = n.one(&op)
		default:
			err = n.Update(w.key(i), func([]byte, bool) ([]byte, Verdict) { return nil, Remove })
		}
	case w.rng.IntN(3) == 0:
		var stored bool
		if stored, err = n.PutIf(w.key(i), []byte("if absent"), IfAbsent); err == nil && stored == w.live[i] {
			err = fmt.Errorf("key %d: stored if absent: %t", i, stored)
		}
		w.live[i] = true
	default:
		w.live[i] = true
		err = w.put(n, i, 0)
	}
	return err
}

func orderModel(t *testing.T, device func() ioring.Device) {
	seed := newSeed(t)
	phases, steps := 3, 12_000
	if testing.Short() || raceEnabled {
		phases, steps = 2, 3000
	}
	writers := make([]*orderWriter, 3)
	for i := range writers {
		writers[i] = &orderWriter{id: i, rng: rand.New(rand.NewPCG(seed, uint64(i))), stable: 1000, live: map[int]bool{}}
	}
	for phase := range phases {
		s := openOrdered(t, device(), func(o *Options) {
			o.IndexBits = indexBitsMin + phase
			o.CommitInterval = 5 * time.Millisecond
			o.LiveRatio = 0.6
		})
		sessions := make([]*Session, len(writers))
		for i, w := range writers {
			sessions[i] = s.NewSession()
			for k := range w.stable {
				if phase == 0 {
					require.NoError(t, w.put(sessions[i], k, 0))
				}
			}
		}
		var stop atomic.Bool
		var working, others sync.WaitGroup
		for i, w := range writers {
			working.Go(func() {
				for range steps {
					if err := w.step(sessions[i]); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		others.Go(func() {
			for !stop.Load() {
				time.Sleep(3 * time.Millisecond)
				if _, err := s.Compact(context.Background(), CompactOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
		scans := 0
		others.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 99))
			for !stop.Load() || scans == 0 {
				opt := ScanOptions{Count: 1 + rng.IntN(700), Reverse: rng.IntN(2) == 0, KeysOnly: rng.IntN(2) == 0}
				all, err := scanInOrder(s, opt)
				if err == nil {
					err = orderComplete(all, writers)
				}
				if err != nil {
					t.Errorf("%+v: %v", opt, err)
					return
				}
				scans++
			}
		})
		working.Wait()
		stop.Store(true)
		others.Wait()
		time.Sleep(40 * time.Millisecond) // so that what expires has
		want := map[string]bool{}
		for _, w := range writers {
			for i := range w.stable {
				want[string(w.key(i))] = true
			}
			for i := range w.live {
				want[string(w.key(i))] = true
			}
		}
		all, _ := inOrder(t, s, ScanOptions{Count: 500})
		got := map[string]bool{}
		for _, e := range all {
			got[string(e.Key)] = true
		}
		require.Equal(t, len(want), len(got))
		for k := range want {
			require.True(t, got[k], "key %q", k)
		}
		syncStore(t, s)  // else there may be nothing to compact
		compact(t, s, 0) // which puts what has expired in doubt
		orderSettled(t, s, len(want))
		for _, n := range sessions {
			n.Close()
		}
		checkStore(t, s)
		checkOrder(t, s)
		st := s.Stats()
		require.Positive(t, st.Compactions)
		t.Logf("phase %d: %d scans, %d keys, %d KiB of ordered index", phase, scans, len(want), s.order.tree.Stats().Used>>10)
		require.NoError(t, s.Close())
	}
}

// scanInOrder is inOrder on any goroutine.
func scanInOrder(s *Store, opt ScanOptions) (keys []string, err error) {
	for {
		page, err := s.Scan(context.Background(), opt)
		if err != nil {
			return nil, err
		}
		for _, e := range page.Entries {
			if n := len(keys); n > 0 && (keys[n-1] < string(e.Key)) == opt.Reverse {
				return nil, fmt.Errorf("%q behind %q", e.Key, keys[n-1])
			}
			keys = append(keys, string(e.Key))
		}
		if opt.Cursor = page.Next; opt.Cursor == nil {
			return keys, nil
		}
	}
}

// orderComplete reports which key is missing that is there all the time.
func orderComplete(keys []string, writers []*orderWriter) error {
	have := make(map[string]bool, len(keys))
	for _, k := range keys {
		if have[k] {
			return fmt.Errorf("key %q appears twice", k)
		}
		have[k] = true
	}
	for _, w := range writers {
		for i := range w.stable {
			if !have[string(w.key(i))] {
				return fmt.Errorf("key %q is missing among %d", w.key(i), len(keys))
			}
		}
	}
	return nil
}

// TestOrder_Full: a key for which the ordered index has no memory is stored all the
// same, or nobody is told; or the index takes more than its share.
func TestOrder_Full(t *testing.T) {
	s := openOrdered(t, iotest.NewMem(iotest.MemOptions{SegmentSize: 1 << 20, BufferBytes: 2 << 20}), func(o *Options) { o.PageSize = 256 << 10 })
	n := s.NewSession()
	var err error
	stored := 0
	long := bytes.Repeat([]byte("k"), 10_000)
	for err == nil && stored < 20_000 {
		key := binary.BigEndian.AppendUint64(long[:len(long):len(long)], uint64(stored)*0x9e3779b97f4a7c15)
		if err = n.Put(key, nil); err == nil {
			stored++
		}
	}
	require.ErrorIs(t, err, ErrIndexFull)
	require.Greater(t, stored, 1000)
	st := s.order.tree.Stats()
	require.LessOrEqual(t, st.Taken, s.order.share())
	require.Eventually(t, func() bool { // the log gives up what the index was granted a moment before
		return s.memory.index.Load()+s.memory.order.Load()+s.log.Memory()+s.budget.buffers <= s.Memory()
	}, waitLong, time.Millisecond)
	all, _ := inOrder(t, s, ScanOptions{KeysOnly: true})
	require.Len(t, all, stored)
	// Keys that are there can be written, and room that deletes make is used again.
	require.NoError(t, n.Put(all[0].Key, []byte("again")))
	for _, e := range all[:stored/2] {
		_, err := n.Delete(e.Key)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return s.order.tree.Stats().Keys < int64(stored) }, waitLong, time.Millisecond, "no key left for its delete")
	orderSettled(t, s, stored-stored/2)
	for i := range stored / 4 {
		require.NoError(t, n.Put(binary.BigEndian.AppendUint64(long[:len(long):len(long)], uint64(i)), nil))
	}
	n.Close()
	require.NoError(t, s.Close())
}

// TestOrder_OpenDamaged: a store whose log is damaged where recovery does not look
// is opened with an ordered index that lacks keys.
func TestOrder_OpenDamaged(t *testing.T) {
	dev := newMem()
	s := openOrdered(t, dev, nil)
	n := s.NewSession()
	for i := range 500 {
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 1, 1000)))
	}
	evict(t, s, n)
	syncStore(t, s) // recovery has no need of what is below
	n.Close()
	_, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: FullCheckpoint})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	image := dev.CrashImage(iotest.CrashOptions{})
	image.Corrupt(50_000, func(b byte) byte { return b ^ 0x40 })
	again := image.CrashImage(iotest.CrashOptions{})
	_, err = tryOpenOn(image, func(o *Options) { o.Ordered = true })
	require.ErrorIs(t, err, ErrCorrupt)
	require.False(t, errors.Is(err, ErrMemoryTooSmall))
	s = openOn(t, again, nil) // without it the rest can be had
	require.NoError(t, s.Close())
}
