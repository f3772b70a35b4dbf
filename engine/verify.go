package engine

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"rskv/engine/internal/manifest"
	"rskv/engine/internal/record"
	"rskv/ioring"
)

// Verify looks at a store that nobody has open, and writes nothing:
//
//	MANIFEST, MANIFEST.copy    decoded, the same store
//	checkpoint-*, snapshot-*   every byte
//	image-*                    every byte
//	log                        every record of every span up to the last commit
//	chunks                     if there is damage: those of every large value
//
// It takes one page of memory, and a little for each checkpoint.

// VerifyOptions say which store to look at.
type VerifyOptions struct {
	// Dir is the store's directory. Nothing in it is changed; it is locked
	// meanwhile, as by a store that has it open.
	Dir string
	// Device is looked at instead if it is set; it stays open.
	Device ioring.Device
	// Progress is told, if set, how many bytes of log have been read, and about
	// how many there are.
	Progress func(done, total int64)
}

// Damage is something that is not as it was written.
type Damage struct {
	// File is the segment or the metadata file, as the directory names it but
	// without the ending of metadata files.
	File string
	// From and Until are the byte addresses in the log between which nothing
	// verifies; both -1 for a metadata file.
	From, Until int64
	// Err is what was wrong where it begins. A missing segment is
	// ioring.ErrNoSegment, a missing file ioring.ErrNoMeta.
	Err error
}

func (d Damage) String() string {
	if d.From < 0 {
		return fmt.Sprintf("%s: %v", d.File, d.Err)
	}
	return fmt.Sprintf("%s: log 0x%x to 0x%x (%d bytes): %v", d.File, d.From, d.Until, d.Until-d.From, d.Err)
}

// VerifyResult is what Verify found.
type VerifyResult struct {
	Damages      int   // stretches of log and metadata files that were reported
	DamagedBytes int64 // of the log

	Opens bool   // Open would succeed, with an index no larger than the store's
	Why   string // why it would not

	Version     uint64 // of the last commit that verifies
	Keys        int64  // live keys, as that commit counts them
	Checkpoints int    // whose metadata and snapshot are whole
	Begin, Tail int64  // byte addresses: of the committed log
	Discarded   int64  // bytes behind it that were never committed

	// Of the committed log, what verifies.
	Bytes      int64
	Records    uint64 // all records
	Values     uint64 // versions of keys with the value in the record
	Large      uint64 // versions of keys with the value in chunks
	Tombstones uint64
	Chunks     uint64
	Commits    uint64
	// Chunks that large values list, old versions among them, and that do not
	// verify; and how many such values there are. Looked for only when there is
	// damage in the log.
	LostChunks uint64
	LostValues uint64
}

// Verify checks everything that is stored, and reports every stretch of damage,
// in order. An error means that it could not look: ErrNotAStore, ErrFormat,
// ErrLocked, or the operating system's. Damage is no error. report may be nil.
func Verify(opt VerifyOptions, report func(Damage)) (VerifyResult, error) {
	v, err := openVerifier(opt, report)
	if err == nil {
		err = v.run()
		err = errors.Join(err, v.close())
	}
	if err != nil {
		return VerifyResult{}, fmt.Errorf("verify: %w", err)
	}
	return v.res, nil
}

// verifier is one run of Verify, or the reading half of Salvage.
type verifier struct {
	opt    VerifyOptions
	src    source
	report func(Damage)
	m      *manifest.Manifest // nil: both copies are damaged
	walk   *logWalk
	list   []soundCheckpoint // newest first
	image  *image            // the newest, if it is whole
	res    VerifyResult
	done   int64 // bytes of log read, for Progress
	total  int64
	clock  int64 // the latest time of a commit, ms since 1970
}

// soundCheckpoint is a checkpoint whose metadata verify.
type soundCheckpoint struct {
	CheckpointInfo
	usable bool // it has a snapshot that verifies and fits the index
}

func openVerifier(opt VerifyOptions, report func(Damage)) (*verifier, error) {
	v := &verifier{opt: opt, report: report}
	if opt.Device != nil {
		v.src = deviceSource{opt.Device, GoRunner().Wait}
		return v, nil
	}
	src, err := openDir(opt.Dir)
	if err != nil {
		return nil, err
	}
	v.src = src
	return v, nil
}

func (v *verifier) close() error {
	if v.walk != nil {
		v.walk.close()
	}
	if v.image != nil {
		return errors.Join(v.image.in.Close(), v.src.close())
	}
	return v.src.close()
}

func (v *verifier) run() error {
	if err := v.prepare(); err != nil || v.m == nil {
		return err
	}
	for _, span := range v.m.Spans {
		if err := v.walk.walk(span, v.m.Begin, span.End, v.visit, v.damaged); err != nil {
			return err
		}
	}
	v.res.Opens = v.res.Why == ""
	if v.res.DamagedBytes > 0 {
		return v.checkChunks()
	}
	return nil
}

