package daemon

import (
	"context"
	"encoding/binary"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"rskv/ipc"
)

// What OPERATIONS.md says of every error that clients are answered with, and of
// every line that is logged: why it is there, and what to do. TestOperations_Current
// keeps its tables like this.

// failure is why something is seen, and what to do about it.
type failure struct{ cause, remedy string }

func errorsTable() string {
	rows := [][]string{{"code", "cause", "what to do"}}
	for _, code := range ipc.Codes {
		rows = append(rows, []string{"`" + string(code) + "`", failures[code].cause, failures[code].remedy})
	}
	return table(rows...)
}

var failures = map[ipc.Code]failure{
	ipc.CodeBadRequest:      {"a request is malformed, has a wrong type or an unknown option", "a client is at fault: the message says where; `rskv_connections_broken_total` counts those it cost the connection"},
	ipc.CodeUnknownMethod:   {"a client is newer than the daemon", "upgrade the daemon"},
	ipc.CodeKeyTooLarge:     {"a key is longer than `max_key`", "raise it, up to 65,535 bytes, or shorten keys"},
	ipc.CodeValueTooLarge:   {"a value is longer than `max_value`", "raise it, up to 16 MiB, or cut values"},
	ipc.CodeRequestTooLarge: {"a request as a whole is longer than `max_request`", "fewer keys a request, or raise it, up to 64 MiB"},
	ipc.CodeAnswerTooLarge:  {"an answer would be longer than `max_answer`", "fewer keys a request, or raise it, up to 64 MiB"},
	ipc.CodeNotInteger:      {"`add` on a key whose value is not eight bytes", "a client counts in a key that holds something else"},
	ipc.CodeOverflow:        {"a counter has reached the end of 64 bits", "it is unchanged; start another"},
	ipc.CodeForbidden:       {"the user's role does not allow it", "`roles`; the audit log has who asked"},
	ipc.CodeBusy:            {"a budget is spent", "clients try again by themselves; if it lasts, what the message names: `memory`, `max_connections`, `max_rate_user`, `request_memory`, `max_sessions`, or a disk that is too slow"},
	ipc.CodeDiskFull:        {"the disk is full, or `disk` with live data", "make room, raise `disk`, or delete keys; writes go on by themselves"},
	ipc.CodeReadOnly:        {"a write or sync of the disk failed: nothing more is acknowledged", "the log has the error; mend the disk, restart the daemon. What was durable is there"},
	ipc.CodeCorrupt:         {"the checksum of a record does not hold: the disk returned other bytes than were written", "`rskvd verify`, then restore a backup, or `rskvd salvage`"},
	ipc.CodeIO:              {"a read from the disk failed", "see the kernel's log; other keys are not affected"},
	ipc.CodeSessionUnknown:  {"a client came back after its session was forgotten, or to another store", "`session_expiry`, `max_sessions`; the client begins another, and reports what may be lost"},
	ipc.CodeCursorLost:      {"a scan took longer between two pages than compaction waits", "the client begins it anew"},
	ipc.CodeShuttingDown:    {"the daemon is stopping", "clients connect again by themselves"},
	ipc.CodeInternal:        {"a bug", "report it with the log"},
}

// TestOperations_Failures: a code that operators see and find nothing about.
func TestOperations_Failures(t *testing.T) {
	for _, code := range ipc.Codes {
		require.NotEmpty(t, failures[code].cause, code)
		require.NotEmpty(t, failures[code].remedy, code)
	}
	require.Len(t, failures, len(ipc.Codes))
}

const nothing = "nothing"

