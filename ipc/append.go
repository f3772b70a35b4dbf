package ipc

import (
	"encoding/binary"
	"math"
)

// First bytes of the MessagePack forms. These numbers are the format's and never change.
const (
	formNil      = 0xc0
	formUnused   = 0xc1 // the one byte that begins no value
	formFalse    = 0xc2
	formTrue     = 0xc3
	formBin8     = 0xc4
	formBin16    = 0xc5
	formBin32    = 0xc6
	formExt8     = 0xc7
	formExt16    = 0xc8
	formExt32    = 0xc9
	formFloat32  = 0xca
	formFloat64  = 0xcb
	formUint8    = 0xcc
	formUint16   = 0xcd
	formUint32   = 0xce
	formUint64   = 0xcf
	formInt8     = 0xd0
	formInt16    = 0xd1
	formInt32    = 0xd2
	formInt64    = 0xd3
	formFixext1  = 0xd4
	formFixext2  = 0xd5
	formFixext4  = 0xd6
	formFixext8  = 0xd7
	formFixext16 = 0xd8
	formStr8     = 0xd9
	formStr16    = 0xda
	formStr32    = 0xdb
	formArray16  = 0xdc
	formArray32  = 0xdd
	formMap16    = 0xde
	formMap32    = 0xdf

	fixmap   = 0x80 // 0x80..0x8f
	fixarray = 0x90 // 0x90..0x9f
	fixstr   = 0xa0 // 0xa0..0xbf
	negative = 0xe0 // 0xe0..0xff are -32..-1
)

// AppendNil appends nil.
func AppendNil(dst []byte) []byte { return append(dst, formNil) }

// AppendBool appends v.
func AppendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, formTrue)
	}
	return append(dst, formFalse)
}

// AppendUint appends v in its shortest encoding.
func AppendUint(dst []byte, v uint64) []byte {
	switch {
	case v < 1<<7:
		return append(dst, byte(v))
	case v < 1<<8:
		return append(dst, formUint8, byte(v))
	case v < 1<<16:
		return append(dst, formUint16, byte(v>>8), byte(v))
	case v < 1<<32:
		return append(dst, formUint32, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
	}
	return binary.BigEndian.AppendUint64(append(dst, formUint64), v)
}

// AppendInt appends v in its shortest encoding; what is not negative is encoded as AppendUint does.
func AppendInt(dst []byte, v int64) []byte {
	switch {
	case v >= 0:
		return AppendUint(dst, uint64(v))
	case v >= -32:
		return append(dst, byte(v))
	case v >= math.MinInt8:
		return append(dst, formInt8, byte(v))
	case v >= math.MinInt16:
		return append(dst, formInt16, byte(v>>8), byte(v))
	case v >= math.MinInt32:
		return append(dst, formInt32, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
	}
	return binary.BigEndian.AppendUint64(append(dst, formInt64), uint64(v))
}

// AppendFloat appends v as a 64-bit float.
func AppendFloat(dst []byte, v float64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, formFloat64), math.Float64bits(v))
}

// AppendBin appends b as a byte string. It must be shorter than 4 GiB.
func AppendBin(dst, b []byte) []byte { return append(AppendBinHeader(dst, len(b)), b...) }

// AppendBinHeader appends what goes before a byte string of n bytes, 0 <= n < 4 GiB; the caller
// appends the bytes.
func AppendBinHeader(dst []byte, n int) []byte {
	switch {
	case n < 1<<8:
		return append(dst, formBin8, byte(n))
	case n < 1<<16:
		return append(dst, formBin16, byte(n>>8), byte(n))
	}
	return append(dst, formBin32, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// AppendStr appends s as a string. It must be shorter than 4 GiB.
func AppendStr(dst []byte, s string) []byte {
	n := len(s)
	switch {
	case n < 32:
		dst = append(dst, fixstr|byte(n))
	case n < 1<<8:
		dst = append(dst, formStr8, byte(n))
	case n < 1<<16:
		dst = append(dst, formStr16, byte(n>>8), byte(n))
	default:
		dst = append(dst, formStr32, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(dst, s...)
}

// AppendArrayHeader begins an array of n elements, which the caller appends.
func AppendArrayHeader(dst []byte, n int) []byte {
	switch {
	case n < 16:
		return append(dst, fixarray|byte(n))
	case n < 1<<16:
		return append(dst, formArray16, byte(n>>8), byte(n))
	}
	return append(dst, formArray32, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// AppendMapHeader begins a map of n pairs, which the caller appends, key before value.
func AppendMapHeader(dst []byte, n int) []byte {
	switch {
	case n < 16:
		return append(dst, fixmap|byte(n))
	case n < 1<<16:
		return append(dst, formMap16, byte(n>>8), byte(n))
	}
	return append(dst, formMap32, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}
