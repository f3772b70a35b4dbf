package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"rskv/engine/internal/hlog"
	"rskv/engine/internal/manifest"
	"rskv/engine/internal/record"
	"rskv/ioring"
)

// Recovery says what Open found in the log.
type Recovery struct {
	Version   uint64 // of the last commit, 0 in a new store
	Snapshot  uint64 // of the checkpoint whose snapshot was loaded, 0: none
	Keys      int64  // live keys
	Records   uint64 // records replayed
	Bytes     int64  // log replayed
	Discarded int64  // bytes behind the last commit that were not committed

	end    record.Addr // of the last commit group
	commit record.Addr // of the last commit record
	begin  record.Addr // of the log at that commit
	next   uint64      // version counter to go on from

	newest uint64      // highest version there was, if some were discarded
	from   record.Addr // where the replay began

	snapshotBytes int64 // size of the snapshot loaded
	clock         int64 // time of the last commit, ms since 1970; 0: there was none
	swept         int64 // of the last commit: what is not counted any more, see sweeper.go
	sweptFrom     record.Addr
	liveBytes     int64
	history       LedgerHistory
}

// recover brings the index to the state of the last commit.
//
// The log is its spans in order, each from its start to its end. Only the last
// one may be open, after a crash: its end is where the last valid commit group
// ends. That is found first, by verifying every record up to the first that does
// not hold, from where the newest checkpoint began to be copied. An image that lies
// behind it is put back into the log, see image.go. Then the newest
// index snapshot that is sound, and that a commit makes valid, is loaded, and the
// log from its start on is replayed; without one, the whole log: see replay.go.
func (s *Store) recover(m *manifest.Manifest) error {
	list, err := s.usableCheckpoints()
	if err != nil {
		return err
	}
	end, err := s.settleEnd(m, list)
	if err != nil {
		return err
	}
	if list, err = s.chooseVersion(m, list, &end); err != nil {
		return err
	}
	if err := s.loadNewest(m, list, end); err != nil {
		return err
	}
	for _, span := range m.Spans {
		if span.Start == span.End {
			continue
		}
		s.recovery.end = span.End
		if span.End <= s.recovery.from {
			continue
		}
		if err := s.replay(m, span); err != nil {
			return err
		}
	}
	// A commit that was cut but not durable when the last run ended may have
	// used one more number, and one before it that was cut for an image another.
	s.recovery.next = max(s.recovery.Version, s.recovery.newest) + 2
	if m.Generation == 0 {
		s.recovery.next = 0 // a new store
	}
	s.recovery.history = LedgerHistory{since: s.committedIn(m), until: m.Generation, version: s.recovery.Version}
	s.live.Store(s.recovery.Keys)
	s.liveBytes.Store(s.recovery.liveBytes)
	s.stats.freed.Store(uint64(m.Begin &^ record.Addr(s.opt.SegmentSize/record.Unit-1)))
	return nil
}

// committedIn is the generation that made the commit which was recovered. Those
// behind it ended before they committed anything.
func (s *Store) committedIn(m *manifest.Manifest) uint64 {
	for _, span := range slices.Backward(m.Spans) {
		if span.Start != span.End {
			return span.Generation
		}
	}
	if s.recovery.Version == 0 {
		return 1 // nothing was ever committed
	}
	return m.Generation
}

// usableCheckpoints lists the sound checkpoints, newest first.
func (s *Store) usableCheckpoints() ([]CheckpointInfo, error) {
	list, err := s.Checkpoints()
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return nil, err
	}
	if err != nil {
		s.opt.Logger.Warn("checkpoint is damaged and not used", slog.Any("error", err))
	}
	return list, nil
}

// settleEnd finds where the log ends, and notes it in the manifest's last span.
func (s *Store) settleEnd(m *manifest.Manifest, list []CheckpointInfo) (record.Addr, error) {
	if len(m.Spans) == 0 {
		return 0, nil
	}
	last := &m.Spans[len(m.Spans)-1]
	var seen record.Addr
	var version uint64
	var err error
	unsettled := last.End == 0
	if unsettled {
		from := max(last.Start, m.Begin) // below it the log may be gone
		for _, c := range list {
			if c.snapshot != 0 && c.start > from {
				from = c.start
				break
			}
		}
		if last.End, seen, version, err = s.findEnd(m, *last, from); err != nil {
			return 0, err
		}
	}
	if err := s.settleImage(m, last, version, unsettled); err != nil {
		return 0, err
	}
	if seen > last.End {
		s.recovery.Discarded = (seen - last.End).Bytes()
	}
	if len(list) > 0 && list[0].Tail > last.End.Bytes() {
		return 0, corrupt("committed log", last.End, fmt.Errorf("checkpoint %d was durable up to 0x%x", list[0].Version, list[0].Tail))
	}
	return last.End, nil
}

