package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"rskv/engine/internal/record"
	"rskv/ioring"
	"rskv/ioring/iotest/sim"
)

// simRunner has the store's tasks run in a world.
type simRunner struct{ *sim.World }

func (r simRunner) Start(name string, step func() time.Duration) Task { return r.StartTask(name, step) }
func (r simRunner) Parallel() int                                     { return 2 }

// simRun is one simulation: several lives of one disk.
type simRun struct {
	plan  simPlan
	w     *sim.World
	model *simModel
	geo   sim.DiskOptions
	page  int
	// attested is up to where the log was known to be durable on the disk itself:
	// beyond, damage cannot be told from a write that was torn.
	attested record.Addr
	total    simTotals
	now      *simLife
}

// simTotals counts what a simulation has done.
type simTotals struct {
	lives, opens, cuts, closes, ops, refused int
	steps                                    uint64
	cached                                   uint64 // reads that the read cache has answered
	swept                                    uint64 // keys that were counted out
	faults                                   map[sim.FaultKind]int
	hash                                     uint64
}

// simulate runs a plan.
func simulate(plan simPlan, trace func(string)) (simTotals, error) {
	rng := rand.New(rand.NewPCG(plan.seed, 2))
	r := &simRun{plan: plan, w: sim.NewWorld(plan.seed)}
	r.w.Trace(trace)
	r.total.faults = map[sim.FaultKind]int{}
	r.page = pageSizeMin << rng.IntN(2)
	align := []int{512, 4096}
	r.geo = sim.DiskOptions{
		SegmentSize: int64(r.page) << rng.IntN(3),
		BufferBytes: 256<<10 + rng.Int64N(1<<20)&^4095,
		Align:       ioring.Align{Offset: align[rng.IntN(2)], Memory: align[rng.IntN(2)]},
	}
	clients := 1 + rng.IntN(simClientsMax)
	if plan.clients > 0 {
		clients = min(clients, plan.clients)
	}
	cold := []int{10, 60, 400}[rng.IntN(3)]
	r.model = newSimModel(clients, cold)
	err := r.w.Run(r.lives)
	if err != nil && r.now != nil {
		err = fmt.Errorf("life %d: %w\n%s", r.now.number, err, r.now.describe())
	}
	r.total.steps, r.total.hash = r.w.Steps(), r.w.Hash()
	return r.total, err
}

// lives lets one life follow the other.
func (r *simRun) lives() {
	var image *sim.Image
	for i, plan := range r.plan.lives {
		l := &simLife{simRun: r, number: i, plan: plan, rng: rand.New(rand.NewPCG(r.plan.seed, 100+uint64(i)))}
		more := false
		r.now = l
		if image, more = l.live(image); !more {
			return
		}
	}
}

// simLife is one life of the store.
type simLife struct {
	*simRun
	number int
	plan   simLifePlan
	rng    *rand.Rand
	disk   *sim.Disk
	store  *Store
	opt    Options
	budget bool // there may be a disk budget
	ended  bool // the clients have nothing more to do
	closes bool // Close has been called
	cuts   map[record.Addr]record.Addr
	ops    int
	// ledgers are those of the clients. They are held to the end: one that nobody
	// has may be forgotten for the sake of others.
	ledgers []*Ledger
}

