package engine

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rskv/engine/internal/record"
)

// A ledger is what makes a client's writes exactly-once across a crash: it
// counts them, and every commit record carries the counts of the ledgers that
// changed. After recovery the count is the number of the last write that is in
// the store: all up to it are, none beyond it is.
//
// The count must belong to the same side of a cut as the effect it counts. So a
// session publishes both before it leaves the door, and the count of a closed
// group stays readable while the next group is already counted:
//
//	group     the commit group of the last count
//	number    the count now
//	closed    the count when the group before that one was cut
//
// Behind the closed door nothing is counted; the committer collects the counts
// after it has opened again, from closed where the next group has begun, from
// number where it has not.
//
// A recovery without a snapshot knows of the ledgers what the commit records say
// that the log still has. So before the log begins later, those that it would
// lose with that are logged again.

const (
	// LedgersDefault is how many ledgers a store keeps unless Options say so.
	LedgersDefault = 4096
	// LedgerExpiryDefault is how long an unused ledger is kept.
	LedgerExpiryDefault = 24 * time.Hour
	// ledgerEntry is the size of a ledger in a commit record in bytes: id,
	// number, time last used.
	ledgerEntry = 32
)

// ErrLedgerUnknown: the ledger has expired, was evicted, or never was.
var ErrLedgerUnknown = errors.New("session is not known any more")

// LedgerID names a ledger. It carries the generation and the version of its
// creation, so that a store can tell one that never committed anything from one
// it has forgotten:
//
//	offset  size  field
//	0       4     generation, big-endian
//	4       6     version, big-endian
//	10      6     random
type LedgerID [16]byte

func newLedgerID(generation, version uint64, random [6]byte) (id LedgerID) {
	binary.BigEndian.PutUint64(id[2:], version&(1<<48-1))
	binary.BigEndian.PutUint32(id[:], uint32(generation))
	copy(id[10:], random[:])
	return id
}

func (id LedgerID) generation() uint64 { return uint64(binary.BigEndian.Uint32(id[:])) }
func (id LedgerID) version() uint64    { return binary.BigEndian.Uint64(id[2:]) & (1<<48 - 1) }

// Ledger counts the writes of one client. One session at a time writes for it.
type Ledger struct {
	id      LedgerID // immutable
	table   *ledgerTable
	applied atomic.Uint64 // = number
	durable atomic.Uint64 // highest number on stable storage

	// guarded by table.mu
	group  uint64
	closed uint64
	logged record.Addr // of the last commit record that holds it; 0: none, or not known
	seen   int64       // wall time in ms
	held   bool        // a client has it
}

// ID is the ledger's name.
func (l *Ledger) ID() LedgerID { return l.id }

// Applied is the number of the last write that is done, in memory at least.
func (l *Ledger) Applied() uint64 { return l.applied.Load() }

// Durable is the number of the last write that is on stable storage.
func (l *Ledger) Durable() uint64 { return l.durable.Load() }

// Release tells that no client uses the ledger any more for now.
func (l *Ledger) Release() {
	l.table.mu.Lock()
	defer l.table.mu.Unlock()
	l.held = false
	l.seen = l.table.wall()
}

// ledgerTable is the ledgers a store knows.
type ledgerTable struct {
	most   int          // immutable
	expiry int64        // ms; immutable
	wall   func() int64 // immutable
	random io.Reader    // immutable

	mu      sync.Mutex
	all     map[LedgerID]*Ledger
	changed [2][]*Ledger  // counted in a group, by its parity
	version atomic.Uint64 // of the last cut; written under mu
	// prior says which ledgers of earlier runs may begin again at 0; no
	// generation: none any more. Guarded by mu.
	prior LedgerHistory
	// forgotten are those of them that have been here since and were forgotten:
	// they may have counted. Guarded by mu; at most forgottenMost.
	forgotten     map[LedgerID]struct{}
	forgottenMost int
}

// forgottenDefault is how many ledgers that began again at 0 are remembered
// after they were forgotten, 16 bytes each. It takes that many clients that were
// cut off by one crash and then gave up.
const forgottenDefault = 64 << 10