var logLines = map[string]failure{
	"administration":             {"an administrator asks for what `method` says", nothing},
	"backup begins":              {"a client reads a backup", nothing},
	"backup failed":              {"its client went away, stopped reading, or the disk failed", "what it has is no backup: it has no end. Begin another"},
	"backup is whole":            {"a client has all of one", nothing},
	"background task":            {"an administrator stopped or started one", "a task that stays stopped does not give space back, or take checkpoints"},
	"cannot accept a connection": {"the process is out of file descriptors, or the system out of memory", "`LimitNOFILE=`; those that end make room"},
	"checkpoint dropped: it kept log that was compacted away": {"the disk budget needed the space", "more `disk`, or fewer `checkpoints_kept`"},
	"checkpoint failed":                  {"the disk is full, or failed", "starts after a crash take longer until one succeeds; it is tried again"},
	"checkpoint is damaged and not used": {"its file does not hold what was written", "the start reads more of the log; `rskvd verify`, and look at the disk"},
	"checkpoint taken":                   {"as `checkpoint_distance` says, or when asked", nothing},
	"checkpoints that cannot be used":    {"a damaged one was found while they were listed", "they go with time; look at the disk"},
	"client said hello":                  {"a client has begun, or resumed, a session", nothing},
	"closing the store":                  {"the daemon is stopping: what is not durable becomes so", nothing},
	"compaction failed":                  {"the disk is full, or failed", "space is not given back until a pass succeeds; it is tried again"},
	"connection broken off":              {"what a client sent is no MessagePack-RPC, or too long", "that client is at fault, or connects to the wrong socket"},
	"connection closed":                  {"a client has hung up", nothing},
	"connection closed: a request was begun and not sent on": {"a client hangs: `request_timeout`", "look at the client that `pid` names"},
	"connection closed: no memory for its request":           {"long requests of all clients together are above `request_memory`", "raise it, or send less at a time"},
	"connection denied":                                {"the user has no role, or `max_connections_user` connections already", "`roles`, or `max_connections_user`; `why` says which"},
	"request denied":                                   {"the user's role does not allow the method", "`roles`; one line a user and second, `more` counts the others"},
	"connection failed":                                {"the socket gave an error", "look at `error`"},
	"connection opened":                                {"a client has connected", nothing},
	"connection refused":                               {"the kernel does not say who the client is", "look at `error`"},
	"cutting off connections that did not finish":      {"requests took longer than `drain_timeout` when the daemon was stopped", "clients send again what was not answered; raise it if that happens often"},
	"disk budget changed":                              {"`disk` was set", nothing},
	"read cache on":                                    {"records that are not in the log's memory are read again and again; it takes memory from the log", nothing},
	"read cache off":                                   {"it is not worth its memory, as `why` says", nothing},
	"no memory for the read cache":                     {"the system refused it", "look at `error`; the store works without"},
	"memory of the read cache is not given back":       {"the system refused to take it", "look at `error`; a restart frees it"},
	"image is damaged and not used":                    {"a file of a snapshot checkpoint that is not needed does not hold what was written", "it goes with time; look at the disk"},
	"image put back into the log":                      {"the last commit was that of a snapshot checkpoint", nothing},
	"index has grown":                                  {"there were more keys than it was good for", nothing},
	"index should grow but cannot":                     {"`memory` has no room for a larger one, as `limit` says", "raise `memory`: until then more keys make every operation slower"},
	"log compacted":                                    {"space of overwritten and deleted values was given back", nothing},
	"log keeps the memory that the index needs":        {"pages of the log could not be given back", "if it lasts: a disk that is too slow, or a reader that hangs"},
	"manifest is damaged or missing, its copy is used": {"one of two files that describe the store does not hold what was written", "it is written anew; look at the disk"},
	"memory budget changed":                            {"`memory` was set", nothing},
	"memory of compaction is not given back":           {"the system refused to take it", "look at `error`; a restart frees it"},
	"newest pages are in memory":                       {"after the start what was in memory before has been read back", nothing},
	"no admin socket: the path would be too long; set admin_socket": {"`socket` is near the 107 bytes that a path may have", "set `admin_socket` to a shorter path, or to off"},
	"old checkpoints stay": {"their files could not be removed", "they take space until a later checkpoint succeeds"},
	"opening the store":    {"a start that takes a while says how far it is", nothing},
	"sandbox":              {"what the daemon has taken from itself", "with `sandbox` on it does not start with less"},
	"scrub ends":           {"all of the log has been read, it was stopped, or it failed", "where `damages` is above 0, as for damage; where it failed, look at `error`"},
	"scrub begins":         {"as `scrub_interval` says, or when asked", nothing},
	"scrub found damage":   {"records on the disk do not hold what was written", "`rskv scrub --status` lists them; restore a backup, or `rskvd salvage`"},
	"serving":              {"clients can connect", nothing},
	"setting cannot change while the daemon runs; a restart puts it in force": {"a reload found it changed in the file", "restart when it suits"},
	"setting changed":                                  {"by a reload, or `rskv config`", nothing},
	"setting was not changed":                          {"a reload could not put it in force", "look at `error`"},
	"settings reloaded":                                {"SIGHUP, or `systemctl reload`", nothing},
	"settings were not reloaded, all stay as they are": {"there is a mistake in them", "`rskvd config check` names all of them"},
	"snapshot is damaged and not used":                 {"an index snapshot does not hold what was written", "the start reads more of the log; look at the disk"},
	"stopped":                                          {"everything is durable, the process ends with 0", nothing},
	"stopping":                                         {"SIGTERM or SIGINT", nothing},
	"store open":                                       {"it says which backend runs, and why, how memory is divided, and what was recovered", "`discarded` above 0 after a crash: that many bytes had not been committed"},
	"the admin server has stopped":                     {"its listener failed", "metrics and health are gone; look at `error`, restart"},
	"the daemon does not answer itself; the service manager will restart it":                                            {"it hangs: a disk that does not answer, or a bug", "the kernel's log; if the disk is well, report it with a profile (`/debug/pprof/`)"},
	"the limit of open files is too low for max_connections (LimitNOFILE=, ulimit -n)":                                  {"each connection takes one", "raise the limit, or lower `max_connections`"},
	"the store gets a new format version: older programs cannot open it from here on":                                   {"it is the first start after an upgrade that changed the format", "to go back takes a backup made before; nothing otherwise"},
	"the wall clock has jumped and is not followed: keys expire by the time that has passed since the store was opened": {"somebody set the system's clock by more than an hour, as `jump` says", "set it right; where the new time is the right one, restart the daemon"},
	"the wall clock is ahead and is followed":                                                                           {"the system slept, or its clock was set by less than an hour: keys expire by the new time", nothing},
	"the wall clock is behind the last commit: keys expire by the time of that":                                         {"the system's clock was set back, or has no battery, and the daemon started meanwhile", "set it right, and restart: what is to expire at a time of day does so by `behind` too early; times to live are not affected"},
	"watch ended":                        {"its client did not read it fast enough, or compaction freed what it would go on from (`rskv_watches_lagged_total`)", "a client that reads faster; it is told, and begins again from what is there"},
	"watch failed":                       {"what it has to read from the disk cannot be read", "look at `error`; as for `IO` and `Corrupt`"},
	"the store takes no writes any more": {"a write or sync of the disk failed: `ReadOnly`", "mend the disk, restart the daemon"},
	"the store takes no writes until there is room": {"`DiskFull`", "make room, raise `disk`, or delete keys"},
	"the store takes writes again":                  {"there is room", nothing},
	"ordered index filled":                          {"the store was opened with the ordered index, and its log was read for it", nothing},
	"log keeps memory from the ordered index":       {"pages of the log could not be given back", "if it lasts: a disk that is too slow, or a reader that hangs"},
}

