package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"rskv/engine/internal/manifest"
	"rskv/engine/internal/record"
	"rskv/ioring"
)

// free gives back the segments below begin that nobody needs.
func (c *compactor) free() error {
	s := c.store
	bound, err := c.freeable()
	if err != nil {
		return err
	}
	size := record.Addr(s.dev.SegmentSize() / record.Unit)
	bound &^= size - 1
	before := record.Addr(s.stats.freed.Load())
	if bound <= before {
		return nil
	}
	if err := s.setManifestBegin(bound); err != nil {
		return err
	}
	s.dev.Recycle(s.room.recyclable())
	if err := s.dev.Discard(bound.Bytes()); err != nil {
		return fmt.Errorf("free log up to %v: %w", bound, err)
	}
	s.stats.freed.Store(uint64(bound))
	c.result.Freed += (bound - before).Bytes()
	return nil
}

// held reports whether segments that passes are done with wait for a checkpoint
// or a backup. The checkpoint wakes the task.
func (c *compactor) held() bool {
	size := record.Addr(c.store.dev.SegmentSize() / record.Unit)
	return c.durable&^(size-1) > record.Addr(c.store.stats.freed.Load())
}

// setManifestBegin notes that nothing below bound counts any more.
func (s *Store) setManifestBegin(bound record.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.mu.manifest
	m.Begin = bound
	m.Spans = slices.DeleteFunc(m.Spans, func(sp manifest.Span) bool { return sp.End != 0 && sp.End <= bound })
	return s.writeManifest()
}

// freeable is up to where the log is needed by nobody. Checkpoints that hold back
// more than they may are dropped, the oldest first; for the sake of the newest, and of
// the newest with a snapshot, a new one is taken.
func (c *compactor) freeable() (record.Addr, error) {
	s := c.store
	begin := c.durable
	if begin <= record.Addr(s.stats.freed.Load()) {
		return begin, nil
	}
	list, err := s.Checkpoints()
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return 0, err
	}
	allowed := s.pinnedMax()
	last := max(slices.IndexFunc(list, func(info CheckpointInfo) bool { return info.snapshot != 0 }), 0)
	for i := len(list) - 1; i >= 0; i-- {
		held := record.Addr(list[i].Begin / record.Unit)
		if held >= begin {
			continue
		}
		if pinned := (begin - held).Bytes(); pinned <= allowed {
			begin = held
			break
		}
		if i <= last {
			s.checkpoints.want()
			begin = held
			break
		}
		if err := s.dropCheckpoint(&list[i]); err != nil {
			return 0, err
		}
		s.opt.Logger.Info("checkpoint dropped: it kept log that was compacted away",
			slog.Uint64("version", list[i].Version), slog.Int64("bytes", (begin-held).Bytes()), slog.Int64("allowed", allowed))
	}
	return min(begin, s.pins.lowest(begin)), nil
}

// dropCheckpoint removes a checkpoint, first what names it.
func (s *Store) dropCheckpoint(info *CheckpointInfo) error {
	defer s.measureCheckpoints()
	names := []string{checkpointName(info.Version)}
	if info.snapshot != 0 {
		names = append(names, snapshotName(info.snapshot))
	}
	for _, name := range names {
		if err := s.dev.RemoveMeta(name); err != nil && !errors.Is(err, ioring.ErrNoMeta) {
			return fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return nil
}

// pinnedMax is how many bytes of log below begin checkpoints may hold back.
func (s *Store) pinnedMax() int64 {
	allowed := max(s.liveBytes.Load(), pinnedMin)
	if s.room.budget.Load() > 0 {
		held := (s.log.Begin() - record.Addr(s.stats.freed.Load())).Bytes()
		allowed = min(allowed, s.room.target()-s.room.taken()+held)
	}
	return allowed
}

// pins are the addresses from which on backups under way, and the checkpoint that is
// being taken, need the log.
type pins struct {
	mu   sync.Mutex
	held map[any]record.Addr // by who holds it; guarded by mu
}

func (p *pins) hold(by any, a record.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == nil {
		p.held = make(map[any]record.Addr)
	}
	p.held[by] = a
}

func (p *pins) release(by any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.held, by)
}

// lowest is the lowest address held, or a if that is lower.
func (p *pins) lowest(a record.Addr) record.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, held := range p.held {
		a = min(a, held)
	}
	return a
}
