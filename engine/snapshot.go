package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"

	"rskv/engine/internal/manifest"
	"rskv/engine/internal/record"
	"rskv/ioring"
)

// An index snapshot is a metadata file: a header, blocks of rows, an end block.
// It is copied while operations go on, so it is fuzzy: an entry may point
// anywhere from the log's durable end when the copy began (start) to its tail
// when the copy ended (end). Replaying the log from start on makes it exact,
// provided that the log is there up to end: the snapshot is valid only with a
// commit at or behind end.
//
//	header   offset  size  field
//	         0       8     "rskvSNAP"
//	         8       4     format version
//	         12      1     bits of the index
//	         13      1     anchor of the index
//	         14      2     zero
//	         16      16    store id
//	         32      8     start, in units
//	         40      8     zero
//	         48      8     xxhash64 of bytes 0 to 47
//	block    0       4     length of the rows in bytes
//	         4       4     number of rows; 0: the end block
//	         8       8     number of the first row; in the end block: of rows in all
//	         16      8     in the end block: entries in all; else zero
//	         24      ...   the rows, see package index
//	         +0      8     xxhash64 of the block so far
const (
	snapshotMagic  = "rskvSNAP"
	snapshotHeader = 56
	snapshotBlock  = 24
	// snapshotRows bounds a block: at 5 entries a row about 170 KiB.
	snapshotRows = 4096
	// snapshotBlockMax bounds what a damaged length can make us read.
	snapshotBlockMax = 64 << 20

	snapshotPrefix = "snapshot-"
)

// snapshotWriter copies the index in steps.
type snapshotWriter struct {
	metaStream
	s       *Store
	start   record.Addr
	bits    uint8  // the snapshot has 2^bits rows, however the index grows
	row     uint64 // the next one
	entries uint64
	buf     []byte
}

func (s *Store) newSnapshot(name string) (*snapshotWriter, error) {
	out, err := s.newMetaStream(name)
	if err != nil {
		return nil, err
	}
	w := &snapshotWriter{metaStream: out, s: s, start: s.settled(), bits: s.index.Bits()}
	header := make([]byte, snapshotHeader)
	copy(header, snapshotMagic)
	header[8], header[12], header[13] = manifest.Version, w.bits, s.index.Anchor()
	copy(header[16:], s.mu.manifest.StoreID[:])
	binary.LittleEndian.PutUint64(header[32:], uint64(w.start))
	binary.LittleEndian.PutUint64(header[48:], xxhash.Sum64(header[:48]))
	return w, w.write(header)
}

// step copies a block of rows; done tells that the file is complete and durable.
func (w *snapshotWriter) step() (done bool, err error) {
	x := w.s.index
	first := w.row
	b := append(w.buf[:0], make([]byte, snapshotBlock)...)
	for w.row < min(first+snapshotRows, 1<<w.bits) {
		before := len(b)
		b = x.AppendRow(b, w.row, w.bits)
		w.entries += uint64(len(b)-before) / 8
		w.row++
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)-snapshotBlock))
	binary.LittleEndian.PutUint32(b[4:], uint32(w.row-first))
	binary.LittleEndian.PutUint64(b[8:], first)
	if w.row == first {
		binary.LittleEndian.PutUint64(b[16:], w.entries)
	}
	b = binary.LittleEndian.AppendUint64(b, xxhash.Sum64(b))
	w.buf = b
	if err := w.write(b); err != nil || w.row > first {
		return false, err
	}
	if err := w.commit(); err != nil {
		return false, err
	}
	return true, nil
}

var errSnapshot = errors.New("snapshot is inconsistent")

// snapshotReader reads a snapshot block by block, every byte checked.
type snapshotReader struct {
	in   *io.SectionReader
	name string
	// bits and anchor are those of the index that was copied.
	bits, anchor uint8
	end          record.Addr // all entries point below it
	row          uint64
	sum          uint64 // entries seen
	buf          []byte
}

