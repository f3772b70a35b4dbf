package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"rskv/engine"
	"rskv/ioring"
	"rskv/ipc"
)

// serverName is how the daemon calls itself in hello.
const serverName = "rskvd"

// Environment is what a daemon takes from the process it runs in. The zero
// value takes nothing.
type Environment struct {
	// Log is where log lines go; nil: nowhere.
	Log io.Writer
	// Manager is what the service manager says. Of the sockets it gives, "data"
	// takes the place of the setting socket, "admin" that of admin_socket. Run
	// closes them.
	Manager Manager
	// Sandbox is what Confine has answered, for the log; "": it was not asked.
	Sandbox string
	// Reload, if not nil, asks each time it is sent to for the settings to be
	// loaded again by Load.
	Reload <-chan struct{}
	Load   func() (Config, error)
	// Device holds the store in place of the directory; nil: the directory.
	// Run closes it.
	Device ioring.Device
	// Ready is called once clients can connect.
	Ready func()
}

// server is one running daemon.
type server struct {
	// Immutable once it serves.
	limits    ipc.Limits
	store     *engine.Store
	log       *slog.Logger
	auditLog  *slog.Logger // see audit.go
	level     *slog.LevelVar
	started   time.Time
	requests  *budget // for requests longer than readBytes
	sessions  *sessionTable
	scrubs    scrubber
	slowlog   slowlog
	monitors  monitors
	deliverer deliverer
	scans     atomic.Int64 // under way, see conn.scanning
	ranges    atomic.Int64 // scans in order under way, see conn.scan

	writable writable
	pulse    pulse

	address string // of the data socket; immutable once it serves
	health  health

	inForce atomic.Pointer[Config]
	queued  atomic.Int64 // bytes of answers, see conn.account
	users   userTable
	count   counters
	traffic traffic

	mu struct {
		sync.Mutex
		conns    map[*conn]struct{}
		stopping bool
	}
	serving   sync.WaitGroup // one for each connection
	configure sync.Mutex     // one change of settings at a time
}

// Run is the daemon from start to end: it serves cfg's store on cfg's socket
// until ctx ends, then stops in order and returns. The error says what kept it
// from starting, or what could not be brought to stable storage at the end.
func Run(ctx context.Context, cfg Config, env Environment) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	s := newServer(cfg, env.Log)
	if env.Manager.Journal && cfg.LogFormat == "auto" {
		s.logTo(newJournal(journalSocket, s.level, env.Log), newJournal(journalSocket, auditLevel, env.Log))
	}
	manager, err := newNotifier(env.Manager.NotifySocket)
	if err != nil {
		return err
	}
	defer manager.close()
	s.raiseDescriptors(cfg.MaxConnections)
	data, err := s.claimDoors(&cfg, maps.Clone(env.Manager.Given))
	if err != nil {
		return err
	}
	defer data.release()
	s.address = data[0].path
	manager.send("", "opening the store")
	operators, err := s.openAdmin(ctx, &cfg, env.Manager.Given[givenAdmin])
	if err != nil {
		return err
	}
	defer operators.close()
	if err := s.openStore(cfg, env.Device, s.opening(manager)); err != nil {
		return err
	}
	if err := data.open(ctx, cfg.doors()); err != nil {
		return errors.Join(err, s.closeStore())
	}
	if env.Sandbox != "" {
		s.log.Info("sandbox", "applied", env.Sandbox)
	}
	s.health.enter(serving)
	s.log.Info("serving", "socket", strings.Join(data.paths(), " "), "mode", modeValue{&cfg.SocketMode}.String(),
		"roles", cfg.Roles.text, "admin", strings.Join(operators.where, " "))
	manager.send("READY", "serving "+s.address)
	if env.Ready != nil {
		env.Ready()
	}
	besides, end := context.WithCancel(context.Background())
	defer end()
	var others sync.WaitGroup
	if env.Manager.Watchdog > 0 {
		others.Go(func() { s.watch(besides, manager, env.Manager.Watchdog) })
	}
	if env.Reload != nil {
		others.Go(func() { s.reloads(besides, manager, env.Reload, env.Load) })
	}
	err = s.serve(ctx, data)
	s.health.enter(stopping)
	manager.send("STOPPING", "finishing requests")
	err = errors.Join(err, s.drain())
	s.lastCommit(manager, progressTold)
	end()
	others.Wait()
	manager.send("", "closing the store")
	s.log.Info("closing the store")
	s.health.enter(closed)
	err = errors.Join(err, s.closeStore())
	s.log.Info("stopped")
	return err
}

