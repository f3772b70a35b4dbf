package engine

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
	"rskv/ioring/iotest"
)

// refusal has the system refuse the k-th thing asked of it about memory, counted from
// 1, once, and keeps the books of what is reserved.
type refusal struct {
	mu       sync.Mutex
	k        int
	refused  string        // what was
	reserved map[int64]int // how many of each size have not been given back
}

// refuseMemory begins with the next request; the test's end ends it.
func refuseMemory(t testing.TB, k int) *refusal {
	r := &refusal{k: k, reserved: map[int64]int{}}
	ioring.OnMemory(r.ask)
	t.Cleanup(func() { ioring.OnMemory(nil) })
	return r
}

func (r *refusal) ask(what string, size int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Even if the system refuses: nobody asks twice. And the garbage collector may find
	// a device that others have left, whose buffers were not reserved here.
	if what == "free" && r.reserved[size] > 0 {
		r.reserved[size]--
	}
	if r.k--; r.k == 0 {
		r.refused = what
		return fmt.Errorf("injected: %w", syscall.ENOMEM)
	}
	if what == "reserve" {
		r.reserved[size]++
	}
	return nil
}

// state is what was refused, and how many bytes are reserved.
func (r *refusal) state() (refused string, reserved int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for size, n := range r.reserved {
		reserved += size * int64(n)
	}
	return r.refused, reserved
}

// TestFault_EveryMemoryOfOpen: memory that the system refuses while a store opens makes
// Open panic, keep what it has been given, or fail without saying why; or the store
// cannot be opened the next time, or lacks something.
func TestFault_EveryMemoryOfOpen(t *testing.T) {
	image, versions, states := checkpointed(t, FullCheckpoint)
	// Without its newest snapshots the index is filled, emptied and filled from the log.
	bare := image.CrashImage(iotest.CrashOptions{})
	for _, version := range versions {
		name := fmt.Sprintf("snapshot-%020d", version)
		b, err := bare.ReadMeta(name)
		require.NoError(t, err)
		b[len(b)/2]++
		require.NoError(t, bare.WriteMeta(name, b))
	}
	for _, run := range []struct {
		name    string
		image   *iotest.Mem
		version uint64
		want    map[string]string
	}{{"Newest", image, 0, states[3]}, {"Chosen", image, versions[1], states[1]}, {"Bare", bare, 0, states[3]}} {
		t.Run(run.name, func(t *testing.T) {
			failed := map[string]int{}
			for k := 1; ; k++ {
				dev := run.image.CrashImage(iotest.CrashOptions{})
				refusal := refuseMemory(t, k)
				s, err := tryOpenOn(keepOpen{dev}, func(o *Options) { withOrder(o); o.RecoverVersion = run.version })
				what, reserved := refusal.state()
				if err == nil {
					requireAll(t, s, run.want, what)
					err = s.Close()
					if what, _ = refusal.state(); what == "" {
						require.NoError(t, err)
						break
					}
				} else {
					require.NotEmpty(t, what, "nothing has been refused: %v", err)
					require.ErrorIs(t, err, syscall.ENOMEM, what)
					require.Contains(t, err.Error(), "memory")
					require.Zero(t, reserved, "%v", err)
					failed[what]++
				}
				_, reserved = refusal.state()
				require.Zero(t, reserved)
				ioring.OnMemory(nil)
				s, err = tryOpenOn(keepOpen{dev}, func(o *Options) {
					withOrder(o)
					if failed[what] > 0 {
						o.RecoverVersion = run.version
					}
				})
				require.NoError(t, err, "after %s was refused", what)
				requireAll(t, s, run.want, "after "+what+" was refused")
				require.NoError(t, s.Close())
			}
			t.Logf("refused: %v", failed)
			require.Greater(t, failed["reserve"], 3)
			require.Positive(t, failed["release"])
		})
	}
}

// TestFault_EveryMemoryOfRun: memory that the system refuses to a running store makes it
// panic, hang, lose what was written, fail without saying why, or fail the next time too.
func TestFault_EveryMemoryOfRun(t *testing.T) {
	ctx := context.Background()
	const keys = 1500
	failed := map[string]bool{}
	for k := 1; ; k++ {
		mem := newMem()
		s := openOn(t, keepOpen{mem}, func(o *Options) { o.Ordered, o.IndexBits, o.CheckpointsKept = true, 6, 1 })
		refusal := refuseMemory(t, k)
		n := s.NewSession()
		want := map[string]string{}
		put := func(i int, round uint64) {
			key, value := fmt.Sprintf("%06d", i), valueOf(uint64(i), round, 64)
			require.NoError(t, n.Put([]byte(key), value))
			want[key] = string(value)
		}
		steps := []struct {
			name string
			run  func() error
		}{
			{"expire", func() error {
				for i := range 600 {
					if _, err := n.Expire(fmt.Appendf(nil, "%06d", i), time.Hour.Milliseconds()+int64(i)); err != nil {
						return err
					}
				}
				return nil
			}},
			{"less memory", func() error { return s.SetMemory(MemoryMin) }},
			{"more memory", func() error { return s.SetMemory(2 * MemoryMin) }},
			{"checkpoint", func() error {
				_, err := s.Checkpoint(ctx, CheckpointOptions{Kind: FullCheckpoint})
				return err
			}},
			{"scan", func() error {
				for _, err := range s.All(ctx) {
					if err != nil {
						return err
					}
				}
				return nil
			}},
			{"log", func() error {
				for _, err := range s.Log(ctx, 0) {
					if err != nil {
						return err
					}
				}
				return nil
			}},
			{"count", func() error {
				_, err := s.LenExact(ctx)
				return err
			}},
			{"scrub", func() error {
				_, err := s.Scrub(ctx, ScrubOptions{BytesPerSecond: -1}, func(Damage) {})
				return err
			}},
			{"backup", func() error {
				_, err := s.Backup(ctx, io.Discard, nil)
				return err
			}},
			{"compact", func() error {
				_, err := s.Compact(ctx, CompactOptions{})
				return err
			}},
		}
		for i := range keys {
			put(i, 1)
		}
		syncStore(t, s)
		for i := 0; i < keys; i += 2 {
			put(i, 2)
		}
		syncStore(t, s)
		for _, step := range steps {
			if err := step.run(); err != nil {
				what, _ := refusal.state()
				require.NotEmpty(t, what, "%s: nothing has been refused: %v", step.name, err)
				require.ErrorIs(t, err, syscall.ENOMEM, step.name)
				failed[step.name] = true
				require.NoError(t, step.run(), "%s, again after %s was refused", step.name, what)
			}
			put(1, uint64(k)+3)
		}
		what, _ := refusal.state()
		requireAll(t, s, want, what)
		n.Close()
		if err := s.Close(); err != nil {
			what, _ = refusal.state()
			require.NotEmpty(t, what, "%v", err)
			require.ErrorIs(t, err, syscall.ENOMEM)
		}
		ioring.OnMemory(nil)
		s = openOn(t, mem, func(o *Options) { o.Ordered = true })
		requireAll(t, s, want, "opened after "+what+" was refused")
		require.NoError(t, s.Close())
		if what == "" {
			t.Logf("%d requests; failed once, each with its reason: %v", k-1, slices.Sorted(maps.Keys(failed)))
			break
		}
	}
	// Which request is the k-th differs from run to run: the tasks ask too.
	require.Greater(t, len(failed), 1)
}
