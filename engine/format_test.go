package engine

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/hlog"
	"rskv/engine/internal/manifest"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

// stoppedClock shows the same time always.
type stoppedClock struct{ Clock }

func (stoppedClock) Wall() int64      { return 1_700_000_000_000 }
func (stoppedClock) Monotonic() int64 { return 1 }

// TestFormat_Example: FORMAT.md says something else than what is on the disk.
func TestFormat_Example(t *testing.T) {
	text, err := os.ReadFile("FORMAT.md")
	require.NoError(t, err)
	mem := newMem()
	s := openOn(t, mem, func(o *Options) { o.Clock = stoppedClock{SystemClock()}; o.IndexBits = 12 })
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("key"), []byte("value")))
	_, err = n.Expire([]byte("key"), 60_000)
	require.NoError(t, err)
	_, err = n.Delete([]byte("none"))
	require.NoError(t, err)
	require.NoError(t, s.RunTask(t.Context(), TaskExpire)) // the commit says how far it is
	syncStore(t, s)
	image := mem.CrashImage(iotest.CrashOptions{})
	require.NoError(t, n.Put([]byte("key"), []byte("other")))
	info := checkpoint(t, s, SnapshotCheckpoint)
	imaged, err := mem.ReadMeta(imageName(info.Version))
	require.NoError(t, err)
	n.Close()
	require.NoError(t, s.Close())
	requireExample(t, string(text), "image", imaged[:imageHeader])
	requireExample(t, string(text), "imaged log", imaged[imageHeader:][:0x90])
	requireExample(t, string(text), "image end", imaged[len(imaged)-imageTrailer:])

	b, err := image.ReadMeta(manifest.Name)
	require.NoError(t, err)
	requireExample(t, string(text), "manifest", b)
	buf := image.Buffers().Get(4096)
	done := make(chan struct{})
	op := &ioring.Op{Kind: ioring.Read, Buf: buf, Done: func(*ioring.Op) { close(done) }}
	image.Submit([]*ioring.Op{op})
	<-done
	require.NoError(t, op.Err)
	requireExample(t, string(text), "log", buf[:0x110])
}

// TestFormat_Version1: a store of format version 1 cannot be opened any more, or
// is not what it was; or an older program could open it after this one has written
// to it.
func TestFormat_Version1(t *testing.T) {
	mem := newMem()
	for name, b := range map[string]string{manifest.Name: version1Manifest, manifestCopy: version1Manifest} {
		require.NoError(t, mem.WriteMeta(name, undump(t, b)))
	}
	page := mem.Buffers().Get(hlog.SectorSize)
	clear(page)
	copy(page, undump(t, version1Log))
	done := make(chan struct{})
	mem.Submit([]*ioring.Op{{Kind: ioring.Write, Buf: page, Done: func(*ioring.Op) { close(done) }}})
	<-done
	mem.Buffers().Put(page)
	done = make(chan struct{})
	mem.Submit([]*ioring.Op{{Kind: ioring.Sync, Done: func(*ioring.Op) { close(done) }}})
	<-done

	image := mem.CrashImage(iotest.CrashOptions{})
	res, err := Verify(VerifyOptions{Device: image}, nil)
	require.NoError(t, err)
	require.True(t, res.Opens)
	require.EqualValues(t, 1, res.Version)

	s := openOn(t, image, nil)
	require.EqualValues(t, 1, s.Recovery().Version)
	n := s.NewSession()
	value, err := n.Get([]byte("key"), nil)
	require.NoError(t, err)
	require.Equal(t, "value", string(value))
	_, err = n.Expire([]byte("key"), 1_000_000)
	require.NoError(t, err)
	syncStore(t, s)
	n.Close()
	again := image.CrashImage(iotest.CrashOptions{})
	require.NoError(t, s.Close())

	for _, name := range []string{manifest.Name, manifestCopy} {
		b, err := again.ReadMeta(name)
		require.NoError(t, err)
		require.EqualValues(t, manifest.Version, b[8], "%s: an older program would open it", name)
	}
	s = openOn(t, again, nil)
	n = s.NewSession()
	ttl, err := n.TTL([]byte("key"))
	require.NoError(t, err)
	require.Positive(t, ttl)
	n.Close()
	require.NoError(t, s.Close())
}

// undump returns the bytes of a hex dump.
func undump(t *testing.T, dump string) (b []byte) {
	t.Helper()
	for line := range strings.Lines(dump) {
		hexes := strings.ReplaceAll(line[10:min(58, len(line))], " ", "")
		row, err := hex.DecodeString(hexes)
		require.NoError(t, err)
		b = append(b, row...)
	}
	return b
}

// What the example of FORMAT.md was in version 1: a store that has crashed after a
// commit, with "value" under "key".
const (
	version1Manifest = `00000000  72 73 6b 76 4d 41 4e 49  01 00 00 00 01 00 00 00  |rskvMANI........|
00000010  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  |0123456789abcdef|
00000020  48 41 53 48 53 45 45 44  12 14 0c 0c 00 00 00 00  |HASHSEED........|
00000030  01 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
00000040  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
00000050  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
00000060  01 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
00000070  00 00 00 00 00 00 00 00  ac 5e 4e e0 0f 23 e9 fa  |.........^N..#..|
`
	version1Log = `00000000  00 00 00 00 00 00 01 00  b8 1a 3c c0 30 00 00 06  |..........<.0...|
00000010  72 73 6b 76 50 41 47 45  01 00 00 00 00 00 00 00  |rskvPAGE........|
00000020  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
00000030  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
00000040  00 00 00 00 00 00 03 00  5c 6b 01 e8 05 00 00 00  |........\k......|
00000050  6b 65 79 00 00 00 00 00  76 61 6c 75 65 00 00 00  |key.....value...|
00000060  00 00 00 00 00 00 03 00  0a 4d 7a ee 48 00 00 06  |.........Mz.H...|
00000070  72 73 6b 76 43 4d 49 54  01 00 00 00 00 00 00 00  |rskvCMIT........|
00000080  01 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
00000090  00 00 00 00 00 00 00 00  01 00 00 00 00 00 00 00  |................|
000000a0  0c 00 00 00 00 00 00 00  00 68 e5 cf 8b 01 00 00  |.........h......|
000000b0  20 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  | ...............|
000000c0  00 00 00 00 00 00 00 00  fc 28 45 02 30 0f 00 06  |.........(E.0...|
`
)

// requireExample compares the dump that follows "hex name" in the text with what
// the bytes really are.
func requireExample(t *testing.T, text, name string, b []byte) {
	t.Helper()
	_, rest, found := strings.Cut(text, "```hex "+name+"\n")
	require.True(t, found, "no example %q", name)
	got, _, _ := strings.Cut(rest, "```")
	require.Equal(t, hex.Dump(b), got)
}
