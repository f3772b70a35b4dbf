package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rskv/engine/internal/record"
)

// A checkpoint is taken by a task of its own, step by step:
//
//	idle --> copying --> committing --------------> verifying --> idle
//	          index       commit       \     /       the snapshot is read back
//	          snapshot    behind it     imaging      then named, then old ones removed
//
// A snapshot checkpoint has an image made of what its commit covers, and reads that
// back too. A log checkpoint goes from idle to committing, and needs no verifying: its
// commit stands in the log. The order is what makes it safe: the snapshot is
// complete and durable before the commit that makes it valid is cut, and only
// after it has been read back does the metadata file name it. What a crash
// leaves in between is a file that nobody names; the next checkpoint removes it.
type checkpointState uint8

const (
	checkpointIdle       checkpointState = iota // nothing is under way
	checkpointCopying                           // the index is being copied
	checkpointCommitting                        // the commit behind it is under way
	checkpointImaging                           // what the commit covers is being copied
	checkpointVerifying                         // the snapshot is being read back
)

// checkpointRetry is how long the task waits after a checkpoint that nobody
// asked for has failed.
const checkpointRetry = 10 * time.Second

// checkpointPoll is how often it looks whether one is due while the log moves.
const checkpointPoll = time.Second

type checkpointRequest struct {
	CheckpointOptions
	keep int // not 0: none is taken, but all beyond so many are removed

	info    CheckpointInfo
	removed int
	err     error
	done    chan struct{} // closed when these are there
}

// checkpointer is the state of the checkpoint task. Fields without a note are
// owned by the task's step.
type checkpointer struct {
	store *Store
	task  taskRef
	look  look

	mu struct {
		sync.Mutex
		asked     []*checkpointRequest
		committed *commitResult // answer of the commit under way
		stopped   bool
	}

	wanted  atomic.Bool // compaction needs a new one to let old log go
	failing atomic.Bool // the last one could not be taken
	running atomic.Bool // one is under way

	state     checkpointState
	request   *checkpointRequest // nil: nobody asked for the one under way
	info      CheckpointInfo
	began     int64
	writer    *snapshotWriter
	reader    *snapshotReader
	image     *imageWriter
	imageBack *imageReader
	imageAt   record.Addr // start of the last one that is durable
	closer    func() error
	worked    time.Duration // since the last rest
	notBefore int64         // clock time before which none starts by itself
	lastStart record.Addr   // start of the newest valid snapshot, or of the log
	lastBytes int64         // its size
}

// commitResult is what a commit that was asked for came to.
type commitResult struct {
	version uint64
	end     record.Addr
	begin   record.Addr // of the log
	keys    int64       // live ones, by the counters
	bytes   int64       // of log they take, by the counters
	swept   int64       // time up to which expired keys in memory are not among them, ms since 1970
	head    record.Addr // of the log then
	err     error

	imaged    bool  // the commit is an image's, and not durable yet
	indexBits uint8 // of that
}

func (c *checkpointer) init(s *Store) {
	c.store = s
	c.replayFrom(s.recovery.from, s.recovery.snapshotBytes)
}

// replayFrom notes where a recovery would begin to replay.
func (c *checkpointer) replayFrom(start record.Addr, bytes int64) {
	c.lastStart, c.lastBytes = start, bytes
	c.store.stats.replayFrom.Store(uint64(start))
}

// want asks for a checkpoint that nobody waits for.
func (c *checkpointer) want() {
	if !c.wanted.Swap(true) {
		c.task.Wake()
	}
}

func (c *checkpointer) ask(r *checkpointRequest) {
	c.mu.Lock()
	stopped := c.mu.stopped
	if !stopped {
		c.mu.asked = append(c.mu.asked, r)
	}
	c.mu.Unlock()
	if stopped {
		r.err = ErrClosed
		close(r.done)
		return
	}
	c.task.Wake()
}

