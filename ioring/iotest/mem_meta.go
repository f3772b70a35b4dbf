package iotest

import (
	"bytes"
	"fmt"
	"io/fs"
	"sync/atomic"

	"rskv/ioring"
)

// CreateMeta implements ioring.Device. Every step of the stream is an event; a
// crash before Commit leaves nothing of it, a crash after it all.
func (m *Mem) CreateMeta(name string) (ioring.MetaWriter, error) {
	if err := ioring.CheckMetaName(name); err != nil {
		return nil, err
	}
	if err := m.openOrClosed(); err != nil {
		return nil, err
	}
	if err := m.change(Event{Kind: EventCreateMeta, Name: name}, func() {}); err != nil {
		return nil, err
	}
	return &memMetaWriter{mem: m, name: name}, nil
}

// memMetaWriter holds a stream's bytes until its commit.
type memMetaWriter struct {
	mem      *Mem
	name     string
	data     []byte
	failed   error // the first Write that failed; final
	finished bool
}

// Write implements io.Writer.
func (w *memMetaWriter) Write(p []byte) (int, error) {
	if err := w.usable(); err != nil {
		return 0, err
	}
	if w.failed == nil {
		w.failed = w.mem.change(Event{Kind: EventStreamMeta, Name: w.name, Len: len(p)}, func() {
			w.data = append(w.data, p...)
		})
	}
	if w.failed != nil {
		return 0, w.failed
	}
	return len(p), nil
}

// Commit implements ioring.MetaWriter.
func (w *memMetaWriter) Commit() error {
	if err := w.usable(); err != nil {
		return err
	}
	w.finished = true
	if w.failed != nil {
		return w.failed
	}
	return w.mem.change(Event{Kind: EventCommitMeta, Name: w.name, Len: len(w.data)}, func() {
		w.mem.mu.metas[w.name] = w.data // never changed again
		w.mem.dirSynced()
	})
}

// Abort implements ioring.MetaWriter.
func (w *memMetaWriter) Abort() error {
	if err := w.usable(); err != nil {
		return err
	}
	w.finished = true
	return w.mem.change(Event{Kind: EventAbortMeta, Name: w.name}, func() {})
}

func (w *memMetaWriter) usable() error {
	if err := w.mem.openOrClosed(); err != nil {
		return err
	}
	if w.finished {
		return fmt.Errorf("write metadata %s: %w", w.name, fs.ErrClosed)
	}
	return nil
}

// OpenMeta implements ioring.Device.
func (m *Mem) OpenMeta(name string) (ioring.MetaReader, error) {
	data, err := m.ReadMeta(name)
	if err != nil {
		return nil, err
	}
	return &memMetaReader{mem: m, name: name, size: int64(len(data)), content: bytes.NewReader(data)}, nil
}

// memMetaReader reads a copy.
type memMetaReader struct {
	mem     *Mem
	name    string
	size    int64
	content *bytes.Reader
	closed  atomic.Bool
}

// ReadAt implements io.ReaderAt.
func (r *memMetaReader) ReadAt(p []byte, off int64) (int, error) {
	if err := r.mem.openOrClosed(); err != nil {
		return 0, err
	}
	if r.closed.Load() {
		return 0, r.explainClosed()
	}
	if r.mem.isCut() {
		return 0, ErrPowerCut
	}
	return r.content.ReadAt(p, off)
}

// Size implements ioring.MetaReader.
func (r *memMetaReader) Size() int64 { return r.size }

// Close implements io.Closer.
func (r *memMetaReader) Close() error {
	if r.closed.Swap(true) {
		return r.explainClosed()
	}
	return nil
}

func (r *memMetaReader) explainClosed() error {
	return fmt.Errorf("read metadata %s: %w", r.name, fs.ErrClosed)
}

// isCut tells whether FailAfter's limit has been reached.
func (m *Mem) isCut() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.failAfter == 0
}
