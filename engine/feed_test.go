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

	"rskv/engine/internal/hlog"
	"rskv/engine/internal/record"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

// told is a change as tests keep it.
type told struct {
	kind  ChangeKind
	key   string
	value string
}

// tellAll takes what a feed has to tell now, and the places of its commits.
func tellAll(t testing.TB, f *Feed) (all []told, commits []int64) {
	t.Helper()
	at := f.Start() - 1
	for {
		c, ok, err := f.Next(context.Background())
		require.NoError(t, err)
		if !ok {
			return all, commits
		}
		require.Greater(t, c.Addr, at, "addresses do not rise")
		at = c.Addr
		if c.Kind == ChangeCommit {
			at--
			commits = append(commits, c.Addr)
			all = append(all, told{kind: c.Kind})
			continue
		}
		all = append(all, told{c.Kind, string(c.Key), string(c.Value)})
	}
}

func openFeed(t testing.TB, s *Store, opt FeedOptions) *Feed {
	t.Helper()
	f, err := s.OpenFeed(context.Background(), opt)
	require.NoError(t, err)
	return f
}

// TestFeed_EveryKind: a kind of change is not told, told twice in a commit, in
// another state than the last, or told before it is durable.
func TestFeed_EveryKind(t *testing.T) {
	dev := newMem()
	s := openOn(t, dev, nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("before"), []byte("x")))
	f := openFeed(t, s, FeedOptions{Now: true})
	all, _ := tellAll(t, f)
	require.Empty(t, all, "what was written before is told")

	large := string(valueOf(1, 1, 3*chunkBytes+17))
	put := func(key, value string) { require.NoError(t, n.Put([]byte(key), []byte(value))) }
	del := func(key string) {
		_, err := n.Delete([]byte(key))
		require.NoError(t, err)
	}
	put("a", "old")
	put("a", "new")            // in place
	put("b", "short")          // replaced
	put("b", "not that short") //
	put("gone", "x")
	del("gone")
	put("large", large)
	put("empty", "")
	_, err := n.Add([]byte("n"), 7)
	require.NoError(t, err)
	_, err = n.Add([]byte("n"), 1)
	require.NoError(t, err)
	_, err = n.Append([]byte("list"), []byte("1"))
	require.NoError(t, err)
	_, err = n.Append([]byte("list"), []byte("2345678901234567"))
	require.NoError(t, err)
	ok, err := n.CompareAndSwap([]byte("lock"), nil, []byte("me"))
	require.NoError(t, err)
	require.True(t, ok)
	ok, err = n.CompareAndSwap([]byte("lock"), []byte("nobody"), []byte("you"))
	require.NoError(t, err)
	require.False(t, ok)
	del("absent")
	del("before")
	all, _ = tellAll(t, f)
	require.Empty(t, all, "what is not durable is told")

	syncStore(t, s)
	first := []told{
		{ChangePut, "a", "new"}, {ChangePut, "b", "not that short"}, {ChangeDelete, "gone", ""}, {ChangePut, "large", large},
		{ChangePut, "empty", ""}, {ChangePut, "n", "\x08\x00\x00\x00\x00\x00\x00\x00"}, {ChangePut, "list", "12345678901234567"},
		{ChangePut, "lock", "me"}, {ChangeDelete, "before", ""}, {kind: ChangeCommit},
	}
	all, commits := tellAll(t, f)
	require.Equal(t, first, all)
	put("a", "newer")
	put("b", "c")
	put("b", "not that short")
	syncStore(t, s)
	del("large")
	syncStore(t, s)
	rest := []told{{ChangePut, "a", "newer"}, {ChangePut, "b", "not that short"}, {kind: ChangeCommit}, {ChangeDelete, "large", ""}, {kind: ChangeCommit}}
	all, more := tellAll(t, f)
	require.Equal(t, rest, all)
	commits = append(commits, more...)
	start := f.Start()
	f.Close()

	whole := slices.Concat(first, rest)
	check := func() {
		t.Helper()
		for i, from := range append([]int64{start}, commits...) {
			f := openFeed(t, s, FeedOptions{From: from})
			all, _ := tellAll(t, f)
			require.Equal(t, whole[[]int{0, len(first), len(first) + 3, len(first) + 5}[i]:], append([]told{}, all...), "from commit %d", i)
			f.Close()
		}
		f := openFeed(t, s, FeedOptions{From: start, Prefix: []byte("l")})
		all, _ := tellAll(t, f)
		require.Equal(t, []told{{ChangePut, "large", large}, {ChangePut, "list", "12345678901234567"}, {ChangePut, "lock", "me"}, {kind: ChangeCommit},
			{ChangeDelete, "large", ""}, {kind: ChangeCommit}}, all)
		f.Close()
		f = openFeed(t, s, FeedOptions{}) // from the beginning
		all, _ = tellAll(t, f)
		require.Equal(t, told{ChangePut, "before", "x"}, all[0])
		f.Close()
	}
	check()
	n.Close()
	image := dev.CrashImage(iotest.CrashOptions{})
	require.NoError(t, s.Close())
	s = openOn(t, image, nil)
	check()
	f = openFeed(t, s, FeedOptions{From: commits[2]})
	n = s.NewSession()
	put("again", "!")
	syncStore(t, s)
	all, _ = tellAll(t, f)
	require.Equal(t, []told{{ChangePut, "again", "!"}, {kind: ChangeCommit}}, all)
	evict(t, s, n) // from the disk
	syncStore(t, s)
	for _, from := range []int64{start, commits[1]} {
		g := openFeed(t, s, FeedOptions{From: from, Prefix: []byte("la")})
		all, _ = tellAll(t, g)
		require.Contains(t, all, told{ChangeDelete, "large", ""})
		g.Close()
	}
	n.Close()
	require.NoError(t, s.Close())
	_, _, err = f.Next(context.Background())
	require.ErrorIs(t, err, ErrClosed)
	f.Close()
}

