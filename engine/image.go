package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cespare/xxhash/v2"

	"rskv/engine/internal/epoch"
	"rskv/engine/internal/manifest"
	"rskv/engine/internal/record"
	"rskv/ioring"
)

// An image is what the commit of a snapshot checkpoint has instead of a flush: a
// metadata file with the log from the first address that is still updated in place
// (start) to the end of the commit group (until), as of the commit, every record
// sealed. The log on the device holds the same below start. From start on it holds
// nothing, or what was updated in place after the commit, until a commit of the log
// itself, further up, is durable; the image is of no use from then on but to go back
// to its version.
//
//	header   offset  size  field
//	         0       8     "rskvIMAG"
//	         8       4     format version
//	         12      1     bits of the index at the commit
//	         13      1     log2 of the page size
//	         14      2     zero
//	         16      16    store id
//	         32      8     generation
//	         40      8     version of the commit
//	         48      8     until, in units
//	         56      8     xxhash64 of bytes 0 to 55
//	body     the image, page by page, the last one first; the first and the last page
//	         in part
//	trailer  0       8     "rskvIMGE"
//	         8       8     start, in units
//	         16      8     xxhash64 of the body
//	         24      8     xxhash64 of the trailer so far
//
// So recovery puts an image back into the log where the newest commit of the log ends
// at or below until: see restoreImage.
const (
	imageMagic   = "rskvIMAG"
	imageEnd     = "rskvIMGE"
	imageHeader  = 64
	imageTrailer = 32
	imagePrefix  = "image-"
)

func imageName(version uint64) string { return fmt.Sprintf("%s%020d", imagePrefix, version) }

// imageWriter makes an image, in steps:
//
//	copying ----------> thawing --> flushing --> syncing --> finished
//	page by page,       at the      the log      all of      the file
//	thawing behind it   door        up to start  that        is durable
type imageWriter struct {
	metaStream
	s       *Store
	start   record.Addr // what has been copied begins here, or all there is
	copied  bool        // all there is
	thawed  record.Addr // from here on writers update in place again
	digest  *xxhash.Digest
	memory  *ioring.Memory // one page
	slot    *epoch.Slot
	attempt int // to thaw all
	sync    ioring.Op
	asked   bool
	synced  atomic.Bool
}

// imageThaw is after how many bytes what was copied is let go.
const imageThaw = 16 << 20

// beginImage begins the image of the commit that has just been cut with CutImage.
func (s *Store) beginImage(r *commitResult) (*imageWriter, error) {
	w := &imageWriter{s: s, start: r.end, thawed: r.end, digest: xxhash.New()}
	var err error
	if w.memory, err = ioring.AllocMemory(int64(s.opt.PageSize)); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	if w.metaStream, err = s.newMetaStream(imageName(r.version)); err != nil {
		return nil, errors.Join(err, w.memory.Free())
	}
	w.slot = s.epoch.Register()
	w.sync.Kind = ioring.Sync
	w.sync.Done = func(*ioring.Op) {
		w.synced.Store(true)
		s.checkpoints.task.Wake()
	}
	header := make([]byte, imageHeader)
	copy(header, imageMagic)
	le := binary.LittleEndian
	le.PutUint32(header[8:], manifest.Version)
	header[12], header[13] = r.indexBits, s.mu.manifest.PageBits
	copy(header[16:], s.mu.manifest.StoreID[:])
	le.PutUint64(header[32:], s.mu.manifest.Generation)
	le.PutUint64(header[40:], r.version)
	le.PutUint64(header[48:], uint64(r.end))
	le.PutUint64(header[56:], xxhash.Sum64(header[:56]))
	if err := w.write(header); err != nil {
		return nil, errors.Join(err, w.abort())
	}
	return w, nil
}

// imagePoll is how often it is looked whether the log below an image is flushed, and
// whether writers have left.
const imagePoll = time.Millisecond

