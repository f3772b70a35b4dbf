package ipc

import (
	"fmt"
	"math"
)

// option is one name in an options map; a set of them is a mask.
type option uint32

const (
	optTTL option = 1 << iota
	optIf
	optSync
	optBlind
	optExact
	optSet
	optClient
	optSession
	optProtocol
	optSeen
	optKind
	optCookie
	optRate
	optCount
	optEvery
	optUntil
	optPrefix
	optCursor
	optKeys
	optFrom
	optTo
	optReverse
)

// optionOf returns the option of that name, 0 if there is none.
func optionOf(name []byte) option {
	switch string(name) {
	case "sync":
		return optSync
	case "if":
		return optIf
	case "ttl":
		return optTTL
	case "blind":
		return optBlind
	case "exact":
		return optExact
	case "set":
		return optSet
	case "client":
		return optClient
	case "session":
		return optSession
	case "protocol":
		return optProtocol
	case "seen":
		return optSeen
	case "kind":
		return optKind
	case "cookie":
		return optCookie
	case "rate":
		return optRate
	case "count":
		return optCount
	case "every":
		return optEvery
	case "until":
		return optUntil
	case "prefix":
		return optPrefix
	case "cursor":
		return optCursor
	case "keys":
		return optKeys
	case "from":
		return optFrom
	case "to":
		return optTo
	case "reverse":
		return optReverse
	}
	return 0
}

// options takes the trailing map of options, if it was sent, of which allowed may be named.
func (p *params) options(c *Call, allowed option) *Error {
	if !p.optional {
		return nil
	}
	n, err := p.r.MapLen()
	if err != nil {
		return p.wrong("options", "a map", err)
	}
	var seen option
	for range n {
		name, err := p.r.Bytes()
		if err != nil {
			return p.wrong("the name of an option", "str", err)
		}
		o := optionOf(name)
		if o&allowed == 0 {
			return p.bad("unknown option " + quote(name[:min(len(name), 64)]))
		}
		if o&seen != 0 {
			return p.bad("option " + quote(name) + " is given twice")
		}
		seen |= o
		if err := p.option(c, o); err != nil {
			return err
		}
	}
	return nil
}

// option takes the value of one option.
func (p *params) option(c *Call, o option) *Error {
	switch o {
	case optTTL:
		return p.ttl(`option "ttl"`, c)
	case optIf:
		return p.condition(c)
	case optSync:
		return p.flag("sync", &c.Sync)
	case optBlind:
		return p.flag("blind", &c.Blind)
	case optExact:
		return p.flag("exact", &c.Exact)
	case optSet:
		return p.settings(c)
	case optClient, optSession, optProtocol, optSeen:
		return p.hello(&c.Hello, o)
	case optKind:
		return p.kind(c)
	case optRate:
		rate, err := p.r.Int()
		if err == nil && rate < 0 {
			err = ErrRange
		}
		if err != nil {
			return p.wrong(`option "rate"`, "a number of bytes", err)
		}
		c.Rate, c.HasRate = rate, true
		return nil
	case optCount:
		if p.m == MethodScan {
			return p.scanCount(c)
		}
		return p.number(`option "count"`, c)
	case optEvery:
		return p.number(`option "every"`, c)
	case optUntil:
		return p.offset(`option "until"`, &c.Offset)
	case optKeys:
		return p.flag("keys", &c.Scan.KeysOnly)
	case optPrefix:
		if p.m == MethodWatch {
			return p.prefix(&c.Watch.Prefix)
		}
		return p.prefix(&c.Scan.Prefix)
	case optFrom:
		if p.m == MethodWatch {
			return p.watchFrom(c)
		}
		return p.bound("from", &c.Scan.From)
	case optTo:
		return p.bound("to", &c.Scan.To)
	case optReverse:
		return p.flag("reverse", &c.Scan.Reverse)
	case optCursor:
		return p.cursor(c)
	default: // optCookie
		cookie, err := p.r.Bytes()
		if err != nil {
			return p.wrong(`option "cookie"`, "bin or str", err)
		}
		if len(cookie) > MaxCookie {
			return p.bad(fmt.Sprintf(`option "cookie" has %d bytes, the limit is %d`, len(cookie), MaxCookie))
		}
		c.Checkpoint.Cookie = cookie
		return nil
	}
}

// ttl takes a time to live.
func (p *params) ttl(what string, c *Call) *Error {
	ms, err := p.r.Int()
	if err == nil && (ms < 1 || ms > MaxTTL) {
		err = ErrRange
	}
	if err != nil {
		return p.wrong(what, fmt.Sprintf("a number of ms from 1 to %d", int64(MaxTTL)), err)
	}
	c.TTL = ms
	return nil
}

// offset takes a byte address.
func (p *params) offset(what string, to *int64) *Error {
	offset, err := p.r.Uint()
	if err == nil && offset > math.MaxInt64 {
		err = ErrRange
	}
	if err != nil {
		return p.wrong(what, "an integer from 0 to 2^63-1", err)
	}
	*to = int64(offset)
	return nil
}

// watchFrom takes where a watch begins; nil: now.
func (p *params) watchFrom(c *Call) *Error {
	if p.r.TakeNil() {
		return nil
	}
	c.Watch.HasFrom = true
	return p.offset(`option "from"`, &c.Watch.From)
}

