package daemon

import (
	"fmt"
	"net"
)

// notifier tells the service manager what the daemon is doing, by the protocol
// of sd_notify(3): datagrams of NAME=value lines to the socket named by
// NOTIFY_SOCKET. The zero notifier says nothing.
type notifier struct{ conn *net.UnixConn }

// newNotifier connects to the socket at path; "" means that nobody listens. A
// leading @ stands for Linux's abstract namespace.
func newNotifier(path string) (notifier, error) {
	if path == "" {
		return notifier{}, nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return notifier{}, fmt.Errorf("reach the service manager: %w", err)
	}
	return notifier{conn}, nil
}

// send tells one state with a sentence for people. The service manager may
// ignore it or be gone: neither is this daemon's trouble.
func (n notifier) send(state, status string) {
	if n.conn == nil {
		return
	}
	text := "STATUS=" + status + "\n"
	if state != "" {
		text = state + "=1\n" + text
	}
	_, _ = n.conn.Write([]byte(text))
}

func (n notifier) close() {
	if n.conn != nil {
		_ = n.conn.Close()
	}
}
