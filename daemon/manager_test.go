package daemon

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/engine"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

// mailbox is a datagram socket as service managers and the journal have it.
func mailbox(t *testing.T) (*net.UnixConn, string) {
	dir, err := os.MkdirTemp("", "rskvd")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "n")
	box, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = box.Close() })
	return box, path
}

// letter returns the next datagram; "" when none comes in time.
func letter(box *net.UnixConn, wait time.Duration) string {
	buf := make([]byte, 64<<10)
	_ = box.SetReadDeadline(time.Now().Add(wait))
	n, err := box.Read(buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

// letters returns a function that waits for a datagram with what.
func letters(t *testing.T, box *net.UnixConn) func(what string) string {
	return func(what string) string {
		t.Helper()
		for {
			text := letter(box, patience)
			require.NotEmpty(t, text, "no word of %s", what)
			if strings.Contains(text, what) {
				return text
			}
		}
	}
}

// TestManager_Life: a service manager that is told ready before clients can
// connect, not told of a reload or its end, or that kills a daemon that is well.
func TestManager_Life(t *testing.T) {
	box, path := mailbox(t)
	wait := letters(t, box)
	cfg := testConfig(t)
	reload := make(chan struct{})
	loaded := cfg
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	var log logBuffer
	go func() {
		ended <- Run(ctx, cfg, Environment{
			Log: &log, Manager: Manager{NotifySocket: path, Watchdog: 30 * time.Millisecond},
			Reload: reload, Load: func() (Config, error) { return loaded, nil },
		})
	}()
	wait("STATUS=opening the store")
	wait("READY=1\nSTATUS=serving " + cfg.Socket)
	w := dialPath(t, cfg.Socket)
	w.want("pong", "ping")
	for range 3 {
		wait("WATCHDOG=1")
	}
	loaded.MaxConnections, loaded.Memory, loaded.CheckpointsKept = 7, 64<<20, 9
	reload <- struct{}{}
	text := wait("RELOADING=1")
	require.Regexp(t, `MONOTONIC_USEC=\d{5,}\n`, text)
	wait("READY=1")
	all := w.ask("config").result.(map[string]any)
	require.Equal(t, "7", all["max_connections"])
	require.Equal(t, "64MiB", all["memory"])
	require.Equal(t, "3", all["checkpoints_kept"])
	require.Equal(t, int64(64<<20), w.ask("stats").result.(map[string]any)["engine_memory"])
	require.Contains(t, log.String(), "setting cannot change while the daemon runs; a restart puts it in force\" name=checkpoints_kept value=3 asked=9")
	cancel()
	wait("STOPPING=1")
	require.NoError(t, <-ended)
}

// TestReload_Mistake: settings that are half reloaded when something is wrong
// with them.
func TestReload_Mistake(t *testing.T) {
	cfg := testConfig(t)
	var log logBuffer
	s := newServer(cfg, &log)
	s.reload(func() (Config, error) {
		cfg.MaxConnections = 9
		return cfg, errors.New("file:3: nonsense")
	})
	require.Equal(t, Defaults().MaxConnections, s.settings().MaxConnections)
	require.Contains(t, log.String(), "all stay as they are")
}

// TestManager_Watchdog: a daemon that does not answer, and is called well.
func TestManager_Watchdog(t *testing.T) {
	box, path := mailbox(t)
	n, err := newNotifier(path)
	require.NoError(t, err)
	defer n.close()
	cfg := testConfig(t)
	var log logBuffer
	s := newServer(cfg, &log)
	s.address = cfg.Socket // where nobody listens
	s.health.enter(serving)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.watch(ctx, n, 9*time.Millisecond)
	}()
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "does not answer itself") }, patience, time.Millisecond)
	time.Sleep(50 * time.Millisecond) // in which it could say so again
	cancel()
	<-ended
	require.Empty(t, letter(box, time.Millisecond))
	require.Equal(t, 1, strings.Count(log.String(), "does not answer itself"))
}