// TestFeed_BadPlaces: a feed begins in the middle of a group, beyond the end, or
// where another store has a commit.
func TestFeed_BadPlaces(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	good := map[int64]bool{0: true}
	for i := range 50 {
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 1, 10_000)))
		if i%7 == 0 {
			syncStore(t, s)
			good[s.log.Durable().Bytes()] = true
		}
	}
	evict(t, s, n)
	syncStore(t, s)
	end := s.log.Durable().Bytes()
	good[end] = true
	refused := 0
	for _, step := range []int64{4096, 16 * 61} {
		for from := int64(0); from <= 600_000; from += step {
			f, err := s.OpenFeed(context.Background(), FeedOptions{From: from})
			if good[from] {
				require.NoError(t, err, "from %d", from)
				f.Close()
				continue
			}
			require.ErrorIs(t, err, ErrCursor, "from %d", from)
			refused++
		}
	}
	require.Greater(t, refused, 500)
	for _, from := range []int64{-16, 8, end + 4096, end + 16, 1 << 60} {
		_, err := s.OpenFeed(context.Background(), FeedOptions{From: from})
		require.ErrorIs(t, err, ErrCursor, "from %d", from)
	}
	f := openFeed(t, s, FeedOptions{From: end})
	all, _ := tellAll(t, f)
	require.Empty(t, all)
	f.Close()
	n.Close()
	require.NoError(t, s.Close())
}

