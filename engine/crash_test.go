package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/hlog"
	"rskv/engine/internal/record"
	"rskv/ioring/iotest"
)

var crashCuts = flag.Int("crash.cuts", 200, "how many power cuts TestCrash_Cuts makes")

// cutModel is the workload's state after each of its numbered writes.
type cutModel struct {
	after []map[string]string // after[n]: state when write n is done
}

// cutRun drives one store with numbered writes until the power fails.
type cutRun struct {
	rng     *rand.Rand
	store   *Store
	session *Session
	ledger  *Ledger
	model   *cutModel
	synced  uint64 // number up to which a sync has answered
}

// write does the next numbered write, on the model first.
func (r *cutRun) write(number uint64) {
	state := maps.Clone(r.model.after[len(r.model.after)-1])
	key := fmt.Sprintf("key-%d", r.rng.IntN(40))
	op := Op{Key: []byte(key), Number: number}
	value := make([]byte, r.size())
	rand.NewChaCha8([32]byte{byte(number), byte(number >> 8), 3}).Read(value)
	switch r.rng.IntN(8) {
	case 0:
		op.Kind = OpDelete
		delete(state, key)
	case 1:
		op.Kind, op.Blind = OpDelete, true
		delete(state, key)
	case 2:
		op.Kind, op.Key, op.Delta = OpAdd, []byte("counter"), int64(number)
		var b [8]byte
		copy(b[:], state["counter"])
		state["counter"] = string(binary.LittleEndian.AppendUint64(nil, binary.LittleEndian.Uint64(b[:])+number))
	case 3:
		op.Kind, op.Value = OpAppend, value[:min(len(value), 100)]
		state[key] += string(op.Value)
	case 4:
		op.Kind, op.Value, op.If = OpPut, value, IfAbsent
		if _, ok := state[key]; !ok {
			state[key] = string(value)
		}
	default:
		op.Kind, op.Value = OpPut, value
		state[key] = string(value)
	}
	r.model.after = append(r.model.after, state)
	ops := []Op{op}
	r.session.Do(ops)
}

// size draws the length of a value: mostly small, some longer than a page's
// inline limit.
func (r *cutRun) size() int {
	switch r.rng.IntN(20) {
	case 0:
		return inlineMax + r.rng.IntN(3*chunkBytes)
	case 1, 2, 3:
		return r.rng.IntN(20_000)
	}
	return r.rng.IntN(200)
}

// work writes, syncs and takes checkpoints, until writes or syncs fail.
func (r *cutRun) work(writes int) {
	ctx := context.Background()
	for i := range writes {
		number := r.ledger.Applied() + 1
		r.write(number)
		if r.ledger.Applied() < number {
			return
		}
		var err error
		switch {
		case i%17 == 5 || i%13 == 9:
			kind := []CheckpointKind{FullCheckpoint, SnapshotCheckpoint, SnapshotCheckpoint}[r.rng.IntN(3)]
			_, err = r.store.Checkpoint(ctx, CheckpointOptions{Kind: kind})
		case i%11 == 7:
			// All of it, or up to anywhere; it commits, whatever it has to do.
			until := r.rng.Int64N(r.store.log.Tail().Bytes()) * r.rng.Int64N(2)
			_, err = r.store.Compact(ctx, CompactOptions{Until: until})
			if err == nil {
				_, err = r.store.Sync(ctx)
			}
		case r.rng.IntN(4) == 0:
			_, err = r.store.Sync(ctx)
		default:
			continue
		}
		if err != nil {
			return
		}
		r.synced = number
	}
}

// requireCutState compares the whole store with a state of the model.
func requireCutState(t *testing.T, s *Store, state map[string]string, at string) {
	t.Helper()
	n := s.NewSession()
	defer n.Close()
	keys := []string{"counter"}
	for i := range 40 {
		keys = append(keys, fmt.Sprintf("key-%d", i))
	}
	for _, key := range keys {
		want, there := state[key]
		got, err := n.Get([]byte(key), nil)
		if !there {
			require.ErrorIs(t, err, ErrNotFound, "%s: key %q", at, key)
			continue
		}
		require.NoError(t, err, "%s: key %q", at, key)
		require.True(t, bytes.Equal([]byte(want), got), "%s: key %q has %d bytes, want %d", at, key, len(got), len(want))
	}
	require.NoError(t, s.index.Check(), at)
}

