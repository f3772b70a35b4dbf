package daemon

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/ipc"
)

// TestConfig_Store: a setting of the store that is shown but not in force, or
// half of those asked for together.
func TestConfig_Store(t *testing.T) {
	d := start(t, func(c *Config) { c.SegmentSize, c.LiveRatio = 1<<20, 0 })
	w := d.dial()
	stats := func(name string) any { return w.ask("stats").result.(map[string]any)[name] }
	tasks := func() string { return w.ask("tasks", "get").result.([]any)[4].(map[string]any)["next"].(string) }
	require.Equal(t, int64(0), stats("engine_disk_budget"))
	require.Contains(t, tasks(), "off")
	require.Empty(t, w.ask("config", opt{"set": opt{"disk": "32MiB", "live_ratio": 0.4}}).code)
	require.Equal(t, int64(32<<20), stats("engine_disk_budget"))
	require.NotContains(t, tasks(), "off")
	w.refuse(ipc.CodeBadRequest, "config", opt{"set": opt{"disk": "7MiB", "live_ratio": 0.9}})
	require.Equal(t, "0.4", w.ask("config").result.(map[string]any)["live_ratio"])
	require.Equal(t, int64(32<<20), stats("engine_disk_budget"))

	require.Equal(t, "64MiB", w.ask("config", opt{"set": opt{"memory": "64MiB"}}).result.(map[string]any)["memory"])
	require.Equal(t, int64(64<<20), stats("engine_memory"))
	w.refuse(ipc.CodeBadRequest, "config", opt{"set": opt{"memory": "31MiB"}})

	value := bytes.Repeat([]byte("v"), 1000)
	for i := range 300 {
		pairs := make([]any, 200)
		for j := range pairs {
			pairs[j] = []any{[]byte{byte(i*200 + j), byte((i*200 + j) % 20000 >> 8), 1}, value}
		}
		require.Equal(t, int64(200), w.ask("mput", pairs).result)
		if i%50 == 0 {
			require.LessOrEqual(t, stats("engine_disk_used"), int64(32<<20))
		}
	}
	a := w.ask("compact", opt{"until": 1 << 40})
	require.Empty(t, a.code, a)
	res := a.result.(map[string]any)
	require.GreaterOrEqual(t, res["begin"], res["scanned"])
	require.Equal(t, "ok", stats("engine_state"))
	w.refuse(ipc.CodeBadRequest, "tasks", "stop", "flush")
	w.want(true, "tasks", "stop", "warm")
}
