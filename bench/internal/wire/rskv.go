package wire

import (
	"encoding/binary"
	"fmt"

	"rskv/ipc"
)

// RSKV is how rskvd is spoken to. Sync has every put answered when it is on
// stable storage.
type RSKV struct{ Sync bool }

// Ordered implements Dialect.
func (RSKV) Ordered() bool { return false }

// AppendGet implements Dialect.
func (RSKV) AppendGet(dst []byte, id uint32, key []byte) []byte { return ipc.AppendGet(dst, id, key) }

// AppendPut implements Dialect.
func (d RSKV) AppendPut(dst []byte, id uint32, key, value []byte) []byte {
	if !d.Sync {
		return ipc.AppendPut(dst, id, key, value)
	}
	dst = ipc.AppendBin(ipc.AppendBin(ipc.AppendRequestHeader(dst, id, ipc.MethodPut, 3), key), value)
	return ipc.AppendBool(ipc.AppendStr(ipc.AppendMapHeader(dst, 1), "sync"), true)
}

// The bytes of an answer that is no error, in the shortest encoding: the only
// one rskvd sends.
const (
	fixarray4  = 0x94
	response   = 0x01
	isNil      = 0xc0
	isFalse    = 0xc2
	isTrue     = 0xc3
	bin8       = 0xc4
	bin16      = 0xc5
	uint8Head  = 0xcc
	uint16Head = 0xcd
)

// Take implements Dialect. Like its counterpart for Redis it knows the answers
// to get and put, and leaves the rest to the general parser.
func (d RSKV) Take(buf []byte, a *Answer) (int, error) {
	if len(buf) < 5 {
		return 0, nil
	}
	if buf[0] != fixarray4 || buf[1] != response {
		return d.general(buf, a)
	}
	at := 3
	switch id := buf[2]; {
	case id < 0x80:
		a.ID = uint32(id)
	case id == uint8Head:
		a.ID, at = uint32(buf[3]), 4
	case id == uint16Head:
		a.ID, at = uint32(binary.BigEndian.Uint16(buf[3:])), 5
	default:
		return d.general(buf, a)
	}
	if len(buf) < at+4 || buf[at] != isNil { // nil, then at most three bytes of head
		return d.general(buf, a)
	}
	n := 0
	switch buf[at+1] {
	case bin8:
		n, at = int(buf[at+2]), at+3
	case bin16:
		n, at = int(binary.BigEndian.Uint16(buf[at+2:])), at+4
	case isTrue, isFalse, isNil:
		a.Value, a.Found = nil, buf[at+1] == isTrue
		return at + 2, nil
	default:
		return d.general(buf, a)
	}
	if len(buf) < at+n {
		return 0, nil
	}
	a.Value, a.Found = buf[at:at+n], true
	return at + n, nil
}

// general takes any answer to get and put, in any encoding.
func (RSKV) general(buf []byte, a *Answer) (int, error) {
	splitter := ipc.NewSplitter(ipc.MaxAnswer)
	n, bad := splitter.Next(buf)
	if bad != nil {
		return 0, bad
	}
	if n == 0 {
		return 0, nil
	}
	var p ipc.Response
	if err := ipc.ParseResponse(buf[:n], &p); err != nil {
		return 0, err
	}
	if err := p.Err(); err != nil {
		return 0, fmt.Errorf("server: %w", err)
	}
	var err error
	a.ID, a.Value, a.Found = p.ID, nil, false
	switch result := p.Result; result.Kind() {
	case ipc.KindNil:
	case ipc.KindBool:
		a.Found, err = result.Bool()
	case ipc.KindBin:
		a.Value, err = result.Bytes()
		a.Found = true
	default:
		err = fmt.Errorf("answer of an unexpected shape: %.40q", buf[:n])
	}
	return n, err
}