// describe says in what state the store is.
func (l *simLife) describe() string {
	s := l.store
	if s == nil || s.log == nil {
		return "no store"
	}
	units := func(a record.Addr) int64 { return a.Bytes() }
	text := fmt.Sprintf("log: begin %#x head %#x flushed %#x durable %#x read-only %#x tail %#x, full %t, stuck %t, error %v\n",
		units(s.log.Begin()), units(s.log.Head()), units(s.log.Flushed()), units(s.log.Durable()), units(s.log.ReadOnly()), units(s.log.Tail()),
		s.log.Full(), s.log.Stuck(), s.log.Err())
	begin, end := s.dev.Extent()
	reserved, short := s.dev.Room()
	text += fmt.Sprintf("segments: %#x to %#x, %d reserved, short %t; the log is ready for a page: %t\n", begin, end, reserved, short, s.log.Ready())
	list, err := s.Checkpoints()
	for _, c := range list {
		text += fmt.Sprintf("checkpoint %d: begin %#x tail %#x snapshot %d\n", c.Version, c.Begin, c.Tail, c.snapshot)
	}
	text += fmt.Sprintf("checkpoints: %v, state %d, wanted %t, not before %v, now %v; compact not before %v, live ratio %v\n", err, s.checkpoints.state, s.checkpoints.wanted.Load(),
		time.Duration(s.checkpoints.notBefore), time.Duration(l.w.Monotonic()), time.Duration(s.compaction.notBefore), fmt.Sprintf("%+v", s.EstimateGC()))
	for n := range s.mu.sessions {
		text += fmt.Sprintf("session: %d pending, %d starving, %d hungry, %d in flight, %d arrived, ready %d, mover %t\n", n.queue.count, len(n.queue.starving), len(n.queue.hungry), n.queue.inFlight, len(n.inbox.reads), len(n.ready), n.mover)
		for _, r := range n.queue.starving {
			text += fmt.Sprintf("  starving: %d bytes at %v, chunk %d, given up %t\n", r.want, r.addr, r.chunk, r.p == nil)
		}
	}
	text += fmt.Sprintf("disk: %d operations under way, buffers: %d of %d in use; large values: %d of %d\n", l.disk.Counters().InFlight, s.dev.Buffers().InUse(), s.dev.Buffers().Budget(), s.largeInUse(), s.large.limit)
	return text + fmt.Sprintf("room: closed %t, full %t, disk %d, taken %d, target %d, live %d of %d, freed %#x, checkpoints %d; compaction: state %d, stuck %t, durable begin %#x; pages of %d, segments of %d",
		s.room.closed.Load(), s.room.full.Load(), s.room.budget.Load(), s.room.taken(), s.room.target(), s.liveBytes.Load(), s.compaction.allLive.Load(),
		units(record.Addr(s.stats.freed.Load())), s.stats.checkpointBytes.Load(), s.compaction.state, s.compaction.stuck.Load(),
		units(s.compaction.durable), s.opt.PageSize, s.dev.SegmentSize())
}

// over tells clients and chores to end.
func (l *simLife) over() bool { return l.disk.Dead() || l.ended }

// hit reports whether one of these faults has struck.
func (l *simLife) hit(kinds ...sim.FaultKind) bool {
	hits := l.disk.Hits()
	return slices.ContainsFunc(kinds, func(k sim.FaultKind) bool { return hits[k] > 0 })
}

// allowed reports whether what the disk has done explains an error.
func (l *simLife) allowed(err error) bool {
	switch {
	case l.disk.Dead():
		return true
	case errors.Is(err, ErrClosed):
		return l.closes
	case errors.Is(err, ErrCorrupt):
		// After a failed sync the system may have thrown away what was written.
		return l.plan.harmed || l.hit(sim.SyncError)
	case errors.Is(err, ioring.ErrSyncFailed):
		return l.hit(sim.SyncError)
	case errors.Is(err, ErrReadOnly):
		return l.hit(sim.WriteError, sim.WriteShort, sim.SyncError)
	case errors.Is(err, ErrDiskFull):
		return l.budget || l.hit(sim.Full)
	case errors.Is(err, ErrIO):
		return l.plan.harmed || l.hit(sim.ReadError)
	}
	return false
}

// judge ends the simulation unless the error of something that was asked for is
// nil, explained, or one of those. It returns it, for the caller to see whether it
// was done.
func (l *simLife) judge(what string, err error, may ...error) error {
	switch {
	case err == nil, l.allowed(err), slices.ContainsFunc(may, func(e error) bool { return errors.Is(err, e) }):
	case (what == "checkpoint" || what == "compact") && l.hit(sim.MetaError, sim.MetaFull):
	default:
		l.w.Fail(fmt.Errorf("%s: %w", what, err))
	}
	l.w.Note("judge", what, 0, 0)
	return err
}

