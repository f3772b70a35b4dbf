package ipc

import (
	"encoding/binary"
	"errors"
	"math"
)

// Errors of a Reader. They are values without context: the caller knows what it was reading.
var (
	// ErrShort says that the value goes on beyond the bytes at hand.
	ErrShort = errors.New("ends in the middle of a value")
	// ErrType says that the next value is of another type. The Reader has not moved.
	ErrType = errors.New("wrong type")
	// ErrRange says that an integer does not fit. The Reader has not moved.
	ErrRange = errors.New("integer out of range")
	// ErrDepth says that values nest deeper than MaxDepth.
	ErrDepth = errors.New("nested too deep")
	// ErrTrailing says that bytes follow where the value should have been the last.
	ErrTrailing = errors.New("bytes follow the value")
)

// Kind is the type of a MessagePack value.
type Kind uint8

// The kinds.
const (
	KindNone Kind = iota // no byte left, or the one byte that begins no value
	KindNil
	KindBool
	KindInt
	KindFloat
	KindStr
	KindBin
	KindArray
	KindMap
	KindExt
)

var kindNames = [...]string{"nothing", "nil", "bool", "int", "float", "str", "bin", "array", "map", "ext"}

// String returns the kind's name as used in error messages.
func (k Kind) String() string { return kindNames[k] }

// Reader takes values one by one from a slice it never leaves. Every byte string it returns aliases
// that slice. A read that fails has not moved the Reader, so Kind still tells what stands there.
// The zero Reader is empty. A Reader is a value: copy it to look ahead.
type Reader struct {
	b []byte // what is left
}

// NewReader returns a Reader over b.
func NewReader(b []byte) Reader { return Reader{b} }

// Len returns how many bytes are left.
func (r *Reader) Len() int { return len(r.b) }

// Rest returns the bytes that are left, aliased.
func (r *Reader) Rest() []byte { return r.b }

// Kind returns the kind of the next value without taking it.
func (r *Reader) Kind() Kind {
	if len(r.b) == 0 {
		return KindNone
	}
	switch c := r.b[0]; {
	case c < fixmap || c >= negative:
		return KindInt
	case c < fixarray:
		return KindMap
	case c < fixstr:
		return KindArray
	case c < formNil:
		return KindStr
	default:
		return kindOfForm[c-formNil]
	}
}

// kindOfForm is the kind of the forms 0xc0..0xdf.
var kindOfForm = [32]Kind{
	KindNil, KindNone, KindBool, KindBool, KindBin, KindBin, KindBin, KindExt,
	KindExt, KindExt, KindFloat, KindFloat, KindInt, KindInt, KindInt, KindInt,
	KindInt, KindInt, KindInt, KindInt, KindExt, KindExt, KindExt, KindExt,
	KindExt, KindStr, KindStr, KindStr, KindArray, KindArray, KindMap, KindMap,
}

// TakeNil takes the next value if it is nil, and reports whether it was.
func (r *Reader) TakeNil() bool {
	if len(r.b) == 0 || r.b[0] != formNil {
		return false
	}
	r.b = r.b[1:]
	return true
}

// Bool takes a bool.
func (r *Reader) Bool() (bool, error) {
	if len(r.b) == 0 {
		return false, ErrShort
	}
	c := r.b[0]
	if c != formTrue && c != formFalse {
		return false, ErrType
	}
	r.b = r.b[1:]
	return c == formTrue, nil
}

// Uint takes an integer of any encoding that is not negative.
func (r *Reader) Uint() (uint64, error) {
	if len(r.b) > 0 && r.b[0] < fixmap {
		v := r.b[0]
		r.b = r.b[1:]
		return uint64(v), nil
	}
	v, neg, size, err := integer(r.b)
	if err != nil {
		return 0, err
	}
	if neg {
		return 0, ErrRange
	}
	r.b = r.b[size:]
	return v, nil
}

// Int takes an integer of any encoding that fits int64.
func (r *Reader) Int() (int64, error) {
	v, neg, size, err := integer(r.b)
	if err != nil {
		return 0, err
	}
	if !neg && v > math.MaxInt64 {
		return 0, ErrRange
	}
	r.b = r.b[size:]
	return int64(v), nil
}

// integer decodes the integer at the start of b: its 64 bits, whether they mean a negative number,
// and the bytes it takes.
func integer(b []byte) (v uint64, neg bool, size int, err error) {
	if len(b) == 0 {
		return 0, false, 0, ErrShort
	}
	c := b[0]
	if c < fixmap {
		return uint64(c), false, 1, nil
	}
	if c >= negative {
		return uint64(int64(int8(c))), true, 1, nil
	}
	if c < formUint8 || c > formInt64 {
		return 0, false, 0, ErrType
	}
	width := 1 << ((c - formUint8) & 3)
	if len(b) < 1+width {
		return 0, false, 0, ErrShort
	}
	switch width {
	case 1:
		v = uint64(b[1])
	case 2:
		v = uint64(binary.BigEndian.Uint16(b[1:]))
	case 4:
		v = uint64(binary.BigEndian.Uint32(b[1:]))
	default:
		v = binary.BigEndian.Uint64(b[1:])
	}
	if c < formInt8 {
		return v, false, 1 + width, nil
	}
	shift := 64 - 8*width
	s := int64(v<<shift) >> shift // sign-extended
	return uint64(s), s < 0, 1 + width, nil
}

