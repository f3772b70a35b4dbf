package ipc_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"rskv/ioring/iotest/seeds"
	"rskv/ipc"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
)

// splitAll gives stream to a Splitter in pieces of the given sizes, over and over, moving what is
// left to the front of its buffer like a connection does. It returns the lengths of the messages
// found, and the error.
func splitAll(stream []byte, limit int, pieces ...int) (lengths []int, err *ipc.Error) {
	split := ipc.NewSplitter(limit)
	var buf []byte
	for i := 0; len(stream) > 0; i++ {
		n := min(pieces[i%len(pieces)], len(stream))
		buf = append(buf, stream[:n]...)
		stream = stream[n:]
		used := 0
		for {
			n, err := split.Next(buf[used:])
			if err != nil {
				return lengths, err
			}
			if n == 0 {
				break
			}
			lengths = append(lengths, n)
			used += n
		}
		if used > 0 || i%64 == 0 {
			buf = append([]byte(nil), buf[used:]...) // elsewhere, with no room behind it
		}
	}
	return lengths, nil
}

// What could go wrong: a message cut at some byte is found too early, too late or never.
func TestSplitter_CutAtEveryByte(t *testing.T) {
	var stream []byte
	var want []int
	for _, e := range examples(t) {
		stream = append(stream, e.bytes...)
		want = append(want, len(e.bytes))
	}
	got, err := splitAll(stream, ipc.MaxRequest, len(stream))
	require.Nil(t, err)
	require.Equal(t, want, got)
	got, err = splitAll(stream, ipc.MaxRequest, 1)
	require.Nil(t, err)
	require.Equal(t, want, got)
	for cut := 1; cut < len(stream); cut++ {
		got, err := splitAll(stream, ipc.MaxRequest, cut, len(stream))
		require.Nil(t, err)
		require.Equal(t, want, got, "cut at %d", cut)
	}
}

// What could go wrong: for some value of some form the end is found elsewhere than msgpack/v5 finds
// it, or in pieces elsewhere than in one.
func TestSplitter_RandomValues(t *testing.T) {
	rng := seeds.Rand(t)
	for range 300 {
		var stream []byte
		var want []int
		for range 1 + rng.IntN(4) {
			message := append([]byte{0x93, 2}, randomValue(rng, 0)...)
			message = append(message, randomValue(rng, 0)...)
			d := msgpack.NewDecoder(bytes.NewReader(message))
			require.NoError(t, d.Skip(), "% x", message)
			_, err := d.PeekCode()
			require.Error(t, err, "% x", message)
			stream = append(stream, message...)
			want = append(want, len(message))
		}
		for _, pieces := range [][]int{{len(stream)}, {1}, {1 + rng.IntN(7), 1 + rng.IntN(60)}} {
			got, err := splitAll(stream, ipc.MaxRequest, pieces...)
			require.Nil(t, err, "% x", stream)
			require.Equal(t, want, got, "% x", stream)
		}
	}
}

// randomValue returns a value in any encoding the format has, msgpack/v5's own or wider.
func randomValue(rng *rand.Rand, depth int) []byte {
	if depth < 4 && rng.IntN(3) == 0 {
		n := rng.IntN(7)
		forms := [][]byte{{0xdc, 0, byte(n)}, {0xdd, 0, 0, 0, byte(n)}, {0xde, 0, byte(n)}, {0xdf, 0, 0, 0, byte(n)}}
		i := rng.IntN(len(forms))
		b := forms[i]
		if i >= 2 {
			n *= 2
		}
		for range n {
			b = append(b, randomValue(rng, depth+1)...)
		}
		return b
	}
	fill := func(head []byte, n int) []byte { return append(head, make([]byte, n)...) }
	switch n := rng.IntN(300); rng.IntN(9) {
	case 0:
		b, _ := msgpack.Marshal(rng.Int64() >> rng.IntN(64))
		return b
	case 1:
		return binary.BigEndian.AppendUint64([]byte{0xcf + byte(rng.IntN(2))*4}, rng.Uint64()) // u64, i64
	case 2:
		return fill([]byte{0xc5, byte(n >> 8), byte(n)}, n)
	case 3:
		return fill([]byte{0xdb, 0, 0, byte(n >> 8), byte(n)}, n)
	case 4:
		return fill([]byte{0xc8, byte(n >> 8), byte(n), 5}, n) // ext
	case 5:
		return fill([]byte{0xd4}, 2) // fixext 1
	case 6:
		b, _ := msgpack.Marshal(rng.Float64())
		return b
	case 7:
		b, _ := msgpack.Marshal(map[string]any{"a": []any{nil, true, "text", []byte{1}}})
		return b
	}
	return []byte{[]byte{0xc0, 0xc2, 0xc3, 0x00, 0x7f, 0xe0, 0xff, 0x80, 0x90, 0xa0}[rng.IntN(10)]}
}