// step goes on, and says how long to wait before the next step if nobody wakes the
// task; done tells that the image is durable.
func (w *imageWriter) step() (wait time.Duration, done bool, err error) {
	s := w.s
	switch {
	case !w.copied:
		return 0, false, w.copy()
	case s.log.Frozen() != 0:
		w.attempt++
		return s.thaw(0, w.attempt-1), false, nil
	case !w.asked:
		if err := s.Err(); err != nil {
			return 0, false, err
		}
		if s.log.Stuck() {
			return 0, false, errDeviceFull
		}
		if s.log.Flushed() < w.start {
			return imagePoll, false, nil
		}
		w.asked = true
		s.dev.Submit([]*ioring.Op{&w.sync})
		return 0, false, nil
	case !w.synced.Load():
		return -1, false, nil
	case w.sync.Err != nil:
		s.log.Fail(fmt.Errorf("sync: %w", w.sync.Err))
		return 0, false, s.Err()
	}
	return 0, true, w.finish()
}

// copy copies the page before what has been copied.
func (w *imageWriter) copy() error {
	s := w.s
	w.slot.Enter()
	from := s.log.Image(w.memory.Bytes(), w.start)
	w.slot.Exit()
	if from == w.start {
		w.copied = true // below it the log has it
		return nil
	}
	image := w.memory.Bytes()[:(w.start-from)*record.Unit]
	s.log.SealImage(image, from)
	_, _ = w.digest.Write(image) // never fails
	w.start = from
	if (w.thawed-from).Bytes() >= imageThaw && s.thaw(from, 0) == 0 {
		w.thawed = from
	}
	return w.write(image)
}

// thaw lets writers update in place again from an address on, 0: everywhere. Where one
// is away inside, it returns how long to wait before it is tried once more.
func (s *Store) thaw(from record.Addr, attempt int) time.Duration {
	held, ok := s.epoch.Door().Close(func() { s.log.Thaw(from) }, epoch.CloseLimit(attempt), s.opt.Clock.Monotonic)
	s.stats.hold(held)
	if !ok {
		return epoch.ClosePause
	}
	return 0
}

// finish gives the image its name: from here on a recovery uses it.
func (w *imageWriter) finish() error {
	b := make([]byte, imageTrailer)
	le := binary.LittleEndian
	copy(b, imageEnd)
	le.PutUint64(b[8:], uint64(w.start))
	le.PutUint64(b[16:], w.digest.Sum64())
	le.PutUint64(b[24:], xxhash.Sum64(b[:24]))
	if err := w.write(b); err != nil {
		return err
	}
	if err := w.commit(); err != nil {
		return err
	}
	return w.free()
}

// abort removes what has been written.
func (w *imageWriter) abort() error { return errors.Join(w.metaStream.abort(), w.free()) }

func (w *imageWriter) free() error {
	w.slot.Release()
	return w.memory.Free()
}

var errImage = errors.New("image is inconsistent")

// image is one that is whole as far as its ends tell; check reads the rest.
type image struct {
	in           ioring.MetaReader
	name         string
	generation   uint64
	version      uint64
	start, until record.Addr
	sum          uint64
	indexBits    uint8
	page         record.Addr // units of one
}

// images lists the versions there are images of, newest first.
func (s *Store) images() ([]uint64, error) {
	names, err := s.dev.ListMeta()
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	return imageVersions(names), nil
}

