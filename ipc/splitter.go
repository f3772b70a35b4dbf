package ipc

import (
	"encoding/binary"
	"errors"
)

// errUnused is a byte that begins no MessagePack value.
var errUnused = errors.New("0xc1 begins no value")

// errClaim is a length or count beyond what may still come.
var errClaim = errors.New("longer than its limit")

// walk steps over the structure of values without looking into byte strings, and can stop and go on
// at any byte. It is the one place that knows how long each form is.
type walk struct {
	pos   int                  // first byte not yet stepped over; beyond the buffer while a byte string is under way
	depth int                  // open containers; 0: every value asked for was stepped over
	left  [MaxDepth + 2]uint32 // values still to come in each open container; [1] are the ones asked for
}

// begin asks for n values.
func (w *walk) begin(n uint32) { w.pos, w.depth, w.left[1] = 0, 1, n }

// run steps on over buf, whose first byte is the first of the values. more says that buf ends before
// the values do: the caller gets more bytes behind the ones it has and runs again. The values may
// take at most limit bytes.
func (w *walk) run(buf []byte, limit int) (n int, more bool, err error) {
	pos, depth := w.pos, w.depth
	for depth > 0 {
		if pos >= len(buf) {
			w.pos, w.depth = pos, depth
			return 0, true, nil
		}
		var size int       // bytes of the value, without its elements
		var inside uint64  // elements
		container := false // whether it has elements at all
		switch c := buf[pos]; {
		case c < fixmap || c >= negative:
			size = 1
		case c < fixarray:
			size, inside, container = 1, 2*uint64(c&15), true
		case c < fixstr:
			size, inside, container = 1, uint64(c&15), true
		case c < formNil:
			size = 1 + int(c&31)
		default:
			f := formOf[c-formNil]
			if f.head == 0 {
				return 0, false, errUnused
			}
			if len(buf)-pos < int(f.head) {
				if int(f.head) > limit-pos {
					return 0, false, errClaim
				}
				w.pos, w.depth = pos, depth
				return 0, true, nil
			}
			var claim uint64
			switch f.width {
			case 1:
				claim = uint64(buf[pos+1])
			case 2:
				claim = uint64(binary.BigEndian.Uint16(buf[pos+1:]))
			case 4:
				claim = uint64(binary.BigEndian.Uint32(buf[pos+1:]))
			}
			if f.each > 0 {
				size, inside, container = int(f.head), claim*uint64(f.each), true
			} else {
				if claim > uint64(limit) {
					return 0, false, errClaim
				}
				size = int(f.head) + int(f.fixed) + int(claim)
			}
		}
		if size > limit-pos || inside > uint64(limit-pos-size) {
			return 0, false, errClaim
		}
		pos += size
		w.left[depth]--
		if container && inside > 0 {
			if depth > MaxDepth {
				return 0, false, ErrDepth
			}
			depth++
			w.left[depth] = uint32(inside)
			continue
		}
		for depth > 0 && w.left[depth] == 0 {
			depth--
		}
	}
	w.pos, w.depth = pos, 0
	return pos, pos > len(buf), nil
}

// form says how long a value of one of the forms 0xc0..0xdf is: head bytes that hold its length in
// width bytes, then fixed bytes, then as many bytes as the length says, or each times as many values.
type form struct{ head, width, fixed, each uint8 }

