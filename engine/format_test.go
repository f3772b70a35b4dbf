package engine

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/manifest"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

// stoppedClock shows the same time always.
type stoppedClock struct{ Clock }

func (stoppedClock) Wall() int64 { return 1_700_000_000_000 }

// TestFormat_Example: FORMAT.md says something else than what is on the disk.
func TestFormat_Example(t *testing.T) {
	text, err := os.ReadFile("FORMAT.md")
	require.NoError(t, err)
	mem := newMem()
	s := openOn(t, mem, func(o *Options) { o.Clock = stoppedClock{SystemClock()}; o.IndexBits = 12 })
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("key"), []byte("value")))
	_, err = n.Delete([]byte("none"))
	require.NoError(t, err)
	syncStore(t, s)
	n.Close()
	image := mem.CrashImage(iotest.CrashOptions{})
	require.NoError(t, s.Close())

	b, err := image.ReadMeta(manifest.Name)
	require.NoError(t, err)
	requireExample(t, string(text), "manifest", b)
	buf := image.Buffers().Get(4096)
	done := make(chan struct{})
	op := &ioring.Op{Kind: ioring.Read, Buf: buf, Done: func(*ioring.Op) { close(done) }}
	image.Submit([]*ioring.Op{op})
	<-done
	require.NoError(t, op.Err)
	requireExample(t, string(text), "log", buf[:0xd0])
}

// requireExample compares the dump that follows "hex name" in the text with what
// the bytes really are.
func requireExample(t *testing.T, text, name string, b []byte) {
	t.Helper()
	_, rest, found := strings.Cut(text, "```hex "+name+"\n")
	require.True(t, found, "no example %q", name)
	got, _, _ := strings.Cut(rest, "```")
	require.Equal(t, hex.Dump(b), got)
}
