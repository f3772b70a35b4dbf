// Package ipc is the wire between rskv's clients and its daemon: MessagePack-RPC over a Unix
// stream socket. PROTOCOL.md beside this file is the published form, with worked bytes.
//
//	request       [0, msgid, method, params]        client -> daemon
//	response      [1, msgid, error, result]         daemon -> client
//	notification  [2, method, params]               either way, never answered
//
// A message on its way in passes three stations, each of which believes only what the one before
// it has proved:
//
//	read(2) -> buffer -> Splitter.Next   where does this message end? (structure, size, depth)
//	                  -> ParseRequest    outer shape: type, id, method, params
//	                  -> ParseCall       parameters, options, limits: a Call ready to be carried out
//
// What the first two refuse cannot be resynchronised: the connection ends. What the third refuses
// is answered with an error and the connection goes on.
//
// Invariants:
//   - Nothing is copied. Byte strings in a Request, Call or Response alias the caller's buffer and
//     live as long as its content stays put.
//   - No allocation is sized by a length that was not first compared with the bytes at hand.
//   - The Splitter looks at each byte of a message's structure once, however many reads it came in.
//   - The hot methods (get, put, del and their kin) are encoded and parsed without allocating.
//
// The package knows neither the engine nor the daemon. msgpack/v5 serves what is not hot, behind
// Validate. Read splitter.go first, then reader.go, request.go and call.go.
package ipc
