package ipc_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"rskv/ipc"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// example is one message of PROTOCOL.md.
type example struct {
	toDaemon bool
	notation string
	bytes    []byte
}

// examples reads the messages out of PROTOCOL.md: a line "> notation" or "< notation" in a block of
// code, and the indented lines of hex behind it.
func examples(t testing.TB) []example {
	text, err := os.ReadFile("PROTOCOL.md")
	require.NoError(t, err)
	var all []example
	block := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "```":
			block = !block
		case block && len(line) > 2 && (line[0] == '>' || line[0] == '<'):
			all = append(all, example{line[0] == '>', line[2:], nil})
		case block:
			b, err := hex.DecodeString(strings.ReplaceAll(line, " ", ""))
			require.NoError(t, err, line)
			e := &all[len(all)-1]
			e.bytes = append(e.bytes, b...)
		}
	}
	require.Greater(t, len(all), 40, "examples in PROTOCOL.md")
	return all
}

// notation writes what msgpack/v5 finds in b in the notation of PROTOCOL.md.
func notation(t testing.TB, d *msgpack.Decoder) string {
	code, err := d.PeekCode()
	require.NoError(t, err)
	switch {
	case msgpcode.IsFixedArray(code) || code == msgpcode.Array16 || code == msgpcode.Array32:
		n, err := d.DecodeArrayLen()
		require.NoError(t, err)
		parts := make([]string, n)
		for i := range parts {
			parts[i] = notation(t, d)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case msgpcode.IsFixedMap(code) || code == msgpcode.Map16 || code == msgpcode.Map32:
		n, err := d.DecodeMapLen()
		require.NoError(t, err)
		parts := make([]string, n)
		for i := range parts {
			name := notation(t, d)
			parts[i] = name + ": " + notation(t, d)
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	v, err := d.DecodeInterface()
	require.NoError(t, err)
	switch v := v.(type) {
	case nil:
		return "nil"
	case string:
		return strconv.Quote(v)
	case []byte:
		var s strings.Builder
		for _, c := range v {
			if c >= ' ' && c < 0x7f && c != '\'' && c != '\\' {
				s.WriteByte(c)
			} else {
				fmt.Fprintf(&s, `\x%02x`, c)
			}
		}
		return "'" + s.String() + "'"
	}
	return fmt.Sprint(v)
}

// What could go wrong: the published bytes do not say what stands beside them.
func TestProtocol_BytesMatchNotation(t *testing.T) {
	for _, e := range examples(t) {
		d := msgpack.NewDecoder(bytes.NewReader(e.bytes))
		require.Equal(t, e.notation, notation(t, d))
		_, err := d.PeekCode()
		require.Error(t, err, "bytes follow %s", e.notation)
	}
}

// What could go wrong: a published request is refused, or a published answer not understood.
func TestProtocol_ParsersTakeEveryExample(t *testing.T) {
	lim := ipc.DefaultLimits()
	seen := map[ipc.Method]bool{}
	for _, e := range examples(t) {
		split := ipc.NewSplitter(ipc.MaxRequest)
		n, serr := split.Next(e.bytes)
		require.Nil(t, serr, e.notation)
		require.Equal(t, len(e.bytes), n, e.notation)
		if !e.toDaemon {
			var p ipc.Response
			require.NoError(t, ipc.ParseResponse(e.bytes, &p), e.notation)
			continue
		}
		var q ipc.Request
		require.Nil(t, ipc.ParseRequest(e.bytes, &q), e.notation)
		var c ipc.Call
		require.Nil(t, ipc.ParseCall(&q, &lim, &c), e.notation)
		seen[q.Method] = true
	}
	for _, m := range ipc.Methods() {
		require.True(t, seen[m], "no example of %s", m)
	}
}

// What could go wrong: our encoders make other bytes than the published ones.
func TestProtocol_EncodersMakeTheExamples(t *testing.T) {
	published := map[string]bool{}
	for _, e := range examples(t) {
		published[hex.EncodeToString(e.bytes)] = true
	}
	k, v := []byte("k"), []byte("v")
	hello := ipc.Hello{Server: "rskvd", Version: "0.1.0", Protocol: 1, Role: ipc.ClassAdmin, Limits: ipc.DefaultLimits()}
	for i := range hello.Session {
		hello.Session[i] = byte(i)
	}
	resumed := hello
	resumed.Applied, resumed.Durable, resumed.Role = 3, 1, ipc.ClassWrite
	resumed.Refused = []ipc.Refused{{Number: 3, Code: ipc.CodeDiskFull}}
	header := ipc.AppendRequestHeader
	for what, made := range map[string][]byte{
		"ping":         header(nil, 1, ipc.MethodPing, 0),
		"pong":         ipc.AppendStrResult(nil, 1, "pong"),
		"get":          ipc.AppendGet(nil, 7, k),
		"value":        ipc.AppendBinResult(nil, 7, v),
		"value later":  append(ipc.AppendBinResultHeader(nil, 7, 1), 'v'),
		"absent":       ipc.AppendNilResult(nil, 7),
		"exists":       ipc.AppendBin(header(nil, 300, ipc.MethodExists, 1), k),
		"true":         ipc.AppendBoolResult(nil, 300, true),
		"put":          ipc.AppendPut(nil, 70_000, k, v),
		"notification": ipc.AppendBin(ipc.AppendBin(ipc.AppendNotificationHeader(nil, ipc.MethodPut, 2), k), v),
		"not stored":   ipc.AppendBoolResult(nil, 2, false),
		"add":          ipc.AppendInt(ipc.AppendBin(header(nil, 6, ipc.MethodAdd, 2), []byte("n")), -1),
		"sum":          ipc.AppendIntResult(nil, 6, -1),
		"length":       ipc.AppendUintResult(nil, 8, 5),
		"error":        ipc.AppendErrorResponse(nil, 17, ipc.CodeUnknownMethod, `no method "frob"`),
		"stream error": ipc.AppendErrorResponse(nil, 0, ipc.ErrNotMessagePack.Code, ipc.ErrNotMessagePack.Message),
		"hello":        ipc.AppendHello(ipc.AppendResultHeader(nil, 1), &hello),
		"resumed":      ipc.AppendHello(ipc.AppendResultHeader(nil, 1), &resumed),
		"durable":      ipc.AppendDurableNotification(nil, 3),
		"put change":   ipc.AppendPutChange(nil, 4128, []byte("a"), []byte("1")),
		"del change":   ipc.AppendDeleteChange(nil, 4160, []byte("ab")),
		"commit":       ipc.AppendPlace(nil, ipc.NotifyCommit, 8192),
		"lagged":       ipc.AppendPlace(nil, ipc.NotifyLagged, 8192),
	} {
		require.True(t, published[hex.EncodeToString(made)], "%s: % x is not in PROTOCOL.md", what, made)
	}
}

// What could go wrong: a limit or a code in the text is not the one in the code.
func TestProtocol_TextNamesEveryLimitAndCode(t *testing.T) {
	b, err := os.ReadFile("PROTOCOL.md")
	require.NoError(t, err)
	text := strings.ReplaceAll(string(b), ",", "")
	for _, code := range ipc.Codes {
		require.Contains(t, text, "`"+string(code)+"`")
	}
	for name, n := range map[string]int{
		"key": ipc.MaxKey, "value": ipc.MaxValue, "request": ipc.MaxRequest, "answer": ipc.MaxAnswer,
		"keys": ipc.MaxKeys, "unanswered": ipc.MaxUnanswered, "queued": ipc.MaxQueued, "queued_all": ipc.MaxQueuedAll,
	} {
		require.Regexp(t, fmt.Sprintf(`\| (1\.\.|0\.\.)?%d( bytes)? \| %s \|`, n, name), text)
	}
	for _, n := range []int{ipc.MaxDepth, ipc.MaxClientName, ipc.SessionSize, ipc.MaxCookie, ipc.MaxBackupPiece, ipc.MaxSettings, ipc.MaxSocketPath} {
		require.Regexp(t, fmt.Sprintf(`\| %d( bytes)? \| \|`, n), text)
	}
}
