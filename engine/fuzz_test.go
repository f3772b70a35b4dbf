package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
	"rskv/ioring/iotest"
)

// The targets below change what is on the disk of one small store. A change whose
// checksums are left as they were has to be noticed: what still opens is in the
// state of one of its commits. Checksums keep a fuzzer out of everything behind
// them, so it may have them put right too; then the bytes are those of somebody
// who means harm, and what is promised is less: no panic, an end, and under each
// key a value that was once written there, or none.

// fuzzKeys is how many keys the store has.
const fuzzKeys = 24

// fuzzStore is the store, closed, with its history.
type fuzzStore struct {
	image  *iotest.Mem
	states map[uint64]map[string]string // by version
	once   map[string]map[string]bool   // by key, every value it has had
	names  []string                     // of the metadata files
	log    [][2]int64                   // the spans of the log, byte addresses
	backup []byte                       // of its last state
}

func fuzzOptions(o *Options) {
	o.IndexBits, o.Logger = 6, slog.New(slog.DiscardHandler)
}

// newFuzzStore makes the same store every time: two generations, the first with an
// index snapshot, the second without.
func newFuzzStore(f *testing.F) *fuzzStore {
	s := &fuzzStore{states: map[uint64]map[string]string{0: {}}, once: map[string]map[string]bool{}}
	dev, state := newMem(), map[string]string{}
	clock := newTestClock()
	for generation := range 2 {
		store := openOn(f, dev, func(o *Options) { fuzzOptions(o); o.Clock = clock })
		s.states[store.Recovery().Version] = maps.Clone(state) // what the last Close has committed
		n := store.NewSession()
		for round := range 2 {
			for i := range fuzzKeys {
				s.write(f, n, state, i, 2*generation+round)
			}
			s.states[syncStore(f, store)] = maps.Clone(state)
			if round == 1 {
				s.states[checkpoint(f, store, FullCheckpoint).Version] = maps.Clone(state)
			}
		}
		if generation == 1 {
			s.backup, _ = backupOf(f, store)
			s.states[store.Stats().Version] = maps.Clone(state)
			s.image = dev.CrashImage(iotest.CrashOptions{})
		}
		n.Close()
		s.log = append(s.log, [2]int64{store.mu.manifest.Spans[generation].Start.Bytes(), store.log.Durable().Bytes()})
		require.NoError(f, store.Close())
		dev = dev.CrashImage(iotest.CrashOptions{})
	}
	var err error
	s.names, err = s.image.ListMeta()
	require.NoError(f, err)
	slices.Sort(s.names)
	return s
}

// write puts or deletes a key, different ones in each round.
func (s *fuzzStore) write(f *testing.F, n *Session, state map[string]string, i, round int) {
	key := fmt.Sprintf("key-%d", i)
	if (i+round)%5 == 0 {
		_, err := n.Delete([]byte(key))
		require.True(f, err == nil || errors.Is(err, ErrNotFound), err)
		delete(state, key)
		return
	}
	value := valueOf(uint64(i), uint64(round), i*9)
	require.NoError(f, n.Put([]byte(key), value))
	state[key] = string(value)
	if s.once[key] == nil {
		s.once[key] = map[string]bool{}
	}
	s.once[key][string(value)] = true
}

// meta returns a copy of a metadata file.
func (s *fuzzStore) meta(t testing.TB, name string) []byte {
	b, err := s.image.ReadMeta(name)
	require.NoError(t, err)
	return bytes.Clone(b)
}

// newest returns the name of the newest file with a prefix.
func (s *fuzzStore) newest(prefix string) (name string) {
	for _, n := range s.names {
		if strings.HasPrefix(n, prefix) {
			name = n
		}
	}
	return name
}

// open opens a store on a changed image, and looks at all of its keys. mended: its
// checksums were put right after the change.
// at: the version to recover to, 0: the newest.
func (s *fuzzStore) open(t *testing.T, dev *iotest.Mem, mended bool, at uint64) (opened bool) {
	t.Helper()
	defer deadline()()
	store, err := tryOpenOn(dev, func(o *Options) { fuzzOptions(o); o.RecoverVersion = at })
	if err != nil {
		if !mended {
			require.True(t, at != 0 && errors.Is(err, ErrBadCheckpoint) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotAStore) || errors.Is(err, ErrFormat), err)
		}
		return false
	}
	version := store.Recovery().Version
	require.True(t, at == 0 || at == version || mended, "recovered to version %d, asked for %d", version, at)
	state := s.states[version]
	require.True(t, mended || state != nil, "recovered to version %d, which was never committed", version)
	n := store.NewSession()
	for key, once := range s.once {
		v, err := n.Get([]byte(key), nil)
		want, found := state[key]
		switch {
		case errors.Is(err, ErrCorrupt):
		case mended && err == nil:
			require.True(t, once[string(v)], "%s has a value that it never had", key)
		case mended:
		case !found:
			require.ErrorIs(t, err, ErrNotFound, key)
		default:
			require.NoError(t, err, key)
			require.True(t, want == string(v), "version %d: %s has a wrong value", version, key)
		}
	}
	n.Close()
	_ = store.Close() // it may find the damage only now
	return true
}