// crash opens the store on dev, checks that it is exactly what the ledger says,
// works until the power fails after some device events, and returns the disk.
func (m *cutModel) crash(t *testing.T, dev *iotest.Mem, rng *rand.Rand, id *LedgerID, synced uint64, at string) (*iotest.Mem, uint64) {
	opt := Options{Device: dev, Memory: MemoryMin, PageSize: 256 << 10, CommitInterval: -1, IndexBits: 8, CheckpointsKept: 2}
	if rng.IntN(4) == 0 {
		dev.FailAfter(rng.IntN(2)) // the power fails while the store is being opened
	}
	s, err := Open(opt)
	for err != nil {
		require.ErrorIs(t, err, iotest.ErrPowerCut, at)
		dev = dev.CrashImage(iotest.CrashOptions{Seed: rng.Uint64(), Keep: rng.Float64(), Tear: rng.Float64()})
		opt.Device = dev
		s, err = Open(opt)
	}
	dev.FailAfter(-1)
	var l *Ledger
	if *id == (LedgerID{}) {
		l, err = s.NewLedger()
		require.NoError(t, err)
		*id = l.ID()
		_, err = s.Sync(context.Background())
	} else {
		l, err = s.FindLedger(*id)
	}
	require.NoError(t, err, at)
	number := l.Applied()
	require.GreaterOrEqual(t, number, synced, "%s: lost what was synced", at)
	require.Less(t, number, uint64(len(m.after)), at)
	requireCutState(t, s, m.after[number], fmt.Sprintf("%s, after write %d", at, number))
	m.after = m.after[:number+1]

	if rng.IntN(2) == 0 {
		// What earlier runs have left stays on disk: passes have to look it up there.
		require.NoError(t, s.StopTask(TaskWarm), at)
	}
	r := &cutRun{rng: rng, store: s, session: s.NewSession(), ledger: l, model: m, synced: synced}
	r.session.Attach(l)
	dev.FailAfter(rng.IntN(60))
	r.work(60)
	image := dev.CrashImage(iotest.CrashOptions{Seed: rng.Uint64(), Keep: rng.Float64(), Tear: rng.Float64(), Reorder: rng.IntN(2) == 0})
	r.session.Close()
	_ = s.Close() // the power is gone: it fails, and must not hang
	return image, r.synced
}

// TestCrash_Cuts: after a power cut something acknowledged is gone, something
// that was taken back is there again, or the session's number does not fit. The
// disk goes from crash to crash, so that what one run leaves behind its last
// commit lies in the way of the next.
func TestCrash_Cuts(t *testing.T) {
	seed := newSeed(t)
	cuts := *crashCuts
	if testing.Short() {
		cuts = min(cuts, 40)
	}
	const life = 20 // crashes one disk lives through
	for first := 0; first < cuts; first += life {
		rng := rand.New(rand.NewPCG(seed, uint64(first)))
		dev := iotest.NewMem(iotest.MemOptions{BufferBytes: 1 << 20, SegmentSize: 256 << 10})
		m := &cutModel{after: []map[string]string{{}}}
		var id LedgerID
		var synced uint64
		for cut := range min(life, cuts-first) {
			dev, synced = m.crash(t, dev, rng, &id, synced, fmt.Sprintf("seed %d, disk %d, cut %d", seed, first, cut))
		}
	}
}

// TestCrash_TornPadding: a write is torn right behind the commit record, so that
// the group is whole and only its padding is not, and the store does not open.
func TestCrash_TornPadding(t *testing.T) {
	for size := range 64 { // some of them end the commit record where a sector of 512 bytes ends
		dev := newMem()
		s := openOn(t, dev, nil)
		n := s.NewSession()
		require.NoError(t, n.Put([]byte("key"), make([]byte, size*16)))
		syncStore(t, s)
		rec := s.log.Durable()
		end := (s.log.Durable() - 1) &^ (hlog.SectorSize/record.Unit - 1)
		image := dev.CrashImage(iotest.CrashOptions{})
		n.Close()
		require.NoError(t, s.Close())
		// The padding begins where the commit record ends: look for it.
		at := end + hlog.FirstOffset/record.Unit
		for ; at < rec; at++ {
			b := make([]byte, record.HeaderSize)
			for i := range b {
				image.Corrupt(at.Bytes()+int64(i), func(x byte) byte { b[i] = x; return x })
			}
			w0, w1 := record.Words(b)
			if isCommit(w0, w1) {
				at += record.Addr(record.Size(w0, w1) / record.Unit)
				break
			}
		}
		for off := at.Bytes(); off < rec.Bytes(); off++ {
			image.Corrupt(off, func(byte) byte { return 0 })
		}
		for range 2 { // the second time it lies in a closed span
			s = openOn(t, image, nil)
			n = s.NewSession()
			value, err := n.Get([]byte("key"), nil)
			require.NoError(t, err)
			require.Len(t, value, size*16)
			n.Close()
			count, err := s.LenExact(context.Background())
			require.NoError(t, err, "a scan")
			require.EqualValues(t, 1, count.Keys)
			require.NoError(t, s.Close())
			image = image.CrashImage(iotest.CrashOptions{})
		}
	}
}
