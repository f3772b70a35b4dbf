package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"rskv/engine/internal/manifest"
	"rskv/engine/internal/record"
	"rskv/ioring"
)

// CheckpointKind says what a checkpoint contains.
type CheckpointKind uint8

const (
	// FullCheckpoint is an index snapshot and the commit that makes it valid:
	// recovery loads the one and replays the log from where it began.
	FullCheckpoint CheckpointKind = iota + 1
	// LogCheckpoint is a commit only: recovery to it replays more of the log.
	LogCheckpoint
	// IndexCheckpoint is taken for the snapshot; since no snapshot is valid
	// without a commit behind it, it contains the same as a full one.
	IndexCheckpoint
	// SnapshotCheckpoint is a full one that leaves what is in memory as it is: what is
	// updated in place is copied to a file besides, instead of being frozen and flushed,
	// so that what is hot need not be appended once more after it. It pays where commits
	// are rare: any other commit freezes all the same, and takes over if it comes first.
	SnapshotCheckpoint
)

const (
	// CookieMax is the largest cookie in bytes.
	CookieMax = 64 << 10
	// CheckpointsKeptDefault is how many checkpoints stay.
	CheckpointsKeptDefault = 3
	// CheckpointDistanceDefault is how much log, in bytes, a recovery replays
	// before a new snapshot is due; a snapshot is never taken before twice its
	// own size has been written.
	CheckpointDistanceDefault = 1 << 30

	checkpointPrefix = "checkpoint-"
	checkpointMagic  = "rskvCKPT"
	checkpointFixed  = 104
)

// ErrBadCheckpoint: the options of a checkpoint are not possible.
var ErrBadCheckpoint = errors.New("bad checkpoint options")

// CheckpointOptions of Store.Checkpoint.
type CheckpointOptions struct {
	Kind CheckpointKind
	// Cookie is kept with the checkpoint for its owner, at most CookieMax bytes.
	Cookie []byte
}

// CheckpointInfo describes a checkpoint that is on stable storage.
type CheckpointInfo struct {
	Version uint64 // of its commit: its name
	Kind    CheckpointKind
	Time    time.Time
	Begin   int64 // byte address the log begins at
	Tail    int64 // byte address up to which it is durable
	Keys    int64
	Bytes   int64 // of its files, besides the log
	// Took is how long it took; when read back without the writing of its metadata,
	// to the microsecond, and zero if a version took it that did not keep this.
	Took   time.Duration
	Cookie []byte

	snapshot   uint64      // number in the name of the snapshot file; 0: none
	start, end record.Addr // of the snapshot
	counts     []byte      // of all ledgers, as commit records hold them
	expiry     []byte      // see sweeper.encode
}

// Checkpoint makes everything applied before the call durable under a name: the
// version of its commit. Operations go on meanwhile. If ctx ends first, Checkpoint
// returns its error and the checkpoint goes on.
func (s *Store) Checkpoint(ctx context.Context, opt CheckpointOptions) (CheckpointInfo, error) {
	if opt.Kind < FullCheckpoint || opt.Kind > SnapshotCheckpoint || len(opt.Cookie) > CookieMax {
		return CheckpointInfo{}, fmt.Errorf("%w: kind %d, cookie of %d bytes (at most %d)", ErrBadCheckpoint, opt.Kind, len(opt.Cookie), CookieMax)
	}
	r := &checkpointRequest{CheckpointOptions: opt, done: make(chan struct{})}
	if err := s.askCheckpoints(ctx, r); err != nil {
		return CheckpointInfo{}, err
	}
	return r.info, r.err
}

// RemoveCheckpoints removes all checkpoints but the newest keep, at least one, and
// returns how many it has removed. The newest with a snapshot of the index stays in
// any case. What they kept of the log is given back. After each new checkpoint the
// store does the same by itself for Options.CheckpointsKept. If ctx ends first, its
// error is returned and the work goes on.
func (s *Store) RemoveCheckpoints(ctx context.Context, keep int) (removed int, err error) {
	if keep < 1 {
		return 0, fmt.Errorf("%w: %d checkpoints to be kept: want 1 or more", ErrBadOptions, keep)
	}
	r := &checkpointRequest{keep: keep, done: make(chan struct{})}
	if err := s.askCheckpoints(ctx, r); err != nil {
		return 0, err
	}
	return r.removed, r.err
}

