package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"rskv/engine/internal/manifest"
	"rskv/engine/internal/record"
	"rskv/ioring"
)

// A backup is a stream: what a store is at one checkpoint, in an order in which
// it can be written out as it comes, every piece with a checksum.
//
//	header     offset  size  field
//	           0       8     "rskvBKUP"
//	           8       4     format version, 1
//	           12      4     zero
//	           16      16    store id
//	           32      8     version of the checkpoint
//	           40      8     wall time of the checkpoint in ms
//	           48      8     live keys
//	           56      8     length of the whole stream in bytes
//	           64      8     xxhash64 of bytes 0 to 63
//	frames     offset  size  field
//	           0       4     kind, see below
//	           4       4     length of the payload in bytes, at most 16 MiB
//	           8       8     number of the frame, from 0
//	           16      8     place, see below
//	           24      ...   payload
//	           +0      8     xxhash64 of the frame so far
//
//	kind  payload                               place                 how often
//	1     MANIFEST of the restored store        0                     first frame
//	2     name of a metadata file               its length            checkpoint, snapshot
//	3     the next bytes of that file           offset                until it is whole
//	4     log, a page or a part of one          byte address          ascending
//	5     SHA-256 of all bytes before the frame number of these bytes last frame
//
// The log is copied from the device, below the tail of the checkpoint, where
// nothing ever changes; every record is verified on the way, so a backup never
// carries damage on.
//
// The restored store is the same store as of the checkpoint, with the same
// identity: the checksums of all records depend on it, and clients find the
// session numbers that belong to what the store holds. So a segment file of the
// one must never be put into the directory of the other.
const (
	backupMagic   = "rskvBKUP"
	backupHeader  = 72
	backupFrame   = 24 // before the payload
	backupSum     = 8  // behind it
	backupMost    = 16 << 20
	backupVersion = 1
	// backupPiece is how much of a metadata file goes into one frame.
	backupPiece = 256 << 10

	frameManifest = 1
	frameFile     = 2
	frameData     = 3
	frameLog      = 4
	frameEnd      = 5
)

// ErrBackup: the stream is not a backup, or it is damaged or cut short.
var ErrBackup = errors.New("backup is damaged")

// BackupInfo describes a backup.
type BackupInfo struct {
	StoreID     [16]byte
	Version     uint64    // of the checkpoint it holds
	Time        time.Time // of the checkpoint
	Keys        int64     // live keys
	Begin, Tail int64     // byte addresses of the log
	Bytes       int64     // of the stream
	SHA256      [32]byte  // of the stream up to its last frame, which holds it
}

// backupTries is how often a checkpoint is taken anew when the next ones have
// pushed it out before its files were opened.
const backupTries = 3

// Backup takes a full checkpoint and writes a copy of the store as of then to w.
// Operations go on meanwhile. It takes a page and 256 KiB of memory besides the
// budget. progress is told, if set, how many bytes have been written, of how
// many. If ctx ends, Backup stops after the write that is under way; what w has
// got until an error is refused by VerifyBackup and Restore.
func (s *Store) Backup(ctx context.Context, w io.Writer, progress func(done, total int64)) (BackupInfo, error) {
	b := &backup{s: s, ctx: ctx, progress: progress}
	// Before the checkpoint, which cannot begin lower.
	s.pins.hold(b, s.log.Begin())
	defer s.pins.release(b)
	b.out.init(w)
	err := b.open()
	if err == nil {
		err = b.write()
	}
	if b.snapshot != nil {
		err = errors.Join(err, b.snapshot.Close())
	}
	if err != nil {
		return BackupInfo{}, fmt.Errorf("backup: %w", err)
	}
	return b.info, nil
}

// backup is one backup on its way.
type backup struct {
	s        *Store
	ctx      context.Context
	progress func(done, total int64)
	out      frameWriter

	info       BackupInfo
	checkpoint CheckpointInfo
	meta       []byte // of the checkpoint
	snapshot   ioring.MetaReader
	m          *manifest.Manifest
}

