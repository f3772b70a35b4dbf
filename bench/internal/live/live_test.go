package live

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A log file full of carriage returns cannot be read: off a terminal there are
// whole lines only.
func TestLine_Plain(t *testing.T) {
	var out bytes.Buffer
	l := New(&out)
	l.Steps(2)
	l.Step("one")
	l.Watch("job", time.Second, func() (uint64, uint64) { t.Error("counted"); return 0, 0 })()
	l.Say("said %d", 2)
	l.Done()
	require.Equal(t, "one\nsaid 2\n", out.String())
}

// On a terminal the rate must be that of the last moment, and a line that stays
// must not have the rest of a longer one behind it.
func TestLine_Terminal(t *testing.T) {
	var out locked
	l := New(&out)
	l.terminal = true
	looks := uint64(0)
	stop := l.Watch("job", 10*time.Second, func() (uint64, uint64) {
		looks++
		return looks * 1000, looks * 1000 * 5000
	})
	require.Eventually(t, func() bool { return bytes.Contains(out.bytes(), []byte("5.00 us")) }, time.Minute, 10*time.Millisecond)
	stop()
	stop()
	l.Say("short")
	text := out.bytes()
	require.Contains(t, string(text), "\rjob  ")
	require.Contains(t, string(text), " of 10 s")
	require.True(t, bytes.HasSuffix(text, []byte(" \rshort\n")), "%q", text)
}

// An estimate from no step would divide by zero, one behind the end be negative.
func TestLine_Left(t *testing.T) {
	l := New(&bytes.Buffer{})
	l.Steps(4)
	require.Zero(t, l.leftLocked())
	l.Step("a")
	l.begin = time.Now().Add(-time.Hour)
	require.InDelta(t, 3, l.leftLocked().Hours(), 0.1)
	for range 4 {
		l.Step("b")
	}
	require.Zero(t, l.leftLocked())
}

func TestShort(t *testing.T) {
	for x, want := range map[float64]string{0: "0.00", 12.345: "12.35", 123.4: "123", 83_123: "83.1 k", 2_345_678: "2.35 M"} {
		require.Equal(t, want, Short(x))
	}
}

// locked is a buffer for two goroutines.
type locked struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *locked) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.buf.Bytes())
}
