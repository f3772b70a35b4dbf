package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
	"rskv/ioring/iotest/faultfs"
)

// mountFault mounts a file system that fails on demand.
func mountFault(t *testing.T) *faultfs.FS {
	t.Helper()
	f, err := faultfs.Mount(t.TempDir())
	if err != nil {
		t.Skipf("no FUSE on this machine: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, f.Unmount()) })
	return f
}

// realBackends are the ways to files that this build has.
func realBackends() map[string]ioring.Mode {
	backends := map[string]ioring.Mode{"pool": ioring.PReadWrite}
	if ok, _ := ioring.Probe(); ok {
		backends["ring"] = ioring.URing
	}
	return backends
}

func realOptions(dir string, mode ioring.Mode) Options {
	return Options{
		Dir: dir, IO: mode, Memory: MemoryMin, PageSize: pageSizeMin, SegmentSize: pageSizeMin,
		IndexBits: 6, CommitInterval: -1, CheckpointDistance: -1,
	}
}

// realRun is one life of a store on a file system that goes wrong, and what the
// store may hold afterwards.
type realRun struct {
	t      *testing.T
	what   string // replays it
	fs     *faultfs.FS
	errno  syscall.Errno
	store  *Store
	n      *Session
	states []map[string]string // states[i]: after the i-th write that was acknowledged
	synced int                 // index of the last state that is acknowledged as durable

	readOnly bool // the store has said that it is
	answers  chan error
	asked    int
}

func (r *realRun) state() map[string]string { return r.states[len(r.states)-1] }

// wrote notes the outcome of a write that makes key hold value, or nothing.
func (r *realRun) wrote(err error, key string, value []byte) {
	r.judge("write "+key, err)
	if err != nil {
		return
	}
	next := maps.Clone(r.state())
	if next[key] = string(value); value == nil {
		delete(next, key)
	}
	r.states = append(r.states, next)
}

// judge checks the outcome of a write or sync: a typed error that wraps the
// device's own, and for good once the store has become read-only.
func (r *realRun) judge(what string, err error) {
	t := r.t
	t.Helper()
	if r.readOnly {
		require.ErrorIs(t, err, ErrReadOnly, "%s: %s: the store has said that it is read-only", r.what, what)
	}
	switch {
	case err == nil:
	case errors.Is(err, ErrReadOnly):
		require.ErrorIs(t, err, r.errno, "%s: %s", r.what, what)
		require.ErrorIs(t, r.store.Err(), ErrReadOnly, r.what)
		r.readOnly = true
	case errors.Is(err, ErrDiskFull):
		require.Equal(t, syscall.ENOSPC, r.errno, "%s: %s: %v", r.what, what, err)
	case errors.Is(err, ErrIO):
		require.ErrorIs(t, err, r.errno, "%s: %s", r.what, what)
		require.True(t, r.hit(faultfs.Read), "%s: %s: %v", r.what, what, err)
	default:
		t.Fatalf("%s: %s: %v", r.what, what, err)
	}
}

// hit reports whether a request of a kind has failed.
func (r *realRun) hit(kind faultfs.Kind) bool {
	for _, op := range r.fs.Hits() {
		if op.Kind == kind {
			return true
		}
	}
	return false
}

// broken reports whether a request has failed that no store may survive
// writable: the write of log, the sync of log or names.
func (r *realRun) broken() bool {
	for _, op := range r.fs.Hits() {
		log := strings.HasPrefix(op.Name, "seg") && !op.WriteOnly
		switch {
		case op.Kind == faultfs.Write && log && r.errno != syscall.ENOSPC:
			return true
		case op.Kind == faultfs.Fsync && (log || op.Name == "data"):
			return true
		}
	}
	return false
}

// get compares what a key holds with the model.
func (r *realRun) get(key string) {
	t := r.t
	t.Helper()
	value, err := r.n.Get([]byte(key), nil)
	want, there := r.state()[key]
	switch {
	case err == nil:
		require.True(t, there && want == string(value), "%s: %s has a wrong value of %d bytes (there: %t, %d bytes)", r.what, key, len(value), there, len(want))
	case errors.Is(err, ErrIO):
		require.ErrorIs(t, err, r.errno, "%s: get %s", r.what, key)
		require.True(t, r.hit(faultfs.Read), "%s: get %s: %v", r.what, key, err)
	default:
		require.ErrorIs(t, err, ErrNotFound, "%s: get %s", r.what, key)
		require.False(t, there, "%s: %s is missing", r.what, key)
	}
}

func (r *realRun) put(key string, value []byte) { r.wrote(r.n.Put([]byte(key), value), key, value) }

// commit asks for a commit and does not wait.
func (r *realRun) commit() {
	r.asked++
	r.store.Commit(func(_ uint64, err error) { r.answers <- err })
}

func (r *realRun) sync() error {
	_, err := r.store.Sync(context.Background())
	r.judge("sync", err)
	if err == nil {
		r.synced = len(r.states) - 1
	}
	return err
}

// checkpoint takes one. Its files may fail without the store failing.
func (r *realRun) checkpoint() {
	_, err := r.store.Checkpoint(context.Background(), CheckpointOptions{Kind: FullCheckpoint})
	if err == nil {
		require.False(r.t, r.readOnly, "%s: a checkpoint of a read-only store", r.what)
		r.synced = len(r.states) - 1
		return
	}
	require.True(r.t, errors.Is(err, r.errno) || errors.Is(err, ErrDiskFull), "%s: checkpoint: %v", r.what, err)
}

const realKeys = 12

func realKey(i int) string { return fmt.Sprintf("key-%d", i) }

// work does some of everything, and goes on whatever fails.
func (r *realRun) work() {
	for i := range realKeys {
		r.get(realKey(i))
	}
	r.get("large")
	r.modify()
	r.get("large")
	for i := range realKeys / 2 {
		r.put(realKey(2*i), valueOf(uint64(i), 2, 100*i))
	}
	r.commit()
	_ = r.sync()
	r.put("large", valueOf(8, uint64(len(r.states)), 3*chunkBytes))
	for i := range 6 { // turns a page
		r.put(realKey(2*i+1), valueOf(uint64(i), 3, 40_000))
	}
	r.delete(realKey(4), true)
	r.checkpoint()
	r.delete(realKey(6), false)
	r.put(realKey(4), []byte("again"))
	r.commit()
	r.commit()
	_ = r.sync()
	for i := range realKeys {
		r.get(realKey(i))
	}
}

// modify does read-modify-writes on keys that are on disk only.
func (r *realRun) modify() {
	old := r.state()
	_, err := r.n.Append([]byte(realKey(1)), []byte("more"))
	r.wrote(err, realKey(1), append([]byte(old[realKey(1)]), "more"...))
	sum, err := r.n.Add([]byte("counter"), 5)
	r.wrote(err, "counter", binary.LittleEndian.AppendUint64(nil, uint64(sum)))
	if before := old["counter"]; err == nil && before != "" {
		require.EqualValues(r.t, binary.LittleEndian.Uint64([]byte(before))+5, sum, r.what)
	}
	r.delete(realKey(3), false)
	if _, there := r.state()[realKey(5)]; there {
		stored, err := r.n.PutIf([]byte(realKey(5)), []byte("wrong"), IfAbsent)
		r.judge("put if absent", err)
		require.False(r.t, stored, r.what)
	}
}

func (r *realRun) delete(key string, blind bool) {
	op := Op{Kind: OpDelete, Key: []byte(key), Blind: blind}
	err := r.n.one(&op)
	r.wrote(err, key, nil)
	if _, there := r.states[max(0, len(r.states)-2)][key]; err == nil && !blind {
		require.Equal(r.t, there, op.Found, "%s: delete %s", r.what, key)
	}
}

// life opens the store, works and closes it, all under the rules in force.
// relieve, if not nil, is called between work and Close.
func (r *realRun) life(mode ioring.Mode, relieve func()) {
	t := r.t
	store, err := Open(realOptions(filepath.Join(r.fs.Dir, "data"), mode))
	if err != nil {
		require.ErrorIs(t, err, r.errno, "%s: open", r.what)
		return
	}
	r.store, r.n, r.answers = store, store.NewSession(), make(chan error, 8)
	r.work()
	if r.broken() {
		require.ErrorIs(t, r.sync(), ErrReadOnly, r.what)
	}
	if relieve != nil {
		relieve()
	}
	r.n.Close()
	err = store.Close()
	r.judgeClose(err)
	for range r.asked {
		r.readOnly = false // the answer may be older
		r.judge("commit", <-r.answers)
	}
	require.Empty(t, r.answers, "%s: an answer came twice", r.what)
}

func (r *realRun) judgeClose(err error) {
	if err == nil {
		require.False(r.t, r.readOnly, "%s: close of a read-only store", r.what)
		r.synced = len(r.states) - 1
		return
	}
	require.True(r.t, errors.Is(err, r.errno) || errors.Is(err, ErrDiskFull), "%s: close: %v", r.what, err)
}

// after opens the store on the healthy disk below: it must hold what was
// acknowledged as durable, and no more than was acknowledged.
func (r *realRun) after() {
	t := r.t
	store, err := Open(realOptions(filepath.Join(r.fs.Below, "data"), ioring.PReadWrite))
	require.NoError(t, err, "%s: open on a healthy disk", r.what)
	n := store.NewSession()
	got := map[string]string{}
	for _, key := range append(r.keys(), "counter", "large") {
		value, err := n.Get([]byte(key), nil)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		require.NoError(t, err, "%s: get %s on a healthy disk", r.what, key)
		got[key] = string(value)
	}
	found := false
	for _, state := range r.states[r.synced:] {
		found = found || maps.Equal(state, got)
	}
	require.True(t, found, "%s: what is there is no state between write %d, which was durable, and %d", r.what, r.synced, len(r.states)-1)
	require.NoError(t, n.Put([]byte("after"), []byte("works")))
	n.Close()
	require.NoError(t, store.Close(), r.what)
}

func (r *realRun) keys() (keys []string) {
	for i := range realKeys {
		keys = append(keys, realKey(i))
	}
	return keys
}

// realBase makes the store that every round begins with, and returns its state.
func realBase(t *testing.T, dir string) map[string]string {
	r := &realRun{t: t, what: "base", answers: make(chan error, 8), states: []map[string]string{{}}}
	store, err := Open(realOptions(dir, ioring.PReadWrite))
	require.NoError(t, err)
	r.store, r.n = store, store.NewSession()
	for i := range realKeys {
		r.put(realKey(i), valueOf(uint64(i), 1, 50*i*i))
	}
	r.put("large", valueOf(7, 1, 2*chunkBytes+100))
	r.checkpoint()
	r.wrote(r.n.Put([]byte("counter"), key64(7)), "counter", key64(7))
	require.NoError(t, r.sync())
	r.put(realKey(3), []byte("newer than the snapshot"))
	r.n.Close()
	require.NoError(t, store.Close())
	return r.state()
}

// realSweep runs lives under a rule that begins at the k-th request, for every k
// that there is, or in short runs every fifth.
type realSweep struct {
	t     *testing.T
	fs    *faultfs.FS
	base  string
	state map[string]string
	mode  ioring.Mode
	lives int
}

// round makes one life from a fresh copy of the base.
func (s *realSweep) round(what string, errno syscall.Errno, rules ...faultfs.Rule) *realRun {
	s.lives++
	below := filepath.Join(s.fs.Below, "data")
	require.NoError(s.t, os.RemoveAll(filepath.Join(s.fs.Dir, "data")))
	if s.state != nil {
		require.NoError(s.t, os.CopyFS(below, os.DirFS(s.base)))
		require.NoError(s.t, os.Chmod(below, 0o700))
	}
	s.fs.Reset()
	r := &realRun{t: s.t, what: what, fs: s.fs, errno: errno, states: []map[string]string{maps.Clone(s.state)}}
	if s.state == nil {
		r.states[0] = map[string]string{}
	}
	relieve := func() {}
	for _, rule := range rules {
		remove, before := s.fs.Inject(rule), relieve
		relieve = func() { remove(); before() }
	}
	if errno != syscall.ENOSPC {
		relieve = nil
	}
	waitFor(s.t, what, background(func() {
		if relieve == nil {
			r.life(s.mode, nil)
			return
		}
		r.life(s.mode, func() { relieve(); r.resumes() })
	}))
	if !s.t.Failed() {
		waitFor(s.t, what+", afterwards", background(r.after))
	}
	if s.t.Failed() {
		s.t.FailNow()
	}
	return r
}

// resumes waits until the store writes again, now that there is room. A store
// that has failed for good does not.
func (r *realRun) resumes() {
	if r.store.Err() != nil {
		return
	}
	require.Eventually(r.t, func() bool { return r.sync() == nil && r.store.Full() == nil }, waitLong, time.Millisecond, r.what)
	r.put(realKey(0), []byte("there is room"))
	require.NoError(r.t, r.sync(), r.what)
	require.Equal(r.t, "ok", r.store.Stats().State, r.what)
}

// zeros matches what the device writes into a segment before the log does.
func zeros(op faultfs.Op) bool { return op.WriteOnly && strings.HasPrefix(op.Name, "seg") }

// each calls fn for every k up to last.
func each(last int, fn func(k int)) {
	step := 1
	if testing.Short() || raceEnabled {
		step = 5
	}
	if testing.Short() && raceEnabled {
		step = 11
	}
	for k := 1; k <= last; k += step {
		fn(k)
	}
}

// realSweeps calls fn for a new store and for one that has something on disk,
// with each backend, all at once.
func realSweeps(t *testing.T, fn func(s *realSweep)) {
	mountFault(t) // or skips
	base := filepath.Join(t.TempDir(), "base")
	state := realBase(t, base)
	for backend, mode := range realBackends() {
		for begin, from := range map[string]map[string]string{"new": nil, "old": state} {
			t.Run(backend+","+begin, func(t *testing.T) {
				t.Parallel()
				fn(&realSweep{t: t, fs: mountFault(t), base: base, state: from, mode: mode})
			})
		}
	}
}

// TestRealFault_Every: some read, write or sync that fails in the kernel crashes
// the store, leaves somebody waiting, passes for success or for damage, or takes
// with it what was acknowledged as durable.
func TestRealFault_Every(t *testing.T) {
	realSweeps(t, func(s *realSweep) {
		for name, kind := range map[string]faultfs.Kind{"read": faultfs.Read, "write": faultfs.Write, "fsync": faultfs.Fsync, "allocate": faultfs.Allocate} {
			rule := faultfs.Rule{Kind: kind, Match: func(op faultfs.Op) bool { return !zeros(op) }}
			healthy := s.count(rule)
			for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
				each(healthy, func(k int) {
					for _, rule.Count = range []int{1, 0} {
						rule.From, rule.Err = k, errno
						s.round(fmt.Sprintf("%s %d fails, %d times (0: for ever): %v", name, k, rule.Count, errno), errno, rule)
					}
				})
			}
			s.t.Logf("%d requests of kind %s", healthy, name)
		}
		s.t.Logf("%d lives", s.lives)
	})
}

// TestRealFault_Short: a transfer that the kernel cuts short, or that is late, is
// taken for a failure or for a whole one.
func TestRealFault_Short(t *testing.T) {
	realSweeps(t, func(s *realSweep) {
		r := s.round("all is late", 0, faultfs.Rule{Delay: 2 * time.Millisecond})
		require.Equal(s.t, len(r.states)-1, r.synced)
		if s.mode == ioring.URing {
			s.mode = ioring.Auto // the kernel's own retry is wrong on FUSE
		}
		for _, kind := range []faultfs.Kind{faultfs.Read, faultfs.Write} {
			r := s.round("every second transfer is short", 0, faultfs.Rule{Kind: kind, Short: true, Match: everySecond()})
			require.NotEmpty(s.t, s.fs.Hits())
			require.Equal(s.t, len(r.states)-1, r.synced)
		}
	})
}

// everySecond lets what is left of a short transfer through.
func everySecond() func(faultfs.Op) bool {
	n := 0
	return func(faultfs.Op) bool { n++; return n%2 == 1 }
}

// TestRealFault_Zeros: a segment that cannot be prepared in advance, which is for
// speed only, fails what needs it.
func TestRealFault_Zeros(t *testing.T) {
	realSweeps(t, func(s *realSweep) {
		for _, kind := range []faultfs.Kind{faultfs.Write, faultfs.Fsync} {
			r := s.round("zeros fail", 0, faultfs.Rule{Kind: kind, Err: syscall.EIO, Match: zeros})
			require.Equal(s.t, len(r.states)-1, r.synced)
		}
	})
}

// count is how many requests of a rule's kind a healthy life makes.
func (s *realSweep) count(rule faultfs.Rule) int {
	n := 0
	match := rule.Match
	rule.Match = func(op faultfs.Op) bool {
		if match(op) {
			n++ // the file system's lock is held
		}
		return false
	}
	r := s.round("healthy", 0, rule)
	require.Equal(s.t, len(r.states)-1, r.synced)
	require.Positive(s.t, n)
	return n
}
