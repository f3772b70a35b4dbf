package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"rskv/engine/internal/index"
	"rskv/engine/internal/record"
)

// Version is what one write has made of a key, as the log has it.
//
// A record that was updated in place before it was written has its last state only:
// those before are not in the log. A version may be there twice, as it was written and
// as compaction has copied it: then the copy says Moved.
type Version struct {
	Addr    int64  // byte address of its record
	Key     []byte // the caller's memory, as Value
	Value   []byte // nil: the key was deleted, or the value is large
	Size    int64  // of the value in bytes
	Deleted bool
	Large   bool  // the value is in chunks, which are not read
	Moved   bool  // compaction has written this record
	Expiry  int64 // when it expires, in ms since 1970; 0: it does not
}

// versionOf copies what a record says.
func versionOf(r *logRecord) Version {
	v := Version{
		Addr: r.addr.Bytes(), Key: bytes.Clone(r.key()), Deleted: record.KindOf(r.w1) == record.Tombstone,
		Large: record.KindOf(r.w1) == record.Big, Moved: r.w1&record.Moved != 0,
	}
	if v.Deleted {
		return v // what is left of a value in place of which it stands says nothing
	}
	v.Expiry = r.expiry()
	if v.Large {
		v.Size = int64(binary.LittleEndian.Uint64(r.value()))
		return v
	}
	v.Value = append([]byte{}, r.value()...)
	v.Size = int64(len(v.Value))
	return v
}

// Log returns the versions that the log has, deletes too, in its order, from a byte
// address on to a commit made at the beginning. from may lie within a record: it
// begins with the next. Below Stats.LogBegin there is nothing: ErrCursor, which also
// ends it when compaction is faster, as it does a scan; see Scan. The log is read
// once, page by page, the next ahead.
//
// The second is the error that ended it: it comes with an empty version, as the last.
func (s *Store) Log(ctx context.Context, from int64) iter.Seq2[Version, error] {
	return func(yield func(Version, error) bool) {
		err := s.versions(ctx, from, func(r *logRecord) bool { return yield(versionOf(r), nil) })
		if err != nil && err != errEnough {
			yield(Version{}, fmt.Errorf("read log: %w", err))
		}
	}
}

func (s *Store) versions(ctx context.Context, from int64, yield func(*logRecord) bool) error {
	if from < s.log.Begin().Bytes() {
		return fmt.Errorf("%w: the log begins at %d, not at %d", ErrCursor, s.log.Begin().Bytes(), from)
	}
	id := s.scans.begin()
	defer s.scans.end(id)
	cut, err := s.cutFor(ctx)
	if err != nil {
		return err
	}
	reader, err := s.newScanReader(s.manifestUntil(cut.end).Spans, true)
	if err != nil {
		return err
	}
	defer reader.close()
	// Pages begin with a record, so that is where to look for the next one.
	at := max(record.Addr(from&^int64(s.opt.PageSize-1)/record.Unit), s.log.Begin())
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		var r logRecord
		ok, err := reader.next(at, &r)
		if err != nil || !ok {
			return err
		}
		if r.isUser() && r.addr.Bytes() >= from && !yield(&r) {
			return errEnough
		}
		at = r.next()
		s.scans.move(id, at)
	}
}

// History returns the versions of a key that the log still has, the newest first, as
// of a commit made at the beginning: it follows the key's chain from record to older
// record, and reads one piece of the log for each that is not in memory. Where the
// log begins by then, or has been compacted, the history ends.
//
// The second is the error that ended it: it comes with an empty version, as the last.
func (s *Store) History(ctx context.Context, key []byte) iter.Seq2[Version, error] {
	return func(yield func(Version, error) bool) {
		err := s.history(ctx, key, func(r *logRecord) bool { return yield(versionOf(r), nil) })
		if err != nil && err != errEnough {
			yield(Version{}, fmt.Errorf("history of a key: %w", err))
		}
	}
}

func (s *Store) history(ctx context.Context, key []byte, yield func(*logRecord) bool) error {
	if len(key) == 0 {
		return ErrKeyEmpty
	}
	if len(key) > MaxKey {
		return ErrKeyTooLarge
	}
	at, end, err := s.chainBelow(ctx, key)
	if err != nil {
		return err
	}
	spans := s.manifestUntil(end).Spans
	reader, err := s.newScanReader(spans, false)
	if err != nil {
		return err
	}
	defer reader.close()
	for at >= record.FirstAddr && at >= s.log.Begin() {
		if err := ctx.Err(); err != nil {
			return err
		}
		var r logRecord
		reader.spans = spans // which it leaves behind in the other direction
		ok, err := reader.next(at, &r)
		if errors.Is(err, ErrCursor) {
			return nil // the log begins behind it by now
		}
		if err != nil || !ok {
			return err
		}
		if r.isUser() && bytes.Equal(r.key(), key) && !yield(&r) {
			return errEnough
		}
		at = record.Prev(r.w0)
	}
	return nil
}

// chainBelow makes a commit, and returns the newest record of a key's chain below its
// end.
func (s *Store) chainBelow(ctx context.Context, key []byte) (at, end record.Addr, err error) {
	n := s.NewSession()
	defer n.Close()
	hash := record.Hash(s.seed, key)
	for {
		cut, err := s.cutFor(ctx)
		if err != nil {
			return 0, 0, err
		}
		if err := n.enter(false); err != nil {
			return 0, 0, err
		}
		_, entry := s.index.Find(hash)
		at = index.Address(entry)
		for at >= cut.end && at >= n.mem {
			at = record.Prev(record.Load0(s.log.Pointer(at)))
		}
		n.exit()
		if at < cut.end {
			return at, cut.end, nil
		}
		// So much was written meanwhile that the commit has left memory: another.
	}
}
