package daemon

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"rskv/ipc"
)

// load loads settings from a command line, variables and the text of a file.
func load(t *testing.T, args []string, env []string, file string) (Config, string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f.toml")
	if file != "" {
		require.NoError(t, os.WriteFile(path, []byte(file), 0o600))
		env = append(env, "RSKV_CONFIG="+path)
	}
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	AddFlags(flags)
	require.NoError(t, flags.Parse(args))
	cfg, err := Load(flags, env)
	return cfg, path, err
}

// TestLoad_Order: a setting that the wrong place decides.
func TestLoad_Order(t *testing.T) {
	file := "memory = \"64MiB\"\nmax_connections = 5\nlog_level = 'warn'\n"
	cfg, path, err := load(t, []string{"--memory", "256MiB"}, []string{"RSKV_MEMORY=128MiB", "RSKV_MAX_CONNECTIONS=6", "HOME=/", "RSKV_DIR="}, file)
	require.NoError(t, err)
	require.EqualValues(t, 256<<20, cfg.Memory)
	require.Equal(t, 6, cfg.MaxConnections)
	require.Equal(t, slog.LevelWarn, cfg.LogLevel)
	require.Equal(t, Defaults().Dir, cfg.Dir, "an empty variable counts")
	origins := map[string]string{}
	for _, s := range cfg.All() {
		origins[s.Name] = s.Origin
	}
	require.Equal(t, "--memory", origins["memory"])
	require.Equal(t, "RSKV_MAX_CONNECTIONS", origins["max_connections"])
	require.Equal(t, path+":3: log_level", origins["log_level"])
	require.Equal(t, "default", origins["io"])

	other := filepath.Join(t.TempDir(), "other.toml")
	require.NoError(t, os.WriteFile(other, []byte("io = \"sync\""), 0o600))
	cfg, _, err = load(t, []string{"--config", other}, nil, file)
	require.NoError(t, err)
	require.Equal(t, "sync", cfg.IO)
	require.Equal(t, 1024, cfg.MaxConnections, "the file of the variable was read too")
}

// TestLoad_EverySetting: a name that differs between flag, variable and file,
// or that one of them does not have.
func TestLoad_EverySetting(t *testing.T) {
	values := map[string]string{
		"preset": "low-memory", "dir": "/d", "socket": "/s", "socket_mode": "0600", "socket_group": "0", "roles": "*=read", "more_sockets": "/m mode=0600; /n", "max_connections_user": "25", "max_rate_user": "26", "sandbox": "on", "admin_socket": "/a", "admin_listen": "127.0.0.1:1", "io": "uring", "memory": "1GiB", "page_size": "2MiB",
		"segment_size": "128MiB", "commit_interval": "5s", "max_key": "100", "max_value": "1MiB", "max_request": "2MiB",
		"max_answer": "2MiB", "max_keys": "7", "max_unanswered": "8", "max_queued": "9KiB", "max_queued_all": "10KiB",
		"request_memory": "128MiB", "max_connections": "11", "max_sessions": "12", "request_timeout": "13s",
		"answer_timeout": "14s", "checkpoint_distance": "16MiB", "checkpoints_kept": "17", "session_expiry": "18s",
		"recover_version": "19", "drain_timeout": "15s", "backup_timeout": "20s", "max_watches": "27", "watch_timeout": "28s", "slowlog_threshold": "23ms", "slowlog_size": "24", "scrub_interval": "21s", "scrub_rate": "22MiB", "log_level": "debug", "log_format": "json", "disk": "2GiB", "live_ratio": "0.25", "ordered": "on",
	}
	for _, s := range settings {
		if s.name == "config" {
			continue
		}
		require.Contains(t, values, s.name, "a setting without a test")
		v := values[s.name]
		for place, get := range map[string]func() (Config, string, error){
			"flag":     func() (Config, string, error) { return load(t, []string{"--" + flagName(s.name), v}, nil, "") },
			"variable": func() (Config, string, error) { return load(t, nil, []string{variable(s.name) + "=" + v}, "") },
			"file":     func() (Config, string, error) { return load(t, nil, nil, fmt.Sprintf("%s = %q", s.name, v)) },
		} {
			cfg, _, err := get()
			if s.flagOnly() && place != "flag" {
				require.ErrorContains(t, err, ": no such setting", "%s by %s", s.name, place)
				continue
			}
			if s.name == "max_request" || s.name == "max_answer" {
				require.ErrorContains(t, err, s.name) // no room for max_value
			} else {
				require.NoError(t, err, "%s by %s", s.name, place)
			}
			require.Equal(t, v, s.bind(&cfg).String(), "%s by %s", s.name, place)
		}
	}
}

