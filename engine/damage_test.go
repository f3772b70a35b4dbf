package engine

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/ioring/iotest"
)

func openMem(dev *iotest.Mem) (*Store, error) {
	return Open(Options{Device: dev, Memory: MemoryMin, PageSize: 256 << 10, CommitInterval: -1})
}

// TestOpen_TornOrDamaged: a flipped bit in a group that a later commit attests
// is taken for a torn tail, and acknowledged data is dropped in silence; or the
// torn tail of the last group keeps the store from opening.
func TestOpen_TornOrDamaged(t *testing.T) {
	dev := iotest.NewMem(iotest.MemOptions{})
	s, err := openMem(dev)
	require.NoError(t, err)
	n := s.NewSession()
	var ends []int64
	for i := range 4 {
		require.NoError(t, n.Put(fmt.Appendf(nil, "key-%d", i), make([]byte, 5000)))
		_, err := s.Sync(context.Background())
		require.NoError(t, err)
		ends = append(ends, s.Stats().LogTail)
	}
	image := func() *iotest.Mem { return dev.CrashImage(iotest.CrashOptions{}) }
	begin := int64(0)
	for group, end := range ends {
		for at := begin; at < end; at += 97 {
			damaged := image()
			damaged.Corrupt(at, func(b byte) byte { return b ^ 4 })
			re, err := openMem(damaged)
			if err == nil {
				// Harmless, in bytes nobody needs, or in the group that no
				// later commit attests.
				keys := int64(len(ends))
				if group == len(ends)-1 {
					require.GreaterOrEqual(t, re.Len(), keys-1, "byte 0x%x", at)
				} else {
					require.Equal(t, keys, re.Len(), "byte 0x%x", at)
				}
				require.NoError(t, re.Close())
				continue
			}
			require.ErrorIs(t, err, ErrCorrupt, "byte 0x%x", at)
			require.Less(t, group, len(ends)-1, "byte 0x%x", at)
			var where *CorruptError
			require.ErrorAs(t, err, &where)
			require.LessOrEqual(t, where.Addr, at)
		}
		begin = end
	}
	n.Close()
	require.NoError(t, s.Close())
}

// TestCommit_Attests: the last group of a store that has fallen silent is never
// attested, so that damage to it passes for a torn tail.
func TestCommit_Attests(t *testing.T) {
	dev, clock := iotest.NewMem(iotest.MemOptions{}), newTestClock()
	s, err := Open(Options{Device: dev, Memory: MemoryMin, PageSize: 256 << 10, CommitInterval: 100e6, Clock: clock})
	require.NoError(t, err)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("key"), make([]byte, 5000)))
	_, err = s.Sync(context.Background())
	require.NoError(t, err)
	tail := s.Stats().LogTail
	clock.mono.Add(100e6) // not before: on a busy machine it would have come already
	require.Eventually(t, func() bool { return s.Stats().LogDurable > tail }, waitLong, 1e6)
	image := dev.CrashImage(iotest.CrashOptions{})
	image.Corrupt(tail-5000, func(b byte) byte { return b ^ 1 })
	_, err = openMem(image)
	require.ErrorIs(t, err, ErrCorrupt)
	quiet := s.Stats().Commits
	require.Never(t, func() bool {
		clock.mono.Add(50e6)
		return s.Stats().Commits > quiet+1
	}, 350e6, 50e6, "an idle store goes on committing")
	n.Close()
	require.NoError(t, s.Close())
}

// waitLong bounds waits for what comes in milliseconds on a free machine.
const waitLong = 120e9