// LedgerHistory is what recovery knows about the runs before.
type LedgerHistory struct {
	since   uint64 // generation of the run that made the commit recovered
	until   uint64 // generation of the last run; 0: there was none
	version uint64 // recovered
}

func (t *ledgerTable) init(opt *Options, prior LedgerHistory, version uint64) {
	t.most, t.expiry = opt.Ledgers, opt.LedgerExpiry.Milliseconds()
	t.wall, t.random, t.prior = opt.Clock.Wall, opt.Random, prior
	if t.all == nil {
		t.all = make(map[LedgerID]*Ledger)
	}
	t.forgotten, t.forgottenMost = make(map[LedgerID]struct{}), forgottenDefault
	t.version.Store(version)
}

// NewLedger makes a ledger for a new client. ErrBusy: every one that the store
// may have is in use.
func (s *Store) NewLedger() (*Ledger, error) {
	t := &s.ledgers
	var random [6]byte
	if _, err := io.ReadFull(t.random, random[:]); err != nil {
		return nil, fmt.Errorf("session id: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.all) >= t.most {
		t.sweepLocked()
	}
	if len(t.all) >= t.most && !t.evictLocked() {
		return nil, fmt.Errorf("%w: all %d sessions are in use", ErrBusy, t.most)
	}
	l := &Ledger{table: t, seen: t.wall(), held: true}
	l.id = newLedgerID(s.mu.manifest.Generation, t.version.Load(), random)
	t.all[l.id] = l
	t.noteLocked(l) // the next commit knows of it, with nothing counted
	return l, nil
}

// FindLedger finds the ledger of a client that comes back. One that was handed
// out after the commit that was recovered never committed anything, whether that
// was in the run before or in one that ended before it could commit: it begins
// again at 0, once. ErrLedgerUnknown: nothing can be said.
func (s *Store) FindLedger(id LedgerID) (*Ledger, error) {
	t := &s.ledgers
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.all[id]
	if l == nil {
		if _, before := t.forgotten[id]; before || !t.beginsAgainLocked(id) || len(t.all) >= t.most {
			return nil, ErrLedgerUnknown
		}
		l = &Ledger{id: id, table: t}
		t.all[id] = l
		t.noteLocked(l)
	}
	l.seen, l.held = t.wall(), true
	return l, nil
}

// beginsAgainLocked reports whether a ledger that is not in what was recovered
// would be one that never committed anything.
func (t *ledgerTable) beginsAgainLocked(id LedgerID) bool {
	return id.generation() >= t.prior.since && id.generation() <= t.prior.until && id.version() >= t.prior.version
}

// forgetLocked forgets a ledger, so that it is unknown from here on. If there is
// no room to remember that, no other ledger begins again either.
func (t *ledgerTable) forgetLocked(id LedgerID) {
	delete(t.all, id)
	switch {
	case !t.beginsAgainLocked(id):
	case len(t.forgotten) >= t.forgottenMost:
		t.prior = LedgerHistory{}
	default:
		t.forgotten[id] = struct{}{}
	}
}

// noteLocked puts a ledger on the list of the group that is forming.
func (t *ledgerTable) noteLocked(l *Ledger) {
	group := t.version.Load() + 1
	if l.group != group {
		l.closed, l.group = l.applied.Load(), group
		t.changed[group&1] = append(t.changed[group&1], l)
	}
}

// logAgain has the next commit log the ledgers that no commit record from begin
// on holds.
func (t *ledgerTable) logAgain(begin record.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []*Ledger
	for _, l := range t.all {
		if l.logged < begin {
			list = append(list, l)
		}
	}
	slices.SortFunc(list, func(a, b *Ledger) int { return bytes.Compare(a.id[:], b.id[:]) })
	for _, l := range list {
		t.noteLocked(l)
	}
}

// count records that everything up to number is done.
func (l *Ledger) count(number uint64) {
	if number <= l.applied.Load() {
		return
	}
	t := l.table
	t.mu.Lock()
	defer t.mu.Unlock()
	t.noteLocked(l)
	l.applied.Store(number)
	l.seen = t.wall()
}

// cut begins the next group, behind the closed door: try is told how many
// ledgers the one that ends has changed, and says whether it could be ended.
func (t *ledgerTable) cut(version uint64, try func(changed int) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if try(len(t.changed[version&1])) {
		t.version.Store(version)
	}
}

// pending reports whether the group that is forming has changed a ledger.
func (t *ledgerTable) pending() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.changed[(t.version.Load()+1)&1]) > 0
}

