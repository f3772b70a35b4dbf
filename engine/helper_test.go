package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/hlog"
	"rskv/engine/internal/index"
	"rskv/engine/internal/record"
	"rskv/ioring"
	"rskv/ioring/iotest"
	"rskv/ioring/iotest/seeds"
)

var newSeed = seeds.New

// newMem returns a device in memory on which a small store fits.
func newMem() *iotest.Mem {
	return iotest.NewMem(iotest.MemOptions{SegmentSize: 1 << 20, BufferBytes: 2 << 20})
}

// openOn opens a store on a device: small pages, commits only when asked,
// no warming, no compaction of its own, and the same identity every time.
func openOn(t testing.TB, dev ioring.Device, change func(*Options)) *Store {
	t.Helper()
	s, err := tryOpenOn(dev, change)
	require.NoError(t, err)
	return s
}

func tryOpenOn(dev ioring.Device, change func(*Options)) (*Store, error) {
	opt := Options{
		Device: dev, Memory: MemoryMin, PageSize: pageSizeMin, CommitInterval: -1, ColdStart: true, LiveRatio: -1,
		Random: bytes.NewReader([]byte("0123456789abcdefHASHSEED")),
	}
	if change != nil {
		change(&opt)
	}
	return Open(opt)
}

func syncStore(t testing.TB, s *Store) uint64 {
	t.Helper()
	version, err := s.Sync(context.Background())
	require.NoError(t, err)
	return version
}

// waitFor fails the test unless done is closed soon.
func waitFor(t testing.TB, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(waitLong):
		t.Fatalf("%s does not come to an end", what)
	}
}

// testClock is a clock that moves when it is told to.
type testClock struct {
	wall atomic.Int64           // ms since 1970
	mono atomic.Int64           // ns
	look atomic.Pointer[func()] // called before each look at the monotonic clock, if set
}

func newTestClock() *testClock {
	c := &testClock{}
	c.wall.Store(1_700_000_000_000)
	c.mono.Store(1)
	return c
}

func (c *testClock) Wall() int64 { return c.wall.Load() }

func (c *testClock) Monotonic() int64 {
	if look := c.look.Load(); look != nil {
		(*look)()
	}
	return c.mono.Load()
}

// move lets so many ms pass.
func (c *testClock) move(ms int64) {
	c.wall.Add(ms)
	c.mono.Add(ms * int64(time.Millisecond))
}

// background runs f on a goroutine of its own and returns what is closed after.
func background(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return done
}

// calledBy reports whether the caller's goroutine is in a test of that name, and not one
// that the test has begun, or a task.
func calledBy(test string) bool {
	stack := make([]byte, 64<<10)
	return bytes.Contains(stack[:runtime.Stack(stack, false)], []byte("."+test+"("))
}

func key64(i int) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(i)) }

// valueOf derives n bytes from a key and a version; valueIs checks them again.
func valueOf(key, version uint64, n int) []byte {
	b := make([]byte, (n+7)&^7)
	x := key*0x9e3779b97f4a7c15 ^ version*0xc2b2ae3d27d4eb4f
	for i := 0; i < len(b); i += 8 {
		x = x*0xd1342543de82ef95 + 0x2545f4914f6cdd1d
		binary.LittleEndian.PutUint64(b[i:], x^x>>29)
	}
	return b[:n]
}

func valueIs(b []byte, key, version uint64, n int) error {
	if len(b) != n {
		return fmt.Errorf("key %d version %d: %d bytes, want %d", key, version, len(b), n)
	}
	if want := valueOf(key, version, n); !bytes.Equal(b, want) {
		at := 0
		for b[at] == want[at] {
			at++
		}
		return fmt.Errorf("key %d version %d: byte %d of %d is wrong", key, version, at, n)
	}
	return nil
}

// evict writes until every record that is there now is on disk only.
func evict(t testing.TB, s *Store, n *Session) {
	t.Helper()
	require.NoError(t, s.StopTask(TaskForward)) // or what fits into memory stays there
	until := s.log.Tail()
	value := make([]byte, 60<<10)
	for i := 0; s.log.Head() < until; i++ {
		require.NoError(t, n.Put(binary.BigEndian.AppendUint64([]byte("evict"), uint64(i%64)), value))
		require.Less(t, i, 1<<20, "head does not move")
	}
}

// chainMax bounds the records of one chain that checkStore reads from the disk.
const chainMax = 200

