package iotest

import (
	"bytes"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
	"rskv/ioring/iotest/seeds"
)

// A stream must be invisible before its commit, whole after it, gone after an
// abort, and refuse everything later.
func contractStreams(t *testing.T, d ioring.Device) {
	_, err := d.OpenMeta("index")
	require.ErrorIs(t, err, ioring.ErrNoMeta)
	require.NoError(t, d.WriteMeta("index", []byte("old")))
	old, err := d.OpenMeta("index")
	require.NoError(t, err)

	w, err := d.CreateMeta("index")
	require.NoError(t, err)
	piece := []byte("new ")
	for range 2 {
		n, err := w.Write(piece)
		require.NoError(t, err)
		require.Equal(t, len(piece), n)
	}
	n, err := w.Write(nil)
	require.NoError(t, err)
	require.Zero(t, n)
	piece[0] = 'X' // the device must have its own copy
	other, err := d.CreateMeta("index")
	require.NoError(t, err, "a second stream of one name")
	_, err = other.Write([]byte("other"))
	require.NoError(t, err)
	requireMeta(t, d, "index", "old")
	requireNames(t, d, "index")

	require.NoError(t, w.Commit())
	requireMeta(t, d, "index", "new new ")
	requireNames(t, d, "index")
	require.NoError(t, other.Abort())
	requireMeta(t, d, "index", "new new ")
	for _, done := range []ioring.MetaWriter{w, other} {
		_, err = done.Write(piece)
		require.ErrorIs(t, err, fs.ErrClosed)
		require.ErrorIs(t, done.Commit(), fs.ErrClosed)
		require.ErrorIs(t, done.Abort(), fs.ErrClosed)
	}
	requireMeta(t, d, "index", "new new ")

	require.NoError(t, d.RemoveMeta("index"))
	requireReader(t, old, "old")
	empty, err := d.CreateMeta("empty")
	require.NoError(t, err)
	require.NoError(t, empty.Commit())
	requireMeta(t, d, "empty", "")
	requireNames(t, d, "empty")
	for _, name := range []string{"", "..", "a/b", ".hidden"} {
		_, err = d.CreateMeta(name)
		require.Error(t, err, "%q", name)
		_, err = d.OpenMeta(name)
		require.Error(t, err, "%q", name)
		require.NotErrorIs(t, err, ioring.ErrNoMeta, "%q", name)
	}
}

func requireNames(t *testing.T, d ioring.Device, want ...string) {
	t.Helper()
	names, err := d.ListMeta()
	require.NoError(t, err)
	require.Equal(t, want, names)
}

// requireMeta reads a metadata file both ways.
func requireMeta(t *testing.T, d ioring.Device, name, want string) {
	t.Helper()
	data, err := d.ReadMeta(name)
	require.NoError(t, err)
	require.Equal(t, want, string(data))
	r, err := d.OpenMeta(name)
	require.NoError(t, err)
	requireReader(t, r, want)
}

// requireReader checks what a reader says, at its borders too, and closes it.
func requireReader(t *testing.T, r ioring.MetaReader, want string) {
	t.Helper()
	size := int64(len(want))
	require.Equal(t, size, r.Size())
	data, err := io.ReadAll(io.NewSectionReader(r, 0, size+10))
	require.NoError(t, err)
	require.Equal(t, want, string(data))
	n, err := r.ReadAt(make([]byte, 1), size)
	require.Equal(t, io.EOF, err, "not wrapped")
	require.Zero(t, n)
	_, err = r.ReadAt(make([]byte, 1), -1)
	require.Error(t, err)
	require.NoError(t, r.Close())
	require.ErrorIs(t, r.Close(), fs.ErrClosed)
	_, err = r.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, fs.ErrClosed)
}

// Streams of any length, cut anywhere, must come back as they were, whole or not
// at all, whatever else the device does at the same time: several of one name are
// open at once here, beside writes and syncs.
func contractStreamsRandom(t *testing.T, d ioring.Device) {
	seed := seeds.New(t)
	stop := make(chan bool)
	var busy, group sync.WaitGroup
	busy.Go(func() { commitUntil(t, d, stop) })
	const workers, names = 3, 2
	each := 6
	if testing.Short() {
		each = 3
	}
	for w := range workers {
		group.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(w)))
			for range each {
				name := string(rune('a' + rng.IntN(names)))
				if err := randomStream(d, rng, name); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	close(stop)
	busy.Wait()
	listed, err := d.ListMeta()
	require.NoError(t, err)
	for _, name := range listed {
		data, err := d.ReadMeta(name)
		require.NoError(t, err)
		require.True(t, bytes.Equal(streamContent(data[0], len(data)), data), "%d bytes of %s", len(data), name)
	}
}

// streamMax is several of the windows that a disk writes back at a time.
const streamMax = 5 << 20

// streamContent is all that a stream of a kind and length may hold.
func streamContent(kind byte, n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i>>16) ^ byte(i*7) ^ kind
	}
	data[0] = kind
	return data
}

// randomStream writes one stream in random pieces and mostly commits it.
func randomStream(d ioring.Device, rng *rand.Rand, name string) error {
	w, err := d.CreateMeta(name)
	if err != nil {
		return err
	}
	defer w.Abort() // after the commit it says fs.ErrClosed
	n := 1 + rng.IntN(1<<16)
	if rng.IntN(3) == 0 {
		n = 1 + rng.IntN(streamMax)
	}
	content := streamContent(byte(rng.Uint32()), n)
	for rest := content; len(rest) > 0; {
		piece := rest[:min(len(rest), 1+rng.IntN(1+2*len(content)/3))]
		if _, err := w.Write(piece); err != nil {
			return err
		}
		rest = rest[len(piece):]
	}
	if rng.IntN(4) == 0 {
		return w.Abort()
	}
	return w.Commit()
}

// commitUntil writes and syncs until stop is closed.
func commitUntil(t *testing.T, d ioring.Device, stop <-chan bool) {
	page := Aligned(d.Align().Offset)
	for {
		select {
		case <-stop:
			return
		default:
		}
		for _, kind := range []ioring.OpKind{ioring.Write, ioring.Sync} {
			if _, err := Do(t, d, kind, 0, page); err != nil {
				t.Error(err)
				return
			}
		}
	}
}

// A stream that outlives its device must fail, and take nothing with it.
func contractStreamsClosed(t *testing.T, d ioring.Device) {
	require.NoError(t, d.WriteMeta("a", []byte("1")))
	w, err := d.CreateMeta("a")
	require.NoError(t, err)
	_, err = w.Write([]byte("2"))
	require.NoError(t, err)
	r, err := d.OpenMeta("a")
	require.NoError(t, err)
	require.NoError(t, d.Close())
	_, err = w.Write([]byte("3"))
	require.ErrorIs(t, err, ioring.ErrClosed)
	require.ErrorIs(t, w.Commit(), ioring.ErrClosed)
	require.ErrorIs(t, w.Abort(), ioring.ErrClosed)
	_, err = r.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, ioring.ErrClosed)
	require.NoError(t, r.Close())
	_, err = d.CreateMeta("a")
	require.ErrorIs(t, err, ioring.ErrClosed)
	_, err = d.OpenMeta("a")
	require.ErrorIs(t, err, ioring.ErrClosed)
}
