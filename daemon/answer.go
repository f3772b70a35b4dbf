package daemon

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"rskv/engine"
	"rskv/ioring"
	"rskv/ipc"
)

// result is what a write is answered with; values of reads are encoded at once
// and never kept.
type result struct {
	kind resultKind
	n    int64
}

type resultKind uint8

const (
	resultNil     resultKind = iota
	resultBool               // n: 0 or 1
	resultInt                // n
	resultDurable            // the answer of sync, filled in after the commit
)

func yesNo(v bool) result {
	if v {
		return result{resultBool, 1}
	}
	return result{resultBool, 0}
}

// complete answers a call whose operation is done.
func (c *conn) complete(k *call, op *engine.Op) {
	if op.Kind != engine.OpNote {
		c.batch.counts.end(k.method, outcomeOf(k, op))
	}
	if k.gather != nil {
		c.gathered(k, op)
		return
	}
	if k.parked && k.number > 0 {
		c.writes.close(k.number)
	}
	if op.Kind == engine.OpNote {
		return // those it stands for have been answered
	}
	if c.slow > 0 {
		c.maybeSlow(k, op)
	}
	switch {
	case op.Err != nil && c.dead && k.brings():
		return // nobody hears it
	case op.Err != nil:
		c.refuse(k, wireError(op.Err))
		return
	}
	if !k.sync {
		c.finished(k)
	}
	switch k.method {
	case ipc.MethodGet:
		c.replyValue(k, op)
	case ipc.MethodExists, ipc.MethodPut, ipc.MethodCas, ipc.MethodExpire:
		c.reply(k, yesNo(op.Found))
	case ipc.MethodDel:
		if k.blind {
			c.reply(k, result{kind: resultNil})
		} else {
			c.reply(k, yesNo(op.Found))
		}
	case ipc.MethodAdd, ipc.MethodAppend:
		c.reply(k, result{resultInt, op.Int})
	case ipc.MethodTTL:
		if !op.Found {
			c.reply(k, result{kind: resultNil})
		} else {
			c.reply(k, result{resultInt, op.Int})
		}
	default:
		panic(fmt.Sprintf("daemon: an operation for method %s", k.method))
	}
}

// replyValue answers a get.
func (c *conn) replyValue(k *call, op *engine.Op) {
	o := &c.output
	switch {
	case !k.answered:
	case !op.Found:
		o.ready = ipc.AppendNilResult(o.ready, k.id)
	case c.noRoomFor(len(op.Value)):
		c.refuse(k, errAnswersSpent)
	case len(op.Value)+frameRoom > c.limits.Answer:
		c.refuse(k, answerTooLarge(c.limits.Answer))
	default:
		o.ready = ipc.AppendBinResult(o.ready, k.id, op.Value)
		c.accountMuch()
	}
}

// reply answers a call at once, or after the next commit if it asked for that.
func (c *conn) reply(k *call, r result) {
	if k.sync {
		c.held = append(c.held, heldAnswer{k.id, k.answered, k.began, k.method, k.key, r})
		c.flight.unanswered++
		return
	}
	if k.answered {
		c.output.ready = appendResult(c.output.ready, k.id, r)
	}
}

func appendResult(dst []byte, id uint32, r result) []byte {
	switch r.kind {
	case resultNil:
		return ipc.AppendNilResult(dst, id)
	case resultBool:
		return ipc.AppendBoolResult(dst, id, r.n != 0)
	case resultInt:
		return ipc.AppendIntResult(dst, id, r.n)
	}
	panic(fmt.Sprintf("daemon: result of kind %d has no encoding", r.kind))
}

// refuse answers a call with an error. A write of a session that is refused is
// remembered, for a client that loses its answer.
func (c *conn) refuse(k *call, err *ipc.Error) {
	c.server.count.refuse(err.Code)
	if k.number > 0 && c.owner != nil {
		c.owner.refuse(k.number, err.Code)
	}
	if k.answered {
		c.output.ready = ipc.AppendErrorResponse(c.output.ready, k.id, err.Code, err.Message)
	}
}

func answerTooLarge(limit int) *ipc.Error {
	return &ipc.Error{Code: ipc.CodeAnswerTooLarge, Message: fmt.Sprintf("the answer is longer than %d bytes", limit)}
}

// codes ties the engine's errors to those of the wire. The first that matches
// counts: a read-only store's error wraps the I/O error that made it so.
var codes = []struct {
	err  error
	code ipc.Code
}{
	{engine.ErrKeyEmpty, ipc.CodeBadRequest},
	{engine.ErrKeyTooLarge, ipc.CodeKeyTooLarge},
	{engine.ErrValueTooLarge, ipc.CodeValueTooLarge},
	{engine.ErrNotInteger, ipc.CodeNotInteger},
	{engine.ErrOverflow, ipc.CodeOverflow},
	{engine.ErrBusy, ipc.CodeBusy},
	{engine.ErrCursor, ipc.CodeCursorLost},
	{engine.ErrIndexFull, ipc.CodeBusy},
	{engine.ErrDiskFull, ipc.CodeDiskFull},
	{engine.ErrReadOnly, ipc.CodeReadOnly},
	{engine.ErrClosed, ipc.CodeShuttingDown},
	{engine.ErrCorrupt, ipc.CodeCorrupt},
	{engine.ErrIO, ipc.CodeIO},
	{engine.ErrBadTTL, ipc.CodeBadRequest},
	{engine.ErrBadCheckpoint, ipc.CodeBadRequest},
	{engine.ErrBadOptions, ipc.CodeBadRequest},
	{engine.ErrNoTask, ipc.CodeBadRequest},
	{engine.ErrTaskFixed, ipc.CodeBadRequest},
	{engine.ErrLedgerUnknown, ipc.CodeSessionUnknown},
	// A checkpoint's own files are not the log: their errors come as the device
	// gives them.
	{ioring.ErrSyncFailed, ipc.CodeReadOnly},
	{unix.ENOSPC, ipc.CodeDiskFull},
	{unix.EDQUOT, ipc.CodeDiskFull},
	{unix.EIO, ipc.CodeIO},
}

// wireError says an error of the engine on the wire; one that is of the wire
// already stays as it is.
func wireError(err error) *ipc.Error {
	if own, ok := errors.AsType[*ipc.Error](err); ok {
		return own
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return &ipc.Error{Code: c.code, Message: err.Error()}
		}
	}
	return &ipc.Error{Code: ipc.CodeInternal, Message: err.Error()}
}
