package daemon

import (
	"net"

	"golang.org/x/sys/unix"
)

// peerOf asks the kernel who connected.
func peerOf(conn *net.UnixConn) peer {
	p := unknownPeer
	raw, err := conn.SyscallConn()
	if err != nil {
		return p
	}
	_ = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
		if err != nil {
			return
		}
		p.uid = int(cred.Uid)
		for _, group := range cred.Groups[:min(max(int(cred.Ngroups), 0), len(cred.Groups))] {
			p.groups = append(p.groups, int(group))
		}
		if pid, err := unix.GetsockoptInt(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERPID); err == nil {
			p.pid = pid
		}
	})
	return p
}

// refuseDescriptors does nothing here: reads are read(2), and the kernel closes
// descriptors that come with no room for them.
func refuseDescriptors(uintptr) {}

// descriptorsRefused reports that they are not.
func descriptorsRefused(uintptr) bool { return false }
