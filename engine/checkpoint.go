package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
)

// CheckpointKind says what a checkpoint contains.
type CheckpointKind uint8

const (
	// LogCheckpoint is a commit with a name: the log up to it is durable, and a
	// metadata file says so. Recovery replays the log.
	LogCheckpoint CheckpointKind = iota + 1
)

const (
	// CookieMax is the largest cookie in bytes.
	CookieMax = 64 << 10
	// checkpointsKept is how many metadata files stay.
	checkpointsKept = 3

	checkpointPrefix = "checkpoint-"
	checkpointMagic  = "rskvCKPT"
	checkpointFixed  = 80
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
	Version uint64 // of the commit, its name
	Kind    CheckpointKind
	Time    time.Time
	Begin   int64 // byte address the log begins at
	Tail    int64 // byte address up to which it is durable
	Keys    int64
	Bytes   int64         // written for it: log and metadata
	Took    time.Duration // zero when read back
	Cookie  []byte
}

// Checkpoint makes everything applied before the call durable under a name: the
// version of its commit. Operations go on meanwhile.
func (s *Store) Checkpoint(ctx context.Context, opt CheckpointOptions) (CheckpointInfo, error) {
	if opt.Kind != LogCheckpoint || len(opt.Cookie) > CookieMax {
		return CheckpointInfo{}, fmt.Errorf("%w: kind %d, cookie of %d bytes (at most %d)", ErrBadCheckpoint, opt.Kind, len(opt.Cookie), CookieMax)
	}
	s.checkpoint.Lock()
	defer s.checkpoint.Unlock()
	start, before := s.opt.Clock.Monotonic(), s.log.Durable()
	version, err := s.Sync(ctx)
	if err != nil {
		return CheckpointInfo{}, err
	}
	info := CheckpointInfo{
		Version: version, Kind: opt.Kind, Time: time.UnixMilli(s.opt.Clock.Wall()), Cookie: opt.Cookie,
		Begin: s.log.Begin().Bytes(), Tail: s.log.Durable().Bytes(), Keys: s.Len(),
	}
	b := info.encode()
	info.Bytes = info.Tail - before.Bytes() + int64(len(b))
	name := fmt.Sprintf("%s%020d", checkpointPrefix, version)
	if err := s.dev.WriteMeta(name, b); err != nil {
		return info, fmt.Errorf("write %s: %w", name, err)
	}
	info.Took = time.Duration(s.opt.Clock.Monotonic() - start)
	return info, s.dropOldCheckpoints()
}

// dropOldCheckpoints removes all but the newest metadata files.
func (s *Store) dropOldCheckpoints() error {
	names, err := s.checkpointNames()
	if err != nil {
		return err
	}
	for _, name := range names[min(checkpointsKept, len(names)):] {
		if err := s.dev.RemoveMeta(name); err != nil {
			return fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return nil
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

// Checkpoints lists the checkpoints kept, newest first.
func (s *Store) Checkpoints() ([]CheckpointInfo, error) {
	s.checkpoint.Lock()
	defer s.checkpoint.Unlock()
	names, err := s.checkpointNames()
	if err != nil {
		return nil, err
	}
	var list []CheckpointInfo
	for _, name := range names {
		b, err := s.dev.ReadMeta(name)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		info, err := decodeCheckpoint(b)
		if err != nil {
			return nil, &CorruptError{Where: name, Addr: -1, Err: err}
		}
		list = append(list, info)
	}
	return list, nil
}

// encode returns the bytes of the metadata file: see FORMAT.md.
func (c *CheckpointInfo) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, checkpointFixed, checkpointFixed+len(c.Cookie)+8)
	copy(b, checkpointMagic)
	le.PutUint32(b[8:], 1)
	le.PutUint32(b[12:], uint32(c.Kind))
	le.PutUint64(b[16:], c.Version)
	le.PutUint64(b[24:], uint64(c.Time.UnixMilli()))
	le.PutUint64(b[32:], uint64(c.Begin))
	le.PutUint64(b[40:], uint64(c.Tail))
	le.PutUint64(b[48:], uint64(c.Keys))
	le.PutUint32(b[56:], uint32(len(c.Cookie)))
	b = append(b, c.Cookie...)
	return le.AppendUint64(b, xxhash.Sum64(b))
}

func decodeCheckpoint(b []byte) (c CheckpointInfo, err error) {
	le := binary.LittleEndian
	if len(b) < checkpointFixed+8 || string(b[:8]) != checkpointMagic {
		return c, errors.New("not a checkpoint")
	}
	if v := le.Uint32(b[8:]); v != 1 {
		return c, fmt.Errorf("%w %d", ErrFormat, v)
	}
	body := b[:len(b)-8]
	if xxhash.Sum64(body) != le.Uint64(b[len(body):]) || len(body) != checkpointFixed+int(le.Uint32(b[56:])) {
		return c, errChecksum
	}
	return CheckpointInfo{
		Kind: CheckpointKind(le.Uint32(b[12:])), Version: le.Uint64(b[16:]),
		Time:  time.UnixMilli(int64(le.Uint64(b[24:]))),
		Begin: int64(le.Uint64(b[32:])), Tail: int64(le.Uint64(b[40:])), Keys: int64(le.Uint64(b[48:])),
		Bytes: int64(len(b)), Cookie: body[checkpointFixed:],
	}, nil
}
