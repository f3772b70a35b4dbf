//go:build unix

package ioring

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Mode says which backend a device is to have.
type Mode string

const (
	// Auto takes io_uring where it works, pread/pwrite elsewhere: on FUSE too,
	// where io_uring moves the wrong bytes once a transfer is cut short.
	Auto Mode = "auto"
	// URing insists on io_uring.
	URing Mode = "uring"
	// PReadWrite insists on pread/pwrite.
	PReadWrite Mode = "sync"
)

// ParseMode reads a mode as a user writes it.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(strings.ToLower(s)); m {
	case Auto, URing, PReadWrite:
		return m, nil
	}
	return "", fmt.Errorf("unknown I/O mode %q: want %s, %s or %s", s, Auto, URing, PReadWrite)
}

const (
	segmentSizeDefault = 64 << 20
	segmentSizeMin     = 4096
	segmentSizeMax     = 1 << 30 // one read or write moves less than 2 GiB on Linux
	bufferBytesDefault = 16 << 20
	queueDepthDefault  = 256
	queueDepthMax      = 4096
	workersMax         = 256
)

// Options of Open. Only Dir is needed.
type Options struct {
	// Dir is the directory; it is made if missing.
	Dir string
	// Mode is the backend, Auto if empty.
	Mode Mode
	// SegmentSize in bytes, a power of two from 4 KiB to 1 GiB, 64 MiB if zero.
	// A directory keeps the size it was first written with.
	SegmentSize int64
	// BufferBytes is the budget of the staging memory, at least 256 KiB,
	// 16 MiB if zero.
	BufferBytes int64
	// QueueDepth is how many reads, and how many writes, io_uring has in flight
	// at once; the rest waits. 1 to 4096, 256 if zero.
	QueueDepth int
	// Workers is how many reads pread/pwrite has in flight at once, a thread
	// each. 1 to 256, 16 if zero.
	Workers int
	// NoDirect goes through the page cache even where O_DIRECT works.
	NoDirect bool
}

// fill puts the defaults in and reports every problem at once.
func (o *Options) fill() error {
	setDefault(&o.Mode, Auto)
	setDefault(&o.SegmentSize, segmentSizeDefault)
	setDefault(&o.BufferBytes, bufferBytesDefault)
	setDefault(&o.QueueDepth, queueDepthDefault)
	setDefault(&o.Workers, readersDefault)
	var problems []error
	if o.Dir == "" {
		problems = append(problems, errors.New("no directory"))
	}
	if _, err := ParseMode(string(o.Mode)); err != nil {
		problems = append(problems, err)
	}
	if s := o.SegmentSize; s < segmentSizeMin || s > segmentSizeMax || s&(s-1) != 0 {
		problems = append(problems, fmt.Errorf("segment size %d: want a power of two from %d to %d", s, segmentSizeMin, segmentSizeMax))
	}
	if o.BufferBytes < budgetMin {
		problems = append(problems, fmt.Errorf("staging memory %d: want at least %d bytes", o.BufferBytes, budgetMin))
	}
	if o.QueueDepth < 1 || o.QueueDepth > queueDepthMax {
		problems = append(problems, fmt.Errorf("queue depth %d: want 1 to %d", o.QueueDepth, queueDepthMax))
	}
	if o.Workers < 1 || o.Workers > workersMax {
		problems = append(problems, fmt.Errorf("%d workers: want 1 to %d", o.Workers, workersMax))
	}
	return errors.Join(problems...)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Open opens the device in a directory. The errors a caller acts on: ErrLocked,
// fs.ErrPermission; with URing the sentence of Probe.
func Open(options Options) (Device, error) {
	if err := options.fill(); err != nil {
		return nil, fmt.Errorf("open device: %w", err)
	}
	v, err := openVolume(options.Dir, options.SegmentSize, options.NoDirect)
	if err != nil {
		return nil, fmt.Errorf("open device: %w", err)
	}
	buffers, err := NewBuffers(options.BufferBytes)
	if err != nil {
		v.close()
		return nil, fmt.Errorf("open device: %w", err)
	}
	d := &disk{volume: v, buffers: buffers, idle: make(chan struct{}, 1), opened: time.Now()}
	if err := d.chooseBackend(options); err != nil {
		_ = buffers.Free()
		v.close()
		return nil, fmt.Errorf("open device: %w", err)
	}
	d.syncs.start(d)
	d.prepares.init(d)
	d.reserves.disk = d
	return d, nil
}

// chooseBackend sets the backend and says in info why it is that one.
func (d *disk) chooseBackend(options Options) error {
	d.info.Direct = d.volume.direct
	detail := fmt.Sprintf("O_DIRECT in units of %d bytes", d.volume.align.Offset)
	if !d.volume.direct {
		detail = "through the page cache, because " + noDirectReason(options.NoDirect)
	}
	why := "asked for"
	switch {
	case options.Mode == Auto && d.volume.onFUSE():
		why = "io_uring puts the rest of a short transfer in the wrong place on FUSE"
	case options.Mode != PReadWrite:
		ring, about, err := newRing(d, options.QueueDepth)
		if err == nil {
			d.backend = ring
			d.info.Backend, d.info.Why, d.info.Detail = "io_uring", "io_uring works here", detail+"; "+about
			return nil
		}
		if options.Mode == URing {
			return fmt.Errorf("io_uring: %w", err)
		}
		why = "no io_uring: " + err.Error()
	}
	d.backend = newPool(d, options.Workers)
	d.info.Backend, d.info.Why = "pread/pwrite", why
	d.info.Detail = fmt.Sprintf("%s; %d reading and %d writing threads", detail, options.Workers, writers)
	return nil
}

func noDirectReason(asked bool) string {
	if asked {
		return "that was asked for"
	}
	return "this file system has no O_DIRECT"
}
