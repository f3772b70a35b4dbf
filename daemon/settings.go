package daemon

import (
	"io/fs"
	"log/slog"
	"math"
	"time"

	"rskv/engine"
	"rskv/ipc"
)

// Config is how one daemon runs. Take one from Defaults or Load; every field
// has a row in the table of settings below, which says what it means.
// Immutable once Run has it.
type Config struct {
	ConfigFile string
	Preset     string
	Dir        string
	Socket     string
	SocketMode fs.FileMode

	SocketGroup groupName
	Roles       roleList
	MoreSockets []door

	AdminSocket string
	AdminListen string

	IO             string
	Memory         int64
	PageSize       int
	SegmentSize    int64
	CommitInterval time.Duration

	Ordered bool

	CheckpointDistance int64
	CheckpointsKept    int
	RecoverVersion     int

	Disk      int64
	LiveRatio float64

	Limits         ipc.Limits
	RequestMemory  int64
	MaxConnections int

	MaxConnectionsUser int
	MaxRateUser        int

	MaxSessions    int
	SessionExpiry  time.Duration
	RequestTimeout time.Duration
	AnswerTimeout  time.Duration
	DrainTimeout   time.Duration
	BackupTimeout  time.Duration
	MaxWatches     int
	WatchTimeout   time.Duration

	ScrubInterval time.Duration
	ScrubRate     int64

	SlowlogThreshold time.Duration
	SlowlogSize      int

	Sandbox string

	LogLevel  slog.Level
	LogFormat string

	// origin says where each setting was given, by name: "--memory",
	// "RSKV_MEMORY", "/etc/rskv.toml:3". Missing: its default. Immutable.
	origin map[string]string
}

// The smallest values the daemon still works with, and the largest that make
// sense. Limits of the protocol bound the limits from above.
const (
	memoryMin  = 32 << 20 // index, some pages of log and the I/O buffers
	memoryMax  = 1 << 46
	pageMin    = 256 << 10
	pageMax    = 4 << 20
	segmentMin = 1 << 20
	segmentMax = 1 << 30 // one read or write moves less than 2 GiB on Linux
	// requestMin has room for a request of one key with its longest length.
	requestMin = 128 << 10
	// connectionsMax keeps descriptors and per-connection memory in reach.
	connectionsMax   = 65_536
	sessionsMax      = engine.LedgersDefault // what one commit record has room for
	sessionExpiryMax = 10 * 365 * 24 * time.Hour
	distanceMax      = 1 << 50
	diskMax          = 1 << 50
	diskSegments     = 8 // fewer have no room for compaction to work in
	checkpointsMax   = 1000
	timeoutMin       = 10 * time.Millisecond
	timeoutMax       = 24 * time.Hour
	commitMin        = time.Millisecond
	commitMax        = time.Hour
	slowlogMax       = 10_000 // some 200 bytes each
	scrubIntervalMax = 10 * 365 * 24 * time.Hour
	rateMax          = 1 << 40 // bytes a second: more than any disk has
)

// What the setting sandbox can be.
const (
	sandboxAuto = "auto"
	sandboxOn   = "on"
	sandboxOff  = "off"
)

// setting is one row of the table: everything there is to know about one name.
type setting struct {
	// name is the key in a file and in `config`; the flag is the same with
	// dashes, the variable the same in capitals behind RSKV_.
	name string
	doc  string
	// live: `config` with "set" changes it while the daemon runs.
	live bool
	bind func(c *Config) value
}

// flagOnly reports whether neither a file nor a variable may say it: it would be
// said again at each start.
func (s setting) flagOnly() bool { return s.name == "recover_version" }

