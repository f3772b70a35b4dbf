package daemon

import (
	"net"
	"os"

	"golang.org/x/sys/unix"

	"rskv/ipc"
)

// peer is who is on the other end of a connection, as the kernel knows it.
type peer struct {
	role ipc.Class
	uid  int // -1: not known
	pid  int // -1: not known
}

// peerOf asks the kernel who connected: the daemon's own user and root are
// administrators, everybody else who could open the socket may write.
func peerOf(conn *net.UnixConn) peer {
	unknown := peer{ipc.ClassWrite, -1, -1}
	raw, err := conn.SyscallConn()
	if err != nil {
		return unknown
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil || err != nil {
		return unknown
	}
	p := peer{ipc.ClassWrite, int(cred.Uid), int(cred.Pid)}
	if p.uid == 0 || p.uid == os.Geteuid() {
		p.role = ipc.ClassAdmin
	}
	return p
}
