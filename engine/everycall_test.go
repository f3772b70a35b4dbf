package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/hlog"
	"rskv/engine/internal/manifest"
	"rskv/engine/internal/record"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

// failingCall is a device whose k-th call that can fail does, once. Calls are
// counted from 1: reads, writes and syncs one by one, and all that is done with
// metadata.
type failingCall struct {
	ioring.Device
	mu     sync.Mutex
	k      int
	errno  syscall.Errno
	failed string // what did
}

func (d *failingCall) fails(what string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.k--; d.k != 0 {
		return nil
	}
	d.failed = what
	return fmt.Errorf("injected: %s: %w", what, d.errno)
}

func (d *failingCall) Submit(ops []*ioring.Op) {
	var through []*ioring.Op
	for _, op := range ops {
		if err := d.fails([...]string{ioring.Read: "read", ioring.Write: "write", ioring.Sync: "sync"}[op.Kind]); err != nil {
			op.N, op.Err = 0, err
			op.Done(op)
			continue
		}
		through = append(through, op)
	}
	if len(through) > 0 {
		d.Device.Submit(through)
	}
}

func (d *failingCall) Discard(until int64) error {
	if err := d.fails("discard"); err != nil {
		return err
	}
	return d.Device.Discard(until)
}

func (d *failingCall) ReadMeta(name string) ([]byte, error) {
	if err := d.fails("read of " + name); err != nil {
		return nil, err
	}
	return d.Device.ReadMeta(name)
}

func (d *failingCall) WriteMeta(name string, data []byte) error {
	if err := d.fails("write of " + name); err != nil {
		return err
	}
	return d.Device.WriteMeta(name, data)
}

func (d *failingCall) RemoveMeta(name string) error {
	if err := d.fails("removal of " + name); err != nil {
		return err
	}
	return d.Device.RemoveMeta(name)
}

func (d *failingCall) ListMeta() ([]string, error) {
	if err := d.fails("list"); err != nil {
		return nil, err
	}
	return d.Device.ListMeta()
}

func (d *failingCall) OpenMeta(name string) (ioring.MetaReader, error) {
	if err := d.fails("open of " + name); err != nil {
		return nil, err
	}
	r, err := d.Device.OpenMeta(name)
	if err != nil {
		return nil, err
	}
	return &failingReader{MetaReader: r, dev: d, name: name}, nil
}

func (d *failingCall) CreateMeta(name string) (ioring.MetaWriter, error) {
	if err := d.fails("creation of " + name); err != nil {
		return nil, err
	}
	w, err := d.Device.CreateMeta(name)
	if err != nil {
		return nil, err
	}
	return &failingWriter{MetaWriter: w, dev: d, name: name}, nil
}

type failingWriter struct {
	ioring.MetaWriter
	dev  *failingCall
	name string
}

func (w *failingWriter) Write(b []byte) (int, error) {
	if err := w.dev.fails("write in " + w.name); err != nil {
		return 0, err
	}
	return w.MetaWriter.Write(b)
}

func (w *failingWriter) Commit() error {
	if err := w.dev.fails("commit of " + w.name); err != nil {
		return errors.Join(err, w.Abort())
	}
	return w.MetaWriter.Commit()
}

type failingReader struct {
	ioring.MetaReader
	dev  *failingCall
	name string
}

func (r *failingReader) ReadAt(b []byte, off int64) (int, error) {
	if err := r.dev.fails("read in " + r.name); err != nil {
		return 0, err
	}
	return r.MetaReader.ReadAt(b, off)
}

func (r *failingReader) Close() error {
	err := r.MetaReader.Close()
	if failed := r.dev.fails("close of " + r.name); failed != nil {
		return failed
	}
	return err
}

// withOrder has the store that checkpointed makes.
func withOrder(o *Options) { o.Ordered, o.CheckpointsKept = true, 3 }