// ledgerCount is one ledger in a commit.
type ledgerCount struct {
	ledger *Ledger
	id     LedgerID
	number uint64
	seen   int64
}

// collect returns the counts of the group that was cut as version, with its commit
// record at rec, and empties its list.
func (t *ledgerTable) collect(version uint64, rec record.Addr, into []ledgerCount) []ledgerCount {
	t.mu.Lock()
	defer t.mu.Unlock()
	into = into[:0]
	list := t.changed[version&1]
	for i, l := range list {
		number := l.applied.Load()
		if l.group > version {
			number = l.closed
		}
		l.logged = rec
		into = append(into, ledgerCount{l, l.id, number, l.seen})
		list[i] = nil
	}
	t.changed[version&1] = list[:0]
	return into
}

// sweepLocked forgets ledgers that nobody has used for long.
func (t *ledgerTable) sweepLocked() {
	limit := t.wall() - t.expiry
	for id, l := range t.all {
		if !l.held && l.seen < limit {
			t.forgetLocked(id)
		}
	}
}

// evictLocked forgets the ledger that was unused longest.
func (t *ledgerTable) evictLocked() bool {
	var oldest *Ledger
	for _, l := range t.all {
		if !l.held && (oldest == nil || l.unusedFor(oldest) > 0) {
			oldest = l
		}
	}
	if oldest != nil {
		t.forgetLocked(oldest.id)
	}
	return oldest != nil
}

// unusedFor is positive if l has been unused for longer than o, or as long and
// comes first: which one goes does not depend on the order of a map.
func (l *Ledger) unusedFor(o *Ledger) int {
	return cmp.Or(cmp.Compare(o.seen, l.seen), bytes.Compare(o.id[:], l.id[:]))
}

// size is how many ledgers there are.
func (t *ledgerTable) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.all)
}

// snapshot lists all ledgers as of now, for a checkpoint.
func (t *ledgerTable) snapshot() []ledgerCount {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweepLocked()
	list := make([]ledgerCount, 0, len(t.all))
	for id, l := range t.all {
		list = append(list, ledgerCount{l, id, l.durable.Load(), l.seen})
	}
	slices.SortFunc(list, func(a, b ledgerCount) int { return cmp.Compare(string(a.id[:]), string(b.id[:])) })
	return list
}

// restore takes the counts of a recovered commit record at rec, or of a checkpoint,
// which has none. Counts only rise, so the order does not matter.
func (t *ledgerTable) restore(counts []byte, rec record.Addr) {
	if t.all == nil {
		t.all = make(map[LedgerID]*Ledger)
	}
	for ; len(counts) >= ledgerEntry; counts = counts[ledgerEntry:] {
		id := LedgerID(counts[:16])
		l := t.all[id]
		if l == nil {
			l = &Ledger{id: id, table: t}
			t.all[id] = l
		}
		number := binary.LittleEndian.Uint64(counts[16:])
		l.applied.Store(max(l.applied.Load(), number))
		l.durable.Store(l.applied.Load())
		l.seen = max(l.seen, int64(binary.LittleEndian.Uint64(counts[24:])))
		l.logged = max(l.logged, rec)
	}
}

// appendCounts writes counts as commit records and checkpoints hold them.
func appendCounts(b []byte, counts []ledgerCount) []byte {
	for _, c := range counts {
		b = append(b, c.id[:]...)
		b = binary.LittleEndian.AppendUint64(b, c.number)
		b = binary.LittleEndian.AppendUint64(b, uint64(c.seen))
	}
	return b
}
