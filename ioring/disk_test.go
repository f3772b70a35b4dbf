//go:build unix

package ioring_test

import (
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"rskv/ioring"
	"rskv/ioring/iotest"
)

const testSegment = 256 << 10

// open opens a device with small segments, and skips a ring that cannot run.
func open(t testing.TB, options ioring.Options) ioring.Device {
	t.Helper()
	if ok, why := ioring.Probe(); options.Mode == ioring.URing && !ok {
		t.Skip(why)
	}
	if options.Dir == "" {
		options.Dir = t.TempDir()
	}
	if options.SegmentSize == 0 {
		options.SegmentSize = testSegment
	}
	if options.BufferBytes == 0 {
		options.BufferBytes = 1 << 20
	}
	d, err := ioring.Open(options)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// backends lists every way a device is built on files.
var backends = map[string]ioring.Options{
	"pool":           {Mode: ioring.PReadWrite},
	"pool,buffered":  {Mode: ioring.PReadWrite, NoDirect: true, Workers: 1},
	"ring":           {Mode: ioring.URing},
	"ring,buffered":  {Mode: ioring.URing, NoDirect: true},
	"ring,depth one": {Mode: ioring.URing, QueueDepth: 1},
}

// Both backends must keep the contract, with and without O_DIRECT, and with the
// least room they can have.
func TestDisk_Contract(t *testing.T) {
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			iotest.Contract(t, func(t *testing.T) ioring.Device { return open(t, options) })
		})
	}
}

func do(t testing.TB, d ioring.Device, kind ioring.OpKind, off int64, buf []byte) error {
	t.Helper()
	n, err := iotest.Do(t, d, kind, off, buf)
	if err == nil && kind != ioring.Sync {
		require.Equal(t, len(buf), n)
	}
	return err
}

func filled(n int, b byte) []byte {
	p := iotest.Aligned(n)
	for i := range p {
		p[i] = b
	}
	return p
}

// What was written must be found by the next process, under either backend, and
// files of others in the directory must survive.
func TestDisk_Reopen(t *testing.T) {
	dir := t.TempDir()
	foreign := []string{"seg18-3", "seg18-000000000000000G", "notes.txt", "seg18-00000000000000001", ".hidden.meta"}
	for _, name := range foreign {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o600))
	}
	d := open(t, ioring.Options{Dir: dir, Mode: ioring.PReadWrite})
	require.NoError(t, do(t, d, ioring.Write, 2*testSegment, filled(4096, 'x')))
	require.NoError(t, do(t, d, ioring.Write, 4*testSegment, filled(4096, 'y')))
	require.NoError(t, do(t, d, ioring.Sync, 0, nil))
	require.NoError(t, d.WriteMeta("manifest", []byte("m")))
	require.NoError(t, d.Close())

	for _, name := range []string{"seg18-0000000000000002", "manifest.meta"} {
		st, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o600), st.Mode(), name)
	}
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			options.Dir = dir
			d := open(t, options)
			begin, end := d.Extent()
			require.Equal(t, [2]int64{2 * testSegment, 5 * testSegment}, [2]int64{begin, end})
			p := iotest.Aligned(4096)
			require.NoError(t, do(t, d, ioring.Read, 4*testSegment, p))
			require.Equal(t, filled(4096, 'y'), p)
			require.ErrorIs(t, do(t, d, ioring.Read, 3*testSegment, p), ioring.ErrNoSegment)
			names, err := d.ListMeta()
			require.NoError(t, err)
			require.Equal(t, []string{"manifest"}, names)
			require.NoError(t, do(t, d, ioring.Sync, 0, nil))
			require.NoError(t, d.Close())
		})
	}
	d = open(t, ioring.Options{Dir: dir})
	require.NoError(t, d.Discard(100*testSegment))
	require.NoError(t, d.Close())
	for _, name := range foreign {
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, "mine", string(data))
	}
}

// A segment whose making was cut short must count in full; another segment size
// must be refused, not misread.
func TestDisk_Reopen_OddSegments(t *testing.T) {
	dir := t.TempDir()
	short := filepath.Join(dir, "seg18-0000000000000001")
	require.NoError(t, os.WriteFile(short, filled(8192, 'x'), 0o600))
	d := open(t, ioring.Options{Dir: dir})
	begin, end := d.Extent()
	require.Equal(t, [2]int64{testSegment, 2 * testSegment}, [2]int64{begin, end})
	p := filled(8192, 'z')
	require.NoError(t, do(t, d, ioring.Read, testSegment+4096, p))
	require.Equal(t, append(filled(4096, 'x'), make([]byte, 4096)...), p)
	require.NoError(t, do(t, d, ioring.Write, 2*testSegment-4096, filled(4096, 'e')))
	require.NoError(t, d.Close())

	_, err := ioring.Open(ioring.Options{Dir: dir, SegmentSize: 1 << 20})
	require.ErrorContains(t, err, "segments of 262144 bytes")
	require.NoError(t, os.Truncate(short, testSegment+1))
	_, err = ioring.Open(ioring.Options{Dir: dir, SegmentSize: testSegment})
	require.ErrorContains(t, err, "longer than a segment")
	require.NoError(t, os.Remove(short))
	require.NoError(t, os.Symlink("/etc/hostname", short))
	_, err = ioring.Open(ioring.Options{Dir: dir, SegmentSize: testSegment})
	require.ErrorIs(t, err, unix.ELOOP, "a link is not followed")
}