// TestFeed_Moved: what compaction copies is told as if somebody had changed it, or
// what somebody changes in the copy is not told.
func TestFeed_Moved(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	large := valueOf(1, 1, 5*chunkBytes)
	huge := valueOf(2, 1, 200*chunkBytes/2) // its list is not changed in place
	require.NoError(t, n.Put([]byte("cold"), []byte("same")))
	require.NoError(t, n.Put([]byte("large"), large))
	require.NoError(t, n.Put([]byte("huge"), huge))
	_, err := n.Add([]byte("n"), 1)
	require.NoError(t, err)
	_, err = n.Add([]byte("m"), 1)
	require.NoError(t, err)
	syncStore(t, s)
	evict(t, s, n)
	syncStore(t, s)
	f := openFeed(t, s, FeedOptions{Now: true})
	compact(t, s, 0)
	moved := s.Stats().Moved
	require.Positive(t, moved)
	all, _ := tellAll(t, f)
	for _, c := range all {
		require.Equal(t, ChangeCommit, c.kind, "compaction has changed %q", c.key)
	}
	require.NotEmpty(t, all, "the commit of the pass is not told")
	v, err := n.Get([]byte("huge"), nil)
	require.NoError(t, err)
	require.True(t, bytes.Equal(huge, v))

	// Copies that are mutable are changed: by hand, since a pass ends with a commit.
	copies := func(keys ...string) {
		t.Helper()
		for _, key := range keys {
			image := recordOf(t, s, []byte(key))
			op := Op{}
			op.moveRecord(image.addr, []byte(key), image.image, image.addr)
			n.mover = true
			require.NoError(t, n.one(&op))
			n.mover = false
			require.True(t, op.Found)
		}
	}
	copies("n", "m", "cold")
	_, err = n.Add([]byte("n"), 1)
	require.NoError(t, err)
	require.NoError(t, n.Put([]byte("cold"), []byte("diff")))
	syncStore(t, s)
	all, _ = tellAll(t, f)
	require.Equal(t, []told{{ChangePut, "n", "\x02\x00\x00\x00\x00\x00\x00\x00"}, {ChangePut, "cold", "diff"}, {kind: ChangeCommit}}, all)

	// A copy in the group of its original does not take its place.
	require.NoError(t, n.Put([]byte("m"), []byte("original")))
	original := recordOf(t, s, []byte("m"))
	copies("m")
	require.Greater(t, recordOf(t, s, []byte("m")).addr, original.addr)
	syncStore(t, s)
	for _, blind := range []bool{true, false} {
		var op Op
		op.newestRecord(original.addr, s.log.Durable(), []byte("m"))
		op.Blind = blind
		n.mover = true
		require.NoError(t, n.one(&op))
		n.mover = false
		require.Equal(t, blind, op.Found)
	}
	all, _ = tellAll(t, f)
	require.Equal(t, []told{{ChangePut, "m", "original"}, {kind: ChangeCommit}}, all)

	// A large value is written by a user, and anew by compaction in the same group.
	for _, key := range []string{"large", "huge"} {
		value := valueOf(3, 3, len(huge))
		require.NoError(t, n.Put([]byte(key), value))
		image := recordOf(t, s, []byte(key))
		_, chunks, err := chunkList(image.value())
		require.NoError(t, err)
		op := Op{}
		op.moveChunk(chunks[0], []byte(key))
		n.mover = true
		require.NoError(t, n.one(&op))
		n.mover = false
		require.True(t, op.Found)
		require.NotEqual(t, image.value(), recordOf(t, s, []byte(key)).value(), "it was not written anew")
		syncStore(t, s)
		all, _ = tellAll(t, f)
		require.Equal(t, []told{{ChangePut, key, string(value)}, {kind: ChangeCommit}}, all)

		image = recordOf(t, s, []byte(key))
		_, chunks, err = chunkList(image.value())
		require.NoError(t, err)
		for range 2 { // of a record that is not mutable, then of its copy
			op.moveChunk(chunks[0], []byte(key))
			n.mover = true
			require.NoError(t, n.one(&op))
			n.mover = false
			require.True(t, op.Found)
			_, chunks, err = chunkList(recordOf(t, s, []byte(key)).value())
			require.NoError(t, err)
		}
		syncStore(t, s)
		all, _ = tellAll(t, f)
		require.Equal(t, []told{{kind: ChangeCommit}}, all)
	}
	f.Close()
	n.Close()
	checkStore(t, s)
	require.NoError(t, s.Close())
}

