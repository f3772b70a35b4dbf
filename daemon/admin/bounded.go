package admin

import (
	"net"
	"sync"
)

// bounded is a listener that has no more than cap(open) connections at a time;
// others are closed as soon as they come.
type bounded struct {
	net.Listener
	open chan struct{}
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.open <- struct{}{}:
			return &boundedConn{Conn: conn, give: sync.OnceFunc(func() { <-b.open })}, nil
		default:
			_ = conn.Close()
		}
	}
}

type boundedConn struct {
	net.Conn
	give func()
}

func (c *boundedConn) Close() error {
	err := c.Conn.Close()
	c.give()
	return err
}
