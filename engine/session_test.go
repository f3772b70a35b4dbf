package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/hlog"
	"rskv/engine/internal/record"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

// openCold opens a store on a device whose answers may be late and out of order.
func openCold(t testing.TB, change func(*Options)) (*Store, *iotest.Fault) {
	dev := iotest.NewFault(newMem(), 1)
	return openOn(t, dev, change), dev
}

// slowReads keeps the answer of every read back for a moment.
func slowReads(dev *iotest.Fault, d time.Duration) (remove func()) {
	return dev.Inject(iotest.Rule{Kind: ioring.Read, Delay: d})
}

// finishAll completes everything pending and returns the answers by tag, and the
// order they came in.
func finishAll(t testing.TB, n *Session) (answers map[uint64]Op, order []uint64) {
	t.Helper()
	answers = map[uint64]Op{}
	take := func(op *Op) {
		_, twice := answers[op.Tag]
		require.False(t, twice, "op %d was answered twice", op.Tag)
		answer := *op
		answer.Value = bytes.Clone(op.Value)
		answers[op.Tag] = answer
		order = append(order, op.Tag)
	}
	waitFor(t, "a session", background(func() { n.wait(take) }))
	require.Zero(t, n.Pending())
	return answers, order
}

// TestSession_SameKeyOrder: operations on one cold key, given in one burst, take
// effect in another order, or twice.
func TestSession_SameKeyOrder(t *testing.T) {
	s, dev := openCold(t, nil)
	n := s.NewSession()
	const keys = 200
	for i := range keys {
		require.NoError(t, n.Put(key64(i), []byte("a")))
	}
	evict(t, s, n)
	dev.Reorder(8)
	for i := range keys {
		key := key64(i)
		ops := []Op{
			{Tag: 0, Kind: OpGet, Key: key},
			{Tag: 1, Kind: OpAppend, Key: key, Value: []byte("b")},
			{Tag: 2, Kind: OpGet, Key: key},
			{Tag: 3, Kind: OpAppend, Key: key, Value: []byte("c")},
			{Tag: 4, Kind: OpDelete, Key: key},
			{Tag: 5, Kind: OpPut, Key: key, Value: []byte("d")},
			{Tag: 6, Kind: OpGet, Key: key},
			{Tag: 7, Kind: OpDelete, Key: key, Blind: true},
			{Tag: 8, Kind: OpExists, Key: key},
			{Tag: 9, Kind: OpPut, Key: key, If: IfAbsent, Value: []byte("e")},
			{Tag: 10, Kind: OpPut, Key: key, If: IfAbsent, Value: []byte("f")},
			{Tag: 11, Kind: OpCompareAndSwap, Key: key, Old: []byte("e"), Value: []byte("g")},
		}
		var got map[uint64]Op
		if i%2 == 0 {
			got = map[uint64]Op{}
			n.Do(ops)
			for _, op := range ops {
				got[op.Tag] = op
			}
		} else {
			require.Equal(t, len(ops), n.Start(ops))
			var order []uint64
			got, order = finishAll(t, n)
			require.IsIncreasing(t, order)
		}
		for tag, op := range got {
			require.NoError(t, op.Err, "op %d", tag)
			require.Equal(t, tag != 8 && tag != 10, op.Found || tag == 7, "op %d", tag)
		}
		require.Equal(t, "a", string(got[0].Value))
		require.EqualValues(t, 2, got[1].Int)
		require.Equal(t, "ab", string(got[2].Value))
		require.EqualValues(t, 3, got[3].Int)
		require.Equal(t, "d", string(got[6].Value))
		value, err := n.Get(key, nil)
		require.NoError(t, err)
		require.Equal(t, "g", string(value))
	}
	n.Close()
	checkStore(t, s)
	require.NoError(t, s.Close())
}