// chooseVersion cuts the log off behind the checkpoint that the options ask for.
func (s *Store) chooseVersion(m *manifest.Manifest, list []CheckpointInfo, end *record.Addr) ([]CheckpointInfo, error) {
	version := s.opt.RecoverVersion
	if version == 0 {
		return list, nil
	}
	i := slices.IndexFunc(list, func(c CheckpointInfo) bool { return c.Version == version })
	if i < 0 {
		var kept []uint64
		for _, c := range list {
			kept = append(kept, c.Version)
		}
		return nil, fmt.Errorf("%w: version %d is not kept, these are: %v", ErrBadCheckpoint, version, kept)
	}
	// Numbers are never used twice, not even those of what is discarded.
	newest, err := s.newestVersion(m, list)
	if err != nil {
		return nil, err
	}
	s.recovery.newest = newest
	tail := record.Addr(list[i].Tail / record.Unit)
	n := len(m.Spans)
	for n > 0 && m.Spans[n-1].Start >= tail {
		n--
	}
	if n == 0 {
		return nil, corrupt("committed log", tail, fmt.Errorf("no span of the log reaches checkpoint %d", version))
	}
	m.Spans = m.Spans[:n]
	was := *end
	s.recovery.Discarded += (was - tail).Bytes()
	*end, m.Spans[n-1].End = tail, tail
	for _, c := range list[:i] {
		s.stale = append(s.stale, checkpointName(c.Version))
	}
	images, err := s.images()
	if err != nil {
		return nil, err
	}
	for _, v := range images {
		if v > version {
			s.stale = append(s.stale, imageName(v))
		}
	}
	if list[i].Kind == SnapshotCheckpoint && was > tail {
		if err := s.rollBackImage(m, version); err != nil {
			return nil, err
		}
	}
	return list[i:], nil
}

// newestVersion is the version of the last commit in the log; where that is damaged,
// one that it cannot exceed.
func (s *Store) newestVersion(m *manifest.Manifest, list []CheckpointInfo) (newest uint64, err error) {
	from := record.Addr(list[0].Tail / record.Unit)
	newest = list[0].Version
	for _, span := range m.Spans {
		if span.End <= from {
			continue
		}
		r := s.newScan(m, span, from)
		for r.at < span.End && err == nil {
			var w0, w1 uint64
			var body []byte
			if _, w0, w1, body, err = r.next(); err == nil && isCommit(w0, w1) {
				var c commitInfo
				if c, err = decodeCommit(body, span.Generation); err == nil {
					newest = max(newest, c.version)
				}
			}
		}
		r.close()
		if errors.Is(err, errLogEnd) {
			// Damage, which is going to be discarded with the rest: as many
			// commits as there are sectors.
			newest += uint64((span.End-r.at).Bytes()/hlog.SectorSize) + 1
			err = nil
		}
	}
	return newest, err
}

// loadNewest loads the newest snapshot that is sound and valid, and sets from
// where the log is replayed.
func (s *Store) loadNewest(m *manifest.Manifest, list []CheckpointInfo, end record.Addr) error {
	s.recovery.from = m.Begin
	for _, c := range list {
		if c.snapshot == 0 || c.end > end {
			continue
		}
		ok, err := s.loadSnapshot(m, &c)
		if ok {
			s.recovery.from = max(c.start, m.Begin)
			s.recovery.snapshotBytes, s.recovery.Snapshot = c.Bytes, c.Version
			if err := s.sweep.restore(c.expiry); err != nil {
				return &CorruptError{Where: checkpointName(c.Version), Addr: -1, Err: err}
			}
			s.ledgers.restore(c.counts, 0)
			return nil
		}
		switch {
		case err == nil: // an index of another anchor: the log has everything
		case errors.Is(err, ErrCorrupt), errors.Is(err, ioring.ErrNoMeta):
			s.opt.Logger.Warn("snapshot is damaged and not used", slog.Any("error", err))
		default:
			return err
		}
	}
	return s.refillIndex()
}