// deadline ends the process if what follows has not come to an end in time.
func deadline() (met func() bool) {
	return time.AfterFunc(time.Minute, func() { panic("it does not come to an end") }).Stop
}

// heapBytes is how much has been allocated on the heap so far.
func heapBytes() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// extremes are numbers that arithmetic forgets.
var extremes = []uint64{0, 1, 15, 255, 4096, 1 << 16, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 43, 1<<47 - 1, 1 << 47, 1 << 59, 1 << 60, 1<<63 - 1, 1 << 63, 1<<64 - 1}

// edit changes b as a script says: four bytes, or what is left of them, are one
// change, its kind, a place, and a value.
func edit(b, script []byte) []byte {
	for ; len(script) >= 4 && len(b) >= 8; script = script[4:] {
		kind, value := script[0]%6, script[3]
		at := int(binary.LittleEndian.Uint16(script[1:])) % len(b)
		run := b[at:min(len(b), at+1+16*int(script[0]/6))]
		switch kind {
		case 0:
			b[at] = value
		case 1:
			b[at] ^= value
		case 2:
			for i := range run {
				run[i] = value
			}
		case 3:
			copy(run, b[int(value)*64%len(b):])
		case 4:
			if value%4 == 0 {
				b = b[:at]
				break
			}
			clear(b[at:])
		case 5:
			binary.LittleEndian.PutUint64(b[min(at&^7, len(b)-8):], extremes[int(value)%len(extremes)])
		}
	}
	return b
}

// sealEnd puts the checksum right that the last eight bytes are.
func sealEnd(b []byte) {
	if n := len(b) - 8; n >= 0 {
		binary.LittleEndian.PutUint64(b[n:], xxhash.Sum64(b[:n]))
	}
}

// sealSnapshot puts the checksums right of the header and of all blocks.
func sealSnapshot(b []byte) {
	if len(b) < snapshotHeader {
		return
	}
	sealEnd(b[:snapshotHeader])
	for b = b[snapshotHeader:]; len(b) >= snapshotBlock+8; {
		n := snapshotBlock + int(binary.LittleEndian.Uint32(b)) + 8
		if n > len(b) {
			return
		}
		sealEnd(b[:n])
		b = b[n:]
	}
}

func sealMeta(name string, b []byte) {
	switch {
	case strings.HasPrefix(name, snapshotPrefix):
		sealSnapshot(b)
	case strings.HasPrefix(name, imagePrefix):
		sealImage(b)
	default:
		sealEnd(b)
	}
}

// FuzzOpen: a store whose log or metadata files were changed shows something that
// was never so, or makes Open panic, or never ends it.
func FuzzOpen(f *testing.F) {
	s := newFuzzStore(f)
	for file := range uint8(len(s.log) + len(s.names)) {
		f.Add(file, file%2 == 0, file, []byte{})
		f.Add(file, file%2 == 0, uint8(0), []byte{1, 90, 0, 4})
		f.Add(file, true, uint8(0), []byte{5, 32, 0, 14, 5, 40, 0, 16})
		f.Add(file, false, uint8(0), []byte{4, 0, 10, 1})
	}
	f.Fuzz(func(t *testing.T, file uint8, mended bool, version uint8, script []byte) {
		dev := s.image.CrashImage(iotest.CrashOptions{})
		file %= uint8(len(s.log) + len(s.names))
		if int(file) < len(s.log) {
			changeLog(dev, s.log[file], script)
			s.open(t, dev, false, uint64(version))
			return
		}
		name := s.names[int(file)-len(s.log)]
		before := s.meta(t, name)
		b := edit(bytes.Clone(before), script)
		if mended {
			sealMeta(name, b)
		}
		require.NoError(t, dev.WriteMeta(name, b))
		s.open(t, dev, mended && !bytes.Equal(before, b), uint64(version))
	})
}

// changeLog changes a part of the log as a script says.
func changeLog(dev *iotest.Mem, part [2]int64, script []byte) {
	before := make([]byte, 0, part[1]-part[0])
	for at := part[0]; at < part[1]; at++ {
		dev.Corrupt(at, func(b byte) byte { before = append(before, b); return b })
	}
	after := edit(bytes.Clone(before), script)
	for i := range before {
		if i >= len(after) || after[i] != before[i] {
			dev.Corrupt(part[0]+int64(i), func(byte) byte {
				if i < len(after) {
					return after[i]
				}
				return 0
			})
		}
	}
}

