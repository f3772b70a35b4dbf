package ipc

import "errors"

// Hello is the daemon's answer to hello.
type Hello struct {
	Server   string // "rskvd"
	Version  string // of the daemon
	Protocol int
	Session  [SessionSize]byte
	Applied  uint64 // highest number of the session's writes in memory
	Durable  uint64 // highest on stable storage
	Role     Class  // what this connection may do
	Limits   Limits
	// Refused lists the writes after "seen" that were answered with an error. Nil says that the
	// daemon cannot tell, or was not asked; a list without elements, that there are none.
	Refused []Refused
}

// Refused is one write of a session that was answered with an error.
type Refused struct {
	Number uint64
	Code   Code
}

// errHello says that an answer to hello is not one.
var errHello = errors.New("answer to hello is malformed")

// AppendHello appends h as the value of a result. Refused is sent unless it is nil.
func AppendHello(dst []byte, h *Hello) []byte {
	n := 8
	if h.Refused != nil {
		n++
	}
	dst = AppendMapHeader(dst, n)
	dst = AppendStr(AppendStr(dst, "server"), h.Server)
	dst = AppendStr(AppendStr(dst, "version"), h.Version)
	dst = AppendUint(AppendStr(dst, "protocol"), uint64(h.Protocol))
	dst = AppendBin(AppendStr(dst, "session"), h.Session[:])
	dst = AppendUint(AppendStr(dst, "applied"), h.Applied)
	dst = AppendUint(AppendStr(dst, "durable"), h.Durable)
	dst = AppendStr(AppendStr(dst, "role"), h.Role.String())
	dst = appendLimits(AppendStr(dst, "limits"), &h.Limits)
	if h.Refused != nil {
		dst = AppendArrayHeader(AppendStr(dst, "refused"), len(h.Refused))
		for _, r := range h.Refused {
			dst = AppendStr(AppendUint(AppendArrayHeader(dst, 2), r.Number), string(r.Code))
		}
	}
	return dst
}

func appendLimits(dst []byte, l *Limits) []byte {
	fields := l.fields()
	dst = AppendMapHeader(dst, len(fields))
	for _, f := range fields {
		dst = AppendUint(AppendStr(dst, f.name), uint64(*f.value))
	}
	return dst
}

// ReadHello takes an answer to hello. Names it does not know are skipped: a newer daemon may say
// more.
func ReadHello(r *Reader) (Hello, error) {
	var h Hello
	n, err := r.MapLen()
	if err != nil {
		return h, errHello
	}
	for range n {
		name, err := r.Bytes()
		if err != nil {
			return h, errHello
		}
		if err := h.read(r, string(name)); err != nil {
			return h, errHello
		}
	}
	return h, nil
}

// read takes the value of one name.
func (h *Hello) read(r *Reader, name string) (err error) {
	switch name {
	case "server":
		h.Server, err = readText(r)
	case "version":
		h.Version, err = readText(r)
	case "protocol":
		var v uint64
		v, err = r.Uint()
		h.Protocol = int(v)
	case "session":
		var b []byte
		if b, err = r.Bytes(); err == nil && len(b) != SessionSize {
			return errHello
		}
		copy(h.Session[:], b)
	case "applied":
		h.Applied, err = r.Uint()
	case "durable":
		h.Durable, err = r.Uint()
	case "role":
		h.Role, err = readRole(r)
	case "limits":
		err = h.Limits.read(r)
	case "refused":
		err = h.readRefused(r)
	default:
		err = r.Skip()
	}
	return err
}

func readText(r *Reader) (string, error) {
	b, err := r.Bytes()
	return string(b), err
}

func readRole(r *Reader) (Class, error) {
	name, err := readText(r)
	if err != nil {
		return ClassRead, err
	}
	for c, known := range classNames {
		if name == known {
			return Class(c), nil
		}
	}
	return ClassRead, errHello
}

// read takes the map of limits; a limit that is not told stays as it is.
func (l *Limits) read(r *Reader) error {
	n, err := r.MapLen()
	if err != nil {
		return err
	}
	for range n {
		name, err := r.Bytes()
		if err != nil {
			return err
		}
		to := l.field(string(name))
		if to == nil {
			if err := r.Skip(); err != nil {
				return err
			}
			continue
		}
		v, err := r.Uint()
		if err != nil {
			return err
		}
		*to = int(min(v, 1<<31-1))
	}
	return nil
}

// field returns the limit of that name, nil if there is none.
func (l *Limits) field(name string) *int {
	for _, f := range l.fields() {
		if f.name == name {
			return f.value
		}
	}
	return nil
}

func (h *Hello) readRefused(r *Reader) error {
	n, err := r.ArrayLen()
	if err != nil {
		return err
	}
	h.Refused = []Refused{}
	for range n {
		two, err := r.ArrayLen()
		if err != nil || two != 2 {
			return errHello
		}
		number, err := r.Uint()
		if err != nil {
			return err
		}
		code, err := readText(r)
		if err != nil {
			return err
		}
		h.Refused = append(h.Refused, Refused{number, Code(code)})
	}
	return nil
}