// logged is one line in the source.
type logged struct{ message, level string }

// logMessages finds what is logged by the daemon and by what it is made of.
func logMessages(t *testing.T) (all []logged) {
	for _, dir := range []string{".", "../engine", "../ioring"} {
		require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "iotest") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || len(call.Args) == 0 {
					return true
				}
				level, arg, ok := logCall(call)
				if !ok {
					return true
				}
				text, ok := arg.(*ast.BasicLit)
				if name, is := arg.(*ast.Ident); is && name.Name == "what" && filepath.Base(path) == "audit.go" {
					return true // deny's, whose callers say it
				}
				if !ok {
					t.Errorf("%s: a log line whose message is no literal cannot be in OPERATIONS.md", path)
					return true
				}
				message, err := strconv.Unquote(text.Value)
				require.NoError(t, err)
				if l := (logged{message, level}); !slices.Contains(all, l) {
					all = append(all, l)
				}
				return true
			})
			return nil
		}))
	}
	slices.SortFunc(all, func(a, b logged) int { return strings.Compare(a.message+a.level, b.message+b.level) })
	return all
}

// logCall takes a call apart, if it writes a line: its level, and the argument
// that is the message.
func logCall(call *ast.CallExpr) (level string, message ast.Expr, ok bool) {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return "", nil, false
	}
	levels := map[string]string{"Debug": "debug", "Info": "info", "Warn": "warn", "Error": "error"}
	switch name := f.Sel.Name; {
	case name == "deny" && len(call.Args) > 1:
		return "warn", call.Args[1], true
	case levels[name] != "" && isLogger(f.X):
		return levels[name], call.Args[0], true
	case name == "Log" && isLogger(f.X) && len(call.Args) > 2:
		return "by outcome", call.Args[2], true
	}
	return "", nil, false
}

