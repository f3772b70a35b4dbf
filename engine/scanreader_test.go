package engine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
)

// TestScanReader_SpareMemory: two readers share memory, one that ended is not used
// again, one of another size is, or memory is kept beyond the store's end.
func TestScanReader_SpareMemory(t *testing.T) {
	s := openOn(t, newMem(), nil)
	open := func(ahead bool) *scanReader {
		r, err := s.newScanReader(nil, ahead)
		require.NoError(t, err)
		return r
	}
	a, b := open(false), open(true)
	require.NotSame(t, a.memory, b.memory)
	first, second := a.memory, b.memory
	a.close()
	b.close()
	require.Nil(t, first.Bytes(), "one is enough to keep")
	tail, err := s.newTailReader(nil)
	require.NoError(t, err)
	require.NotSame(t, second, tail.memory, "it is of another size")
	a = open(false)
	require.Same(t, second, a.memory)
	b = open(false)
	require.NotSame(t, second, b.memory)
	tail.close()
	b.close()
	last := b.memory
	a.memory.Bytes()[0] = 1
	require.NoError(t, s.Close())
	require.Nil(t, last.Bytes(), "it outlives the store")
	require.NotNil(t, a.memory.Bytes())
	require.Same(t, a.memory, s.scanSpare.keep(a.memory), "nothing is kept by a closed store")
	require.NoError(t, a.memory.Free())
}

// TestScanReader_Here: what the reader hands out of its window is another record than
// asked for, or is gone when the next is handed out.
func TestScanReader_Here(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	defer n.Close()
	const keys = 5000
	for i := range keys {
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 1, 8+i%64)))
	}
	syncStore(t, s)
	r, err := s.newScanReader(s.manifestUntil(s.log.Durable()).Spans, false)
	require.NoError(t, err)
	defer r.close()
	seen := 0
	check := func(list []logRecord) {
		for i := range list {
			if list[i].isUser() {
				require.Equal(t, key64(seen), list[i].key())
				require.NoError(t, valueIs(list[i].value(), uint64(seen), 1, 8+seen%64))
				seen++
			}
		}
	}
	windows := 0
	for at := s.log.Begin(); ; windows++ {
		var list []logRecord
		var l logRecord
		ok, err := r.next(at, &l)
		require.NoError(t, err)
		if !ok {
			break
		}
		for ok {
			list = append(list, l)
			at = l.next()
			ok = r.here(at, &l)
		}
		require.False(t, r.here(record.AddrEnd, &l))
		check(list) // only now: all of a window stay valid
	}
	require.Equal(t, keys, seen)
	require.Greater(t, windows, 1)
}
