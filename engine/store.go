package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/bits"
	"sync"
	"sync/atomic"

	"rskv/engine/internal/epoch"
	"rskv/engine/internal/hlog"
	"rskv/engine/internal/index"
	"rskv/engine/internal/manifest"
	"rskv/engine/internal/record"
	"rskv/ioring"
)

// Store is an open store. Its methods may be called from any goroutine; work on
// keys goes through a Session.
type Store struct {
	// Immutable after Open.
	opt      Options
	budget   budget
	dev      ioring.Device
	epoch    *epoch.Domain
	index    *index.Index
	log      *hlog.Log
	seed     uint64 // of the key hash
	spans    []sealSpan
	inline   int // largest value in bytes that is stored in its record
	align    int64
	recovery Recovery
	clock    storeClock
	sweep    sweeper
	cache    readCache
	coldSize sizeGuess
	stale    []string // metadata files of what recovery has discarded

	closed atomic.Bool // checked inside every section
	live   atomic.Int64
	// liveBytes is how much of the log is taken by live records and their chunks;
	// what is on disk is estimated, see Session.weigh.
	liveBytes atomic.Int64
	stats     counters
	large     largeBudget
	commit    committer
	flush     taskRef
	// flushing is held by whoever runs the log's FlushStep: the flush task, or
	// the commit task in its place.
	flushing sync.Mutex

	ledgers     ledgerTable
	checkpoints checkpointer
	growth      growth
	memory      memory
	warm        warmer
	compaction  compactor
	forward     forwarder
	room        room
	rests       rests
	pins        pins
	tasks       tasks
	scans       scanHolds
	scanSpare   spareMemory
	counting    sync.Mutex // held by LenExact
	feeds       broadcast
	order       order

	mu struct {
		sync.Mutex
		manifest *manifest.Manifest
		sessions map[*Session]struct{}
		worked   workSum    // of those that have been closed
		starved  []*Session // wait for an I/O buffer
		closing  bool
	}
}

// sealSpan is a span of the log with the seed its checksums were made with.
type sealSpan struct {
	start record.Addr
	seed  record.Seed
}