// isLogger reports whether an expression is called as loggers are here.
func isLogger(x ast.Expr) bool {
	name := ""
	switch x := x.(type) {
	case *ast.Ident:
		name = x.Name
	case *ast.SelectorExpr:
		name = x.Sel.Name
	}
	return strings.HasSuffix(strings.ToLower(name), "log") || strings.ToLower(name) == "logger"
}

func logTable(t *testing.T) string {
	rows := [][]string{{"line", "level", "cause", "what to do"}}
	for _, l := range logMessages(t) {
		rows = append(rows, []string{l.message, l.level, logLines[l.message].cause, logLines[l.message].remedy})
	}
	return table(rows...)
}

// TestOperations_Log: a line that operators see and find nothing about, or one
// they look for that is not written any more.
func TestOperations_Log(t *testing.T) {
	all := logMessages(t)
	require.Greater(t, len(all), 40)
	for _, l := range all {
		require.NotEmpty(t, logLines[l.message].cause, "say in logLines why %q is logged", l.message)
		require.NotEmpty(t, logLines[l.message].remedy, "say in logLines what to do about %q", l.message)
		if l.level == "warn" || l.level == "error" {
			require.NotEqual(t, nothing, logLines[l.message].remedy, "%q is a %s", l.message, l.level)
		}
	}
	for message := range logLines {
		require.True(t, slices.ContainsFunc(all, func(l logged) bool { return l.message == message }), "%q is not logged any more", message)
	}
}

