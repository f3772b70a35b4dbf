package ipc

import (
	"fmt"
	"strconv"
)

// Condition is what a put asks of the key.
type Condition uint8

// The conditions.
const (
	IfAny     Condition = iota // store in any case
	IfAbsent                   // only if there is no such key
	IfPresent                  // only if there is one
)

// CheckpointKind is what a checkpoint holds.
type CheckpointKind uint8

// The kinds of checkpoint.
const (
	CheckpointFull  CheckpointKind = iota // index snapshot and log
	CheckpointLog                         // the log alone: fast to take, slower to recover from
	CheckpointIndex                       // the index snapshot alone
	// CheckpointSnapshot is a full one, with a copy of what is updated in place.
	CheckpointSnapshot
)

var checkpointNames = [...]string{"full", "log", "index", "snapshot"}

// String returns the kind's name on the wire.
func (k CheckpointKind) String() string { return checkpointNames[k] }

// Action is what a method with several steps is to do: its first parameter.
type Action uint8

// The actions. Which of them a method has is said in PROTOCOL.md.
const (
	ActionNone   Action = iota // the method has none
	ActionOpen                 // backup
	ActionRead                 // backup
	ActionClose                // backup
	ActionStart                // scrub monitor tasks
	ActionStatus               // scrub
	ActionStop                 // scrub monitor tasks
	ActionGet                  // slowlog tasks
	ActionReset                // slowlog
	ActionTake                 // monitor
	ActionRun                  // tasks
)

var actionNames = [...]string{"", "open", "read", "close", "start", "status", "stop", "get", "reset", "take", "run"}

// String returns the action's name on the wire.
func (a Action) String() string { return actionNames[a] }

// Setting is one name and value of a config call. The value is text whatever its type was on the
// wire, in the form a configuration file would have it: true, 42, 64MiB.
type Setting struct{ Name, Value string }

// Call is a request whose parameters are right: every type checked, every limit kept, every default
// filled in. Its byte strings alias the message; its slices belong to the Call and are reused when
// it is parsed into again. Which fields mean something depends on the method.
type Call struct {
	Method    Method
	Action    Action    // backup scrub slowlog monitor tasks
	If        Condition // put
	Sync      bool      // put del cas add append mput mdel expire: answer when it is on stable storage
	Blind     bool      // del mdel: do not ask whether it was there
	OldAbsent bool      // cas: the key must be absent
	NewAbsent bool      // cas: delete the key
	Exact     bool      // len: count by a scan
	Delta     int64     // add
	TTL       int64     // put cas add mput expire: ms until the key is gone; 0: not given, nil

	Key   []byte // get exists put del cas add append expire ttl
	Value []byte // put; append: the bytes to append; cas: the new value unless NewAbsent
	Old   []byte // cas: the value it must have, unless OldAbsent

	Keys   [][]byte // mget mput mdel, in the order sent
	Values [][]byte // mput: Values[i] goes with Keys[i]

	Hello      HelloCall      // hello
	Checkpoint CheckpointCall // checkpoint
	Scan       ScanCall       // scan
	Watch      WatchCall      // watch
	Settings   []Setting      // config: what to set, if anything
	Offset     int64          // backup read: byte of the stream; compact: byte address of the log, 0: not given
	Name       []byte         // tasks stop start run: of which; aliases the message
	Rate       int64          // scrub start: bytes a second, if HasRate; 0: as fast as it goes
	HasRate    bool
	Number     int // slowlog get: entries; monitor start: one of how many requests; 0: not given
}

// HelloCall is what a client says of itself. All of it may be missing.
type HelloCall struct {
	Client     string            // what to call it in logs
	Session    [SessionSize]byte // the session to resume, if HasSession
	HasSession bool
	Seen       uint64 // number of the last write whose answer the client has, if HasSeen
	HasSeen    bool
}

