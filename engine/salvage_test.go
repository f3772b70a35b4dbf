package engine

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

// salvageStore is a store of two generations with values of all sizes, deletes
// and several versions, about 3 MiB of log; the second generation has crashed.
func salvageStore(t testing.TB, rng *rand.Rand) *iotest.Mem {
	return storeNamed(t, rng, "0123456789abcdef")
}

func storeNamed(t testing.TB, rng *rand.Rand, id string) *iotest.Mem {
	dev := newMem()
	for generation := range 2 {
		s := openOn(t, dev, func(o *Options) {
			o.IndexBits = 6
			o.Random = strings.NewReader(id + "HASHSEED")
		})
		n := s.NewSession()
		for i := range 3000 {
			key := fmt.Appendf(nil, "key-%d", rng.IntN(1500))
			switch rng.IntN(20) {
			case 0:
				_, _ = n.Delete(key) // it may not be there
			case 1:
				if rng.IntN(8) == 0 {
					require.NoError(t, n.Put(key, valueOf(rng.Uint64(), 3, inlineMax+rng.IntN(2*chunkBytes))))
				}
			default:
				require.NoError(t, n.Put(key, valueOf(rng.Uint64(), 2, rng.IntN(600))))
			}
			if i%700 == 699 {
				syncStore(t, s)
			}
		}
		if generation == 0 {
			checkpoint(t, s, FullCheckpoint)
		}
		n.Close()
		if generation == 0 {
			require.NoError(t, s.Close())
			dev = dev.CrashImage(iotest.CrashOptions{})
			continue
		}
		syncStore(t, s)
		image := dev.CrashImage(iotest.CrashOptions{})
		require.NoError(t, s.Close())
		return image
	}
	return nil
}

// content is what a store holds according to the records of a walk, up to a
// tail, that are outside of the damage; and the keys whose newest value has lost
// a chunk. What is behind the tail was torn with the last commit.
func content(t testing.TB, dev *iotest.Mem, damage []Damage, tail int64) (state map[string][]byte, lost map[string]int64, inside []record.Addr) {
	t.Helper()
	v, err := newVerifierOf(t, dev)
	require.NoError(t, err)
	state, lost = map[string][]byte{}, map[string]int64{}
	hit := func(from, n int64) bool {
		for _, d := range damage {
			if d.From >= 0 && from < d.Until && from+n > d.From {
				return true
			}
		}
		return false
	}
	visit := func(r *logRecord) error {
		if hit(r.addr.Bytes(), int64(len(r.image))) {
			inside = append(inside, r.addr)
			return nil
		}
		if !r.isUser() {
			return nil
		}
		key := string(r.key())
		switch record.KindOf(r.w1) {
		case record.Tombstone:
			delete(state, key)
		case record.Big:
			total, chunks, err := chunkList(r.value())
			require.NoError(t, err)
			var value []byte
			for i, a := range chunks {
				n := min(chunkBytes, total-i*chunkBytes)
				if hit(a.Bytes(), int64(record.SystemSize(n))) {
					lost[key] = r.addr.Bytes()
					return nil
				}
				part, err := v.walk.chunk(a, n, r.key())
				require.NoError(t, err)
				value = append(value, part...)
			}
			state[key] = value
		default:
			state[key] = bytes.Clone(r.value())
		}
		delete(lost, key)
		return nil
	}
	for _, span := range v.m.Spans {
		require.NoError(t, v.walk.walk(span, 0, min(span.End, record.Addr(tail/record.Unit)), visit, v.damaged))
	}
	require.Zero(t, v.res.Damages, "the image must be whole")
	require.NoError(t, v.close())
	return state, lost, inside
}

func requireContent(t testing.TB, dev ioring.Device, state map[string][]byte) {
	t.Helper()
	s := openOn(t, dev, nil)
	n := s.NewSession()
	for i := range 1500 {
		key := fmt.Sprintf("key-%d", i)
		v, err := n.Get([]byte(key), nil)
		want, found := state[key]
		if !found {
			require.ErrorIs(t, err, ErrNotFound, key)
			continue
		}
		require.NoError(t, err, key)
		require.True(t, bytes.Equal(want, v), "%s has a wrong value", key)
	}
	require.EqualValues(t, len(state), s.Len())
	n.Close()
	require.NoError(t, s.Close())
}

