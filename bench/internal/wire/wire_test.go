package wire

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/stretchr/testify/require"

	"rskv/bench/internal/draw"
	"rskv/bench/internal/measure"
	"rskv/ioring/iotest/seeds"
	"rskv/ipc"
)

// Keys that differ from redis-benchmark's would make its gets miss.
func TestAppendKey(t *testing.T) {
	require.Equal(t, "key:000000000000", string(AppendKey(nil, 0)))
	require.Equal(t, "xkey:000000123456", string(AppendKey([]byte("x"), 123456)))
	require.Equal(t, "key:000000000007key:0000", string(AppendValue(nil, 7, 24)))
}

// An answer cut at any byte must wait for the rest, never be taken for another.
func TestTake_CutAnywhere(t *testing.T) {
	long := bytes.Repeat([]byte("v"), 300)
	for _, c := range []struct {
		name    string
		dialect Dialect
		stream  []byte
		want    []Answer
	}{
		{"RESP", RESP{}, []byte("+OK\r\n$-1\r\n$3\r\na\r\n\r\n$0\r\n\r\n"), []Answer{
			{Found: true}, {}, {Value: []byte("a\r\n"), Found: true}, {Value: []byte{}, Found: true}}},
		{"rskv", RSKV{}, rskvAnswers(long), []Answer{
			{ID: 1, Found: true}, {ID: 127}, {ID: 128, Value: []byte("abc"), Found: true},
			{ID: 4000, Value: long, Found: true}, {ID: 70000, Value: []byte{}, Found: true}, {ID: 3}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []Answer
			for rest := c.stream; len(rest) > 0; {
				var a Answer
				n := 0
				for have := 0; have <= len(rest) && n == 0; have++ {
					var err error
					n, err = c.dialect.Take(rest[:have], &a)
					require.NoError(t, err)
				}
				require.NotZero(t, n, "behind %v", got)
				a.Value = bytes.Clone(a.Value)
				if c.dialect.Ordered() {
					a.ID = 0
				}
				got = append(got, a)
				rest = rest[n:]
			}
			require.Equal(t, c.want, got)
		})
	}
}

func rskvAnswers(long []byte) []byte {
	b := ipc.AppendBoolResult(nil, 1, true)
	b = ipc.AppendNilResult(b, 127)
	b = ipc.AppendBinResult(b, 128, []byte("abc"))
	b = ipc.AppendBinResult(b, 4000, long)
	b = ipc.AppendBinResult(b, 70000, nil)
	return ipc.AppendBoolResult(b, 3, false)
}

// An error taken for an answer would count as throughput.
func TestTake_Errors(t *testing.T) {
	for _, c := range []struct {
		dialect Dialect
		stream  string
		want    string
	}{
		{RESP{}, "-OOM command not allowed\r\n", "OOM command not allowed"},
		{RESP{}, "hello\r\n", "not RESP"},
		{RESP{}, "\n", "not RESP"},
		{RESP{}, "$99999999999999999999\r\n", "length"},
		{RSKV{}, string(ipc.AppendErrorResponse(nil, 5, ipc.CodeBusy, "later")), "Busy"},
		{RSKV{}, string(ipc.AppendIntResult(nil, 5, 7)), "unexpected shape"},
		{RSKV{}, "\xc1\xc1\xc1\xc1\xc1\xc1", "BadRequest"},
	} {
		var a Answer
		_, err := c.dialect.Take([]byte(c.stream), &a)
		require.ErrorContains(t, err, c.want)
	}
}

// The generator must find every key that it stored, count those that are not
// there, and notice a value of another key; answers out of order included.
func TestLoad_AgainstFake(t *testing.T) {
	seed := seeds.New(t)
	for _, dialect := range []Dialect{RESP{}, RSKV{}, RSKV{Sync: true}} {
		t.Run(fmt.Sprintf("%T%v", dialect, dialect), func(t *testing.T) {
			fake := startFake(t, dialect, seed)
			l := Load{
				Dialect: dialect, Socket: fake.path, Connections: 3, Window: 17, Keys: 300, ValueSize: 50,
				Source: func(c int) draw.Source { return draw.NewUniform(600, seed+uint64(c)) },
				Limit:  2000, Times: hdrhistogram.New(1, int64(time.Minute), 3),
			}
			require.NoError(t, l.Preload(t.Context()))
			require.Len(t, fake.data, 300)
			s, err := l.Run(t.Context(), time.Minute)
			require.NoError(t, err)
			require.EqualValues(t, 6000, s.Reads)
			require.InDelta(t, 3000, s.Hits, 300, "half of the keys are not there")
			require.EqualValues(t, 6000, l.Times.TotalCount())

			for i := range uint64(20) { // several, so that one of them is surely drawn
				fake.set(string(AppendKey(nil, i)), []byte("key:000000000043, which is another"))
			}
			_, err = l.Run(t.Context(), time.Minute)
			require.ErrorIs(t, err, measure.ErrWrong)
		})
	}
}

