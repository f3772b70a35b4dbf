package engine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
	"rskv/ioring/iotest"
)

// frozen returns a store whose keys 0 to n-1 are in memory and read-only.
func frozen(t *testing.T, keys int) (*Store, *Session) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	for i := range keys {
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 0, 8)))
	}
	syncStore(t, s)
	return s, n
}

// puts are blind puts of version over keys 0 to n-1.
func puts(keys int, version uint64) []Op {
	ops := make([]Op, keys)
	for i := range ops {
		ops[i] = Op{Kind: OpPut, Key: key64(i), Value: valueOf(uint64(i), version, 8)}
	}
	return ops
}

// TestAllotment: a group whose records are all copied takes room from the log one
// by one, or takes more than it uses.
func TestAllotment(t *testing.T) {
	const keys = pipeBlock
	s, n := frozen(t, keys)
	tail, size := s.log.Tail(), record.Addr(record.SizeFor(8, 8)/record.Unit)
	n.Do(puts(keys, 1))
	require.Equal(t, tail+keys*size, s.log.Tail(), "nothing is wasted where the guess is right")
	n.Do(puts(keys, 2))
	require.Equal(t, tail+keys*size, s.log.Tail(), "in place")

	// The second put of each key goes in place: half of the guess is wrong.
	syncStore(t, s)
	tail = s.log.Tail()
	ops := append(puts(keys/2, 3), puts(keys/2, 4)...)
	n.Do(ops)
	require.Equal(t, tail+keys*size, s.log.Tail())
	require.Zero(t, n.allotted.left)
	for i := range keys / 2 {
		value, err := n.Get(key64(i), nil)
		require.NoError(t, err)
		require.NoError(t, valueIs(value, uint64(i), 4, 8))
	}
	syncStore(t, s) // seals, and so walks over the filler
	n.Close()
	checkLen(t, s, keys)
	require.NoError(t, s.Close())
}

// TestAllotment_BelowNewer: a record goes into room that was taken before a newer
// record of its chain was written, so that a recovery brings the other one back.
func TestAllotment_BelowNewer(t *testing.T) {
	dev := newMem()
	s := openOn(t, dev, nil)
	n, other := s.NewSession(), s.NewSession()
	ops := puts(2, 1)
	for i := range ops {
		require.NoError(t, n.Put(ops[i].Key, valueOf(uint64(i), 0, 8)))
	}
	syncStore(t, s)

	n.pipe = pipe{}
	require.NoError(t, n.enter(true))
	n.runAhead(ops, 0)
	n.allot(ops, 0, len(ops))
	require.Positive(t, n.allotted.left)
	// Of another size, so that what follows cannot go in its place.
	require.NoError(t, other.Put(ops[1].Key, valueOf(1, 7, 40)), "above what is allotted")
	var at place
	for i := range ops {
		require.Equal(t, finished, n.act(ops, i, &at))
		require.NoError(t, ops[i].Err)
	}
	n.exit()
	syncStore(t, s)
	n.Close()
	other.Close()
	image := dev.CrashImage(iotest.CrashOptions{})
	require.NoError(t, s.Close())
	s = openOn(t, image, nil)
	n = s.NewSession()
	for i := range ops {
		value, err := n.Get(ops[i].Key, nil)
		require.NoError(t, err)
		require.NoError(t, valueIs(value, uint64(i), 1, 8))
	}
	n.Close()
	require.NoError(t, s.Close())
}

// TestAllotment_LikeOneByOne: a record copied on the short way says something else
// than one that is copied alone, or is counted otherwise.
func TestAllotment_LikeOneByOne(t *testing.T) {
	const keys = 4 * pipeBlock
	var lens, bytes []int64
	for _, batched := range []bool{false, true} {
		dev, clock := newMem(), newTestClock()
		with := func(o *Options) { o.Clock = clock }
		s := openOn(t, dev, with)
		n := s.NewSession()
		for i := range keys {
			key := key64(i)
			switch i % 8 {
			case 1: // never there
			case 2:
				require.NoError(t, n.Put(key, valueOf(uint64(i), 0, 9)), "of the same size, not of the same length")
			case 3:
				require.NoError(t, n.Put(key, valueOf(uint64(i), 0, 100)))
			case 4:
				require.NoError(t, n.Put(key, valueOf(uint64(i), 0, 8)))
				found, err := n.Expire(key, 1000)
				require.NoError(t, err)
				require.True(t, found)
			case 5:
				require.NoError(t, n.Put(key, valueOf(uint64(i), 0, 8)))
				_, err := n.Delete(key)
				require.NoError(t, err)
			default:
				require.NoError(t, n.Put(key, valueOf(uint64(i), 0, 8)))
			}
		}
		syncStore(t, s)
		ops := append(puts(keys, 1), puts(keys/2, 2)...)
		if batched {
			n.Do(ops)
		} else {
			for i := range ops {
				n.Do(ops[i : i+1])
			}
		}
		for i := range ops {
			require.NoError(t, ops[i].Err)
			require.True(t, ops[i].Found, "op %d", i)
		}
		lens, bytes = append(lens, s.Len()), append(bytes, s.liveBytes.Load())
		syncStore(t, s)
		n.Close()
		image := dev.CrashImage(iotest.CrashOptions{})
		require.NoError(t, s.Close())
		clock.wall.Add(2000) // what had an expiry has none any more
		s = openOn(t, image, with)
		n = s.NewSession()
		for i := range keys {
			version := uint64(1)
			if i < keys/2 {
				version = 2
			}
			value, err := n.Get(key64(i), nil)
			require.NoError(t, err, "key %d", i)
			require.NoError(t, valueIs(value, uint64(i), version, 8))
		}
		n.Close()
		checkLen(t, s, keys)
		require.NoError(t, s.Close())
	}
	require.Equal(t, lens[0], lens[1])
	require.Equal(t, bytes[0], bytes[1])
}