// Open opens the store in opt.Dir, or creates it. It returns when everything up
// to the last commit is there again.
func Open(opt Options) (*Store, error) {
	if err := opt.check(); err != nil {
		if opt.Device != nil {
			err = errors.Join(err, opt.Device.Close())
		}
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{opt: opt}
	s.mu.sessions = make(map[*Session]struct{})
	if err := s.open(); err != nil {
		if s.log != nil {
			s.log.Free()
		}
		if s.index != nil {
			s.index.Free()
		}
		err = errors.Join(err, s.order.free())
		if s.dev != nil {
			err = errors.Join(err, s.dev.Close())
		}
		return nil, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

func (s *Store) open() error {
	m, err := s.openDevice()
	if err != nil {
		return err
	}
	if m == nil {
		if m, err = s.create(); err != nil {
			return err
		}
	}
	if err := s.allocate(m); err != nil {
		return err
	}
	if err := s.recover(m); err != nil {
		return err
	}
	s.clock.init(&s.opt, s.recovery.clock)
	if err := s.order.open(s, m); err != nil {
		return err
	}
	// Before the manifest: a checkpoint behind the log's end would be damage.
	if err := s.removeStale(); err != nil {
		return err
	}
	if err := s.startGeneration(m); err != nil {
		return err
	}
	if err := s.openLog(m); err != nil {
		return err
	}
	// What the last run wanted to free, but had not when it ended.
	if err := s.dev.Discard(record.Addr(s.stats.freed.Load()).Bytes()); err != nil {
		return fmt.Errorf("free log: %w", err)
	}
	s.measureCheckpoints()
	s.report()
	s.startTasks()
	return nil
}

// openDevice opens the device and reads the manifest, nil if there is none.
func (s *Store) openDevice() (*manifest.Manifest, error) {
	if s.dev = s.opt.Device; s.dev == nil {
		dev, err := ioring.Open(ioring.Options{
			Dir: s.opt.Dir, Mode: s.opt.IO, SegmentSize: s.opt.SegmentSize,
			BufferBytes: bufferBytes(s.opt.Memory),
		})
		if err != nil {
			return nil, err
		}
		s.dev = dev
	}
	// The store decides how its log is cut, not the options.
	s.opt.SegmentSize = s.dev.SegmentSize()
	if err := checkDisk(s.opt.Disk, s.opt.SegmentSize); err != nil {
		return nil, err
	}
	m, err := s.readManifest()
	if err == nil && m != nil && int64(1)<<m.SegmentBits != s.opt.SegmentSize {
		err = &CorruptError{Where: manifest.Name, Addr: -1,
			Err: fmt.Errorf("segments of %d bytes, but the files have %d", int64(1)<<m.SegmentBits, s.opt.SegmentSize)}
	}
	return m, err
}

// manifestCopy is the second copy of the manifest: without one nothing in the
// log can be checked. It is written first, so the manifest is what decides.
const manifestCopy = manifest.Name + ".copy"

// readManifest reads the manifest, or its copy if it is damaged or missing; nil
// if there is neither, nor a log.
func (s *Store) readManifest() (*manifest.Manifest, error) {
	m, err := s.decodeManifest(manifest.Name)
	if err == nil && m != nil || errors.Is(err, ErrFormat) {
		return m, err
	}
	second, copyErr := s.decodeManifest(manifestCopy)
	switch {
	case copyErr == nil && second != nil:
		s.opt.Logger.Warn("manifest is damaged or missing, its copy is used", slog.Any("error", err))
		return second, nil
	case err != nil:
		return nil, err
	case copyErr != nil:
		return nil, copyErr
	}
	if begin, end := s.dev.Extent(); begin != end {
		return nil, fmt.Errorf("%w: log segments but no %s", ErrNotAStore, manifest.Name)
	}
	return nil, nil
}

// decodeManifest reads one copy, nil if there is none.
func (s *Store) decodeManifest(name string) (*manifest.Manifest, error) {
	b, err := s.dev.ReadMeta(name)
	if errors.Is(err, ioring.ErrNoMeta) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	m, err := manifest.Decode(b)
	switch {
	case errors.Is(err, manifest.ErrNotManifest):
		return nil, fmt.Errorf("%w: %s: %w", ErrNotAStore, name, err)
	case errors.Is(err, manifest.ErrVersion):
		return nil, fmt.Errorf("%w: %s: %w", ErrFormat, name, err)
	case err != nil:
		return nil, &CorruptError{Where: name, Addr: -1, Err: err}
	}
	return m, nil
}

// create makes the manifest of a new store. It is written by startGeneration.
func (s *Store) create() (*manifest.Manifest, error) {
	var b [24]byte
	if _, err := io.ReadFull(s.opt.Random, b[:]); err != nil {
		return nil, fmt.Errorf("store identity: %w", err)
	}
	m := &manifest.Manifest{
		PageBits:    uint8(bits.TrailingZeros64(uint64(s.opt.PageSize))),
		SegmentBits: uint8(bits.TrailingZeros64(uint64(s.opt.SegmentSize))),
	}
	copy(m.StoreID[:], b[:])
	for i, x := range b[16:] {
		m.HashSeed |= uint64(x) << (8 * i)
	}
	return m, nil
}

// allocate divides the memory and makes the index.
func (s *Store) allocate(m *manifest.Manifest) error {
	s.opt.PageSize = 1 << m.PageBits
	if err := s.planIndex(m); err != nil {
		return err
	}
	s.budget.buffers = s.dev.Buffers().Budget()
	s.seed = m.HashSeed
	s.inline = inlineMax
	s.align = int64(s.dev.Align().Offset)
	s.memory.budget.Store(s.opt.Memory)
	s.large.limit = largeLimit(s.opt.Memory, s.opt.MaxValue)
	s.epoch = epoch.New()
	return s.openIndex()
}

// startGeneration writes the manifest with the next generation before anything
// is written to the log.
func (s *Store) startGeneration(m *manifest.Manifest) error {
	m.Generation++
	m.IndexAnchor = s.index.Anchor()
	pageUnits := record.Addr(s.opt.PageSize / record.Unit)
	start := (s.recovery.end + pageUnits - 1) &^ (pageUnits - 1)
	if n := len(m.Spans); n > 0 && m.Spans[n-1].End == m.Spans[n-1].Start {
		m.Spans = m.Spans[:n-1] // nothing was ever committed in it
	}
	m.Spans = append(m.Spans, manifest.Span{Generation: m.Generation, Start: start})
	s.spans = s.spans[:0]
	for _, span := range m.Spans {
		s.spans = append(s.spans, sealSpan{span.Start, record.NewSeed(m.StoreID, span.Generation)})
	}
	if old := m.Version; old != 0 && old != manifest.Version {
		s.opt.Logger.Warn("the store gets a new format version: older programs cannot open it from here on",
			slog.Uint64("from", uint64(old)), slog.Uint64("to", manifest.Version))
	}
	m.Version = manifest.Version
	s.mu.manifest = m
	return s.writeManifest()
}

// removeStale removes the files of what recovery goes back behind, in this order.
func (s *Store) removeStale() error {
	for _, name := range s.stale {
		if err := s.dev.RemoveMeta(name); err != nil {
			return fmt.Errorf("remove %s: %w", name, err)
		}
	}
	s.stale = nil
	return nil
}

func (s *Store) writeManifest() error {
	s.mu.manifest.IndexBits = s.index.Bits()
	return s.encodeManifest(s.mu.manifest)
}

// encodeManifest writes both copies.
func (s *Store) encodeManifest(m *manifest.Manifest) error {
	b := m.Encode()
	for _, name := range []string{manifestCopy, manifest.Name} {
		if err := s.dev.WriteMeta(name, b); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

func (s *Store) openLog(m *manifest.Manifest) (err error) {
	s.memory.index.Store(indexBytes(int(s.index.Bits())))
	s.log, err = hlog.New(hlog.Options{
		Device: s.dev, Epoch: s.epoch, PageBits: m.PageBits, Pages: s.logPages(),
		StoreID: m.StoreID, Generation: m.Generation, Begin: max(m.Begin, s.recovery.begin),
		Start: m.Spans[len(m.Spans)-1].Start,
		Wake:  func() { s.flush.Wake() },
	})
	if err != nil {
		return err
	}
	s.log.SetLastCommit(s.recovery.commit)
	return nil
}

func (s *Store) report() {
	info := s.dev.Info()
	s.opt.Logger.Info("store open",
		slog.String("backend", info.Backend), slog.String("why", info.Why), slog.String("detail", info.Detail),
		slog.Int64("memory", s.opt.Memory), slog.Int64("index", s.memory.index.Load()), slog.Int64("ordered_index", s.memory.order.Load()),
		slog.Int64("log", s.log.Memory()), slog.Int64("buffers", s.budget.buffers),
		slog.Uint64("version", s.recovery.Version), slog.Int64("keys", s.recovery.Keys),
		slog.Uint64("records", s.recovery.Records), slog.Int64("bytes", s.recovery.Bytes),
		slog.Uint64("snapshot", s.recovery.Snapshot), slog.Int64("discarded", s.recovery.Discarded))
}

// startTasks starts the background work: see flushStep and committer.step.
func (s *Store) startTasks() {
	s.tasks.init(s.opt.Clock)
	s.room.init(s)
	s.scans.init(s)
	s.room.look()
	s.ledgers.init(&s.opt, s.recovery.history, s.recovery.next)
	s.sweep.init(s)
	s.cache.init(s)
	s.commit.init(s)
	s.flush.set(s.opt.Runner.Start(string(TaskFlush), s.tasks.timed(TaskFlush, s.flushStep)))
	s.commit.task.set(s.opt.Runner.Start(string(TaskCommit), s.tasks.timed(TaskCommit, s.commit.step)))
	s.checkpoints.init(s)
	s.checkpoints.task.set(s.opt.Runner.Start(string(TaskCheckpoint), s.checkpoints.step))
	s.growth.task.set(s.opt.Runner.Start(string(TaskGrowth), s.tasks.timed(TaskGrowth, s.growth.step)))
	s.compaction.init(s)
	s.compaction.startTasks()
	s.sweep.task.set(s.opt.Runner.Start(string(TaskExpire), s.sweep.step))
	s.order.start()
	s.cache.task.set(s.opt.Runner.Start(string(TaskCache), s.cache.step))
	s.warm.init(s)
	s.warm.task.set(s.opt.Runner.Start(string(TaskWarm), s.warm.step))
	s.forward.init(s)
	s.forward.task.set(s.opt.Runner.Start(string(TaskForward), s.forward.step))
}

// seedAt is the checksum seed of the span that a lies in.
func (s *Store) seedAt(a record.Addr) record.Seed {
	for i := len(s.spans) - 1; i > 0; i-- {
		if a >= s.spans[i].start {
			return s.spans[i].seed
		}
	}
	return s.spans[0].seed
}

// Sync returns when everything applied before the call is on stable storage.
// With a context that ends first, it returns the context's error; the commit
// goes on.
func (s *Store) Sync(ctx context.Context) (version uint64, err error) {
	type answer struct {
		version uint64
		err     error
	}
	done := make(chan answer, 1)
	ready := make(chan struct{})
	commit := s.Commit
	if ctx.Done() == nil {
		commit = s.Lead
	}
	commit(func(version uint64, err error) {
		done <- answer{version, err}
		close(ready)
	})
	if ctx.Done() == nil {
		s.opt.Runner.Wait(ready)
		a := <-done
		return a.version, a.err
	}
	select {
	case a := <-done:
		return a.version, a.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Len is the number of live keys, from counters: see the package comment for
// when it is exact.
func (s *Store) Len() int64 { return s.live.Load() - s.sweep.pending.Load() }

// Info describes the storage backend.
func (s *Store) Info() ioring.Info { return s.dev.Info() }

// Options returns the options in force, defaults filled in.
func (s *Store) Options() Options {
	opt := s.opt
	opt.Memory = s.Memory()
	return opt
}

// Recovery says what Open found.
func (s *Store) Recovery() Recovery { return s.recovery }

// Err is nil while the store accepts writes, else ErrReadOnly with its cause.
func (s *Store) Err() error {
	if err := s.log.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return nil
}

// Full is the error that writes get for want of room at the moment, an ErrDiskFull that
// says of what; nil if there is room.
func (s *Store) Full() error {
	switch {
	case s.log.Full() || s.log.Stuck():
		return errDeviceFull
	case s.room.full.Load():
		return errBudgetFull
	}
	return nil
}

// Close commits, waits for what is in flight and releases everything. It returns
// the error of that commit: nil means that everything applied is durable.
// Sessions still in use get ErrClosed. The second call returns ErrClosed.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.mu.closing {
		s.mu.Unlock()
		return ErrClosed
	}
	s.mu.closing = true
	s.mu.Unlock()

	s.forward.stop()
	s.compaction.stop()
	s.checkpoints.stop()
	s.warm.stop()
	s.sweep.stop()
	s.order.stop()
	s.cache.stop()
	_, err := s.Sync(context.Background())
	// No section begins from here on; wait until the last one has ended.
	s.closed.Store(true)
	s.drain()
	s.wakeAll()
	s.feeds.wake()
	s.order.room.wake()
	s.room.open()
	if err == nil {
		_, err = s.Sync(context.Background()) // what slipped in behind the first
	}
	s.commit.stop()
	s.flush.Stop()
	s.growth.task.Stop()
	if err == nil {
		err = s.closeSpan()
	}
	s.sweep.free()
	err = errors.Join(err, s.cache.free(), s.dev.Close())
	return errors.Join(err, s.log.Free(), s.index.Free(), s.order.free(), s.scanSpare.close())
}

// drain returns when every section that began before has ended.
func (s *Store) drain() {
	gone := make(chan struct{})
	s.epoch.Bump(func() { close(gone) })
	s.opt.Runner.Wait(gone)
}

// wakeAll makes every session look at its pending operations: those that wait
// for memory are not fed by a closed store.
func (s *Store) wakeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.mu.sessions {
		n.signal()
	}
}

// closeSpan notes in the manifest where the log ends, which saves the next Open
// looking for it.
func (s *Store) closeSpan() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.mu.manifest
	m.Spans[len(m.Spans)-1].End = s.log.Durable()
	return s.writeManifest()
}