// FuzzSnapshot: bytes that are no snapshot of the index are believed, or make
// recovery panic or take memory that they only claim; or keep a store from opening
// that has an older snapshot and its whole log.
func FuzzSnapshot(f *testing.F) {
	s := newFuzzStore(f)
	name := s.newest(snapshotPrefix)
	whole := s.meta(f, name)
	f.Add(whole, false)
	f.Add(whole, true)
	f.Add(whole[:snapshotHeader], true)
	f.Add([]byte(snapshotMagic), false)
	f.Fuzz(func(t *testing.T, b []byte, mended bool) {
		if mended && len(b) >= snapshotHeader {
			b = bytes.Clone(b)
			copy(b[16:40], whole[16:40]) // this store, and this place in its log
			sealSnapshot(b)
		}
		dev := s.image.CrashImage(iotest.CrashOptions{})
		require.NoError(t, dev.WriteMeta(name, b))
		begin := heapBytes()
		opened := s.open(t, dev, mended && !bytes.Equal(b, whole), 0)
		require.True(t, opened || mended)
		require.Less(t, heapBytes()-begin, uint64(fuzzHeap+4*len(b)))
	})
}

// sealImage puts the checksums right of the ends of an image, and of what is between.
func sealImage(b []byte) {
	if len(b) < imageHeader+imageTrailer {
		return
	}
	trailer := b[len(b)-imageTrailer:]
	binary.LittleEndian.PutUint64(trailer[16:], xxhash.Sum64(b[imageHeader:len(b)-imageTrailer]))
	sealEnd(b[:imageHeader])
	sealEnd(trailer)
}

// FuzzImage: a changed image, which alone has the newest commit, is believed, or makes
// recovery panic or take memory that it only claims.
func FuzzImage(f *testing.F) {
	s := newFuzzStore(f)
	dev := s.image.CrashImage(iotest.CrashOptions{})
	store := openOn(f, dev, fuzzOptions)
	state, n := maps.Clone(s.states[store.Recovery().Version]), store.NewSession()
	for i := range fuzzKeys {
		s.write(f, n, state, i, 4)
	}
	info := checkpoint(f, store, SnapshotCheckpoint)
	s.states[info.Version] = state
	s.image = dev.CrashImage(iotest.CrashOptions{})
	n.Close()
	require.NoError(f, store.Close())

	name := imageName(info.Version)
	whole := s.meta(f, name)
	for _, mended := range []bool{false, true} {
		f.Add(mended, []byte{})
		f.Add(mended, []byte{1, 90, 0, 4})
		f.Add(mended, []byte{5, 40, 0, 14, 5, 48, 0, 16})
		f.Add(mended, []byte{4, 0, 1, 0})
	}
	f.Fuzz(func(t *testing.T, mended bool, script []byte) {
		b := edit(bytes.Clone(whole), script)
		changed := !bytes.Equal(b, whole)
		if mended {
			sealImage(b)
		}
		dev := s.image.CrashImage(iotest.CrashOptions{})
		require.NoError(t, dev.WriteMeta(name, b))
		begin := heapBytes()
		opened := s.open(t, dev, mended && changed, 0)
		require.True(t, opened || changed)
		require.Less(t, heapBytes()-begin, uint64(fuzzHeap+4*len(b)))
	})
}

// fuzzHeap is more than opening the store takes of the heap; under the race detector
// pages and index are there too.
const fuzzHeap = 24<<20 + heapPages*(64<<20)

// FuzzCommit: bytes that are no commit record are taken for one, or its numbers are
// those of other bytes.
func FuzzCommit(f *testing.F) {
	b := make([]byte, commitPayload+2*ledgerEntry)
	copy(b, commitMagic)
	b[8], b[16], b[52] = 7, 42, 2
	f.Add(b, uint64(7))
	f.Add(b[:commitPayload], uint64(7))
	old := append([]byte(commitMagic1), b[8:commitPayload1]...)
	f.Add(old, uint64(7))
	f.Fuzz(func(t *testing.T, b []byte, generation uint64) {
		c, err := decodeCommit(b, generation)
		if err != nil {
			return
		}
		le := binary.LittleEndian
		fixed := map[string]int{commitMagic: commitPayload, commitMagic1: commitPayload1}[string(b[:8])]
		require.NotZero(t, fixed)
		require.Equal(t, le.Uint64(b[8:]), generation)
		require.Equal(t, le.Uint64(b[16:]), c.version)
		require.Equal(t, le.Uint64(b[32:]), uint64(c.durable))
		require.Equal(t, uint64(len(c.counts)), ledgerEntry*uint64(le.Uint32(b[52:])))
		require.Equal(t, b[fixed:fixed+len(c.counts)], c.counts)
		var table ledgerTable
		table.restore(c.counts, record.FirstAddr)
		require.LessOrEqual(t, len(table.all), len(c.counts)/ledgerEntry)
	})
}

