package engine

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestStart_LargeInMemory: a large value whose chunks are all in memory is
// collected inside Start, where nobody takes the answer.
func TestStart_LargeInMemory(t *testing.T) {
	s := openTest(t, t.TempDir(), nil)
	defer func() { require.NoError(t, s.Close()) }()
	n := s.NewSession()
	defer n.Close()
	large := bytes.Repeat([]byte("0123456789"), 30_000)
	require.NoError(t, n.Put([]byte("large"), large))
	ops := []Op{{Kind: OpGet, Key: []byte("large"), Tag: 1}, {Kind: OpGet, Key: []byte("large"), Tag: 2}}
	require.Equal(t, 2, n.Start(ops))
	var tags []uint64
	for pending := 2; pending > 0; {
		<-n.Ready()
		pending = n.Complete(func(op *Op) {
			require.NoError(t, op.Err)
			require.True(t, bytes.Equal(large, op.Value))
			tags = append(tags, op.Tag)
		})
	}
	require.Equal(t, []uint64{1, 2}, tags)
}
