package ipc

import (
	"errors"
	"math"
)

// The functions below begin or make up whole responses. None checks the limit of an
// answer: the daemon knows the length before it encodes.

// AppendResultHeader begins the successful response to id; the caller appends the result, one value.
func AppendResultHeader(dst []byte, id uint32) []byte {
	if id < 1<<7 {
		return append(dst, fixarray|4, byte(TypeResponse), byte(id), formNil)
	}
	dst = AppendUint(append(dst, fixarray|4, byte(TypeResponse)), uint64(id))
	return append(dst, formNil)
}

// AppendErrorResponse appends the failed response to id.
func AppendErrorResponse(dst []byte, id uint32, code Code, message string) []byte {
	dst = AppendUint(append(dst, fixarray|4, byte(TypeResponse)), uint64(id))
	dst = AppendStr(append(dst, fixarray|2), string(code))
	return append(AppendStr(dst, message), formNil)
}

// AppendNilResult appends the whole response to id whose result is nil: get of an absent key.
func AppendNilResult(dst []byte, id uint32) []byte {
	return append(AppendResultHeader(dst, id), formNil)
}

// AppendBinResult appends the whole response to id whose result is a byte string: get.
func AppendBinResult(dst []byte, id uint32, value []byte) []byte {
	return AppendBin(AppendResultHeader(dst, id), value)
}

// AppendBinResultHeader begins the response to id whose result is a byte string of n bytes, which
// the caller appends: for values that are copied from the store straight into the answer.
func AppendBinResultHeader(dst []byte, id uint32, n int) []byte {
	return AppendBinHeader(AppendResultHeader(dst, id), n)
}

// AppendBoolResult appends the whole response to id whose result is a bool: put, del, cas, exists.
func AppendBoolResult(dst []byte, id uint32, v bool) []byte {
	return AppendBool(AppendResultHeader(dst, id), v)
}

// AppendIntResult appends the whole response to id whose result is a signed integer: add.
func AppendIntResult(dst []byte, id uint32, v int64) []byte {
	return AppendInt(AppendResultHeader(dst, id), v)
}

// AppendUintResult appends the whole response to id whose result is an unsigned integer.
func AppendUintResult(dst []byte, id uint32, v uint64) []byte {
	return AppendUint(AppendResultHeader(dst, id), v)
}

// AppendStrResult appends the whole response to id whose result is a string: ping.
func AppendStrResult(dst []byte, id uint32, s string) []byte {
	return AppendStr(AppendResultHeader(dst, id), s)
}

// AppendDurableNotification appends [2, "durable", [number]]: the session's writes up to number are
// on stable storage.
func AppendDurableNotification(dst []byte, number uint64) []byte {
	return AppendUint(append(appendNotification(dst, NotifyDurable), fixarray|1), number)
}

// Methods of notifications that a watch brings.
const (
	NotifyChange = "change" // [address, op, key, value]
	NotifyCommit = "commit" // [address to resume from]
	NotifyLagged = "lagged" // [address to resume from]: the watch has ended
)

// What a change does, as said in its notification.
const (
	ChangePut    = "put"
	ChangeDelete = "del"
)

// AppendPutChange appends [2, "change", [address, "put", key, value]].
func AppendPutChange(dst []byte, address int64, key, value []byte) []byte {
	return AppendBin(appendChange(dst, address, ChangePut, key), value)
}

// AppendDeleteChange appends [2, "change", [address, "del", key, nil]].
func AppendDeleteChange(dst []byte, address int64, key []byte) []byte {
	return AppendNil(appendChange(dst, address, ChangeDelete, key))
}

func appendChange(dst []byte, address int64, op string, key []byte) []byte {
	dst = AppendInt(append(appendNotification(dst, NotifyChange), fixarray|4), address)
	return AppendBin(AppendStr(dst, op), key)
}

// AppendPlace appends the notification of a place in the log: NotifyCommit or NotifyLagged.
func AppendPlace(dst []byte, method string, address int64) []byte {
	return AppendInt(append(appendNotification(dst, method), fixarray|1), address)
}

