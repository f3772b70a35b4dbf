package client

import (
	"context"
	"time"

	"rskv/ipc"
)

// Hooks are functions that a Client calls as things happen, for traces, metrics and logs of any
// library. Each may be nil, and none of them may call the Client. What there is to be counted is
// handed in; what is to be measured, the hook measures itself:
//
//	client.WithHooks(client.Hooks{Call: func(ctx context.Context, call client.Call) func(client.Outcome) {
//		ctx, span := tracer.Start(ctx, "rskv "+call.Method)
//		return func(o client.Outcome) {
//			span.RecordError(o.Err)
//			span.End()
//		}
//	}})
type Hooks struct {
	// Call is called on the caller's goroutine before its requests are queued, and what it returns,
	// unless that is nil, when they are answered or given up. For a Future that is in Wait.
	Call func(context.Context, Call) func(Outcome)
	// Connected is called when a connection is up, with how long there was none: 0 for the first.
	// Disconnected is called when it is lost, with the reason; not by Close. Both are called on the
	// goroutine that hands out answers, and must not block.
	Connected    func(down time.Duration)
	Disconnected func(why error)
}

// Call is one call of a Client: one request, or the requests of a Batch.
type Call struct {
	Method   string // name in the protocol, such as "get"; of a Batch its first one's
	Requests int
	Bytes    int // of the requests
}

// Outcome is what became of a Call.
type Outcome struct {
	// Err is the call's error, or else the first one that a request of it was answered with. That a
	// key is not there is no error.
	Err    error
	Failed int // requests with an error
	Bytes  int // of the byte strings, arrays and maps in the answers
}

// WithHooks sets the Client's hooks.
func WithHooks(h Hooks) Option { return func(o *options) { o.hooks = h } }

// begin tells the hook of a flight that is about to be submitted. ended must be called while the flight is
// the caller's, or with the error that says that it is not.
func (h *Hooks) begin(ctx context.Context, f *flight) (ended func(*flight, error)) {
	var q ipc.Request
	if ipc.ParseRequest(f.message(0), &q) != nil {
		return nil // not made by this package
	}
	n := len(f.ops)
	end := h.Call(ctx, Call{Method: q.Method.String(), Requests: n, Bytes: len(f.buf)})
	if end == nil {
		return nil
	}
	return func(f *flight, err error) {
		if err != nil {
			end(Outcome{Err: err, Failed: n})
			return
		}
		o := Outcome{Bytes: len(f.arena)}
		for i := range f.answers {
			if err := f.answers[i].err; err != nil {
				o.Failed++
				if o.Err == nil {
					o.Err = err
				}
			}
		}
		end(o)
	}
}
