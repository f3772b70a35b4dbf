package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// import, verify and export speak to a Redis server, or what speaks its
// protocol, where a file could stand:
//
//	redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]
//	redis+unix:///PATH/TO/SOCKET[?db=DATABASE]
//
// Only strings are moved. The protocol is RESP2: commands are arrays of bulk
// strings, many are sent before the first is answered.

const (
	redisTimeout = 30 * time.Second // without an answer
	redisPage    = 512              // keys of one SCAN, and values asked for at a time
	bulkMax      = 512 << 20        // bytes; Redis's own limit
)

// isRedis reports whether a source or destination is a server.
func isRedis(name string) bool {
	return strings.HasPrefix(name, "redis://") || strings.HasPrefix(name, "redis+unix://")
}

// redisConn is one connection. It belongs to one goroutine.
type redisConn struct {
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
}

// redisError is an error that the server answered with.
type redisError string

func (e redisError) Error() string { return "Redis: " + string(e) }

// dialRedis connects, and chooses user and database as the URL says.
func dialRedis(name string) (*redisConn, error) {
	u, err := url.Parse(name)
	if err != nil {
		return nil, fmt.Errorf("address of Redis: %w", err)
	}
	network, address, db := "unix", u.Path, u.Query().Get("db")
	if u.Scheme == "redis" {
		port := u.Port()
		if port == "" {
			port = "6379"
		}
		network, address, db = "tcp", net.JoinHostPort(u.Hostname(), port), strings.Trim(u.Path, "/")
	}
	conn, err := net.DialTimeout(network, address, redisTimeout)
	if err != nil {
		return nil, fmt.Errorf("connect to Redis: %w", err)
	}
	c := newRedisConn(conn)
	if password, ok := u.User.Password(); ok {
		auth := []string{"AUTH", u.User.Username(), password}
		if u.User.Username() == "" {
			auth = []string{"AUTH", password}
		}
		err = c.do(auth...)
	}
	if err == nil && db != "" {
		err = c.do("SELECT", db)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func newRedisConn(conn net.Conn) *redisConn {
	return &redisConn{conn, bufio.NewReaderSize(conn, 256<<10), bufio.NewWriterSize(conn, 256<<10)}
}

func (c *redisConn) close() error { return c.conn.Close() }

// send queues a command.
func (c *redisConn) send(args ...[]byte) error {
	fmt.Fprintf(c.w, "*%d\r\n", len(args))
	var err error
	for _, a := range args {
		fmt.Fprintf(c.w, "$%d\r\n", len(a))
		_, _ = c.w.Write(a)
		_, err = c.w.WriteString("\r\n")
	}
	return err // a Writer keeps its first error
}

// flush gives what was queued to the socket.
func (c *redisConn) flush() error {
	_ = c.conn.SetDeadline(time.Now().Add(redisTimeout))
	return c.w.Flush()
}

// do sends one command of text and takes its answer, which is of no interest.
func (c *redisConn) do(args ...string) error {
	_, err := c.ask(args...)
	return err
}

// ask sends one command of text and returns its answer.
func (c *redisConn) ask(args ...string) (any, error) {
	list := make([][]byte, len(args))
	for i, a := range args {
		list[i] = []byte(a)
	}
	err := c.send(list...)
	if err == nil {
		err = c.flush()
	}
	if err != nil {
		return nil, fmt.Errorf("send to Redis: %w", err)
	}
	return c.receive()
}

// receive returns the next answer: []byte, int64, nil or []any. A redisError is
// the answer to one command, any other error the end of the connection.
func (c *redisConn) receive() (any, error) {
	_ = c.conn.SetDeadline(time.Now().Add(redisTimeout))
	v, err := c.value(0)
	if refused := redisError(""); err != nil && !errors.As(err, &refused) {
		err = fmt.Errorf("read from Redis: %w", err)
	}
	return v, err
}

var errRESP = errors.New("not RESP")

func (c *redisConn) value(depth int) (any, error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	line, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok || len(line) == 0 || depth > 4 {
		return nil, errRESP
	}
	kind, rest := line[0], string(line[1:])
	switch kind {
	case '+':
		return []byte(rest), nil
	case '-':
		return nil, redisError(rest)
	}
	n, err := strconv.ParseInt(rest, 10, 64)
	switch {
	case err != nil || n > bulkMax && kind != ':':
		return nil, errRESP
	case kind == ':':
		return n, nil
	case n < 0:
		return nil, nil
	case kind == '$':
		return c.bulk(n)
	case kind == '*':
		return c.array(n, depth)
	}
	return nil, errRESP
}

// bulk reads n bytes. They are believed as they come.
func (c *redisConn) bulk(n int64) (any, error) {
	var b bytes.Buffer
	if _, err := io.CopyN(&b, c.r, n); err != nil {
		return nil, err
	}
	var end [2]byte
	if _, err := io.ReadFull(c.r, end[:]); err != nil || string(end[:]) != "\r\n" {
		return nil, errors.Join(err, errRESP)
	}
	if n == 0 {
		return []byte{}, nil
	}
	return b.Bytes(), nil
}

func (c *redisConn) array(n int64, depth int) (any, error) {
	var list []any
	for range n {
		v, err := c.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}