// step is one step of the checkpoint task.
func (c *checkpointer) step() time.Duration {
	if !c.task.ready() {
		return time.Millisecond // Open is still starting the tasks
	}
	var err error
	wait := time.Duration(0)
	began := c.store.opt.Clock.Monotonic()
	switch c.state {
	case checkpointIdle:
		wait, err = c.begin()
	case checkpointCopying:
		err = c.copy()
		wait = c.rest(began)
	case checkpointCommitting:
		wait, err = c.committing()
	case checkpointImaging:
		wait, err = c.imaging()
	case checkpointVerifying:
		err = c.verify()
		wait = c.rest(began)
	}
	if err != nil {
		c.end(err)
	}
	return wait
}

// checkpointTurn is for how long a checkpoint copies or reads back before it rests.
const checkpointTurn = 2 * time.Millisecond

// rest says how long to wait after a step that began at a time and hurries nobody: while
// sessions are at work, as long as was worked since the last rest, so that a checkpoint
// takes half of a processor from them, and the longer for it.
func (c *checkpointer) rest(began int64) time.Duration {
	s := c.store
	c.worked += time.Duration(s.opt.Clock.Monotonic() - began)
	if c.worked < checkpointTurn {
		return 0
	}
	worked := c.worked
	c.worked = 0
	if !s.epoch.Inside() {
		return 0
	}
	return worked
}

// distance is how many bytes of log a recovery would replay now.
func (c *checkpointer) distance() int64 {
	return int64(c.store.settled()-c.lastStart) * record.Unit
}

// settled is the address below which the log on the device is what the last durable
// commit says: its end, or the start of its image.
func (s *Store) settled() record.Addr {
	return max(s.log.Durable(), record.Addr(s.stats.imaged.Load()))
}

// begin starts a checkpoint if one was asked for or is due.
func (c *checkpointer) begin() (time.Duration, error) {
	s := c.store
	now := s.opt.Clock.Monotonic()
	c.mu.Lock()
	c.request = nil
	if len(c.mu.asked) > 0 {
		c.request = c.mu.asked[0]
		c.mu.asked = c.mu.asked[1:]
	}
	c.mu.Unlock()
	if r := c.request; r != nil && r.keep > 0 {
		r.removed, r.err = s.dropOld(r.keep)
		close(r.done)
		s.compaction.task.Wake() // the log that they kept may go
		return 0, nil
	}
	c.info = CheckpointInfo{Kind: FullCheckpoint}
	if c.request != nil {
		c.info.Kind, c.info.Cookie = c.request.Kind, c.request.Cookie
	} else if limit := s.opt.CheckpointDistance; now < c.notBefore || !c.wanted.Load() && (limit < 0 || s.tasks.stopped(TaskCheckpoint)) ||
		!c.wanted.Load() && c.distance() < max(limit, 2*c.lastBytes) || s.log.Full() || s.Err() != nil {
		if c.wanted.Load() || now < c.notBefore || s.log.Full() {
			return checkpointPoll, nil
		}
		return c.look.after(s, restCheckpoint, checkpointPoll), nil
	}
	c.began = now
	c.running.Store(true)
	c.wanted.Store(false)
	if c.info.Kind == LogCheckpoint {
		c.commit()
		return 0, nil
	}
	var err error
	c.info.snapshot = s.ledgers.version.Load() + 1
	if c.writer, err = s.newSnapshot(snapshotName(c.info.snapshot)); err != nil {
		return 0, err
	}
	// After the snapshot's start, so that every commit these do not cover has
	// its record in the log that will be replayed.
	c.info.counts = appendCounts(nil, s.ledgers.snapshot())
	c.info.expiry = s.sweep.encode()
	c.info.start = c.writer.start
	c.state = checkpointCopying
	return 0, nil
}

// copy copies a part of the index.
func (c *checkpointer) copy() error {
	done, err := c.writer.step()
	c.store.stats.snapshotBytes.Store(c.writer.bytes)
	if err != nil || !done {
		return err
	}
	c.info.end = c.store.log.Tail()
	c.info.Bytes = c.writer.bytes
	c.writer = nil
	c.commit()
	return nil
}