// number takes a number of things, at least one.
func (p *params) number(what string, c *Call) *Error {
	n, err := p.r.Int()
	if err == nil && (n < 1 || n > math.MaxInt32) {
		err = ErrRange
	}
	if err != nil {
		return p.wrong(what, "an integer from 1 to 2^31-1", err)
	}
	c.Number = int(n)
	return nil
}

// scanCount takes how many entries a page of a scan may have.
func (p *params) scanCount(c *Call) *Error {
	n, err := p.r.Int()
	if err == nil && (n < 1 || n > int64(p.lim.Keys)) {
		err = ErrRange
	}
	if err != nil {
		return p.wrong(`option "count"`, fmt.Sprintf("an integer from 1 to %d", p.lim.Keys), err)
	}
	c.Scan.Count = int(n)
	return nil
}

func (p *params) prefix(to *[]byte) *Error {
	v, err := p.r.Bytes()
	if err != nil {
		return p.wrong(`option "prefix"`, "bin or str", err)
	}
	if len(v) > p.lim.Key {
		return p.wrongKey(len(v))
	}
	*to = v
	return nil
}

// bound takes where a scan in order begins or ends, an empty key too; nil: nowhere.
func (p *params) bound(name string, to *[]byte) *Error {
	if p.r.TakeNil() {
		return nil
	}
	v, err := p.r.Bytes()
	if err != nil {
		return p.wrong(fmt.Sprintf("option %q", name), "bin, str or nil", err)
	}
	if len(v) > p.lim.Key {
		return p.wrongKey(len(v))
	}
	*to = v
	return nil
}

func (p *params) cursor(c *Call) *Error {
	if p.r.TakeNil() {
		return nil
	}
	v, err := p.r.Bytes()
	if err != nil {
		return p.wrong(`option "cursor"`, "bin or nil", err)
	}
	c.Scan.Cursor, c.Scan.HasCursor = v, true
	return nil
}

func (p *params) flag(name string, to *bool) *Error {
	v, err := p.r.Bool()
	if err != nil {
		return p.wrong(`option "`+name+`"`, "bool", err)
	}
	*to = v
	return nil
}

func (p *params) condition(c *Call) *Error {
	v, err := p.r.Bytes()
	if err != nil {
		return p.wrong(`option "if"`, "str", err)
	}
	switch string(v) {
	case "absent":
		c.If = IfAbsent
	case "present":
		c.If = IfPresent
	default:
		return p.bad(`option "if" must be "absent" or "present"`)
	}
	return nil
}

func (p *params) kind(c *Call) *Error {
	v, err := p.r.Bytes()
	if err != nil {
		return p.wrong(`option "kind"`, "str", err)
	}
	for k, name := range checkpointNames {
		if string(v) == name {
			c.Checkpoint.Kind = CheckpointKind(k)
			return nil
		}
	}
	return p.bad(`option "kind" must be "full", "log", "index" or "snapshot"`)
}

// settings takes the map of a config call's "set".
func (p *params) settings(c *Call) *Error {
	n, err := p.r.MapLen()
	if err != nil {
		return p.wrong(`option "set"`, "a map", err)
	}
	if n > MaxSettings {
		return p.bad(fmt.Sprintf(`option "set" names %d settings, the limit is %d`, n, MaxSettings))
	}
	for range n {
		name, err := p.r.Bytes()
		if err != nil {
			return p.wrong("the name of a setting", "str", err)
		}
		for _, s := range c.Settings {
			if s.Name == string(name) {
				return p.bad("setting " + quote(name) + " is given twice")
			}
		}
		value, ok := p.settingText()
		if !ok {
			return p.bad("setting " + quote(name[:min(len(name), 64)]) + " is " + p.r.Kind().String() + ", must be str, int, float or bool")
		}
		c.Settings = append(c.Settings, Setting{string(name), value})
	}
	return nil
}

// hello takes one option of hello.
func (p *params) hello(h *HelloCall, o option) *Error {
	switch o {
	case optClient:
		v, err := p.r.Bytes()
		if err != nil {
			return p.wrong(`option "client"`, "str", err)
		}
		if len(v) > MaxClientName {
			return p.bad(fmt.Sprintf(`option "client" has %d bytes, the limit is %d`, len(v), MaxClientName))
		}
		h.Client = string(v)
	case optSession:
		v, err := p.r.Bytes()
		if err != nil {
			return p.wrong(`option "session"`, "16 bytes", err)
		}
		if len(v) != SessionSize {
			return p.bad(fmt.Sprintf(`option "session" has %d bytes, must be %d`, len(v), SessionSize))
		}
		h.Session, h.HasSession = [SessionSize]byte(v), true
	case optProtocol:
		v, err := p.r.Uint()
		if err != nil {
			return p.wrong(`option "protocol"`, "an unsigned integer", err)
		}
		if v != ProtocolVersion {
			return p.bad(fmt.Sprintf("protocol %d is not spoken here, only %d", v, ProtocolVersion))
		}
	case optSeen:
		v, err := p.r.Uint()
		if err != nil {
			return p.wrong(`option "seen"`, "an unsigned integer", err)
		}
		h.Seen, h.HasSeen = v, true
	}
	return nil
}