// ownTask is a task of the store that changes what a check looks at, or looks into it.
type ownTask struct {
	name    string
	task    *taskRef
	step    func() time.Duration
	session *Session // of its operations; nil: it has none
}

func ownTasks(s *Store) []ownTask {
	list := []ownTask{
		{string(TaskForward), &s.forward.task, s.forward.step, s.forward.session},
		{string(TaskCompact), &s.compaction.task, s.compaction.step, s.compaction.workers[0].session},
		{string(TaskCheckpoint), &s.checkpoints.task, s.checkpoints.step, nil},
		{string(TaskGrowth), &s.growth.task, s.tasks.timed(TaskGrowth, s.growth.step), nil},
		{string(TaskExpire), &s.sweep.task, s.sweep.step, s.sweep.session},
		{string(TaskCache), &s.cache.task, s.cache.step, nil},
		{string(TaskWarm), &s.warm.task, s.warm.step, nil},
	}
	for _, w := range s.compaction.workers[1:] {
		list = append(list, ownTask{string(TaskCompact), &w.task, w.step, w.session})
	}
	if s.order.tree != nil {
		list = append(list, ownTask{string(TaskOrder), &s.order.task, s.tasks.timed(TaskOrder, s.order.step), s.order.session})
	}
	return list
}

// running reports whether nobody has stopped it.
func (o *ownTask) running() bool {
	task, ours := (*o.task.task.Load()).(*goTask)
	if !ours {
		return false
	}
	select {
	case <-task.gone:
		return false
	default:
		return true
	}
}

// quiet stops the store's own tasks, between two steps and at a moment when none of
// their operations is under way: nobody but the caller changes index, chains or ordered
// index any more, though a pass or a growth may be in its middle. Commits and flushes
// go on. It returns what lets those go on that it has stopped.
func quiet(t testing.TB, s *Store) (resume func()) {
	t.Helper()
	for end := time.Now().Add(waitLong); ; time.Sleep(time.Millisecond) {
		var stopped []ownTask
		again := func() {
			// Each makes a step: who checks again and again on one processor would stop
			// them before they have made any.
			var stepped sync.WaitGroup
			for _, o := range stopped {
				stepped.Add(1)
				once := sync.OnceFunc(stepped.Done)
				o.task.set(s.opt.Runner.Start(o.name, func() time.Duration {
					defer once()
					return o.step()
				}))
			}
			waitFor(t, "a step of the store's tasks", background(stepped.Wait))
		}
		busy := ""
		for _, o := range ownTasks(s) {
			if o.running() {
				waitFor(t, "a step of the task "+o.name, background(o.task.Stop))
				stopped = append(stopped, o)
			}
			if o.session != nil && o.session.Pending() > 0 {
				busy = o.name
			}
		}
		if busy == "" {
			return again
		}
		again()
		require.True(t, time.Now().Before(end), "operations of the task %s do not come to an end: %+v", busy, s.Stats())
	}
}

// checkStore looks at a store that nobody uses at the moment: index, chains,
// markers. It counts the live keys; exact is false if it did not walk all chains
// to their end. The store's own tasks rest meanwhile.
func checkStore(t testing.TB, s *Store) (live int64, exact bool) {
	t.Helper()
	defer quiet(t, s)()
	require.NoError(t, s.index.Check())
	exact = true
	slot := s.epoch.Register()
	defer slot.Release()
	s.index.Range(func(hash, entry uint64) bool {
		n, whole := checkChain(t, s, slot.Enter, slot.Exit, entry)
		live += n
		exact = exact && whole
		return true
	})
	// The lower ones first: all of them only rise, and a commit may be under way.
	durable, head := s.log.Durable(), s.log.Head()
	flushed := s.log.Flushed()
	frozen := s.log.ReadOnly()
	tail := s.log.Tail()
	for _, order := range [][2]record.Addr{{head, flushed}, {durable, flushed}, {flushed, frozen}, {frozen, tail}} {
		require.LessOrEqual(t, order[0], order[1], "durable %v, head %v, flushed %v, read-only %v, tail %v", durable, head, flushed, frozen, tail)
	}
	require.Eventually(t, func() bool { return s.dev.Buffers().InUse() == 0 }, waitLong, time.Millisecond, "a staging buffer was not given back")
	require.Zero(t, s.largeInUse(), "memory of large values was not given back")
	return live, exact
}

