//go:build !linux && !darwin

package daemon

// raiseDescriptors leaves the limit of open files as it is on other systems.
func (s *server) raiseDescriptors(int) {}
