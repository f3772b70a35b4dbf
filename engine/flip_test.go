package engine

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
	"rskv/ioring/iotest"
)

var crashFlips = flag.Int("crash.flips", 2000, "how many bytes TestCrash_Flips flips; 0: every byte there is")

// flipStore is a small store of two generations, the second one cut off by a
// crash, and what it held at each commit.
type flipStore struct {
	image  *iotest.Mem
	states map[uint64]map[string]string // by version
	last   uint64                       // version of the last commit
	before uint64                       // version of the commit before
	log    [][2]int64                   // the committed log, byte addresses
}

func flipOptions(o *Options) { o.IndexBits = 6 }

func newFlipStore(t testing.TB, rng *rand.Rand) *flipStore {
	f := &flipStore{states: map[uint64]map[string]string{}}
	dev := newMem()
	state := map[string]string{}
	for generation := range 2 {
		s := openOn(t, dev, flipOptions)
		n := s.NewSession()
		for round := range 3 {
			for range 55 {
				key := fmt.Sprintf("key-%d", rng.IntN(80))
				if rng.IntN(5) == 0 {
					_, err := n.Delete([]byte(key))
					require.True(t, err == nil || errors.Is(err, ErrNotFound), err)
					delete(state, key)
					continue
				}
				value := valueOf(rng.Uint64(), 1, rng.IntN(200))
				require.NoError(t, n.Put([]byte(key), value))
				state[key] = string(value)
			}
			f.before = f.last
			if round == 1 {
				f.last = checkpoint(t, s, FullCheckpoint).Version
			} else {
				f.last = syncStore(t, s)
			}
			f.states[f.last] = maps.Clone(state)
		}
		f.log = append(f.log, [2]int64{s.mu.manifest.Spans[generation].Start.Bytes(), s.log.Durable().Bytes()})
		n.Close()
		if generation == 0 {
			require.NoError(t, s.Close()) // its last, empty commit has another version, and the same state
			f.log[0][1] = s.log.Durable().Bytes()
			dev = dev.CrashImage(iotest.CrashOptions{})
			continue
		}
		f.image = dev.CrashImage(iotest.CrashOptions{})
		require.NoError(t, s.Close())
	}
	return f
}

// compare opens a copy of the image: whatever it answers must have been so at the
// commit it recovered. harmless: nothing may be missing either.
func (f *flipStore) compare(t testing.TB, what string, harmless bool) {
	t.Helper()
	s, err := tryOpenOn(f.image.CrashImage(iotest.CrashOptions{}), flipOptions)
	if err != nil {
		require.False(t, harmless, "%s: %v", what, err)
		require.True(t, errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotAStore) || errors.Is(err, ErrFormat), "%s: %v", what, err)
		return
	}
	version := s.Recovery().Version
	state := f.states[version]
	require.NotNil(t, state, "%s: recovered to version %d", what, version)
	if harmless {
		require.GreaterOrEqual(t, version, f.before, what)
	}
	n := s.NewSession()
	for i := range 80 {
		key := fmt.Sprintf("key-%d", i)
		v, err := n.Get([]byte(key), nil)
		want, found := state[key]
		switch {
		case errors.Is(err, ErrCorrupt):
			require.False(t, harmless, "%s: %s: %v", what, key, err)
		case !found:
			require.ErrorIs(t, err, ErrNotFound, "%s: %s", what, key)
		default:
			require.NoError(t, err, "%s: %s", what, key)
			require.True(t, want == string(v), "%s: %s has a wrong value", what, key)
		}
	}
	n.Close()
	_ = s.Close() // it may find the damage only now
}

// flip verifies the store with one byte changed, and opens it if nothing was
// found, or now and then all the same.
func (f *flipStore) flip(t testing.TB, rng *rand.Rand, what string) (detected bool) {
	t.Helper()
	res, err := Verify(VerifyOptions{Device: f.image}, nil)
	detected = err != nil || res.Damages > 0
	if !detected || rng.IntN(16) == 0 {
		f.compare(t, what, !detected)
	}
	return detected
}

