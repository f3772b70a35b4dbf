package engine

// OpKind names what an Op does.
type OpKind uint8

const (
	// OpGet reads the value of Key. Found says whether the key is there; the
	// value is appended to Value[:0] and returned in Value.
	OpGet OpKind = iota + 1
	// OpExists sets Found to whether the key is there.
	OpExists
	// OpTTL sets Found to whether the key is there and, if it is, Int to how many
	// ms it has left, or -1 if it has no expiry.
	OpTTL
	// OpPut stores Value under Key, unless If is not met. Found says whether it
	// was stored. Without If it never reads the disk.
	OpPut
	// OpDelete removes Key. Found says whether it was there; with Blind the
	// disk is not read to learn that, and Found means nothing.
	OpDelete
	// OpCompareAndSwap replaces Old by Value if the present value equals Old.
	// Absent stands for "no value": with OldAbsent the key must not be there,
	// with NewAbsent it is deleted. Found says whether it was swapped.
	OpCompareAndSwap
	// OpAdd adds Delta to the eight-byte little-endian counter stored under Key
	// (absent: 0) and returns the sum in Int.
	OpAdd
	// OpAppend appends Value to the present value (absent: empty) and returns
	// the new length in Int.
	OpAppend
	// OpUpdate calls Fn with the present value and does what it answers. Fn may
	// be called several times for one Op, never while the engine holds
	// anything; it must not use the session.
	OpUpdate
	// OpExpire gives Key TTL ms to live from now on, or with 0 takes its expiry
	// away. Found says whether it was there.
	OpExpire
	// OpNote does nothing, in its turn: it carries the Number of a write that
	// was refused before it reached the engine. It has no key.
	OpNote
)

// Cond restricts an OpPut.
type Cond uint8

const (
	Always    Cond = iota
	IfAbsent       // store only a key that is not there
	IfPresent      // store only over a key that is there
)

// Verdict is what the function of an OpUpdate wants done.
type Verdict uint8

const (
	Keep    Verdict = iota // leave everything as it is
	Replace                // store the returned value
	Remove                 // delete the key
)

// UpdateFunc is the function of an OpUpdate. old is nil when the key is absent;
// it is valid, and may be changed, only during the call.
type UpdateFunc func(old []byte, found bool) (value []byte, v Verdict)

// Op is one operation of a batch: a request and, after it, the answer.
type Op struct {
	Kind      OpKind
	If        Cond
	Blind     bool
	OldAbsent bool
	NewAbsent bool

	// Found is the yes-or-no answer, see OpKind.
	Found bool

	// Key is 1 to 65,535 bytes long. The engine reads it until the call that
	// was given the Op returns, never later.
	Key []byte
	// Value is the new value or, after OpGet, the answer. See Session.Start for
	// how long an answer stays valid.
	Value []byte
	Old   []byte
	Fn    UpdateFunc
	Delta int64
	// TTL is after how many ms the key is to be gone, at most MaxTTL, counted from
	// when the op takes effect; of an op that stores a value, and of OpExpire. 0:
	// OpAdd, OpAppend and OpUpdate leave the expiry what it is, the others clear it.
	TTL int64

	// Int is the answer of OpAdd, OpAppend and OpTTL.
	Int int64
	// Err is nil or one of the errors of this package, see errors.go.
	Err error
	// Tag is the caller's; the engine only carries it.
	Tag uint64
	// Number, if not 0, is what the session's ledger counts when the op is
	// done: see Session.Attach.
	Number uint64

	expiry int64 // what TTL comes to, if it is known: ms since 1970, may have passed; 0: it is not
	state  opState
}

// opState is where an Op stands.
type opState uint8

const (
	opDone    opState = iota
	opPending         // the session has taken a copy and works on it
)

// Pending reports whether Start left the op unfinished.
func (o *Op) Pending() bool { return o.state == opPending }

// writes reports whether the op may change something.
func (o *Op) writes() bool { return o.Kind > OpTTL && o.Kind < opNewest }

// check validates what does not depend on the store's content.
func (o *Op) check(maxValue int) error {
	switch {
	case o.Kind == OpNote:
		return nil
	case len(o.Key) == 0:
		return ErrKeyEmpty
	case len(o.Key) > MaxKey:
		return ErrKeyTooLarge
	case o.Kind < OpGet || o.Kind > OpExpire || o.Kind == OpUpdate && o.Fn == nil:
		return ErrBadOp
	case o.writes() && len(o.Value) > maxValue:
		return ErrValueTooLarge
	case o.TTL < 0 || o.TTL > MaxTTL || o.TTL != 0 && !o.takesTTL():
		return ErrBadTTL
	}
	return nil
}

// setExpiry gives an op that stores a value the expiry of what it stores, 0 for
// none, in place of a TTL.
func (o *Op) setExpiry(ms int64) {
	if o.expiry = ms; ms != 0 {
		o.TTL = 1
	}
}

// takesTTL reports whether a TTL has a meaning for the op.
func (o *Op) takesTTL() bool {
	switch o.Kind {
	case OpPut, OpAdd, OpAppend, OpUpdate, OpExpire:
		return true
	case OpCompareAndSwap:
		return !o.NewAbsent
	}
	return false
}