func newServer(cfg Config, log io.Writer) *server {
	s := &server{limits: cfg.Limits, started: time.Now(), level: new(slog.LevelVar)}
	s.inForce.Store(&cfg)
	s.level.Set(cfg.LogLevel)
	s.log, s.auditLog = newLogger(cfg.LogFormat, log, s.level), newLogger(cfg.LogFormat, log, auditLevel)
	s.requests = newBudget(cfg.RequestMemory)
	s.scrubs.settings, s.scrubs.log = s.settings, s.log
	s.scrubs.look = make(chan struct{}, 1)
	s.mu.conns = map[*conn]struct{}{}
	return s
}

// logTo makes handlers the daemon's log and audit log, if there are such.
func (s *server) logTo(log, audit slog.Handler) {
	if log != nil && audit != nil {
		s.log, s.auditLog = slog.New(log), slog.New(audit)
		s.scrubs.log = s.log
	}
}

func newLogger(format string, w io.Writer, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	switch {
	case w == nil:
		return slog.New(slog.DiscardHandler)
	case format == "json":
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// settings are the ones in force. Do not change them.
func (s *server) settings() *Config { return s.inForce.Load() }

// enforce puts settings in force that the store has taken on. Called with configure
// held.
func (s *server) enforce(cfg *Config) {
	s.inForce.Store(cfg)
	s.level.Set(cfg.LogLevel)
	s.scrubs.changed()
}

// change puts other settings in force: all of those asked for, or none.
func (s *server) change(asked []ipc.Setting) error {
	if len(asked) == 0 {
		return nil
	}
	changes := make(map[string]string, len(asked))
	for _, a := range asked {
		changes[a.Name] = a.Value
	}
	s.configure.Lock()
	defer s.configure.Unlock()
	cfg, err := s.settings().with(changes)
	if err == nil {
		err = s.adjust(&cfg)
	}
	if err != nil {
		return err
	}
	s.enforce(&cfg)
	for _, a := range asked {
		s.log.Info("setting changed", "name", a.Name, "value", a.Value)
	}
	return nil
}

// openStore opens the store. Its first log line names the backend.
func (s *server) openStore(cfg Config, device ioring.Device, progress func(engine.Progress)) error {
	interval := cfg.CommitInterval
	if interval == 0 {
		interval = -1 // only when asked; to the engine 0 is its default
	}
	distance := cfg.CheckpointDistance
	if distance == 0 {
		distance = -1 // the same
	}
	expiry := cfg.SessionExpiry
	if expiry == 0 {
		expiry = math.MaxInt64 // never
	}
	store, err := engine.Open(engine.Options{
		Dir: cfg.Dir, Device: device, IO: ioring.Mode(cfg.IO), Memory: cfg.Memory,
		PageSize: cfg.PageSize, SegmentSize: cfg.SegmentSize, MaxValue: cfg.Limits.Value,
		CommitInterval: interval, CheckpointDistance: distance, CheckpointsKept: cfg.CheckpointsKept,
		RecoverVersion: uint64(cfg.RecoverVersion), Ordered: cfg.Ordered, Disk: cfg.Disk, LiveRatio: cfg.liveRatio(),
		Ledgers: cfg.MaxSessions, LedgerExpiry: expiry, Logger: s.log,
		Progress: progress,
	})
	if errors.Is(err, engine.ErrLocked) {
		return fmt.Errorf("another daemon uses %s: %w", cfg.Dir, engine.ErrLocked)
	}
	if err != nil {
		return err
	}
	s.store = store
	s.sessions = newSessionTable(store, cfg.MaxSessions)
	s.pulse.init()
	s.health.degraded = store.Err
	s.writable.store, s.writable.log = store, s.log
	return nil
}

func (s *server) closeStore() error {
	err := s.store.Close()
	s.deliverer.group.Wait() // nothing is committed any more
	if err != nil {
		return fmt.Errorf("close the store: %w", err)
	}
	return nil
}

// serve accepts connections until ctx ends. The sockets are removed by then.
func (s *server) serve(ctx context.Context, doors entrances) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.serving.Go(func() {
		s.pulse.run(ctx, min(max(s.settings().CommitInterval, notifyMin), writableTick), s.tick)
	})
	s.serving.Go(func() { s.scrubs.open(ctx, s.store) })
	stop := context.AfterFunc(ctx, doors.close)
	defer stop()
	failed := make([]error, len(doors))
	var accepting sync.WaitGroup
	for i, e := range doors {
		accepting.Go(func() {
			if failed[i] = s.accept(ctx, e); failed[i] != nil {
				cancel()
			}
		})
	}
	accepting.Wait()
	return errors.Join(failed...)
}

// accept takes in who connects at one door, until ctx ends.
func (s *server) accept(ctx context.Context, e *entrance) error {
	for {
		socket, err := e.listener.AcceptUnix()
		switch {
		case err == nil:
			s.admit(socket, e.roles())
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM):
			// Connections that end make room; until then it is no use to ask
			// more often.
			s.log.Warn("cannot accept a connection", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
		case errors.Is(err, unix.ECONNABORTED):
		default:
			return fmt.Errorf("accept on %s: %w", e.path, err)
		}
	}
}

const (
	// acceptPause is how long to wait when the system has no room for another
	// connection.
	acceptPause = 50 * time.Millisecond
	// killWait is how long connections may take to end after they were killed:
	// what they had begun still has to be finished.
	killWait = 5 * time.Second
)

// admit starts serving a connection, or refuses it.
func (s *server) admit(socket *net.UnixConn, roles *roleList) {
	cfg := s.settings()
	s.mu.Lock()
	full := len(s.mu.conns) >= cfg.MaxConnections
	s.mu.Unlock()
	if full {
		s.count.turnedAway.Add(1)
		turnAway(socket, ipc.CodeBusy, "too many connections (max_connections)")
		return
	}
	p := peerOf(socket)
	r, most := roles.of(&p, os.Geteuid()), cfg.MaxConnectionsUser
	if r == roleAdmin {
		most = 0
	}
	u, ok := s.users.enter(p.uid, most, s.now())
	switch {
	case !ok:
		s.count.turnedAway.Add(1)
		s.deny(u, "connection denied", "pid", p.pid, "why", "max_connections_user")
		turnAway(socket, ipc.CodeBusy, "too many connections of this user (max_connections_user)")
		return
	case r == roleNone:
		s.users.leave(u)
		s.count.turnedAway.Add(1)
		s.deny(u, "connection denied", "pid", p.pid, "why", "no role")
		turnAway(socket, ipc.CodeForbidden, "this user has no role here (roles)")
		return
	}
	c, err := newConn(s, socket, p, r, u)
	if err != nil {
		s.users.leave(u)
		s.log.Warn("connection refused", "error", err)
		_ = socket.Close()
		return
	}
	s.count.accepted.Add(1)
	s.mu.Lock()
	s.mu.conns[c] = struct{}{}
	s.mu.Unlock()
	s.serving.Go(func() {
		c.serve()
		s.users.leave(u)
		s.mu.Lock()
		delete(s.mu.conns, c)
		s.mu.Unlock()
	})
}

// turnAway tells a client why it is not served. The answer fits any socket's
// buffer, so this does not wait.
func turnAway(socket *net.UnixConn, code ipc.Code, why string) {
	_, _ = socket.Write(ipc.AppendErrorResponse(nil, 0, code, why))
	_ = socket.Close()
}

// drain lets every connection finish what it has read, but no longer than
// drain_timeout; then it cuts them off.
func (s *server) drain() error {
	open := s.connections()
	s.log.Info("stopping", "connections", len(open))
	for _, c := range open {
		c.stop(false)
	}
	if s.allDone(s.settings().DrainTimeout) {
		return nil
	}
	left := s.connections()
	s.log.Warn("cutting off connections that did not finish", "connections", len(left))
	for _, c := range left {
		c.kill()
	}
	if !s.allDone(killWait) {
		return fmt.Errorf("%d connections still wait for the disk", len(s.connections()))
	}
	return nil
}

// connections lists the connections of the moment.
func (s *server) connections() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*conn, 0, len(s.mu.conns))
	for c := range s.mu.conns {
		all = append(all, c)
	}
	return all
}

// allDone waits until no connection is left, but no longer than that.
func (s *server) allDone(wait time.Duration) bool {
	done := make(chan struct{})
	go func() {
		s.serving.Wait()
		close(done)
	}()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// TuneCollector makes the garbage collector run when the heap has grown by half
// rather than doubled, unless GOGC says otherwise. The store's memory is not on
// the heap; what is, are requests and answers, and what they leave behind would
// otherwise cost as much again. It is for a process that is a daemon and nothing
// else.
func TuneCollector() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// Version is the version of this build: of a release, or the commit it was built
// from.
func Version() string { return ipc.ReadBuild().Short() }

// About is what this program was built from and how, and whether io_uring works
// here, in a line.
func About() string {
	_, why := ioring.Probe()
	return ipc.ReadBuild().String() + "; " + why
}
