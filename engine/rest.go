package engine

import (
	"sync/atomic"
	"time"

	"rskv/engine/internal/record"
)

// An idle store wakes nobody: its tasks rest while nothing is written, and the next
// writer wakes them.
//
//	task         rests when
//	-------------+---------------------------------------------------------
//	commit       all that was written is durable, and a commit attests that
//	checkpoint   none is due, and the log has not moved since the last look
//	compaction   the same
//	expiry       the log has not moved; until the first key in memory expires
//	order        no key is in doubt, and the log has not moved
//
// Who rests says so first and then looks whether something has been written; a
// writer leaves its section first and then looks whether somebody rests. So at
// least one of the two sees the other.
const (
	restCommit uint32 = 1 << iota
	restCheckpoint
	restCompact
	restExpire
	restOrder
	// restProcessor is no rest: while a pass of compaction is under way, its workers
	// wait for the device again and again, and for a processor each time. Where writers
	// leave none, they would get one when the scheduler takes it away from one of them,
	// after 10 ms. So writers let others go first, now and then.
	restProcessor
)

// yieldAfter is how much a session does until it lets others go first: sections, and
// records appended. That is some 100 us.
const yieldAfter = 512

// restMax bounds the rest of those who look: what becomes due without a write,
// because the disk has changed, is seen within it.
const restMax = 2 * time.Minute

// restLeft is RestLeft by the store's clock.
func (s *Store) restLeft() time.Duration { return RestLeft(s.opt.Clock.Wall()) }

// RestLeft is how long those who only look now and then, two minutes at most, wait at a
// time in ms since 1970: to the next full two minutes of the wall clock, so that where
// several rest, of the store and of whoever runs it, they look together, which wakes
// the process once and not once for each.
func RestLeft(wall int64) time.Duration {
	left := restMax - ms(wall%restMax.Milliseconds())
	if left <= time.Second {
		left += restMax
	}
	return left
}

// rests is who rests, as bits. Atomic; read by every section that writes.
type rests struct{ bits atomic.Uint32 }

func (r *rests) begin(bit uint32) { r.bits.Or(bit) }
func (r *rests) end(bit uint32)   { r.bits.And(^bit) }

// wrote wakes those who rest, and lets others go first if that is wanted. A writer
// calls it outside of its section.
func (s *Session) wrote() {
	if bits := s.store.rests.bits.Load(); bits != 0 {
		s.answerRests(bits)
	}
}

//go:noinline
func (s *Session) answerRests(bits uint32) {
	if bits&^restProcessor != 0 {
		s.store.endRests()
	}
	if bits&restProcessor == 0 || s.mover {
		return
	}
	if s.turn += 1 + int(s.tally.appended); s.turn >= yieldAfter {
		s.turn = 0
		s.store.opt.Runner.Yield()
	}
}

func (s *Store) endRests() {
	bits := s.rests.bits.And(restProcessor)
	if bits&restCommit != 0 {
		s.commit.task.Wake()
	}
	if bits&restCheckpoint != 0 {
		s.checkpoints.task.Wake()
	}
	if bits&restCompact != 0 {
		s.compaction.task.Wake()
	}
	if bits&restExpire != 0 {
		s.sweep.task.Wake()
	}
	if bits&restOrder != 0 {
		s.order.task.Wake()
	}
}

// look is the rest of a task that looks now and then whether something is due.
type look struct {
	tail   record.Addr // the log's when it last looked
	waited bool        // and it has waited for poll since
}

// after says how long a task that found nothing due waits: poll, or, when the log
// has not moved for that long, until a writer wakes it. Writes that do not move the
// log wake it once in poll at most.
func (l *look) after(s *Store, bit uint32, poll time.Duration) time.Duration {
	tail := s.log.Tail()
	if tail == l.tail && s.rests.bits.Load()&bit != 0 {
		return s.restLeft() // nobody has ended its rest
	}
	if tail != l.tail || !l.waited {
		l.tail, l.waited = tail, true
		return poll
	}
	l.waited = false
	s.rests.begin(bit)
	if s.log.Tail() != l.tail {
		s.rests.end(bit)
		return poll
	}
	return s.restLeft()
}
