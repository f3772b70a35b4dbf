package manifest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
)

// pageUnits is the size of the sample's pages in log units.
const pageUnits = 1 << 20 / record.Unit

func sample() *Manifest {
	return &Manifest{
		Version:  Version,
		StoreID:  [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
		HashSeed: 0x1122334455667788,
		PageBits: 20, SegmentBits: 26, IndexAnchor: 16, IndexBits: 18,
		Generation: 5, Begin: 0,
		Spans: []Span{
			{Generation: 1, Start: 0, End: 2*pageUnits + 256},
			{Generation: 3, Start: 3 * pageUnits, End: 4 * pageUnits},
			{Generation: 5, Start: 4 * pageUnits},
		},
	}
}

// seal puts the right checksum behind bytes that are wrong for another reason.
func seal(b []byte) []byte {
	body := b[:len(b)-sumSize]
	return binary.LittleEndian.AppendUint64(bytes.Clone(body), xxhash.Sum64(body))
}

// TestEncode_Golden: the bytes change, and stores written before can not be
// opened any more.
func TestEncode_Golden(t *testing.T) {
	t.Parallel()
	const want = "" +
		"72736b764d414e49" + // magic
		"0300000003000000" + // version, spans
		"0102030405060708090a0b0c0d0e0f10" + // store id
		"8877665544332211" + // hash seed
		"141a101200000000" + // page and segment bits, index anchor and bits
		"0500000000000000" + // generation
		"0000000000000000" + // begin
		"0000000000000000000000000000000000000000000000000000000000000000" + // reserved
		"010000000000000000000000000000000001020000000000" + // span 1
		"030000000000000000000300000000000000040000000000" + // span 2
		"050000000000000000000400000000000000000000000000" + // span 3, open
		"00c595ad3ad57b21" // checksum
	require.Equal(t, want, hex.EncodeToString(sample().Encode()))
}

// TestDecode_RoundTrip: a field is lost on the way.
func TestDecode_RoundTrip(t *testing.T) {
	t.Parallel()
	for _, m := range []*Manifest{sample(), {Version: Version, PageBits: 18, SegmentBits: 18, Spans: []Span{}}} {
		got, err := Decode(m.Encode())
		require.NoError(t, err)
		require.Equal(t, m, got)
	}
}

// TestDecode_EveryByte: a changed byte is taken for what was written.
func TestDecode_EveryByte(t *testing.T) {
	t.Parallel()
	b := sample().Encode()
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			_, err := Decode(b)
			switch {
			case i < 8:
				require.ErrorIs(t, err, ErrNotManifest, "byte %d", i)
			default:
				require.ErrorIs(t, err, ErrDamaged, "byte %d", i)
			}
			b[i] ^= 1 << bit
		}
	}
	for n := range b {
		_, err := Decode(b[:n])
		require.Error(t, err, "cut to %d bytes", n)
	}
	_, err := Decode(append(b, 0))
	require.ErrorIs(t, err, ErrDamaged, "a byte too many")
}

// TestDecode_Version: a store of another format version is opened all the same,
// or the message does not say which version it is.
func TestDecode_Version(t *testing.T) {
	t.Parallel()
	b := sample().Encode()
	b[8] = 4
	_, err := Decode(seal(b))
	require.ErrorIs(t, err, ErrVersion)
	require.ErrorContains(t, err, "version 4")
	require.ErrorContains(t, err, "versions 1 to 3")
	b[8] = 1
	m, err := Decode(seal(b))
	require.NoError(t, err)
	require.EqualValues(t, 1, m.Version)
}

// TestDecode_Nonsense: a manifest with a good checksum and impossible content is
// believed.
func TestDecode_Nonsense(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Manifest){
		"small page":             func(m *Manifest) { m.PageBits = 17 },
		"large page":             func(m *Manifest) { m.PageBits = 23 },
		"segment below page":     func(m *Manifest) { m.SegmentBits = 19 },
		"huge segment":           func(m *Manifest) { m.SegmentBits = 41 },
		"huge index":             func(m *Manifest) { m.IndexBits = 41 },
		"huge anchor":            func(m *Manifest) { m.IndexAnchor = 41 },
		"index below anchor":     func(m *Manifest) { m.IndexAnchor, m.IndexBits = 16, 15 },
		"generation twice":       func(m *Manifest) { m.Spans[1].Generation = 1 },
		"generation going back":  func(m *Manifest) { m.Spans[2].Generation = 2 },
		"generation to come":     func(m *Manifest) { m.Spans[2].Generation = 6 },
		"start inside a page":    func(m *Manifest) { m.Spans[1].Start++ },
		"overlap":                func(m *Manifest) { m.Spans[1].Start = 2 * pageUnits },
		"end before start":       func(m *Manifest) { m.Spans[1].End = 3*pageUnits - 1 },
		"begin beyond addresses": func(m *Manifest) { m.Begin = 1 << 47 },
		"end beyond addresses":   func(m *Manifest) { m.Spans[1].End, m.Spans[2].Start = 1<<47, 1<<60 },
		"open in the middle":     func(m *Manifest) { m.Spans[1].End = 0 },
	} {
		m := sample()
		change(m)
		_, err := Decode(m.Encode())
		require.ErrorIs(t, err, ErrDamaged, name)
	}
}

// TestDecode_SpanCount: a count from a damaged file makes us allocate gigabytes.
func TestDecode_SpanCount(t *testing.T) {
	t.Parallel()
	b := sample().Encode()
	for _, n := range []uint32{0, 2, 4, spansMax, spansMax + 1, 1 << 31, 1<<32 - 1} {
		binary.LittleEndian.PutUint32(b[12:], n)
		_, err := Decode(seal(b))
		require.ErrorIs(t, err, ErrDamaged, "%d spans", n)
	}
}

// TestSpanOf: an address is given to the wrong span.
func TestSpanOf(t *testing.T) {
	t.Parallel()
	m := sample()
	for _, c := range []struct {
		addr       record.Addr
		generation uint64
		inside     bool
	}{
		{0, 1, true}, {2*pageUnits + 255, 1, true}, {2*pageUnits + 256, 1, false},
		{3 * pageUnits, 3, true}, {4*pageUnits - 1, 3, true}, {4 * pageUnits, 5, true}, {1 << 40, 5, true},
	} {
		span, inside := m.SpanOf(c.addr)
		require.Equal(t, c.inside, inside, "%v", c.addr)
		require.Equal(t, c.generation, span.Generation, "%v", c.addr)
	}
	m.Spans = m.Spans[1:]
	_, inside := m.SpanOf(5)
	require.False(t, inside)
}

// FuzzDecode: bytes from a disk make Decode panic, or it accepts something that
// it would not have written.
func FuzzDecode(f *testing.F) {
	f.Add(sample().Encode())
	f.Add(sample().Encode()[:fixedSize])
	f.Add([]byte(magic))
	older := sample().Encode()
	older[8] = VersionMin
	f.Add(seal(older))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= fixedSize+sumSize {
			b = seal(b) // or the fuzzer never gets past the checksum
		}
		m, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(m.Encode())
		require.NoError(t, err)
		require.EqualValues(t, Version, again.Version) // whatever it was read from
		again.Version = m.Version
		require.Equal(t, m, again)
	})
}
