package ioring

import (
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Populate could reach beyond the memory, or undo what is there or being written.
func TestMemory_Populate(t *testing.T) {
	m, err := AllocMemory(3*hugePage + 100)
	require.NoError(t, err)
	b := m.Bytes()
	b[0], b[hugePage+1] = 1, 2
	var writers sync.WaitGroup
	writers.Go(func() {
		for i := 5; i < len(b); i += 4096 {
			b[i] = byte(i >> 12)
			runtime.Gosched()
		}
	})
	for off := int64(0); off < m.Size(); off += hugePage / 2 {
		m.Populate(off+3, min(hugePage, m.Size()-off-3))
	}
	m.Populate(m.Size(), 0)
	writers.Wait()
	for i := 5; i < len(b); i += 4096 {
		require.Equal(t, byte(i>>12), b[i])
	}
	require.EqualValues(t, 1, b[0])
	require.EqualValues(t, 2, b[hugePage+1])
	require.Panics(t, func() { m.Populate(1, m.Size()) })
	require.Panics(t, func() { m.Populate(-1, 1) })
	require.NoError(t, m.Free())
}
