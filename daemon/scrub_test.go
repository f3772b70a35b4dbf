package daemon

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
	"rskv/ioring/iotest"
	"rskv/ipc"
)

// scrubStatus asks for the status of the scrub.
func (w *wire) scrubStatus() opt {
	w.t.Helper()
	a := w.ask("scrub", "status")
	require.Empty(w.t, a.code, a.reason)
	return a.result.(opt)
}

// scrubbed waits until no scrub runs any more.
func (w *wire) scrubbed() (status opt) {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		status = w.scrubStatus()
		return status["state"] != "running"
	}, patience, time.Millisecond)
	return status
}

// fillSynced writes 200 values of 4 KiB and makes them durable.
func (w *wire) fillSynced() {
	for i := range 200 {
		w.want(true, "put", coldKey(i), coldContent(i))
	}
	require.Empty(w.t, w.ask("sync").code)
}

// TestScrub_FindsDamage: damage that is not found, not told of with its place,
// not in the stats and not in the log; or found where there is none.
func TestScrub_FindsDamage(t *testing.T) {
	mem := iotest.NewMem(iotest.MemOptions{SegmentSize: 16 << 20})
	d := startOn(t, testConfig(t), mem)
	w := d.dial()
	require.Equal(t, "never", w.scrubStatus()["state"])
	w.want(false, "scrub", "stop")
	w.fillSynced()
	w.want(true, "scrub", "start", opt{"rate": 0})
	s := w.scrubbed()
	require.Equal(t, "done", s["state"], s["error"])
	require.Zero(t, s["damages"])
	require.Empty(t, s["found"])
	require.Equal(t, s["total"], s["bytes"])
	require.Greater(t, s["records"], int64(200))
	require.Positive(t, w.ask("stats").result.(opt)["scrub_clean_ms"])

	const at = 300_000
	mem.Corrupt(at, func(b byte) byte { return b ^ 0x40 })
	w.want(true, "scrub", "start", opt{"rate": 0})
	s = w.scrubbed()
	require.Equal(t, "done", s["state"])
	require.Equal(t, int64(1), s["damages"])
	found := s["found"].([]any)[0].([]any)
	require.LessOrEqual(t, found[1], int64(at))
	require.Greater(t, found[2], int64(at))
	require.NotEmpty(t, found[3])
	stats := w.ask("stats").result.(opt)
	require.Equal(t, int64(1), stats["scrub_damages"])
	require.Equal(t, int64(2), stats["scrubs"])
	require.GreaterOrEqual(t, stats["scrub_ended_ms"], stats["scrub_clean_ms"])
	require.Contains(t, d.log.String(), `msg="scrub found damage"`)
	mem.Corrupt(at, func(b byte) byte { return b ^ 0x40 }) // the daemon is to end well
}

// TestScrub_OneAtATime: two that run at once, one that cannot be stopped, or one
// that a stopping daemon waits for.
func TestScrub_OneAtATime(t *testing.T) {
	d := start(t, func(c *Config) { c.ScrubRate = 1000 })
	w := d.dial()
	w.fillSynced()
	w.want(true, "scrub", "start")
	w.refuse(ipc.CodeBusy, "scrub", "start")
	require.Equal(t, "running", w.scrubStatus()["state"])
	require.Equal(t, int64(1000), w.scrubStatus()["rate"])
	require.NoError(t, w.conn.Close()) // it goes on
	w = d.dial()
	require.Equal(t, "running", w.scrubStatus()["state"])
	w.want(true, "scrub", "stop")
	require.Equal(t, "stopped", w.scrubStatus()["state"])
	w.want(true, "scrub", "start") // for d.stop
}

// TestScrub_Interval: a scrub that is due and does not begin, or that begins
// when none was asked for.
func TestScrub_Interval(t *testing.T) {
	d := start(t, nil)
	w := d.dial()
	w.fillSynced()
	require.Equal(t, "never", w.scrubStatus()["state"])
	require.Empty(t, w.ask("config", opt{"set": opt{"scrub_interval": "20ms", "scrub_rate": 0}}).code)
	require.Eventually(t, func() bool { return w.ask("stats").result.(opt)["scrubs"].(int64) >= 3 }, patience, 10*time.Millisecond)
}

// TestScrub_DiskFails: a disk that cannot be read which passes for sound.
func TestScrub_DiskFails(t *testing.T) {
	fault := iotest.NewFault(iotest.NewMem(iotest.MemOptions{SegmentSize: 16 << 20}), 1)
	w := startOn(t, testConfig(t), fault).dial()
	w.fillSynced()
	undo := fault.Inject(iotest.Rule{Kind: ioring.Read, Err: fmt.Errorf("cable")})
	w.want(true, "scrub", "start", opt{"rate": 0})
	s := w.scrubbed()
	undo()
	require.Equal(t, "done", s["state"])
	require.Positive(t, s["damages"])
	require.Contains(t, s["found"].([]any)[0].([]any)[3], "cable")
}