// TestSession_ColdThenBlind: the put behind a delete or a get of a cold key does
// not read the disk, overtakes it, and is deleted or seen by it.
func TestSession_ColdThenBlind(t *testing.T) {
	s, dev := openCold(t, nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("deleted"), []byte("old")))
	require.NoError(t, n.Put([]byte("read"), []byte("old")))
	require.NoError(t, n.Put([]byte("other"), []byte("old")))
	evict(t, s, n)
	remove := slowReads(dev, 5*time.Millisecond)
	require.Equal(t, 4, n.Start([]Op{
		{Tag: 1, Kind: OpDelete, Key: []byte("deleted")},
		{Tag: 2, Kind: OpPut, Key: []byte("deleted"), Value: []byte("new")},
		{Tag: 3, Kind: OpGet, Key: []byte("read")},
		{Tag: 4, Kind: OpPut, Key: []byte("read"), Value: []byte("new")},
		{Tag: 5, Kind: OpPut, Key: []byte("other"), Value: []byte("new")},
	}), "the last one waits for nobody")
	got, order := finishAll(t, n)
	require.Len(t, order, 4)
	require.True(t, got[1].Found)
	require.Equal(t, "old", string(got[3].Value))
	remove()
	for _, key := range []string{"deleted", "read", "other"} {
		value, err := n.Get([]byte(key), nil)
		require.NoError(t, err, key)
		require.Equal(t, "new", string(value), key)
	}
	n.Close()
	checkStore(t, s)
	require.NoError(t, s.Close())
}

// TestSession_OutOfOrder: an op whose read is late holds back others that are
// done, or a hot op waits for a cold one.
func TestSession_OutOfOrder(t *testing.T) {
	s, dev := openCold(t, nil)
	n := s.NewSession()
	for i := range 10 {
		require.NoError(t, n.Put(key64(i), key64(i)))
	}
	first := s.log.Begin().Bytes()
	require.Zero(t, first)
	evict(t, s, n)
	require.NoError(t, n.Put([]byte("hot"), []byte("now")))
	var late int
	others := make(chan struct{}) // closed: they are through
	dev.Inject(iotest.Rule{Kind: ioring.Read, Match: iotest.Nth(1), Until: others})
	ops := []Op{{Tag: 100, Kind: OpGet, Key: []byte("hot")}}
	for i := range 10 {
		ops = append(ops, Op{Tag: uint64(i), Kind: OpGet, Key: key64(i)})
	}
	require.Equal(t, 10, n.Start(ops))
	require.False(t, ops[0].Pending())
	require.Equal(t, "now", string(ops[0].Value))
	require.True(t, ops[1].Pending())
	go func() {
		for dev.Counters().InFlight > 1 {
			time.Sleep(time.Millisecond)
		}
		close(others)
	}()
	got, order := finishAll(t, n)
	for i := range 10 {
		require.Equal(t, key64(i), got[uint64(i)].Value)
	}
	for i, tag := range order {
		if tag == 0 {
			late = i
		}
	}
	require.Equal(t, 9, late, "the late one comes last: %v", order)
	n.Close()
	checkStore(t, s)
	require.NoError(t, s.Close())
}

// TestSession_Ordered: in an ordered session a write overtakes one before it
// that waits for the disk, or reads wait for writes.
func TestSession_Ordered(t *testing.T) {
	s, dev := openCold(t, nil)
	n := s.NewSession()
	n.SetOrdered(true)
	watch := s.NewSession()
	require.NoError(t, n.Put([]byte("cold"), []byte("old")))
	evict(t, s, n)
	require.NoError(t, n.Put([]byte("hot"), []byte("0")))
	remove := slowReads(dev, 30*time.Millisecond)
	ops := []Op{
		{Tag: 1, Kind: OpAppend, Key: []byte("cold"), Value: []byte("er")},
		{Tag: 2, Kind: OpGet, Key: []byte("hot")},
		{Tag: 3, Kind: OpPut, Key: []byte("hot"), Value: []byte("1")},
		{Tag: 4, Kind: OpAdd, Key: []byte("sum"), Delta: 1},
		{Tag: 5, Kind: OpGet, Key: []byte("sum")},
		{Tag: 6, Kind: OpExists, Key: []byte("hot")},
	}
	require.Equal(t, 5, n.Start(ops))
	require.False(t, ops[1].Pending(), "a read passes")
	require.Equal(t, "0", string(ops[1].Value))
	value, err := watch.Get([]byte("hot"), nil)
	require.NoError(t, err)
	require.Equal(t, "0", string(value), "the write waits for the one before it")
	got, order := finishAll(t, n)
	require.Equal(t, []uint64{1, 3, 4}, writesIn(order))
	require.EqualValues(t, 5, got[1].Int)
	require.Equal(t, uint64(1), binary.LittleEndian.Uint64(got[5].Value))
	remove()
	n.Close()
	watch.Close()
	checkStore(t, s)
	require.NoError(t, s.Close())
}

