// Package manifest is the root of a store on disk: one small metadata file that
// says which store this is, how its log is cut, and which generation wrote which
// part of it.
//
// Every open of a store for writing raises the generation and writes the
// manifest before its first log write. Record checksums and page headers carry
// the generation, so bytes that an earlier run left behind its last commit never
// pass for bytes of a later run. A span of the log belongs to one generation:
//
//	span 1 (gen 1)          span 2 (gen 3)            span 3 (gen 4), open
//	[start ........ end)    [start ........... end)   [start ........
//
// A span starts at a page border and ends where the commit that recovery found
// ends; between an end and the next start lies nothing that counts.
//
// The bytes are described in FORMAT.md.
package manifest

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"rskv/engine/internal/record"
)

// Name is the name of the metadata file.
const Name = "MANIFEST"

// Version is the format version this code writes; it reads all from VersionMin on.
const (
	Version    = 3
	VersionMin = 1
)

// Readable reports whether this code reads files of a format version.
func Readable(version uint32) bool { return version >= VersionMin && version <= Version }

const (
	magic     = "rskvMANI"
	fixedSize = 96
	spanSize  = 24
	sumSize   = 8
	// spansMax bounds what a damaged count can make us allocate; a store that
	// is opened ten times a day reaches it after a hundred years.
	spansMax = 400_000
)

// Errors of Decode.
var (
	ErrNotManifest = errors.New("not an rskv manifest")
	ErrVersion     = errors.New("unknown format version")
	ErrDamaged     = errors.New("manifest is damaged")
)

// Span is the part of the log one generation wrote. End is zero while the
// generation is the running one.
type Span struct {
	Generation uint64
	Start, End record.Addr
}

// Manifest is the decoded file.
type Manifest struct {
	Version     uint32 // of the file that was decoded; Encode writes the present one
	StoreID     [16]byte
	HashSeed    uint64
	PageBits    uint8 // log2 of the page size in bytes
	SegmentBits uint8 // log2 of the segment size in bytes
	// IndexAnchor is the highest anchor of an index that wrote the log: a lower
	// one would cut chains that its records link. IndexBits is log2 of the
	// buckets the index had when this was written, 0 in stores that did not say.
	IndexAnchor uint8
	IndexBits   uint8
	Generation  uint64
	Begin       record.Addr // lowest address that still counts
	Spans       []Span
}

// Encode returns the file's bytes.
func (m *Manifest) Encode() []byte {
	b := make([]byte, fixedSize, fixedSize+len(m.Spans)*spanSize+sumSize)
	le := binary.LittleEndian
	copy(b, magic)
	le.PutUint32(b[8:], Version)
	le.PutUint32(b[12:], uint32(len(m.Spans)))
	copy(b[16:], m.StoreID[:])
	le.PutUint64(b[32:], m.HashSeed)
	b[40], b[41], b[42], b[43] = m.PageBits, m.SegmentBits, m.IndexAnchor, m.IndexBits
	le.PutUint64(b[48:], m.Generation)
	le.PutUint64(b[56:], uint64(m.Begin))
	for _, s := range m.Spans {
		b = le.AppendUint64(b, s.Generation)
		b = le.AppendUint64(b, uint64(s.Start))
		b = le.AppendUint64(b, uint64(s.End))
	}
	return le.AppendUint64(b, xxhash.Sum64(b))
}

// Decode reads the file's bytes and validates them.
func Decode(b []byte) (*Manifest, error) {
	le := binary.LittleEndian
	if len(b) < fixedSize+sumSize || string(b[:8]) != magic {
		return nil, ErrNotManifest
	}
	got, want := xxhash.Sum64(b[:len(b)-sumSize]), le.Uint64(b[len(b)-sumSize:])
	version := le.Uint32(b[8:])
	if !Readable(version) {
		if got != want { // of every version
			return nil, fmt.Errorf("%w: version %d, and checksum %016x, expected %016x", ErrDamaged, version, got, want)
		}
		return nil, fmt.Errorf("%w %d, this program reads versions %d to %d", ErrVersion, version, VersionMin, Version)
	}
	n := le.Uint32(b[12:])
	if n > spansMax || len(b) != fixedSize+int(n)*spanSize+sumSize {
		return nil, fmt.Errorf("%w: %d bytes for %d spans", ErrDamaged, len(b), n)
	}
	if got != want {
		return nil, fmt.Errorf("%w: checksum %016x, expected %016x", ErrDamaged, got, want)
	}
	m := &Manifest{
		Version: version, HashSeed: le.Uint64(b[32:]),
		PageBits: b[40], SegmentBits: b[41], IndexAnchor: b[42], IndexBits: b[43],
		Generation: le.Uint64(b[48:]),
		Begin:      record.Addr(le.Uint64(b[56:])),
		Spans:      make([]Span, n),
	}
	copy(m.StoreID[:], b[16:])
	for i := range m.Spans {
		s := b[fixedSize+i*spanSize:]
		m.Spans[i] = Span{le.Uint64(s), record.Addr(le.Uint64(s[8:])), record.Addr(le.Uint64(s[16:]))}
	}
	return m, m.validate()
}

func (m *Manifest) validate() error {
	switch {
	case m.PageBits < 18 || m.PageBits > 22:
		return fmt.Errorf("%w: page size 2^%d", ErrDamaged, m.PageBits)
	case m.SegmentBits < m.PageBits || m.SegmentBits > 40:
		return fmt.Errorf("%w: segment size 2^%d", ErrDamaged, m.SegmentBits)
	case m.IndexAnchor > 40 || m.IndexBits > 40 || m.IndexBits != 0 && m.IndexBits < m.IndexAnchor:
		return fmt.Errorf("%w: index of 2^%d buckets anchored at %d", ErrDamaged, m.IndexBits, m.IndexAnchor)
	}
	if m.Begin >= record.AddrEnd {
		return fmt.Errorf("%w: the log begins at %v", ErrDamaged, m.Begin)
	}
	pageUnits := record.Addr(1)<<m.PageBits/record.Unit - 1
	var last Span
	for i, s := range m.Spans {
		open := s.End == 0 && i == len(m.Spans)-1
		if s.Generation <= last.Generation || s.Generation > m.Generation ||
			s.Start&pageUnits != 0 || s.Start < last.End || max(s.Start, s.End) >= record.AddrEnd || !open && s.End < s.Start {
			return fmt.Errorf("%w: span %d (generation %d, %v to %v)", ErrDamaged, i, s.Generation, s.Start, s.End)
		}
		last = s
	}
	return nil
}

// SpanOf returns the span that address a lies in.
func (m *Manifest) SpanOf(a record.Addr) (Span, bool) {
	// The newest spans are asked for most.
	for i := len(m.Spans) - 1; i >= 0; i-- {
		if s := m.Spans[i]; a >= s.Start {
			return s, s.End == 0 || a < s.End
		}
	}
	return Span{}, false
}