// TestSalvage: a key whose newest record is whole is lost with those beside it, an
// old version or a torn value passes for a new one, or what was lost is not told.
func TestSalvage(t *testing.T) {
	seed := newSeed(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	whole := salvageStore(t, rng)
	res, _ := collect(t, whole)
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	for round := range rounds {
		broken := whole.CrashImage(iotest.CrashOptions{})
		var spots [][2]int64
		for range round {
			at := rng.Int64N(res.Tail - 70_000)
			n := int64(1 + rng.IntN(300))
			switch rng.IntN(6) {
			case 0:
				at, n = at&^4095, 4096 // a sector
			case 1:
				at, n = at&^(256<<10-1), 64 // the header of a page
			case 2:
				n = 1 + rng.Int64N(60_000)
			}
			spots = append(spots, [2]int64{at, at + n})
			mode := rng.IntN(3)
			for i := range n {
				broken.Corrupt(at+i, func(b byte) byte {
					switch mode {
					case 0:
						return 0
					case 1:
						return byte(rng.Uint32())
					}
					return b ^ 4
				})
			}
		}
		found, list := collect(t, broken)
		require.Equal(t, found.Damages == 0, len(list) == 0)
		want, lost, inside := content(t, whole, list, found.Tail)
		for _, a := range inside {
			near := false
			for _, s := range spots {
				near = near || a.Bytes() < s[1] && a.Bytes()+1<<20 > s[0]
			}
			require.True(t, near, "round %d: the sound record at %v is called damaged", round, a)
		}
		for _, d := range list {
			touched := false
			for _, s := range spots {
				touched = touched || d.From < s[1] && d.Until > s[0]
			}
			require.True(t, touched, "round %d: %v, where nothing was changed", round, d)
		}
		dev := newMem()
		var told []Damage
		out, err := Salvage(VerifyOptions{Device: broken}, Options{Device: keepOpen{dev}, Memory: MemoryMin}, func(d Damage) { told = append(told, d) })
		require.NoError(t, err)
		require.Equal(t, list, told)
		require.Equal(t, found.Bytes, out.Found.Bytes)
		require.Len(t, out.Lost, len(lost))
		for _, l := range out.Lost {
			require.Equal(t, lost[string(l.Key)], l.Addr, "%s", l.Key)
		}
		requireContent(t, dev, want)
		require.EqualValues(t, len(want), out.Keys)
		t.Logf("round %d: %d spots, %d stretches, %d bytes, %d lost values, %d keys", round, len(spots), len(list), found.DamagedBytes, len(lost), len(want))
	}
}

// TestSalvage_Tight: sound records beside a damaged one are given up with it.
func TestSalvage_Tight(t *testing.T) {
	rng := rand.New(rand.NewPCG(newSeed(t), 0))
	whole := salvageStore(t, rng)
	v, err := newVerifierOf(t, whole)
	require.NoError(t, err)
	var records [][2]int64
	var group, last int64 // where the last commit group begins, where its commit stands
	for _, span := range v.m.Spans {
		require.NoError(t, v.walk.walk(span, 0, span.End, func(r *logRecord) error {
			if r.isCommit() {
				group, last = last, r.addr.Bytes()
			}
			if !record.IsFiller(r.w0, r.w1) {
				records = append(records, [2]int64{r.addr.Bytes(), r.until().Bytes()})
			}
			return nil
		}, v.damaged))
	}
	require.NoError(t, v.close())
	tries := 200
	if testing.Short() || raceEnabled {
		tries = 30
	}
	for range tries {
		r := records[rng.IntN(len(records))]
		if r[1]-r[0] > 2000 {
			continue
		}
		broken := whole.CrashImage(iotest.CrashOptions{})
		at := r[0] + rng.Int64N(16) // in the header: its length may change
		broken.Corrupt(at, func(b byte) byte { return b ^ 1<<rng.IntN(8) })
		_, list := collect(t, broken)
		if len(list) == 0 {
			require.Greater(t, r[0], group, "0x%x", at) // a torn tail
			continue
		}
		require.Len(t, list, 1)
		require.Equal(t, r, [2]int64{list[0].From, list[0].Until}, "0x%x", at)
	}
}

// TestSalvage_Refused: a salvage overwrites something, or invents what it cannot
// know without the manifest.
func TestSalvage_Refused(t *testing.T) {
	dev := salvageStore(t, rand.New(rand.NewPCG(1, 1)))
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600))
	_, err := Salvage(VerifyOptions{Device: dev}, Options{Dir: dir}, nil)
	require.ErrorIs(t, err, ErrNotEmpty)
	require.ErrorContains(t, err, "precious")
	require.NoError(t, dev.RemoveMeta("MANIFEST"))
	target := filepath.Join(dir, "new")
	res, err := Salvage(VerifyOptions{Device: dev}, Options{Dir: target, Memory: MemoryMin, IO: ioring.PReadWrite}, nil)
	require.NoError(t, err, "the copy is there")
	require.Positive(t, res.Keys)
	require.NoError(t, dev.WriteMeta(manifestCopy, []byte("rskvMANI, but damaged")))
	_, err = Salvage(VerifyOptions{Device: dev}, Options{Dir: filepath.Join(dir, "other")}, nil)
	require.ErrorIs(t, err, ErrCorrupt)
	require.NoError(t, dev.RemoveMeta(manifestCopy))
	_, err = Salvage(VerifyOptions{Device: dev}, Options{Dir: filepath.Join(dir, "other")}, nil)
	require.ErrorIs(t, err, ErrNotAStore)
	require.NoDirExists(t, filepath.Join(dir, "other"))
}