// writesIn keeps the tags of TestSession_Ordered that belong to writes.
func writesIn(order []uint64) (writes []uint64) {
	for _, tag := range order {
		if tag == 1 || tag == 3 || tag == 4 {
			writes = append(writes, tag)
		}
	}
	return writes
}

// TestSession_OpsComeBack: Do leaves the caller's slices pointing into memory of
// the session, which the next call overwrites.
func TestSession_OpsComeBack(t *testing.T) {
	s, _ := openCold(t, nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("cold"), []byte("old")))
	evict(t, s, n)
	ops := []Op{
		{Kind: OpCompareAndSwap, Key: []byte("cold"), Old: []byte("old"), Value: []byte("new"), Tag: 9},
		{Kind: OpGet, Key: []byte("cold"), Value: make([]byte, 0, 100)},
	}
	given := ops[1].Value[:1]
	n.Do(ops)
	require.True(t, ops[0].Found)
	require.Equal(t, "new", string(ops[1].Value))
	require.Same(t, &given[0], &ops[1].Value[0], "the caller's memory was large enough")
	kept := ops[0]
	evict(t, s, n)
	later := Op{Kind: OpCompareAndSwap, Key: []byte("cold"), Old: []byte("xxx"), Value: []byte("yyy")}
	n.Do([]Op{later, later}) // they wait for the disk as well
	require.Equal(t, "cold", string(kept.Key))
	require.Equal(t, "old", string(kept.Old))
	require.Equal(t, "new", string(kept.Value))
	require.EqualValues(t, 9, kept.Tag)
	n.Close()
	checkStore(t, s)
	require.NoError(t, s.Close())
}

// TestSession_FuzzyDelete: a delete of a record that another session still may
// change in place does not wait for it, and both say that they deleted it.
func TestSession_FuzzyDelete(t *testing.T) {
	s, _ := openCold(t, nil)
	a, b := s.NewSession(), s.NewSession()
	key := []byte("key")
	require.NoError(t, b.Put(key, []byte("value")))
	live := s.Len()

	// a is inside a section, and takes the record for a mutable one.
	require.NoError(t, a.enter(true))
	var at place
	a.find(record.Hash(s.seed, key), key, &at)
	require.Equal(t, inMemory, at.kind)
	require.GreaterOrEqual(t, at.addr, a.ro)
	for i := 0; s.log.ReadOnly() <= at.addr; i++ {
		require.NoError(t, b.Put(key64(i), make([]byte, 60<<10)))
		live++
	}
	require.LessOrEqual(t, s.log.SafeReadOnly(), at.addr)
	var found bool
	deleted := background(func() {
		var err error
		found, err = b.Delete(key)
		require.NoError(t, err)
	})
	select {
	case <-deleted:
	case <-time.After(50 * time.Millisecond):
	}
	w1 := record.Load1(at.ptr)
	mine := w1&record.Sealed == 0 && record.KindOf(w1) != record.Tombstone && record.TryLock(at.ptr, w1)
	if mine {
		a.live--
		record.UnlockChanged(at.ptr, w1, record.Word1(record.Tombstone, record.ValueLen(w1), 0))
	}
	a.exit()
	waitFor(t, "the delete", deleted)
	require.True(t, mine != found, "deleted in place: %t, deleted by a newer record: %t", mine, found)
	a.Close()
	b.Close()
	checkLen(t, s, int(live-1))
	require.NoError(t, s.Close())
}