// open takes the checkpoint and opens its files, which then stay readable even
// when later checkpoints remove them.
func (b *backup) open() (err error) {
	s := b.s
	for range backupTries {
		if b.checkpoint, err = s.Checkpoint(b.ctx, CheckpointOptions{Kind: FullCheckpoint}); err != nil {
			return err
		}
		if b.meta, err = s.dev.ReadMeta(checkpointName(b.checkpoint.Version)); err == nil {
			b.snapshot, err = s.dev.OpenMeta(snapshotName(b.checkpoint.snapshot))
		}
		if !errors.Is(err, ioring.ErrNoMeta) {
			break
		}
	}
	if err != nil {
		return err
	}
	c := &b.checkpoint
	b.m = s.manifestUntil(record.Addr(c.Tail / record.Unit))
	b.m.Begin = record.Addr(c.Begin / record.Unit)
	b.info = BackupInfo{
		StoreID: b.m.StoreID, Version: c.Version, Time: time.UnixMilli(c.Time.UnixMilli()), Keys: c.Keys,
		Begin: b.m.Begin.Bytes(), Tail: c.Tail,
	}
	b.info.Bytes = b.size()
	return nil
}

// size is the length of the stream.
func (b *backup) size() int64 {
	const frame = backupFrame + backupSum
	n := int64(backupHeader + frame + len(b.m.Encode()) + frame + sha256.Size)
	for name, size := range map[string]int64{
		checkpointName(b.checkpoint.Version): int64(len(b.meta)), snapshotName(b.checkpoint.snapshot): b.snapshot.Size(),
	} {
		n += frame + int64(len(name)) + size + (size+backupPiece-1)/backupPiece*frame
	}
	b.eachPage(func(_ manifest.Span, base, _, stop record.Addr) error {
		n += frame + int64(stop-base)*record.Unit
		return nil
	})
	return n
}

// eachPage calls fn for every page, or begun page, of the log: it begins at base,
// the records that count at from, and it is copied up to stop.
func (b *backup) eachPage(fn func(span manifest.Span, base, from, stop record.Addr) error) error {
	units := record.Addr(1) << b.m.PageBits / record.Unit
	for _, span := range b.m.Spans {
		for at := max(span.Start, b.m.Begin); at < span.End; {
			base := at &^ (units - 1)
			stop := min(base+units, span.End)
			if err := fn(span, base, at, stop); err != nil {
				return err
			}
			at = stop
		}
	}
	return nil
}

func (b *backup) write() error {
	head := make([]byte, backupHeader)
	le := binary.LittleEndian
	copy(head, backupMagic)
	le.PutUint32(head[8:], backupVersion)
	copy(head[16:], b.info.StoreID[:])
	le.PutUint64(head[32:], b.info.Version)
	le.PutUint64(head[40:], uint64(b.info.Time.UnixMilli()))
	le.PutUint64(head[48:], uint64(b.info.Keys))
	le.PutUint64(head[56:], uint64(b.info.Bytes))
	le.PutUint64(head[64:], xxhash.Sum64(head[:64]))
	if err := b.out.write(head); err != nil {
		return err
	}
	if err := b.frame(frameManifest, 0, b.m.Encode()); err != nil {
		return err
	}
	if err := b.file(checkpointName(b.checkpoint.Version), bytes.NewReader(b.meta), int64(len(b.meta))); err != nil {
		return err
	}
	if err := b.file(snapshotName(b.checkpoint.snapshot), b.snapshot, b.snapshot.Size()); err != nil {
		return err
	}
	if err := b.log(); err != nil {
		return err
	}
	b.info.SHA256 = b.out.digest()
	return b.frame(frameEnd, uint64(b.out.bytes), b.info.SHA256[:])
}

// frame writes a frame unless ctx has ended.
func (b *backup) frame(kind uint32, place uint64, payload []byte) error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	if err := b.out.frame(kind, place, payload); err != nil {
		return err
	}
	if b.progress != nil {
		b.progress(b.out.bytes, b.info.Bytes)
	}
	return nil
}

