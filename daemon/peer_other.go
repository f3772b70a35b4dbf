//go:build !linux && !darwin

package daemon

import "net"

// peerOf knows no credentials on this system: everybody who could open the
// socket has the role of others.
func peerOf(*net.UnixConn) peer { return unknownPeer }

// refuseDescriptors does nothing here: reads are read(2), and the kernel closes
// descriptors that come with no room for them.
func refuseDescriptors(uintptr) {}

// descriptorsRefused reports that they are not.
func descriptorsRefused(uintptr) bool { return false }