// TestSession_Starving: with hardly any staging memory, reads are forgotten, or
// sessions wait for each other.
func TestSession_Starving(t *testing.T) {
	mem := iotest.NewMem(iotest.MemOptions{SegmentSize: 1 << 20, BufferBytes: 256 << 10})
	dev := iotest.NewFault(mem, newSeed(t))
	s := openOn(t, dev, nil)
	const keys, sessions = 400, 4
	n := s.NewSession()
	size := func(i int) int { return i % 7 * 11_000 }
	for i := range keys {
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 0, size(i))))
	}
	large := valueOf(1<<40, 0, 20*chunkBytes)
	require.NoError(t, n.Put([]byte("large"), large))
	evict(t, s, n)
	n.Close()
	dev.Reorder(5)
	done := make([]<-chan struct{}, sessions)
	for w := range done {
		done[w] = background(func() {
			n := s.NewSession()
			defer n.Close()
			for round := range 3 {
				ops := make([]Op, 0, keys+1)
				for i := range keys {
					ops = append(ops, Op{Tag: uint64(i), Kind: OpGet, Key: key64(i)})
					if i%5 == 0 { // behind the first, with an early read
						ops = append(ops, Op{Tag: uint64(i + keys), Kind: OpExists, Key: key64(i)})
					}
				}
				ops = append(ops, Op{Tag: 1 << 40, Kind: OpGet, Key: []byte("large")})
				if round == 0 {
					n.Do(ops)
				} else {
					n.Start(ops)
					ops = ops[:0]
					n.wait(func(op *Op) {
						op.Value = bytes.Clone(op.Value)
						ops = append(ops, *op)
					})
				}
				for _, op := range ops {
					switch {
					case op.Err != nil || !op.Found:
						t.Errorf("op %d: found %t, %v", op.Tag, op.Found, op.Err)
					case op.Tag == 1<<40:
						if !bytes.Equal(op.Value, large) {
							t.Error("the large value is wrong")
						}
					case op.Kind == OpGet:
						if err := valueIs(op.Value, op.Tag, 0, size(int(op.Tag))); err != nil {
							t.Error(err)
						}
					}
				}
			}
		})
	}
	for _, d := range done {
		waitFor(t, "a starving session", d)
	}
	checkStore(t, s)
	require.NoError(t, s.Close())
}

// TestSession_LargeBudget: more large values than the budget holds at a time make
// a batch wait for itself, or sessions for each other.
func TestSession_LargeBudget(t *testing.T) {
	s, _ := openCold(t, func(o *Options) { o.MaxValue = 2 << 20 }) // a budget of 4 MiB
	require.EqualValues(t, 4<<20, s.large.limit)
	const keys = 12
	n := s.NewSession()
	for i := range keys {
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 0, 2<<20-i)))
	}
	n.Close()
	var done []<-chan struct{}
	for w := range 3 {
		done = append(done, background(func() {
			n := s.NewSession()
			defer n.Close()
			ops := make([]Op, keys)
			for i := range ops {
				ops[i] = Op{Tag: uint64(i), Kind: OpGet, Key: key64(i)}
			}
			check := func(op *Op) {
				if op.Err != nil {
					t.Error(op.Err)
				} else if err := valueIs(op.Value, op.Tag, 0, 2<<20-int(op.Tag)); err != nil {
					t.Error(err)
				}
			}
			if w == 0 {
				n.Do(ops)
				for i := range ops {
					check(&ops[i])
				}
				return
			}
			n.Start(ops)
			n.wait(check)
		}))
	}
	for _, d := range done {
		waitFor(t, "a session with large values", d)
	}
	checkStore(t, s)
	require.NoError(t, s.Close())
}

// TestSession_LargerThanBudget: a value from a time when larger ones were
// allowed waits for ever for a budget that can never hold it.
func TestSession_LargerThanBudget(t *testing.T) {
	mem := newMem()
	s := openOn(t, mem, nil)
	n := s.NewSession()
	value := valueOf(1, 1, 9<<20)
	require.NoError(t, n.Put([]byte("large"), value))
	n.Close()
	require.NoError(t, s.Close())
	s = openOn(t, mem.CrashImage(iotest.CrashOptions{}), func(o *Options) { o.MaxValue = 1 << 10 })
	require.Less(t, s.large.limit, int64(len(value)))
	n = s.NewSession()
	var got []byte
	var err error
	waitFor(t, "a read", background(func() { got, err = n.Get([]byte("large"), nil) }))
	require.NoError(t, err)
	require.True(t, bytes.Equal(value, got))
	require.ErrorIs(t, n.Put([]byte("large"), value), ErrValueTooLarge)
	_, err = n.Append([]byte("large"), []byte("x"))
	require.ErrorIs(t, err, ErrValueTooLarge)
	n.Close()
	checkLen(t, s, 1)
	require.NoError(t, s.Close())
}

