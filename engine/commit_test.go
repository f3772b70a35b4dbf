package engine

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/epoch"
	"rskv/ioring/iotest"
)

// TestDecodeCommit: a commit record of another run, or a piece of one, is taken for one of this run.
func TestDecodeCommit(t *testing.T) {
	le := binary.LittleEndian
	b := make([]byte, commitPayload+ledgerEntry)
	copy(b, commitMagic)
	le.PutUint64(b[8:], 7)
	le.PutUint64(b[16:], 42)
	le.PutUint32(b[52:], 1)
	c, err := decodeCommit(b, 7)
	require.NoError(t, err)
	require.EqualValues(t, 42, c.version)
	require.Len(t, c.counts, ledgerEntry)
	_, err = decodeCommit(b, 8)
	require.ErrorContains(t, err, "generation 7, expected 8")
	_, err = decodeCommit(b, 6)
	require.ErrorContains(t, err, "generation 7, expected 6")
	_, err = decodeCommit(b[:len(b)-1], 7)
	require.ErrorContains(t, err, "session numbers")
	_, err = decodeCommit(b[:commitPayload1-1], 7)
	require.Error(t, err)
	b[0]++
	_, err = decodeCommit(b, 7)
	require.ErrorContains(t, err, "not a commit record")
}

// TestLedger_CountBehindCut: the number that a commit tells is of a write that came behind its cut, and so
// is not in it.
func TestLedger_CountBehindCut(t *testing.T) {
	s := openOn(t, newMem(), func(o *Options) { o.Random = nil })
	l, err := s.NewLedger()
	require.NoError(t, err)
	tb := &s.ledgers
	l.count(1)
	version := tb.version.Load() + 1
	tb.cut(version, func(changed int) bool { return changed == 1 })
	l.count(2)
	counts := tb.collect(version, 4, nil)
	require.Len(t, counts, 1)
	require.EqualValues(t, 1, counts[0].number)
	tb.cut(version+1, func(changed int) bool { return changed == 1 })
	require.EqualValues(t, 2, tb.collect(version+1, 8, nil)[0].number)
	require.NoError(t, s.Close())
}

// TestRecover_VersionNotReused: after a crash a commit has the number of one that was cut before it and did
// not become durable.
func TestRecover_VersionNotReused(t *testing.T) {
	dev := newMem()
	s := openOn(t, dev, nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("k"), []byte("v")))
	durable := syncStore(t, s)
	image := dev.CrashImage(iotest.CrashOptions{})
	require.NoError(t, n.Put([]byte("k"), []byte("w")))
	lost := syncStore(t, s) // as far as the image knows, it was only cut
	require.Equal(t, durable+1, lost)
	n.Close()
	require.NoError(t, s.Close())
	s = openOn(t, image, nil)
	n = s.NewSession()
	require.NoError(t, n.Put([]byte("k"), []byte("x")))
	require.Greater(t, syncStore(t, s), lost)
	n.Close()
	require.NoError(t, s.Close())
}

// TestCommit_WriterAway: a writer that does not come back from a write for a while
// holds up all others, or the commit for ever.
func TestCommit_WriterAway(t *testing.T) {
	clock := newTestClock()
	s := openOn(t, newMem(), func(o *Options) { o.Clock = clock })
	n, away := s.NewSession(), s.NewSession()
	require.NoError(t, n.Put([]byte("before"), []byte("v")))
	require.True(t, away.slot.BeginWrite())

	c := &s.commit
	c.stepping.Lock() // the task does nothing meanwhile
	done := make(chan struct{})
	require.True(t, c.join(false, func(r commitResult) {
		require.NoError(t, r.err)
		close(done)
	}))
	holds := func() int64 {
		s.stats.holds.Lock()
		defer s.stats.holds.Unlock()
		if s.stats.holds.histogram == nil {
			return 0
		}
		return s.stats.holds.histogram.TotalCount()
	}
	before := holds()
	flies := func() { // for us, and not for a task that looks at the clock meanwhile
		if calledBy("TestCommit_WriterAway") {
			clock.mono.Add(int64(epoch.CloseLimit(epoch.CloseAttempts - 1)))
		}
	}
	for i := range epoch.CloseAttempts {
		clock.look.Store(&flies)
		require.Equal(t, epoch.ClosePause, c.advance(false))
		clock.look.Store(nil)
		require.EqualValues(t, i+1, holds()-before)
		require.NoError(t, n.Put([]byte("meanwhile"), []byte{byte(i)}))
		require.Positive(t, c.advance(false), "not before the pause is over")
		require.EqualValues(t, i+1, holds()-before)
		clock.move(1)
	}
	require.Zero(t, epoch.CloseLimit(c.attempts), "in the end it waits for the writer")
	away.slot.EndWrite()
	c.advance(false)
	c.stepping.Unlock()
	c.task.Wake()
	waitFor(t, "a commit that a writer has held up", done)
	require.Zero(t, c.attempts)
	away.Close()
	n.Close()
	require.NoError(t, s.Close())
}