// What could go wrong: what is no message is waited for, and what cannot be resynchronised is
// forgiven.
func TestSplitter_Refuses(t *testing.T) {
	for what, c := range map[string]struct {
		stream []byte
		want   *ipc.Error
	}{
		"text":              {[]byte("GET / HTTP/1.1\r\n"), ipc.ErrOuterShape},
		"map":               {[]byte{0x84, 0}, ipc.ErrOuterShape},
		"array of 2":        {[]byte{0x92, 0, 1}, ipc.ErrOuterShape},
		"array of 5":        {[]byte{0x95, 0}, ipc.ErrOuterShape},
		"array16 of 2":      {[]byte{0xdc, 0, 2}, ipc.ErrOuterShape},
		"array16 of 260":    {[]byte{0xdc, 1, 4}, ipc.ErrOuterShape},
		"array32 of 2":      {[]byte{0xdd, 0, 0, 0, 2}, ipc.ErrOuterShape},
		"array32 of 4 Gi":   {[]byte{0xdd, 0xff, 0xff, 0xff, 0xff}, ipc.ErrOuterShape},
		"the unused byte":   {[]byte{0x94, 0, 1, 0xc1}, ipc.ErrNotMessagePack},
		"bin of 4 GiB":      {[]byte{0x94, 0xc6, 0xff, 0xff, 0xff, 0xff}, ipc.ErrTooLarge},
		"str of 256 MiB":    {[]byte{0x94, 0xdb, 0x10, 0, 0, 0}, ipc.ErrTooLarge},
		"ext of 2 GiB":      {[]byte{0x94, 0xc9, 0x80, 0, 0, 0}, ipc.ErrTooLarge},
		"array of 4 Gi":     {[]byte{0x94, 0xdd, 0xff, 0xff, 0xff, 0xff}, ipc.ErrTooLarge},
		"map of 4 Gi":       {[]byte{0x94, 0xdf, 0xff, 0xff, 0xff, 0xff}, ipc.ErrTooLarge},
		"map of 2 Gi":       {[]byte{0x94, 0xdf, 0x80, 0, 0, 0}, ipc.ErrTooLarge},
		"33 levels":         {bytes.Repeat([]byte{0x94}, 34), ipc.ErrTooDeep},
		"a million arrays":  {append([]byte{0x94}, bytes.Repeat([]byte{0x91}, 1_000_000)...), ipc.ErrTooDeep},
		"a million maps":    {append([]byte{0x94}, bytes.Repeat([]byte{0x81}, 1_000_000)...), ipc.ErrTooDeep},
		"one byte too long": {longMessage(1001), ipc.ErrTooLarge},
	} {
		limit := ipc.MaxRequest
		if what == "one byte too long" {
			limit = 1000
		}
		for _, piece := range []int{1, 3, len(c.stream)} {
			_, err := splitAll(c.stream, limit, piece)
			require.Same(t, c.want, err, "%s, %d bytes at a time", what, piece)
		}
	}
	got, err := splitAll(longMessage(1000), 1000, 7)
	require.Nil(t, err)
	require.Equal(t, []int{1000}, got)
}

// longMessage returns a message of n bytes, 300 <= n < 65,000.
func longMessage(n int) []byte {
	return append([]byte{0x93, 2, 0, 0xc5, byte((n - 6) >> 8), byte(n - 6)}, make([]byte, n-6)...)
}