// TestSession_CloseStore: a session with operations pending hangs when the store
// is closed, crashes on memory that is gone, or answers with something else
// than ErrClosed.
func TestSession_CloseStore(t *testing.T) {
	seed := newSeed(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	for range rounds {
		mem := iotest.NewMem(iotest.MemOptions{SegmentSize: 1 << 20, BufferBytes: 256 << 10})
		dev := iotest.NewFault(mem, seed)
		s := openOn(t, dev, nil)
		const keys = 100
		n := s.NewSession()
		for i := range keys {
			require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 0, i*300)))
		}
		require.NoError(t, n.Put([]byte("large"), valueOf(1, 1, 30*chunkBytes)))
		evict(t, s, n)
		n.Close()
		slowReads(dev, time.Duration(rng.IntN(3000))*time.Microsecond)
		var done []<-chan struct{}
		started := make(chan struct{}, 3)
		for w := range 3 {
			done = append(done, background(func() {
				n := s.NewSession()
				defer n.Close()
				n.SetOrdered(w == 0)
				ops := []Op{{Kind: OpGet, Key: []byte("large")}, {Kind: OpAppend, Key: []byte("large"), Value: []byte("x")}}
				for i := range keys {
					ops = append(ops,
						Op{Tag: uint64(i), Kind: OpGet, Key: key64(i)},
						Op{Tag: uint64(i), Kind: OpUpdate, Key: key64(i), Fn: func(old []byte, _ bool) ([]byte, Verdict) { return old, Replace }},
						Op{Tag: uint64(i), Kind: OpExists, Key: key64(i)})
				}
				started <- struct{}{}
				if w == 1 {
					n.Do(ops)
				} else {
					total := n.Start(ops)
					for i := range ops {
						if !ops[i].Pending() {
							total++
						}
					}
					if total != len(ops) {
						t.Errorf("%d ops of %d", total, len(ops))
					}
					n.wait(func(op *Op) {
						if op.Err != nil && op.Err != ErrClosed {
							t.Error(op.Err)
						}
					})
				}
				for i := range ops {
					if err := ops[i].Err; err != nil && err != ErrClosed {
						t.Error(err)
					}
				}
				if err := n.Put([]byte("late"), nil); err != nil && err != ErrClosed {
					t.Error(err)
				}
			}))
		}
		<-started
		time.Sleep(time.Duration(rng.IntN(3000)) * time.Microsecond)
		var err error
		waitFor(t, "Close of the store", background(func() { err = s.Close() }))
		require.NoError(t, err)
		for _, d := range done {
			waitFor(t, "a session of a closed store", d)
		}
	}
}

// TestSession_AfterClose: work on a closed store touches memory that is gone.
func TestSession_AfterClose(t *testing.T) {
	s, _ := openCold(t, nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("key"), []byte("value")))
	require.NoError(t, s.Close())
	_, err := n.Get([]byte("key"), make([]byte, 0, 100))
	require.ErrorIs(t, err, ErrClosed)
	ops := append(writesOf([]byte("key")), Op{Kind: OpGet, Key: []byte("key")}, Op{Kind: OpExists, Key: []byte("key")})
	n.Do(ops)
	for _, op := range ops {
		require.ErrorIs(t, op.Err, ErrClosed)
		require.False(t, op.Found)
	}
	require.Zero(t, n.Start(ops))
	require.Zero(t, n.Complete(func(*Op) { t.Error("an answer") }))
	n.Close()
	n.Close()
	m := s.NewSession()
	require.ErrorIs(t, m.Put([]byte("key"), nil), ErrClosed)
	m.Close()
	require.NotPanics(t, func() { s.Stats(); s.Len(); s.Info(); s.Recovery() })
	require.ErrorIs(t, s.Close(), ErrClosed)
}

// TestSession_CloseWithPending: the effects of operations that were pending when
// the session was closed are lost, or its memory is.
func TestSession_CloseWithPending(t *testing.T) {
	s, dev := openCold(t, nil)
	n := s.NewSession()
	const keys = 300
	for i := range keys {
		require.NoError(t, n.Put(key64(i), []byte("a")))
	}
	evict(t, s, n)
	dev.Reorder(20)
	ops := make([]Op, keys)
	for i := range ops {
		ops[i] = Op{Kind: OpAppend, Key: key64(i), Value: []byte("b")}
	}
	require.Equal(t, keys, n.Start(ops))
	for i := range ops { // the session has copies
		copy(ops[i].Key, "xxxxxxxx")
		copy(ops[i].Value, "x")
	}
	waitFor(t, "Close", background(n.Close))
	n = s.NewSession()
	for i := range keys {
		value, err := n.Get(key64(i), nil)
		require.NoError(t, err)
		require.Equal(t, "ab", string(value))
	}
	remove := func() {}
	require.PanicsWithValue(t, fmt.Sprintf("engine: Do on a session with %d operations pending", 1), func() {
		dev.Reorder(0)
		evict(t, s, n)
		remove = slowReads(dev, 10*time.Millisecond)
		require.Equal(t, 1, n.Start([]Op{{Kind: OpGet, Key: key64(0)}}))
		n.Do([]Op{{Kind: OpGet, Key: key64(1)}})
	})
	remove()
	n.Close()
	checkStore(t, s)
	require.NoError(t, s.Close())
}

