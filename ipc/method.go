package ipc

// Method is one of the methods a daemon of this version carries out. The numbers are private to a
// process; on the wire a method is its name.
type Method uint8

// The methods.
const (
	MethodUnknown Method = iota // not a method
	MethodPing
	MethodHello
	MethodGet
	MethodExists
	MethodPut
	MethodDel
	MethodCas
	MethodAdd
	MethodAppend
	MethodMGet
	MethodMPut
	MethodMDel
	MethodExpire
	MethodTTL
	MethodLen
	MethodSync
	MethodStats
	MethodConfig
	MethodCheckpoint
	MethodCheckpoints
	MethodBackup
	MethodScrub
	MethodHealth
	MethodSlowlog
	MethodMonitor
	MethodCompact
	MethodTasks
	MethodScan
	MethodWatch
	methodCount
)

// Class says what a method does to the store, and so which role may call it.
type Class uint8

// The classes, each including the rights of the one before it.
const (
	// ClassRead changes nothing.
	ClassRead Class = iota
	// ClassWrite changes keys. Each call, also a refused one, takes one number of its session.
	ClassWrite
	// ClassAdmin acts on the store as a whole.
	ClassAdmin
)

var classNames = [...]string{"read", "write", "admin"}

// String returns the class's name, which is also the name of the least role that may call it.
func (c Class) String() string { return classNames[c] }

// methodInfo is what the table says of a method.
type methodInfo struct {
	name  string
	class Class
	least int // parameters without a default
	most  int // parameters
}

var methods = [methodCount]methodInfo{
	MethodPing:        {"ping", ClassRead, 0, 0},
	MethodHello:       {"hello", ClassRead, 0, 1},
	MethodGet:         {"get", ClassRead, 1, 1},
	MethodExists:      {"exists", ClassRead, 1, 1},
	MethodPut:         {"put", ClassWrite, 2, 3},
	MethodDel:         {"del", ClassWrite, 1, 2},
	MethodCas:         {"cas", ClassWrite, 3, 4},
	MethodAdd:         {"add", ClassWrite, 2, 3},
	MethodAppend:      {"append", ClassWrite, 2, 3},
	MethodMGet:        {"mget", ClassRead, 1, 1},
	MethodMPut:        {"mput", ClassWrite, 1, 2},
	MethodMDel:        {"mdel", ClassWrite, 1, 2},
	MethodExpire:      {"expire", ClassWrite, 2, 3},
	MethodTTL:         {"ttl", ClassRead, 1, 1},
	MethodLen:         {"len", ClassRead, 0, 1},
	MethodSync:        {"sync", ClassRead, 0, 0},
	MethodStats:       {"stats", ClassRead, 0, 0},
	MethodConfig:      {"config", ClassRead, 0, 1},
	MethodCheckpoint:  {"checkpoint", ClassAdmin, 0, 1},
	MethodCheckpoints: {"checkpoints", ClassRead, 0, 0},
	MethodBackup:      {"backup", ClassAdmin, 1, 2},
	MethodScrub:       {"scrub", ClassAdmin, 1, 2},
	MethodHealth:      {"health", ClassRead, 0, 0},
	MethodSlowlog:     {"slowlog", ClassAdmin, 1, 2},
	MethodMonitor:     {"monitor", ClassAdmin, 1, 2},
	MethodCompact:     {"compact", ClassAdmin, 0, 1},
	MethodTasks:       {"tasks", ClassAdmin, 1, 2},
	MethodScan:        {"scan", ClassRead, 0, 1},
	MethodWatch:       {"watch", ClassRead, 0, 1},
}

// MethodLimit is one more than the largest Method: the length of a table of all of them.
const MethodLimit = int(methodCount)

// Methods returns all methods in the order of the table in PROTOCOL.md.
func Methods() []Method {
	all := make([]Method, 0, methodCount-1)
	for m := MethodUnknown + 1; m < methodCount; m++ {
		all = append(all, m)
	}
	return all
}

// String returns the method's name on the wire; MethodUnknown has the name "unknown".
func (m Method) String() string {
	if m == MethodUnknown || m >= methodCount {
		return "unknown"
	}
	return methods[m].name
}

// Class returns the method's class. A config call that sets something needs ClassAdmin all the same:
// see Call.Class.
func (m Method) Class() Class { return methods[m].class }

// HasKey reports whether the method is about one key, its first parameter.
func (m Method) HasKey() bool {
	switch m {
	case MethodGet, MethodExists, MethodPut, MethodDel, MethodCas, MethodAdd, MethodAppend, MethodExpire, MethodTTL:
		return true
	}
	return false
}

// LookupMethod returns the method of that name, or MethodUnknown. It does not keep name.
func LookupMethod(name []byte) Method {
	switch string(name) { // compiled to comparisons, without allocating
	case "get":
		return MethodGet
	case "put":
		return MethodPut
	case "del":
		return MethodDel
	case "cas":
		return MethodCas
	case "add":
		return MethodAdd
	case "ttl":
		return MethodTTL
	case "len":
		return MethodLen
	case "mget":
		return MethodMGet
	case "mput":
		return MethodMPut
	case "mdel":
		return MethodMDel
	case "ping":
		return MethodPing
	case "sync":
		return MethodSync
	case "hello":
		return MethodHello
	case "stats":
		return MethodStats
	case "exists":
		return MethodExists
	case "append":
		return MethodAppend
	case "expire":
		return MethodExpire
	case "config":
		return MethodConfig
	case "checkpoint":
		return MethodCheckpoint
	case "checkpoints":
		return MethodCheckpoints
	case "backup":
		return MethodBackup
	case "scrub":
		return MethodScrub
	case "health":
		return MethodHealth
	case "slowlog":
		return MethodSlowlog
	case "monitor":
		return MethodMonitor
	case "compact":
		return MethodCompact
	case "tasks":
		return MethodTasks
	case "scan":
		return MethodScan
	case "watch":
		return MethodWatch
	}
	return MethodUnknown
}

// unknownMethod is the error that answers a method which is not there.
func unknownMethod(name []byte) *Error {
	const shown = 64 // bytes of a stranger's text an error message repeats
	if len(name) > shown {
		name = name[:shown]
	}
	return &Error{CodeUnknownMethod, "no method " + quote(name)}
}
