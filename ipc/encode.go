package ipc

import "encoding/binary"

// AppendRequestHeader begins request id of method with count parameters, which the caller appends.
// The method must be known.
func AppendRequestHeader(dst []byte, id uint32, method Method, count int) []byte {
	if id < 1<<7 {
		dst = append(dst, fixarray|4, byte(TypeRequest), byte(id))
	} else {
		dst = AppendUint(append(dst, fixarray|4, byte(TypeRequest)), uint64(id))
	}
	return append(AppendStr(dst, methods[method].name), fixarray|byte(count))
}

// AppendNotificationHeader begins a notification of method with count parameters, which the caller
// appends.
func AppendNotificationHeader(dst []byte, method Method, count int) []byte {
	dst = AppendStr(append(dst, fixarray|3, byte(TypeNotification)), methods[method].name)
	return append(dst, fixarray|byte(count))
}

// AppendGet appends the whole request "get".
func AppendGet(dst []byte, id uint32, key []byte) []byte {
	return AppendBin(AppendRequestHeader(dst, id, MethodGet, 1), key)
}

// AppendPut appends the whole request "put" without options.
func AppendPut(dst []byte, id uint32, key, value []byte) []byte {
	return AppendBin(AppendBin(AppendRequestHeader(dst, id, MethodPut, 2), key), value)
}

// patchable is a request's beginning with room for any id: array of 4, type 0, uint32.
const patchable = "\x94\x00\xce\x00\x00\x00\x00"

// AppendPatchableHeader is AppendRequestHeader for a caller that learns the id later: PatchID puts
// it in. It costs up to four bytes more.
func AppendPatchableHeader(dst []byte, method Method, count int) []byte {
	dst = AppendStr(append(dst, patchable...), methods[method].name)
	return append(dst, fixarray|byte(count))
}

// PatchID gives the request at the start of b, begun by AppendPatchableHeader, its id.
func PatchID(b []byte, id uint32) { binary.BigEndian.PutUint32(b[3:], id) }