// CheckpointCall says what checkpoint to take.
type CheckpointCall struct {
	Kind   CheckpointKind
	Cookie []byte // kept with the checkpoint; aliases the message
}

// ScanCall says what page of a scan is wanted. Its byte strings alias the message.
type ScanCall struct {
	Prefix    []byte // what keys begin with; empty: all
	Cursor    []byte // from the page before, if HasCursor
	HasCursor bool
	KeysOnly  bool
	Count     int // entries at most; 0: not given
	// From is the lowest key, To the lowest that is above all; nil: no such bound. With
	// Reverse the highest keys come first.
	From, To []byte
	Reverse  bool
}

// WatchCall says which changes are wanted. Its bytes alias the message.
type WatchCall struct {
	Prefix  []byte // what keys begin with; empty: all
	From    int64  // byte address of the log, if HasFrom; else from now on
	HasFrom bool
}

// Class returns the class this very call belongs to: its method's, but a config call that sets
// something is an administrator's.
func (c *Call) Class() Class {
	if c.Method == MethodConfig && len(c.Settings) > 0 {
		return ClassAdmin
	}
	return c.Method.Class()
}

// keptKeys is the longest list of keys a Call keeps for reuse: an occasional long one is not worth
// megabytes for every connection.
const keptKeys = 4_096

// reset empties the call, keeping what it allocated within reason.
func (c *Call) reset(m Method) {
	keys, values := c.Keys[:0], c.Values[:0]
	if cap(keys) > keptKeys {
		keys = nil
	}
	if cap(values) > keptKeys {
		values = nil
	}
	*c = Call{Method: m, Keys: keys, Values: values}
}

// ParseCall reads the parameters of q into c and checks all of them against lim. An error is the
// answer to the request; the connection goes on, and nothing of the call is to be applied.
func ParseCall(q *Request, lim *Limits, c *Call) *Error {
	p := params{lim: lim, r: q.Params, m: q.Method}
	if q.Method == MethodGet || q.Method == MethodPut { // the hot ones need no more than this
		c.Method, c.If, c.Sync, c.TTL = q.Method, IfAny, false, 0
	} else {
		c.reset(q.Method)
	}
	if q.Method == MethodUnknown {
		return unknownMethod(q.Name)
	}
	if info := &methods[q.Method]; q.Count < info.least || q.Count > info.most {
		return p.wrongCount(q.Count)
	} else {
		p.optional = q.Count == info.most
	}
	return p.parse(c)
}

// params reads the parameters of one call.
type params struct {
	lim      *Limits
	r        Reader
	m        Method
	optional bool // the last parameter was sent: where a method has options, they are the last
}

