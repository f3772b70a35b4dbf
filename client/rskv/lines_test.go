package main

import (
	"bufio"
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pairsOf collects a source; errors about single items are returned apart.
func pairsOf(t testing.TB, s source) (pairs []pair, failed []string) {
	t.Helper()
	for p, err := range s {
		var one *itemError
		switch {
		case errors.As(err, &one):
			failed = append(failed, err.Error())
		case err != nil:
			t.Fatal(err)
		default:
			pairs = append(pairs, p)
		}
	}
	return pairs, failed
}

// awkward are byte strings that one format or the other has to escape.
var awkward = []string{
	"a", "\t", "\n", "\r\n", `\`, `\n`, `\\t`, "\x00", "\xff\xfe", "é", "\u2028", "<&>", `"`, "\ufffd", "\U0001f600", "a\tb\nc\\",
}

// A format that loses or changes one byte would make export and import disagree.
func TestLines_RoundTrip(t *testing.T) {
	var want []pair
	var ndjson, tsv []byte
	var err error
	for _, k := range awkward {
		for _, v := range append(awkward, "") {
			want = append(want, pair{key: []byte(k), value: []byte(v)})
			ndjson, err = appendNDJSON(ndjson, pair{key: []byte(k), value: []byte(v)})
			require.NoError(t, err)
			tsv = appendTSV(tsv, []byte(k), []byte(v))
		}
	}
	for f, text := range map[format][]byte{formatNDJSON: ndjson, formatTSV: tsv} {
		in, err := openLines(bytes.NewReader(text), nil, f)
		require.NoError(t, err)
		got, failed := pairsOf(t, in.pairs)
		require.Empty(t, failed)
		require.Equal(t, want, got, "format %s", f)
	}
}

// A line that cannot mean what it says must be refused with its number, and
// must not end the import.
func TestLines_Refused(t *testing.T) {
	for _, c := range []struct {
		format     format
		line, want string
	}{
		{formatTSV, "no tab", "no tab"},
		{formatTSV, "k\ta\tb", "more than one tab"},
		{formatTSV, `k` + "\t" + `\q`, `unknown escape \q`},
		{formatTSV, `k` + "\t" + `\`, "middle of an escape"},
		{formatTSV, `k` + "\t" + `\x1`, "middle of an escape"},
		{formatTSV, `k` + "\t" + `\xg0`, `bad escape`},
		{formatNDJSON, `{"key":"k"}`, "no value"},
		{formatNDJSON, `{"value":"v"}`, "no key"},
		{formatNDJSON, `{"key":"k","key_base64":"aw==","value":"v"}`, "both key"},
		{formatNDJSON, `{"key":"k","value_base64":"!"}`, "value_base64"},
		{formatNDJSON, `{"key":"k","value":"v","ttl":1}`, "ttl"},
		{formatNDJSON, `{"key":"k","value":"v","expires":"tomorrow"}`, "expires is"},
		{formatNDJSON, `{"key":"k","value":"v","expires":"0001-01-01T00:00:00Z"}`, "expires is"},
		{formatNDJSON, `{"key":"k","value":"v","expires":"9999-12-31T23:59:59-01:00"}`, "expires is"},
		{formatNDJSON, `{"key":"k","value":"v"} {}`, "more than one"},
		{formatNDJSON, `{"key":"k","value":3}`, "number"},
		{formatNDJSON, "{\"key\":\"\xff\",\"value\":\"v\"}", "not UTF-8"},
		{formatNDJSON, `{"key":"\ud800","value":"v"}`, "surrogate"},
		{formatNDJSON, `{"key":"\udc00\ud800","value":"v"}`, "surrogate"},
		{formatNDJSON, `{"key":"\ud800\u0041","value":"v"}`, "surrogate"},
	} {
		good := "good\tvalue\n"
		if c.format == formatNDJSON {
			good = `{"key":"good","value":"value"}` + "\n"
		}
		in, err := openLines(strings.NewReader(good+"\n"+c.line+"\n"+good), nil, c.format)
		require.NoError(t, err)
		pairs, failed := pairsOf(t, in.pairs)
		require.Len(t, pairs, 2, "%q", c.line)
		require.Len(t, failed, 1, "%q", c.line)
		require.Contains(t, failed[0], "line 3: ")
		require.Contains(t, failed[0], c.want)
	}
}

// What stands in escapes, in base64 or without a last newline is as good as
// what export writes.
func TestLines_Accepted(t *testing.T) {
	for text, want := range map[string]pair{
		`k` + "\t" + `\x00\xFF`:                        {key: []byte("k"), value: []byte("\x00\xff")},
		`{"key_base64":"/w==","value":"\ud83d\ude00"}`: {key: []byte("\xff"), value: []byte("\U0001f600")},
		`{"key":"\\ud800","value":""}`:                 {key: []byte(`\ud800`), value: []byte{}},
		" \t":                                          {key: []byte(" "), value: []byte{}},
		`{"key":"k","value":"v","expires":"2026-01-31T23:59:59.9+01:00"}`: {key: []byte("k"), value: []byte("v"), expires: time.Date(2026, 1, 31, 22, 59, 59, 9e8, time.UTC)},
	} {
		in, err := openLines(strings.NewReader(text), nil, "")
		require.NoError(t, err)
		pairs, failed := pairsOf(t, in.pairs)
		require.Empty(t, failed, "%q", text)
		require.Equal(t, []pair{want}, pairs, "%q", text)
	}
}

// Lines longer than the buffer must come out whole, and those above the limit
// must not be collected without end.
func TestReadLine_Long(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	r := bufio.NewReaderSize(strings.NewReader("short\n"+long+"\n"+long+"y"), 16)
	for _, want := range []string{"short", long, long + "y"} {
		line, err := readLine(r, nil, lineMax)
		require.NoError(t, err)
		require.Equal(t, want, string(line))
	}
	endless := bufio.NewReaderSize(zeros{}, 1<<16)
	_, err := readLine(endless, nil, 1<<20)
	require.ErrorContains(t, err, "longer than 1048576 bytes")
}

// zeros is a stream of zero bytes without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Whatever a line holds, a parser must not panic, and what it accepts must
// survive being written and read again.
func FuzzLines(f *testing.F) {
	f.Add([]byte("k\tv"))
	f.Add([]byte(`a\tb` + "\t" + `\x00`))
	f.Add([]byte(`{"key":"k","value_base64":"/w=="}`))
	f.Add([]byte(`{"key":"k","value":"v","expires":"2026-01-31T23:59:59.1234Z"}`))
	f.Add([]byte(`{"key":"\ud83d\ude00","value":"\\"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if p, err := parseTSV(line); err == nil {
			again, err := parseTSV(bytes.TrimSuffix(appendTSV(nil, p.key, p.value), []byte("\n")))
			require.NoError(t, err)
			require.Equal(t, p, again)
		}
		if p, err := parseNDJSON(line); err == nil {
			text, err := appendNDJSON(nil, p)
			require.NoError(t, err)
			again, err := parseNDJSON(bytes.TrimSuffix(text, []byte("\n")))
			require.NoError(t, err)
			require.Equal(t, p, again)
		}
	})
}
