package engine

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
	"rskv/ioring"
)

// lateDevice keeps reads back until they are let go.
type lateDevice struct {
	ioring.Device
	mu   sync.Mutex
	keep func(*ioring.Op) bool // nil: none
	kept []*ioring.Op
}

func (d *lateDevice) Submit(ops []*ioring.Op) {
	d.mu.Lock()
	var now []*ioring.Op
	for _, op := range ops {
		if d.keep != nil && op.Kind == ioring.Read && d.keep(op) {
			d.kept = append(d.kept, op)
		} else {
			now = append(now, op)
		}
	}
	d.mu.Unlock()
	if len(now) > 0 {
		d.Device.Submit(now)
	}
}

// release lets what is kept go, one by one and the oldest first, and returns how
// many there were.
func (d *lateDevice) release() int {
	d.mu.Lock()
	kept := d.kept
	d.kept, d.keep = nil, nil
	d.mu.Unlock()
	for _, op := range kept {
		d.Device.Submit([]*ioring.Op{op})
	}
	return len(kept)
}

// TestEarlyRead_LargeValue: a read that was started early arrives when its
// operation has found the value in memory and collects its chunks from disk. It is
// taken for one of them, or ends the operation a second time.
func TestEarlyRead_LargeValue(t *testing.T) {
	dev := &lateDevice{Device: newMem()}
	s := openOn(t, dev, nil)
	n, other := s.NewSession(), s.NewSession()
	key, value := []byte("large"), valueOf(1, 1, 3*chunkBytes)
	require.NoError(t, n.Put(key, value))
	evict(t, s, n)
	reads := 0
	dev.mu.Lock() // pages may still be on their way
	dev.keep = func(*ioring.Op) bool { reads++; return reads > 1 }
	dev.mu.Unlock()
	// The get waits for the question before it, with its own read under way.
	require.Equal(t, 2, n.Start([]Op{{Kind: OpExists, Key: key}, {Kind: OpGet, Key: key}}))
	require.Equal(t, 2, reads)

	// Meanwhile compaction copies the record, but not yet the chunks.
	other.mover = true
	var at place
	require.NoError(t, other.enter(false))
	hash := record.Hash(s.seed, key)
	other.find(hash, key, &at)
	other.exit()
	require.Equal(t, disk, at.kind)
	image := readKept(t, s, dev, at.addr)
	ops := make([]Op, 1)
	ops[0].moveRecord(at.addr, key, image, at.addr)
	other.Do(ops)
	require.NoError(t, ops[0].Err)
	require.True(t, ops[0].Found)

	answers := 0
	answer := func(op *Op) {
		answers++
		require.NoError(t, op.Err)
		require.True(t, op.Found)
		if op.Kind == OpGet {
			require.Equal(t, value, op.Value)
		}
	}
	for n.Complete(answer) > 1 {
		<-n.Ready()
	}
	require.Equal(t, 1, answers)
	require.Equal(t, 4, dev.release(), "the early read, and three chunks")
	for n.Complete(answer) > 0 {
		<-n.Ready()
	}
	require.Equal(t, 2, answers)
	n.Close()
	other.Close()
	checkStore(t, s)
	require.NoError(t, s.Close())
}

// readKept is readRecord while reads are kept back.
func readKept(t *testing.T, s *Store, dev *lateDevice, a record.Addr) []byte {
	dev.mu.Lock()
	keep := dev.keep
	dev.keep = nil
	dev.mu.Unlock()
	image := readRecord(t, s, a)
	dev.mu.Lock()
	dev.keep = keep
	dev.mu.Unlock()
	return image
}
