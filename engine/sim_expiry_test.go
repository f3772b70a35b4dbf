package engine

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"time"
)

// simExpiring is what is known of a key that expires, in the present life. It is
// written and read by the chore "expire" only.
type simExpiring struct {
	name  []byte
	value []byte
	from  int64 // clock at which it expires at the earliest, ms since 1970; 0: never
	until int64 // at the latest
	gone  bool  // it was seen to have expired, or was deleted
}

const simExpiringKeys = 24

// expire writes keys with a time to live, and reads them now and then: one is there
// when its time has passed, is gone before, comes back, or has another's value. Values
// are of any size, so that some are read from the disk, and from the read cache.
func (l *simLife) expire(rng *rand.Rand) {
	n := l.store.NewSession()
	defer n.Close()
	keys := make([]*simExpiring, simExpiringKeys) // nil: nothing is known of it
	now := l.store.clock.now
	for step := range 20 + rng.IntN(100) {
		if l.over() {
			return
		}
		i := rng.IntN(simExpiringKeys)
		k, before := keys[i], now()
		op := Op{Key: fmt.Appendf(nil, "expires %d", i)}
		switch x := rng.IntN(100); {
		case x < 35 || k == nil:
			op.Kind, op.Value = OpPut, valueOf(uint64(i), rng.Uint64(), 1+rng.IntN(1<<rng.IntN(15)))
			op.TTL = rng.Int64N(1 << rng.IntN(13))
			k = &simExpiring{name: op.Key, value: op.Value}
		case x < 45:
			op.Kind, op.TTL = OpExpire, rng.Int64N(1<<rng.IntN(13))
		case x < 50:
			op.Kind = OpDelete
		case x < 60:
			op.Kind = OpTTL
		default:
			op.Kind = OpGet
		}
		given := op
		keys[i] = nil
		if err := n.one(&op); err != nil {
			if l.judge("expire", err) != nil {
				continue // whether it has been done is not known
			}
		}
		if err := k.judge(&given, &op, before, now()); err != nil {
			l.w.Fail(fmt.Errorf("step %d, %s, kind %d, clock %d to %d: %w", step, op.Key, op.Kind, before, now(), err))
		}
		keys[i] = k
		if rng.IntN(5) == 0 {
			l.w.Sleep(time.Duration(rng.Int64N(int64(time.Millisecond) << rng.IntN(12))))
		}
	}
}

// judge compares an answer that was given between two times of the clock with what is
// known of the key, and notes what follows.
func (k *simExpiring) judge(given, op *Op, before, after int64) error {
	if given.Kind == OpPut {
		k.expires(given.TTL, before, after)
		return nil
	}
	switch {
	case op.Found && k.gone:
		return fmt.Errorf("it is there again")
	case op.Found && k.from != 0 && before >= k.until:
		return fmt.Errorf("it is there, and expired at %d at the latest", k.until)
	case !op.Found && !k.gone && (k.from == 0 || after < k.from):
		return fmt.Errorf("it is gone, and expires at %d at the earliest", k.from)
	case !op.Found:
		k.gone = true
		return nil
	}
	switch given.Kind {
	case OpGet:
		if !bytes.Equal(op.Value, k.value) {
			return fmt.Errorf("%d bytes, want %d", len(op.Value), len(k.value))
		}
	case OpDelete:
		k.gone = true
	case OpExpire:
		k.expires(given.TTL, before, after)
	case OpTTL:
		if k.from == 0 && op.Int != -1 || k.from != 0 && (op.Int < k.from-after || op.Int > k.until-before) {
			return fmt.Errorf("%d ms left, between %d and %d", op.Int, k.from-after, k.until-before)
		}
	}
	return nil
}

// expires notes that the key expires after so many ms, 0 for never, from a moment
// between two times on.
func (k *simExpiring) expires(ttl, before, after int64) {
	if k.from, k.until = 0, 0; ttl != 0 {
		k.from, k.until = before+ttl, after+ttl
	}
}
