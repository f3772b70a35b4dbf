package rskvtest

import (
	"errors"

	"rskv/ioring/iotest"
)

// Disconnect loses every connection, as a full queue or a signal may at any time; the daemon goes on.
// What was on its way may have arrived or not.
func (s *Server) Disconnect() { s.front.cut() }

// Restart stops the daemon as systemd would, and starts it again on the same disk: everything that
// was acknowledged is there. Connections that come meanwhile wait. A disk that was broken is mended.
func (s *Server) Restart() error {
	return s.again(func() (*iotest.Mem, error) {
		err := s.stopLocked()
		// A daemon closes its disk for good: the next one gets another with the same content.
		return s.mu.disk.CrashImage(iotest.CrashOptions{Keep: 1}), err
	})
}

// Crash cuts the power and starts the daemon again: connections are lost without an answer, and the
// store is what was durable, and of the rest whatever the disk happened to have, each crash differently.
func (s *Server) Crash() error {
	return s.again(func() (*iotest.Mem, error) {
		s.front.cut()          // no answer gets out any more
		s.mu.disk.FailAfter(0) // nor anything to the disk
		s.mu.broken = true
		s.mu.crashes++
		image := s.mu.disk.CrashImage(iotest.CrashOptions{Seed: s.mu.crashes, Keep: 0.5, Tear: 0.25, Reorder: true})
		_ = s.stopLocked() // it says that it could not write
		return image, nil
	})
}

// again ends the daemon by end, which returns the disk it leaves, and starts it on that.
func (s *Server) again(end func() (*iotest.Mem, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return errors.New("the server is closed")
	}
	s.front.shut()
	disk, err := end()
	s.front.cut()
	if err != nil {
		return err
	}
	s.mu.disk, s.mu.broken = disk, false
	return s.startLocked()
}

// BreakDisk has every operation of the disk fail from now on, as a bad cable does: the store is
// read-only (client.ErrReadOnly) as soon as it notices, which the next write that becomes durable has
// it do. Restart mends it.
func (s *Server) BreakDisk() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.broken = true
	s.mu.disk.FailAfter(0)
}

// FillDisk leaves no room for more log than there is: writes fail with client.ErrDiskFull when what is
// left is used, a few MiB. FreeDisk ends it, and so does Restart.
func (s *Server) FillDisk() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.disk.SetRoom(1)
}

// FreeDisk gives the disk room without end.
func (s *Server) FreeDisk() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.disk.SetRoom(0)
}
