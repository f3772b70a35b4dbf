package engine

import (
	"bytes"
	"errors"
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

// TestAdmit: a value that has no room is fetched all the same, one that has is not,
// or what stands behind such a read is lost.
func TestAdmit(t *testing.T) {
	s := openTest(t, t.TempDir(), nil)
	defer func() { require.NoError(t, s.Close()) }()
	n := s.NewSession()
	defer n.Close()
	large, key := bytes.Repeat([]byte("0123456789"), 30_000), []byte("large")
	require.NoError(t, n.Put(key, large))
	require.NoError(t, n.Put([]byte("small"), []byte("x")))
	full := errors.New("no room")
	var asked []int
	n.Admit(func(n int) error {
		asked = append(asked, n)
		if n == len(large) {
			return full
		}
		return nil
	})
	ops := []Op{{Kind: OpGet, Key: key}, {Kind: OpAppend, Key: key, Value: []byte("more")}, {Kind: OpGet, Key: key, Tag: 1}}
	pending := n.Start(ops)
	require.Equal(t, len(ops), pending)
	for pending > 0 {
		<-n.Ready()
		pending = n.Complete(func(op *Op) {
			switch {
			case op.Kind == OpAppend:
				require.NoError(t, op.Err)
			case op.Tag == 1:
				require.NoError(t, op.Err)
				require.True(t, bytes.Equal(append(large, "more"...), op.Value))
			default:
				require.ErrorIs(t, op.Err, full)
				require.Empty(t, op.Value)
			}
		})
	}
	_, err := n.Get([]byte("small"), nil)
	require.NoError(t, err)
	require.Equal(t, []int{len(large), len(large) + 4}, asked)
}
