package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"rskv/engine/internal/manifest"
	"rskv/engine/internal/ordered"
	"rskv/engine/internal/record"
)

// order keeps the ordered index of a store that has one (Options.Ordered): the set
// of the live keys, in memory, in their order. See package ordered for the set.
//
// What holds is that no live key is missing. It may hold others for a while, so who
// reads it asks for each key whether it is there.
//
//   - Who brings a key to life adds it first, in the section in which he links the
//     record: where the chain has no record of the key, or one that is not live, or
//     goes on on disk, or one with an expiry, which may not be live any more when
//     somebody else looks. What is known to be live is there already.
//   - Who has deleted a key, or added it in vain, puts it in doubt, as do scans that
//     have not found it and compaction when it lets go of a tombstone or of what has
//     expired. The task "order" removes it if the store says so.
//   - Open fills it from the whole log: all keys of values, and those of tombstones
//     and of what has expired in doubt, since pages are looked at in any order.
//
// It is not on disk. Its memory is taken from the log's in steps, by the task, before
// it is needed; a key for which there is none is refused with ErrIndexFull.
type order struct {
	store *Store
	tree  *ordered.Tree // nil: the store has no order; immutable after Open
	task  taskRef
	idle  look
	room  broadcast   // more memory was allowed, or will not be
	full  atomic.Bool // no more will be, as things are

	// Owned by the task's step.
	session  *Session
	suspects ordered.Keys
	ops      []Op
	asking   bool
	drain    grace // of those who may be adding suspects
}

const (
	// orderPart of orderWhole of the memory is the most for the ordered index;
	// together with the index it may have bothPart.
	orderPart  = 5
	bothPart   = 6
	orderWhole = 8
	// orderStep is the least memory in bytes that it takes at a time, orderSteps
	// the share of what it has.
	orderStep  = 1 << 20
	orderSteps = 16
	// orderAhead is how much is allowed ahead of its use, at least. Half of it is
	// more than what one key can take.
	orderAhead = 1 << 20
	// orderSuspects is how many keys are looked up at a time, orderPoll how long the
	// task rests when none is in doubt.
	orderSuspects = 256
	orderPoll     = 250 * time.Millisecond
)

// open reserves the memory of the ordered index, and fills it from a recovered log.
func (o *order) open(s *Store, m *manifest.Manifest) (err error) {
	o.store = s
	if !s.opt.Ordered {
		return nil
	}
	most := s.opt.Memory * orderPart / orderWhole
	if o.tree, err = ordered.New(s.epoch, most); err != nil {
		return err
	}
	s.memory.index.Store(indexBytes(int(s.index.Bits())))
	o.tree.Allow(o.share())
	begin := s.opt.Clock.Monotonic()
	records, err := o.fill(m)
	if err != nil {
		return fmt.Errorf("ordered index: %w", err)
	}
	st := o.tree.Stats()
	o.claim(st.Taken + orderAhead)
	if records > 0 {
		s.opt.Logger.Info("ordered index filled", slog.Int64("keys", st.Keys), slog.Int64("bytes", st.Taken), slog.Uint64("records", records),
			slog.Duration("took", time.Duration(s.opt.Clock.Monotonic()-begin)))
	}
	return nil
}

// fill adds the keys of the log.
func (o *order) fill(m *manifest.Manifest) (records uint64, err error) {
	for _, span := range m.Spans {
		if span.Start == span.End || span.End <= m.Begin {
			continue
		}
		res, err := o.store.orderPass(m, span, max(span.Start, m.Begin))
		if err != nil {
			return records, err
		}
		if records += res.records; res.why != nil && res.at < span.End {
			return records, corrupt("log", res.at, res.why)
		}
	}
	return records, nil
}

// share is how many bytes the ordered index may have now.
func (o *order) share() int64 {
	s := o.store
	return min(s.memory.budget.Load()*orderPart/orderWhole, s.bothShare()-s.memory.index.Load(), o.tree.Stats().Reserved)
}

// bothShare is how many bytes both indexes may have.
func (s *Store) bothShare() int64 { return s.memory.budget.Load() * bothPart / orderWhole }

// claim takes memory from the budget, so many bytes in all, as far as the share goes.
func (o *order) claim(bytes int64) {
	share := o.share()
	// What it has been given it keeps, though the share may have become smaller.
	grant := max(min(bytes, share), o.tree.Stats().Taken)
	o.store.memory.order.Store(grant)
	o.tree.Allow(grant)
	o.full.Store(bytes >= share)
}

// start starts the task.
func (o *order) start() {
	if o.tree == nil {
		return
	}
	s := o.store
	o.session = s.NewSession()
	o.session.mover = true
	o.session.notify = o.task.Wake
	o.task.set(s.opt.Runner.Start(string(TaskOrder), s.tasks.timed(TaskOrder, o.step)))
}

// stop ends the task.
func (o *order) stop() {
	if o.tree != nil {
		o.task.Stop()
		o.session.Close()
	}
}

// free gives the memory back.
func (o *order) free() error {
	if o.tree == nil {
		return nil
	}
	return o.tree.Free()
}

