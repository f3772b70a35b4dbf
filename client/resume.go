package client

import (
	"errors"
	"fmt"

	"rskv/ipc"
)

// resume is one return of a session: it rebuilds the log around what the daemon told, and queues for
// the new connection what the daemon does not have. It lives under mu.
type resume struct {
	c       *Client
	h       *ipc.Hello
	old     kept              // the log as it was
	waiting map[uint64]uint32 // writes beyond applied whose callers wait: number to slot
	others  []uint32          // slots of what is in flight and no write, in the order it was queued
	first   bool              // no write beyond applied has been looked at
	end     *landings
}

// resumeLocked makes the session go on where the daemon says it is. What the daemon does not have is
// queued in its old order, with reads and the rest in between: each behind every write that was
// queued before it, so that nobody misses what he wrote himself.
func (c *Client) resumeLocked(h *ipc.Hello, end *landings) {
	r := resume{c: c, h: h, waiting: c.waitingLocked(), first: true, end: end}
	r.settle()
	unkept := c.mu.foreign && h.Durable < h.Applied
	r.old, r.others = c.mu.kept, c.othersLocked(end)
	c.mu.kept = kept{next: r.base(), spare: r.old.spare}
	c.mu.known, c.mu.foreign, c.mu.hello, c.mu.durable = true, false, *h, h.Durable
	c.mu.hello.Refused = nil
	r.old.all(r.take)
	for _, id := range r.others {
		c.queueLocked(id)
	}
	if unkept {
		c.syncLocked() // what a former Client wrote is nobody's to send again
	}
	c.askSyncLocked()
}

// settle ends the wait for writes that took effect and whose answers are lost, as far as their
// answers can be known, and notes which had none.
func (r *resume) settle() {
	refused := map[uint64]ipc.Code{}
	for _, w := range r.h.Refused {
		if w.Number <= r.h.Applied {
			refused[w.Number] = w.Code
			r.c.mu.kept.mark(w.Number, fateVoid)
		}
	}
	for number, id := range r.waiting {
		if number > r.h.Applied {
			continue
		}
		delete(r.waiting, number)
		s := r.c.freeSlotLocked(id)
		code, no := refused[number]
		sure, known := answer{}, false
		if r.h.Refused != nil && !no {
			sure, known = sureAnswer(s.f.message(s.i), number <= r.h.Durable)
		}
		switch {
		case no:
			r.end.fail(s, &Error{Code: code, Message: "refused, the reason was lost with the connection"})
		case known:
			r.end.end(s, sure)
		default:
			r.end.fail(s, &lostError{cause: r.c.cause, sent: true})
		}
	}
}

// sureAnswer returns the answer to a write that was not refused, if there is but one.
func sureAnswer(message []byte, durable bool) (answer, bool) {
	var q ipc.Request
	var call ipc.Call
	lim := ipc.DefaultLimits()
	if ipc.ParseRequest(message, &q) != nil || ipc.ParseCall(&q, &lim, &call) != nil {
		return answer{}, false
	}
	switch {
	case call.Sync && !durable: // it would have been answered later
	case call.Method == ipc.MethodPut && call.If == ipc.IfAny:
		return answer{kind: ipc.KindBool, number: 1}, true
	case call.Method == ipc.MethodMPut:
		return answer{kind: ipc.KindInt, number: uint64(len(call.Keys))}, true
	case (call.Method == ipc.MethodDel || call.Method == ipc.MethodMDel) && call.Blind:
		return answer{kind: ipc.KindNil}, true
	}
	return answer{}, false
}

// base is the first number of the new log.
func (r *resume) base() uint64 {
	if !r.c.mu.known || r.c.mu.foreign {
		return r.h.Applied + 1
	}
	first := r.old.first()
	if first > r.h.Applied+1 {
		r.end.losses = append(r.end.losses, SessionLoss{
			Session: r.h.Session, Unconfirmed: int(first - r.h.Applied - 1),
			Err: fmt.Errorf("%w: writes up to %d, of a former client, were not durable", ErrSessionLost, first-1),
		})
	}
	return min(max(first, r.h.Durable+1), r.h.Applied+1)
}

