package engine

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring/iotest"
	"rskv/ioring/iotest/seeds"
)

// addOnce does the numbered write number of a ledger whose every write adds one
// to its own counter, or is refused and adds nothing.
func numbered(key []byte, number uint64) Op {
	switch number % 5 {
	case 3:
		return Op{Kind: OpNote, Number: number}
	case 4:
		return Op{Kind: OpPut, Key: nil, Number: number} // refused: no key
	}
	return Op{Kind: OpAdd, Key: key, Delta: 1, Number: number}
}

// adds is how many of the writes up to number add one.
func adds(number uint64) (n int64) {
	for i := uint64(1); i <= number; i++ {
		if i%5 != 3 && i%5 != 4 {
			n++
		}
	}
	return n
}

// TestLedger_Cut: a recovered count is not the count of what was recovered: a
// write is done twice, or never, by a client that goes on from there.
func TestLedger_Cut(t *testing.T) {
	seed := seeds.New(t)
	rng := rand.New(rand.NewPCG(seed, 5))
	const clients = 4
	dev := iotest.NewMem(iotest.MemOptions{})
	var ids [clients]LedgerID
	for round := range 6 {
		s, err := Open(Options{Device: dev, Memory: MemoryMin, PageSize: 256 << 10, CommitInterval: 200e3})
		require.NoError(t, err)
		var wg sync.WaitGroup
		var image *iotest.Mem
		for c := range clients {
			var l *Ledger
			if round == 0 {
				l, err = s.NewLedger()
				require.NoError(t, err)
				ids[c] = l.ID()
			} else {
				l, err = s.FindLedger(ids[c])
				require.NoError(t, err, "round %d", round)
			}
			key := fmt.Appendf(nil, "counter-%d", c)
			n := s.NewSession()
			n.Attach(l)
			sum, err := n.Add(key, 0)
			require.NoError(t, err)
			require.Equal(t, adds(l.Applied()), sum, "client %d in round %d, after number %d", c, round, l.Applied())
			require.Equal(t, l.Applied(), l.Durable())
			steps := 200 + rng.IntN(3000)
			wg.Go(func() {
				next := l.Applied() + 1
				ops := make([]Op, 0, 8)
				for range steps {
					ops = ops[:0]
					for range 1 + next%7 {
						ops = append(ops, numbered(key, next))
						next++
					}
					n.Do(ops)
					if l.Applied() != next-1 {
						panic(fmt.Sprintf("applied %d after number %d", l.Applied(), next-1))
					}
				}
				n.Close()
			})
		}
		wait := rng.IntN(300)
		for i := range wait {
			_, err := s.Sync(context.Background())
			require.NoError(t, err)
			if i%32 == 7 {
				_, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: FullCheckpoint})
				require.NoError(t, err)
			}
		}
		image = dev.CrashImage(iotest.CrashOptions{Seed: rng.Uint64(), Keep: rng.Float64(), Tear: 0.5, Reorder: true})
		wg.Wait()
		for _, id := range ids {
			l, err := s.FindLedger(id)
			require.NoError(t, err)
			_, err = s.Sync(context.Background())
			require.NoError(t, err)
			require.Equal(t, l.Applied(), l.Durable())
		}
		require.NoError(t, s.Close())
		dev = image
	}
}

// TestLedger_Unknown: a ledger that was forgotten is taken for a new one.
func TestLedger_Unknown(t *testing.T) {
	dev := iotest.NewMem(iotest.MemOptions{})
	open := func() *Store {
		s, err := Open(Options{Device: dev, Memory: MemoryMin, PageSize: 256 << 10, CommitInterval: -1, Ledgers: 2})
		require.NoError(t, err)
		return s
	}
	s := open()
	_, err := s.FindLedger(LedgerID{15: 9})
	require.ErrorIs(t, err, ErrLedgerUnknown)
	a, err := s.NewLedger()
	require.NoError(t, err)
	_, err = s.Sync(context.Background())
	require.NoError(t, err)
	b, err := s.NewLedger() // not in any commit when the power fails
	require.NoError(t, err)
	_, err = s.NewLedger()
	require.ErrorIs(t, err, ErrBusy)
	image := dev.CrashImage(iotest.CrashOptions{})
	a.Release()
	_, err = s.NewLedger() // takes the place of a
	require.NoError(t, err)
	_, err = s.FindLedger(a.ID())
	require.ErrorIs(t, err, ErrLedgerUnknown)
	require.NoError(t, s.Close())

	dev = image
	s = open()
	for _, id := range []LedgerID{a.ID(), b.ID()} {
		l, err := s.FindLedger(id)
		require.NoError(t, err)
		require.Zero(t, l.Applied())
	}
	require.NoError(t, s.Close())
	dev = dev.CrashImage(iotest.CrashOptions{})
	s = open()
	_, err = s.FindLedger(b.ID())
	require.NoError(t, err, "it was in a commit of the second run")
	other := binary.BigEndian.AppendUint64(nil, 1)
	_, err = s.FindLedger(LedgerID(append(other, make([]byte, 8)...)))
	require.ErrorIs(t, err, ErrLedgerUnknown)
	require.NoError(t, s.Close())
}

