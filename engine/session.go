package engine

import (
	"fmt"
	"sync"
	"sync/atomic"

	"rskv/engine/internal/epoch"
	"rskv/engine/internal/record"
)

// Session is one caller's way into the store. It is used by one goroutine at a
// time; only Ready may be used from anywhere. Operations of one session on the
// same key take effect in the order given, whatever waits for the disk.
type Session struct {
	store *Store
	slot  *epoch.Slot

	// The log's markers as this section saw them at its start.
	mem     record.Addr // lowest address to be found in memory
	begin   record.Addr
	ro      record.Addr
	safeRO  record.Addr
	writing bool
	clock   int64 // ms since 1970, read in this section when first asked for; 0: not yet
	notes   []expiryNote
	live    int64 // keys this section added, less those it removed
	bytes   int64 // log they take, see weigh
	tally   tally // what this section did, for the statistics
	work    work

	pipe      pipe
	allotted  allotment // empty outside of a section
	fitCredit int       // bytes that fillers before its records may take, see placement.go
	span      uintptr   // bytes of a record to ask for ahead, from the last one met
	arena     []byte    // answers of OpGet until the next Start or Complete
	old       []byte    // present value of a read-modify-write
	next      []byte    // its new value
	plan      plan
	mark      uint64 // record.Moved while compaction writes a large value anew, else 0

	// unlinked is 0 or an address at or below the chunks that this session has
	// written and not linked yet. Atomic; written by the owner, read by compaction.
	unlinked   atomic.Uint64
	chunkTries int // how often the op under way has given chunks up

	queue    waitQueue
	ordered  bool
	ledger   *Ledger // counts this session's writes; nil: nobody does
	counted  uint64  // highest Number done in this section
	back     bool    // Do is running: answers go back into the caller's ops
	mover    bool    // compaction's own, or a scan's: it may use the reserve, and asks what users cannot
	forwards bool    // the forwarder's own
	notify   func()  // called, if set, where Ready receives a value

	space <-chan struct{} // of the log, taken before the last attempt to append, or nil

	single [1]Op // of the methods for one operation

	inbox struct {
		sync.Mutex
		reads []*readOp // finished reads; guarded by the mutex
		spare []*readOp
	}
	ready  chan struct{} // capacity 1
	turn   int           // what it has done since it let others go first, see rest.go
	closed bool
	admit  func(n int) error // see Admit; nil: all
}

// NewSession returns a session; Close gives it back.
func (s *Store) NewSession() *Session {
	n := &Session{store: s, span: cacheLine, slot: s.epoch.Register(), ready: make(chan struct{}, 1)}
	n.queue.init()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.sessions[n] = struct{}{}
	return n
}

// SetOrdered makes the session's writes take effect in the order given even
// where one of them waits for the disk: the ones behind it wait with it. Reads
// pass. It must be called before the first operation.
func (s *Session) SetOrdered(on bool) { s.ordered = on }

// Attach makes the session write for a ledger: its writes take effect in order,
// and when an op with a Number is done, everything up to that number counts as
// done, in the commit group that holds its effect. It must be called before the
// first operation.
func (s *Session) Attach(l *Ledger) {
	s.ledger = l
	s.ordered = true
}

// Admit has fn asked before a large value, of n bytes, is fetched for an OpGet. An
// error it returns is the op's, and the value is not fetched: so a caller that has
// no room for it spares the work. fn is called by Start and Complete and may not
// use the session.
func (s *Session) Admit(fn func(n int) error) { s.admit = fn }

// Pending is the number of operations that are not finished.
func (s *Session) Pending() int { return s.queue.count }

// Ready receives a value when Complete may have something to do.
func (s *Session) Ready() <-chan struct{} { return s.ready }

// Close waits for pending operations and releases the session. Their answers
// are lost, their effects are not.
func (s *Session) Close() {
	if s.closed {
		return
	}
	s.wait(func(*Op) {})
	for s.queue.inFlight > 0 {
		// Reads that were given up still hold staging memory.
		s.store.opt.Runner.Wait(s.ready)
		s.complete(nil)
	}
	s.flush(nil)
	s.closed = true
	s.slot.Release()
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	delete(s.store.mu.sessions, s)
	s.store.mu.worked.add(&s.work)
}

// enter begins a section and reads the markers. It may wait at the door.
func (s *Session) enter(write bool) error {
	st := s.store
	for {
		s.slot.Enter()
		if st.closed.Load() {
			s.slot.Exit()
			return ErrClosed
		}
		if !write || s.slot.BeginWrite() {
			break
		}
		s.slot.Exit()
		st.epoch.Door().Wait()
	}
	s.writing, s.clock = write, 0
	s.begin = st.log.Begin()
	s.mem = max(st.log.Head(), s.begin, record.FirstAddr)
	frozen := st.log.Frozen()
	s.ro = max(st.log.ReadOnly(), frozen)
	s.safeRO = max(st.log.SafeReadOnly(), frozen)
	return nil
}

// exit ends the section. What it counted is published before the door can close.
func (s *Session) exit() {
	s.endAllotment()
	if s.live != 0 {
		s.store.live.Add(s.live)
		s.live = 0
	}
	if s.bytes != 0 {
		s.store.liveBytes.Add(s.bytes)
		s.bytes = 0
	}
	s.slot.Exit()
	if len(s.notes) > 0 {
		s.store.sweep.note(s.notes)
		s.notes = s.notes[:0]
	}
	if s.counted != 0 && s.ledger != nil {
		s.ledger.count(s.counted)
	}
	s.counted = 0
	if s.writing {
		s.writing = false
		s.slot.EndWrite()
		s.wrote()
	}
}