// findEnd returns the end of the last valid commit group of an open span, with its
// version, and the first address that does not verify, looking from a record border on
// that is known to be committed. A group that was cut for an image is not one: what
// the log has of it may have been changed since.
//
// What does not verify may be a torn tail or damage. Every commit record tells
// up to where the log was durable when it was cut, so a valid one behind the
// place, that says that the place was durable, makes it damage.
func (s *Store) findEnd(m *manifest.Manifest, span manifest.Span, from record.Addr) (end, seen record.Addr, version uint64, err error) {
	end = max(from, span.Start)
	r, err := s.pass(m, span, from, useNone, func(p *passPage) error {
		for _, c := range p.commits {
			s.noteIndexBits(c.indexBits)
			if !c.imaged {
				end, version = sectorEnd(c.until), c.version
			}
		}
		return nil
	})
	if err != nil {
		return 0, 0, 0, err
	}
	seen, why := r.at, r.why
	behind := s.newScan(m, span, seen)
	defer behind.close()
	durable, err := behind.attested()
	if err != nil {
		return 0, 0, 0, err
	}
	if durable > seen {
		return 0, 0, 0, corrupt("committed log", seen, why)
	}
	return end, seen, version, nil
}

// sectorEnd rounds up to a sector border.
func sectorEnd(a record.Addr) record.Addr {
	const units = hlog.SectorSize / record.Unit
	return (a + units - 1) &^ (units - 1)
}

func isCommit(w0, w1 uint64) bool {
	return record.KindOf(w1) == record.System && record.KeyLen(w0) == record.TypeCommit
}

// replay applies the records of a span up to its end.
func (s *Store) replay(m *manifest.Manifest, span manifest.Span) error {
	r, err := s.pass(m, span, s.recovery.from, useIndex, func(p *passPage) error {
		for _, c := range p.commits {
			s.recovery.Version, s.recovery.Keys, s.recovery.commit = c.version, c.keys, c.addr
			s.recovery.begin, s.recovery.liveBytes = c.begin, c.bytes
			s.recovery.clock = max(s.recovery.clock, c.time)
			s.recovery.swept, s.recovery.sweptFrom = c.swept, c.sweptFrom
			s.ledgers.restore(c.counts, c.addr)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if r.at < span.End {
		return corrupt("log", r.at, fmt.Errorf("it ends before %v: %w", span.End, r.why))
	}
	s.recovery.Records += r.records
	s.recovery.Bytes += int64(span.End-max(span.Start, s.recovery.from)) * record.Unit
	return nil
}

// commitInfo is a decoded commit record.
type commitInfo struct {
	version   uint64
	keys      int64
	bytes     int64       // of live records, estimated
	begin     record.Addr // of the log
	durable   record.Addr // what was durable when it was cut
	time      int64       // by the store's clock, ms since 1970
	swept     int64       // keys that had expired by then, ms since 1970, are not counted ...
	sweptFrom record.Addr // ... if their records are here or above
	imaged    bool        // it was cut for an image
	counts    []byte      // of the ledgers that changed
	indexBits uint32
	addr      record.Addr // of the record
	until     record.Addr // behind it
}

func decodeCommit(b []byte, generation uint64) (c commitInfo, err error) {
	le := binary.LittleEndian
	fixed := commitPayload
	if len(b) >= commitPayload1 && string(b[:8]) == commitMagic1 {
		fixed = commitPayload1
	} else if len(b) < commitPayload || string(b[:8]) != commitMagic && string(b[:8]) != commitImage {
		return c, errors.New("not a commit record")
	}
	if g := le.Uint64(b[8:]); g != generation {
		return c, fmt.Errorf("generation %d, expected %d", g, generation)
	}
	n := int(le.Uint32(b[52:])) * ledgerEntry
	if len(b) < fixed+n {
		return c, fmt.Errorf("%d bytes of session numbers in a payload of %d", n, len(b))
	}
	c = commitInfo{
		version: le.Uint64(b[16:]), begin: record.Addr(le.Uint64(b[24:])), durable: record.Addr(le.Uint64(b[32:])),
		keys: int64(le.Uint64(b[40:])), bytes: int64(le.Uint64(b[64:])),
		imaged: string(b[:8]) == commitImage, counts: b[fixed : fixed+n], indexBits: le.Uint32(b[48:]), time: int64(le.Uint64(b[56:])),
	}
	if fixed == commitPayload {
		c.swept, c.sweptFrom = int64(le.Uint64(b[72:])), record.Addr(le.Uint64(b[80:]))
	}
	return c, nil
}
