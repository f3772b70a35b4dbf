package iotest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"rskv/ioring"
)

// Rule makes operations go wrong. The first rule that matches an op applies to
// it; an op that no rule matches goes through untouched.
type Rule struct {
	// Kind of the ops; zero means all.
	Kind ioring.OpKind
	// Match chooses among them; k counts the ops of this kind since the rule was
	// made, from 1. Nil matches all.
	Match func(op *ioring.Op, k int) bool

	// Err is the error of the op. Unless Transfer is set the op has no effect.
	Err error
	// Transfer bytes are moved, rounded down to the device's alignment, and then
	// the op fails with Err, or with ErrShort if that is nil.
	Transfer int
	// Torn writes a run of the op's units of alignment, drawn from the seed, and
	// then the op fails with Err, or with ErrShort if that is nil. Writes only.
	Torn bool
	// Flip turns one bit, drawn from the seed, of what was read. The op succeeds.
	Flip bool
	// Delay holds the answer back for that time.
	Delay time.Duration
	// Until holds the answer back until it is closed; nil does not.
	Until <-chan struct{}
}

// Nth matches the k-th op, counted from 1.
func Nth(k int) func(*ioring.Op, int) bool {
	return func(_ *ioring.Op, n int) bool { return n == k }
}

// From matches the k-th op and all after it.
func From(k int) func(*ioring.Op, int) bool {
	return func(_ *ioring.Op, n int) bool { return n >= k }
}

// Covering matches ops that touch the byte at an address.
func Covering(address int64) func(*ioring.Op, int) bool {
	return func(op *ioring.Op, _ int) bool {
		return op.Kind != ioring.Sync && op.Off <= address && address < op.Off+int64(len(op.Buf))
	}
}

// Fault is a device that lets another one do the work and makes it go wrong by
// rules. With no rules it keeps the contract of the device inside. As on a real
// device, a failed Sync is final.
type Fault struct {
	ioring.Device // the device inside; Close closes it

	mu struct {
		sync.Mutex
		rules    []*activeRule
		rng      *rand.Rand
		window   int       // answers held back for reordering, at most
		held     []*answer // waiting for others to overtake them
		inside   int       // ops that the device inside has
		open     int       // ops between Submit and the end of Done
		failed   error     // a sync failed; final
		meta     error     // what changes of metadata fail with
		write    countdown // to a Write of a metadata stream
		commit   countdown // to a Commit of one
		closed   bool
		injected ioring.Counters // what the device inside does not know of
	}
	idle sync.Cond // open is zero
}

type activeRule struct {
	Rule
	seen int
}

// answer is an op on its way back.
type answer struct {
	outer *ioring.Op
	inner ioring.Op // what the device inside does instead
	rule  *Rule     // nil: untouched
	err   error     // replaces the outcome if set
	n     int       // bytes, with err
}

// NewFault wraps a device. All random choices come from seed.
func NewFault(inside ioring.Device, seed uint64) *Fault {
	f := &Fault{Device: inside}
	f.mu.rng = rand.New(rand.NewPCG(seed, 2))
	f.idle.L = &f.mu
	return f
}

// Inject adds a rule behind the others and returns what takes it away again.
func (f *Fault) Inject(rule Rule) (remove func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	active := &activeRule{Rule: rule}
	f.mu.rules = append(f.mu.rules, active)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for i, r := range f.mu.rules {
			if r == active {
				f.mu.rules = append(f.mu.rules[:i:i], f.mu.rules[i+1:]...)
				return
			}
		}
	}
}

// Reorder holds up to window answers back and gives them in random order. All
// are given as soon as the device inside has nothing left to do, so nobody waits
// for ever. Zero stops it.
func (f *Fault) Reorder(window int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.window = window
}

// FailMeta makes every change of metadata, and every step of a stream but Abort,
// fail with err and without any effect, until it is called with nil.
func (f *Fault) FailMeta(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.meta = err
}

// WriteMeta implements ioring.Device.
func (f *Fault) WriteMeta(name string, data []byte) error {
	if err := f.metaError(); err != nil {
		return err
	}
	return f.Device.WriteMeta(name, data)
}

// RemoveMeta implements ioring.Device.
func (f *Fault) RemoveMeta(name string) error {
	if err := f.metaError(); err != nil {
		return err
	}
	return f.Device.RemoveMeta(name)
}

func (f *Fault) metaError() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.meta != nil {
		f.mu.injected.Errors++
		return fmt.Errorf("iotest: injected: %w", f.mu.meta)
	}
	return f.mu.failed
}

// Submit implements ioring.Device.
func (f *Fault) Submit(ops []*ioring.Op) {
	ioring.MustBeOps(ops)
	var inside []*ioring.Op
	var refused []*answer
	f.mu.Lock()
	f.mu.open += len(ops)
	for _, op := range ops {
		a := f.planLocked(op)
		if len(a.inner.Buf) == 0 && a.err != nil { // nothing to be done inside
			refused = append(refused, a)
			continue
		}
		a.inner.Done = func(*ioring.Op) { f.done(a) }
		inside = append(inside, &a.inner)
		f.mu.inside++
	}
	f.mu.Unlock()
	for _, a := range refused {
		f.deliver(a)
	}
	f.Device.Submit(inside)
}