// openSnapshot checks the header of the snapshot of a checkpoint. usable is false if it is sound
// but cannot be used for this log, or for the index that is asked for.
func (s *Store) openSnapshot(m *manifest.Manifest, c *CheckpointInfo) (r *snapshotReader, done func() error, usable bool, err error) {
	name := snapshotName(c.snapshot)
	in, err := s.dev.OpenMeta(name)
	if err != nil {
		return nil, nil, false, fmt.Errorf("open %s: %w", name, err)
	}
	if r, err = newSnapshotReader(in, m, c); err != nil {
		return nil, nil, false, errors.Join(err, in.Close())
	}
	return r, in.Close, s.indexFits(m, r.anchor), nil
}

// newSnapshotReader checks the header of the snapshot of a checkpoint.
func newSnapshotReader(in ioring.MetaReader, m *manifest.Manifest, c *CheckpointInfo) (r *snapshotReader, err error) {
	r = &snapshotReader{in: io.NewSectionReader(in, 0, in.Size()), name: snapshotName(c.snapshot), end: c.end}
	header := make([]byte, snapshotHeader)
	if _, err := io.ReadFull(r.in, header); err != nil {
		return nil, r.damaged(err)
	}
	le := binary.LittleEndian
	switch {
	case string(header[:8]) != snapshotMagic || !manifest.Readable(le.Uint32(header[8:])) ||
		le.Uint64(header[48:]) != xxhash.Sum64(header[:48]),
		!bytes.Equal(header[16:32], m.StoreID[:]), record.Addr(le.Uint64(header[32:])) != c.start:
		return nil, r.damaged(errSnapshot)
	}
	r.bits, r.anchor = header[12], header[13]
	if r.bits > indexBitsMax || r.anchor > r.bits {
		return nil, r.damaged(errSnapshot)
	}
	return r, nil
}

// next returns the rows of the next block, nil at the end of a whole snapshot.
func (r *snapshotReader) next() (first uint64, rows int, body []byte, err error) {
	if cap(r.buf) < snapshotBlock {
		r.buf = make([]byte, snapshotBlock, 256<<10)
	}
	head := r.buf[:snapshotBlock]
	if _, err := io.ReadFull(r.in, head); err != nil {
		return 0, 0, nil, r.damaged(err)
	}
	le := binary.LittleEndian
	length, count := int(le.Uint32(head)), le.Uint32(head[4:])
	if length > snapshotBlockMax || count > snapshotRows || le.Uint64(head[8:]) != r.row {
		return 0, 0, nil, r.damaged(errSnapshot)
	}
	whole := snapshotBlock + length + 8
	if at, _ := r.in.Seek(0, io.SeekCurrent); int64(length+8) > r.in.Size()-at { // of a section: never fails
		return 0, 0, nil, r.damaged(io.ErrUnexpectedEOF)
	}
	if cap(r.buf) < whole {
		r.buf = append(make([]byte, 0, whole), head...)
	}
	b := r.buf[:whole]
	if _, err := io.ReadFull(r.in, b[snapshotBlock:]); err != nil {
		return 0, 0, nil, r.damaged(err)
	}
	if xxhash.Sum64(b[:whole-8]) != le.Uint64(b[whole-8:]) {
		return 0, 0, nil, r.damaged(errChecksum)
	}
	if count == 0 {
		if length != 0 || le.Uint64(b[16:]) != r.sum {
			return 0, 0, nil, r.damaged(errSnapshot)
		}
		return r.row, 0, nil, nil
	}
	first = r.row
	r.row += uint64(count)
	r.sum += uint64(length-2*int(count)) / 8
	return first, int(count), b[snapshotBlock : whole-8], nil
}

func (r *snapshotReader) damaged(err error) error {
	return &CorruptError{Where: r.name, Addr: -1, Err: err}
}

// loadSnapshot fills the index. It returns false if the snapshot cannot be used;
// with an error the index is undefined.
func (s *Store) loadSnapshot(m *manifest.Manifest, c *CheckpointInfo) (ok bool, err error) {
	r, done, usable, err := s.openSnapshot(m, c)
	if err != nil {
		return false, err
	}
	if !usable {
		return false, done()
	}
	if err := s.resetIndex(r.bits, r.anchor); err != nil {
		return false, errors.Join(err, done())
	}
	err = errors.Join(s.fillIndex(r), done())
	return err == nil, err
}
