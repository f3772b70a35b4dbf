package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

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

// redisPairs hands out page by page. The expiry is asked for before the value:
// one that is set in between is missed, none is made up.
func redisPairs(c *redisConn, prefix []byte, content bool, done *atomic.Int64, yield func(pair, error) bool) {
	for cursor := "0"; ; {
		keys, next, err := c.scan(cursor)
		if err == nil && content {
			for _, k := range keys {
				err = errors.Join(err, c.send([]byte("PTTL"), k), c.send([]byte("GET"), k))
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
				if p.value, p.expires, err = c.taken(k); p.value == nil && err == nil {
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

// taken takes the answers to a PTTL and a GET; a nil value is a key that is not
// there.
func (c *redisConn) taken(key []byte) (value []byte, expires time.Time, err error) {
	left, err := c.receive()
	if refused := redisError(""); errors.As(err, &refused) {
		err = &itemError{quoted(key), err}
	}
	if ms, _ := left.(int64); ms > 0 {
		expires = time.Now().Add(time.Duration(ms) * time.Millisecond)
	}
	if one := (*itemError)(nil); err != nil && !errors.As(err, &one) {
		return nil, expires, err // the connection's
	}
	value, verr := c.string(key)
	return value, expires, cmp.Or(err, verr)
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

func (s *redisSink) write(p pair) error {
	rest, ok := bytes.CutPrefix(p.key, s.prefix)
	if !ok {
		return &itemError{quoted(p.key), fmt.Errorf("does not begin with the prefix %s", quoted(s.prefix))}
	}
	set := [][]byte{[]byte("SET"), rest, p.value}
	if left, ok := p.left(); ok {
		set = append(set, []byte("PX"), strconv.AppendInt(nil, max(left.Milliseconds(), 1), 10))
	}
	if err := s.c.send(set...); err != nil {
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