func (b *backup) file(name string, in io.ReaderAt, size int64) error {
	if err := b.frame(frameFile, uint64(size), []byte(name)); err != nil {
		return err
	}
	piece := make([]byte, min(size, backupPiece))
	for off := int64(0); off < size; off += backupPiece {
		part := piece[:min(backupPiece, size-off)]
		if _, err := in.ReadAt(part, off); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if err := b.frame(frameData, uint64(off), part); err != nil {
			return err
		}
	}
	return nil
}

func (b *backup) log() error {
	walk, err := newWalk(deviceSource{b.s.dev, b.s.opt.Runner.Wait}, b.m)
	if err != nil {
		return err
	}
	defer walk.close()
	check := pageCheck{
		record:  func(*logRecord) error { return nil },
		damaged: func(from, _ record.Addr, why error) error { return corrupt("log", from, why) },
	}
	return b.eachPage(func(span manifest.Span, base, from, stop record.Addr) error {
		page, why, err := walk.load(base, stop)
		if err = errors.Join(err, why); err != nil {
			return fmt.Errorf("%w: read of log page %v: %w", ErrIO, base, err)
		}
		check.seed = record.NewSeed(b.m.StoreID, span.Generation)
		if err := check.run(page, base, from, stop); err != nil {
			return err
		}
		return b.frame(frameLog, uint64(base.Bytes()), page)
	})
}

// frameWriter writes a stream and counts what it has written.
type frameWriter struct {
	w      io.Writer
	sum    hash.Hash
	bytes  int64
	number uint64
}

func (f *frameWriter) init(w io.Writer) { f.w, f.sum = w, sha256.New() }

func (f *frameWriter) write(p []byte) error {
	n, err := f.w.Write(p)
	f.bytes += int64(n)
	f.sum.Write(p[:n])
	return err
}

func (f *frameWriter) frame(kind uint32, place uint64, payload []byte) error {
	head := make([]byte, 0, backupFrame)
	le := binary.LittleEndian
	head = le.AppendUint32(head, kind)
	head = le.AppendUint32(head, uint32(len(payload)))
	head = le.AppendUint64(head, f.number)
	head = le.AppendUint64(head, place)
	f.number++
	sum := xxhash.New()
	_, _ = sum.Write(head) // never fails
	_, _ = sum.Write(payload)
	for _, part := range [][]byte{head, payload, le.AppendUint64(nil, sum.Sum64())} {
		if err := f.write(part); err != nil {
			return err
		}
	}
	return nil
}

func (f *frameWriter) digest() (d [32]byte) {
	f.sum.Sum(d[:0])
	return d
}

// frameReader reads a stream, every byte checked.
type frameReader struct {
	r      io.Reader
	sum    hash.Hash
	bytes  int64
	number uint64
	memory *ioring.Memory // page aligned, for payloads that go to a device
	info   BackupInfo
}

// frame is one frame; payload is valid until the next is read.
type frame struct {
	kind    uint32
	place   uint64
	payload []byte
}

func badBackup(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrBackup, fmt.Errorf(format, args...))
}

func (f *frameReader) read(p []byte) error {
	n, err := io.ReadFull(f.r, p)
	f.bytes += int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return badBackup("it ends after %d bytes", f.bytes)
	}
	return err
}

// open reads the header.
func (f *frameReader) open() error {
	f.sum = sha256.New()
	head := make([]byte, backupHeader)
	if err := f.read(head); err != nil {
		return err
	}
	le := binary.LittleEndian
	if string(head[:8]) != backupMagic {
		return badBackup("it does not begin as one")
	}
	if v := le.Uint32(head[8:]); v != backupVersion {
		return fmt.Errorf("%w %d of a backup, this program reads version %d", ErrFormat, v, backupVersion)
	}
	if xxhash.Sum64(head[:64]) != le.Uint64(head[64:]) {
		return badBackup("header: %w", errChecksum)
	}
	f.sum.Write(head)
	copy(f.info.StoreID[:], head[16:])
	f.info.Version = le.Uint64(head[32:])
	f.info.Time = time.UnixMilli(int64(le.Uint64(head[40:])))
	f.info.Keys, f.info.Bytes = int64(le.Uint64(head[48:])), int64(le.Uint64(head[56:]))
	return nil
}

