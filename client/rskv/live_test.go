package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Rates must be those of the time between two samples, and what a daemon of
// another version does not tell must not break the view.
func TestLive_Lines(t *testing.T) {
	at := time.Unix(1_000_000, 0)
	before := sample{at, map[string]any{"daemon_requests": int64(1000), "engine_reads": uint64(50), "daemon_requests_get": int64(0), "daemon_requests_put": int64(4)}}
	now := sample{at.Add(2 * time.Second), map[string]any{
		"daemon_requests": int64(5000), "engine_reads": uint64(1050), "engine_keys": int64(1_234_567), "daemon_bytes_in": uint64(3_000_000),
		"daemon_connections": int64(7), "health": "ok", "latency_read_none_p99_ns": int64(12_000), "daemon_uptime_seconds": 3600.5,
		"daemon_requests_get": int64(2000), "daemon_requests_put": int64(4), "io_backend": "io_uring", "version": "v1",
	}}
	line := statLine(before, now)
	require.Equal(t, " 1,234,567        2,000      500         0       0       1.5       0.0        0.0      12us        7  ok", line)
	for i, name := range strings.Fields("keys requests/s reads/s") {
		require.Contains(t, statHead, name)
		end := strings.Index(statHead, name) + len(name)
		require.NotEqual(t, byte(' '), line[end-1], "column %d is not under its head:\n%s\n%s", i, statHead, line)
	}
	lines := strings.Join(topLines(before, now), "\n")
	require.Contains(t, lines, "rskvd v1   up 1h0m0s   io_uring")
	require.Contains(t, lines, "  get                      1,000 /s")
	require.NotContains(t, lines, "  put  ")
	require.Zero(t, now.perSecond(now, "daemon_requests"))
	require.Zero(t, before.perSecond(before, "nonsense"))
}

// A frame that is longer or wider than the screen scrolls it to pieces.
func TestTop_Frame(t *testing.T) {
	s := sample{time.Unix(0, 0), map[string]any{"engine_state": strings.Repeat("ü", 500)}}
	view := &board{width: 40, height: 5, blocks: true}
	for i := range 2 * historyMax {
		view.note(float64(i))
	}
	require.Len(t, view.history, historyMax)
	for _, width := range []int{1, 11, 40, 63, 120, 1000} {
		view.width = width
		text := frame(s, s, view)
		lines := strings.Split(text, "\r\n")
		require.Len(t, lines, 5)
		require.True(t, strings.HasPrefix(lines[0], screenHome))
		require.True(t, strings.HasSuffix(text, screenRest))
		for i, line := range lines {
			line = strings.TrimSuffix(strings.TrimPrefix(line, screenHome), screenRest)
			require.True(t, strings.HasSuffix(line, lineRest))
			cells := len([]rune(regexp.MustCompile("\x1b[^a-zA-Z]*[a-zA-Z]").ReplaceAllString(line, "")))
			require.LessOrEqual(t, cells, width, "line %d", i)
			if i == 0 {
				require.Equal(t, width, cells, "the title reaches across")
			}
		}
		require.Contains(t, lines[1], styleAlarm, "a state that is not ok")
	}
	require.Equal(t, " ▄█", (&board{blocks: true, history: []float64{9, 0, 1, 2}}).curve(3))
	require.Empty(t, (&board{history: []float64{1}}).curve(3))
	env := func(m map[string]string) func(string) string { return func(n string) string { return m[n] } }
	require.True(t, speaksUTF8(env(map[string]string{"LANG": "de_DE.utf8"})))
	require.False(t, speaksUTF8(env(map[string]string{"LANG": "de_DE.UTF-8", "LC_ALL": "C"})))
	require.False(t, speaksUTF8(env(nil)))
}

// A command that stands under no heading of the help is not found there.
func TestHelp_Groups(t *testing.T) {
	r := rskv(t, "", "", "help")
	require.Equal(t, 0, r.code)
	require.NotContains(t, r.stdout, "Additional Commands")
	require.Contains(t, r.stdout, "\nKeys:\n")
	for _, c := range (&tool{}).root().Commands() {
		require.Contains(t, r.stdout, "\n  "+c.Name()+" ")
	}
}

// A view that goes on until it is interrupted must end well then, and print what
// a program can read.
func TestLive(t *testing.T) {
	f := newFake(t)
	code, text := during(t, f.socket, func(text string) bool { return strings.Count(text, "\n") >= 1 }, "--latency", "--json")
	require.Equal(t, 0, code)
	require.Regexp(t, `^({"pings":\d+,"min_us":\d+,"p50_us":\d+,"p99_us":\d+,"max_us":\d+}\n)+$`, text)
	code, text = during(t, f.socket, func(text string) bool { return strings.Count(text, "\n") >= 2 }, "--stat")
	require.Equal(t, 0, code)
	require.True(t, strings.HasPrefix(text, statHead+"\n"), text)
	code, text = during(t, f.socket, func(text string) bool { return strings.Count(text, "\n") >= 1 }, "--stat", "--json")
	require.Equal(t, 0, code)
	require.Contains(t, text, `"stats":{"keys":0,`)
	require.Equal(t, result{2, "", "rskv: top needs a terminal (rskv --stat prints lines)\n"}, rskv(t, f.socket, "", "top"))
	require.Equal(t, result{2, "", "rskv: one of --latency, --stat, --bigkeys and --pipe at a time\n"}, rskv(t, f.socket, "", "--stat", "--latency"))
	for ns, want := range map[float64]string{0: "-", 1500: "2us", 2.5e6: "2.5ms", 3e9: "3.0s"} {
		require.Equal(t, want, short(ns), fmt.Sprint(ns))
	}
}