// TestManager_Progress: a long opening that the service manager takes for a
// hang, or of which operators see nothing.
func TestManager_Progress(t *testing.T) {
	box, path := mailbox(t)
	n, err := newNotifier(path)
	require.NoError(t, err)
	defer n.close()
	s := newServer(testConfig(t), nil)
	tell, begin := s.opening(n), time.Now()
	tell(engine.Progress{Stage: engine.StageReplay, Done: 1 << 30, Total: 4 << 30})
	text := letter(box, patience)
	require.Contains(t, text, "STATUS=replaying the log: 1024 of 4096 MiB, 25 %\n")
	require.Contains(t, text, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d\n", 120_000_000))
	tell(engine.Progress{Stage: engine.StageReplay, Done: 2 << 30, Total: 4 << 30})
	if time.Since(begin) < progressTold { // else the machine has stood still
		require.Empty(t, letter(box, time.Millisecond), "told more often than anybody reads")
	}
	require.EqualError(t, s.health.ready(), "replaying the log: 2048 of 4096 MiB, 50 %")
	require.EqualValues(t, 2<<30, s.status().(status).Done)
}

// TestManager_Busy: a daemon that waits for ever for a service manager that takes
// no more words.
func TestManager_Busy(t *testing.T) {
	_, path := mailbox(t)
	n, err := newNotifier(path)
	require.NoError(t, err)
	defer n.close()
	begin := time.Now()
	for time.Since(begin) < tellMax/2 { // until its mailbox is full, and once more
		n.send("", "nobody reads this")
	}
	require.Less(t, time.Since(begin), tellMax+patience)
}

// TestManager_LastCommit: a daemon that is killed while it still writes what
// clients were told is stored.
func TestManager_LastCommit(t *testing.T) {
	box, path := mailbox(t)
	n, err := newNotifier(path)
	require.NoError(t, err)
	defer n.close()
	cfg := testConfig(t)
	cfg.CommitInterval = 0
	fault := iotest.NewFault(iotest.NewMem(iotest.MemOptions{SegmentSize: cfg.SegmentSize}), 1)
	s := newServer(cfg, nil)
	require.NoError(t, s.openStore(cfg, fault, nil))
	session := s.store.NewSession()
	for i := range 20 {
		require.NoError(t, session.Put(fmt.Appendf(nil, "key%d", i), make([]byte, 500_000)))
	}
	session.Close()
	// The disk takes its time with the writes, and the sync waits until it was told of them.
	fault.Inject(iotest.Rule{Kind: ioring.Write, Delay: 200 * time.Millisecond})
	gate := make(chan struct{})
	fault.Inject(iotest.Rule{Kind: ioring.Sync, Until: gate})
	release := sync.OnceFunc(func() { close(gate) })
	progress := regexp.MustCompile(`STATUS=writing what is in memory: [1-9]\d* of \d+ MiB, \d+ %\n`)
	const extend = "EXTEND_TIMEOUT_USEC=120000000\n"
	told, heard, begin := "", make(chan struct{}), time.Now()
	go func() {
		defer close(heard)
		defer release()
		for text := letter(box, patience); text != "" && text != "STATUS=end\n"; text = letter(box, patience) {
			told += text
			if progress.MatchString(told) && strings.Contains(told, extend) || time.Since(begin) > patience {
				release()
			}
		}
	}()
	s.lastCommit(n, 5*time.Millisecond)
	n.send("", "end")
	<-heard
	require.Regexp(t, progress, told)
	require.Contains(t, told, extend)
	st := s.store.Stats()
	require.Equal(t, st.Version, st.Durable)
	require.NoError(t, s.closeStore())
}

// TestFromManager: words to another process that are taken for ours, and
// nonsense that is passed over.
func TestFromManager(t *testing.T) {
	from := func(env map[string]string) (Manager, error) {
		return FromManager(func(name string) string { return env[name] }, 77)
	}
	m, err := from(nil)
	require.NoError(t, err)
	require.Equal(t, Manager{}, m)
	m, err = from(map[string]string{"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "77", "JOURNAL_STREAM": "1:2"})
	require.NoError(t, err)
	require.Equal(t, Manager{NotifySocket: "/n", Watchdog: 3 * time.Second}, m)
	m, err = from(map[string]string{"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "78", "LISTEN_FDS": "1", "LISTEN_PID": "78"})
	require.NoError(t, err)
	require.Equal(t, Manager{}, m)
	for _, env := range []map[string]string{
		{"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "-1"}, {"LISTEN_FDS": "x", "LISTEN_PID": "77"}, {"LISTEN_FDS": "99", "LISTEN_PID": "77"},
	} {
		_, err = from(env)
		require.Error(t, err, "%v", env)
	}
}

// TestJournal: lines whose fields the journal reads otherwise, a value that
// forges another field, or a line that is lost when the journal is gone.
func TestJournal(t *testing.T) {
	box, path := mailbox(t)
	var stderr bytes.Buffer
	handler := newJournal(path, slog.LevelInfo, &stderr)
	log := slog.New(handler)
	log.Debug("nobody asked")
	log.With("uid", 1000).WithGroup("disk").Warn("slow", "took", 3*time.Second, "path", "a\nPRIORITY=0")
	text := letter(box, patience)
	forged := "a\nPRIORITY=0"
	length := binary.LittleEndian.AppendUint64(nil, uint64(len(forged)))
	message := "slow uid=1000 disk_took=3s disk_path=" + forged
	require.Equal(t, "MESSAGE\n"+string(binary.LittleEndian.AppendUint64(nil, uint64(len(message))))+message+"\n"+
		"PRIORITY=4\nSYSLOG_IDENTIFIER=rskvd\nRSKV_UID=1000\nRSKV_DISK_TOOK=3s\nRSKV_DISK_PATH\n"+string(length)+forged+"\n", text)
	require.Empty(t, stderr.String())
	require.NoError(t, box.Close())
	log.With("uid", 1).Error("gone", "a", "b")
	require.Contains(t, stderr.String(), "level=ERROR msg=gone uid=1 a=b")
	require.Nil(t, newJournal(path+"none", slog.LevelInfo, &stderr))
}

// TestJournal_Hangs: a daemon that stands still because nobody takes its log.
func TestJournal_Hangs(t *testing.T) {
	_, path := mailbox(t)
	var stderr bytes.Buffer
	log := slog.New(newJournal(path, slog.LevelInfo, &stderr))
	begin := time.Now()
	for time.Since(begin) < journalMax {
		log.Info("nobody reads this")
	}
	require.Less(t, time.Since(begin), journalMax+patience)
	require.Empty(t, stderr.String(), "stderr is the journal's too")
}