// commit asks for the commit that makes the checkpoint valid. From here on nothing
// is freed that it needs; once it is named it holds that by itself.
func (c *checkpointer) commit() {
	c.state = checkpointCommitting
	c.store.pins.hold(c, c.store.log.Begin())
	told := func(r commitResult) {
		c.mu.Lock()
		c.mu.committed = &r
		c.mu.Unlock()
		c.task.Wake()
	}
	if c.info.Kind == SnapshotCheckpoint {
		c.store.commit.askImage(told)
		return
	}
	c.store.commit.ask(true, told)
}

// committing waits for that commit.
func (c *checkpointer) committing() (time.Duration, error) {
	c.mu.Lock()
	r := c.mu.committed
	c.mu.committed = nil
	c.mu.Unlock()
	if r == nil {
		return -1, nil
	}
	if r.err != nil {
		return 0, r.err
	}
	s := c.store
	c.info.Version, c.info.Tail, c.info.Keys = r.version, r.end.Bytes(), r.keys
	// As of the cut: what compaction has copied since is not in this commit.
	c.info.Begin = r.begin.Bytes()
	c.info.Time = time.UnixMilli(s.opt.Clock.Wall())
	switch {
	case r.imaged:
		var err error
		c.image, err = s.beginImage(r)
		c.state = checkpointImaging
		return 0, err
	case c.info.Kind == SnapshotCheckpoint:
		c.info.Kind = FullCheckpoint // it got an ordinary commit
	}
	if c.info.snapshot == 0 {
		return 0, c.name()
	}
	return 0, c.readBack()
}

// imaging copies a part of what the commit covers.
func (c *checkpointer) imaging() (time.Duration, error) {
	wait, done, err := c.image.step()
	c.store.stats.snapshotBytes.Store(c.info.Bytes + c.image.bytes)
	if err != nil || !done {
		return wait, err
	}
	c.info.Bytes += c.image.bytes
	c.imageAt = c.image.start
	c.image = nil
	return 0, c.readBack()
}

// readBack begins to read what was written.
func (c *checkpointer) readBack() error {
	s := c.store
	var usable bool
	var err error
	c.reader, c.closer, usable, err = s.openSnapshot(s.mu.manifest, &c.info)
	if err == nil && !usable {
		err = errors.Join(errSnapshot, c.closer())
	}
	c.state = checkpointVerifying
	return err
}

// verify reads a block of the snapshot, or of the image, back.
func (c *checkpointer) verify() error {
	if c.imageBack != nil {
		_, part, err := c.imageBack.next()
		if err == nil && part != nil {
			return nil
		}
		c.imageBack = nil
		if err = errors.Join(err, c.closer()); err != nil {
			return c.dropImage(err)
		}
		return c.name()
	}
	row, rows, _, err := c.reader.next()
	if err == nil && rows > 0 {
		return nil
	}
	if err == nil && row != 1<<c.reader.bits {
		err = errSnapshot
	}
	if err = errors.Join(err, c.closer()); err != nil {
		return err
	}
	if c.info.Kind != SnapshotCheckpoint {
		return c.name()
	}
	s := c.store
	i, err := s.openImage(s.mu.manifest, c.info.Version)
	if err != nil {
		return c.dropImage(err)
	}
	c.imageBack, c.closer = i.reader(make([]byte, s.opt.PageSize)), i.in.Close
	return nil
}

// dropImage removes an image that cannot be read back: nobody has been told of it, and a
// recovery would want it.
func (c *checkpointer) dropImage(err error) error {
	return errors.Join(err, c.store.dev.RemoveMeta(imageName(c.info.Version)))
}

// name writes the metadata file: from here on the checkpoint counts.
func (c *checkpointer) name() error {
	s := c.store
	c.info.Took = time.Duration(s.opt.Clock.Monotonic() - c.began)
	b := c.info.encode()
	c.info.Bytes += int64(len(b))
	b = c.info.encode()
	name := checkpointName(c.info.Version)
	if err := s.dev.WriteMeta(name, b); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if c.info.Kind == SnapshotCheckpoint {
		s.stats.imaged.Store(max(s.stats.imaged.Load(), uint64(c.imageAt)))
		s.commit.imaged(c.info.Version)
	}
	if c.info.snapshot != 0 {
		c.replayFrom(c.info.start, c.info.Bytes)
	}
	s.stats.checkpoints.Add(1)
	if _, err := s.dropOld(s.opt.CheckpointsKept); err != nil {
		s.opt.Logger.Warn("old checkpoints stay", slog.Any("error", err))
	}
	c.end(nil)
	return nil
}