// parse reads what the method takes, in the order of PROTOCOL.md.
func (p *params) parse(c *Call) (err *Error) {
	switch p.m {
	case MethodGet, MethodExists, MethodTTL:
		c.Key, err = p.key()
	case MethodPut:
		if c.Key, err = p.key(); err != nil {
			return err
		}
		if c.Value, err = p.value("value"); err != nil {
			return err
		}
		return p.options(c, optIf|optSync|optTTL)
	case MethodDel:
		if c.Key, err = p.key(); err != nil {
			return err
		}
		return p.options(c, optBlind|optSync)
	case MethodCas:
		return p.cas(c)
	case MethodAdd:
		return p.add(c)
	case MethodAppend:
		if c.Key, err = p.key(); err != nil {
			return err
		}
		if c.Value, err = p.value("bytes"); err != nil {
			return err
		}
		return p.options(c, optSync)
	case MethodExpire:
		if c.Key, err = p.key(); err != nil {
			return err
		}
		if !p.r.TakeNil() {
			if err = p.ttl("ttl", c); err != nil {
				return err
			}
		}
		return p.options(c, optSync)
	case MethodMGet:
		return p.keys(c)
	case MethodMPut:
		if err = p.pairs(c); err != nil {
			return err
		}
		return p.options(c, optSync|optTTL)
	case MethodMDel:
		if err = p.keys(c); err != nil {
			return err
		}
		return p.options(c, optBlind|optSync)
	case MethodLen:
		return p.options(c, optExact)
	case MethodScan:
		return p.options(c, optPrefix|optCursor|optKeys|optCount|optFrom|optTo|optReverse)
	case MethodWatch:
		return p.options(c, optPrefix|optFrom)
	case MethodConfig:
		return p.options(c, optSet)
	case MethodHello:
		return p.options(c, optClient|optSession|optProtocol|optSeen)
	case MethodCheckpoint:
		return p.options(c, optKind|optCookie)
	case MethodCompact:
		return p.options(c, optUntil)
	case MethodTasks:
		return p.tasks(c)
	case MethodBackup:
		return p.backup(c)
	case MethodScrub:
		if c.Action, err = p.action(ActionStart, ActionStatus, ActionStop); err != nil {
			return err
		}
		if c.Action == ActionStart {
			return p.options(c, optRate)
		}
		return p.options(c, 0)
	case MethodSlowlog:
		if c.Action, err = p.action(ActionGet, ActionReset); err != nil {
			return err
		}
		if c.Action == ActionGet {
			return p.options(c, optCount)
		}
		return p.options(c, 0)
	case MethodMonitor:
		if c.Action, err = p.action(ActionStart, ActionTake, ActionStop); err != nil {
			return err
		}
		if c.Action == ActionStart {
			return p.options(c, optEvery)
		}
		return p.options(c, 0)
	}
	return err
}

func (p *params) backup(c *Call) (err *Error) {
	if c.Action, err = p.action(ActionOpen, ActionRead, ActionClose); err != nil {
		return err
	}
	if (c.Action == ActionRead) != p.optional {
		return p.bad("an offset goes with \"read\", and with nothing else")
	}
	if c.Action != ActionRead {
		return nil
	}
	return p.offset("offset", &c.Offset)
}

// tasks takes what to do, and the name of the task that it is about.
func (p *params) tasks(c *Call) (err *Error) {
	if c.Action, err = p.action(ActionGet, ActionStop, ActionStart, ActionRun); err != nil {
		return err
	}
	if (c.Action == ActionGet) == p.optional {
		return p.bad("a task goes with \"stop\", \"start\" and \"run\", and with nothing else")
	}
	if c.Action == ActionGet {
		return nil
	}
	name, rerr := p.r.Bytes()
	if rerr != nil {
		return p.wrong("the name of a task", "str", rerr)
	}
	c.Name = name
	return nil
}

// action takes the name of one of the actions that the method has.
func (p *params) action(has ...Action) (Action, *Error) {
	name, err := p.r.Bytes()
	if err != nil {
		return ActionNone, p.wrong("what to do", "str", err)
	}
	names := ""
	for i, a := range has {
		if string(name) == a.String() {
			return a, nil
		}
		switch {
		case i == 0:
		case i < len(has)-1:
			names += ", "
		default:
			names += " or "
		}
		names += strconv.Quote(a.String())
	}
	return ActionNone, p.bad("what to do must be " + names)
}

func (p *params) cas(c *Call) (err *Error) {
	if c.Key, err = p.key(); err != nil {
		return err
	}
	if p.r.TakeNil() {
		c.OldAbsent = true
	} else if c.Old, err = p.value("old"); err != nil {
		return err
	}
	if p.r.TakeNil() {
		c.NewAbsent = true
	} else if c.Value, err = p.value("new"); err != nil {
		return err
	}
	if err = p.options(c, optSync|optTTL); err == nil && c.NewAbsent && c.TTL != 0 {
		return p.bad(`option "ttl" goes with a new value`)
	}
	return err
}

func (p *params) add(c *Call) (err *Error) {
	if c.Key, err = p.key(); err != nil {
		return err
	}
	delta, rerr := p.r.Int()
	if rerr != nil {
		return p.wrong("delta", "a 64-bit integer", rerr)
	}
	c.Delta = delta
	return p.options(c, optSync|optTTL)
}

