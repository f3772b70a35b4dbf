package daemon

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
)

// heldSync is a device whose syncs wait, on the thread they are asked for, until
// they are let go.
type heldSync struct {
	ioring.Device
	begun chan struct{}
	gate  chan struct{}
	over  chan struct{} // closed: nothing waits any more
}

func (h *heldSync) Submit(ops []*ioring.Op) {
	if ops[0].Kind == ioring.Sync {
		select {
		case h.begun <- struct{}{}:
			<-h.gate
		case <-h.over:
		}
	}
	h.Device.Submit(ops)
}

// TestLead: the only request of a client is answered by a wake-up more than it
// needs; or what a client asks for besides its sync waits behind it again and
// again.
func TestLead(t *testing.T) {
	cfg := testConfig(t)
	cfg.CommitInterval = 0
	disk, err := ioring.Open(ioring.Options{Dir: cfg.Dir, SegmentSize: cfg.SegmentSize, BufferBytes: 4 << 20})
	require.NoError(t, err)
	dev := &heldSync{
		Device: disk,
		begun:  make(chan struct{}), gate: make(chan struct{}), over: make(chan struct{}),
	}
	d := startOn(t, cfg, dev)
	defer close(dev.over)
	begun := func() {
		select {
		case <-dev.begun:
		case <-time.After(patience):
			t.Fatal("no sync was asked for")
		}
	}
	w := d.dial()
	synced := map[string]any{"sync": true}
	w.want(true, "put", []byte("seen"), []byte("v"))

	// The reader is the one who waits for the disk, so the get waits too; unless the
	// task was at a step just then, and is left the commit.
	for led, tries := false, 0; !led; {
		w = d.dial()
		w.send(request(101, "put", []byte("k"), []byte("v"), synced))
		begun()
		w.send(request(102, "get", []byte("seen")))
		dev.gate <- struct{}{}
		first, second := w.must().id, w.must().id
		led = first == 101
		require.ElementsMatch(t, []any{101, 102}, []any{int(first), int(second)})
		tries++
		require.Less(t, tries, 1000, "the reader never leads")
	}

	// It was found waiting then: this client is one that asks on.
	w.send(request(103, "put", []byte("k"), []byte("w"), synced))
	begun()
	w.send(request(104, "get", []byte("seen")))
	require.EqualValues(t, 104, w.must().id, "a read waits for a sync")
	dev.gate <- struct{}{}
	require.EqualValues(t, 103, w.must().id)

	// A client of its own, meanwhile, waits for nobody.
	other := d.dial()
	w.send(request(105, "put", []byte("k"), []byte("x"), synced))
	begun()
	other.send(request(1, "put", []byte("o"), []byte("v"), synced))
	other.send(request(2, "get", []byte("seen")))
	require.EqualValues(t, 2, other.must().id)
	dev.gate <- struct{}{}
	require.EqualValues(t, 105, w.must().id)
	begun()
	dev.gate <- struct{}{}
	require.EqualValues(t, 1, other.must().id)
}