// TestOperations_Starts: what keeps a daemon from starting is said in other words
// than those that OPERATIONS.md explains.
func TestOperations_Starts(t *testing.T) {
	text, err := os.ReadFile("OPERATIONS.md")
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(text), "\n## When it does not start\n")
	require.True(t, ok)
	section, _, _ = strings.Cut(section, "\n## ")
	d := start(t, nil)
	runs := func(cfg Config) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		return Run(ctx, cfg, Environment{Ready: cancel}) // one that starts has no error
	}
	run := func(change func(*Config)) error {
		cfg := testConfig(t)
		change(&cfg)
		return runs(cfg)
	}
	// change writes 9 to a byte of the manifest; whole: and a checksum that fits.
	change := func(offset int, whole bool) error {
		cfg := testConfig(t)
		startWith(t, cfg).stop()
		for _, name := range []string{"MANIFEST.meta", "MANIFEST.copy.meta"} {
			path := filepath.Join(cfg.Dir, name)
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			b[offset] = 9
			if whole {
				b = binary.LittleEndian.AppendUint64(b[:len(b)-8], xxhash.Sum64(b[:len(b)-8]))
			}
			require.NoError(t, os.WriteFile(path, b, 0o600))
		}
		return runs(cfg)
	}
	shrunk := testConfig(t)
	shrunk.Memory, shrunk.PageSize = 1<<30, 4<<20 // its index does not fit what comes next
	startWith(t, shrunk).stop()
	shrunk.Memory = 32 << 20
	_, misspelt := Load(nil, []string{"RSKV_MEMROY=1GiB"})
	for words, err := range map[string]error{
		"another daemon uses":        run(func(c *Config) { c.Dir = d.cfg.Dir }),
		"another daemon serves":      run(func(c *Config) { c.Socket = d.cfg.Socket }),
		"is not between":             run(func(c *Config) { c.Memory = 1 << 20 }),
		"no such setting":            misspelt,
		"memory budget is too small": runs(shrunk),
		"unknown format version":     change(8, true),
		"data is damaged":            change(64, false),
	} {
		require.ErrorContains(t, err, words)
		require.Contains(t, section, "`"+words+"`")
		section = strings.Replace(section, "`"+words+"`", "", 1)
	}
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "| `") {
			t.Errorf("nothing here makes a daemon say %s", line)
		}
	}
}

// TestOperations_Sizing: a store that was made as large as the calculator says
// has no room for what it was made for.
func TestOperations_Sizing(t *testing.T) {
	awk, err := exec.LookPath("awk")
	if err != nil {
		t.Skip("awk is not installed")
	}
	text, err := os.ReadFile("OPERATIONS.md")
	require.NoError(t, err)
	command := regexp.MustCompile(`(?ms)^    awk (-v .*?) '\n(.*?)'$`).FindStringSubmatch(string(text))
	require.NotNil(t, command, "the calculator is not in OPERATIONS.md")
	keys, key, value := less(300_000, 100_000), 20, 100
	args := strings.Fields(command[1])
	for name, n := range map[string]int{"keys": keys, "key": key, "value": value} {
		at := slices.IndexFunc(args, func(a string) bool { return strings.HasPrefix(a, name+"=") })
		require.Positive(t, at)
		args[at] = fmt.Sprintf("%s=%d", name, n)
	}
	at := slices.IndexFunc(args, func(a string) bool { return strings.HasPrefix(a, "segment=") })
	args[at] = "segment=16"
	out, err := exec.Command(awk, append(args, command[2])...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	var record, live, index, memory, disk int64
	_, err = fmt.Sscanf(strings.ReplaceAll(string(out), "\n", " "), "record %d bytes, live log %d MiB, index up to %d MiB memory %d MiB, disk %d MiB", &record, &live, &index, &memory, &disk)
	require.NoError(t, err, "%s", out)

	d := start(t, func(c *Config) { c.Memory = 128 << 20 })
	w := d.dial()
	for begin := 0; begin < keys; begin += 1000 {
		var pairs []any
		for i := begin; i < begin+1000; i++ {
			pairs = append(pairs, []any{fmt.Appendf(nil, "%0*d", key, i), make([]byte, value)})
		}
		w.want(int64(1000), "mput", pairs)
	}
	require.Empty(t, w.ask("checkpoint", map[string]any{"kind": "full"}).code)
	stats := w.ask("stats").result.(map[string]any)
	number := func(name string) int64 { return stats[name].(int64) }
	require.InDelta(t, record*int64(keys), number("engine_live_bytes"), 0.02*float64(number("engine_live_bytes")))
	require.LessOrEqual(t, number("engine_memory_index"), (index+1)<<20)
	require.LessOrEqual(t, number("engine_disk_used"), (disk+1)<<20)
	require.GreaterOrEqual(t, live<<20+1<<20, record*int64(keys))
}