// prepare reads the metadata, and settles where the log ends.
func (v *verifier) prepare() error {
	names, err := v.src.listMeta()
	if err != nil {
		return err
	}
	if err := v.readManifests(); err != nil || v.m == nil {
		return err
	}
	if size := v.src.segmentSize(); size != 0 && size != 1<<v.m.SegmentBits {
		v.fail(Damage{manifest.Name, -1, -1, fmt.Errorf("segments of %d bytes, but the files have %d", int64(1)<<v.m.SegmentBits, size)})
		v.m = nil
		return nil
	}
	if v.walk, err = newWalk(v.src, v.m); err != nil {
		return err
	}
	for i := len(names) - 1; i >= 0; i-- {
		if strings.HasPrefix(names[i], checkpointPrefix) {
			if err := v.checkCheckpoint(names[i]); err != nil {
				return err
			}
		}
	}
	for n, version := range imageVersions(names) {
		if err := v.checkImage(version, n == 0); err != nil {
			return err
		}
	}
	return v.settle()
}

// checkImage reads the image of a version, and keeps it if it is the newest.
func (v *verifier) checkImage(version uint64, newest bool) error {
	name := imageName(version)
	in, err := v.src.openMeta(name)
	if err != nil {
		return err
	}
	i, err := newImage(in, name, v.m)
	if err == nil {
		err = i.check()
	}
	switch {
	case err != nil:
		v.tell(Damage{name, -1, -1, err})
	case newest:
		v.image = i
		return nil
	}
	return in.Close()
}

// tell reports damage.
func (v *verifier) tell(d Damage) {
	v.res.Damages++
	if v.report != nil {
		v.report(d)
	}
}

// fail reports damage that keeps the store from opening.
func (v *verifier) fail(d Damage) {
	v.tell(d)
	v.res.Why = d.String()
}

// readManifests reads both copies of the manifest and takes the first that is
// whole.
func (v *verifier) readManifests() error {
	found := 0
	for _, name := range []string{manifest.Name, manifestCopy} {
		b, err := readMeta(v.src, name)
		if errors.Is(err, ioring.ErrNoMeta) {
			continue
		}
		found++
		var m *manifest.Manifest
		if err == nil {
			m, err = manifest.Decode(b)
		}
		switch {
		case errors.Is(err, manifest.ErrVersion):
			return fmt.Errorf("%w: %s: %w", ErrFormat, name, err)
		case err != nil:
			v.tell(Damage{name, -1, -1, err})
		case v.m == nil:
			v.m = m
		case v.m.StoreID != m.StoreID:
			v.tell(Damage{name, -1, -1, errors.New("it belongs to another store")})
		}
	}
	if found == 0 {
		return fmt.Errorf("%w: there is no %s", ErrNotAStore, manifest.Name)
	}
	if v.m == nil {
		v.res.Why = "no copy of the manifest is whole, and no record can be checked without it"
	}
	return nil
}

// checkCheckpoint reads a checkpoint and its snapshot.
func (v *verifier) checkCheckpoint(name string) error {
	b, err := readMeta(v.src, name)
	var info CheckpointInfo
	if err == nil {
		info, err = decodeCheckpoint(b)
	}
	if err == nil && checkpointName(info.Version) != name {
		err = fmt.Errorf("it is checkpoint %d", info.Version)
	}
	if err != nil {
		v.tell(Damage{name, -1, -1, err})
		return nil
	}
	c := soundCheckpoint{CheckpointInfo: info}
	whole := true
	if info.snapshot != 0 {
		snapshot := snapshotName(info.snapshot)
		if c.usable, err = v.checkSnapshot(snapshot, info); err != nil {
			v.tell(Damage{snapshot, -1, -1, err})
			whole = false
		}
	}
	if whole {
		v.res.Checkpoints++
	}
	v.list = append(v.list, c)
	return nil
}

func (v *verifier) checkSnapshot(name string, info CheckpointInfo) (usable bool, err error) {
	in, err := v.src.openMeta(name)
	if err != nil {
		return false, err
	}
	defer in.Close()
	r, err := newSnapshotReader(in, v.m, &info)
	if err != nil {
		return false, err
	}
	for {
		row, rows, _, err := r.next()
		switch {
		case err != nil:
			return false, err
		case rows == 0 && row != 1<<r.bits:
			return false, r.damaged(errSnapshot)
		case rows == 0:
			if n, _ := r.in.Seek(0, io.SeekCurrent); n != r.in.Size() {
				return false, r.damaged(errors.New("bytes behind its end"))
			}
			return r.anchor >= v.m.IndexAnchor, nil
		}
	}
}