// openImage opens the image of a version; the caller closes its in.
func (s *Store) openImage(m *manifest.Manifest, version uint64) (*image, error) {
	name := imageName(version)
	in, err := s.dev.OpenMeta(name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	i, err := newImage(in, name, m)
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return i, nil
}

// newImage reads the ends of an image of a store.
func newImage(in ioring.MetaReader, name string, m *manifest.Manifest) (*image, error) {
	i := &image{in: in, name: name}
	header, trailer := make([]byte, imageHeader), make([]byte, imageTrailer)
	if in.Size() < imageHeader+imageTrailer {
		return nil, i.damaged(io.ErrUnexpectedEOF)
	}
	for _, part := range []struct {
		b   []byte
		off int64
	}{{header, 0}, {trailer, in.Size() - imageTrailer}} {
		if _, err := in.ReadAt(part.b, part.off); err != nil && !errors.Is(err, io.EOF) {
			return nil, i.damaged(err)
		}
	}
	le := binary.LittleEndian
	if string(header[:8]) != imageMagic || string(trailer[:8]) != imageEnd || !manifest.Readable(le.Uint32(header[8:])) ||
		le.Uint64(header[56:]) != xxhash.Sum64(header[:56]) || le.Uint64(trailer[24:]) != xxhash.Sum64(trailer[:24]) ||
		!bytes.Equal(header[16:32], m.StoreID[:]) || header[13] != m.PageBits {
		return nil, i.damaged(errImage)
	}
	i.indexBits, i.page = header[12], 1<<m.PageBits/record.Unit
	i.generation, i.version = le.Uint64(header[32:]), le.Uint64(header[40:])
	i.start, i.until, i.sum = record.Addr(le.Uint64(trailer[8:])), record.Addr(le.Uint64(header[48:])), le.Uint64(trailer[16:])
	if imageName(i.version) != name || i.start > i.until || i.until >= record.AddrEnd ||
		in.Size() != imageHeader+(i.until-i.start).Bytes()+imageTrailer {
		return nil, i.damaged(errImage)
	}
	return i, nil
}

// ends reports whether a span of a generation, that ends at an address by what its log
// holds, ends with the image instead; unsettled says that the end was not known before.
func (i *image) ends(generation uint64, end record.Addr, unsettled bool) bool {
	return i.generation == generation && (i.until == end || unsettled && i.until > end)
}

// pageOf returns what the image has of the page of an address.
func (i *image) pageOf(a record.Addr) (from, until record.Addr) {
	from = a &^ (i.page - 1)
	return max(from, i.start), min(from+i.page, i.until)
}

// offset is where an address of the image lies in the file.
func (i *image) offset(a record.Addr) int64 {
	from, until := i.pageOf(a)
	return imageHeader + (i.until - until).Bytes() + (a - from).Bytes()
}

// readAt fills b, which lies in one page, with what the image has at a.
func (i *image) readAt(b []byte, a record.Addr) error {
	if _, err := i.in.ReadAt(b, i.offset(a)); err != nil && !errors.Is(err, io.EOF) {
		return i.damaged(err)
	}
	return nil
}

// imageReader reads an image page by page, the last one first, every byte checked.
type imageReader struct {
	*image
	at     record.Addr // of the page read last
	digest *xxhash.Digest
	buf    []byte // a page
}

func (i *image) reader(buf []byte) *imageReader {
	return &imageReader{image: i, at: i.until, digest: xxhash.New(), buf: buf}
}

// next returns the next page, or a part of one, which lies at a; nil at the end of a
// whole image.
func (r *imageReader) next() (a record.Addr, part []byte, err error) {
	if r.at == r.start {
		if r.digest.Sum64() != r.sum {
			return 0, nil, r.damaged(errChecksum)
		}
		return 0, nil, nil
	}
	from, until := r.pageOf(r.at - 1)
	part = r.buf[:(until-from)*record.Unit]
	if err := r.readAt(part, from); err != nil {
		return 0, nil, err
	}
	_, _ = r.digest.Write(part) // never fails
	r.at = from
	return from, part, nil
}

// check reads all of it.
func (i *image) check() error {
	r := i.reader(make([]byte, i.page*record.Unit))
	for {
		if _, part, err := r.next(); err != nil || part == nil {
			return err
		}
	}
}

func (i *image) damaged(err error) error { return &CorruptError{Where: i.name, Addr: -1, Err: err} }

// imageVersions lists the versions that names say there are images of, newest first.
func imageVersions(names []string) (versions []uint64) {
	for _, name := range names {
		var v uint64
		if _, err := fmt.Sscanf(name, imagePrefix+"%d", &v); err == nil && strings.HasPrefix(name, imagePrefix) && imageName(v) == name {
			versions = append(versions, v)
		}
	}
	slices.Sort(versions)
	slices.Reverse(versions)
	return versions
}

// settleImage has the log end where its newest image does, if no commit of the log's own
// lies further up, and puts the image back into it. The last span ends there by what was
// found, with a commit of that version; unsettled says that this was not known before.
//
//	log      committed |  in place, perhaps in part  | torn  |
//	         ----------+-----------------------------+-------+
//	                   ^                             ^
//	                   start of the image            until: the end of the span
//
// The end comes first, in the manifest: what is torn may be a whole commit, but for what
// the image is put over. From then on an image that ends where the last span does is put
// back as often as a crash comes between.
func (s *Store) settleImage(m *manifest.Manifest, last *manifest.Span, version uint64, unsettled bool) error {
	versions, err := s.images()
	if err != nil || len(versions) == 0 {
		return err
	}
	s.recovery.newest = max(s.recovery.newest, versions[0])
	i, err := s.openImage(m, versions[0])
	if err == nil {
		defer i.in.Close()
		if !i.ends(last.Generation, last.End, unsettled) {
			return nil // it is in the log, or superseded
		}
		err = s.restoreImage(m, last, i)
	}
	if errors.Is(err, ErrCorrupt) && (!unsettled || versions[0] < version) {
		// The log has what was in it, or replay is going to miss it there.
		s.opt.Logger.Warn("image is damaged and not used", slog.Any("error", err))
		return nil
	}
	return err
}

// restoreImage puts an image back into the log, of which it is the end from here on.
func (s *Store) restoreImage(m *manifest.Manifest, last *manifest.Span, i *image) error {
	if err := i.check(); err != nil {
		return err
	}
	last.End = i.until
	s.noteIndexBits(uint32(i.indexBits))
	m.IndexBits = max(m.IndexBits, i.indexBits)
	if err := s.encodeManifest(m); err != nil {
		return err
	}
	memory, err := ioring.AllocMemory(1 << m.PageBits)
	if err != nil {
		return fmt.Errorf("restore %s: %w", i.name, err)
	}
	r, device := i.reader(memory.Bytes()), deviceSource{s.dev, s.opt.Runner.Wait}
	for {
		a, part, err := r.next()
		if err == nil && part != nil {
			err = device.do(&ioring.Op{Kind: ioring.Write, Off: a.Bytes(), Buf: part})
		} else if err == nil {
			err = device.do(&ioring.Op{Kind: ioring.Sync})
		}
		if err != nil {
			return errors.Join(fmt.Errorf("%w: restore %s: %w", restoreError(err), i.name, err), memory.Free())
		}
		if part == nil {
			s.opt.Logger.Info("image put back into the log", slog.Uint64("version", i.version), slog.Int64("bytes", (i.until-i.start).Bytes()))
			return memory.Free()
		}
	}
}

// restoreError is the class of what kept an image from being put back. Once there is
// room, or the device is well, the next recovery begins anew.
func restoreError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return ErrDiskFull
	}
	return ErrIO
}

// rollBackImage is what goes before the manifest where recovery is asked for a version
// that is in an image and not, as it was, in the log: what is newer is forgotten first.
func (s *Store) rollBackImage(m *manifest.Manifest, version uint64) error {
	i, err := s.openImage(m, version)
	if errors.Is(err, ioring.ErrNoMeta) {
		return &CorruptError{Where: imageName(version), Addr: -1, Err: err}
	}
	if err != nil {
		return err
	}
	defer i.in.Close()
	if err := i.check(); err != nil {
		return err
	}
	if err := s.removeStale(); err != nil {
		return err
	}
	return s.restoreImage(m, &m.Spans[len(m.Spans)-1], i)
}
