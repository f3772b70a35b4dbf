package engine

import "rskv/engine/internal/record"

// A record may carry its expiry, a moment in ms since 1970 from which on its key
// reads as absent. Nothing happens at that moment, and nothing is written for it.
// What holds:
//
//   - Expired is for good. The clock never goes back, see clock.go, and no
//     operation changes or takes over what has expired.
//   - An expired record hides the older ones of its key, like a tombstone, for as
//     long as it is there. It goes when the log begins behind it: what it hides is
//     older and goes with it.
//   - Who looks decides by a clock read after his operation began; reading "there"
//     a moment late is an answer of that moment. What must not be is that somebody
//     has read "absent" and then the key is there again, of a write that relied on
//     the expired record: an expire, a compare-and-swap. So a record whose own
//     expiry is later than that of the record it takes the place of, or that has
//     none, is linked with its latch held, and shown only if the clock, read after
//     that, says that it has come in time; else it becomes a tombstone, and its
//     operation starts over. Where a record is changed in place, the clock is read
//     under its latch.
//
// Put, Compare-and-swap clear an expiry unless they bring one; Add, Append and
// Update keep the one that is there.

// MaxTTL is the longest time to live in ms, 8,900 years.
const MaxTTL = 1<<48 - 1

// contents is what a record says about its key.
type contents struct {
	value  []byte
	kind   record.Kind
	expiry int64 // ms since 1970; 0: none
	// deadline is when it is too late to show the content, in ms since 1970; 0:
	// never. See above.
	deadline int64
}

// size is how many bytes the record takes.
func (c *contents) size(keyLen int) int {
	n := len(c.value)
	if c.expiry != 0 {
		n += record.ExpirySize
	}
	return record.SizeFor(keyLen, n)
}

// flags are those of word 1.
func (c *contents) flags() uint64 {
	if c.expiry != 0 {
		return record.Expiry
	}
	return 0
}

func (c *contents) word1() uint64 { return record.Word1(c.kind, len(c.value), c.flags()) }

// now is the clock as of some moment of the present section, or of the last.
func (s *Session) now() int64 {
	if s.clock == 0 {
		s.clock = s.store.clock.fresh()
	}
	return s.clock
}

// late reports whether a deadline has passed by now.
func (s *Session) late(deadline int64) bool {
	if deadline == 0 {
		return false
	}
	s.clock = s.store.clock.fresh()
	return s.clock >= deadline
}

// expiryAt is the expiry of a record in memory whose word 1 was seen as w1; 0 if
// it has none.
func expiryAt(at *place, w1 uint64) int64 {
	if w1&record.Expiry == 0 {
		return 0
	}
	return record.LoadExpiry(at.ptr, at.w0)
}

// dead reports whether the record found in memory, its word 1 w1, is a tombstone
// or has expired. The caller looks whether w1 still is its word before he believes
// it. A mark of the sweep alone does not say so: whoever links a newer record sets it
// too, and one who had found this one before that answers with it, or finds out where
// he links his own. But where the sweeper has set it, his clock counts, which may be
// later than what the section has looked at.
func (s *Session) dead(at *place, w1 uint64) bool {
	if record.KindOf(w1) == record.Tombstone {
		return true
	}
	if w1&record.Expiry == 0 {
		return false
	}
	if w1&record.Swept != 0 {
		s.clock = s.store.clock.fresh()
	}
	return s.past(record.LoadExpiry(at.ptr, at.w0))
}

// past reports whether an expiry, 0 for none, has passed.
func (s *Session) past(expiry int64) bool {
	if expiry == 0 || expiry > s.now() {
		return false
	}
	s.tally.expired++
	return true
}

// takeCount takes the count of the key over from the record at this place, frozen,
// of which a newer one has just been linked, and reports whether it was there: see
// sweeper.go.
func (s *Session) takeCount(at *place) bool {
	w1 := record.Load1(at.ptr)
	if w1&record.Expiry == 0 {
		return true
	}
	return at.addr >= s.store.log.Flushed() || record.Sweep(at.ptr)
}

// noteExpiry notes that so many bytes of records with an expiry have come, or gone;
// timer is whether one is to be set for the record at a.
func (s *Session) noteExpiry(a record.Addr, expiry, bytes int64, timer bool) {
	s.notes = append(s.notes, expiryNote{a, expiry, bytes, timer})
}

// noteChange notes what changes when a record in memory, its word 1 w1, which the
// caller has latched, gets other contents in place. A timer that comes too early
// will do: it is set again.
func (s *Session) noteChange(at *place, w1 uint64, c *contents) {
	before := expiryAt(at, w1)
	if before != 0 {
		s.noteExpiry(at.addr, before, -s.weightOfRecord(at, w1), false)
	}
	if c.expiry != 0 {
		runs := before > s.now() && before <= c.expiry && record.KindOf(w1) != record.Tombstone
		s.noteExpiry(at.addr, c.expiry, int64(record.Size(at.w0, w1)), !runs)
	}
}

// contentOf is what the op makes of its key: value, if v says so. seen is what it
// has relied on.
func (s *Session) contentOf(op *Op, seen *observation, value []byte, v Verdict) contents {
	c := contents{value: value, kind: record.Value}
	switch {
	case v == Remove:
		// An UpdateFunc may have answered a value with it.
		return contents{kind: record.Tombstone}
	case op.Kind == OpExpire:
		c.kind = seen.kind
	}
	switch {
	case op.expiry != 0:
		c.expiry = op.expiry
	case op.TTL != 0:
		c.expiry = s.now() + op.TTL
	case op.keepsExpiry():
		c.expiry = seen.expiry
	}
	if seen.expiry != 0 && (c.expiry == 0 || c.expiry > seen.expiry) {
		c.deadline = seen.expiry
	}
	return c
}

// keepsExpiry reports whether the op leaves the expiry of its key what it is, if it
// does not bring one.
func (o *Op) keepsExpiry() bool {
	switch o.Kind {
	case OpAdd, OpAppend, OpUpdate, opMoveChunk:
		return true
	}
	return false
}

// ttlOf is the answer of an OpTTL for a key that is there.
func (s *Session) ttlOf(expiry int64) int64 {
	if expiry == 0 {
		return -1
	}
	return max(expiry-s.now(), 1)
}