// live opens the store, compares it with the model, uses it, and ends it. It
// returns what is left on the disk, and whether there is anything more to do.
func (l *simLife) live(image *sim.Image) (*sim.Image, bool) {
	l.total.lives++
	if !l.open(image) {
		return l.left()
	}
	if l.verify() && !l.disk.Dead() {
		l.use()
	}
	l.closes = true
	st := l.store.Stats()
	l.total.cached += st.CacheHits
	l.total.swept += st.ExpirySwept
	err := l.store.Close()
	l.total.ops += l.ops
	if err == nil && !l.disk.Dead() {
		l.model.durable = l.w.Stamp() // all of it
		l.total.closes++
		l.attested = l.store.log.Durable()
	} else if err != nil && !l.allowed(err) && !l.hit(sim.MetaError, sim.MetaFull) {
		l.w.Fail(fmt.Errorf("close: %w", err))
	}
	return l.left()
}

// left is what is on the disk now. Without a power cut it may still come.
func (l *simLife) left() (*sim.Image, bool) {
	if l.rng.IntN(2) == 0 {
		l.disk.Cut(l.rng.Uint64())
	}
	if l.disk.Dead() {
		l.total.cuts++
	}
	for k, n := range l.disk.Hits() {
		l.total.faults[sim.FaultKind(k)] += n
	}
	if err := l.disk.Close(); err != nil {
		l.w.Fail(err)
	}
	return l.disk.Image(), true
}

// options draws the options of this life.
func (l *simLife) options() {
	rng := l.rng
	l.opt = Options{
		Memory: MemoryMin, PageSize: l.page, IndexBits: indexBitsMin + rng.IntN(4),
		CommitInterval:     []time.Duration{-1, time.Millisecond, 20 * time.Millisecond, 300 * time.Millisecond}[rng.IntN(4)],
		CheckpointDistance: []int64{-1, 256 << 10, 2 << 20}[rng.IntN(3)],
		CheckpointsKept:    1 + rng.IntN(3),
		ColdStart:          rng.IntN(2) == 0,
		LiveRatio:          []float64{-1, 0.3, 0.7, 0.9}[rng.IntN(4)],
		Clock:              l.w, Runner: simRunner{l.w},
		Random:      rand.NewChaCha8([32]byte{byte(l.seed()), byte(l.seed() >> 8), byte(l.number)}),
		logPagesMax: 6 + rng.IntN(12),
	}
	l.opt.Ordered = (l.seed()+uint64(l.number))%3 == 0
	l.opt.cacheShape = drawCache(rng, 256<<10)
	if rng.IntN(4) == 0 {
		l.opt.Disk = l.geo.SegmentSize * (diskSegmentsMin + rng.Int64N(24))
		l.budget = true
	}
	if rng.IntN(3) == 0 {
		l.opt.Ledgers = simClientsMax + 1 + rng.IntN(3)
	}
	if len(l.model.checkpoints) > 0 && rng.IntN(8) == 0 {
		versions := slices.Sorted(mapKeys(l.model.checkpoints))
		l.opt.RecoverVersion = versions[rng.IntN(len(versions))]
	}
}

func (r *simRun) seed() uint64 { return r.plan.seed }