// TestSession_BadOps: a bad op spoils its neighbours in the batch.
func TestSession_BadOps(t *testing.T) {
	s, _ := openCold(t, func(o *Options) { o.MaxValue = 1000 })
	n := s.NewSession()
	longest := bytes.Repeat([]byte("k"), MaxKey)
	ops := []Op{
		{Kind: OpPut, Key: []byte("good"), Value: []byte("1")},
		{Kind: OpPut, Key: nil},
		{Kind: OpGet, Key: append(longest, 'k')},
		{Kind: OpPut, Key: []byte("long"), Value: make([]byte, 1001)},
		{Kind: 0, Key: []byte("kind")},
		{Kind: 200, Key: []byte("kind")},
		{Kind: OpUpdate, Key: []byte("no function")},
		{Kind: OpPut, Key: longest, Value: make([]byte, 1000)},
		{Kind: OpGet, Key: []byte("good")},
		{Kind: OpGet, Key: longest},
	}
	n.Do(ops)
	for i, want := range []error{nil, ErrKeyEmpty, ErrKeyTooLarge, ErrValueTooLarge, ErrBadOp, ErrBadOp, ErrBadOp, nil, nil, nil} {
		if want == nil {
			require.NoError(t, ops[i].Err, "op %d", i)
			require.True(t, ops[i].Found, "op %d", i)
			continue
		}
		require.ErrorIs(t, ops[i].Err, want, "op %d", i)
		require.False(t, ops[i].Found, "op %d", i)
	}
	require.Equal(t, "1", string(ops[8].Value))
	require.Len(t, ops[9].Value, 1000)
	_, err := n.Append(longest, []byte("x"))
	require.ErrorIs(t, err, ErrValueTooLarge)
	require.ErrorIs(t, n.Update([]byte("good"), func([]byte, bool) ([]byte, Verdict) { return make([]byte, 1001), Replace }), ErrValueTooLarge)
	value, err := n.Get([]byte("good"), nil)
	require.NoError(t, err)
	require.Equal(t, "1", string(value))
	n.Close()
	checkLen(t, s, 2)
	require.NoError(t, s.Close())
}

// TestSession_Overflow: a counter at its limit wraps.
func TestSession_Overflow(t *testing.T) {
	s, _ := openCold(t, nil)
	n := s.NewSession()
	const most = 1<<63 - 1
	for _, cold := range []bool{false, true} {
		require.NoError(t, n.Put([]byte("most"), binary.LittleEndian.AppendUint64(nil, most)))
		require.NoError(t, n.Put([]byte("least"), binary.LittleEndian.AppendUint64(nil, 1<<63)))
		if cold {
			evict(t, s, n)
		}
		_, err := n.Add([]byte("most"), 1)
		require.ErrorIs(t, err, ErrOverflow)
		_, err = n.Add([]byte("least"), -1)
		require.ErrorIs(t, err, ErrOverflow)
		sum, err := n.Add([]byte("most"), -most)
		require.NoError(t, err)
		require.Zero(t, sum)
		sum, err = n.Add([]byte("least"), most)
		require.NoError(t, err)
		require.EqualValues(t, -1, sum)
	}
	n.Close()
	checkStore(t, s)
	require.NoError(t, s.Close())
}

// TestSession_AddZero: adding nothing to a negative counter passes for an
// overflow, or makes no key.
func TestSession_AddZero(t *testing.T) {
	s, _ := openCold(t, nil)
	n := s.NewSession()
	for _, delta := range []int64{0, -5, 0, 5, 0} {
		_, err := n.Add([]byte("sum"), delta)
		require.NoError(t, err)
	}
	sum, err := n.Add([]byte("sum"), 0)
	require.NoError(t, err)
	require.Zero(t, sum)
	n.Close()
	checkLen(t, s, 1)
	require.NoError(t, s.Close())
}