// recordOf returns the newest record of a key that is in memory.
func recordOf(t testing.TB, s *Store, key []byte) *logRecord {
	t.Helper()
	n := s.NewSession()
	defer n.Close()
	require.NoError(t, n.enter(false))
	defer n.exit()
	var at place
	n.find(record.Hash(s.seed, key), key, &at)
	require.Equal(t, inMemory, at.kind)
	w1 := record.Load1(at.ptr)
	return &logRecord{addr: at.addr, w0: at.w0, w1: w1, image: bytes.Clone(record.Bytes(at.ptr, 0, record.Size(at.w0, w1)))}
}

// TestFeed_Lost: a feed that compaction has passed goes on as if nothing were
// missing, holds compaction back, or is not told where it could begin.
func TestFeed_Lost(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	for i := range 3000 {
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 1, 2000)))
	}
	syncStore(t, s)
	f := openFeed(t, s, FeedOptions{})
	_, ok, err := f.Next(context.Background())
	require.NoError(t, err)
	require.True(t, ok)
	evict(t, s, n)
	syncStore(t, s)
	waitFor(t, "a pass beside a feed", background(func() { compact(t, s, 0) }))
	for err == nil {
		_, ok, err = f.Next(context.Background())
		require.True(t, ok || err != nil, "the feed came to its end")
	}
	require.ErrorIs(t, err, ErrCursor)
	_, _, again := f.Next(context.Background())
	require.Equal(t, err, again)
	f.Close()
	_, err = s.OpenFeed(context.Background(), FeedOptions{From: f.Start()})
	require.ErrorIs(t, err, ErrCursor)
	require.ErrorContains(t, err, fmt.Sprint(s.log.Begin()))
	f = openFeed(t, s, FeedOptions{From: s.Stats().LogBegin})
	tellAll(t, f)
	f.Close()
	n.Close()
	require.NoError(t, s.Close())
}

// TestFeed_LostChunks: a large value whose chunks are gone is told with other
// bytes, or as damage.
func TestFeed_LostChunks(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	value := valueOf(1, 1, 20*chunkBytes)
	require.NoError(t, n.Put([]byte("large"), value))
	list := recordOf(t, s, []byte("large"))
	evict(t, s, n)
	syncStore(t, s)
	n.mover = true
	var op Op
	op.chunksOf([]byte("large"), list.value(), nil)
	require.NoError(t, n.one(&op))
	require.True(t, bytes.Equal(value, op.Value))
	n.mover = false
	compact(t, s, 0)
	n.mover = true
	op.chunksOf([]byte("large"), list.value(), nil)
	require.ErrorIs(t, n.one(&op), ErrCursor)
	n.mover = false
	v, err := n.Get([]byte("large"), nil)
	require.NoError(t, err)
	require.True(t, bytes.Equal(value, v))
	n.Close()
	require.NoError(t, s.Close())
}

// TestFeed_TornPadding: what a crash has left of the padding behind a commit keeps
// a feed, or a scan, from going on.
func TestFeed_TornPadding(t *testing.T) {
	dev := newMem()
	s := openOn(t, dev, nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("key"), []byte("value")))
	syncStore(t, s)
	rec, end := s.log.Durable(), s.log.Durable()
	for at := record.Addr(hlog.FirstOffset / record.Unit); at < end; {
		image := readRecord(t, s, at)
		w0, w1 := record.Words(image)
		at += record.Addr(len(image) / record.Unit)
		if isCommit(w0, w1) {
			rec = at
		}
	}
	image := dev.CrashImage(iotest.CrashOptions{})
	for off := rec.Bytes(); off < end.Bytes(); off++ {
		image.Corrupt(off, func(byte) byte { return 0 })
	}
	n.Close()
	require.NoError(t, s.Close())
	s = openOn(t, image, nil)
	n = s.NewSession()
	f := openFeed(t, s, FeedOptions{})
	require.NoError(t, n.Put([]byte("key"), []byte("another")))
	syncStore(t, s)
	all, commits := tellAll(t, f)
	require.Equal(t, []told{{ChangePut, "key", "value"}, {kind: ChangeCommit}, {ChangePut, "key", "another"}, {kind: ChangeCommit}}, all)
	require.Equal(t, end.Bytes(), commits[0])
	f.Close()
	f = openFeed(t, s, FeedOptions{From: commits[0]})
	all, _ = tellAll(t, f)
	require.Equal(t, []told{{ChangePut, "key", "another"}, {kind: ChangeCommit}}, all)
	f.Close()
	page, err := s.Scan(context.Background(), ScanOptions{})
	require.NoError(t, err)
	require.Len(t, page.Entries, 1)
	n.Close()
	require.NoError(t, s.Close())
}

