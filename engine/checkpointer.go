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
//	idle --> copying --> committing --> verifying --> idle
//	          index       commit         the snapshot is read back
//	          snapshot    behind it      then named, then old ones removed
//
// A log checkpoint goes from idle to committing, and needs no verifying: its
// commit stands in the log. The order is what makes it safe: the snapshot is
// complete and durable before the commit that makes it valid is cut, and only
// after it has been read back does the metadata file name it. What a crash
// leaves in between is a file that nobody names; the next checkpoint removes it.
type checkpointState uint8

const (
	checkpointIdle       checkpointState = iota // nothing is under way
	checkpointCopying                           // the index is being copied
	checkpointCommitting                        // the commit behind it is under way
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
	closer    func() error
	notBefore int64       // clock time before which none starts by itself
	lastStart record.Addr // start of the newest valid snapshot, or of the log
	lastBytes int64       // its size
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
	switch c.state {
	case checkpointIdle:
		wait, err = c.begin()
	case checkpointCopying:
		err = c.copy()
	case checkpointCommitting:
		wait, err = c.committing()
	case checkpointVerifying:
		err = c.verify()
	}
	if err != nil {
		c.end(err)
	}
	return wait
}

// distance is how many bytes of log a recovery would replay now.
func (c *checkpointer) distance() int64 {
	return int64(c.store.log.Durable()-c.lastStart) * record.Unit
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
	c.store.commit.ask(true, func(r commitResult) {
		c.mu.Lock()
		c.mu.committed = &r
		c.mu.Unlock()
		c.task.Wake()
	})
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
	if c.info.snapshot == 0 {
		return 0, c.name()
	}
	var usable bool
	var err error
	c.reader, c.closer, usable, err = s.openSnapshot(s.mu.manifest, &c.info)
	if err == nil && !usable {
		err = errors.Join(errSnapshot, c.closer())
	}
	c.state = checkpointVerifying
	return 0, err
}

// verify reads a block of the snapshot back.
func (c *checkpointer) verify() error {
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
	return c.name()
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
// verified, and snapshots that none of the others names. The newest one that has
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
	}
	all, err := s.dev.ListMeta()
	if err != nil {
		return removed, fmt.Errorf("list snapshots: %w", err)
	}
	for _, name := range slices.DeleteFunc(all, func(n string) bool { return !strings.HasPrefix(n, snapshotPrefix) || named[n] }) {
		if err := s.dev.RemoveMeta(name); err != nil {
			return removed, fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return removed, nil
}