// TestCrash_Flips: one changed byte anywhere on the disk, and a value is returned
// that was never there, or a key is missing although nothing complains.
func TestCrash_Flips(t *testing.T) {
	seed := newSeed(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	f := newFlipStore(t, rng)
	f.compare(t, "undamaged", true)
	size := int64(0)
	for _, part := range f.log {
		size += part[1] - part[0]
	}
	require.LessOrEqual(t, size, int64(64<<10))
	names, err := f.image.ListMeta()
	require.NoError(t, err)
	metas := map[string][]byte{}
	for _, name := range names {
		metas[name], err = f.image.ReadMeta(name)
		require.NoError(t, err)
		metas[name] = bytes.Clone(metas[name])
		size += int64(len(metas[name]))
	}
	flips, found, undetected := int64(*crashFlips), 0, 0
	if flips == 0 {
		flips = size
	}
	switch {
	case testing.Short() && raceEnabled:
		flips = min(flips, 60)
	case testing.Short() || raceEnabled:
		flips = min(flips, 300)
	}
	each := func(total int64, fn func(at int64, bit byte)) {
		for i := range max(1, flips*total/size) {
			at := rng.Int64N(total)
			if flips == size {
				at = i
			}
			fn(at, 1<<rng.IntN(8))
		}
	}
	count := func(detected bool) {
		found++
		if !detected {
			undetected++
		}
	}
	for _, part := range f.log {
		each(part[1]-part[0], func(at int64, bit byte) {
			at += part[0]
			change := func(b byte) byte { return b ^ bit }
			f.image.Corrupt(at, change)
			count(f.flip(t, rng, fmt.Sprintf("log 0x%x bit 0x%x", at, bit)))
			f.image.Corrupt(at, change)
		})
	}
	for _, name := range names {
		each(int64(len(metas[name])), func(at int64, bit byte) {
			b := bytes.Clone(metas[name])
			b[at] ^= bit
			require.NoError(t, f.image.WriteMeta(name, b))
			detected := f.flip(t, rng, fmt.Sprintf("%s byte %d bit 0x%x", name, at, bit))
			require.True(t, detected, "%s byte %d bit 0x%x is not noticed", name, at, bit)
			count(detected)
		})
		require.NoError(t, f.image.WriteMeta(name, metas[name]))
	}
	t.Logf("%d flips in %d bytes, %d of them harmless", found, size, undetected)
	// What pads a sector is not checked, and the last group may be torn: that is a third
	// of these bytes or more, as the seed has it.
	require.Less(t, undetected, found*3/4, "most of what was changed goes unnoticed")
	f.compare(t, "healed", true)
}

// TestVerify_TornCommit: the torn record of the last commit, which nobody was
// promised, passes for damage; or what it should have committed is shown.
func TestVerify_TornCommit(t *testing.T) {
	rng := rand.New(rand.NewPCG(newSeed(t), 0))
	f := newFlipStore(t, rng)
	end := f.log[1][1]
	var commits []record.Addr
	w, err := newVerifierOf(t, f.image)
	require.NoError(t, err)
	for _, span := range w.m.Spans {
		require.NoError(t, w.walk.walk(span, 0, span.End, func(r *logRecord) error {
			if r.isCommit() {
				commits = append(commits, r.addr)
			}
			return nil
		}, w.damaged))
	}
	require.NoError(t, w.close())
	last, before := commits[len(commits)-1].Bytes(), commits[len(commits)-2].Bytes()
	tear := func(at int64) { f.image.Corrupt(at+30, func(b byte) byte { return b ^ 0x80 }) }
	tear(last)
	res, list := collect(t, f.image)
	require.Empty(t, list)
	require.True(t, res.Opens)
	require.Equal(t, f.before, res.Version)
	require.Less(t, res.Tail, end)
	require.Positive(t, res.Discarded)
	f.compare(t, "torn", true)
	tear(last)
	tear(before)
	res, list = collect(t, f.image)
	require.Len(t, list, 1)
	require.Equal(t, before, list[0].From)
	require.False(t, res.Opens)
	require.Contains(t, res.Why, record.Addr(before/record.Unit).String())
	f.compare(t, "damaged", false)
}

// newVerifierOf prepares to walk a store on a device.
func newVerifierOf(t testing.TB, dev *iotest.Mem) (*verifier, error) {
	t.Helper()
	v, err := openVerifier(VerifyOptions{Device: dev}, nil)
	if err != nil {
		return nil, err
	}
	return v, v.prepare()
}