// TestFeed_Changes: waiting for more does not end with the context, misses a
// commit, or goes on when the store is closed.
func TestFeed_Changes(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	f := openFeed(t, s, FeedOptions{Now: true})
	ctx, cancel := context.WithCancel(context.Background())
	seen := make(chan int64)
	var ended error
	done := background(func() {
		for c, err := range f.Changes(ctx) {
			if err != nil {
				ended = err
				return
			}
			if c.Kind == ChangePut {
				seen <- int64(binary.LittleEndian.Uint64(c.Value))
			}
		}
	})
	for i := range 200 {
		require.NoError(t, n.Put([]byte("k"), key64(i)))
		syncStore(t, s)
		require.EqualValues(t, i, <-seen)
	}
	cancel()
	waitFor(t, "a feed whose context has ended", done)
	require.ErrorIs(t, ended, context.Canceled)
	done = background(func() {
		for _, err := range f.Changes(context.Background()) {
			ended = err
		}
	})
	time.Sleep(time.Millisecond)
	n.Close()
	require.NoError(t, s.Close())
	waitFor(t, "a feed of a closed store", done)
	require.ErrorIs(t, ended, ErrClosed)
	f.Close()
}

// feedState is what keys have at a moment: a sum over their versions, which is the
// same in whatever order it was made.
type feedState struct {
	versions map[string]uint64
	sum      uint64
}

func newFeedState() *feedState { return &feedState{versions: map[string]uint64{}} }

func (s *feedState) set(key string, version uint64) {
	one := func(version uint64) uint64 {
		if version == 0 {
			return 0 // absent
		}
		return record.Hash(version, []byte(key))
	}
	s.sum += one(version) - one(s.versions[key])
	if s.versions[key] = version; version == 0 {
		delete(s.versions, key)
	}
}

// difference names some keys that another state has otherwise.
func (s *feedState) difference(other *feedState) (text string) {
	n := 0
	for _, keys := range []map[string]uint64{s.versions, other.versions} {
		for key := range keys {
			if want, got := s.versions[key], other.versions[key]; want != got && n < 10 {
				text += fmt.Sprintf("; key %q has version %d, want %d", key, got, want)
				n++
			}
		}
	}
	return fmt.Sprintf("%d keys, want %d", len(other.versions), len(s.versions)) + text
}

// feedModel is one writer who knows the state at commits, and watchers that must
// come to the same.
type feedModel struct {
	t     *testing.T
	store *Store
	state *feedState

	mu   sync.Mutex
	want map[int64]uint64 // state's sum by the place of a commit; guarded by mu
	last int64            // of these
}

func feedSize(version uint64) int {
	if version%499 == 0 {
		return inlineMax + int(version)%chunkBytes*2
	}
	return 8 + int(version*7919%1500)
}

func feedValue(key string, version uint64) []byte {
	b := valueOf(uint64(len(key)), version, feedSize(version))
	binary.LittleEndian.PutUint64(b, version)
	return b
}