// TestVerify_Segments: segments that are missing, swapped, stale, of another store
// or cut short pass for what was written; or looking at them changes them.
func TestVerify_Segments(t *testing.T) {
	const segment = 1 << 20
	whole := salvageStore(t, rand.New(rand.NewPCG(newSeed(t), 0)))
	other := storeNamed(t, rand.New(rand.NewPCG(5, 5)), "fedcba9876543210")
	res, _ := collect(t, whole)
	want, _, _ := content(t, whole, nil, res.Tail)
	require.Greater(t, res.Tail, int64(2*segment))
	read := func(dev *iotest.Mem, n int64) []byte {
		b := iotest.Aligned(segment)
		_, err := iotest.Do(t, dev, ioring.Read, n*segment, b)
		require.NoError(t, err)
		return b
	}
	foreign := read(other, 1)
	write := func(dev *iotest.Mem, n int64, b []byte) {
		_, err := iotest.Do(t, dev, ioring.Write, n*segment, b)
		require.NoError(t, err)
		_, err = iotest.Do(t, dev, ioring.Sync, 0, nil)
		require.NoError(t, err)
	}
	for name, change := range map[string]func(dev *iotest.Mem){
		"swapped": func(dev *iotest.Mem) {
			a, b := read(dev, 0), read(dev, 1)
			write(dev, 0, b)
			write(dev, 1, a)
		},
		"stale": func(dev *iotest.Mem) {
			b := read(dev, 1)
			clear(b[segment/2:])
			write(dev, 1, b)
		},
		"of another store": func(dev *iotest.Mem) { write(dev, 1, foreign) },
		"missing":          func(dev *iotest.Mem) { require.NoError(t, dev.Discard(segment)) },
	} {
		broken := whole.CrashImage(iotest.CrashOptions{})
		change(broken)
		res, list := collect(t, broken)
		require.NotEmpty(t, list, name)
		for _, d := range list {
			require.Contains(t, []string{segmentFile(segment, 0), segmentFile(segment, segment)}, d.File, name)
		}
		require.GreaterOrEqual(t, res.DamagedBytes, int64(segment/2-100_000), name)
		s, err := tryOpenOn(broken.CrashImage(iotest.CrashOptions{}), flipOptions)
		require.Equal(t, res.Opens, err == nil, "%s: %v, %v", name, res.Why, err)
		if err == nil { // the snapshot spares recovery from reading that
			n := s.NewSession()
			for key, value := range want {
				v, err := n.Get([]byte(key), nil)
				if err == nil {
					require.True(t, bytes.Equal(value, v), "%s: %s has a wrong value", name, key)
				}
			}
			n.Close()
			_ = s.Close()
		} else {
			require.ErrorIs(t, err, ErrCorrupt, name)
		}
		want, _, _ := content(t, whole, list, res.Tail)
		dev := newMem()
		out, err := Salvage(VerifyOptions{Device: broken}, Options{Device: keepOpen{dev}, Memory: MemoryMin}, nil)
		require.NoError(t, err)
		require.EqualValues(t, len(want), out.Keys, name)
		requireContent(t, dev, want)
	}
}

