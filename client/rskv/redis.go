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
	"sync/atomic"
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

// openRedis opens a server as a source: all its keys that hold strings, with
// prefix in front. Without content their values are nil.
func openRedis(name string, prefix []byte, content bool) (*input, error) {
	c, err := dialRedis(name)
	if err != nil {
		return nil, err
	}
	size, err := c.ask("DBSIZE")
	if err != nil {
		c.close()
		return nil, err
	}
	total, _ := size.(int64)
	var done atomic.Int64
	return &input{
		pairs: func(yield func(pair, error) bool) { redisPairs(c, prefix, content, &done, yield) },
		total: func() int64 { return total }, done: done.Load, close: c.close,
	}, nil
}

// redisPairs hands out page by page.
func redisPairs(c *redisConn, prefix []byte, content bool, done *atomic.Int64, yield func(pair, error) bool) {
	for cursor := "0"; ; {
		keys, next, err := c.scan(cursor)
		if err == nil && content {
			for _, k := range keys {
				err = errors.Join(err, c.send([]byte("GET"), k))
			}
			err = errors.Join(err, c.flush())
		}
		if err != nil {
			yield(pair{}, err)
			return
		}
		for _, k := range keys {
			p, err := pair{key: append(bytes.Clone(prefix), k...)}, error(nil)
			if content {
				if p.value, err = c.string(k); p.value == nil && err == nil {
					done.Add(1)
					continue // it has gone meanwhile
				}
			}
			if !yield(p, err) {
				return
			}
			if one := (*itemError)(nil); err != nil && !errors.As(err, &one) {
				return
			}
			done.Add(1)
		}
		if cursor = next; cursor == "0" {
			return
		}
	}
}

// scan returns one page of keys and the cursor of the next.
func (c *redisConn) scan(cursor string) (keys [][]byte, next string, err error) {
	answer, err := c.ask("SCAN", cursor, "COUNT", strconv.Itoa(redisPage))
	if err != nil {
		return nil, "", err
	}
	page, ok := answer.([]any)
	if !ok || len(page) != 2 {
		return nil, "", fmt.Errorf("read from Redis: SCAN: %w", errRESP)
	}
	at, ok := page[0].([]byte)
	list, _ := page[1].([]any)
	for _, k := range list {
		key, isBytes := k.([]byte)
		ok = ok && isBytes
		keys = append(keys, key)
	}
	if !ok {
		return nil, "", fmt.Errorf("read from Redis: SCAN: %w", errRESP)
	}
	return keys, string(at), nil
}

// string takes the answer to a GET; nil if the key is not there. What is no
// string concerns that key only.
func (c *redisConn) string(key []byte) ([]byte, error) {
	v, err := c.receive()
	if refused := redisError(""); errors.As(err, &refused) {
		if strings.HasPrefix(string(refused), "WRONGTYPE") {
			err = errors.New("is not a string in Redis")
		}
		return nil, &itemError{quoted(key), err}
	}
	b, _ := v.([]byte)
	return b, err
}

// redisSink writes each pair by a SET, many of them before the first is
// answered.
type redisSink struct {
	c       *redisConn
	prefix  []byte
	waiting int // SETs without an answer
}

func newRedisSink(name string, prefix []byte) (*redisSink, error) {
	c, err := dialRedis(name)
	if err != nil {
		return nil, err
	}
	return &redisSink{c: c, prefix: prefix}, nil
}

func (s *redisSink) write(key, value []byte) error {
	rest, ok := bytes.CutPrefix(key, s.prefix)
	if !ok {
		return &itemError{quoted(key), fmt.Errorf("does not begin with the prefix %s", quoted(s.prefix))}
	}
	if err := s.c.send([]byte("SET"), rest, value); err != nil {
		return fmt.Errorf("send to Redis: %w", err)
	}
	if s.waiting++; s.waiting < redisPage {
		return nil
	}
	return s.settle()
}

// settle takes the answers. A SET that is refused ends the export: what refuses
// one (no memory, a replica, no permission) refuses all.
func (s *redisSink) settle() error {
	if err := s.c.flush(); err != nil {
		return fmt.Errorf("send to Redis: %w", err)
	}
	for ; s.waiting > 0; s.waiting-- {
		if _, err := s.c.receive(); err != nil {
			return err
		}
	}
	return nil
}

func (s *redisSink) close() error { return errors.Join(s.settle(), s.c.close()) }