// askCheckpoints waits for the task's answer, or for the end of ctx.
func (s *Store) askCheckpoints(ctx context.Context, r *checkpointRequest) error {
	s.checkpoints.ask(r)
	if ctx.Done() == nil {
		s.opt.Runner.Wait(r.done)
		return nil
	}
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// checkpointNames lists the metadata files, newest first.
func (s *Store) checkpointNames() ([]string, error) {
	all, err := s.dev.ListMeta()
	if err != nil {
		return nil, fmt.Errorf("list checkpoints: %w", err)
	}
	names := slices.DeleteFunc(all, func(n string) bool { return !strings.HasPrefix(n, checkpointPrefix) })
	slices.Sort(names)
	slices.Reverse(names)
	return names, nil
}

// Checkpoints lists the checkpoints kept, newest first. A damaged one is left out
// and reported as an error beside the others.
func (s *Store) Checkpoints() ([]CheckpointInfo, error) {
	for {
		names, err := s.checkpointNames()
		if err != nil {
			return nil, err
		}
		list, gone, err := s.readCheckpoints(names)
		if !gone || len(list) > 0 || err != nil {
			return list, err
		}
		// All have been removed meanwhile, but the last one only goes after another.
	}
}

// readCheckpoints reads those of the given names; gone says that some were there no
// more.
func (s *Store) readCheckpoints(names []string) (list []CheckpointInfo, gone bool, err error) {
	var errs []error
	for _, name := range names {
		b, err := s.dev.ReadMeta(name)
		if errors.Is(err, ioring.ErrNoMeta) {
			gone = true
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("read %s: %w", name, err))
			continue
		}
		info, err := decodeCheckpoint(b)
		if err != nil || checkpointName(info.Version) != name {
			errs = append(errs, &CorruptError{Where: name, Addr: -1, Err: err})
			continue
		}
		list = append(list, info)
	}
	return list, gone, errors.Join(errs...)
}

func checkpointName(version uint64) string { return fmt.Sprintf("%s%020d", checkpointPrefix, version) }
func snapshotName(number uint64) string    { return fmt.Sprintf("%s%020d", snapshotPrefix, number) }

// encode returns the bytes of the metadata file: see FORMAT.md.
func (c *CheckpointInfo) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, checkpointFixed, checkpointFixed+len(c.Cookie)+len(c.counts)+len(c.expiry)+8)
	copy(b, checkpointMagic)
	le.PutUint32(b[8:], manifest.Version)
	le.PutUint32(b[12:], uint32(c.Kind))
	le.PutUint64(b[16:], c.Version)
	le.PutUint64(b[24:], uint64(c.Time.UnixMilli()))
	le.PutUint64(b[32:], uint64(c.Begin))
	le.PutUint64(b[40:], uint64(c.Tail))
	le.PutUint64(b[48:], uint64(c.Keys))
	le.PutUint64(b[56:], uint64(c.Bytes))
	le.PutUint64(b[64:], c.snapshot)
	le.PutUint64(b[72:], uint64(c.start))
	le.PutUint64(b[80:], uint64(c.end))
	le.PutUint32(b[88:], uint32(len(c.Cookie)))
	le.PutUint32(b[92:], uint32(len(c.counts)))
	le.PutUint32(b[96:], uint32(len(c.expiry)))
	le.PutUint32(b[100:], uint32(min(c.Took.Microseconds(), math.MaxUint32)))
	b = append(append(append(b, c.Cookie...), c.counts...), c.expiry...)
	return le.AppendUint64(b, xxhash.Sum64(b))
}

func decodeCheckpoint(b []byte) (c CheckpointInfo, err error) {
	le := binary.LittleEndian
	if len(b) < checkpointFixed+8 || string(b[:8]) != checkpointMagic {
		return c, errors.New("not a checkpoint")
	}
	if v := le.Uint32(b[8:]); !manifest.Readable(v) {
		return c, fmt.Errorf("%w %d", ErrFormat, v)
	}
	body := b[:len(b)-8]
	cookie, counts, expiry := int(le.Uint32(b[88:])), int(le.Uint32(b[92:])), int(le.Uint32(b[96:]))
	if xxhash.Sum64(body) != le.Uint64(b[len(body):]) || len(body) != checkpointFixed+cookie+counts+expiry {
		return c, errChecksum
	}
	c = CheckpointInfo{
		Kind: CheckpointKind(le.Uint32(b[12:])), Version: le.Uint64(b[16:]),
		Time:  time.UnixMilli(int64(le.Uint64(b[24:]))),
		Begin: int64(le.Uint64(b[32:])), Tail: int64(le.Uint64(b[40:])), Keys: int64(le.Uint64(b[48:])),
		Bytes: int64(le.Uint64(b[56:])), Took: time.Duration(le.Uint32(b[100:])) * time.Microsecond,
		Cookie:   body[checkpointFixed : checkpointFixed+cookie],
		snapshot: le.Uint64(b[64:]), start: record.Addr(le.Uint64(b[72:])), end: record.Addr(le.Uint64(b[80:])),
		counts: body[checkpointFixed+cookie:][:counts], expiry: body[checkpointFixed+cookie+counts:],
	}
	if c.Tail < 0 || c.Tail >= record.AddrEnd.Bytes() || c.Begin < 0 || c.Begin > c.Tail ||
		c.start > c.end || c.end > record.Addr(c.Tail/record.Unit) {
		return CheckpointInfo{}, fmt.Errorf("log from 0x%x to 0x%x, snapshot from %v to %v", c.Begin, c.Tail, c.start, c.end)
	}
	return c, nil
}