func (f *frameReader) next() (fr frame, err error) {
	start := f.bytes
	var head [backupFrame]byte
	if err := f.read(head[:]); err != nil {
		return fr, err
	}
	le := binary.LittleEndian
	n := int64(le.Uint32(head[4:]))
	if n > backupMost || le.Uint64(head[8:]) != f.number {
		return fr, badBackup("frame %d at byte %d is not one", f.number, start)
	}
	payload, err := f.room(n + backupSum)
	if err != nil {
		return fr, err
	}
	if err := f.read(payload); err != nil {
		return fr, err
	}
	sum := xxhash.New()
	_, _ = sum.Write(head[:]) // never fails
	_, _ = sum.Write(payload[:n])
	if sum.Sum64() != le.Uint64(payload[n:]) {
		return fr, badBackup("frame %d at byte %d: %w", f.number, start, errChecksum)
	}
	fr = frame{le.Uint32(head[:]), le.Uint64(head[16:]), payload[:n]}
	if fr.kind == frameEnd {
		return fr, f.end(fr, start)
	}
	f.sum.Write(head[:])
	f.sum.Write(payload)
	f.number++
	return fr, nil
}

// end checks the last frame, and that nothing follows.
func (f *frameReader) end(fr frame, start int64) error {
	f.sum.Sum(f.info.SHA256[:0])
	if fr.place != uint64(start) || !bytes.Equal(fr.payload, f.info.SHA256[:]) {
		return badBackup("the digest of its %d bytes is another", start)
	}
	if f.bytes != f.info.Bytes {
		return badBackup("it is %d bytes long, its header says %d", f.bytes, f.info.Bytes)
	}
	var more [1]byte
	if n, err := io.ReadFull(f.r, more[:]); n > 0 {
		return badBackup("there are bytes behind its end")
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// room returns n bytes at an address that every device takes.
func (f *frameReader) room(n int64) ([]byte, error) {
	if f.memory == nil || f.memory.Size() < n {
		if err := f.free(); err != nil {
			return nil, err
		}
		var err error
		if f.memory, err = ioring.AllocMemory(max(n, backupPiece+backupSum)); err != nil {
			return nil, err
		}
	}
	return f.memory.Bytes()[:n], nil
}

func (f *frameReader) free() error {
	if f.memory == nil {
		return nil
	}
	m := f.memory
	f.memory = nil
	return m.Free()
}

// VerifyBackup reads a backup to its end and checks every byte and the order of
// its parts: what it accepts, Restore does. ErrBackup says what is wrong.
func VerifyBackup(r io.Reader) (BackupInfo, error) {
	info, err := receive(r, discardBackup{})
	if err != nil {
		return BackupInfo{}, fmt.Errorf("verify backup: %w", err)
	}
	return info, nil
}

// backupTarget takes the parts of a backup in the order of the stream.
type backupTarget interface {
	begin(m *manifest.Manifest) error
	file(name string) error
	data(b []byte) error
	// log is given b at byte address off, inside one page.
	log(b []byte, off int64) error
	// finish is called when everything has been verified.
	finish(m *manifest.Manifest) error
}

type discardBackup struct{}

func (discardBackup) begin(*manifest.Manifest) error  { return nil }
func (discardBackup) file(string) error               { return nil }
func (discardBackup) data([]byte) error               { return nil }
func (discardBackup) log([]byte, int64) error         { return nil }
func (discardBackup) finish(*manifest.Manifest) error { return nil }

// receive reads a backup into a target.
func receive(r io.Reader, to backupTarget) (_ BackupInfo, err error) {
	p := receiver{frameReader: frameReader{r: r}, to: to}
	defer func() { err = errors.Join(err, p.free()) }()
	if err := p.open(); err != nil {
		return BackupInfo{}, err
	}
	for !p.ended {
		fr, err := p.next()
		if err == nil {
			err = p.take(fr)
		}
		if err != nil {
			return BackupInfo{}, err
		}
	}
	return p.info, to.finish(p.m)
}

// receiver checks that the parts of a backup come in order.
type receiver struct {
	frameReader
	to    backupTarget
	m     *manifest.Manifest // nil: not yet
	left  int64              // of the metadata file that is coming
	off   int64              // in it
	files int
	at    record.Addr // up to which the log has come
	ended bool
}

func (p *receiver) take(fr frame) error {
	switch {
	case p.m == nil && fr.kind == frameManifest && fr.place == 0:
		return p.takeManifest(fr.payload)
	case p.m == nil || p.left != 0 && fr.kind != frameData:
	case fr.kind == frameFile && p.at == 0 && p.isNext(string(fr.payload)):
		p.files++
		p.left, p.off = int64(fr.place), 0
		return p.to.file(string(fr.payload))
	case fr.kind == frameData && p.left > 0 && int64(fr.place) == p.off && int64(len(fr.payload)) <= p.left:
		p.off += int64(len(fr.payload))
		p.left -= int64(len(fr.payload))
		return p.to.data(fr.payload)
	case fr.kind == frameLog && p.files == 2:
		return p.takeLog(fr)
	case fr.kind == frameEnd && p.at.Bytes() == p.info.Tail && p.files == 2:
		p.ended = true
		return nil
	}
	return badBackup("frame %d of kind %d does not belong there", p.number-1, fr.kind)
}

// isNext reports whether this is the file that comes next.
func (p *receiver) isNext(name string) bool {
	if p.files == 0 {
		return name == checkpointName(p.info.Version)
	}
	number, err := strconv.ParseUint(strings.TrimPrefix(name, snapshotPrefix), 10, 64)
	return p.files == 1 && err == nil && name == snapshotName(number)
}

func (p *receiver) takeManifest(b []byte) error {
	m, err := manifest.Decode(b)
	if err != nil || m.StoreID != p.info.StoreID || len(m.Spans) == 0 || m.Spans[len(m.Spans)-1].End == 0 {
		return badBackup("manifest: %w", errors.Join(err, errChecksum))
	}
	for _, s := range m.Spans {
		if sectorEnd(s.End) != s.End { // where no commit group ends, and no device writes to
			return badBackup("manifest: the log of generation %d ends at %v", s.Generation, s.End)
		}
	}
	p.m = m
	p.info.Begin, p.info.Tail = m.Begin.Bytes(), m.Spans[len(m.Spans)-1].End.Bytes()
	return p.to.begin(m)
}

// takeLog takes a page, or the begun page at the end of a span.
func (p *receiver) takeLog(fr frame) error {
	units := record.Addr(1) << p.m.PageBits / record.Unit
	base := p.nextPage()
	span, _ := p.m.SpanOf(max(base, p.m.Begin))
	stop := min(base+units, span.End)
	if stop <= base || int64(fr.place) != base.Bytes() || int64(len(fr.payload)) != int64(stop-base)*record.Unit {
		return badBackup("frame %d: %d bytes of log at 0x%x, expected 0x%x", p.number-1, len(fr.payload), fr.place, base.Bytes())
	}
	p.at = stop
	return p.to.log(fr.payload, base.Bytes())
}

// nextPage is where the next page of the log begins.
func (p *receiver) nextPage() record.Addr {
	units := record.Addr(1) << p.m.PageBits / record.Unit
	for _, span := range p.m.Spans {
		if at := max(span.Start, p.m.Begin, p.at); at < span.End {
			return at &^ (units - 1)
		}
	}
	return p.at
}

// Restore makes a store from a backup, in the directory or on the device of opt,
// which must be empty or missing (ErrNotEmpty). Of opt only Dir, Device and IO
// count. Everything is verified on the way; the manifest comes last, so that
// what a damaged or cut stream leaves behind does not open, and it is removed as
// far as possible. The device is closed.
func Restore(r io.Reader, opt Options) (BackupInfo, error) {
	if err := checkEmpty(&opt); err != nil {
		return BackupInfo{}, fmt.Errorf("restore: %w", errors.Join(err, closeUnused(&opt)))
	}
	t := &restorer{opt: opt, dev: opt.Device}
	info, err := receive(r, t)
	if err != nil {
		err = errors.Join(err, t.undo())
	}
	if t.dev != nil {
		err = errors.Join(err, t.dev.Close())
	}
	if err != nil {
		return BackupInfo{}, fmt.Errorf("restore: %w", err)
	}
	return info, nil
}

// restorer writes a backup out.
type restorer struct {
	opt   Options
	dev   ioring.Device
	names []string
	files []ioring.MetaWriter // not yet committed
	kept  int                 // of them committed
	end   int64               // of the log written
}

func (t *restorer) begin(m *manifest.Manifest) (err error) {
	if t.dev == nil {
		t.dev, err = ioring.Open(ioring.Options{Dir: t.opt.Dir, Mode: t.opt.IO, SegmentSize: 1 << m.SegmentBits, BufferBytes: bufferBytes(0)})
	} else if page := int64(1) << m.PageBits; page > t.dev.SegmentSize() {
		err = fmt.Errorf("%w: pages of %d bytes do not fit segments of %d", ErrBadOptions, page, t.dev.SegmentSize())
	}
	return err
}

func (t *restorer) file(name string) error {
	w, err := t.dev.CreateMeta(name)
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	t.names, t.files = append(t.names, name), append(t.files, w)
	return nil
}

func (t *restorer) data(b []byte) error {
	if _, err := t.files[len(t.files)-1].Write(b); err != nil {
		return fmt.Errorf("write %s: %w", t.names[len(t.files)-1], err)
	}
	return nil
}

func (t *restorer) log(b []byte, off int64) error {
	t.end = off + int64(len(b))
	if err := t.do(&ioring.Op{Kind: ioring.Write, Off: off, Buf: b}); err != nil {
		return fmt.Errorf("write log at 0x%x: %w", off, err)
	}
	return nil
}

func (t *restorer) do(op *ioring.Op) error {
	return deviceSource{t.dev, GoRunner().Wait}.do(op)
}

// finish makes everything durable, and then a store of it.
func (t *restorer) finish(m *manifest.Manifest) error {
	if err := t.do(&ioring.Op{Kind: ioring.Sync}); err != nil {
		return fmt.Errorf("sync log: %w", err)
	}
	for i, w := range t.files {
		if err := w.Commit(); err != nil {
			return fmt.Errorf("commit %s: %w", t.names[i], err)
		}
		t.kept++
	}
	m.SegmentBits = uint8(bits.TrailingZeros64(uint64(t.dev.SegmentSize())))
	for _, name := range []string{manifestCopy, manifest.Name} {
		t.names = append(t.names, name)
		if err := t.dev.WriteMeta(name, m.Encode()); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

// undo removes what has been written, the manifests first.
func (t *restorer) undo() error {
	if t.dev == nil {
		return nil
	}
	var errs []error
	for i := len(t.names) - 1; i >= len(t.files); i-- {
		errs = append(errs, t.dev.RemoveMeta(t.names[i]))
	}
	for _, w := range t.files[t.kept:] {
		errs = append(errs, w.Abort())
	}
	for _, name := range t.names[:t.kept] {
		errs = append(errs, t.dev.RemoveMeta(name))
	}
	size := t.dev.SegmentSize()
	return errors.Join(append(errs, t.dev.Discard((t.end+size-1)/size*size))...)
}
