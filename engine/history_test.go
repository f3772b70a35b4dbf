package engine

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/ioring/iotest"
)

func logOf(t testing.TB, s *Store, from int64) (all []Version) {
	t.Helper()
	for v, err := range s.Log(context.Background(), from) {
		require.NoError(t, err)
		all = append(all, v)
	}
	return all
}

func historyOf(t testing.TB, s *Store, key []byte) (all []Version) {
	t.Helper()
	for v, err := range s.History(context.Background(), key) {
		require.NoError(t, err)
		all = append(all, v)
	}
	return all
}

// TestHistory_Model: versions that are missing, of another key, out of order, or
// never were; in memory, on disk, and over restarts.
func TestHistory_Model(t *testing.T) {
	seed := newSeed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	dev := newMem()
	want := map[string][]Version{} // oldest first, without addresses
	order := []string{}
	key := func() []byte { return fmt.Appendf(nil, "key-%d", rng.IntN(40)) }
	for life := range 3 {
		s := openOn(t, dev, func(o *Options) { o.IndexBits = indexBitsMin })
		n := s.NewSession()
		for i := range 400 {
			k := key()
			v := Version{Key: k}
			switch rng.IntN(6) {
			case 0:
				v.Deleted = true
				found, err := n.Delete(k)
				require.NoError(t, err)
				if !found {
					continue // nothing is written for it
				}
			case 1:
				value := valueOf(uint64(i), uint64(life), inlineMax+1+rng.IntN(chunkBytes))
				v.Large, v.Size = true, int64(len(value))
				require.NoError(t, n.Put(k, value))
			default:
				v.Value = valueOf(uint64(i), uint64(life), 8+rng.IntN(3000))
				v.Size = int64(len(v.Value))
				op := Op{Kind: OpPut, Key: k, Value: v.Value}
				if rng.IntN(3) == 0 {
					op.TTL = 1 << 40
				}
				require.NoError(t, n.one(&op))
			}
			syncStore(t, s) // nothing is updated in place any more
			want[string(k)] = append(want[string(k)], v)
			order = append(order, string(k))
			if i%150 == 149 {
				evict(t, s, n)
				syncStore(t, s)
			}
		}
		all := slices.DeleteFunc(logOf(t, s, 0), func(v Version) bool { return bytes.HasPrefix(v.Key, []byte("evict")) })
		next := map[string]int{}
		require.Len(t, all, len(order))
		for i, v := range all {
			k := string(v.Key)
			require.Equal(t, order[i], k, "version %d", i)
			requireVersion(t, want[k][next[k]], v)
			next[k]++
		}
		for k, versions := range want {
			got := historyOf(t, s, []byte(k))
			slices.Reverse(got)
			require.Len(t, got, len(versions), k)
			for i := range got {
				requireVersion(t, versions[i], got[i])
				require.True(t, i == 0 || got[i].Addr > got[i-1].Addr)
			}
		}
		require.Empty(t, historyOf(t, s, []byte("none")))
		// From anywhere, also within a record.
		for range 20 {
			i := rng.IntN(len(all))
			from := all[i].Addr - int64(rng.IntN(2))*int64(rng.IntN(16))
			if from < 0 {
				from = 0
			}
			for v, err := range s.Log(context.Background(), from) {
				require.NoError(t, err)
				require.GreaterOrEqual(t, v.Addr, from)
				require.LessOrEqual(t, v.Addr, all[i].Addr)
				break
			}
		}
		n.Close()
		require.NoError(t, s.Close())
		dev = dev.CrashImage(iotest.CrashOptions{})
	}
}

func requireVersion(t testing.TB, want, got Version) {
	t.Helper()
	require.Equal(t, string(want.Key), string(got.Key))
	require.Equal(t, want.Deleted, got.Deleted)
	require.Equal(t, want.Large, got.Large)
	require.Equal(t, want.Size, got.Size)
	require.True(t, bytes.Equal(want.Value, got.Value) && (want.Value == nil) == (got.Value == nil))
}

// TestHistory_Compaction: what compaction has freed is an answer, or a history that
// it has cut short is an error.
func TestHistory_Compaction(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	for i := range 3000 {
		require.NoError(t, n.Put(key64(i%100), valueOf(uint64(i%100), uint64(i), 1000)))
		if i%100 == 99 {
			syncStore(t, s)
		}
	}
	evict(t, s, n)
	syncStore(t, s)
	require.Len(t, historyOf(t, s, key64(7)), 30)
	compact(t, s, 0)
	begin := s.Stats().LogBegin
	require.Positive(t, begin)
	for _, err := range s.Log(context.Background(), 0) {
		require.ErrorIs(t, err, ErrCursor)
	}
	moved := 0
	for _, v := range logOf(t, s, begin) {
		require.GreaterOrEqual(t, v.Addr, begin)
		if v.Moved {
			moved++
		}
	}
	require.Positive(t, moved)
	short := historyOf(t, s, key64(7))
	require.NotEmpty(t, short)
	require.Less(t, len(short), 30)
	require.True(t, bytes.Equal(valueOf(7, 2907, 1000), short[0].Value))

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, err := range s.Log(ctx, begin) {
		require.ErrorIs(t, err, context.Canceled)
	}
	for _, err := range s.History(context.Background(), nil) {
		require.ErrorIs(t, err, ErrKeyEmpty)
	}
	n.Close()
	require.NoError(t, s.Close())
	for _, err := range s.Log(context.Background(), begin) {
		require.Error(t, err)
	}
	for _, err := range s.History(context.Background(), key64(7)) {
		require.Error(t, err)
	}
}
