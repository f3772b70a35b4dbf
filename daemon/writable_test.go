package daemon

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rskv/ioring"
	"rskv/ioring/iotest"
	"rskv/ipc"
)

// agree checks that health, stats and the log tell of the same state.
func (d *running) agree(w *wire, state, reason, logged string) {
	d.t.Helper()
	h := w.ask("health").result.(opt)
	require.Equal(d.t, state, h["state"])
	require.Contains(d.t, h["error"], reason)
	require.Equal(d.t, state == "ok", h["since"] == int64(0))
	require.Equal(d.t, state, w.ask("stats").result.(opt)["health"])
	require.Contains(d.t, d.log.String(), logged)
}

// TestHealth_DiskFails: somebody who waits for a commit that waits for ever when
// the disk fails, or is told that it is durable; or health, stats and log that
// do not tell the same.
func TestHealth_DiskFails(t *testing.T) {
	cfg := testConfig(t)
	cfg.CommitInterval = 0
	fault := iotest.NewFault(iotest.NewMem(iotest.MemOptions{SegmentSize: 16 << 20}), 1)
	d := startOn(t, cfg, fault)
	w := d.dial()
	w.want(true, "put", []byte("k"), []byte("v"), opt{"sync": true})
	d.agree(w, "ok", "", "serving")

	// All of them wait for one sync, which fails.
	fault.Inject(iotest.Rule{Kind: ioring.Sync, Delay: 50 * time.Millisecond, Err: unix.EIO})
	var waiters sync.WaitGroup
	for _, ask := range [][]any{
		{"put", []byte("a"), []byte("b"), opt{"sync": true}},
		{"add", []byte("n"), 1, opt{"sync": true}},
		{"append", []byte("l"), []byte("x"), opt{"sync": true}},
		{"cas", []byte("c"), nil, []byte("x"), opt{"sync": true}},
		{"del", []byte("k"), opt{"sync": true}},
		{"mput", [][2][]byte{{[]byte("p"), []byte("1")}}, opt{"sync": true}},
		{"mdel", [][]byte{[]byte("p")}, opt{"sync": true}},
		{"sync"}, {"checkpoint"}, {"checkpoint", opt{"kind": "log"}}, {"backup", "open"},
	} {
		for _, hello := range []bool{false, true} {
			w := d.dial()
			if hello {
				require.Empty(t, w.ask("hello").code)
			}
			waiters.Go(func() {
				if ask[0] == "sync" {
					w.send(notification("put", []byte("before"), []byte("it")))
				}
				a := w.ask(ask[0].(string), ask[1:]...)
				if a.code != string(ipc.CodeReadOnly) {
					t.Errorf("%v answered %v %s %s", ask, a.result, a.code, a.reason)
				}
				if len(w.told) > 0 && w.told[len(w.told)-1] > 0 {
					t.Errorf("%v: told that write %v is durable", ask, w.told)
				}
			})
		}
	}
	waiters.Wait()
	d.agree(w, "read only", "input/output error", `msg="the store takes no writes any more"`)
	w.refuse(ipc.CodeReadOnly, "put", []byte("k"), []byte("w"))
	w.want("pong", "ping")
	require.Equal(t, 1, strings.Count(d.log.String(), "takes no writes any more"))
	d.cancel()
	<-d.ended
	require.ErrorContains(t, d.err, "close the store")
	d.err = nil
}

// TestHealth_DiskFull: a full disk that is not told of, or passes for one that
// failed, or is not got over when there is room again.
func TestHealth_DiskFull(t *testing.T) {
	cfg := testConfig(t)
	cfg.CommitInterval = 0
	fault := iotest.NewFault(iotest.NewMem(iotest.MemOptions{SegmentSize: 16 << 20}), 1)
	d := startOn(t, cfg, fault)
	w := d.dial()
	w.want(true, "put", []byte("k"), []byte("v"), opt{"sync": true})
	undo := fault.Inject(iotest.Rule{Kind: ioring.Write, Err: unix.ENOSPC})
	w.refuse(ipc.CodeDiskFull, "put", []byte("k"), []byte("w"), opt{"sync": true})
	d.agree(w, "disk full", "disk is full: the file system", `msg="the store takes no writes until there is room"`)
	w.refuse(ipc.CodeDiskFull, "sync")
	w.want([]byte("w"), "get", []byte("k"))
	undo()
	require.Eventually(t, func() bool { return w.ask("sync").code == "" }, patience, 10*time.Millisecond)
	d.agree(w, "ok", "", `msg="the store takes writes again"`)
	w.want(true, "put", []byte("k"), []byte("x"), opt{"sync": true})
}

// TestHealth_BudgetFull: a store whose disk budget is used up refuses writes and passes
// for a healthy one; or nobody is told that it is the budget, and not the disk.
func TestHealth_BudgetFull(t *testing.T) {
	cfg := testConfig(t)
	cfg.Disk, cfg.SegmentSize, cfg.PageSize, cfg.CommitInterval = 16<<20, 1<<20, 256<<10, 20*time.Millisecond
	d := startOn(t, cfg, iotest.NewMem(iotest.MemOptions{SegmentSize: 1 << 20}))
	w := d.dial()
	value := make([]byte, 60<<10)
	// Every key is a new one: when compaction has found that all of them live, it makes no
	// room any more. Until then it may, for a moment.
	var refused answer
	for i, row := 0, 0; row < 100; i++ {
		require.Less(t, i, 1_000_000, "the budget is never used up")
		if refused = w.ask("put", fmt.Append(nil, i), value); refused.code == "" {
			row = 0
			continue
		}
		row++
		time.Sleep(time.Millisecond)
	}
	require.EqualValues(t, ipc.CodeDiskFull, refused.code)
	require.Contains(t, refused.reason, "disk budget")
	d.agree(w, "disk full", "disk budget", `msg="the store takes no writes until there is room"`)
}