// TestSession_GivenUpRead: the buffer of an early read that nobody needed in the
// end stays with a session that has been closed.
func TestSession_GivenUpRead(t *testing.T) {
	s, dev := openCold(t, nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("cold"), []byte("old")))
	evict(t, s, n)
	second := make(chan struct{})
	dev.Inject(iotest.Rule{Kind: ioring.Read, Match: iotest.Nth(2), Until: second})
	n.Do([]Op{
		{Kind: OpAppend, Key: []byte("cold"), Value: []byte("er")}, // moves the key to memory
		{Kind: OpExists, Key: []byte("cold")},                      // its read has begun by then
	})
	require.NotZero(t, s.dev.Buffers().InUse(), "the second read is still on its way")
	time.AfterFunc(30*time.Millisecond, func() { close(second) })
	n.Close()
	checkStore(t, s)
	require.NoError(t, s.Close())
}

// TestSession_ColdTombstone: the value that a record had before it was deleted in
// place comes back when the record is read from the disk.
func TestSession_ColdTombstone(t *testing.T) {
	s, _ := openCold(t, nil)
	n := s.NewSession()
	const kinds = 6
	for i := range kinds {
		require.NoError(t, n.Put(key64(i), []byte("old value")))
		_, err := n.Delete(key64(i))
		require.NoError(t, err)
	}
	evict(t, s, n)
	_, err := n.Get(key64(0), nil)
	require.ErrorIs(t, err, ErrNotFound)
	length, err := n.Append(key64(1), []byte("new"))
	require.NoError(t, err)
	require.EqualValues(t, 3, length)
	require.NoError(t, n.Update(key64(2), func(old []byte, found bool) ([]byte, Verdict) {
		require.False(t, found)
		require.Nil(t, old)
		return append(old, "new"...), Replace
	}))
	sum, err := n.Add(key64(3), 3)
	require.NoError(t, err)
	require.EqualValues(t, 3, sum)
	ok, err := n.CompareAndSwap(key64(4), []byte("old value"), []byte("new"))
	require.NoError(t, err)
	require.False(t, ok)
	ok, err = n.Delete(key64(5))
	require.NoError(t, err)
	require.False(t, ok)
	for _, i := range []int{1, 2} {
		value, err := n.Get(key64(i), nil)
		require.NoError(t, err)
		require.Equal(t, "new", string(value))
	}
	n.Close()
	live, exact := checkStore(t, s)
	require.True(t, exact)
	require.Equal(t, s.Len(), live)
	require.NoError(t, s.Close())
}

// TestSession_PageLeftMeanwhile: a writer finds its page full, and before it comes
// to wait somebody else has begun the next one, with the last frame: it waits for
// another frame, although there is room, and for ever if nobody else writes.
func TestSession_PageLeftMeanwhile(t *testing.T) {
	mem := iotest.NewMem(iotest.MemOptions{SegmentSize: 1 << 20, BufferBytes: 2 << 20, Manual: true})
	s := openOn(t, mem, func(o *Options) { o.logPagesMax = hlog.PagesMin })
	n := s.NewSession()
	value := make([]byte, 60<<10)
	for i := range hlog.PagesMin*4 - 3 { // four of them fill a page, nothing is written
		require.NoError(t, n.Put(key64(i), value))
	}
	require.False(t, s.log.Ready(), "all frames are in use")
	waitFor(t, "a writer that may go on", background(n.waitSpace))
	require.NoError(t, n.Put([]byte("key"), []byte("value")))
	stop := make(chan struct{})
	done := background(func() {
		for {
			select {
			case <-stop:
				return
			default:
				mem.Step()
			}
		}
	})
	n.Close()
	require.NoError(t, s.Close())
	close(stop)
	<-done
}

// TestSession_RemoveWithValue: the value that an UpdateFunc returns beside Remove is
// written into the tombstone, longer than any record may be.
func TestSession_RemoveWithValue(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	for _, cold := range []bool{false, true} {
		for _, size := range []int{8, inlineMax + 1, 3 * chunkBytes} {
			key := []byte("key")
			require.NoError(t, n.Put(key, valueOf(1, 1, size)))
			if cold {
				evict(t, s, n)
			}
			before := s.log.Tail()
			require.NoError(t, n.Update(key, func(old []byte, found bool) ([]byte, Verdict) {
				require.Len(t, old, size)
				return old, Remove
			}))
			require.Less(t, (s.log.Tail() - before).Bytes(), int64(4<<10), "size %d", size)
			found, err := n.Exists(key)
			require.NoError(t, err)
			require.False(t, found)
		}
	}
	n.Close()
	require.NoError(t, s.Close())
}