// checkpointed is the image of a store with three checkpoints, as of versions, with
// records of all kinds and a commit behind the last one, and what was in it each time.
func checkpointed(t testing.TB, kind CheckpointKind) (image *iotest.Mem, versions []uint64, states []map[string]string) {
	t.Helper()
	mem := newMem()
	s := openOn(t, mem, withOrder)
	n := s.NewSession()
	want := map[string]string{}
	put := func(key string, value []byte) {
		require.NoError(t, n.Put([]byte(key), value))
		want[key] = string(value)
	}
	for part := range 3 {
		for i := range 40 {
			put(fmt.Sprintf("%d/%02d", part, i), valueOf(uint64(i), uint64(part), 1+i*100))
			if i%5 == 0 {
				ok, err := n.Expire(fmt.Appendf(nil, "%d/%02d", part, i), time.Hour.Milliseconds())
				require.NoError(t, err)
				require.True(t, ok)
			}
		}
		put("large", valueOf(uint64(part), 9, 3*chunkBytes))
		found, err := n.Delete(fmt.Appendf(nil, "%d/%02d", part, 7))
		require.NoError(t, err)
		require.True(t, found)
		delete(want, fmt.Sprintf("%d/07", part))
		info, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: kind})
		require.NoError(t, err)
		versions = append(versions, info.Version)
		states = append(states, maps.Clone(want))
	}
	if kind == FullCheckpoint {
		put("last", []byte("of all"))
		syncStore(t, s)
	}
	states = append(states, want)
	image = mem.CrashImage(iotest.CrashOptions{})
	n.Close()
	require.NoError(t, s.Close())
	return image, versions, states
}

// requireAll fails the test unless the store holds just that.
func requireAll(t testing.TB, s *Store, want map[string]string, what string) {
	t.Helper()
	n := s.NewSession()
	defer n.Close()
	for key, value := range want {
		got, err := n.Get([]byte(key), nil)
		require.NoError(t, err, "%s: key %s", what, key)
		require.Equal(t, value, string(got), "%s: key %s", what, key)
	}
	require.EqualValues(t, len(want), s.Len(), what)
}

// TestFault_EveryCallOfOpen: a call of the device that fails once while a store opens
// makes Open panic, or give a store that lacks something, or that cannot be opened
// the next time; or Open fails without saying why.
func TestFault_EveryCallOfOpen(t *testing.T) {
	image, versions, states := checkpointed(t, FullCheckpoint)
	imaged, imagedVersions, imagedStates := checkpointed(t, SnapshotCheckpoint)
	for _, run := range []struct {
		name    string
		image   *iotest.Mem
		version uint64
		want    map[string]string
	}{
		{"Newest", image, 0, states[3]}, {"Chosen", image, versions[1], states[1]},
		{"NewestImage", imaged, 0, imagedStates[3]}, {"ChosenImage", imaged, imagedVersions[1], imagedStates[1]},
	} {
		t.Run(run.name, func(t *testing.T) {
			for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOMEM} {
				refused, opened := map[string]bool{}, map[string]bool{}
				for k := 1; ; k++ {
					dev := run.image.CrashImage(iotest.CrashOptions{})
					failing := &failingCall{Device: keepOpen{dev}, k: k, errno: errno}
					s, err := tryOpenOn(failing, func(o *Options) { withOrder(o); o.RecoverVersion = run.version })
					failing.mu.Lock()
					what := failing.failed
					failing.k = 0
					failing.mu.Unlock()
					if err == nil {
						requireAll(t, s, run.want, what)
						err = s.Close()
						if what == "" {
							require.NoError(t, err)
							break
						}
						opened[what] = true
					} else {
						require.NotEmpty(t, what, "nothing has failed: %v", err)
						require.ErrorIs(t, err, errno, what)
						refused[what] = true
					}
					// With the version asked for again: it may not have come to choosing it.
					s, err = tryOpenOn(keepOpen{dev}, func(o *Options) {
						withOrder(o)
						if refused[what] {
							o.RecoverVersion = run.version
						}
					})
					require.NoError(t, err, "after %s has failed", what)
					requireAll(t, s, run.want, "after the failure of "+what)
					require.NoError(t, s.Close())
				}
				require.Contains(t, refused, "read")
				require.Contains(t, refused, "list")
				t.Logf("%v: refused by a failed %v; opened all the same after a failed %v",
					errno, slices.Sorted(maps.Keys(refused)), slices.Sorted(maps.Keys(opened)))
			}
		})
	}
}

