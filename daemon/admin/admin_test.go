package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// A server that was closed must leave no goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var sample = []Family{
	{"x_total", Counter, "Things\nwith \\.", []Sample{{Labels: []Label{{"how", "a\"b\\c\nd"}}, Value: 3}}},
	{"empty_total", Counter, "Nothing.", nil},
	{"x_seconds", Histogram, "Times.", []Sample{{
		Labels: []Label{{"kind", "read"}},
		Of:     &Distribution{Bounds: []float64{0.5, 1}, Counts: []uint64{1, 2, 3}, Sum: 12.5},
	}}},
}

// TestAppendText: text that a scraper reads otherwise: a label that ends early,
// buckets that are not cumulative, a count that is not that of the last bucket.
func TestAppendText(t *testing.T) {
	require.Equal(t, `# HELP x_total Things\nwith \\.
# TYPE x_total counter
x_total{how="a\"b\\c\nd"} 3
# HELP x_seconds Times.
# TYPE x_seconds histogram
x_seconds_bucket{kind="read",le="0.5"} 1
x_seconds_bucket{kind="read",le="1"} 3
x_seconds_bucket{kind="read",le="+Inf"} 6
x_seconds_sum{kind="read"} 12.5
x_seconds_count{kind="read"} 6
`, string(AppendText(nil, sample)))
}

func source(health error) Source {
	return Source{
		Metrics: func() []Family { return sample },
		Status:  func() any { return map[string]int{"one": 1} },
		Live:    func(context.Context) error { return health },
		Ready:   func() error { return health },
	}
}

func get(h http.Handler, method, target string) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w.Code, w.Body.String()
}

// TestHandler: a path that is missing, answers what changes things, or is open
// to those it is not for.
func TestHandler(t *testing.T) {
	h := Handler(source(nil), true, false)
	for path, want := range map[string]string{
		"/metrics": "# TYPE x_total counter", "/status": `{"one":1}`, "/livez": "ok", "/readyz": "ok",
		"/": "<!doctype html>", "/debug/pprof/": "goroutine",
	} {
		code, body := get(h, "GET", "http://rskv"+path)
		require.Equal(t, 200, code, path)
		require.Contains(t, body, want, path)
		code, _ = get(h, "POST", "http://rskv"+path)
		require.Equal(t, http.StatusMethodNotAllowed, code, path)
	}
	code, _ := get(h, "GET", "http://rskv/nonsense")
	require.Equal(t, http.StatusNotFound, code)

	sick := Handler(source(errors.New("the disk is gone")), true, false)
	for _, path := range []string{"/livez", "/readyz"} {
		code, body := get(sick, "GET", "http://rskv"+path)
		require.Equal(t, http.StatusServiceUnavailable, code)
		require.Equal(t, "the disk is gone\n", body)
	}

	local := Handler(source(nil), false, true)
	for host, want := range map[string]int{
		"127.0.0.1:9510": 200, "localhost:9510": 200, "localhost": 200, "[::1]:9510": 200, "[::1]": 200, "127.0.0.1": 200,
		"evil.example": 403, "evil.example:9510": 403, "10.0.0.1:9510": 403, "localhost.evil.example": 403,
	} {
		code, _ := get(local, "GET", "http://"+host+"/metrics")
		require.Equal(t, want, code, host)
	}
	code, _ = get(local, "GET", "http://127.0.0.1/debug/pprof/")
	require.Equal(t, http.StatusNotFound, code)
}

// TestServer: connections beyond the bound that are served all the same, and a
// server that does not end while a client says nothing.
func TestServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	require.NoError(t, err)
	s := Serve(listener, Handler(source(nil), false, false), slog.New(slog.DiscardHandler))
	silent := make([]net.Conn, connectionsMax)
	for i := range silent {
		silent[i], err = net.Dial("unix", path)
		require.NoError(t, err)
		_, err = fmt.Fprintf(silent[i], "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		require.NoError(t, err)
		_, err = silent[i].Read(make([]byte, 1))
		require.NoError(t, err, "connection %d was refused", i)
	}
	more, err := net.Dial("unix", path)
	require.NoError(t, err)
	require.NoError(t, more.SetReadDeadline(time.Now().Add(time.Minute)))
	_, err = more.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "one more than the bound is served")
	require.NoError(t, silent[0].Close())
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", path)
		},
	}}
	require.Eventually(t, func() bool {
		answer, err := client.Get("http://rskv/livez")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		return strings.TrimSpace(string(text)) == "ok"
	}, time.Minute, time.Millisecond, "a place that was left is not given to another")
	begin := time.Now()
	s.Close(50 * time.Millisecond)
	require.Less(t, time.Since(begin), 30*time.Second)
	for _, conn := range append(silent, more) {
		_ = conn.Close()
	}
}