// take decides on one write of the old log.
func (r *resume) take(number uint64, message []byte) {
	c := r.c
	id, waits := r.waiting[number]
	special := r.old.fates[number]
	switch {
	case number <= r.h.Durable:
	case number <= r.h.Applied:
		c.mu.kept.add(message)
		if special != 0 {
			c.mu.kept.mark(number, special)
		}
		return
	case special == fateVoid:
	case waits && !r.hopeless(id):
		for len(r.others) > 0 && c.opLocked(r.others[0]).at < c.opLocked(id).at {
			c.queueLocked(r.others[0])
			r.others = r.others[1:]
		}
		c.mu.slots[id].number = c.mu.kept.add(message)
		c.queueLocked(id)
		return
	case !waits && !r.poison(special):
		r.sendAgain(message, special)
		return
	}
	c.mu.gate.forget(load{1, len(message)})
}

// sendAgain queues a write for whose answer nobody waits: it was given already, or given up.
func (r *resume) sendAgain(message []byte, special fate) {
	c := r.c
	id := c.takeSlotLocked(nil, 0)
	number := c.mu.kept.add(message)
	c.mu.slots[id].number = number
	if special != 0 {
		c.mu.kept.mark(number, special)
	}
	begin := len(c.mu.out)
	c.mu.out = append(c.mu.out, message...)
	ipc.PatchID(c.mu.out[begin:], id)
	c.mu.queued += uint64(len(message))
}

// hopeless ends a write that has no effect and is not to be sent: nobody waits for one that never
// was, or every connection that had it was lost over it.
func (r *resume) hopeless(id uint32) bool {
	o := r.c.opLocked(id)
	s := r.c.mu.slots[id]
	switch {
	case !o.sent && s.f.givenUp.Load():
	case !o.sent:
		r.first, r.c.suspect.tries = false, 0
		return false
	case r.stuck():
		r.c.suspect.tries = 0
	default:
		return false
	}
	r.end.fail(r.c.freeSlotLocked(id), &lostError{cause: r.c.cause})
	return true
}

// poison is hopeless for a write without a waiting caller. One that was answered with success is
// given up only if the daemon said that it breaks off connections over what it was sent.
func (r *resume) poison(special fate) bool {
	saidSo := errors.Is(r.c.cause, ErrTooLarge) || errors.Is(r.c.cause, ErrBadRequest)
	if !r.stuck() || special != fateOrphan && !saidSo {
		return false
	}
	r.c.suspect.tries = 0
	if special != fateOrphan {
		r.end.losses = append(r.end.losses, SessionLoss{Session: r.h.Session, Unconfirmed: 1, Err: r.c.cause})
	}
	return true
}

// suspect counts connections that ended with the same write as the first the daemon did not take.
type suspect struct {
	applied uint64
	tries   int
}

// stuck reports whether this is the first write beyond applied and has been on too many connections.
func (r *resume) stuck() bool {
	first, s := r.first, &r.c.suspect
	r.first = false
	if !first {
		return false
	}
	if s.applied != r.h.Applied {
		*s = suspect{applied: r.h.Applied}
	}
	s.tries++
	return s.tries > maxTries
}

// othersLocked lists what is in flight and no write, in the order it was queued, and ends what was
// given up.
func (c *Client) othersLocked(end *landings) (ids []uint32) {
	for _, s := range c.inFlightLocked() {
		o := &s.f.ops[s.i]
		switch {
		case s.number != 0:
		case s.f.givenUp.Load():
			end.fail(c.freeSlotLocked(o.id), ErrConnLost) // nobody waits for it
		default:
			ids = append(ids, o.id)
		}
	}
	return ids
}

// queueLocked queues a request in flight for the connection in use.
func (c *Client) queueLocked(id uint32) {
	s := &c.mu.slots[id]
	o := &s.f.ops[s.i]
	o.at, o.tries = c.mu.queued, o.tries+1
	c.mu.out = append(c.mu.out, s.f.message(s.i)...)
	c.mu.queued += uint64(o.end - o.start)
}
