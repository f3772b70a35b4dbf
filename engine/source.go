package engine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"rskv/engine/internal/record"
	"rskv/ioring"
)

// source is a store that is only looked at: nothing is made, extended, removed
// or written, so that it also serves for damaged stores and read-only media.
type source interface {
	// segmentSize is 0 when there is no segment.
	segmentSize() int64
	// extent is the range of log addresses that segments cover.
	extent() (begin, end int64)
	// read fills b, which lies in one segment and obeys the device's alignment,
	// from log address off. Bytes behind the end of a short file are zero.
	// ioring.ErrNoSegment: there is no such segment.
	read(b []byte, off int64) error
	listMeta() ([]string, error)
	// openMeta opens a metadata file, or answers ioring.ErrNoMeta.
	openMeta(name string) (ioring.MetaReader, error)
	close() error
}

// metaMax bounds a metadata file that is read into memory; only snapshots are
// larger, and they are read in blocks.
const metaMax = 64 << 20

// readMeta reads a whole metadata file.
func readMeta(src source, name string) ([]byte, error) {
	r, err := src.openMeta(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if r.Size() > metaMax {
		return nil, fmt.Errorf("%s is %d bytes long", name, r.Size())
	}
	b := make([]byte, r.Size())
	if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}

// segmentFile is the name of the file that holds log address off.
func segmentFile(size, off int64) string {
	shift := 0
	for size>>shift > 1 {
		shift++
	}
	return fmt.Sprintf("seg%02d-%016x", shift, off>>shift)
}

// deviceSource is a source over an open device, which its owner closes.
type deviceSource struct {
	dev  ioring.Device
	wait func(<-chan struct{})
}

func (d deviceSource) segmentSize() int64                              { return d.dev.SegmentSize() }
func (d deviceSource) extent() (begin, end int64)                      { return d.dev.Extent() }
func (d deviceSource) listMeta() ([]string, error)                     { return d.dev.ListMeta() }
func (d deviceSource) openMeta(name string) (ioring.MetaReader, error) { return d.dev.OpenMeta(name) }
func (d deviceSource) close() error                                    { return nil }

func (d deviceSource) read(b []byte, off int64) error {
	return d.do(&ioring.Op{Kind: ioring.Read, Off: off, Buf: b})
}

// do makes one request and waits for it.
func (d deviceSource) do(op *ioring.Op) error {
	done := make(chan struct{})
	op.Done = func(*ioring.Op) { close(done) }
	d.dev.Submit([]*ioring.Op{op})
	d.wait(done)
	return op.Err
}

// imagedSource is a source whose log, read by pages or less, is as a recovery will make
// it by an image.
type imagedSource struct {
	source
	image *image
}

func (d imagedSource) read(b []byte, off int64) error {
	from, until := max(off, d.image.start.Bytes()), min(off+int64(len(b)), d.image.until.Bytes())
	if from >= until {
		return d.source.read(b, off)
	}
	if until-from < int64(len(b)) {
		if err := d.source.read(b, off); err != nil {
			return err
		}
	}
	return d.image.readAt(b[from-off:until-off], record.Addr(from/record.Unit))
}

// dirSource is a source over a directory that no process has open.
type dirSource struct {
	dir      *os.File // holds the lock
	size     int64    // of a segment
	segments map[int64]bool
	last     *os.File // segment that was read last
	index    int64    // its number
}

// openDir locks a store's directory and lists its segments.
func openDir(path string) (_ *dirSource, err error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	d := &dirSource{dir: dir, segments: make(map[int64]bool)}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	err = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w: %s", ErrLocked, path)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", path, err)
	}
	for _, name := range names {
		var shift uint
		var index int64
		if _, err := fmt.Sscanf(name, "seg%02d-%016x", &shift, &index); err != nil || shift > 40 || index < 0 || segmentFile(1<<shift, index<<shift) != name {
			continue
		}
		if d.size != 0 && d.size != 1<<shift {
			return nil, fmt.Errorf("%s holds segments of %d and of %d bytes", path, d.size, int64(1)<<shift)
		}
		d.size = 1 << shift
		d.segments[index] = true
	}
	return d, nil
}

func (d *dirSource) segmentSize() int64 { return d.size }

func (d *dirSource) extent() (begin, end int64) {
	for index := range d.segments {
		if end == 0 || index*d.size < begin {
			begin = index * d.size
		}
		end = max(end, (index+1)*d.size)
	}
	return begin, end
}

func (d *dirSource) open(name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(d.dir.Name(), name), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
}

func (d *dirSource) read(b []byte, off int64) error {
	index := off / max(d.size, 1)
	if !d.segments[index] {
		return fmt.Errorf("%w: address %d", ioring.ErrNoSegment, off)
	}
	if d.last == nil || d.index != index {
		file, err := d.open(segmentFile(d.size, off))
		if err != nil {
			return err
		}
		if d.last != nil {
			_ = d.last.Close() // it was only read
		}
		d.last, d.index = file, index
	}
	n, err := d.last.ReadAt(b, off-index*d.size)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	clear(b[n:])
	return err
}

const metaFileSuffix = ".meta"

func (d *dirSource) listMeta() ([]string, error) {
	entries, err := os.ReadDir(d.dir.Name())
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), metaFileSuffix); ok && e.Type().IsRegular() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (d *dirSource) openMeta(name string) (ioring.MetaReader, error) {
	file, err := d.open(name + metaFileSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ioring.ErrNoMeta, name)
	}
	if err != nil {
		return nil, err
	}
	st, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return fileMeta{file, st.Size()}, nil
}

func (d *dirSource) close() error {
	if d.last != nil {
		_ = d.last.Close() // it was only read
	}
	return d.dir.Close()
}

// fileMeta is an open metadata file.
type fileMeta struct {
	*os.File
	size int64
}

func (f fileMeta) Size() int64 { return f.size }