// end answers whoever asked, and is ready for the next.
func (c *checkpointer) end(err error) {
	s := c.store
	if c.writer != nil {
		err = errors.Join(err, c.writer.abort())
		c.writer = nil
	}
	if c.image != nil {
		err = errors.Join(err, c.image.abort())
		c.image = nil
	}
	for attempt := 0; s.log.Frozen() != 0; attempt++ {
		if s.thaw(0, attempt) > 0 {
			s.opt.Runner.Yield()
		}
	}
	s.pins.release(c)
	s.stats.snapshotBytes.Store(0)
	c.info.Took = time.Duration(s.opt.Clock.Monotonic() - c.began)
	c.state = checkpointIdle
	c.running.Store(false)
	switch {
	case c.request != nil:
		c.request.info, c.request.err = c.info, err
		close(c.request.done)
		c.request = nil
	case err != nil:
		s.opt.Logger.Warn("checkpoint failed", slog.Any("error", err))
	default:
		s.opt.Logger.Debug("checkpoint taken", slog.Uint64("version", c.info.Version), slog.Duration("took", c.info.Took), slog.Int64("bytes", c.info.Bytes))
	}
	c.failing.Store(err != nil)
	s.tasks.ran(TaskCheckpoint, c.began, err)
	s.compaction.task.Wake() // it may have waited for this
	if err != nil {
		s.stats.checkpointsFailed.Add(1)
		c.notBefore = s.opt.Clock.Monotonic() + int64(checkpointRetry)
	}
}

// stop ends the task and whatever is under way.
func (c *checkpointer) stop() {
	c.task.Stop()
	c.mu.Lock()
	c.mu.stopped = true
	asked := c.mu.asked
	c.mu.asked = nil
	c.mu.Unlock()
	if c.state != checkpointIdle {
		if c.state == checkpointVerifying {
			// What was not verified is not named, and goes with the next one.
			_ = c.closer()
			c.imageBack = nil
		}
		c.end(ErrClosed)
	}
	for _, r := range asked {
		r.err = ErrClosed
		close(r.done)
	}
}

// measureCheckpoints notes how much the checkpoints take.
func (s *Store) measureCheckpoints() {
	list, _ := s.Checkpoints() // a damaged one is left out
	bytes := int64(0)
	for _, info := range list {
		bytes += info.Bytes
	}
	s.stats.checkpointBytes.Store(bytes)
}

// dropOld removes the checkpoints beyond so many to be kept, which have all been
// verified, and snapshots and images that none of the others names. The newest one that has
// a snapshot stays in any case.
func (s *Store) dropOld(keep int) (removed int, err error) {
	list, err := s.Checkpoints()
	if err != nil {
		return 0, err
	}
	defer s.measureCheckpoints()
	named := map[string]bool{}
	snapshots := 0
	for i, info := range list {
		if i >= keep && (info.snapshot == 0 || snapshots > 0) {
			name := checkpointName(info.Version)
			if err := s.dev.RemoveMeta(name); err != nil {
				return removed, fmt.Errorf("remove %s: %w", name, err)
			}
			removed++
			continue
		}
		if info.snapshot != 0 {
			snapshots++
			named[snapshotName(info.snapshot)] = true
		}
		if info.Kind == SnapshotCheckpoint {
			named[imageName(info.Version)] = true
		}
	}
	all, err := s.dev.ListMeta()
	if err != nil {
		return removed, fmt.Errorf("list snapshots: %w", err)
	}
	for _, name := range slices.DeleteFunc(all, func(n string) bool {
		return !strings.HasPrefix(n, snapshotPrefix) && !strings.HasPrefix(n, imagePrefix) || named[n]
	}) {
		if err := s.dev.RemoveMeta(name); err != nil {
			return removed, fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return removed, nil
}