// What could go wrong: nesting up to the limit is refused, or Reader and Splitter draw the line
// elsewhere.
func TestSplitter_NestsToTheLimit(t *testing.T) {
	nested := func(levels int) []byte {
		b := append([]byte{0x93, 2, 0}, bytes.Repeat([]byte{0x91}, levels-1)...)
		return append(b, 0xc0)
	}
	_, err := splitAll(nested(ipc.MaxDepth), ipc.MaxRequest, 1)
	require.Nil(t, err)
	require.NoError(t, ipc.Validate(nested(ipc.MaxDepth)))
	_, err = splitAll(nested(ipc.MaxDepth+1), ipc.MaxRequest, 1)
	require.Same(t, ipc.ErrTooDeep, err)
	require.ErrorIs(t, ipc.Validate(nested(ipc.MaxDepth+1)), ipc.ErrDepth)
}

// What could go wrong: an error does not stick, and the bytes behind it pass for a message.
func TestSplitter_StaysInError(t *testing.T) {
	split := ipc.NewSplitter(100)
	_, err := split.Next([]byte{0xc1})
	require.NotNil(t, err)
	_, err = split.Next(ipc.AppendGet(nil, 1, []byte("k")))
	require.NotNil(t, err)
}

// What could go wrong: a connection that is in the middle of a message looks idle, or the other way
// round.
func TestSplitter_Started(t *testing.T) {
	message := ipc.AppendGet(nil, 1, []byte("k"))
	for n := range len(message) {
		split := ipc.NewSplitter(100)
		_, err := split.Next(message[:n])
		require.Nil(t, err)
		require.Equal(t, n > 0, split.Started(), "%d bytes", n)
		got, err := split.Next(message)
		require.Nil(t, err)
		require.Equal(t, len(message), got)
		require.False(t, split.Started())
	}
}

// What could go wrong: each piece of a long message has its beginning parsed again, so that a list
// of many keys in small reads takes quadratic time; or a bomb has memory set aside.
func TestSplitter_LinearAndFlat(t *testing.T) {
	const keys = 400_000 // past what one call may name: it is the structure that is long
	message := ipc.AppendArrayHeader([]byte{0x94, 0, 1, 0xa4, 'm', 'g', 'e', 't', 0x91}, keys)
	for range keys {
		message = append(message, 0xc4, 1, 'k')
	}
	split := ipc.NewSplitter(ipc.MaxRequest)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	calls := 0
	for end := 16; ; end += 16 {
		end = min(end, len(message))
		n, err := split.Next(message[:end])
		calls++
		require.Nil(t, err)
		if n > 0 {
			require.Equal(t, len(message), n)
			break
		}
	}
	// From the start each time it would be 75,000 calls over 200,000 values on average: minutes.
	require.Less(t, time.Since(start), time.Minute, "%d calls", calls)
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(100<<20), "of which require's own")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		s := ipc.NewSplitter(ipc.MaxRequest)
		_, _ = s.Next([]byte{0x94, 0xdd, 0x03, 0xff, 0xff, 0xff}) // 64 Mi elements: room for that many bytes
		_, _ = s.Next([]byte{0x94, 0xdd, 0x03, 0xff, 0xff, 0xff, 0x91})
	}))
}

// FuzzSplitter looks for a stream whose messages end elsewhere in pieces than in one, that panics,
// or that a Reader sees otherwise.
func FuzzSplitter(f *testing.F) {
	for _, e := range examples(f) {
		f.Add(e.bytes, uint8(1))
	}
	f.Add([]byte{0x94, 0xc6, 0xff, 0xff, 0xff, 0xff}, uint8(2))
	f.Add(bytes.Repeat([]byte{0x94}, 40), uint8(3))
	f.Add([]byte{0xdd, 0, 0, 0, 3, 1, 2, 3, 0xdc, 0, 4, 0x81, 0, 0xdf, 0, 0, 0, 0, 1, 0xc1}, uint8(1))
	f.Fuzz(func(t *testing.T, stream []byte, piece uint8) {
		const limit = 4096
		whole, werr := splitAll(stream, limit, max(len(stream), 1))
		cut, cerr := splitAll(stream, limit, 1+int(piece))
		require.Equal(t, whole, cut)
		require.Equal(t, werr, cerr)
		for _, n := range whole {
			require.LessOrEqual(t, n, limit)
			require.NoError(t, ipc.Validate(stream[:n]))
			stream = stream[n:]
		}
		if werr == nil && len(stream) > 0 {
			require.Error(t, ipc.Validate(stream), "the rest is no whole message")
		}
	})
}
