package iotest

import (
	"fmt"

	"rskv/ioring"
)

// countdown makes the k-th of some steps fail, and only that one.
type countdown struct {
	left int // steps until the one that fails, which is counted as 1
	err  error
}

// step counts one step and says what it fails with.
func (c *countdown) step() error {
	if c.left == 0 {
		return nil
	}
	if c.left--; c.left > 0 {
		return nil
	}
	return fmt.Errorf("iotest: injected: %w", c.err)
}

// FailStreamWrite makes the k-th Write of metadata streams from now on, counted
// from 1 over all streams, take half of its bytes and fail with err. Zero takes
// that back. As with every device, that stream can then only be thrown away.
func (f *Fault) FailStreamWrite(k int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.write = countdown{k, err}
}

// FailStreamCommit makes the k-th Commit of metadata streams from now on, counted
// from 1 over all streams, throw the content away and fail with err. Zero takes
// that back.
func (f *Fault) FailStreamCommit(k int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.commit = countdown{k, err}
}

// CreateMeta implements ioring.Device.
func (f *Fault) CreateMeta(name string) (ioring.MetaWriter, error) {
	if err := f.metaError(); err != nil {
		return nil, err
	}
	inside, err := f.Device.CreateMeta(name)
	if err != nil {
		return nil, err
	}
	return &faultMetaWriter{MetaWriter: inside, fault: f}, nil
}

// faultMetaWriter is the stream of the device inside, going wrong on demand.
type faultMetaWriter struct {
	ioring.MetaWriter // Abort is its own
	fault             *Fault
	failed            error // the first Write made to fail; final
}

// Write implements io.Writer.
func (w *faultMetaWriter) Write(p []byte) (int, error) {
	if w.failed != nil {
		return 0, w.failed
	}
	whole, err := w.fault.streamError(&w.fault.mu.write)
	if err == nil {
		return w.MetaWriter.Write(p)
	}
	w.failed = err
	if whole {
		return 0, err
	}
	n, inside := w.MetaWriter.Write(p[:len(p)/2])
	if inside != nil {
		w.failed = inside
	}
	return n, w.failed
}

// Commit implements ioring.MetaWriter.
func (w *faultMetaWriter) Commit() error {
	err := w.failed
	if err == nil {
		_, err = w.fault.streamError(&w.fault.mu.commit)
	}
	if err == nil {
		return w.MetaWriter.Commit()
	}
	if inside := w.MetaWriter.Abort(); inside != nil {
		return inside // it was finished before, or the device is closed
	}
	return err
}

// streamError says what a step of a stream fails with, and whether that is
// because no step may have any effect.
func (f *Fault) streamError(c *countdown) (whole bool, err error) {
	if err := f.metaError(); err != nil {
		return true, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err = c.step(); err != nil {
		f.mu.injected.Errors++
	}
	return false, err
}