// TestLoad_Presets: a preset that contradicts itself, or counts over what is said
// elsewhere, wherever the two stand.
func TestLoad_Presets(t *testing.T) {
	for _, p := range presets {
		for _, v := range p.values {
			_, ok := settingByName(v[0])
			require.True(t, ok, "%s sets %s", p.name, v[0])
		}
		cfg, _, err := load(t, []string{"--preset", p.name}, nil, "")
		require.NoError(t, err, p.name)
		require.Equal(t, p.name, cfg.Preset)
	}
	cfg, _, err := load(t, []string{"--max-connections", "5"}, []string{"RSKV_MEMORY=64MiB"}, "max_keys = 7\npreset = \"low-memory\"\nmax_sessions = 8\n")
	require.NoError(t, err)
	require.Equal(t, 5, cfg.MaxConnections)
	require.EqualValues(t, 64<<20, cfg.Memory)
	require.Equal(t, 8, cfg.MaxSessions)
	require.Equal(t, 1<<20, cfg.Limits.Value)
	origins := map[string]string{}
	for _, s := range cfg.All() {
		origins[s.Name] = s.Origin
	}
	require.Equal(t, "preset low-memory", origins["max_value"])
	require.Equal(t, "RSKV_MEMORY", origins["memory"])
	cfg, _, err = load(t, []string{"--preset", "default"}, []string{"RSKV_PRESET=low-memory"}, "")
	require.NoError(t, err)
	require.Equal(t, Defaults().Limits, cfg.Limits, "a preset that counts for nothing was put in place")
	_, _, err = load(t, nil, []string{"RSKV_PRESET=huge"}, "")
	require.EqualError(t, err, `RSKV_PRESET: "huge" is not one of default, high-performance, low-memory`)
}

// TestLoad_Problems: a problem that is not reported, or only after another was
// mended, or without its place.
func TestLoad_Problems(t *testing.T) {
	_, path, err := load(t,
		[]string{"--max-keys", "0", "--io", "fast"},
		[]string{"RSKV_MEMORY=lots", "RSKV_SOKET=/s", "RSKV_LOG_LEVEL=loud"},
		"# a comment\nmax_value = \"17MiB\"\n\nfoo = 1\nmax_keys = [1]\n[daemon]\nio = \"sync\"\n")
	require.Error(t, err)
	for _, want := range []string{
		"--max-keys: 0 is not between 1 and 65536",
		`--io: "fast" is not one of auto, uring, sync`,
		"RSKV_MEMORY: not a size",
		"RSKV_SOKET: no such setting",
		`RSKV_LOG_LEVEL: "loud" is not one of`,
		path + ":2: max_value: 17MiB is not between 1 and 16MiB",
		path + ":4: foo: no such setting",
		path + ":5: max_keys: must be a string, a number, true or false",
		path + ":6: daemon: no such setting",
	} {
		require.Contains(t, err.Error(), want)
	}
	require.Len(t, strings.Split(err.Error(), "\n"), 9)

	_, path, err = load(t, nil, nil, "io = \"sync\"\nmemory = = 3\n")
	require.ErrorContains(t, err, path+":2: ")
	_, _, err = load(t, []string{"--config", "/none"}, nil, "")
	require.ErrorContains(t, err, "read settings: open /none")
	_, _, err = load(t, nil, nil, "config = \"x\"")
	require.ErrorContains(t, err, "config: no such setting")
}

// TestConfig_Validate: settings that contradict each other and are accepted.
func TestConfig_Validate(t *testing.T) {
	cfg := Defaults()
	require.NoError(t, cfg.Validate())
	cfg.PageSize, cfg.SegmentSize = 3<<18, 5<<20
	cfg.Limits.Request, cfg.Limits.Answer = 1<<20, 1<<20
	cfg.RequestMemory = 1 << 19
	cfg.Socket = strings.Repeat("s", ipc.MaxSocketPath+1)
	cfg.Limits.Keys = 0
	err := cfg.Validate()
	for _, want := range []string{"page_size: 768KiB", "segment_size: 5MiB", "max_request: 1MiB", "max_answer: 1MiB", "request_memory: 512KiB", "socket: sss", "max_keys: 0"} {
		require.ErrorContains(t, err, want)
	}
	cfg = Defaults()
	cfg.PageSize, cfg.SegmentSize = 4<<20, 1<<20
	require.ErrorContains(t, cfg.Validate(), "does not fit a segment")
}

