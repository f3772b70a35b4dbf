package engine

import (
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
	"rskv/ioring/iotest"
)

// TestReplay_AnyOrder: pages that arrive in another order than the log's, or are
// applied by several workers at a time, leave a key at an older record.
func TestReplay_AnyOrder(t *testing.T) {
	seed := newSeed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	dev := newMem()
	s := openOn(t, dev, nil)
	n := s.NewSession()
	const keys, bytes = 300, 900
	versions := make([]uint64, keys)
	for number := uint64(1); s.log.Tail().Bytes() < 24*pageSizeMin; number++ {
		i := rng.IntN(keys)
		versions[i] = number
		if number%7 == 0 {
			versions[i] = 0
			_, err := n.Delete(key64(i))
			require.NoError(t, err)
		} else {
			require.NoError(t, n.Put(key64(i), valueOf(uint64(i), number, bytes+int(number%64)*8)))
		}
		if number%500 == 0 {
			syncStore(t, s) // makes everything immutable: the next write of a key is a new record
		}
	}
	version := syncStore(t, s)
	image := dev.CrashImage(iotest.CrashOptions{})
	n.Close()
	require.NoError(t, s.Close())

	for _, procs := range []int{1, 2, 8} {
		old := runtime.GOMAXPROCS(procs)
		fault := iotest.NewFault(image.CrashImage(iotest.CrashOptions{}), seed)
		fault.Reorder(8)
		var told []Progress
		s := openOn(t, fault, func(o *Options) { o.Progress = func(p Progress) { told = append(told, p) } })
		require.Equal(t, version, s.Recovery().Version)
		n := s.NewSession()
		for i, want := range versions {
			value, err := n.Get(key64(i), nil)
			if want == 0 {
				require.ErrorIs(t, err, ErrNotFound)
				continue
			}
			require.NoError(t, err)
			require.NoError(t, valueIs(value, uint64(i), want, bytes+int(want%64)*8))
		}
		n.Close()
		checkStore(t, s)
		require.NoError(t, s.Close())
		runtime.GOMAXPROCS(old)

		last := Progress{}
		for _, p := range told {
			require.LessOrEqual(t, p.Done, p.Total)
			require.True(t, p.Stage != last.Stage || p.Done >= last.Done, "%+v after %+v", p, last)
			last = p
		}
		require.Equal(t, StageReplay, last.Stage)
		require.Equal(t, last.Total, last.Done, "the last report is of the end")
	}
}

// TestReplay_ReadFails: a page that cannot be read is taken for the end of the
// log, and what lies behind it is lost.
func TestReplay_ReadFails(t *testing.T) {
	dev := newMem()
	s := openOn(t, dev, nil)
	n := s.NewSession()
	for i := 0; s.log.Tail().Bytes() < 6*pageSizeMin; i++ {
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 1, 2000)))
	}
	syncStore(t, s)
	image := dev.CrashImage(iotest.CrashOptions{})
	n.Close()
	require.NoError(t, s.Close())

	for page := range int64(6) {
		fault := iotest.NewFault(image.CrashImage(iotest.CrashOptions{}), 1)
		fault.Inject(iotest.Rule{Kind: ioring.Read, Match: iotest.Covering(page * pageSizeMin), Err: syscall.EIO})
		_, err := tryOpenOn(fault, nil)
		require.ErrorIs(t, err, ErrIO, "page %d", page)
		require.ErrorIs(t, err, syscall.EIO)
	}
}
