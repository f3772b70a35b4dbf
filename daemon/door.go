package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
)

// door is a data socket: where it is, who may open it, and what they may do.
type door struct {
	path  string
	mode  fs.FileMode
	group groupName // that owns the socket
	roles roleList
}

// doors are the data sockets of a Config, the setting socket first.
func (c *Config) doors() []door {
	return append([]door{{c.Socket, c.SocketMode, c.SocketGroup, c.Roles}}, c.MoreSockets...)
}

// modeDefault lets in the socket's owner and group.
const modeDefault fs.FileMode = 0o660

var errDoor = errors.New("want PATH [mode=0660] [group=NAME] [roles=USER=ROLE,...], several separated by semicolons")

// parseDoor reads one socket of more_sockets.
func parseDoor(text string) (door, error) {
	d := door{mode: modeDefault}
	words := strings.Fields(text)
	if len(words) == 0 || !filepath.IsAbs(words[0]) {
		return d, fmt.Errorf("%q: %w", text, errDoor)
	}
	d.path = words[0]
	roles := rolesDefault
	for _, word := range words[1:] {
		name, what, _ := strings.Cut(word, "=")
		var err error
		switch name {
		case "mode":
			err = modeValue{&d.mode}.Set(what)
		case "group":
			err = groupValue{&d.group}.Set(what)
		case "roles":
			roles = what
		default:
			err = errDoor
		}
		if err != nil {
			return d, fmt.Errorf("%s: %w", word, err)
		}
	}
	var err error
	if d.roles, err = parseRoles(roles); err != nil {
		return d, fmt.Errorf("roles=%s: %w", roles, err)
	}
	return d, nil
}

func (d *door) String() string {
	text := d.path
	if d.mode != modeDefault {
		text += " mode=" + modeValue{&d.mode}.String()
	}
	if d.group.text != "" {
		text += " group=" + d.group.text
	}
	if d.roles.text != rolesDefault {
		text += " roles=" + d.roles.text
	}
	return text
}

// doorsValue is a list of sockets; empty: none.
type doorsValue struct{ p *[]door }

func (v doorsValue) Set(s string) error {
	var all []door
	for text := range strings.SplitSeq(s, ";") {
		if strings.TrimSpace(text) == "" {
			continue
		}
		d, err := parseDoor(text)
		if err != nil {
			return err
		}
		all = append(all, d)
	}
	*v.p = all
	return nil
}

func (v doorsValue) String() string {
	texts := make([]string, len(*v.p))
	for i := range *v.p {
		texts[i] = (*v.p)[i].String()
	}
	return strings.Join(texts, v.separator())
}
func (v doorsValue) Type() string      { return "sockets" }
func (v doorsValue) separator() string { return "; " }

// groupName is a group of this machine; the zero value is none.
type groupName struct {
	text string // as it was written
	id   int
}

// groupValue is a group by name or number; empty: none.
type groupValue struct{ p *groupName }

func (v groupValue) Set(s string) error {
	g := groupName{text: s}
	if s != "" {
		var err error
		if g.id, err = groupID(s); err != nil {
			return err
		}
	}
	*v.p = g
	return nil
}
func (v groupValue) String() string { return v.p.text }
func (v groupValue) Type() string   { return "group" }

// entrance is a door that this daemon may open, and then has open.
type entrance struct {
	*entry
	listener *net.UnixListener // nil: not open yet
	roles    func() *roleList  // those in force
}

// entrances are all data sockets.
type entrances []*entrance

// claimDoors takes the right to serve on every data socket. Those that the
// service manager has opened, it takes from given: data by its name, the others
// by their paths.
func (s *server) claimDoors(cfg *Config, given map[string]*net.UnixListener) (entrances, error) {
	var all entrances
	for i, d := range cfg.doors() {
		e := &entrance{roles: func() *roleList { return &d.roles }}
		name := givenData
		if i == 0 {
			e.roles = func() *roleList { return &s.settings().Roles }
		} else {
			name = givenAt(given, d.path)
		}
		var err error
		if e.entry, err = claim(d.path, given[name]); err != nil {
			all.release()
			return nil, err
		}
		delete(given, name)
		all = append(all, e)
	}
	delete(given, givenAdmin) // which openAdmin has
	for name, listener := range given {
		all.release()
		return nil, fmt.Errorf("the service manager's socket %q at %s is none of this daemon's: name it %s or %s (FileDescriptorName=), or put its path in more_sockets",
			name, listener.Addr(), givenData, givenAdmin)
	}
	return all, nil
}

// givenAt is the name of the socket that the service manager has opened at path;
// "": none.
func givenAt(given map[string]*net.UnixListener, path string) string {
	for name, listener := range given {
		if name != givenData && name != givenAdmin && listener.Addr().String() == path {
			return name
		}
	}
	return ""
}

// open makes clients able to connect.
func (all entrances) open(ctx context.Context, doors []door) error {
	for i, e := range all {
		var err error
		if e.listener, err = e.listen(ctx, doors[i].mode, doors[i].group); err != nil {
			all.close()
			return err
		}
	}
	return nil
}

func (all entrances) close() {
	for _, e := range all {
		if e.listener != nil {
			_ = e.listener.Close()
		}
	}
}

// release gives every path up.
func (all entrances) release() {
	for _, e := range all {
		e.entry.release()
	}
}

// paths are where clients can connect.
func (all entrances) paths() []string {
	list := make([]string, len(all))
	for i, e := range all {
		list[i] = e.path
	}
	return list
}