// TestFault_EveryCallOfCheckpoint: a call of the device that fails once while a
// checkpoint is made leaves one that counts and cannot be loaded, or stops those that
// come after it; or the checkpoint fails without saying why.
func TestFault_EveryCallOfCheckpoint(t *testing.T) {
	t.Run("Full", func(t *testing.T) {
		failCheckpoints(t, FullCheckpoint, "write", "sync")
	})
	t.Run("Snapshot", func(t *testing.T) {
		const image = "image-00000000000000000002"
		failCheckpoints(t, SnapshotCheckpoint, "sync", "creation of "+image, "write in "+image, "commit of "+image,
			"open of "+image, "read in "+image, "close of "+image)
	})
}

// failCheckpoints has each call of the device fail once that a checkpoint of a kind
// makes; these are among them.
func failCheckpoints(t *testing.T, kind CheckpointKind, calls ...string) {
	failed := map[string]bool{}
	for k := 1; ; k++ {
		mem := newMem()
		dev := &failingCall{Device: keepOpen{mem}, errno: syscall.EIO}
		s := openOn(t, dev, func(o *Options) { o.CheckpointsKept = 1 })
		n := s.NewSession()
		for i := range 100 {
			require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 1, 100)))
		}
		checkpoint(t, s, FullCheckpoint)
		require.NoError(t, n.Put(key64(0), valueOf(0, 2, 100)))
		dev.mu.Lock()
		dev.k = k
		dev.mu.Unlock()
		_, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: kind})
		dev.mu.Lock()
		what := dev.failed
		dev.k = 0
		dev.mu.Unlock()
		failed[what] = true
		if err != nil {
			require.ErrorIs(t, err, syscall.EIO, what)
		}
		list, listErr := s.Checkpoints()
		require.NoError(t, listErr, what)
		require.NotEmpty(t, list, what)
		if s.Err() == nil {
			require.NoError(t, n.Put(key64(1), valueOf(1, 2, 100)))
			checkpoint(t, s, FullCheckpoint)
			list, err = s.Checkpoints()
			require.NoError(t, err, what)
			require.Len(t, list, 1, "after the failure of %s", what)
		} else {
			require.Contains(t, []string{"write", "sync"}, what)
		}
		n.Close()
		_ = s.Close() // as it may after a write or sync that has failed
		s = openOn(t, mem, nil)
		n = s.NewSession()
		for i := range 100 {
			value, err := n.Get(key64(i), nil)
			require.NoError(t, err, "after the failure of %s", what)
			require.Len(t, value, 100)
		}
		n.Close()
		require.NoError(t, s.Close())
		if what == "" {
			break
		}
	}
	for _, want := range append(calls, "list", "creation of snapshot-00000000000000000002", "write in snapshot-00000000000000000002", "commit of snapshot-00000000000000000002",
		"open of snapshot-00000000000000000002", "read in snapshot-00000000000000000002", "close of snapshot-00000000000000000002", "removal of snapshot-00000000000000000001") {
		require.Contains(t, failed, want)
	}
}

// TestCheckpoint_Close: a store that is closed while a checkpoint is read back names it
// all the same, leaves its file open, or does not answer those who asked for it or for
// the next one.
func TestCheckpoint_Close(t *testing.T) {
	mem := newMem()
	reading := make(chan struct{})
	var once sync.Once
	dev := &hookedMeta{Device: keepOpen{mem}, read: func([]byte, int64) {
		once.Do(func() { close(reading) })
		time.Sleep(time.Millisecond)
	}}
	const askers = 4
	s := openOn(t, dev, func(o *Options) { o.Memory, o.IndexBits, o.CheckpointsKept = 64<<20, 16, askers })
	n := s.NewSession()
	for i := range 1000 {
		require.NoError(t, n.Put(key64(i), nil))
	}
	n.Close()
	answers := make(chan error, askers)
	ask := func() {
		_, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: FullCheckpoint})
		answers <- err
	}
	go ask()
	<-reading
	for range askers - 1 {
		go ask()
	}
	require.NoError(t, s.Close())
	ended := 0
	for range askers {
		if err := <-answers; err != nil {
			require.ErrorIs(t, err, ErrClosed)
			ended++
		}
	}
	require.Zero(t, dev.open.Load(), "a file was left open")
	s = openOn(t, mem, nil)
	list, err := s.Checkpoints()
	require.NoError(t, err)
	require.Len(t, list, askers-ended)
	require.EqualValues(t, 1000, s.Len())
	require.NoError(t, s.Close())
}