// TestConfig_Dump: a dump that is not read back as it was.
func TestConfig_Dump(t *testing.T) {
	var dump bytes.Buffer
	want := testConfig(t)
	want.CommitInterval, want.SocketMode = 0, 0o600
	require.NoError(t, want.WriteTOML(&dump))
	got, _, err := load(t, nil, nil, dump.String())
	require.NoError(t, err)
	got.origin, got.ConfigFile = nil, ""
	require.Equal(t, want, got)
}

// TestConfig_Change: a setting that changes while the daemon runs and should
// not, half a change, or one without effect.
func TestConfig_Change(t *testing.T) {
	d := start(t, nil)
	w := d.dial()
	all := w.ask("config").result.(map[string]any)
	require.Len(t, all, len(settings))
	require.Equal(t, "32MiB", all["memory"])
	require.Equal(t, d.cfg.Socket, all["socket"])

	a := w.ask("config", opt{"set": opt{"log_level": "debug", "io": "sync", "nonsense": 1}})
	require.Equal(t, string(ipc.CodeBadRequest), a.code)
	require.Contains(t, a.reason, "io: cannot be changed while the daemon runs")
	require.Contains(t, a.reason, "nonsense: no such setting")
	require.NotContains(t, a.reason, "log_level")
	a = w.ask("config", opt{"set": opt{"log_level": "debug", "max_connections": -1}})
	require.Contains(t, a.reason, "max_connections: -1 is not between")
	require.Equal(t, "info", w.ask("config").result.(map[string]any)["log_level"])

	all = w.ask("config", opt{"set": opt{"log_level": "debug", "max_connections": 1}}).result.(map[string]any)
	require.Equal(t, "debug", all["log_level"])
	require.Equal(t, string(ipc.CodeBusy), d.dial().must().code)
	w.want("pong", "ping")
	_ = w.conn.Close()
	require.Eventually(t, func() bool { return strings.Contains(d.log.String(), "connection closed") }, patience, time.Millisecond)
}

// TestSize: a size that is read as another, or nonsense as one.
func TestSize(t *testing.T) {
	total := func() (int64, error) { return 1 << 30, nil }
	for text, want := range map[string]int64{
		"0": 0, "7": 7, "7B": 7, "1KiB": 1 << 10, " 64 MiB ": 64 << 20, "2GiB": 2 << 30, "3TiB": 3 << 40,
		"25%": 256 << 20, "100%": 1 << 30, "0.5 %": 5 << 20,
	} {
		n, err := parseSize(text, total)
		require.NoError(t, err, text)
		require.Equal(t, want, n, text)
		again, err := parseSize(formatSize(n), total)
		require.NoError(t, err)
		require.Equal(t, n, again)
	}
	for _, text := range []string{"", "B", "-1", "1.5MiB", "1MB", "1M", "MiB", "1 2", "0%", "101%", "-5%", "%", "NaN%", "9999999TiB", "0x10"} {
		_, err := parseSize(text, total)
		require.Error(t, err, text)
	}
	require.Equal(t, "1025", formatSize(1025))
	require.Equal(t, "1025KiB", formatSize(1025<<10))
}

// TestBudget: bytes lost or handed out twice; a large demand that small ones
// overtake for ever.
func TestBudget(t *testing.T) {
	b := newBudget(10)
	stop := make(chan struct{})
	require.True(t, b.take(8, 0, stop))
	require.False(t, b.take(5, time.Millisecond, stop))
	got := make(chan string, 2)
	go func() {
		b.take(6, 0, stop)
		got <- "large"
	}()
	waiting := func(n int) func() bool {
		return func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return len(b.mu.queue) == n
		}
	}
	require.Eventually(t, waiting(1), patience, time.Millisecond)
	go func() {
		b.take(1, 0, stop)
		got <- "small"
	}()
	require.Eventually(t, waiting(2), patience, time.Millisecond)
	b.give(8)
	require.ElementsMatch(t, []string{"large", "small"}, []string{<-got, <-got})
	require.EqualValues(t, 3, b.left())
	close(stop)
	require.False(t, b.take(4, 0, stop))
	b.give(7)
	require.EqualValues(t, 10, b.left())
}