func mapKeys[K comparable, V any](m map[K]V) func(func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// open opens the store, more than once if the disk lets it fail. It returns false
// if there is no store to be had: the power is gone, or the damage was found.
func (l *simLife) open(image *sim.Image) bool {
	l.options()
	geo := l.geo
	geo.Faults = l.plan.faults
	for {
		var err error
		if image == nil {
			l.disk, err = sim.NewDisk(l.w, geo)
		} else {
			l.disk, err = sim.Boot(l.w, geo, image)
		}
		if err != nil {
			l.w.Fail(err)
		}
		l.cuts = map[record.Addr]record.Addr{}
		l.disk.OnChange = l.watch
		l.opt.Device = l.disk
		l.total.opens++
		s, err := Open(l.opt)
		if err == nil {
			l.store = s
			return true
		}
		switch {
		case l.disk.Dead():
			if l.opt.RecoverVersion != 0 {
				l.wentBack() // or not: that depends on how far it came
			}
			return false
		case errors.Is(err, ErrBadCheckpoint) && l.opt.RecoverVersion != 0:
			l.opt.RecoverVersion = 0 // it is not kept any more
		case errors.Is(err, ErrCorrupt) && l.plan.harmed:
			l.total.refused++
			return false
		case l.allowed(err), l.hit(sim.MetaError, sim.MetaFull):
		case errors.Is(err, ErrIO) && l.hit(sim.WriteError, sim.WriteShort): // an image was put back
		default:
			l.w.Fail(fmt.Errorf("open: %w", err))
		}
		// The disk is as it was; its faults are behind it.
		image = l.disk.Image()
		geo.Faults = nil
	}
}

// wentBack notes that the store was opened as of an older checkpoint.
func (l *simLife) wentBack() {
	l.model.durable = l.model.checkpoints[l.opt.RecoverVersion]
	l.attested = 0
}

// watch is called before each change of the disk. It notes what commit records
// say about how much is durable.
func (l *simLife) watch() {
	if s := l.store; s != nil && !l.disk.Dead() {
		l.cuts[s.commit.end] = s.commit.told
		if told, ok := l.cuts[s.log.Durable()]; ok {
			l.attested = max(l.attested, told)
		}
	}
}

// verify compares the store with the model, and makes the clients.
func (l *simLife) verify() bool {
	s := l.store
	if l.opt.RecoverVersion != 0 {
		l.wentBack()
	}
	applied := make([]uint64, len(l.model.clients))
	l.ledgers = make([]*Ledger, len(l.model.clients))
	for i, c := range l.model.clients {
		if !c.ordered || c.ledger == (LedgerID{}) {
			continue
		}
		g, err := s.FindLedger(c.ledger)
		if err != nil {
			if l.plan.harmed && errors.Is(err, ErrLedgerUnknown) {
				return false
			}
			l.w.Fail(fmt.Errorf("client %d: %w", i, err))
		}
		applied[i] = g.Applied()
		l.ledgers[i] = g
	}
	l.w.Note("opened", fmt.Sprintf("life %d, asked for version %d, applied %v, recovery %+v", l.number, l.opt.RecoverVersion, applied, s.recovery), 0, 0)
	n := s.NewSession()
	defer n.Close()
	err := l.model.recovered(simContent{
		applied: applied,
		get: func(key []byte) (value []byte, found bool, err error) {
			for range 3 {
				value, err = n.Get(key, nil)
				if err == nil || errors.Is(err, ErrNotFound) {
					return bytes.Clone(value), err == nil, nil
				}
			}
			return nil, false, err
		},
		skip:  l.allowed,
		dead:  l.disk.Dead,
		lossy: l.plan.harmed && s.log.PageEnd(s.recovery.end-1) >= l.attested,
	})
	switch {
	case l.disk.Dead():
		return false
	case err != nil:
		l.w.Fail(fmt.Errorf("life %d, version %d: %w", l.number, s.Recovery().Version, err))
	}
	if err := s.index.Check(); err != nil {
		l.w.Fail(err)
	}
	return true
}

// use lets clients and chores use the store.
func (l *simLife) use() {
	stop := []func(){}
	var clients []func()
	for i, m := range l.model.clients {
		c := &simClient{
			l: l, w: l.w, m: m, rng: rand.New(rand.NewPCG(l.seed(), uint64(1000+100*l.number+i))),
			pending: map[uint64]*simCall{}, left: l.rng.IntN(simOpsMax), fat: 1 + l.rng.IntN(8),
		}
		if most := l.simRun.plan.ops; most > 0 {
			c.left = min(c.left, most)
		}
		if len(m.keys) == 0 {
			continue // damage has taken them all
		}
		if m.ordered {
			l.attach(c)
		}
		clients = append(clients, c.run)
	}
	for i, name := range simChoreNames() {
		if !slices.Contains(l.plan.chores, name) {
			continue
		}
		rng := rand.New(rand.NewPCG(l.seed(), uint64(5000+100*l.number+i)))
		pause := int64(time.Millisecond) << rng.IntN(10)
		stop = append(stop, func() {
			for n := 1 + rng.IntN(simChores[i].most); n > 0 && !l.over(); n-- {
				simChores[i].do(l, rng)
				l.w.Sleep(time.Duration(1 + rng.Int64N(pause)))
			}
		})
	}
	l.w.Group("life", func() {
		l.w.Group("client", clients...)
		l.ended = true
	}, func() { l.w.Group("chore", stop...) })
	if !l.disk.Dead() && l.rng.IntN(2) == 0 {
		l.sync()
		l.scan(l.rng)
	}
}

// attach gives a client its ledger, or makes one.
func (l *simLife) attach(c *simClient) {
	g := l.ledgers[c.m.id]
	if g == nil {
		var err error
		if g, err = l.store.NewLedger(); err != nil {
			l.w.Fail(err)
		}
		c.m.ledger, l.ledgers[c.m.id] = g.ID(), g
	}
	c.ledger = g
}

// sync makes durable what was answered so far.
func (l *simLife) sync() {
	call := l.w.Stamp()
	if _, err := l.store.Sync(context.Background()); l.judge("sync", err) == nil {
		l.model.durable = max(l.model.durable, call)
	}
}

// scan goes over the keys, at once or page by page, and compares each with what
// it has been meanwhile.
func (l *simLife) scan(rng *rand.Rand) {
	begin := l.w.Stamp()
	before := map[string]int{} // states that each key had when the scan began
	keys := map[string]*simKey{}
	for _, c := range l.model.clients {
		for _, k := range c.keys {
			before[string(k.name)] = len(k.states) - 1
			keys[string(k.name)] = k
		}
	}
	// Where no commit can be made, a scan shows what the last one held.
	stale := func() bool {
		return l.disk.Dead() || l.budget || l.hit(sim.Full, sim.WriteError, sim.WriteShort, sim.SyncError)
	}
	seen := map[string]bool{}
	meet := func(e Entry, keysOnly bool) error {
		name := string(e.Key)
		if seen[name] {
			return fmt.Errorf("scan: %s twice", name)
		}
		seen[name] = true
		k := keys[name]
		if k == nil {
			return nil // a shared one
		}
		for i, s := range k.states {
			if !s.absent && (keysOnly || s.is(e.Value, true)) && (i >= before[name] || stale()) {
				return nil
			}
		}
		if len(l.openWrites(k)) > 0 {
			return nil // it may have been written without our knowing yet
		}
		return fmt.Errorf("scan: %s: %s, since the scan began it was %s and %d others", name, &simState{value: e.Value}, &k.states[before[name]], len(k.states)-1-before[name])
	}
	keysOnly := rng.IntN(2) == 0
	err := l.scanAll(rng, keysOnly, meet)
	if l.judge("scan", err, ErrCursor) != nil {
		return
	}
	for name, k := range keys {
		always := len(l.openWrites(k)) == 0 && !stale()
		for _, s := range k.states[before[name]:] {
			always = always && !s.absent
		}
		if always && !seen[name] {
			l.w.Fail(fmt.Errorf("scan (begun %d): %s is missing, it was there all the time", begin, name))
		}
	}
}

// openWrites are those of a key that have been called and not answered.
func (l *simLife) openWrites(k *simKey) (list []*simWrite) {
	for _, c := range l.model.clients {
		for _, w := range c.open {
			if w.key == k {
				list = append(list, w)
			}
		}
	}
	return list
}

func (l *simLife) scanAll(rng *rand.Rand, keysOnly bool, meet func(Entry, bool) error) error {
	ctx := context.Background()
	if !keysOnly && rng.IntN(2) == 0 {
		for e, err := range l.store.All(ctx) {
			if err != nil {
				return err
			}
			if err := meet(e, false); err != nil {
				return err
			}
		}
		return nil
	}
	opt := ScanOptions{Count: 1 + rng.IntN(60), KeysOnly: keysOnly}
	opt.Reverse = l.opt.Ordered && opt.Count%2 == 0
	var last []byte
	for {
		page, err := l.store.Scan(ctx, opt)
		if err != nil {
			return err
		}
		for _, e := range page.Entries {
			if err := meet(e, keysOnly); err != nil {
				return err
			}
			if c := bytes.Compare(last, e.Key); l.opt.Ordered && last != nil && (c == 0 || (c < 0) == opt.Reverse) {
				return fmt.Errorf("scan in order: %q behind %q", e.Key, last)
			}
			last = e.Key
		}
		if page.Next == nil {
			return nil
		}
		opt.Cursor = page.Next
		if rng.IntN(4) == 0 {
			l.w.Sleep(time.Duration(rng.Int64N(int64(10 * time.Millisecond))))
		}
	}
}