// The file may end inside an operation if somebody cuts it: the answer must say
// which file and how far, and must not hang.
func TestDisk_Read_Short(t *testing.T) {
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			options.Dir = t.TempDir()
			d := open(t, options)
			require.NoError(t, do(t, d, ioring.Write, 0, filled(8192, 'x')))
			require.NoError(t, os.Truncate(filepath.Join(options.Dir, "seg18-0000000000000000"), 4096))
			for _, reads := range []int{1, 8} { // one on the caller's thread, several on the device's
				done := make(chan *ioring.Op, reads)
				var ops []*ioring.Op
				for range reads {
					ops = append(ops, &ioring.Op{Kind: ioring.Read, Buf: iotest.Aligned(8192), Done: func(op *ioring.Op) { done <- op }})
				}
				d.Submit(ops)
				for range reads {
					op := <-done
					require.ErrorIs(t, op.Err, ioring.ErrShort)
					require.ErrorContains(t, op.Err, "seg18-0000000000000000")
					require.Equal(t, 4096, op.N)
				}
			}
		})
	}
}

// Two processes on one directory would destroy it.
func TestDisk_Open_Locked(t *testing.T) {
	dir := t.TempDir()
	first := open(t, ioring.Options{Dir: dir})
	_, err := ioring.Open(ioring.Options{Dir: dir, SegmentSize: testSegment})
	require.ErrorIs(t, err, ioring.ErrLocked)
	require.ErrorContains(t, err, dir)
	require.NoError(t, first.Close())
	open(t, ioring.Options{Dir: dir})
}

// A directory that anybody may write to is no place for data; a missing one is
// made, for its owner alone.
func TestDisk_Open_Directory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	d := open(t, ioring.Options{Dir: dir})
	require.NoError(t, d.Close())
	st, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o700), st.Mode().Perm())
	require.NoError(t, os.Chmod(dir, 0o777|fs.ModeSticky))
	_, err = ioring.Open(ioring.Options{Dir: dir})
	require.ErrorIs(t, err, fs.ErrPermission)
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = ioring.Open(ioring.Options{Dir: file})
	require.ErrorIs(t, err, unix.ENOTDIR)
}

// All mistakes in the options must be told at once.
func TestDisk_Open_Options(t *testing.T) {
	_, err := ioring.Open(ioring.Options{Mode: "fast", SegmentSize: 5000, BufferBytes: 1, QueueDepth: -1, Workers: 1000})
	for _, part := range []string{"no directory", `"fast"`, "segment size 5000", "staging memory 1", "queue depth -1", "1000 workers"} {
		require.ErrorContains(t, err, part)
	}
	for _, mode := range []ioring.Mode{ioring.Auto, ioring.URing, ioring.PReadWrite} {
		parsed, err := ioring.ParseMode(strings.ToUpper(string(mode)))
		require.NoError(t, err)
		require.Equal(t, mode, parsed)
	}
	_, err = ioring.ParseMode("")
	require.Error(t, err)
}

// An operator must be told which backend runs and why, and uring must not
// quietly become something else.
func TestDisk_Open_SaysWhy(t *testing.T) {
	ok, why := ioring.Probe()
	require.NotEmpty(t, why)
	d := open(t, ioring.Options{Mode: ioring.Auto})
	if ok {
		require.Equal(t, "io_uring", d.Info().Backend)
		require.Equal(t, why, d.Info().Why)
	} else {
		require.Equal(t, "pread/pwrite", d.Info().Backend)
		require.Contains(t, d.Info().Why, why)
		_, err := ioring.Open(ioring.Options{Dir: t.TempDir(), Mode: ioring.URing})
		require.ErrorContains(t, err, why)
	}
	t.Logf("%+v, %+v", d.Info(), d.Align())
	require.Equal(t, "asked for", open(t, ioring.Options{Mode: ioring.PReadWrite}).Info().Why)
	require.Contains(t, open(t, ioring.Options{NoDirect: true}).Info().Detail, "that was asked for")
}

// A file size limit must fail that write alone, and the device must go on.
func TestDisk_Write_FileSizeLimit(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			d := open(t, options)
			require.NoError(t, do(t, d, ioring.Write, 0, filled(4096, 'x')))
			var old unix.Rlimit
			require.NoError(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &old))
			require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 8192, Max: old.Max}))
			grown := do(t, d, ioring.Write, testSegment, filled(4096, 'y'))
			beyond := do(t, d, ioring.Write, 8192, filled(4096, 'y'))
			require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &old))
			require.ErrorIs(t, grown, unix.EFBIG)
			require.ErrorIs(t, beyond, unix.EFBIG)
			_, end := d.Extent()
			require.EqualValues(t, testSegment, end, "no half-made segment stays")
			require.NoError(t, do(t, d, ioring.Write, testSegment, filled(4096, 'y')))
			require.NoError(t, do(t, d, ioring.Sync, 0, nil))
		})
	}
}

// Closing must end every goroutine and give back every file.
func TestDisk_Close_Leaks(t *testing.T) {
	before := openFiles(t)
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			ignore := goleak.IgnoreCurrent()
			for range 3 {
				d := open(t, options)
				for i := range int64(4) {
					require.NoError(t, do(t, d, ioring.Write, i*testSegment, filled(4096, 'x')))
				}
				require.NoError(t, d.Discard(testSegment))
				require.NoError(t, do(t, d, ioring.Sync, 0, nil))
				require.NoError(t, d.Close())
			}
			goleak.VerifyNone(t, ignore)
		})
	}
	require.LessOrEqual(t, openFiles(t), before+2, "the runtime may have opened its poller")
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/dev/fd")
	require.NoError(t, err)
	return len(entries)
}