// write makes so many changes, then a commit.
func (m *feedModel) write(n *Session, rng *rand.Rand, keys, writes int, version *uint64) error {
	for range writes {
		i := rng.IntN(keys)
		key := fmt.Sprintf("%d/%d", i%3, i)
		if rng.IntN(5) == 0 {
			m.state.set(key, 0)
			if _, err := n.Delete([]byte(key)); err != nil {
				return err
			}
			continue
		}
		*version++
		m.state.set(key, *version)
		if err := n.Put([]byte(key), feedValue(key, *version)); err != nil {
			return err
		}
	}
	cut, err := m.store.cutFor(context.Background())
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.want[cut.end.Bytes()] = m.state.sum
	m.last = cut.end.Bytes()
	return nil
}

// watcher follows the changes, now and then by a feed of its own that goes on where
// the last has ended.
type feedWatcher struct {
	m       *feedModel
	rng     *rand.Rand
	state   *feedState
	at      int64 // last commit that was told; -1: none
	known   int64 // from here on the state is the store's
	checked atomic.Int64
	lost    int
}

// run follows until stop, then up to the last commit.
func (w *feedWatcher) run(stop *atomic.Bool) error {
	for {
		w.m.mu.Lock()
		last := w.m.last
		w.m.mu.Unlock()
		if stop.Load() && w.at >= last {
			return nil
		}
		if err := w.follow(1 + w.rng.IntN(40)); errors.Is(err, ErrCursor) {
			w.lost++
			if err := w.beginAnew(); err != nil {
				return err
			}
		} else if err != nil {
			return err
		}
	}
}

// beginAnew takes the state from a scan behind the begin of a feed.
func (w *feedWatcher) beginAnew() error {
	s := w.m.store
	f, err := s.OpenFeed(context.Background(), FeedOptions{Now: true})
	if err != nil {
		return err
	}
	defer f.Close()
	w.at, w.state = f.Start(), newFeedState()
	for e, err := range s.All(context.Background()) {
		if err != nil {
			return fmt.Errorf("scan: %w", err)
		}
		w.state.set(string(e.Key), binary.LittleEndian.Uint64(e.Value))
	}
	// Large values may be of after the scan's own cut.
	cut, err := s.cutFor(context.Background())
	w.known = cut.end.Bytes()
	return err
}

// follow takes the changes of so many commits.
func (w *feedWatcher) follow(commits int) error {
	s := w.m.store
	f, err := s.OpenFeed(context.Background(), FeedOptions{From: w.at})
	if err != nil {
		return err
	}
	defer f.Close()
	group, at := map[string]uint64{}, w.at-1
	for commits > 0 {
		more := f.More()
		c, ok, err := f.Next(context.Background())
		if err != nil {
			return err
		}
		if !ok {
			if w.at >= s.log.Durable().Bytes() {
				return nil // whoever waits for more comes again
			}
			select {
			case <-more:
			case <-time.After(waitLong / 2):
				return fmt.Errorf("nothing behind %#x while the log is durable up to %v", w.at, s.log.Durable())
			}
			continue
		}
		if c.Addr <= at {
			return fmt.Errorf("change at %#x behind %#x", c.Addr, at)
		}
		at = c.Addr
		if c.Kind == ChangeCommit {
			at-- // where the next group begins
			if err := w.commit(c.Addr, group); err != nil {
				return err
			}
			commits--
			continue
		}
		key, version := string(c.Key), uint64(0)
		if _, twice := group[key]; twice {
			return fmt.Errorf("key %q twice in the group of %#x", key, c.Addr)
		}
		if c.Kind == ChangePut {
			version = binary.LittleEndian.Uint64(c.Value)
			if want := feedValue(key, version); !bytes.Equal(want, c.Value) {
				return fmt.Errorf("key %q at %#x has a wrong value of %d bytes, want %d", key, c.Addr, len(c.Value), len(want))
			}
		}
		group[key] = version
	}
	return nil
}

func (w *feedWatcher) commit(at int64, group map[string]uint64) error {
	for key, version := range group {
		w.state.set(key, version)
	}
	clear(group)
	w.at = at
	if at < w.known {
		return nil
	}
	w.m.mu.Lock()
	want, known := w.m.want[at]
	w.m.mu.Unlock()
	if known && want != w.state.sum {
		return fmt.Errorf("at the commit %#x the state of %d keys is not the store's", at, len(w.state.versions))
	}
	if known {
		w.checked.Add(1)
	}
	return nil
}

