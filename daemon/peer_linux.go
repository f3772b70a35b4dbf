package daemon

import (
	"net"
	"unsafe"

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
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return
		}
		p = peer{int(cred.Uid), int(cred.Pid), append(peerGroups(int(fd)), int(cred.Gid))}
	})
	return p
}

// peerGroups returns the supplementary groups of a socket's peer; none before
// Linux 4.13.
func peerGroups(fd int) []int {
	ids := make([]uint32, 32)
	for range 2 { // the second time with the room that the kernel asked for
		size := uint32(len(ids) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&ids[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch errno {
		case 0:
			groups := make([]int, size/4, size/4+1)
			for i := range groups {
				groups[i] = int(ids[i])
			}
			return groups
		case unix.ERANGE:
			ids = make([]uint32, max(size/4, 1))
		default:
			return nil
		}
	}
	return nil
}

// refuseDescriptors makes sending descriptors to a socket fail, since Linux
// 6.16; a listener passes that on to its connections. Before that the kernel
// closes what comes, because nothing here ever asks for descriptors: reads are
// read(2), which has no room for them.
func refuseDescriptors(fd uintptr) {
	_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0)
}

// descriptorsRefused reports whether it is so.
func descriptorsRefused(fd uintptr) bool {
	passed, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSRIGHTS)
	return err == nil && passed == 0
}