// hookedMeta is a device that has read look at, or change, what was read in a metadata
// file, and counts how many are open.
type hookedMeta struct {
	ioring.Device
	read func(b []byte, off int64)
	open atomic.Int64
}

type hookedReader struct {
	ioring.MetaReader
	dev *hookedMeta
}

func (d *hookedMeta) OpenMeta(name string) (ioring.MetaReader, error) {
	r, err := d.Device.OpenMeta(name)
	if err != nil {
		return nil, err
	}
	d.open.Add(1)
	return &hookedReader{r, d}, nil
}

func (r *hookedReader) ReadAt(b []byte, off int64) (int, error) {
	n, err := r.MetaReader.ReadAt(b, off)
	r.dev.read(b[:n], off)
	return n, err
}

func (r *hookedReader) Close() error {
	r.dev.open.Add(-1)
	return r.MetaReader.Close()
}

type noRandomness struct{}

func (noRandomness) Read([]byte) (int, error) { return 0, errors.New("no randomness") }

// TestOpen_NoRandomness: a store gets an identity that others have too.
func TestOpen_NoRandomness(t *testing.T) {
	mem := newMem()
	_, err := tryOpenOn(mem, func(o *Options) { o.Random = noRandomness{} })
	require.ErrorContains(t, err, "no randomness")
	names, err := mem.CrashImage(iotest.CrashOptions{}).ListMeta()
	require.NoError(t, err)
	require.Empty(t, names)
}

// TestOpen_OtherSegments: a log is read as if it were cut into other files than it is.
func TestOpen_OtherSegments(t *testing.T) {
	mem := newMem()
	require.NoError(t, openOn(t, mem, nil).Close())
	b, err := mem.CrashImage(iotest.CrashOptions{}).ReadMeta(manifest.Name)
	require.NoError(t, err)
	other := iotest.NewMem(iotest.MemOptions{SegmentSize: 2 << 20, BufferBytes: 2 << 20})
	require.NoError(t, other.WriteMeta(manifest.Name, b))
	_, err = tryOpenOn(other, nil)
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, "segments of 1048576 bytes, but the files have 2097152")
}

// TestOpen_SealedDamage: a record that is not what it has to be at its place is
// believed because its checksum holds.
func TestOpen_SealedDamage(t *testing.T) {
	mem := newMem()
	s := openOn(t, mem, nil)
	n := s.NewSession()
	for range 2 { // the second commit says that the first was durable
		require.NoError(t, n.Put([]byte("key"), make([]byte, 1000)))
		syncStore(t, s)
	}
	seed := s.log.Seed()
	image := mem.CrashImage(iotest.CrashOptions{})
	n.Close()
	require.NoError(t, s.Close())
	again := openOn(t, image.CrashImage(iotest.CrashOptions{}), nil)
	commit := again.recovery.commit
	require.NoError(t, again.Close())
	change := func(a record.Addr, edit func(b []byte)) *iotest.Mem {
		dev := image.CrashImage(iotest.CrashOptions{})
		sector := a.Bytes() &^ (hlog.SectorSize - 1)
		whole := iotest.Aligned(hlog.SectorSize)
		_, err := iotest.Do(t, dev, ioring.Read, sector, whole)
		require.NoError(t, err)
		b := whole[a.Bytes()-sector:]
		edit(b)
		record.Seal(unsafe.Pointer(unsafe.SliceData(b)), seed, a)
		for i, x := range whole {
			dev.Corrupt(sector+int64(i), func(byte) byte { return x })
		}
		return dev
	}
	_, err := tryOpenOn(change(commit, func(b []byte) { b[record.HeaderSize+8] ^= 1 }), nil)
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, "generation")
	// The page begins with something else than its header.
	page := s.log.Begin() &^ (pageSizeMin/record.Unit - 1)
	_, err = tryOpenOn(change(page, func(b []byte) {
		w0, w1 := record.Words(b)
		require.True(t, record.KindOf(w1) == record.System && record.KeyLen(w0) == record.TypePage)
		binary.LittleEndian.PutUint64(b, w0^(record.TypePage^record.TypeCommit)<<48)
	}), nil)
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorIs(t, err, errNoHeader)
}

