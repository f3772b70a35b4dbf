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
	dst = append(dst, fixarray|3, byte(TypeNotification))
	return AppendUint(append(AppendStr(dst, NotifyDurable), fixarray|1), number)
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