// ahead is how much should be allowed ahead of its use.
func (o *order) ahead() int64 { return max(orderAhead, o.store.memory.order.Load()/(2*orderSteps)) }

// low reports whether more has to be allowed soon.
func (o *order) low() bool { return o.tree.Wants(orderAhead / 2) }

// mayGrow reports whether the index has memory, or may get more.
func (o *order) mayGrow() bool { return !o.full.Load() || !o.low() }

// step is one step of the task: it sees to the memory, then to keys in doubt.
func (o *order) step() time.Duration {
	if !o.task.ready() {
		return time.Millisecond // Open is still starting the tasks
	}
	o.grow()
	switch {
	case o.asking:
		return o.ask()
	case o.suspects.Len() > 0:
		return o.lookUp()
	}
	if o.within(func() { o.tree.Suspects(&o.suspects, orderSuspects, scanWindowMin) }); o.suspects.Len() > 0 {
		o.drain.begin(o.store, &o.task)
		return 0
	}
	more := false
	if o.within(func() { more = o.tree.Tidy() }); more {
		return 0
	}
	return o.idle.after(o.store, restOrder, orderPoll)
}

// within runs f in a section.
func (o *order) within(f func()) {
	if o.session.enter(false) == nil {
		f()
		o.session.exit()
	}
}

// grow allows more memory before it is needed.
func (o *order) grow() {
	if !o.tree.Wants(o.ahead()) {
		o.full.Store(false)
		return
	}
	s := o.store
	have := s.memory.order.Load()
	o.claim(have + max(orderStep, have/orderSteps))
	if s.memory.order.Load() != have {
		if err := s.resizeLog(); err != nil {
			s.opt.Logger.Warn("log keeps memory from the ordered index", slog.Any("error", err))
		}
	}
	o.room.wake()
}

// lookUp asks the store for the suspects, when everybody has left who may have been
// adding one.
func (o *order) lookUp() time.Duration {
	if !o.drain.over() {
		return -1
	}
	o.ops = o.ops[:0]
	for i := range o.suspects.Len() {
		o.ops = append(o.ops, Op{Kind: OpExists, Key: o.suspects.At(i), Tag: uint64(i)})
	}
	o.asking = true
	o.session.Start(o.ops)
	for i := range o.ops {
		if !o.ops[i].Pending() {
			o.settle(&o.ops[i])
		}
	}
	return 0
}

// ask goes on with what waits for the disk.
func (o *order) ask() time.Duration {
	if o.session.Complete(o.settle) > 0 {
		return -1
	}
	o.asking = false
	o.suspects.Reset()
	return 0
}

// settle ends the doubt about one key. Where nobody can say, it stays.
func (o *order) settle(op *Op) {
	live := op.Found || op.Err != nil
	for st := ordered.Again; st == ordered.Again; {
		if o.session.enter(false) != nil {
			return
		}
		st = o.tree.Settle(op.Key, live)
		o.session.exit()
		if st == ordered.Again {
			o.session.pause()
		}
	}
}

// linkInOrder is link, with the ordered index kept in step.
func (s *Session) linkInOrder(key []byte, c *contents, at *place, counted bool) (out outcome, ok bool) {
	tree, added := s.store.order.tree, false
	if c.kind != record.Tombstone {
		w1 := uint64(0)
		if at.kind == inMemory {
			w1 = record.Load1(at.ptr)
		}
		if added, out = s.revive(key, at, w1); out != finished {
			return out, false
		}
	}
	out, ok = s.link(key, c, at, counted)
	if ok && c.kind == record.Tombstone || out == tooLate || !ok && added {
		tree.Doubt(key)
	}
	return out, ok
}

// revive adds a key to the ordered index before it comes to life, if it may not be
// live: w1 is the word of its record in memory, if there is one. added tells whether
// the index had it not.
func (s *Session) revive(key []byte, at *place, w1 uint64) (added bool, out outcome) {
	if s.mover || at.kind == inMemory && record.KindOf(w1) != record.Tombstone && w1&record.Expiry == 0 {
		return false, finished
	}
	o := &s.store.order
	added, st := o.tree.Insert(key)
	if added && o.low() && !o.full.Load() {
		o.task.Wake()
	}
	switch st {
	case ordered.Again:
		return false, again
	case ordered.NoMemory:
		return false, noNodes
	}
	return added, finished
}

// waitNodes waits until the ordered index may have got memory.
func (s *Session) waitNodes() {
	o := &s.store.order
	room := o.room.wait()
	if o.low() && o.mayGrow() && !s.store.closed.Load() {
		o.task.Wake()
		s.store.opt.Runner.Wait(room)
	}
}

// doubtDead puts the key of a record in doubt that compaction lets go of.
func (s *Session) doubtDead(key []byte) {
	if tree := s.store.order.tree; tree != nil && s.enter(false) == nil {
		tree.Doubt(key)
		s.exit()
	}
}

// errOrderMemory ends the filling of an ordered index that would not fit.
var errOrderMemory = errors.New("no memory for the keys")
