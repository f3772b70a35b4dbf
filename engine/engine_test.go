package engine

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
)

func openTest(t testing.TB, dir string, change func(*Options)) *Store {
	t.Helper()
	opt := Options{Dir: dir, Memory: MemoryMin, PageSize: 256 << 10, SegmentSize: 4 << 20, IO: ioring.PReadWrite}
	if change != nil {
		change(&opt)
	}
	s, err := Open(opt)
	require.NoError(t, err)
	return s
}

// TestStore_Basics: every operation gives the documented answer on a hot key.
func TestStore_Basics(t *testing.T) {
	s := openTest(t, t.TempDir(), nil)
	defer func() { require.NoError(t, s.Close()) }()
	n := s.NewSession()
	defer n.Close()
	key := []byte("key")
	_, err := n.Get(key, nil)
	require.ErrorIs(t, err, ErrNotFound)
	require.NoError(t, n.Put(key, []byte("one")))
	v, err := n.Get(key, nil)
	require.NoError(t, err)
	require.Equal(t, "one", string(v))
	require.NoError(t, n.Put(key, []byte("two")))
	require.NoError(t, n.Put(key, bytes.Repeat([]byte("long"), 100)))
	v, err = n.Get(key, nil)
	require.NoError(t, err)
	require.Len(t, v, 400)
	ok, err := n.PutIf(key, []byte("x"), IfAbsent)
	require.NoError(t, err)
	require.False(t, ok)
	ok, err = n.PutIf(key, []byte("x"), IfPresent)
	require.NoError(t, err)
	require.True(t, ok)
	ok, err = n.CompareAndSwap(key, []byte("y"), []byte("z"))
	require.NoError(t, err)
	require.False(t, ok)
	ok, err = n.CompareAndSwap(key, []byte("x"), []byte("zz"))
	require.NoError(t, err)
	require.True(t, ok)
	l, err := n.Append(key, []byte("+more"))
	require.NoError(t, err)
	require.EqualValues(t, 7, l)
	require.EqualValues(t, 1, s.Len())
	ok, err = n.Delete(key)
	require.NoError(t, err)
	require.True(t, ok)
	ok, err = n.Delete(key)
	require.NoError(t, err)
	require.False(t, ok)
	require.EqualValues(t, 0, s.Len())
	sum, err := n.Add([]byte("c"), 5)
	require.NoError(t, err)
	require.EqualValues(t, 5, sum)
	sum, err = n.Add([]byte("c"), -7)
	require.NoError(t, err)
	require.EqualValues(t, -2, sum)
	require.NoError(t, n.Update([]byte("c"), func(old []byte, found bool) ([]byte, Verdict) {
		return append(old, 'x'), Replace
	}))
	_, err = n.Add([]byte("c"), 1)
	require.ErrorIs(t, err, ErrNotInteger)
}

// TestStore_BeyondMemory: cold values come back wrong, or not at all.
func TestStore_BeyondMemory(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, nil)
	n := s.NewSession()
	const keys = 60000
	value := func(i int, round byte) []byte {
		v := make([]byte, 20+i%3000)
		rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(i >> 16), round}).Read(v)
		return v
	}
	ops := make([]Op, 0, 100)
	for i := 0; i < keys; {
		ops = ops[:0]
		for len(ops) < 100 && i < keys {
			ops = append(ops, Op{Kind: OpPut, Key: binary.LittleEndian.AppendUint64(nil, uint64(i)), Value: value(i, 0)})
			i++
		}
		n.Do(ops)
		for j := range ops {
			require.NoError(t, ops[j].Err)
		}
	}
	check := func() {
		for i := 0; i < keys; {
			ops = ops[:0]
			first := i
			for len(ops) < 100 && i < keys {
				ops = append(ops, Op{Kind: OpGet, Key: binary.LittleEndian.AppendUint64(nil, uint64(i))})
				i++
			}
			n.Do(ops)
			for j := range ops {
				require.NoError(t, ops[j].Err)
				require.True(t, ops[j].Found, "key %d", first+j)
				require.True(t, bytes.Equal(value(first+j, 0), ops[j].Value), "key %d", first+j)
			}
		}
	}
	check()
	big := make([]byte, 5<<20)
	rand.NewChaCha8([32]byte{9}).Read(big)
	require.NoError(t, n.Put([]byte("big"), big))
	v, err := n.Get([]byte("big"), nil)
	require.NoError(t, err)
	require.True(t, bytes.Equal(big, v))
	check()
	v, err = n.Get([]byte("big"), nil)
	require.NoError(t, err)
	require.True(t, bytes.Equal(big, v))
	require.InDelta(t, keys+1, s.Len(), 20, "a cold chain with the same tag counts as an overwrite")
	n.Close()
	t.Logf("%+v", s.Stats())
	require.NoError(t, s.Close())
	s = openTest(t, dir, nil)
	t.Logf("%+v", s.Recovery())
	n = s.NewSession()
	check()
	require.InDelta(t, keys+1, s.Len(), 20, "a cold chain with the same tag counts as an overwrite")
	n.Close()
	require.NoError(t, s.Close())
}
