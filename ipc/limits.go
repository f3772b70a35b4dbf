package ipc

import "fmt"

// Limits that are part of the protocol. A daemon may be configured below the ones in Limits, never
// above.
const (
	// ProtocolVersion is the version of this protocol, as said in hello.
	ProtocolVersion = 1

	// MaxKey is the longest key in bytes: a record's header holds the length in 16 bits.
	MaxKey = 65_535
	// MaxValue is the longest value in bytes by default.
	MaxValue = 16 << 20
	// MaxRequest is the longest request in bytes, as a whole.
	MaxRequest = 64 << 20
	// MaxAnswer is the longest answer in bytes, as a whole.
	MaxAnswer = 64 << 20
	// MaxKeys is how many keys one mget, mput or mdel may name.
	MaxKeys = 65_536
	// MaxUnanswered is how many requests of one connection may wait for their answers; beyond it the
	// daemon stops reading that connection.
	MaxUnanswered = 65_536
	// MaxQueued is how many bytes of answers may be queued for one connection before the daemon stops
	// reading it.
	MaxQueued = 16 << 20
	// MaxQueuedAll is how many bytes of answers may be queued for all connections together.
	MaxQueuedAll = 256 << 20

	// MaxDepth is how deep arrays and maps may nest, the message itself being the first level. The
	// methods need four; the rest is for telling a wrong type (answered) from a bomb (refused).
	MaxDepth = 32
	// SessionSize is the length in bytes of a session's id.
	SessionSize = 16
	// MaxClientName is the longest "client" in hello, in bytes: it ends up in log lines.
	MaxClientName = 256
	// MaxTTL is the longest time to live in ms: 8,900 years.
	MaxTTL = 1<<48 - 1
	// MaxCookie is the longest "cookie" of a checkpoint in bytes: it is stored in the manifest.
	MaxCookie = 4_096
	// MaxBackupPiece is the most that one read of a backup brings, in bytes: enough for the stream to
	// run at the speed of the disk, little to hold for each reader.
	MaxBackupPiece = 1 << 20
	// BackupTail is how many bytes a backup has behind what its digest is about.
	BackupTail = 64
	// MaxSettings is how many settings one config call may name.
	MaxSettings = 256
	// MaxSocketPath is the longest path of a Unix socket in bytes (sun_path, without its final zero).
	MaxSocketPath = 107
)

// Limits are what one daemon enforces and tells in hello. All counts are bytes but Keys and
// Unanswered. Immutable once handed to a parser.
type Limits struct {
	Key        int // longest key
	Value      int // longest value
	Request    int // longest request as a whole
	Answer     int // longest answer as a whole
	Keys       int // keys in one mget, mput, mdel
	Unanswered int // requests of one connection without an answer
	Queued     int // bytes of answers queued for one connection
	QueuedAll  int // bytes of answers queued for all connections
}

// DefaultLimits returns the protocol's own limits.
func DefaultLimits() Limits {
	return Limits{
		Key: MaxKey, Value: MaxValue, Request: MaxRequest, Answer: MaxAnswer, Keys: MaxKeys,
		Unanswered: MaxUnanswered, Queued: MaxQueued, QueuedAll: MaxQueuedAll,
	}
}

// limitField ties a limit to its name in hello and to its bounds.
type limitField struct {
	name  string
	value *int
	max   int
}

// fields lists the limits in the order in which hello tells them.
func (l *Limits) fields() [8]limitField {
	return [8]limitField{
		{"key", &l.Key, MaxKey}, {"value", &l.Value, MaxValue}, {"request", &l.Request, MaxRequest},
		{"answer", &l.Answer, MaxAnswer}, {"keys", &l.Keys, MaxKeys},
		{"unanswered", &l.Unanswered, MaxUnanswered},
		{"queued", &l.Queued, MaxQueued}, {"queued_all", &l.QueuedAll, MaxQueuedAll},
	}
}

// Validate reports every limit that is below 1 or above the protocol's own, in one error.
func (l Limits) Validate() error {
	var text string
	for _, f := range l.fields() {
		if *f.value < 1 || *f.value > f.max {
			text += fmt.Sprintf("; limit %s is %d, must be 1..%d", f.name, *f.value, f.max)
		}
	}
	if text == "" {
		return nil
	}
	return fmt.Errorf("%s", text[2:])
}