var formOf = [32]form{
	0:                      {head: 1}, // nil
	formFalse - formNil:    {head: 1},
	formTrue - formNil:     {head: 1},
	formBin8 - formNil:     {head: 2, width: 1},
	formBin16 - formNil:    {head: 3, width: 2},
	formBin32 - formNil:    {head: 5, width: 4},
	formExt8 - formNil:     {head: 2, width: 1, fixed: 1},
	formExt16 - formNil:    {head: 3, width: 2, fixed: 1},
	formExt32 - formNil:    {head: 5, width: 4, fixed: 1},
	formFloat32 - formNil:  {head: 1, fixed: 4},
	formFloat64 - formNil:  {head: 1, fixed: 8},
	formUint8 - formNil:    {head: 1, fixed: 1},
	formUint16 - formNil:   {head: 1, fixed: 2},
	formUint32 - formNil:   {head: 1, fixed: 4},
	formUint64 - formNil:   {head: 1, fixed: 8},
	formInt8 - formNil:     {head: 1, fixed: 1},
	formInt16 - formNil:    {head: 1, fixed: 2},
	formInt32 - formNil:    {head: 1, fixed: 4},
	formInt64 - formNil:    {head: 1, fixed: 8},
	formFixext1 - formNil:  {head: 1, fixed: 2},
	formFixext2 - formNil:  {head: 1, fixed: 3},
	formFixext4 - formNil:  {head: 1, fixed: 5},
	formFixext8 - formNil:  {head: 1, fixed: 9},
	formFixext16 - formNil: {head: 1, fixed: 17},
	formStr8 - formNil:     {head: 2, width: 1},
	formStr16 - formNil:    {head: 3, width: 2},
	formStr32 - formNil:    {head: 5, width: 4},
	formArray16 - formNil:  {head: 3, width: 2, each: 1},
	formArray32 - formNil:  {head: 5, width: 4, each: 1},
	formMap16 - formNil:    {head: 3, width: 2, each: 2},
	formMap32 - formNil:    {head: 5, width: 4, each: 2},
}

// What a Splitter refuses. All are final: where the next message begins cannot be known.
var (
	// ErrNotMessagePack is a byte that begins no MessagePack value.
	ErrNotMessagePack = &Error{CodeBadRequest, "not MessagePack: 0xc1 begins no value"}
	// ErrOuterShape is a message that is not an array of three or four elements.
	ErrOuterShape = &Error{CodeBadRequest, "a message is [0, msgid, method, params], [1, msgid, error, result] or [2, method, params]"}
	// ErrTooDeep is a message whose values nest deeper than MaxDepth.
	ErrTooDeep = &Error{CodeBadRequest, "message nests deeper than 32 levels"}
	// ErrTooLarge is a message that is, or says it will be, longer than the limit.
	ErrTooLarge = &Error{CodeRequestTooLarge, "message is longer than its limit"}
)

// Splitter finds where the messages of a stream end. It keeps its place inside a message that has
// not arrived whole, so that a message in many pieces costs no more than in one. It holds no bytes,
// allocates nothing, and needs the same few words whatever the stream claims. A Splitter belongs to
// one goroutine. After an error it stays in error.
type Splitter struct {
	limit int
	err   *Error
	w     walk
}

// NewSplitter returns a Splitter for messages of at most limit bytes.
func NewSplitter(limit int) Splitter { return Splitter{limit: limit} }

// Next looks for the end of the message that begins at buf[0]. It returns
//
//	n > 0        the message is buf[:n]; the next call's buf begins behind it
//	0, nil       more bytes are needed: call again with the same bytes and more behind them
//	0, non-nil   the stream cannot be resynchronised, or the message exceeds the limit
//
// Between calls the caller may move the bytes, but not change or drop any of an unfinished message.
func (s *Splitter) Next(buf []byte) (int, *Error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.w.pos == 0 {
		if len(buf) == 0 {
			return 0, nil
		}
		if !maybeMessage(buf) {
			return s.fail(ErrOuterShape)
		}
		s.w.begin(1)
	}
	n, more, err := s.w.run(buf, s.limit)
	if err != nil {
		return s.fail(refusal(err))
	}
	if more {
		return 0, nil
	}
	s.w.pos = 0
	return n, nil
}

// Started reports whether part of a message was seen whose end was not: what a deadline for
// unfinished messages, or an end of the stream, has to know.
func (s *Splitter) Started() bool { return s.w.pos > 0 || s.w.depth > 0 }

func (s *Splitter) fail(e *Error) (int, *Error) {
	s.err = e
	return 0, e
}

// maybeMessage reports whether buf can begin a message: an array of three or four, in any encoding
// of that count, or too few bytes to tell.
func maybeMessage(buf []byte) bool {
	switch buf[0] {
	case fixarray | 3, fixarray | 4:
		return true
	case formArray16:
		return len(buf) < 3 || buf[1] == 0 && (buf[2] == 3 || buf[2] == 4)
	case formArray32:
		return len(buf) < 5 || binary.BigEndian.Uint32(buf[1:])-3 <= 1
	}
	return false
}

// refusal says on the wire what went wrong in a walk.
func refusal(err error) *Error {
	switch err {
	case errUnused:
		return ErrNotMessagePack
	case ErrDepth:
		return ErrTooDeep
	default:
		return ErrTooLarge
	}
}