// settings is the one table from which flags, variables, file keys, help and
// the answers of `config` come.
var settings = []setting{
	{"config", "file with settings, in TOML; only as a flag or variable", false,
		func(c *Config) value { return textValue{&c.ConfigFile, true} }},
	{"preset", "defaults for one kind of use; every setting that is given counts over them", false,
		func(c *Config) value { return choiceValue{&c.Preset, presetNames()} }},
	{"dir", "directory of the store; created when missing", false,
		func(c *Config) value { return textValue{&c.Dir, false} }},
	{"socket", "path of the Unix socket", false,
		func(c *Config) value { return textValue{&c.Socket, false} }},
	{"socket_mode", "who may connect: the mode of the socket", false,
		func(c *Config) value { return modeValue{&c.SocketMode} }},
	{"socket_group", "group that owns the socket, by name or number; empty: that of the daemon", false,
		func(c *Config) value { return groupValue{&c.SocketGroup} }},
	{"roles", "what who connects may do: USER=ROLE, @GROUP=ROLE, *=ROLE (everybody else), separated by commas; read, write, admin or none; for connections from then on", true,
		func(c *Config) value { return rolesValue{&c.Roles} }},
	{"more_sockets", "more data sockets, separated by semicolons, each with its own roles: PATH mode=0666 group=NAME roles=*=read", false,
		func(c *Config) value { return doorsValue{&c.MoreSockets} }},
	{"admin_socket", "path of the socket for operators, HTTP with mode 0600; auto: socket with .admin behind it; off: none", false,
		func(c *Config) value { return textValue{&c.AdminSocket, false} }},
	{"admin_listen", "loopback address for scrapers and browsers of this machine, such as 127.0.0.1:9510; empty: none", false,
		func(c *Config) value { return loopbackValue{&c.AdminListen} }},

	{"io", "how the disk is reached: io_uring (uring), pread/pwrite (sync), or the better one this machine allows (auto)", false,
		func(c *Config) value { return choiceValue{&c.IO, []string{"auto", "uring", "sync"}} }},
	{"memory", "memory for index, log and I/O buffers together", true,
		func(c *Config) value { return sizeValue[int64]{&c.Memory, memoryMin, memoryMax} }},
	{"ordered", "keep the keys in their order in memory too: scan returns them so and takes from and to, and a start reads the whole log", false,
		func(c *Config) value { return switchValue{&c.Ordered} }},
	{"page_size", "page of the log, a power of two; fixed when the store is created", false,
		func(c *Config) value { return sizeValue[int]{&c.PageSize, pageMin, pageMax} }},
	{"segment_size", "size of one file of the log, a power of two; fixed when the store is created", false,
		func(c *Config) value { return sizeValue[int64]{&c.SegmentSize, segmentMin, segmentMax} }},
	{"commit_interval", "how often writes become durable by themselves; 0: only when a client asks", false,
		func(c *Config) value { return spanValue{&c.CommitInterval, commitMin, commitMax} }},
	{"checkpoint_distance", "how much log a start may have to read before a checkpoint is taken; 0: only when asked", false,
		func(c *Config) value { return sizeValue[int64]{&c.CheckpointDistance, 0, distanceMax} }},
	{"checkpoints_kept", "checkpoints that are kept", false,
		func(c *Config) value { return countValue{&c.CheckpointsKept, 1, checkpointsMax} }},
	{"recover_version", "start from the checkpoint of that version and discard all that came after it, for good; 0: from the newest state; only as a flag", false,
		func(c *Config) value { return countValue{&c.RecoverVersion, 0, math.MaxInt} }},

	{"disk", "what the store may take on disk, at least 8 segments: log, checkpoints and what compaction needs; writes wait for compaction near it, and fail when all in it is live; 0: no limit", true,
		func(c *Config) value { return sizeValue[int64]{&c.Disk, 0, diskMax} }},
	{"live_ratio", "share of the log that has to be live for compaction not to begin by itself; 0: it begins for the disk's sake only", true,
		func(c *Config) value { return ratioValue{&c.LiveRatio} }},

	{"max_key", "longest key", false,
		func(c *Config) value { return sizeValue[int]{&c.Limits.Key, 1, ipc.MaxKey} }},
	{"max_value", "longest value", false,
		func(c *Config) value { return sizeValue[int]{&c.Limits.Value, 1, ipc.MaxValue} }},
	{"max_request", "longest request as a whole", false,
		func(c *Config) value { return sizeValue[int]{&c.Limits.Request, requestMin, ipc.MaxRequest} }},
	{"max_answer", "longest answer as a whole", false,
		func(c *Config) value { return sizeValue[int]{&c.Limits.Answer, requestMin, ipc.MaxAnswer} }},
	{"max_keys", "keys in one mget, mput or mdel", false,
		func(c *Config) value { return countValue{&c.Limits.Keys, 1, ipc.MaxKeys} }},
	{"max_unanswered", "requests of one connection without an answer before it is not read on", false,
		func(c *Config) value { return countValue{&c.Limits.Unanswered, 1, ipc.MaxUnanswered} }},
	{"max_queued", "bytes of answers queued for one connection before it is not read on", false,
		func(c *Config) value { return sizeValue[int]{&c.Limits.Queued, 1, ipc.MaxQueued} }},
	{"max_queued_all", "bytes of answers queued for all connections before those with a queue are not read on", false,
		func(c *Config) value { return sizeValue[int]{&c.Limits.QueuedAll, 1, ipc.MaxQueuedAll} }},
	{"request_memory", "memory for requests longer than 64 KiB of all connections together, at least max_request", false,
		func(c *Config) value { return sizeValue[int64]{&c.RequestMemory, requestMin, memoryMax} }},

	{"max_connections", "connections at a time; more are answered Busy and closed", true,
		func(c *Config) value { return countValue{&c.MaxConnections, 1, connectionsMax} }},
	{"max_connections_user", "connections at a time of one user who is no administrator; 0: no limit", true,
		func(c *Config) value { return countValue{&c.MaxConnectionsUser, 0, connectionsMax} }},
	{"max_rate_user", "operations a second of one user who is no administrator, a request for many keys counting as many; more are answered Busy; 0: no limit", true,
		func(c *Config) value { return countValue{&c.MaxRateUser, 0, math.MaxInt32} }},
	{"max_sessions", "sessions remembered; beyond it the one unused for longest is forgotten", false,
		func(c *Config) value { return countValue{&c.MaxSessions, 1, sessionsMax} }},
	{"session_expiry", "how long a session that nobody uses is remembered at least, if there is room; 0: for ever", false,
		func(c *Config) value { return spanValue{&c.SessionExpiry, timeoutMin, sessionExpiryMax} }},
	{"request_timeout", "a connection that began a request and sends nothing more for that long is closed; 0: never", true,
		func(c *Config) value { return spanValue{&c.RequestTimeout, timeoutMin, timeoutMax} }},
	{"answer_timeout", "a connection that takes no byte of its waiting answers for that long is closed; 0: never", true,
		func(c *Config) value { return spanValue{&c.AnswerTimeout, timeoutMin, timeoutMax} }},
	{"drain_timeout", "how long a stopping daemon waits for requests in flight", true,
		func(c *Config) value { return spanValue{&c.DrainTimeout, timeoutMin, timeoutMax} }},
	{"backup_timeout", "a backup that its client does not read for that long is given up; 0: never", true,
		func(c *Config) value { return spanValue{&c.BackupTimeout, timeoutMin, timeoutMax} }},
	{"max_watches", "watches of changes at a time, some 300 KiB of memory each, and 2 pages of the log while one catches up", true,
		func(c *Config) value { return countValue{&c.MaxWatches, 1, connectionsMax} }},
	{"watch_timeout", "a watch ends whose client takes none of its notifications for that long, and is told where to go on; 0: never", true,
		func(c *Config) value { return spanValue{&c.WatchTimeout, timeoutMin, timeoutMax} }},
	{"scrub_interval", "how often the whole log is read back and verified; 0: only when asked", true,
		func(c *Config) value { return spanValue{&c.ScrubInterval, timeoutMin, scrubIntervalMax} }},
	{"scrub_rate", "bytes a second that are read for that; 0: no limit", true,
		func(c *Config) value { return sizeValue[int64]{&c.ScrubRate, 0, rateMax} }},
	{"slowlog_threshold", "requests that take longer are kept in the slow log; 0: none", true,
		func(c *Config) value { return spanValue{&c.SlowlogThreshold, time.Microsecond, timeoutMax} }},
	{"slowlog_size", "requests that the slow log keeps", false,
		func(c *Config) value { return countValue{&c.SlowlogSize, 1, slowlogMax} }},

	{"sandbox", "whether the daemon takes from itself what it does not need (Landlock, no_new_privs): where the kernel has it (auto), or else it does not start (on)", false,
		func(c *Config) value { return choiceValue{&c.Sandbox, []string{sandboxAuto, sandboxOn, sandboxOff}} }},

	{"log_level", "how much is logged to stderr", true,
		func(c *Config) value { return levelValue{&c.LogLevel} }},
	{"log_format", "text, one JSON object a line, or the journal's fields where stderr is the journal and text elsewhere (auto)", false,
		func(c *Config) value { return choiceValue{&c.LogFormat, []string{"auto", "text", "json"}} }},
}

// settingByName finds a row by the name in files and `config`.
func settingByName(name string) (setting, bool) {
	for _, s := range settings {
		if s.name == name {
			return s, true
		}
	}
	return setting{}, false
}