// TestVerify_Directory: a segment file that was cut short is made whole before
// anybody has seen it, or a missing snapshot goes unnoticed.
func TestVerify_Directory(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, flipOptions)
	n := s.NewSession()
	fillKeys(t, n, 3000, 1)
	checkpoint(t, s, FullCheckpoint)
	fillKeys(t, n, 10, 2)
	second := checkpoint(t, s, FullCheckpoint)
	require.NoError(t, n.Put([]byte("large"), valueOf(1, 1, 1<<20)))
	n.Close()
	require.NoError(t, s.Close())

	snapshot := filepath.Join(dir, snapshotName(second.snapshot)+".meta")
	away := filepath.Join(t.TempDir(), "snapshot")
	require.NoError(t, os.Rename(snapshot, away))
	var list []Damage
	verify := func() VerifyResult {
		t.Helper()
		list = nil
		before := listing(t, dir)
		res, err := Verify(VerifyOptions{Dir: dir}, func(d Damage) { list = append(list, d) })
		require.NoError(t, err)
		require.Equal(t, before, listing(t, dir), "verify has changed something")
		return res
	}
	res := verify()
	require.Len(t, list, 1)
	require.Equal(t, snapshotName(second.snapshot), list[0].File)
	require.ErrorIs(t, list[0].Err, ioring.ErrNoMeta)
	require.True(t, res.Opens, res.Why)
	require.Equal(t, 1, res.Checkpoints)
	require.NoError(t, os.Rename(away, snapshot))
	require.True(t, verify().Opens)
	require.Empty(t, list)

	file := filepath.Join(dir, segmentFile(4<<20, 0))
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	damaged := bytes.Clone(b)
	clear(damaged[400_000:400_100])
	require.NoError(t, os.WriteFile(file, damaged, 0o600))
	res = verify()
	require.Len(t, list, 1)
	require.False(t, res.Opens)
	require.EqualValues(t, 1, res.LostValues)
	require.EqualValues(t, 1, res.LostChunks)
	out, err := Salvage(VerifyOptions{Dir: dir}, Options{Dir: filepath.Join(t.TempDir(), "new"), Memory: MemoryMin, IO: ioring.PReadWrite}, nil)
	require.NoError(t, err)
	require.EqualValues(t, 3000, out.Keys)
	require.Len(t, out.Lost, 1)
	require.Equal(t, "large", string(out.Lost[0].Key))

	require.NoError(t, os.WriteFile(file, b[:600_000], 0o600))
	res = verify()
	require.NotEmpty(t, list)
	require.False(t, res.Opens)
	require.InDelta(t, 600_000, list[0].From, 70_000)
	out, err = Salvage(VerifyOptions{Dir: dir}, Options{Dir: filepath.Join(t.TempDir(), "new"), Memory: MemoryMin, IO: ioring.PReadWrite}, nil)
	require.NoError(t, err)
	require.EqualValues(t, 3000, out.Keys)
	require.Len(t, out.Lost, 0, "the record of the large value is lost with its chunks")
}
