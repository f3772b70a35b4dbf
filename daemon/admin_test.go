package daemon

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ipc"
)

// fetch asks the admin socket at path.
func fetch(t *testing.T, path, what string) (int, string) {
	t.Helper()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) },
	}
	client := http.Client{Transport: transport, Timeout: patience}
	answer, err := client.Get("http://rskv" + what)
	require.NoError(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(text)
}

// sampleLine is one line of the exposition that is no comment.
var sampleLine = regexp.MustCompile(`^([a-z_]+)(\{[^}]*\})? (\S+)$`)

// TestAdmin_Metrics: a metric that says something else than stats, one without a
// unit or a type, or a format that scrapers refuse.
func TestAdmin_Metrics(t *testing.T) {
	d := start(t, nil)
	w := d.dial()
	w.want(true, "put", "a", "1")
	w.want([]byte("1"), "get", "a")
	w.refuse("NotInteger", "add", "a", 1)
	code, text := fetch(t, d.cfg.Socket+adminSuffix, "/metrics")
	require.Equal(t, 200, code)
	for _, want := range []string{
		"rskv_keys 1\n", `rskv_requests_total{method="put"} 1`, `rskv_request_errors_total{code="NotInteger",category="user"} 1`,
		`rskv_key_operations_total{method="get",outcome="yes"} 1`, `rskv_key_operations_total{method="add",outcome="error"} 1`,
		`rskv_device_operation_duration_seconds_count{kind="sync"}`, `rskv_task_runs_total{task="commit"}`,
		"rskv_ready 1\n", "rskv_writable 1\n", "# TYPE rskv_log_address_bytes gauge\n", "process_start_time_seconds 1.",
		`rskv_request_duration_seconds_bucket{kind="read",wait="none",le="+Inf"}`,
	} {
		require.Contains(t, text, want)
	}
	documented := map[string]string{}
	for _, m := range MetricDocs() {
		require.NotContains(t, documented, m.Name, "described twice")
		documented[m.Name] = m.Kind
		require.Equal(t, m.Kind == "counter", strings.HasSuffix(m.Name, "_total"), m.Name)
		require.True(t, strings.HasSuffix(m.Help, "."), "%s: %q", m.Name, m.Help)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		parts := sampleLine.FindStringSubmatch(strings.TrimSpace(line))
		require.NotNil(t, parts, "not a sample: %s", line)
		require.False(t, seen[parts[1]+parts[2]], "twice: %s", line)
		seen[parts[1]+parts[2]] = true
		base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(parts[1], "")
		if documented[base] != "histogram" {
			base = parts[1]
		}
		require.Contains(t, documented, base, "a metric that is not described")
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Log("promtool is not there: its view of the metrics was not asked")
		return
	}
	check := exec.Command(promtool, "check", "metrics")
	check.Stdin = strings.NewReader(text)
	out, err := check.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, string(out))
}

// TestMetrics_Complete: a counter of the daemon or the engine that nobody sees.
func TestMetrics_Complete(t *testing.T) {
	d := start(t, nil)
	stats := d.dial().ask("stats").result.(map[string]any)
	for name, v := range stats {
		if _, text := v.(string); !text && !exposed(name) {
			t.Errorf("%s has no row in the table of metrics", name)
		}
	}
	for _, m := range metrics {
		require.Contains(t, stats, m.stat, "a row for a number that there is not")
	}
	require.LessOrEqual(t, len(ipc.Codes), codeCount)
}

// TestAdmin_Health: a daemon that calls itself ready when it is not, or dead
// when it is alive; a socket that others may open.
func TestAdmin_Health(t *testing.T) {
	d := start(t, func(c *Config) { c.MaxConnections = 1 })
	path := d.cfg.Socket + adminSuffix
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, adminMode, info.Mode().Perm())
	w := d.dial()
	w.want("pong", "ping")
	// A daemon that is full is alive.
	for range 50 {
		code, text := fetch(t, path, "/livez")
		require.Equal(t, 200, code, text)
		code, text = fetch(t, path, "/readyz")
		require.Equal(t, 200, code, text)
	}
	w.want("pong", "ping")
	_, text := fetch(t, path, "/status")
	var st status
	require.NoError(t, json.Unmarshal([]byte(text), &st))
	require.Equal(t, "serving", st.Phase)
	require.True(t, st.Ready)
	require.Len(t, st.Settings, len(settings))
	require.EqualValues(t, 32<<20, st.Stats["engine_memory"])
	d.stop()
	require.NoFileExists(t, path)
}

// TestAdmin_Phases: health and metrics asked before the store is open and after
// it was closed, when there is no store to look at.
func TestAdmin_Phases(t *testing.T) {
	s := newServer(testConfig(t), nil)
	require.ErrorContains(t, s.health.ready(), "opening")
	require.NoError(t, s.probe(t.Context()))
	require.NotEmpty(t, s.families())
	require.Nil(t, s.status().(status).Stats)
	s.health.enter(closed)
	require.ErrorContains(t, s.health.ready(), "stopping")
	require.NotEmpty(t, s.families())
	require.Nil(t, s.status().(status).Stats)
}

// TestProbe_Dead: a daemon that accepts and never answers, and is called alive.
func TestProbe_Dead(t *testing.T) {
	cfg := testConfig(t)
	listener, err := net.Listen("unix", cfg.Socket)
	require.NoError(t, err)
	defer listener.Close()
	s := newServer(cfg, nil)
	s.address = cfg.Socket
	s.health.enter(serving)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	require.ErrorContains(t, s.probe(ctx), "does not answer")
	require.NoError(t, listener.Close())
	require.ErrorContains(t, s.probe(t.Context()), "connect to")
}

// anyPort has the system choose the port; tcpAddress says which.
const anyPort = "127.0.0.1:0"

func (d *running) tcpAddress() string {
	d.t.Helper()
	found := regexp.MustCompile(`admin=.*http://(127\.0\.0\.1:\d+)`).FindStringSubmatch(d.log.String())
	require.NotNil(d.t, found, d.log)
	return found[1]
}

// TestAdmin_Listen: an address that other machines reach, or one that shows
// what is in memory.
func TestAdmin_Listen(t *testing.T) {
	for _, bad := range []string{"0.0.0.0:9510", "10.0.0.1:9510", ":9510", "127.0.0.1", "localhost:9510", "example.org:80"} {
		cfg := testConfig(t)
		cfg.AdminListen = bad
		require.ErrorContains(t, cfg.Validate(), "admin_listen: not a loopback address", bad)
	}
	d := start(t, func(c *Config) { c.AdminListen, c.AdminSocket = anyPort, adminOff })
	address := d.tcpAddress()
	require.NoFileExists(t, d.cfg.Socket+adminSuffix)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	for path, want := range map[string]int{"/metrics": 200, "/": 200, "/debug/pprof/": 404} {
		answer, err := client.Get("http://" + address + path)
		require.NoError(t, err)
		_ = answer.Body.Close()
		require.Equal(t, want, answer.StatusCode, path)
	}
}