// Float takes a float of either width.
func (r *Reader) Float() (float64, error) {
	if len(r.b) == 0 {
		return 0, ErrShort
	}
	switch r.b[0] {
	case formFloat32:
		if len(r.b) < 5 {
			return 0, ErrShort
		}
		v := math.Float32frombits(binary.BigEndian.Uint32(r.b[1:]))
		r.b = r.b[5:]
		return float64(v), nil
	case formFloat64:
		if len(r.b) < 9 {
			return 0, ErrShort
		}
		v := math.Float64frombits(binary.BigEndian.Uint64(r.b[1:]))
		r.b = r.b[9:]
		return v, nil
	}
	return 0, ErrType
}

// Bytes takes a byte string, encoded as bin or as str. The bytes alias the Reader's slice, with
// their capacity cut so that an append cannot reach what follows.
func (r *Reader) Bytes() ([]byte, error) {
	head, n, err := bytesHead(r.b)
	if err != nil {
		return nil, err
	}
	if n > len(r.b)-head {
		return nil, ErrShort
	}
	end := head + n
	v := r.b[head:end:end]
	r.b = r.b[end:]
	return v, nil
}

// bytesHead decodes what stands before a byte string: the bytes it takes, and the length it claims.
func bytesHead(b []byte) (head, n int, err error) {
	if len(b) == 0 {
		return 0, 0, ErrShort
	}
	c := b[0]
	if c >= fixstr && c < formNil {
		return 1, int(c & 31), nil
	}
	switch c {
	case formBin8, formStr8:
		head = 2
	case formBin16, formStr16:
		head = 3
	case formBin32, formStr32:
		head = 5
	default:
		return 0, 0, ErrType
	}
	if len(b) < head {
		return 0, 0, ErrShort
	}
	switch head {
	case 2:
		return 2, int(b[1]), nil
	case 3:
		return 3, int(binary.BigEndian.Uint16(b[1:])), nil
	}
	return claimed(b[1:], head)
}

// claimed returns the 32-bit length at the start of b, of which an int may have too few bits.
func claimed(b []byte, head int) (int, int, error) {
	n := binary.BigEndian.Uint32(b)
	if n > math.MaxInt32 {
		return 0, 0, ErrShort // no slice is that long here
	}
	return head, int(n), nil
}

// ArrayLen takes the head of an array and returns its number of elements, which is never more than
// the bytes left.
func (r *Reader) ArrayLen() (int, error) {
	return r.count(fixarray, formArray16, 1)
}

// MapLen takes the head of a map and returns its number of pairs, which is never more than half the
// bytes left.
func (r *Reader) MapLen() (int, error) {
	return r.count(fixmap, formMap16, 2)
}

// count takes the head of a container whose short form begins at fix and whose 16-bit form is
// form16, the 32-bit form standing behind it; each element takes at least least bytes.
func (r *Reader) count(fix, form16 byte, least int) (int, error) {
	if len(r.b) == 0 {
		return 0, ErrShort
	}
	c := r.b[0]
	head, n := 1, int(c&15)
	switch {
	case c&0xf0 == fix:
	case c == form16:
		if len(r.b) < 3 {
			return 0, ErrShort
		}
		head, n = 3, int(binary.BigEndian.Uint16(r.b[1:]))
	case c == form16+1:
		if len(r.b) < 5 {
			return 0, ErrShort
		}
		var err error
		if head, n, err = claimed(r.b[1:], 5); err != nil {
			return 0, err
		}
	default:
		return 0, ErrType
	}
	if n > (len(r.b)-head)/least {
		return 0, ErrShort
	}
	r.b = r.b[head:]
	return n, nil
}

// Raw takes one whole value of any kind and returns its bytes, aliased. It neither recurses nor
// allocates.
func (r *Reader) Raw() ([]byte, error) {
	var w walk
	w.begin(1)
	n, more, err := w.run(r.b, len(r.b))
	if more || err == errClaim {
		return nil, ErrShort
	}
	if err != nil {
		return nil, err
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v, nil
}

// Skip takes one whole value of any kind and drops it.
func (r *Reader) Skip() error {
	_, err := r.Raw()
	return err
}

// Validate reports whether b is exactly one MessagePack value, all of whose lengths are there and
// which nests at most MaxDepth deep: what must hold before msgpack/v5 may see it, because that
// library allocates by the lengths it reads and recurses by the nesting.
func Validate(b []byte) error {
	r := NewReader(b)
	if err := r.Skip(); err != nil {
		return err
	}
	if r.Len() > 0 {
		return ErrTrailing
	}
	return nil
}
