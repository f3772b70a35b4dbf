package ipc

import (
	"math"
	"strconv"
)

// Type is the first element of a message.
type Type uint8

// The types of message.
const (
	TypeRequest      Type = 0
	TypeResponse     Type = 1
	TypeNotification Type = 2
)

// Request is a request or a notification whose outer shape is right. Name and Params alias the
// message.
type Request struct {
	Type   Type   // TypeRequest, or TypeNotification: carried out, never answered
	Method Method // MethodUnknown: answer with UnknownMethod, as ParseCall does
	ID     uint32 // the client's choice; 0 for a notification
	Count  int    // parameters
	Name   []byte // the method as it was sent
	Params Reader // the parameters, one after the other
}

// Answered reports whether the sender waits for an answer.
func (q *Request) Answered() bool { return q.Type == TypeRequest }

// errMessage makes the error for a message whose outer shape is wrong.
func errMessage(what string) *Error { return &Error{CodeBadRequest, what} }

// What is wrong with an outer shape. Final, as the Splitter's errors are.
var (
	errMsgType   = errMessage("message type is neither 0 (request) nor 2 (notification)")
	errMsgID     = errMessage("msgid is not an unsigned 32-bit number")
	errMsgMethod = errMessage("method is not a string")
	errMsgParams = errMessage("params is not an array")
	errMsgShape  = errMessage("request is not [0, msgid, method, params] or [2, method, params]")
)

// ParseRequest reads the outer shape of message, which is one whole message as found by a Splitter.
// An error means that the peer does not speak this protocol: the connection ends.
func ParseRequest(message []byte, q *Request) *Error {
	r := NewReader(message)
	n, err := r.ArrayLen()
	if err != nil {
		return errMsgShape
	}
	kind, err := r.Uint()
	switch {
	case err != nil:
		return errMsgType
	case kind == uint64(TypeRequest) && n == 4:
		id, err := r.Uint()
		if err != nil || id > math.MaxUint32 {
			return errMsgID
		}
		q.Type, q.ID = TypeRequest, uint32(id)
	case kind == uint64(TypeNotification) && n == 3:
		q.Type, q.ID = TypeNotification, 0
	case kind != uint64(TypeRequest) && kind != uint64(TypeNotification):
		return errMsgType
	default:
		return errMsgShape
	}
	if q.Name, err = r.Bytes(); err != nil {
		return errMsgMethod
	}
	if q.Count, err = r.ArrayLen(); err != nil {
		return errMsgParams
	}
	q.Method = LookupMethod(q.Name)
	q.Params = r
	return nil
}

// quote makes a stranger's bytes fit for an error message.
func quote(b []byte) string { return strconv.QuoteToASCII(string(b)) }
