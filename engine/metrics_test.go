package engine

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestStats_Kinds: an operation counts as what it is not, or not once.
func TestStats_Kinds(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	key, value := []byte("key"), []byte("value")
	reads := []Op{{Kind: OpGet, Key: key}, {Kind: OpExists, Key: key}, {Kind: OpTTL, Key: key}}
	writes := []Op{
		{Kind: OpPut, Key: key, Value: value}, {Kind: OpDelete, Key: key}, {Kind: OpAdd, Key: key, Delta: 1}, {Kind: OpAppend, Key: key, Value: value},
		{Kind: OpCompareAndSwap, Key: key, Old: value, Value: value}, {Kind: OpExpire, Key: key, TTL: 1000},
		{Kind: OpUpdate, Key: key, Fn: func([]byte, bool) ([]byte, Verdict) { return nil, Keep }},
	}
	for i := range reads {
		n.Do(reads[i : i+1])
	}
	require.EqualValues(t, len(reads), s.Stats().Reads)
	require.Zero(t, s.Stats().Writes)
	n.Do(writes)
	require.EqualValues(t, len(reads), s.Stats().Reads)
	require.EqualValues(t, len(writes), s.Stats().Writes)
	n.Close()
	require.NoError(t, s.Close())
}