func appendNotification(dst []byte, method string) []byte {
	return AppendStr(append(dst, fixarray|3, byte(TypeNotification)), method)
}

// Change is a notification of a watch. Its bytes alias the message.
type Change struct {
	Address int64
	Deleted bool
	Key     []byte
	Value   []byte // nil if Deleted
}

// ReadChange reads the params of a NotifyChange.
func ReadChange(r *Reader) (c Change, err error) {
	if n, err := r.ArrayLen(); err != nil || n != 4 {
		return c, ErrNotResponse
	}
	if c.Address, err = r.Int(); err != nil {
		return c, err
	}
	op, err := r.Bytes()
	if err != nil {
		return c, err
	}
	if c.Key, err = r.Bytes(); err != nil {
		return c, err
	}
	switch string(op) {
	case ChangePut:
		c.Value, err = r.Bytes()
		return c, err
	case ChangeDelete:
		if c.Deleted = r.TakeNil(); c.Deleted {
			return c, nil
		}
	}
	return c, ErrNotResponse
}

// ReadPlace reads the params of a NotifyCommit or NotifyLagged.
func ReadPlace(r *Reader) (address int64, err error) {
	if n, err := r.ArrayLen(); err != nil || n != 1 {
		return 0, ErrNotResponse
	}
	return r.Int()
}

// NotifyDurable is the method of the notification that tells how far a session is durable.
const NotifyDurable = "durable"

// Response is a message from the daemon: a response, or a notification. Its bytes alias the message.
type Response struct {
	Type    Type
	Failed  bool   // Code and Message tell why; there is no result
	ID      uint32 // which request this answers
	Code    []byte // the error's code
	Message []byte // the error's sentence
	Method  []byte // of a notification
	Result  Reader // the one value of the result; of a notification, its params
}

// Err returns the response's error, nil if it has none. It copies what it needs.
func (p *Response) Err() error {
	if !p.Failed {
		return nil
	}
	return &Error{Code(p.Code), string(p.Message)}
}

// ErrNotResponse says that a message from the daemon has not the shape of one: the stream is
// broken.
var ErrNotResponse = errors.New("message is not [1, msgid, error, result] or [2, method, params]")

// ParseResponse reads message, one whole message as found by a Splitter.
func ParseResponse(message []byte, p *Response) error {
	// A success, the common case, is one comparison away from its id.
	if len(message) > 4 && message[0] == fixarray|4 && message[1] == byte(TypeResponse) {
		r := Reader{message[2:]}
		if id, err := r.Uint(); err == nil && id <= math.MaxUint32 && r.TakeNil() {
			p.Type, p.Failed, p.ID, p.Result = TypeResponse, false, uint32(id), r
			return nil
		}
	}
	return parseResponse(message, p)
}

// parseResponse reads a response in any encoding, and notifications.
func parseResponse(message []byte, p *Response) error {
	r := NewReader(message)
	n, err := r.ArrayLen()
	if err != nil {
		return ErrNotResponse
	}
	kind, err := r.Uint()
	if err != nil {
		return ErrNotResponse
	}
	*p = Response{}
	switch {
	case kind == uint64(TypeNotification) && n == 3:
		p.Type = TypeNotification
		if p.Method, err = r.Bytes(); err != nil || r.Kind() != KindArray {
			return ErrNotResponse
		}
	case kind == uint64(TypeResponse) && n == 4:
		p.Type = TypeResponse
		id, err := r.Uint()
		if err != nil || id > math.MaxUint32 {
			return ErrNotResponse
		}
		p.ID = uint32(id)
		if !r.TakeNil() {
			p.Failed = true
			if !takeError(&r, p) {
				return ErrNotResponse
			}
		}
	default:
		return ErrNotResponse
	}
	p.Result = r
	return nil
}

// takeError takes [code, message].
func takeError(r *Reader, p *Response) bool {
	n, err := r.ArrayLen()
	if err != nil || n != 2 {
		return false
	}
	if p.Code, err = r.Bytes(); err != nil {
		return false
	}
	p.Message, err = r.Bytes()
	return err == nil
}