func (s *Store) largeInUse() int64 {
	s.large.mu.Lock()
	defer s.large.mu.Unlock()
	return s.large.used
}

// checkLen is checkStore where the count of keys has to be exact.
func checkLen(t testing.TB, s *Store, want int) {
	t.Helper()
	defer quiet(t, s)()
	live, exact := checkStore(t, s)
	require.True(t, exact)
	require.EqualValues(t, want, live, "live keys in the log")
	require.EqualValues(t, want, s.Len(), "Len")
}

// checkChain walks one chain to its end: addresses descend, every record
// verifies and belongs there.
func checkChain(t testing.TB, s *Store, enter, exit func(), entry uint64) (live int64, whole bool) {
	seen := map[string]bool{}
	above := s.log.Tail()
	reads := 0
	for a := index.Address(entry); a >= max(record.FirstAddr, s.log.Begin()); {
		require.Less(t, a, above, "a chain does not descend")
		above = a
		var image []byte
		enter()
		if a >= s.log.Head() {
			p := s.log.Pointer(a)
			w0, w1 := record.Load0(p), record.Load1(p) // the sealer may be at word 1
			image = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, w0), w1)
			image = append(image, record.Bytes(p, record.HeaderSize, record.Size(w0, w1)-record.HeaderSize)...)
		}
		exit()
		if image == nil {
			if reads++; reads > chainMax {
				return live, false
			}
			image = readRecord(t, s, a)
		}
		w0, w1 := record.Words(image)
		require.NotEqual(t, record.System, record.KindOf(w1), "a system record in a chain, at %v", a)
		require.False(t, record.Locked(w1), "the latch of the record at %v is held", a)
		key := string(record.Key(image, w0))
		_, own := s.index.Find(record.Hash(s.seed, []byte(key)))
		if own != entry {
			// A chain of a smaller index: its end belongs to several of this one.
			require.Less(t, a, s.spans[len(s.spans)-1].start, "key %q is in a foreign chain", key)
			require.NotEqual(t, index.Address(entry), a, "key %q heads a foreign chain", key)
		}
		if own == entry && w1&record.Invalid == 0 && !seen[key] {
			seen[key] = true
			expiry := record.ExpiryOf(image, w0, w1)
			expired := expiry != 0 && expiry <= s.clock.now()
			if record.KindOf(w1) != record.Tombstone && !expired {
				live++
			}
			if record.KindOf(w1) == record.Big && !expired {
				checkChunkList(t, s, record.ValueOf(image, w0, w1))
			}
		}
		a = record.Prev(w0)
	}
	return live, true
}

// checkChunkList checks that a large value's chunks can be where its list says.
// They may lie behind the record, which may have been changed in place.
func checkChunkList(t testing.TB, s *Store, list []byte) {
	require.Equal(t, 0, len(list)%8)
	require.Greater(t, len(list), 8)
	for i := 8; i < len(list); i += 8 {
		chunk := record.Addr(binary.LittleEndian.Uint64(list[i:]))
		require.Less(t, chunk, s.log.Tail())
		require.GreaterOrEqual(t, chunk, max(record.FirstAddr, s.log.Begin()))
	}
}

// readRecord reads and verifies the record at a on the device.
func readRecord(t testing.TB, s *Store, a record.Addr) []byte {
	t.Helper()
	page := s.pageEnd(a) - int64(s.opt.PageSize)
	for n := int64(blockBytes); ; n *= 4 {
		from := a.Bytes() &^ (hlog.SectorSize - 1)
		until := min(from+n, page+int64(s.opt.PageSize))
		buf := s.dev.Buffers().Get(int(until - from))
		require.NotNil(t, buf)
		done := make(chan struct{})
		op := &ioring.Op{Kind: ioring.Read, Off: from, Buf: buf, Done: func(*ioring.Op) { close(done) }}
		s.dev.Submit([]*ioring.Op{op})
		<-done
		require.NoError(t, op.Err)
		image := bytes.Clone(buf[a.Bytes()-from:])
		s.dev.Buffers().Put(buf)
		w0, w1 := record.Words(image)
		if size := record.Size(w0, w1); size <= len(image) || until == page+int64(s.opt.PageSize) {
			_, _, ok := record.Verify(image, s.seedAt(a), a)
			require.True(t, ok, "the record at %v does not verify", a)
			return image[:size]
		}
	}
}