// TestLedger_RevivedOnce: a ledger of the run before, which began again at 0, is
// forgotten and comes back at 0 a second time: its client's writes are done
// twice. Or remembering such ids takes memory without end.
func TestLedger_RevivedOnce(t *testing.T) {
	const expiry = time.Second
	clock := &ledgerClock{}
	clock.wall.Store(1_000_000)
	dev := iotest.NewMem(iotest.MemOptions{})
	open := func() *Store {
		s, err := Open(Options{Device: dev, Memory: MemoryMin, PageSize: 256 << 10, CommitInterval: -1, LedgerExpiry: expiry, Clock: clock})
		require.NoError(t, err)
		return s
	}
	s := open()
	var ids []LedgerID // in no commit when the power fails
	for range 3 {
		l, err := s.NewLedger()
		require.NoError(t, err)
		ids = append(ids, l.ID())
	}
	image := dev.CrashImage(iotest.CrashOptions{})
	require.NoError(t, s.Close())
	dev = image
	s = open()
	table := &s.ledgers
	forgetBy := func(i int, how func()) {
		t.Helper()
		l, err := s.FindLedger(ids[i])
		require.NoError(t, err)
		require.Zero(t, l.Applied())
		n := s.NewSession()
		n.Attach(l)
		n.Do([]Op{{Kind: OpAdd, Key: []byte("k"), Delta: 1, Number: 1}})
		n.Close()
		again, err := s.FindLedger(ids[i])
		require.NoError(t, err)
		require.Same(t, l, again)
		l.Release()
		table.mu.Lock()
		how()
		table.mu.Unlock()
		require.Zero(t, table.size())
	}
	forgetBy(0, func() { require.True(t, table.evictLocked()) })
	_, err := s.FindLedger(ids[0])
	require.ErrorIs(t, err, ErrLedgerUnknown)
	forgetBy(1, func() {
		clock.wall.Add(2 * expiry.Milliseconds())
		table.forgottenMost = 1 // it is one too many to be remembered
		table.sweepLocked()
	})
	for _, id := range ids { // the last one would be sound, but that is not known any more
		_, err = s.FindLedger(id)
		require.ErrorIs(t, err, ErrLedgerUnknown)
	}
	require.Len(t, table.forgotten, 1)
	require.NoError(t, s.Close())
}

// TestLedger_CrashAfterCrash: a client whose ledger was in no commit is told that
// it is unknown, because the daemon crashed once more before it committed: it
// cannot send its writes again, though none of them has an effect. Or one is taken
// up that has been committed and forgotten: they would be done twice.
func TestLedger_CrashAfterCrash(t *testing.T) {
	dev := iotest.NewMem(iotest.MemOptions{})
	var s *Store
	open := func() {
		var err error
		s, err = Open(Options{Device: dev, Memory: MemoryMin, PageSize: 256 << 10, CommitInterval: -1, Ledgers: 4})
		require.NoError(t, err)
	}
	crash := func() {
		image := dev.CrashImage(iotest.CrashOptions{})
		require.NoError(t, s.Close())
		dev = image
		open()
	}
	count := func(id LedgerID) {
		t.Helper()
		l, err := s.FindLedger(id)
		require.NoError(t, err)
		require.Zero(t, l.Applied())
		n := s.NewSession()
		n.Attach(l)
		n.Do([]Op{{Kind: OpAdd, Key: []byte("k"), Delta: 1, Number: 1}})
		n.Close()
	}
	open()
	for _, committed := range []bool{false, true} { // an empty store, and one with a commit
		if committed {
			_, err := s.Sync(context.Background())
			require.NoError(t, err)
		}
		l, err := s.NewLedger()
		require.NoError(t, err)
		for range 3 {
			count(l.ID())
			crash()
		}
		count(l.ID())
		_, err = s.Sync(context.Background())
		require.NoError(t, err)
		for range 2 {
			crash()
			again, err := s.FindLedger(l.ID())
			require.NoError(t, err)
			require.EqualValues(t, 1, again.Applied())
		}
	}

	l, err := s.NewLedger() // not in any commit when the next crash comes
	require.NoError(t, err)
	crash()
	last := s.ledgers.prior
	require.Less(t, last.since, last.until)
	for _, id := range []LedgerID{
		newLedgerID(last.since-1, last.version, [6]byte{}), // of a run that ended before the commit
		newLedgerID(last.until, last.version-1, [6]byte{}), // was in it, if it ever was
		newLedgerID(last.until+1, last.version, [6]byte{}), // of this run, which did not make it
	} {
		_, err = s.FindLedger(id)
		require.ErrorIs(t, err, ErrLedgerUnknown)
	}
	count(l.ID())
	require.NoError(t, s.Close())
}

// ledgerClock is a clock whose wall time the test sets.
type ledgerClock struct {
	systemClock
	wall atomic.Int64 // tasks read it
}

func (c *ledgerClock) Wall() int64 { return c.wall.Load() }

// TestLedger_OutlivesItsLog: compaction takes away the only commit record that
// holds a ledger, no checkpoint has it either, and a client that comes back after
// a restart is told that it is not known.
func TestLedger_OutlivesItsLog(t *testing.T) {
	mem := newMem()
	s := openOn(t, mem, func(o *Options) { o.CheckpointDistance, o.Random = -1, nil })
	l, err := s.NewLedger()
	require.NoError(t, err)
	n := s.NewSession()
	n.Attach(l)
	n.Do([]Op{{Kind: OpPut, Key: []byte("key"), Value: []byte("value"), Number: 7}})
	n.Close()
	l.Release()
	syncStore(t, s)
	n = s.NewSession()
	for i := range 40 {
		require.NoError(t, n.Put(key64(i), make([]byte, 60<<10)))
	}
	n.Close()
	syncStore(t, s)
	r, err := s.Compact(context.Background(), CompactOptions{})
	require.NoError(t, err)
	require.NotZero(t, r.Freed)
	image := mem.CrashImage(iotest.CrashOptions{})
	require.NoError(t, s.Close())

	for range 2 { // the second time nothing of it is logged in between
		s = openOn(t, image, nil)
		again, err := s.FindLedger(l.ID())
		require.NoError(t, err)
		require.EqualValues(t, 7, again.Applied())
		again.Release()
		require.NoError(t, s.Close())
		image = image.CrashImage(iotest.CrashOptions{})
	}
}
