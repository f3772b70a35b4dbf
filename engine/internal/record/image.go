package record

import "encoding/binary"

// Words reads the two header words of a record that was read from disk. buf
// holds at least HeaderSize bytes.
func Words(buf []byte) (w0, w1 uint64) {
	return binary.LittleEndian.Uint64(buf), binary.LittleEndian.Uint64(buf[8:])
}

// Key returns the key of a record image that begins buf; it aliases buf.
func Key(buf []byte, w0 uint64) []byte { return buf[HeaderSize : HeaderSize+KeyLen(w0)] }

// ValueOf returns the value of a record image that begins buf; it aliases buf.
func ValueOf(buf []byte, w0, w1 uint64) []byte {
	off := ValueOffset(w0, w1)
	return buf[off : off+ValueLen(w1)]
}

// ExpiryOf returns the expiry of a record image that begins buf, in ms since 1970,
// or 0 if it has none.
func ExpiryOf(buf []byte, w0, w1 uint64) int64 {
	if w1&Expiry == 0 || KindOf(w1) == System {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(buf[HeaderSize+pad8(KeyLen(w0)):]))
}

// Unmark takes what only memory has out of a record image that begins buf and was
// copied from there: see Sweep.
func Unmark(buf []byte) { buf[15] &^= byte(Swept >> 56) }

// PutFiller writes the header of a filler of size bytes (a multiple of Unit, at
// least HeaderSize) and zeroes the rest.
func PutFiller(buf []byte) {
	clear(buf)
	binary.LittleEndian.PutUint64(buf, Word0(0, TypeFiller))
	binary.LittleEndian.PutUint64(buf[8:], Word1(System, len(buf)-HeaderSize, 0))
}
