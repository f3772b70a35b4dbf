package daemon

import (
	"rskv/daemon/admin"
	"rskv/engine"
	"rskv/ioring"
)

const (
	familyDevice   = metricPrefix + "device_operation_duration_seconds"
	familyRuns     = metricPrefix + "task_runs_total"
	familyFailures = metricPrefix + "task_failures_total"
	familySpent    = metricPrefix + "task_seconds_total"
)

// deviceFamily is how long the storage device took.
func deviceFamily(st *engine.Stats) admin.Family {
	f := admin.Family{Name: familyDevice, Kind: admin.Histogram, Help: "Time an operation of the storage device took."}
	for _, of := range []struct {
		kind  string
		times *ioring.Times
	}{{"read", &st.ReadTimes}, {"write", &st.WriteTimes}, {"sync", &st.SyncTimes}} {
		d := &admin.Distribution{Counts: of.times.Counts[:], Sum: of.times.Sum.Seconds()}
		for i := range ioring.TimesBuckets - 1 {
			d.Bounds = append(d.Bounds, float64(int64(1)<<(ioring.TimesFirst+i))*1e-9)
		}
		f.Samples = append(f.Samples, admin.Sample{Labels: []admin.Label{{Name: "kind", Value: of.kind}}, Of: d})
	}
	return f
}

// taskFamilies are what the background tasks have done.
func taskFamilies(tasks []engine.TaskInfo) []admin.Family {
	runs := admin.Family{Name: familyRuns, Kind: admin.Counter, Help: "Runs of each background task; of flush, commit and growth the steps of their work."}
	failures := admin.Family{Name: familyFailures, Kind: admin.Counter, Help: "Runs of each background task that ended with an error."}
	spent := admin.Family{Name: familySpent, Kind: admin.Counter, Help: "Time that each background task has run."}
	for i := range tasks {
		t := &tasks[i]
		label := []admin.Label{{Name: "task", Value: string(t.Name)}}
		runs.Samples = append(runs.Samples, admin.Sample{Labels: label, Value: float64(t.Runs)})
		failures.Samples = append(failures.Samples, admin.Sample{Labels: label, Value: float64(t.Failed)})
		spent.Samples = append(spent.Samples, admin.Sample{Labels: label, Value: t.Spent.Seconds()})
	}
	return []admin.Family{runs, failures, spent}
}