// planLocked decides what becomes of an op.
func (f *Fault) planLocked(op *ioring.Op) *answer {
	a := &answer{outer: op, inner: ioring.Op{Kind: op.Kind, Off: op.Off, Buf: op.Buf}}
	if f.mu.closed {
		return a // the device inside refuses it
	}
	if f.mu.failed != nil && op.Kind != ioring.Read {
		return f.refuseLocked(a, f.mu.failed)
	}
	a.rule = f.matchLocked(op)
	if a.rule == nil || op.Kind != ioring.Sync && ioring.CheckOp(op, f.Align(), f.SegmentSize()) != nil {
		return a
	}
	fails := a.rule.Err != nil || a.rule.Transfer > 0 || a.rule.Torn
	if !fails {
		return a // only late, or flipped on its way back
	}
	err := a.rule.Err
	if err == nil {
		err = ioring.ErrShort
	}
	err = fmt.Errorf("iotest: injected: %w", err)
	if op.Kind == ioring.Sync {
		f.mu.failed = fmt.Errorf("%w: %w", ioring.ErrSyncFailed, err)
		err = f.mu.failed
	}
	f.refuseLocked(a, err)
	f.partLocked(a)
	return a
}

// refuseLocked makes a fail without any effect.
func (f *Fault) refuseLocked(a *answer, err error) *answer {
	a.err, a.inner.Buf = err, nil
	f.mu.injected.Errors++
	return a
}

// partLocked gives a failing op the part of its effect that the rule grants.
func (f *Fault) partLocked(a *answer) {
	unit := f.Align().Offset
	op := a.outer
	switch {
	case op.Kind == ioring.Sync:
	case a.rule.Transfer > 0:
		a.n = min(a.rule.Transfer, len(op.Buf)) / unit * unit
		a.inner.Buf = op.Buf[:a.n]
	case a.rule.Torn && op.Kind == ioring.Write:
		units := len(op.Buf) / unit
		from := f.mu.rng.IntN(units)
		until := from + f.mu.rng.IntN(units-from+1)
		a.inner.Off += int64(from * unit)
		a.inner.Buf = op.Buf[from*unit : until*unit]
	}
}

// matchLocked finds the first rule for op; all rules count it.
func (f *Fault) matchLocked(op *ioring.Op) *Rule {
	var found *Rule
	for _, r := range f.mu.rules {
		if r.Kind != 0 && r.Kind != op.Kind {
			continue
		}
		r.seen++
		if found == nil && (r.Match == nil || r.Match(op, r.seen)) {
			found = &r.Rule
		}
	}
	return found
}

// done takes the answer of the device inside. It is given at once, late, or
// after others that came later.
func (f *Fault) done(a *answer) {
	f.mu.Lock()
	f.mu.inside--
	f.mu.held = append(f.mu.held, a)
	var ready []*answer
	for len(f.mu.held) > f.mu.window || f.mu.inside == 0 && len(f.mu.held) > 0 {
		i := f.mu.rng.IntN(len(f.mu.held))
		ready = append(ready, f.mu.held[i])
		f.mu.held = append(f.mu.held[:i], f.mu.held[i+1:]...)
	}
	f.mu.Unlock()
	for _, a := range ready {
		switch {
		case a.rule != nil && a.rule.Until != nil:
			go func() {
				<-a.rule.Until
				f.deliver(a)
			}()
		case a.rule != nil && a.rule.Delay > 0:
			time.AfterFunc(a.rule.Delay, func() { f.deliver(a) })
		default:
			f.deliver(a)
		}
	}
}

// deliver gives the op back to its owner.
func (f *Fault) deliver(a *answer) {
	op := a.outer
	switch {
	case a.err != nil:
		op.N, op.Err = a.n, a.err
		if a.inner.Err != nil {
			op.N = a.inner.N
		}
	default:
		op.N, op.Err = a.inner.N, a.inner.Err
		if a.rule != nil && a.rule.Flip && op.Kind == ioring.Read && op.Err == nil {
			f.mu.Lock()
			bit := f.mu.rng.IntN(8 * len(op.Buf))
			f.mu.Unlock()
			op.Buf[bit/8] ^= 1 << (bit % 8)
		}
		if op.Kind == ioring.Sync && errors.Is(op.Err, ioring.ErrSyncFailed) {
			f.mu.Lock()
			f.mu.failed = op.Err
			f.mu.Unlock()
		}
	}
	op.Done(op)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.open--; f.mu.open == 0 {
		f.idle.Broadcast()
	}
}

// Info implements ioring.Device.
func (f *Fault) Info() ioring.Info {
	info := f.Device.Info()
	info.Backend = "fault(" + info.Backend + ")"
	return info
}

// Counters implements ioring.Device: those of the device inside, and the errors
// it does not know of.
func (f *Fault) Counters() ioring.Counters {
	c := f.Device.Counters()
	f.mu.Lock()
	defer f.mu.Unlock()
	c.Errors += f.mu.injected.Errors
	c.InFlight = int64(f.mu.open)
	return c
}

// Close implements ioring.Device.
func (f *Fault) Close() error {
	f.mu.Lock()
	f.mu.closed = true
	f.mu.Unlock()
	err := f.Device.Close() // waits for every inner op, and so empties held
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.mu.open > 0 {
		f.idle.Wait()
	}
	return err
}
