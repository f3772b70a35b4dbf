package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// RESP is how Redis is spoken to.
type RESP struct{}

// Ordered implements Dialect.
func (RESP) Ordered() bool { return true }

// AppendGet implements Dialect.
func (RESP) AppendGet(dst []byte, _ uint32, key []byte) []byte {
	return appendBulk(append(dst, "*2\r\n$3\r\nGET\r\n"...), key)
}

// AppendPut implements Dialect.
func (RESP) AppendPut(dst []byte, _ uint32, key, value []byte) []byte {
	return appendBulk(appendBulk(append(dst, "*3\r\n$3\r\nSET\r\n"...), key), value)
}

func appendBulk(dst, b []byte) []byte {
	dst = strconv.AppendUint(append(dst, '$'), uint64(len(b)), 10)
	dst = append(dst, '\r', '\n')
	return append(append(dst, b...), '\r', '\n')
}

var errNotRESP = errors.New("not RESP")

// Take implements Dialect. It knows simple strings, errors and bulk strings.
func (RESP) Take(buf []byte, a *Answer) (int, error) {
	eol := bytes.IndexByte(buf, '\n')
	if eol < 0 {
		return 0, nil
	}
	if eol < 2 || buf[eol-1] != '\r' {
		return 0, fmt.Errorf("%w: %.40q", errNotRESP, buf)
	}
	line := buf[1 : eol-1]
	switch buf[0] {
	case '+':
		a.Value, a.Found = nil, true
		return eol + 1, nil
	case '-':
		return 0, fmt.Errorf("server: %s", line)
	case '$':
		if string(line) == "-1" {
			a.Value, a.Found = nil, false
			return eol + 1, nil
		}
		n := 0
		for _, digit := range line {
			if digit < '0' || digit > '9' || n > inSize {
				return 0, fmt.Errorf("%w: length %.40q", errNotRESP, line)
			}
			n = 10*n + int(digit-'0')
		}
		end := eol + 1 + n
		if len(buf) < end+2 {
			return 0, nil
		}
		a.Value, a.Found = buf[eol+1:end], true
		return end + 2, nil
	}
	return 0, fmt.Errorf("%w: %.40q", errNotRESP, buf)
}
