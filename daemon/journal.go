package daemon

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"
)

// journalSocket is where systemd's journal takes entries with fields.
const journalSocket = "/run/systemd/journal/socket"

// journalMax is how long the journal may take to take a line.
const journalMax = time.Second

// journalPrefix begins the name of every field that comes from a log line's
// attributes: `journalctl RSKV_UID=1000` finds what one user did.
const journalPrefix = "RSKV_"

// journal is a slog.Handler that writes to the journal by its native protocol:
// one datagram for each line, with the line as people read it, its priority, and
// every attribute as a field. What the journal does not take goes to stderr.
// Immutable.
type journal struct {
	conn   *net.UnixConn
	level  slog.Leveler
	text   slog.Handler // to stderr
	group  string       // of the attributes to come, as a prefix
	fields []byte       // attributes given by With, encoded
	tail   string       // the same as they stand in the line
}

// newJournal connects to the journal at path. nil: it is not there.
func newJournal(path string, level slog.Leveler, stderr io.Writer) slog.Handler {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil
	}
	return &journal{conn: conn, level: level, text: slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})}
}

func (j *journal) Enabled(_ context.Context, level slog.Level) bool { return level >= j.level.Level() }

func (j *journal) Handle(ctx context.Context, r slog.Record) error {
	var fields bytes.Buffer
	line := r.Message + j.tail
	r.Attrs(func(a slog.Attr) bool {
		line += encodeAttr(&fields, j.group, a)
		return true
	})
	var entry bytes.Buffer
	appendField(&entry, "MESSAGE", line)
	appendField(&entry, "PRIORITY", priority(r.Level))
	appendField(&entry, "SYSLOG_IDENTIFIER", serverName)
	entry.Write(j.fields)
	entry.Write(fields.Bytes())
	_ = j.conn.SetWriteDeadline(time.Now().Add(journalMax))
	_, err := j.conn.Write(entry.Bytes())
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return nil // a journal that hangs has stderr too: the line is lost
	}
	return j.text.Handle(ctx, r)
}

func (j *journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *j
	fields := bytes.NewBuffer(bytes.Clone(j.fields))
	for _, a := range attrs {
		n.tail += encodeAttr(fields, j.group, a)
	}
	n.fields = fields.Bytes()
	n.text = j.text.WithAttrs(attrs)
	return &n
}

func (j *journal) WithGroup(name string) slog.Handler {
	if name == "" {
		return j
	}
	n := *j
	n.group += name + "_"
	n.text = j.text.WithGroup(name)
	return &n
}

// encodeAttr writes an attribute as fields, and returns it as it stands in the
// line.
func encodeAttr(fields *bytes.Buffer, group string, a slog.Attr) string {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "_"
		}
		line := ""
		for _, inner := range v.Group() {
			line += encodeAttr(fields, group, inner)
		}
		return line
	}
	if a.Key == "" {
		return ""
	}
	appendField(fields, fieldName(group+a.Key), v.String())
	return " " + group + a.Key + "=" + v.String()
}

// fieldName makes a journal's field of an attribute's name: capitals, digits and
// underscores only.
func fieldName(name string) string {
	return journalPrefix + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, name)
}

// appendField writes one field; a value of several lines with its length.
func appendField(b *bytes.Buffer, name, value string) {
	b.WriteString(name)
	if strings.ContainsRune(value, '\n') {
		b.WriteByte('\n')
		b.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(value))))
	} else {
		b.WriteByte('=')
	}
	b.WriteString(value)
	b.WriteByte('\n')
}

// priority is syslog's number for a level.
func priority(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "3"
	case level >= slog.LevelWarn:
		return "4"
	case level >= slog.LevelInfo:
		return "6"
	}
	return "7"
}