// settle notes where the log ends in the manifest's last span.
func (v *verifier) settle() error {
	m := v.m
	if len(m.Spans) == 0 {
		return nil
	}
	last := &m.Spans[len(m.Spans)-1]
	from, vouched := max(last.Start, m.Begin), record.Addr(0) // vouched: by an image and its checkpoint
	for _, c := range v.list {
		if tail := record.Addr(c.Tail / record.Unit); c.Kind == SnapshotCheckpoint {
			vouched = max(vouched, tail)
		} else {
			from = max(from, tail)
		}
	}
	open := last.End == 0
	if open {
		end, seen, err := v.walk.settle(*last, from)
		if err != nil {
			return err
		}
		last.End = v.settleImage(last.Generation, end, true)
		v.res.Discarded = (max(seen, last.End) - last.End).Bytes()
	} else {
		v.settleImage(last.Generation, last.End, false)
	}
	if from = max(from, vouched); from > last.End {
		v.fail(Damage{manifest.Name, -1, -1, fmt.Errorf("the log ends at %v, but a checkpoint was durable up to %v", last.End, from)})
		if open {
			last.End = from // what is not there is told
		}
	}
	v.res.Begin, v.res.Tail = m.Begin.Bytes(), last.End.Bytes()
	for _, span := range m.Spans {
		if span.End > m.Begin {
			v.total += int64(span.End-max(span.Start, m.Begin)) * record.Unit
		}
	}
	v.walk.step = v.progress
	return nil
}

// settleImage has the log of the last span read through the newest image if that is
// what a recovery would do, and returns where it ends then: see Store.settleImage.
func (v *verifier) settleImage(generation uint64, end record.Addr, unsettled bool) record.Addr {
	i := v.image
	if i == nil || !i.ends(generation, end, unsettled) {
		return end
	}
	v.walk.src = imagedSource{v.src, i}
	return i.until
}

func (v *verifier) progress(n int64) error {
	v.done += n
	if v.opt.Progress != nil {
		v.opt.Progress(v.done, max(v.total, v.done))
	}
	return nil
}

func (v *verifier) damaged(from, until record.Addr, why error) error {
	if v.res.Why == "" && until > v.replayFrom() {
		v.res.Why = fmt.Sprintf("the log is damaged at %v, and recovery has to read it", from)
	}
	v.res.DamagedBytes += int64(until-from) * record.Unit
	v.tell(Damage{segmentFile(1<<v.m.SegmentBits, from.Bytes()), from.Bytes(), until.Bytes(), why})
	return nil
}

// replayFrom is where a recovery begins to replay.
func (v *verifier) replayFrom() record.Addr {
	for _, c := range v.list {
		if c.usable && c.end.Bytes() <= v.res.Tail {
			return max(c.start, v.m.Begin)
		}
	}
	return v.m.Begin
}

func (v *verifier) visit(r *logRecord) error {
	res := &v.res
	if r.isCommit() {
		span, _ := v.m.SpanOf(r.addr)
		c, err := decodeCommit(r.image[record.HeaderSize:], span.Generation)
		if err != nil {
			return v.damaged(r.addr, r.until(), err)
		}
		res.Version, res.Keys = c.version, c.keys
		v.clock = max(v.clock, c.time)
		res.Commits++
	}
	res.Records++
	res.Bytes += int64(len(r.image))
	switch {
	case record.KindOf(r.w1) == record.System:
		if record.KeyLen(r.w0) == record.TypeChunk {
			res.Chunks++
		}
	case r.w1&record.Invalid != 0:
	case record.KindOf(r.w1) == record.Tombstone:
		res.Tombstones++
	case record.KindOf(r.w1) == record.Big:
		res.Large++
	default:
		res.Values++
	}
	return nil
}

// checkChunks reads the chunks of all large values.
func (v *verifier) checkChunks() error {
	v.total += v.done
	visit := func(r *logRecord) error {
		if !r.isUser() || record.KindOf(r.w1) != record.Big {
			return nil
		}
		lost, err := v.lostChunks(r)
		v.res.LostChunks += lost
		if lost > 0 {
			v.res.LostValues++
		}
		return err
	}
	known := func(_, _ record.Addr, _ error) error { return nil }
	for _, span := range v.m.Spans {
		if err := v.walk.walk(span, v.m.Begin, span.End, visit, known); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) lostChunks(r *logRecord) (lost uint64, err error) {
	total, chunks, err := chunkList(r.value())
	if err != nil {
		return 1, nil
	}
	for i, a := range chunks {
		if a < v.m.Begin {
			continue // of a version that is older than the log
		}
		if _, err := v.walk.chunk(a, min(chunkBytes, total-i*chunkBytes), r.key()); err != nil {
			lost++
		}
	}
	return lost, nil
}
