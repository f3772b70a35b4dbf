package goal

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/bench/internal/measure"
)

func rowOf(group, name, unit string, rates ...float64) *measure.Row {
	r := &measure.Row{Group: group, Name: name, Unit: unit, Commit: "off", Rates: rates}
	r.Finish(nil)
	return r
}

// A goal could be held against the wrong row, the wrong way round, or be called
// reached without a figure.
func TestStand(t *testing.T) {
	ours, fio := rowOf(fromDisk, "get, io_uring, values of 4000 B", "k IOPS", 80, 90, 100), rowOf(fromDisk, "random reads, fio", "k IOPS", 100, 100, 100)
	ours.CPU, fio.CPU = new(float64), new(float64)
	*ours.CPU, *fio.CPU = 6000, 4000
	ours.Finish(fio)
	client, valkey := rowOf(oneClient, "get, goroutines: 64, rskv", "k/s", 500), rowOf(oneClient, "get, goroutines: 64, valkey-go", "k/s", 100)
	list := Stand([]*measure.Report{
		{Rows: []*measure.Row{rowOf(inMemory, "memory a key", "B", 70), rowOf(inMemory, "get, 2 threads, batch of 32", "M/s", 48.5)}},
		{Rows: []*measure.Row{ours, fio, rowOf(inMemory, "memory a key", "B", 55), client, valkey}},
	})
	by := map[string]*Standing{}
	for i := range list {
		by[list[i].What] = &list[i]
	}
	require.Len(t, by, len(All), "two goals of one name")
	for what, want := range map[string]string{
		"memory a key, 8 + 8 B, index and log":           "met",
		"get, batches of 32, 10 M keys uniform":          "met",
		"cold gets, values of 4000 B, 128 in flight":     "met",
		"cold gets, values of 4000 B, processor time":    "missed",
		"Go client, 64 goroutines":                       "beyond",
		"put with sync, 1 client":                        "not measured",
		"put in place, batches of 32, 10 M keys uniform": "not measured",
	} {
		require.Equal(t, want, by[what].Reached(), what)
	}
	var out strings.Builder
	require.NoError(t, Markdown(&out, list))
	for _, line := range []string{
		"| memory a key, 8 + 8 B, index and log | 55.0 B, commit off |  |  | <= 60 B | <= 50 B | met |",
		"| cold gets, values of 4000 B, 128 in flight | 90.0 k IOPS [80.0-100], commit off | random reads, fio: 100 k IOPS [100-100], commit off | 0.90x [0.80-1.00] | 0.9x | 1x | met |",
		"| cold gets, values of 4000 B, processor time | 6 us | random reads, fio: 4 us | 1.50x | <= 1.2x |  | **missed** |",
		"| get, batches of 32, 10 M keys uniform | 48.5 M/s, commit off | C++ FASTER, 2 threads, not run here: 9.7 M/s | 5.00x | 4x | 6x | met |",
		"| put with sync, 1 client | - |  |  | 1.2x | 1.6x | not measured |",
	} {
		require.Contains(t, out.String(), line)
	}
}

// A target that is harder than what is beyond it is a mistake in the list.
func TestAll(t *testing.T) {
	for _, g := range All {
		if g.Beyond == 0 {
			continue
		}
		if g.Less {
			require.Less(t, g.Beyond, g.Target, g.What)
		} else {
			require.Greater(t, g.Beyond, g.Target, g.What)
		}
	}
}
