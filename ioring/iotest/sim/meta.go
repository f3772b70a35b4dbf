package sim

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"

	"rskv/ioring"
)

// changeMeta is called before a change of metadata.
func (d *Disk) changeMeta(kind, name string, size int) error {
	if d.closed {
		return ioring.ErrClosed
	}
	if d.dead != nil {
		return d.dead
	}
	f := d.strike(metas)
	d.w.note(kind, name, uint64(size), 0)
	if f != nil && f.Kind == MetaError {
		return fmt.Errorf("sim: metadata %s: %w", name, syscall.EIO)
	}
	if f != nil && f.Kind == MetaFull {
		return fmt.Errorf("sim: metadata %s: %w", name, syscall.ENOSPC)
	}
	return d.change()
}

// WriteMeta implements ioring.Device.
func (d *Disk) WriteMeta(name string, data []byte) error {
	if err := ioring.CheckMetaName(name); err != nil {
		return err
	}
	if err := d.changeMeta("write meta", name, len(data)); err != nil {
		return err
	}
	if d.failed != nil {
		return d.failed
	}
	d.metas[name] = slices.Clone(data)
	d.dirSynced()
	return nil
}

// RemoveMeta implements ioring.Device.
func (d *Disk) RemoveMeta(name string) error {
	if err := ioring.CheckMetaName(name); err != nil {
		return err
	}
	if err := d.changeMeta("remove meta", name, 0); err != nil {
		return err
	}
	if d.failed != nil {
		return d.failed
	}
	delete(d.metas, name)
	d.dirSynced()
	return nil
}

// ReadMeta implements ioring.Device.
func (d *Disk) ReadMeta(name string) ([]byte, error) {
	if err := ioring.CheckMetaName(name); err != nil {
		return nil, err
	}
	if d.closed {
		return nil, ioring.ErrClosed
	}
	if d.dead != nil {
		return nil, d.dead
	}
	data, ok := d.metas[name]
	if !ok {
		return nil, fmt.Errorf("%w: %s", ioring.ErrNoMeta, name)
	}
	return slices.Clone(data), nil
}

// ListMeta implements ioring.Device.
func (d *Disk) ListMeta() ([]string, error) {
	if d.closed {
		return nil, ioring.ErrClosed
	}
	if d.dead != nil {
		return nil, d.dead
	}
	return slices.Sorted(maps.Keys(d.metas)), nil
}

// CreateMeta implements ioring.Device. A power cut before Commit leaves nothing.
func (d *Disk) CreateMeta(name string) (ioring.MetaWriter, error) {
	if err := ioring.CheckMetaName(name); err != nil {
		return nil, err
	}
	if err := d.changeMeta("create meta", name, 0); err != nil {
		return nil, err
	}
	return &metaWriter{d: d, name: name}, nil
}

// metaWriter holds a stream until its commit.
type metaWriter struct {
	d        *Disk
	name     string
	data     []byte
	failed   error // the first Write that failed; final
	finished bool
}

func (w *metaWriter) usable() error {
	if w.d.closed {
		return ioring.ErrClosed
	}
	if w.finished {
		return fmt.Errorf("write metadata %s: %w", w.name, fs.ErrClosed)
	}
	return nil
}

// Write implements io.Writer.
func (w *metaWriter) Write(p []byte) (int, error) {
	if err := w.usable(); err != nil {
		return 0, err
	}
	if w.failed == nil {
		w.failed = w.d.changeMeta("stream meta", w.name, len(p))
	}
	if w.failed != nil {
		return 0, w.failed
	}
	w.data = append(w.data, p...)
	return len(p), nil
}

// Commit implements ioring.MetaWriter.
func (w *metaWriter) Commit() error {
	if err := w.usable(); err != nil {
		return err
	}
	w.finished = true
	if w.failed != nil {
		return w.failed
	}
	if err := w.d.changeMeta("commit meta", w.name, len(w.data)); err != nil {
		return err
	}
	if w.d.failed != nil {
		return w.d.failed
	}
	w.d.metas[w.name] = w.data
	w.d.dirSynced()
	return nil
}

// Abort implements ioring.MetaWriter.
func (w *metaWriter) Abort() error {
	if err := w.usable(); err != nil {
		return err
	}
	w.finished = true
	return nil
}

// OpenMeta implements ioring.Device.
func (d *Disk) OpenMeta(name string) (ioring.MetaReader, error) {
	data, err := d.ReadMeta(name)
	if err != nil {
		return nil, err
	}
	return &metaReader{d: d, name: name, data: data}, nil
}

// metaReader reads a copy.
type metaReader struct {
	d      *Disk
	name   string
	data   []byte
	closed bool
}

// ReadAt implements io.ReaderAt.
func (r *metaReader) ReadAt(p []byte, off int64) (int, error) {
	switch {
	case r.d.closed:
		return 0, ioring.ErrClosed
	case r.closed:
		return 0, r.explainClosed()
	case r.d.dead != nil:
		return 0, r.d.dead
	}
	return bytes.NewReader(r.data).ReadAt(p, off)
}

// Size implements ioring.MetaReader.
func (r *metaReader) Size() int64 { return int64(len(r.data)) }

// Close implements io.Closer.
func (r *metaReader) Close() error {
	if r.closed {
		return r.explainClosed()
	}
	r.closed = true
	return nil
}

func (r *metaReader) explainClosed() error {
	return fmt.Errorf("read metadata %s: %w", r.name, fs.ErrClosed)
}

// rotMeta changes a byte of a metadata file.
func (d *Disk) rotMeta(rng *rand.Rand) {
	if len(d.metas) == 0 {
		return
	}
	name := pick(rng, d.metas)
	data := slices.Clone(d.metas[name])
	if len(data) > 0 {
		data[rng.IntN(len(data))] ^= 1 << rng.IntN(8)
		d.metas[name] = data
	}
}