// leave ends a writer's section that has changed nothing for which those who rest
// would have to be woken.
func (s *Session) leave() {
	s.slot.Exit()
	s.writing = false
	s.slot.EndWrite()
}

// count makes sure that an op that is done has been counted. Effects are counted
// in their own section, before the door; this is for those that had none.
func (s *Session) count(op *Op) {
	if op.Number != 0 && s.ledger != nil {
		s.ledger.count(op.Number)
	}
}

// pause lets others go on, outside of any section.
func (s *Session) pause() { s.store.opt.Runner.Yield() }

// waitSpace waits until the log may have room for a new page. What it waits for may
// have come between the attempt that failed and the call: the first one comes back
// at once, for an attempt that is made with the channel in hand.
func (s *Session) waitSpace() {
	if !s.store.log.Ready() {
		if s.space == nil {
			s.space = s.store.log.Space()
			return
		}
		space := s.space
		s.space = nil
		s.store.stats.spaceWaits.Add(1)
		s.store.opt.Runner.Wait(space)
		return
	}
	room := s.store.room.wait()
	if s.store.room.closed.Load() && !s.store.room.full.Load() && !s.mover && !s.store.closed.Load() {
		s.store.stats.spaceWaits.Add(1)
		s.store.opt.Runner.Wait(room)
	}
}

// signal tells the owner that Complete has something to do.
func (s *Session) signal() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
	if s.notify != nil {
		s.notify()
	}
}

// wait completes everything that is pending.
func (s *Session) wait(fn func(*Op)) {
	for s.Complete(fn) > 0 {
		s.store.opt.Runner.Wait(s.ready)
	}
}

// Do runs a batch and waits for all of it. Answers stay valid until the next call.
func (s *Session) Do(ops []Op) {
	if s.queue.count != 0 {
		panic(fmt.Sprintf("engine: Do on a session with %d operations pending", s.queue.count))
	}
	s.back = true
	if s.Start(ops) > 0 {
		for s.complete(nil) > 0 {
			s.store.opt.Runner.Wait(s.ready)
		}
	}
	s.back = false
}

// one runs a single op, in memory that belongs to the session.
func (s *Session) one(op *Op) error {
	s.single[0] = *op
	s.Do(s.single[:])
	*op = s.single[0]
	s.single[0] = Op{}
	return op.Err
}

// Get returns the value of key in dst[:0], grown if need be, or ErrNotFound.
// Without dst the value may be in memory of the session, valid until its next call.
func (s *Session) Get(key, dst []byte) ([]byte, error) {
	if v, ok := s.getHot(key, dst); ok {
		return v, nil
	}
	op := Op{Kind: OpGet, Key: key, Value: dst}
	if err := s.one(&op); err != nil {
		return nil, err
	}
	if !op.Found {
		return nil, ErrNotFound
	}
	return op.Value, nil
}

// Exists says whether key is there.
func (s *Session) Exists(key []byte) (bool, error) {
	op := Op{Kind: OpExists, Key: key}
	err := s.one(&op)
	return op.Found, err
}

// Put stores value under key.
func (s *Session) Put(key, value []byte) error {
	return s.one(&Op{Kind: OpPut, Key: key, Value: value})
}

// PutIf stores value under key if cond holds, and says whether it did.
func (s *Session) PutIf(key, value []byte, cond Cond) (bool, error) {
	op := Op{Kind: OpPut, If: cond, Key: key, Value: value}
	err := s.one(&op)
	return op.Found, err
}

// Expire gives key ttl ms to live from now on, or with 0 takes its expiry away. It
// says whether the key was there.
func (s *Session) Expire(key []byte, ttl int64) (bool, error) {
	op := Op{Kind: OpExpire, Key: key, TTL: ttl}
	err := s.one(&op)
	return op.Found, err
}

// TTL returns how many ms key has left, -1 if it has no expiry, or ErrNotFound.
func (s *Session) TTL(key []byte) (int64, error) {
	op := Op{Kind: OpTTL, Key: key}
	if err := s.one(&op); err != nil {
		return 0, err
	}
	if !op.Found {
		return 0, ErrNotFound
	}
	return op.Int, nil
}

// Delete removes key and says whether it was there.
func (s *Session) Delete(key []byte) (bool, error) {
	op := Op{Kind: OpDelete, Key: key}
	err := s.one(&op)
	return op.Found, err
}

// CompareAndSwap replaces old by value if old is the present value; a nil old
// stands for an absent key, a nil value deletes. It says whether it did.
func (s *Session) CompareAndSwap(key, old, value []byte) (bool, error) {
	op := Op{Kind: OpCompareAndSwap, Key: key, Old: old, Value: value, OldAbsent: old == nil, NewAbsent: value == nil}
	err := s.one(&op)
	return op.Found, err
}

// Add adds delta to the counter under key and returns the sum.
func (s *Session) Add(key []byte, delta int64) (int64, error) {
	op := Op{Kind: OpAdd, Key: key, Delta: delta}
	err := s.one(&op)
	return op.Int, err
}

// Append appends suffix to the value of key and returns the new length.
func (s *Session) Append(key, suffix []byte) (int64, error) {
	op := Op{Kind: OpAppend, Key: key, Value: suffix}
	err := s.one(&op)
	return op.Int, err
}

// Update changes the value of key by fn, see OpUpdate.
func (s *Session) Update(key []byte, fn UpdateFunc) error {
	return s.one(&Op{Kind: OpUpdate, Key: key, Fn: fn})
}
