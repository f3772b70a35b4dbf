package engine

// OpKind names what an Op does.
type OpKind uint8

const (
	// OpGet reads the value of Key. Found says whether the key is there; the
	// value is appended to Value[:0] and returned in Value.
	OpGet OpKind = iota + 1
	// OpExists sets Found to whether the key is there.
	OpExists
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

	// Int is the answer of OpAdd and OpAppend.
	Int int64
	// Err is nil or one of the errors of this package, see errors.go.
	Err error
	// Tag is the caller's; the engine only carries it.
	Tag uint64
	// Number, if not 0, is what the session's ledger counts when the op is
	// done: see Session.Attach.
	Number uint64

	state opState
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
func (o *Op) writes() bool { return o.Kind > OpExists && o.Kind < opNewest }

// check validates what does not depend on the store's content.
func (o *Op) check(maxValue int) error {
	switch {
	case o.Kind == OpNote:
		return nil
	case len(o.Key) == 0:
		return ErrKeyEmpty
	case len(o.Key) > MaxKey:
		return ErrKeyTooLarge
	case o.Kind < OpGet || o.Kind > OpUpdate || o.Kind == OpUpdate && o.Fn == nil:
		return ErrBadOp
	case o.writes() && len(o.Value) > maxValue:
		return ErrValueTooLarge
	}
	return nil
}