// TestOpen_IndexDoesNotFit: a store with more keys than its memory has room for in an
// index opens without some of them, or never ends to try.
func TestOpen_IndexDoesNotFit(t *testing.T) {
	if testing.Short() && raceEnabled {
		t.Skip("millions of records")
	}
	mem := iotest.NewMem(iotest.MemOptions{})
	s := openOn(t, mem, func(o *Options) { o.Memory = 256 << 20 })
	n := s.NewSession()
	ops := make([]Op, 256)
	for i := 0; i < 3_000_000; i += len(ops) {
		for j := range ops {
			ops[j] = Op{Kind: OpPut, Key: key64(i + j)}
		}
		n.Do(ops)
	}
	n.Close()
	require.NoError(t, s.Close())
	_, err := tryOpenOn(mem.CrashImage(iotest.CrashOptions{}), nil)
	require.ErrorIs(t, err, ErrMemoryTooSmall)
	// It fits, but not with the keys in their order beside it.
	_, err = tryOpenOn(mem.CrashImage(iotest.CrashOptions{}), func(o *Options) { o.Memory, o.Ordered = 80<<20, true })
	require.ErrorIs(t, err, ErrMemoryTooSmall)
	require.ErrorIs(t, err, errOrderMemory)
}

// TestOpen_SealedExpiry: a checkpoint whose checksum holds, but whose table of expiry is
// none, is loaded without it.
func TestOpen_SealedExpiry(t *testing.T) {
	mem := newMem()
	s := openOn(t, mem, nil)
	n := s.NewSession()
	require.NoError(t, n.one(&Op{Kind: OpPut, Key: []byte("key"), Value: []byte("v"), TTL: 1_000_000}))
	n.Close()
	info := checkpoint(t, s, FullCheckpoint)
	require.NoError(t, s.Close())
	dev := mem.CrashImage(iotest.CrashOptions{})
	b, err := dev.ReadMeta(checkpointName(info.Version))
	require.NoError(t, err)
	c, err := decodeCheckpoint(b)
	require.NoError(t, err)
	require.NotEmpty(t, c.expiry)
	c.expiry = c.expiry[:len(c.expiry)-1]
	require.NoError(t, dev.WriteMeta(checkpointName(info.Version), c.encode()))
	_, err = tryOpenOn(dev, nil)
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, checkpointName(info.Version))
}

// TestCheckpoint_ReadBackDiffers: a snapshot that is read back with another number of
// rows than was written, or for another index, is named as a checkpoint.
func TestCheckpoint_ReadBackDiffers(t *testing.T) {
	for what, change := range map[string]func(header []byte){
		"rows":   func(header []byte) { header[12]++ },
		"anchor": func(header []byte) { header[13]-- },
	} {
		mem := newMem()
		s := openOn(t, &hookedMeta{Device: mem, read: func(b []byte, off int64) {
			if off == 0 && len(b) >= snapshotHeader {
				change(b)
				sealEnd(b[:snapshotHeader])
			}
		}}, nil)
		n := s.NewSession()
		require.NoError(t, n.Put([]byte("key"), nil))
		n.Close()
		_, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: FullCheckpoint})
		require.ErrorIs(t, err, errSnapshot, what)
		list, err := s.Checkpoints()
		require.NoError(t, err)
		require.Empty(t, list, what)
		require.NoError(t, s.Close())
	}
}

// TestSession_NoRandomness: a session gets an id that others have too.
func TestSession_NoRandomness(t *testing.T) {
	s := openOn(t, newMem(), nil) // its randomness is 24 bytes, which the store has taken
	_, err := s.NewLedger()
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, s.Close())
}
