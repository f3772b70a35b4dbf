//go:build unix

package ioring

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// pread does a read on the calling thread.
func (d *disk) pread(op *Op) (int, error) {
	s, err := d.volume.readable(op.Off)
	if err != nil {
		return 0, err
	}
	defer s.release()
	n, err := transfer(op, s, unix.Pread)
	return n, explainTransfer(op, s, n, err)
}

// pwrite does a write on the calling thread.
func (d *disk) pwrite(op *Op) (int, error) {
	s, err := d.volume.writable(op.Off, int64(len(op.Buf)))
	if err != nil {
		return 0, err
	}
	defer s.release()
	n, err := transfer(op, s, unix.Pwrite)
	// Even a failed write may have changed the file.
	d.volume.written(s)
	return n, explainTransfer(op, s, n, err)
}

// transfer calls f until all of op is done, f fails or gets nowhere.
func transfer(op *Op, s *segment, f func(fd int, p []byte, off int64) (int, error)) (int, error) {
	n := 0
	for n < len(op.Buf) {
		k, err := f(s.fd, op.Buf[n:], op.Off-s.begin+int64(n))
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return n, err
		}
		if k == 0 {
			return n, nil
		}
		n += k
	}
	return n, nil
}

// explainTransfer turns the outcome of a transfer into the op's error: which
// file, where, and the system's own error or ErrShort.
func explainTransfer(op *Op, s *segment, n int, err error) error {
	if err == nil && n == len(op.Buf) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%w: %d bytes", ErrShort, n)
	}
	verb := "read"
	if op.Kind == Write {
		verb = "write"
	}
	return fmt.Errorf("%s %s: %d bytes at %d (address %d): %w", verb, s.name, len(op.Buf), op.Off-s.begin, op.Off, err)
}
