package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rskv/ipc"
)

// plant writes files, given as path and content, below dir.
func plant(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
	}
}

// A link that is not followed loses files; one that is followed for ever never
// ends; and what is no file must not be opened.
func TestTree_Pairs(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	plant(t, dir, map[string]string{"a": "1", "sub/b": "", "sub/deep/c": "three"})
	plant(t, outside, map[string]string{"linked/d": "4"})
	require.NoError(t, os.Symlink(filepath.Join(outside, "linked"), filepath.Join(dir, "link")))
	require.NoError(t, os.Symlink("a", filepath.Join(dir, "alias")))
	require.NoError(t, os.Symlink(dir, filepath.Join(dir, "sub", "loop")))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "broken")))
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))

	in, err := openInput(dir, "", nil, []byte("p:"), true)
	require.NoError(t, err)
	pairs, failed := pairsOf(t, in.pairs)
	var got []string
	for _, p := range pairs {
		got = append(got, string(p.key)+"="+string(p.value))
	}
	require.Equal(t, []string{"p:a=1", "p:alias=1", "p:link/d=4", "p:sub/b=", "p:sub/deep/c=three"}, got)
	require.Len(t, failed, 2)
	require.Contains(t, failed[0], "broken: no such file")
	require.Contains(t, failed[1], "pipe: not a regular file")
	require.EqualValues(t, 7, in.done())

	// The root itself may be a link.
	alias := filepath.Join(t.TempDir(), "alias")
	require.NoError(t, os.Symlink(dir, alias))
	in, err = openInput(alias, "", nil, nil, false)
	require.NoError(t, err)
	pairs, _ = pairsOf(t, in.pairs)
	require.Len(t, pairs, 5)
	require.Nil(t, pairs[0].value, "content was not asked for")
}

// A file above the limit must be named before it is read into memory.
func TestReadFile_TooLarge(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	require.NoError(t, os.Truncate(file, ipc.MaxValue+1))
	_, err := readFile(file)
	require.ErrorContains(t, err, "more than a value may have")
	require.NoError(t, os.Truncate(file, ipc.MaxValue))
	value, err := readFile(file)
	require.NoError(t, err)
	require.Len(t, value, ipc.MaxValue)
	_, err = readValue(bytes.NewReader(make([]byte, ipc.MaxValue+1)), 0)
	require.ErrorContains(t, err, "more bytes than a value may have")
}

// A key is somebody else's text: it must not lead out of the directory, and two
// keys must not share a file.
func TestTreeSink(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "exit")))
	s, err := openOutput(dir, formatTree, nil, []byte("p:"))
	require.NoError(t, err)
	require.NoError(t, s.write(pair{key: []byte("p:a/b"), value: []byte("1")}))
	require.NoError(t, s.write(pair{key: []byte("p:a/c"), value: []byte("2")}))
	for _, key := range []string{
		"p:", "p:.", "p:..", "p:../x", "p:/x", "p:a//b", "p:a/", "p:./a", "p:a/../b", "p:x\x00", "q:a",
		"p:exit/x", "p:a/b/c", "p:a", "p:" + strings.Repeat("n", 300),
	} {
		var one *itemError
		require.ErrorAs(t, s.write(pair{key: []byte(key), value: []byte("bad")}), &one, "%q", key)
	}
	require.NoError(t, s.close())
	in, err := openInput(filepath.Join(dir, "a"), "", nil, nil, true)
	require.NoError(t, err)
	pairs, _ := pairsOf(t, in.pairs)
	require.Equal(t, []pair{{key: []byte("b"), value: []byte("1")}, {key: []byte("c"), value: []byte("2")}}, pairs)
	left, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Empty(t, left)
}

// The format must follow from what the source is, and contradictions must be
// told rather than guessed away.
func TestOpenInput_Format(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, map[string]string{
		"x.ndjson": "", "x.jsonl": "", "x.tsv": "", "brace": ` {"key":"k","value":"v"}`, "tab": "k\tv", "empty": "",
	})
	for name, want := range map[string]format{
		"": formatTree, "x.ndjson": formatNDJSON, "x.jsonl": formatNDJSON, "x.tsv": formatTSV,
		"brace": formatNDJSON, "tab": formatTSV, "empty": formatTSV,
	} {
		in, err := openInput(filepath.Join(dir, name), "", nil, nil, true)
		require.NoError(t, err)
		require.Equal(t, want, in.format, name)
		require.NoError(t, in.close())
	}
	for _, c := range []struct {
		src string
		f   format
	}{{"tab", formatTree}, {"", formatTSV}, {"missing", ""}} {
		_, err := openInput(filepath.Join(dir, c.src), c.f, nil, nil, true)
		require.Error(t, err)
	}
	_, err := openInput("-", formatTree, strings.NewReader(""), nil, true)
	require.Error(t, err)
	in, err := openInput("-", "", strings.NewReader("k\tv\n"), nil, true)
	require.NoError(t, err)
	pairs, _ := pairsOf(t, in.pairs)
	require.True(t, slices.EqualFunc(pairs, []pair{{key: []byte("k"), value: []byte("v")}}, func(a, b pair) bool {
		return bytes.Equal(a.key, b.key) && bytes.Equal(a.value, b.value)
	}))
}