// FuzzCheckpoint: bytes that are no checkpoint are taken for one.
func FuzzCheckpoint(f *testing.F) {
	s := newFuzzStore(f)
	f.Add(s.meta(f, s.newest(checkpointPrefix)))
	f.Add([]byte(checkpointMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)
		sealEnd(b)
		c, err := decodeCheckpoint(b)
		if err != nil {
			return
		}
		again, err := decodeCheckpoint(c.encode())
		require.NoError(t, err)
		require.Equal(t, c, again)
		var w sweeper
		_ = w.restore(c.expiry)
	})
}

// mendBackup puts numbers, checksums, digest and length of a stream right, and the
// checksums of the files in it.
func mendBackup(b []byte) []byte {
	if len(b) < backupHeader {
		return b
	}
	le, sum := binary.LittleEndian, sha256.New()
	le.PutUint64(b[56:], uint64(len(b)))
	sealEnd(b[:backupHeader])
	sum.Write(b[:backupHeader])
	at, name := backupHeader, ""
	for number := uint64(0); len(b)-at >= backupFrame+backupSum; number++ {
		n := backupFrame + int(le.Uint32(b[at+4:])) + backupSum
		if n > len(b)-at {
			break
		}
		frame := b[at : at+n]
		payload := frame[backupFrame : n-backupSum]
		switch le.Uint32(frame) {
		case frameManifest:
			sealEnd(payload)
		case frameFile:
			name = string(payload)
		case frameData:
			sealMeta(name, payload)
		}
		le.PutUint64(frame[8:], number)
		if le.Uint32(frame) == frameEnd && n == backupFrame+sha256.Size+backupSum {
			le.PutUint64(frame[16:], uint64(at))
			sum.Sum(frame[backupFrame:backupFrame])
		}
		sealEnd(frame)
		sum.Write(frame)
		at += n
	}
	return b
}

// FuzzBackup: a stream that was changed is taken for a backup, or what Verify
// accepts Restore does not, or the other way round; or a refused one leaves
// something behind. The stream is the one given, if it is not empty, or else that of
// the store; a script changes it.
func FuzzBackup(f *testing.F) {
	s := newFuzzStore(f)
	f.Add([]byte{}, []byte{}, false)
	f.Add([]byte{}, []byte{4, 0, 0x40, 0}, false)
	f.Add([]byte(backupMagic), []byte{}, false)
	le, log := binary.LittleEndian, 0
	for at := backupHeader; at < len(s.backup); at += backupFrame + int(le.Uint32(s.backup[at+4:])) + backupSum {
		if le.Uint32(s.backup[at:]) == frameLog {
			log = at
		}
		for _, part := range []int{0, 4, 16, backupFrame} {
			place := le.AppendUint16(nil, uint16(at+part))
			f.Add([]byte{}, []byte{1, place[0], place[1], byte(1 + part)}, true)
		}
	}
	// Without the last unit of its log, which so ends inside a sector.
	n := le.Uint32(s.backup[log+4:]) - record.Unit
	short := append(bytes.Clone(s.backup[:log+backupFrame+int(n)]), s.backup[log+backupFrame+int(n)+record.Unit:]...)
	le.PutUint32(short[log+4:], n)
	end := short[backupHeader+backupFrame+96+24+16:] // of the second span, in the manifest
	le.PutUint64(end, le.Uint64(end)-1)
	f.Add(short, []byte{}, true)
	f.Fuzz(func(t *testing.T, b, script []byte, mended bool) {
		defer deadline()()
		if len(b) == 0 {
			b = s.backup
		}
		if b = edit(bytes.Clone(b), script); mended {
			b = mendBackup(b)
		}
		begin := heapBytes()
		_, wrong := VerifyBackup(bytes.NewReader(b))
		dev := newMem()
		_, err := Restore(bytes.NewReader(b), Options{Device: keepOpen{dev}})
		require.Less(t, heapBytes()-begin, uint64(fuzzHeap+4*len(b)))
		if errors.Is(err, ErrBadOptions) {
			return // pages that do not fit the segments of this device
		}
		if wrong == nil {
			require.NoError(t, err)
			require.True(t, mended || bytes.Equal(b, s.backup))
			s.open(t, dev, mended && !bytes.Equal(b, s.backup), 0)
			return
		}
		require.True(t, errors.Is(wrong, ErrBackup) || errors.Is(wrong, ErrFormat), wrong)
		require.True(t, errors.Is(err, ErrBackup) || errors.Is(err, ErrFormat), err)
		names, err := dev.ListMeta()
		require.NoError(t, err)
		require.Empty(t, names)
		from, until := dev.Extent()
		require.Equal(t, from, until, "log segments stay")
	})
}
