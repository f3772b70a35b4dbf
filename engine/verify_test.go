package engine

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/manifest"
	"rskv/ioring/iotest"
)

// TestManifest_Copy: one damaged sector under the manifest costs the whole
// store; or a copy that is out of date is believed where the manifest is whole;
// or what was damaged stays damaged.
func TestManifest_Copy(t *testing.T) {
	dev := newMem()
	s := openOn(t, dev, nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("key"), []byte("value")))
	n.Close()
	require.NoError(t, s.Close())
	whole, err := dev.CrashImage(iotest.CrashOptions{}).ReadMeta(manifest.Name)
	require.NoError(t, err)
	damaged := bytes.Clone(whole)
	damaged[40] ^= 1
	for name, change := range map[string]func(*iotest.Mem) error{
		"damaged":      func(m *iotest.Mem) error { return m.WriteMeta(manifest.Name, damaged) },
		"zeroed":       func(m *iotest.Mem) error { return m.WriteMeta(manifest.Name, make([]byte, len(whole))) },
		"missing":      func(m *iotest.Mem) error { return m.RemoveMeta(manifest.Name) },
		"copy damaged": func(m *iotest.Mem) error { return m.WriteMeta(manifestCopy, damaged) },
		"copy missing": func(m *iotest.Mem) error { return m.RemoveMeta(manifestCopy) },
	} {
		image := dev.CrashImage(iotest.CrashOptions{})
		require.NoError(t, change(image))
		again := image.CrashImage(iotest.CrashOptions{})
		s, err := tryOpenOn(image, nil)
		require.NoError(t, err, name)
		n := s.NewSession()
		v, err := n.Get([]byte("key"), nil)
		require.NoError(t, err, name)
		require.Equal(t, "value", string(v), name)
		n.Close()
		for _, copyName := range []string{manifest.Name, manifestCopy} {
			b, err := again.ReadMeta(copyName)
			if err == nil {
				before, _ := manifest.Decode(b)
				now, err := image.ReadMeta(copyName)
				require.NoError(t, err)
				m, err := manifest.Decode(now)
				require.NoError(t, err, "%s: %s is not healed", name, copyName)
				require.True(t, before == nil || m.Generation == before.Generation+1)
			}
		}
		require.NoError(t, s.Close())
	}
	// The manifest decides: a copy of an older generation is not looked at.
	image := dev.CrashImage(iotest.CrashOptions{})
	s, err = tryOpenOn(image, nil)
	require.NoError(t, err)
	n = s.NewSession()
	require.NoError(t, n.Put([]byte("key"), []byte("newer")))
	n.Close()
	require.NoError(t, s.Close())
	image = image.CrashImage(iotest.CrashOptions{})
	require.NoError(t, image.WriteMeta(manifestCopy, whole))
	s, err = tryOpenOn(image, nil)
	require.NoError(t, err)
	n = s.NewSession()
	v, err := n.Get([]byte("key"), nil)
	require.NoError(t, err)
	require.Equal(t, "newer", string(v))
	n.Close()
	require.NoError(t, s.Close())
}

// collect verifies a store on a device and returns everything that was reported.
func collect(t testing.TB, dev *iotest.Mem) (VerifyResult, []Damage) {
	t.Helper()
	var list []Damage
	events := len(dev.Events())
	res, err := Verify(VerifyOptions{Device: dev}, func(d Damage) { list = append(list, d) })
	require.NoError(t, err)
	require.Len(t, dev.Events(), events, "verify has changed something")
	require.Len(t, list, res.Damages)
	return res, list
}

// TestVerify_Whole: a store without damage is said to have some, or part of it is
// not looked at.
func TestVerify_Whole(t *testing.T) {
	dev := newMem()
	large := valueOf(1, 1, 300<<10)
	for run := range 3 {
		s := openOn(t, dev, nil)
		n := s.NewSession()
		fillKeys(t, n, 3000, uint64(run))
		require.NoError(t, n.Put([]byte("large"), large))
		_, err := n.Delete([]byte("key-7"))
		require.NoError(t, err)
		checkpoint(t, s, FullCheckpoint)
		fillKeys(t, n, 100, 99)
		syncStore(t, s)
		version, tail, keys := s.Stats().Version, s.Stats().LogTail, s.Len()
		n.Close()
		image := dev.CrashImage(iotest.CrashOptions{}) // an open span
		if run == 1 {
			require.NoError(t, s.Close())
		}
		dev = dev.CrashImage(iotest.CrashOptions{}) // a closed one in the second run
		for _, d := range []*iotest.Mem{image, dev} {
			res, list := collect(t, d)
			require.Empty(t, list)
			require.True(t, res.Opens, res.Why)
			require.Equal(t, run+1, res.Checkpoints)
			require.GreaterOrEqual(t, res.Version, version)
			require.Equal(t, keys, res.Keys)
			require.GreaterOrEqual(t, res.Tail, tail)
			require.EqualValues(t, run+1, res.Large)
			require.EqualValues(t, 5*(run+1), res.Chunks)
			require.GreaterOrEqual(t, res.Values, uint64(3000))
			require.GreaterOrEqual(t, res.Tombstones, uint64(1))
			require.Zero(t, res.LostChunks)
			require.Greater(t, res.Bytes, int64(run+1)*300<<10)
		}
	}
	var done, total int64
	_, err := Verify(VerifyOptions{Device: dev, Progress: func(d, n int64) { done, total = d, n }}, nil)
	require.NoError(t, err)
	require.Equal(t, total, done)
	require.Positive(t, total)
}