// key takes a key and checks its length.
func (p *params) key() ([]byte, *Error) {
	k, err := p.r.Bytes()
	if err != nil {
		return nil, p.wrong("key", "bin or str", err)
	}
	if len(k) == 0 || len(k) > p.lim.Key {
		return nil, p.wrongKey(len(k))
	}
	return k, nil
}

// value takes a value, called what in errors, and checks its length.
func (p *params) value(what string) ([]byte, *Error) {
	v, err := p.r.Bytes()
	if err != nil {
		return nil, p.wrong(what, "bin or str", err)
	}
	if len(v) > p.lim.Value {
		return nil, &Error{CodeValueTooLarge, fmt.Sprintf("%s: %s has %d bytes, the limit is %d", p.m, what, len(v), p.lim.Value)}
	}
	return v, nil
}

// keys takes an array of keys.
func (p *params) keys(c *Call) *Error {
	n, err := p.list()
	if err != nil {
		return err
	}
	for range n {
		k, err := p.key()
		if err != nil {
			return err
		}
		c.Keys = append(c.Keys, k)
	}
	return nil
}

// pairs takes an array of [key, value].
func (p *params) pairs(c *Call) *Error {
	n, err := p.list()
	if err != nil {
		return err
	}
	for range n {
		two, rerr := p.r.ArrayLen()
		if rerr != nil || two != 2 {
			return p.bad("each pair must be [key, value]")
		}
		k, err := p.key()
		if err != nil {
			return err
		}
		v, err := p.value("value")
		if err != nil {
			return err
		}
		c.Keys = append(c.Keys, k)
		c.Values = append(c.Values, v)
	}
	return nil
}

// list takes the head of a method's list of keys or pairs.
func (p *params) list() (int, *Error) {
	n, err := p.r.ArrayLen()
	if err != nil {
		return 0, p.wrong("the list", "an array", err)
	}
	if n > p.lim.Keys {
		return 0, p.bad(fmt.Sprintf("%d keys, the limit is %d", n, p.lim.Keys))
	}
	return n, nil
}

func (p *params) bad(what string) *Error {
	return &Error{CodeBadRequest, p.m.String() + ": " + what}
}

// wrong tells of a parameter that could not be read as what it should be.
func (p *params) wrong(what, want string, err error) *Error {
	if err == ErrRange {
		return p.bad(what + " is out of range, must be " + want)
	}
	return p.bad(what + " is " + p.r.Kind().String() + ", must be " + want)
}

func (p *params) wrongKey(n int) *Error {
	if n == 0 {
		return p.bad("key is empty")
	}
	return &Error{CodeKeyTooLarge, fmt.Sprintf("%s: key has %d bytes, the limit is %d", p.m, n, p.lim.Key)}
}

func (p *params) wrongCount(n int) *Error {
	info := &methods[p.m]
	if info.least == info.most {
		return p.bad(fmt.Sprintf("%d parameters, must be %d", n, info.least))
	}
	return p.bad(fmt.Sprintf("%d parameters, must be %d to %d", n, info.least, info.most))
}

// settingText returns the next value as the text of a setting.
func (p *params) settingText() (string, bool) {
	switch p.r.Kind() {
	case KindBool:
		v, err := p.r.Bool()
		return strconv.FormatBool(v), err == nil
	case KindInt:
		if v, err := p.r.Uint(); err == nil {
			return strconv.FormatUint(v, 10), true
		}
		v, err := p.r.Int()
		return strconv.FormatInt(v, 10), err == nil
	case KindFloat:
		v, err := p.r.Float()
		return strconv.FormatFloat(v, 'g', -1, 64), err == nil
	case KindStr, KindBin:
		v, err := p.r.Bytes()
		return string(v), err == nil
	}
	return "", false
}
