//go:build unix

package ioring_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
	"rskv/ioring/iotest"
)

const testSegment = 256 << 10

// open opens a device with small segments, and skips a ring that cannot run.
func open(t testing.TB, options ioring.Options) ioring.Device {
	t.Helper()
	if ok, why := ioring.Probe(); options.Mode == ioring.URing && !ok {
		t.Skip(why)
	}
	if options.Dir == "" {
		options.Dir = t.TempDir()
	}
	if options.SegmentSize == 0 {
		options.SegmentSize = testSegment
	}
	if options.BufferBytes == 0 {
		options.BufferBytes = 1 << 20
	}
	d, err := ioring.Open(options)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// backends lists every way a device is built on files.
var backends = map[string]ioring.Options{
	"pool":           {Mode: ioring.PReadWrite},
	"pool,buffered":  {Mode: ioring.PReadWrite, NoDirect: true, Workers: 1},
	"ring":           {Mode: ioring.URing},
	"ring,buffered":  {Mode: ioring.URing, NoDirect: true},
	"ring,depth one": {Mode: ioring.URing, QueueDepth: 1},
}

// Both backends must keep the contract, with and without O_DIRECT, and with the
// least room they can have.
func TestDisk_Contract(t *testing.T) {
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			iotest.Contract(t, func(t *testing.T) ioring.Device { return open(t, options) })
		})
	}
}
