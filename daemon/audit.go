package daemon

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"rskv/ipc"
)

// The audit log is the lines with the attribute audit: "denied" for what a peer
// was not allowed, at WARN, and "admin" for what an administrator has asked for,
// at INFO, before it is done. They are written whatever log_level says. Names of
// settings, tasks and sizes are in them; keys, values, cookies and session ids
// never are.

// deniedEvery is how often a user's denials are written: one who tries again and
// again fills no disk. What was left out is counted in the next line.
const deniedEvery = time.Second

// quiet keeps lines of one kind from coming too often. Not safe for concurrent
// use.
type quiet struct {
	told time.Time // the last line
	more int       // left out since
}

// speak reports whether a line may be written now, and how many were left out.
func (q *quiet) speak(now time.Time) (more int, ok bool) {
	if now.Sub(q.told) < deniedEvery {
		q.more++
		return 0, false
	}
	more, q.told, q.more = q.more, now, 0
	return more, true
}

// deny writes that a user was not allowed something.
func (s *server) deny(u *client, what string, attrs ...any) {
	s.count.denied.Add(1)
	u.mu.Lock()
	more, ok := u.denied.speak(time.Now())
	u.mu.Unlock()
	if !ok {
		return
	}
	if more > 0 {
		attrs = append(attrs, "more", more)
	}
	s.auditLog.Warn(what, append([]any{"audit", "denied", "uid", u.uid}, attrs...)...)
}

// denyCall writes that a request needs another role.
func (c *conn) denyCall(method ipc.Method, needs ipc.Class) {
	c.server.deny(c.user, "request denied", "pid", c.peer.pid, "client", c.name,
		"method", method.String(), "role", c.role.String(), "needs", needs.String())
}

// audit writes that an administrator asks for something that changes the daemon
// or shows what others keep in it.
func (c *conn) audit(q *ipc.Call) {
	detail, ok := administers(q)
	if !ok {
		return
	}
	attrs := []any{"audit", "admin", "uid", c.peer.uid, "pid", c.peer.pid, "client", c.name, "method", q.Method.String()}
	if detail != "" {
		attrs = append(attrs, "detail", detail[:min(len(detail), detailMax)])
	}
	c.server.auditLog.Info("administration", attrs...)
}

// administers says what of a call belongs into the audit log. false: it only
// looks at what the daemon does, or goes on with what was logged.
func administers(q *ipc.Call) (detail string, ok bool) {
	switch q.Method {
	case ipc.MethodConfig:
		var set []string
		for _, s := range q.Settings {
			set = append(set, s.Name+"="+s.Value)
		}
		return strings.Join(set, " "), len(set) > 0
	case ipc.MethodCheckpoint:
		return "", true
	case ipc.MethodCompact:
		if q.Offset > 0 {
			detail = fmt.Sprintf("until %d", q.Offset)
		}
		return detail, true
	case ipc.MethodBackup:
		return q.Action.String(), q.Action == ipc.ActionOpen
	case ipc.MethodScrub:
		return q.Action.String(), q.Action != ipc.ActionStatus
	case ipc.MethodTasks:
		return strings.TrimSpace(q.Action.String() + " " + string(q.Name)), q.Action != ipc.ActionGet
	case ipc.MethodSlowlog:
		return q.Action.String(), q.Action == ipc.ActionReset
	case ipc.MethodMonitor:
		return q.Action.String(), q.Action == ipc.ActionStart
	}
	// A method that came later: rather a line too many.
	return "", q.Method.Class() == ipc.ClassAdmin
}

// detailMax is how many bytes of what is asked for are written: more than any
// request that makes sense has.
const detailMax = 512

// auditLevel lets lines of the audit log through whatever log_level says.
const auditLevel = slog.LevelInfo