// A server that falls silent must not hang the run when it is interrupted.
func TestLoad_ContextEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	require.NoError(t, err)
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	l := Load{Dialect: RESP{}, Socket: path, Connections: 2, Window: 1, Keys: 1,
		Source: func(int) draw.Source { return draw.NewUniform(1, 1) }}
	_, err = l.Run(ctx, time.Hour)
	require.Error(t, err)
	require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
}

// fake is a server of either dialect over a map.
type fake struct {
	path string
	mu   sync.Mutex
	data map[string][]byte
}

func (f *fake) set(k string, v []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.data[k] = v
}

func startFake(t *testing.T, d Dialect, seed uint64) *fake {
	f := &fake{path: filepath.Join(t.TempDir(), "s"), data: map[string][]byte{}}
	ln, err := net.Listen("unix", f.path)
	require.NoError(t, err)
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			seed++
			rng := rand.New(rand.NewPCG(seed, 1))
			wg.Go(func() { f.serve(c, d, rng) })
		}
	})
	return f
}

// serve answers what came, in any order where the dialect allows it, and cuts
// its answers at any byte.
func (f *fake) serve(c net.Conn, d Dialect, rng *rand.Rand) {
	defer c.Close()
	var in []byte
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		in = append(in, buf[:n]...)
		var answers [][]byte
		for {
			a, size := f.answer(in, d)
			if size == 0 {
				break
			}
			answers, in = append(answers, a), in[size:]
		}
		if !d.Ordered() {
			rng.Shuffle(len(answers), func(i, j int) { answers[i], answers[j] = answers[j], answers[i] })
		}
		out := bytes.Join(answers, nil)
		for len(out) > 0 {
			n := 1 + rng.IntN(len(out))
			if _, err := c.Write(out[:n]); err != nil {
				return
			}
			out = out[n:]
		}
	}
}

// answer answers the request at the start of in, and says how long that was.
func (f *fake) answer(in []byte, d Dialect) ([]byte, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.Ordered() {
		return f.resp(in)
	}
	splitter := ipc.NewSplitter(1 << 20)
	n, _ := splitter.Next(in)
	if n == 0 {
		return nil, 0
	}
	var q ipc.Request
	var call ipc.Call
	limits := ipc.DefaultLimits()
	if ipc.ParseRequest(in[:n], &q) != nil || ipc.ParseCall(&q, &limits, &call) != nil {
		return ipc.AppendErrorResponse(nil, 0, ipc.CodeBadRequest, "fake"), n
	}
	if call.Method == ipc.MethodPut {
		f.data[string(call.Key)] = bytes.Clone(call.Value)
		return ipc.AppendBoolResult(nil, q.ID, call.Sync == d.(RSKV).Sync), n
	}
	if v, ok := f.data[string(call.Key)]; ok {
		return ipc.AppendBinResult(nil, q.ID, v), n
	}
	return ipc.AppendNilResult(nil, q.ID), n
}

func (f *fake) resp(in []byte) ([]byte, int) {
	parts := 0
	if _, err := fmt.Sscanf(string(in), "*%d\r\n", &parts); err != nil {
		return nil, 0
	}
	at := bytes.IndexByte(in, '\n') + 1
	var words [][]byte
	for range parts {
		var a Answer
		n, err := RESP{}.Take(in[at:], &a)
		if n == 0 || err != nil {
			return nil, 0
		}
		words, at = append(words, a.Value), at+n
	}
	if string(words[0]) == "SET" {
		f.data[string(words[1])] = bytes.Clone(words[2])
		return []byte("+OK\r\n"), at
	}
	if v, ok := f.data[string(words[1])]; ok {
		return appendBulk(nil, v), at
	}
	return []byte("$-1\r\n"), at
}
