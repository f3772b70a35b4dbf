package engine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/ioring/iotest"
)

// TestEarlyRead_LargeValue: an operation whose read was started early, and which
// then finds a newer large value in memory, is answered from the old record, or
// mixes it up with the chunks.
func TestEarlyRead_LargeValue(t *testing.T) {
	// The device answers in any order.
	dev := iotest.NewMem(iotest.MemOptions{SegmentSize: 1 << 20, BufferBytes: 2 << 20, Seed: newSeed(t) | 1})
	s := openOn(t, dev, nil)
	n := s.NewSession()
	for i := range 50 {
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 1, 2*chunkBytes)))
	}
	evict(t, s, n)
	for i := range 50 {
		// The append waits for the disk, and the gets behind it for the append, with
		// their own reads under way.
		ops := []Op{{Kind: OpAppend, Key: key64(i), Value: []byte("tail")}, {Kind: OpGet, Key: key64(i), Tag: 1}, {Kind: OpGet, Key: key64(i), Tag: 2}}
		n.Do(ops)
		want := append(valueOf(uint64(i), 1, 2*chunkBytes), "tail"...)
		require.NoError(t, ops[0].Err)
		for _, op := range ops[1:] {
			require.NoError(t, op.Err)
			require.Equal(t, want, op.Value, "key %d", i)
		}
	}
	n.Close()
	checkStore(t, s)
	require.NoError(t, s.Close())
}