// TestFeed_Model_Pool: beside writers, compaction, growth and restarts, a feed's
// changes up to a commit do not make the state of that commit.
func TestFeed_Model_Pool(t *testing.T) {
	feedModelRun(t, onFiles(t, ioring.PReadWrite))
}

// TestFeed_Model_Ring: the same over io_uring.
func TestFeed_Model_Ring(t *testing.T) {
	feedModelRun(t, onFiles(t, ioring.URing))
}

// TestFeed_Model_Crash: the same over crashes.
func TestFeed_Model_Crash(t *testing.T) {
	dev := newMem()
	first := true
	feedModelRun(t, func() ioring.Device {
		if !first {
			dev = dev.CrashImage(iotest.CrashOptions{})
		}
		first = false
		return dev
	})
}

func feedModelRun(t *testing.T, device func() ioring.Device) {
	seed := newSeed(t)
	const keys = 4000
	phases, rounds := 3, 24
	if testing.Short() || raceEnabled {
		phases, rounds = 2, 15
	}
	m := &feedModel{t: t, state: newFeedState(), want: map[int64]uint64{0: 0}}
	watchers := []*feedWatcher{}
	for i := range 3 {
		watchers = append(watchers, &feedWatcher{m: m, rng: rand.New(rand.NewPCG(seed, uint64(i))), state: newFeedState()})
	}
	rng := rand.New(rand.NewPCG(seed, 99))
	version := uint64(0)
	for phase := range phases {
		m.store = openOn(t, device(), func(o *Options) { o.IndexBits = indexBitsMin + phase })
		s := m.store
		if phase > 0 {
			s.Sync(context.Background())
		}
		var still, stop atomic.Bool
		var others, watching sync.WaitGroup
		others.Go(func() {
			for !still.Load() {
				time.Sleep(5 * time.Millisecond)
				if _, err := s.Compact(context.Background(), CompactOptions{Until: (s.log.Begin() + (s.log.Tail()-s.log.Begin())/2).Bytes()}); err != nil {
					t.Error(err)
				}
			}
		})
		for _, w := range watchers {
			watching.Go(func() {
				if err := w.run(&stop); err != nil {
					t.Error(err)
				}
			})
		}
		n := s.NewSession()
		for round := range rounds {
			writes := 1 + rng.IntN(200)
			if round%20 == 7 && !(raceEnabled && phase > 0) {
				writes = 60_000 // a group longer than the memory
			}
			if err := m.write(n, rng, keys, writes, &version); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				break
			}
		}
		still.Store(true)
		others.Wait()
		// Until all have compared some: none is lost any more for ever.
		behind := func(w *feedWatcher) bool { return w.checked.Load() <= int64(phases) }
		for i, end := 0, time.Now().Add(waitLong); i == 0 || slices.ContainsFunc(watchers, behind) && !t.Failed() && time.Now().Before(end); i++ {
			if i > 100 {
				time.Sleep(time.Millisecond) // one that takes the state anew needs its time for that
			}
			if err := m.write(n, rng, keys, 10, &version); err != nil {
				t.Error(err)
			}
		}
		stop.Store(true)
		waitFor(t, "the watchers", background(watching.Wait))
		for i, w := range watchers {
			t.Logf("phase %d, watcher %d: %d commits compared, lost %d times", phase, i, w.checked.Load(), w.lost)
			if m.state.sum != w.state.sum {
				t.Errorf("watcher %d: %s", i, m.state.difference(w.state))
			}
		}
		n.Close()
		checkStore(t, s)
		dev := s.dev
		if _, crash := dev.(*iotest.Mem); !crash || phase == phases-1 {
			require.NoError(t, s.Close())
		}
		if t.Failed() {
			return
		}
	}
	for i, w := range watchers {
		require.Greater(t, w.checked.Load(), int64(phases), "watcher %d", i)
	}
}
