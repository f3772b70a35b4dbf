package engine

import (
	"bytes"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

// TestPageReader_Close: reads that were asked for ahead arrive in memory that belongs to
// the next reader already, or more are asked for.
func TestPageReader_Close(t *testing.T) {
	s, dev, _ := openFault(t, func(o *Options) { o.CheckpointDistance = -1 })
	n := s.NewSession()
	for i := range 200 {
		require.NoError(t, n.Put(key64(i), make([]byte, 60<<10)))
	}
	n.Close()
	syncStore(t, s)
	page := int64(s.opt.PageSize)
	until := s.log.Durable() &^ (record.Addr(page/record.Unit) - 1)
	require.Greater(t, until.Bytes(), 8*page)
	first, rest := make(chan struct{}), make(chan struct{}) // closed: their answers may come
	dev.Inject(iotest.Rule{Kind: ioring.Read, Match: iotest.Nth(1), Until: first})
	dev.Inject(iotest.Rule{Kind: ioring.Read, Until: rest})
	memory, err := ioring.AllocMemory(4 * page)
	require.NoError(t, err)
	var arrived atomic.Int64
	r := s.newPageReader(s.manifestUntil(until), s.log.Begin(), until, memory.Bytes(), func() { arrived.Add(1) })
	p, end, err := r.next()
	require.NoError(t, err)
	require.True(t, p == nil && !end)
	close(first)
	for p == nil {
		p, _, err = r.next()
		require.NoError(t, err)
		time.Sleep(time.Millisecond)
	}
	r.release(p)
	_, _, err = r.next() // asks for another one in its place
	require.NoError(t, err)
	r.cut()
	time.AfterFunc(50*time.Millisecond, func() { close(rest) })
	r.close()
	content := bytes.Clone(memory.Bytes())
	require.Eventually(t, func() bool { return arrived.Load() == 5 }, time.Minute, time.Millisecond)
	_, _, err = r.next()
	require.NoError(t, err)
	time.Sleep(100 * time.Millisecond)
	require.EqualValues(t, 5, arrived.Load())
	require.True(t, bytes.Equal(content, memory.Bytes()))
	require.NoError(t, memory.Free())
	require.NoError(t, s.Close())
}
