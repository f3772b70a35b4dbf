package engine

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

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
