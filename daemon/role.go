package daemon

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"

	"rskv/ipc"
)

// Roles follow from who the kernel says is on the other end of a socket. Of the
// entries of a list
//
//	root=admin, @staff=write, 1234=read, *=none
//
// the user's own counts; else the highest of its groups', supplementary ones
// among them; else that of everybody; else there is no role. Without an entry of
// their own, root and the daemon's user are administrators.

// roleList says which role a socket gives to whom. Immutable.
type roleList struct {
	users, groups map[int]role
	others        role
	text          string // as it was written
}

// role is what a peer may do: one of the protocol's classes, or nothing at all.
type role int8

const (
	roleNone  role = -1
	roleRead       = role(ipc.ClassRead)
	roleWrite      = role(ipc.ClassWrite)
	roleAdmin      = role(ipc.ClassAdmin)
)

// roleNames begins with what -1 is called.
var roleNames = []string{"none", ipc.ClassRead.String(), ipc.ClassWrite.String(), ipc.ClassAdmin.String()}

func (r role) String() string { return roleNames[r+1] }

// rolesDefault lets write who can open the socket.
const rolesDefault = "*=write"

var rolesStandard = roleList{users: map[int]role{}, groups: map[int]role{}, others: roleWrite, text: rolesDefault}

var errRole = errors.New("want USER=ROLE, @GROUP=ROLE or *=ROLE, separated by commas, where ROLE is read, write, admin or none")

// parseRoles reads a list. Names are looked up now, so that a mistake in one is
// found before it lets somebody in.
func parseRoles(text string) (roleList, error) {
	l := roleList{users: map[int]role{}, groups: map[int]role{}, others: roleNone, text: text}
	seen := map[string]bool{}
	for entry := range strings.SplitSeq(text, ",") {
		who, what, ok := strings.Cut(strings.TrimSpace(entry), "=")
		r, known := roleByName(what)
		if !ok || !known || who == "" {
			return l, fmt.Errorf("%q: %w", entry, errRole)
		}
		id, err := 0, error(nil)
		switch group, isGroup := strings.CutPrefix(who, "@"); {
		case who == "*":
			l.others = r
		case isGroup:
			id, err = groupID(group)
			l.groups[id] = r
			who = fmt.Sprint("@", id)
		default:
			id, err = userID(who)
			l.users[id] = r
			who = fmt.Sprint(id)
		}
		if err != nil {
			return l, err
		}
		if seen[who] {
			return l, fmt.Errorf("%q: there is another entry for the same", entry)
		}
		seen[who] = true
	}
	return l, nil
}

func roleByName(name string) (role, bool) {
	for i, n := range roleNames {
		if n == name {
			return role(i - 1), true
		}
	}
	return roleNone, false
}

// of returns the role of a peer. self is the daemon's own user.
func (l *roleList) of(p *peer, self int) role {
	if r, ok := l.users[p.uid]; ok {
		return r
	}
	if p.uid == 0 || p.uid == self {
		return roleAdmin
	}
	best, found := roleNone, false
	for _, group := range p.groups {
		if r, ok := l.groups[group]; ok {
			best, found = max(best, r), true
		}
	}
	if found {
		return best
	}
	return l.others
}

// userID returns the number of a user, by name or number.
func userID(name string) (int, error) {
	if id, ok := number(name); ok {
		return id, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("there is no user %q on this machine", name)
	}
	return strconv.Atoi(u.Uid)
}

// groupID returns the number of a group, by name or number.
func groupID(name string) (int, error) {
	if id, ok := number(name); ok {
		return id, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("there is no group %q on this machine", name)
	}
	return strconv.Atoi(g.Gid)
}

// number reads the number of a user or group, 32 bits without a sign.
func number(text string) (int, bool) {
	n, err := strconv.ParseUint(text, 10, 32)
	return int(n), err == nil
}

// rolesValue is a list of roles.
type rolesValue struct{ p *roleList }

func (v rolesValue) Set(s string) error {
	l, err := parseRoles(s)
	if err == nil {
		*v.p = l
	}
	return err
}
func (v rolesValue) String() string    { return v.p.text }
func (v rolesValue) Type() string      { return "roles" }
func (v rolesValue) separator() string { return ", " }
