package daemon

import (
	"runtime"
	"slices"
	"strings"
	"time"

	"rskv/daemon/admin"
	"rskv/engine"
	"rskv/ipc"
)

// metricPrefix begins the name of every metric of the daemon and its store.
const metricPrefix = "rskv_"

// metric is one row of the table: which number of stats is exposed under which
// name. Rows of one name stand together and differ by their label.
type metric struct {
	stat  string // the name in stats
	name  string // behind metricPrefix
	label string // name="value" of the one label; "": none
	kind  admin.Kind
	scale float64 // what one of stat's units is in name's unit
	help  string
}

// metrics is the one table from which /metrics and its documentation come. A
// number in stats that has no row fails a test.
var metrics = []metric{
	{"daemon_uptime_seconds", "uptime_seconds", "", admin.Gauge, 1, "Time since the daemon was started."},
	{"daemon_connections", "connections", "", admin.Gauge, 1, "Connections of clients now."},
	{"daemon_connections_accepted", "connections_accepted_total", "", admin.Counter, 1, "Connections served."},
	{"daemon_connections_refused", "connections_refused_total", "", admin.Counter, 1, "Connections refused because there were max_connections, or for want of a role."},
	{"daemon_connections_broken", "connections_broken_total", "", admin.Counter, 1, "Connections closed because what they sent was no request."},
	{"daemon_denied", "denied_total", "", admin.Counter, 1, "Connections and requests that roles or max_connections_user forbid; the audit log has them."},
	{"daemon_requests_limited", "requests_limited_total", "", admin.Counter, 1, "Requests answered Busy for max_rate_user."},
	{"daemon_connections_late", "connections_late_total", "", admin.Counter, 1, "Connections closed by request_timeout or answer_timeout."},
	{"daemon_connections_held_up", "connections_held_up_total", "", admin.Counter, 1, "Times a connection was not read on because it had reached a bound."},
	{"daemon_sessions", "sessions_known", "", admin.Gauge, 1, "Sessions of clients in the daemon's table."},
	{"daemon_commits_asked", "commits_asked_total", "", admin.Counter, 1, "Commits asked for by clients, before they were joined."},
	{"daemon_backups", "backups", "", admin.Gauge, 1, "Backups open now."},
	{"daemon_watches", "watches", "", admin.Gauge, 1, "Watches running now."},
	{"daemon_watches_lagged", "watches_lagged_total", "", admin.Counter, 1, "Watches that ended because their client did not keep up."},
	{"daemon_changes_told", "changes_told_total", "", admin.Counter, 1, "Changes sent to watches."},
	{"daemon_slow_requests", "slow_requests_total", "", admin.Counter, 1, "Entries the slow log has had."},
	{"daemon_bytes_in", "received_bytes_total", "", admin.Counter, 1, "Bytes received from clients."},
	{"daemon_bytes_out", "sent_bytes_total", "", admin.Counter, 1, "Bytes sent to clients."},
	{"daemon_queued_bytes", "answers_queued_bytes", "", admin.Gauge, 1, "Answers that clients have not taken yet."},
	{"daemon_request_memory_used", "request_memory_bytes", "", admin.Gauge, 1, "Memory in use for long requests, of request_memory."},

	{"scrubs", "scrubs_total", "", admin.Counter, 1, "Scrubs that came to their end."},
	{"scrub_bytes", "scrub_bytes", "", admin.Gauge, 1, "Bytes that the scrub that runs, or the last one, has read."},
	{"scrub_total", "scrub_size_bytes", "", admin.Gauge, 1, "Bytes that it has to read."},
	{"scrub_damages", "scrub_damages", "", admin.Gauge, 1, "Damaged stretches of the log it has found."},
	{"scrub_damaged_bytes", "scrub_damaged_bytes", "", admin.Gauge, 1, "Bytes in them."},
	{"scrub_ended_ms", "scrub_ended_timestamp_seconds", "", admin.Gauge, 1e-3, "When the last scrub ended; 0: none has."},
	{"scrub_clean_ms", "scrub_clean_timestamp_seconds", "", admin.Gauge, 1e-3, "When the last one ended that found no damage; 0: none has."},

	{"engine_keys", "keys", "", admin.Gauge, 1, "Keys in the store."},
	{"engine_version", "store_version", "", admin.Gauge, 1, "Version of the last commit."},
	{"engine_durable", "store_durable_version", "", admin.Gauge, 1, "Version of the last commit on stable storage."},
	{"engine_log_begin", "log_address_bytes", `marker="begin"`, admin.Gauge, 1, logHelp},
	{"engine_log_head", "log_address_bytes", `marker="head"`, admin.Gauge, 1, logHelp},
	{"engine_log_read_only", "log_address_bytes", `marker="read_only"`, admin.Gauge, 1, logHelp},
	{"engine_log_flushed", "log_address_bytes", `marker="flushed"`, admin.Gauge, 1, logHelp},
	{"engine_log_durable", "log_address_bytes", `marker="durable"`, admin.Gauge, 1, logHelp},
	{"engine_log_tail", "log_address_bytes", `marker="tail"`, admin.Gauge, 1, logHelp},
	{"engine_log_appended", "log_appended_bytes_total", "", admin.Counter, 1, "Bytes appended to the log."},
	{"engine_forwarded_bytes", "log_forwarded_bytes_total", "", admin.Counter, 1, "Bytes of live records copied to the tail before their page left memory, so that data which fits stays there."},
	{"engine_warmed_bytes", "log_warmed_bytes_total", "", admin.Counter, 1, "Bytes of log brought back into memory after the start."},
	{"engine_memory", "memory_budget_bytes", "", admin.Gauge, 1, "Memory the store may use."},
	{"engine_memory_index", "memory_bytes", `part="index"`, admin.Gauge, 1, "How the memory of the store is divided."},
	{"engine_memory_log", "memory_bytes", `part="log"`, admin.Gauge, 1, "How the memory of the store is divided."},
	{"engine_memory_buffers", "memory_bytes", `part="buffers"`, admin.Gauge, 1, "How the memory of the store is divided."},
	{"engine_memory_timers", "memory_bytes", `part="timers"`, admin.Gauge, 1, "How the memory of the store is divided."},
	{"engine_memory_ordered", "memory_bytes", `part="ordered"`, admin.Gauge, 1, "How the memory of the store is divided."},
	{"engine_memory_cache", "memory_bytes", `part="cache"`, admin.Gauge, 1, "How the memory of the store is divided."},
	{"engine_memory_compaction", "memory_bytes", `part="compaction"`, admin.Gauge, 1, "How the memory of the store is divided."},
	{"engine_memory_peak", "memory_peak_bytes", "", admin.Gauge, 1, "The most memory the store has taken since its start."},
	{"engine_memory_index_max", "memory_index_limit_bytes", "", admin.Gauge, 1, "Memory the index may take."},
	{"engine_index_buckets", "index_buckets", "", admin.Gauge, 1, "Buckets of the index, each good for about five keys."},
	{"engine_index_overflow", "index_overflow_buckets", "", admin.Gauge, 1, "Overflow buckets of the index in use."},
	{"engine_index_overflow_max", "index_overflow_buckets_limit", "", admin.Gauge, 1, "Overflow buckets the index has room for."},
	{"engine_index_tag_bits", "index_tag_width", "", admin.Gauge, 1, "Bits of a key's hash that an entry of the index holds."},
	{"engine_index_growing", "index_growing", "", admin.Gauge, 1, "Whether the index is being doubled."},
	{"engine_index_doublings", "index_doublings_total", "", admin.Counter, 1, "Times the index was doubled."},
	{"engine_ordered_keys", "ordered_keys", "", admin.Gauge, 1, "Keys in the ordered index, some perhaps gone; 0 without one."},
	{"engine_ordered_used", "ordered_used_bytes", "", admin.Gauge, 1, "Memory of the ordered index in use."},
	{"engine_reads", "operations_total", `kind="read"`, admin.Counter, 1, "Operations of the engine; a request for many keys is many."},
	{"engine_writes", "operations_total", `kind="write"`, admin.Counter, 1, "Operations of the engine; a request for many keys is many."},
	{"engine_writes_in_place", "writes_total", `how="in_place"`, admin.Counter, 1, "Writes by how they were done."},
	{"engine_writes_appended", "writes_total", `how="appended"`, admin.Counter, 1, "Writes by how they were done."},
	{"engine_retries", "retries_total", "", admin.Counter, 1, "Operations tried again because another was faster."},
	{"engine_expired", "expired_total", "", admin.Counter, 1, "Records met that had expired."},
	{"engine_expiry_swept", "expiry_swept_total", "", admin.Counter, 1, "Keys in memory that were counted out since they had expired."},
	{"engine_expiry_timers", "expiry_timers", "", admin.Gauge, 1, "Timers of records in memory that expire."},
	{"engine_expiry_timers_dropped", "expiry_timers_dropped_total", "", admin.Counter, 1, "Timers for which there was no memory: such keys are counted until compaction meets them."},
	{"engine_expired_bytes", "expiry_log_bytes", `what="expired"`, admin.Gauge, 1, "Bytes of log whose keys have expired, or will, estimated."},
	{"engine_expiring_bytes", "expiry_log_bytes", `what="ahead"`, admin.Gauge, 1, "Bytes of log whose keys have expired, or will, estimated."},
	{"engine_clock", "clock_timestamp_seconds", "", admin.Gauge, 1e-3, "What the clock shows by which keys expire."},
	{"engine_space_waits", "space_waits_total", "", admin.Counter, 1, "Times a write waited for memory in the log."},
	{"engine_cache_hits", "read_cache_reads_total", `answered="cache"`, admin.Counter, 1, "Reads of keys beyond the log's memory, by who answered them."},
	{"engine_cache_misses", "read_cache_reads_total", `answered="disk"`, admin.Counter, 1, "Reads of keys beyond the log's memory, by who answered them."},
	{"engine_cache_on", "read_cache_on", "", admin.Gauge, 1, "Whether the read cache is on: it is where records on disk are read again and again."},
	{"engine_cache_records", "read_cache_records", "", admin.Gauge, 1, "Records in the read cache."},
	{"engine_cache_bytes", "read_cache_bytes", "", admin.Gauge, 1, "Bytes of the read cache that they take."},
	{"engine_cache_inserted", "read_cache_inserted_total", "", admin.Counter, 1, "Records taken into the read cache."},
	{"engine_cache_evicted", "read_cache_evicted_total", "", admin.Counter, 1, "Records that left the read cache for others."},
	{"engine_cold_reads", "cold_reads_total", "", admin.Counter, 1, "Records read from disk."},
	{"engine_cold_bytes", "cold_read_bytes_total", "", admin.Counter, 1, "Bytes of records read from disk."},
	{"engine_read_errors", "read_errors_total", "", admin.Counter, 1, "Reads from disk that failed."},
	{"engine_corrupt_records", "corrupt_records_total", "", admin.Counter, 1, "Records whose checksum did not hold."},
	{"engine_live_bytes", "log_live_bytes", "", admin.Gauge, 1, "Bytes of log that records which are not overwritten take, estimated."},
	{"engine_dead_bytes", "log_dead_bytes", "", admin.Gauge, 1, "Bytes of log that compaction would give back, estimated."},
	{"engine_log_freed", "log_freed_address_bytes", "", admin.Gauge, 1, "Address of the log below which the disk is free."},
	{"engine_disk_used", "disk_used_bytes", "", admin.Gauge, 1, "Disk that log and checkpoints take."},
	{"engine_disk_budget", "disk_budget_bytes", "", admin.Gauge, 1, "Disk they may take; 0: no limit."},
	{"engine_compactions", "compactions_total", "", admin.Counter, 1, "Passes of compaction that ended well."},
	{"engine_compactions_failed", "compaction_failures_total", "", admin.Counter, 1, "Passes of compaction that failed."},
	{"engine_compact_scanned_bytes", "compaction_bytes_total", `what="scanned"`, admin.Counter, 1, "Bytes of log that compaction has looked at, and copied."},
	{"engine_compact_copied_bytes", "compaction_bytes_total", `what="copied"`, admin.Counter, 1, "Bytes of log that compaction has looked at, and copied."},
	{"engine_last_pass_scanned", "compaction_last_bytes", `what="scanned"`, admin.Gauge, 1, lastPassHelp},
	{"engine_last_pass_copied", "compaction_last_bytes", `what="copied"`, admin.Gauge, 1, lastPassHelp},
	{"engine_last_pass_freed", "compaction_last_bytes", `what="freed"`, admin.Gauge, 1, lastPassHelp},
	{"engine_last_pass_records", "compaction_last_records", `what="scanned"`, admin.Gauge, 1, lastPassRecordsHelp},
	{"engine_last_pass_removed", "compaction_last_records", `what="removed"`, admin.Gauge, 1, lastPassRecordsHelp},
	{"engine_last_pass_took_ns", "compaction_last_seconds", "", admin.Gauge, 1e-9, "How long the last pass of compaction took."},
	{"engine_last_pass_ended_ms", "compaction_last_timestamp_seconds", "", admin.Gauge, 1e-3, "When it ended; 0: there has been none since the start."},
	{"engine_index_entries_removed", "index_entries_removed_total", "", admin.Counter, 1, "Index entries removed because their keys are gone."},
	{"gc_total", "gc_log_bytes", `part="all"`, admin.Gauge, 1, gcHelp},
	{"gc_live", "gc_log_bytes", `part="live"`, admin.Gauge, 1, gcHelp},
	{"gc_reclaimable", "gc_log_bytes", `part="reclaimable"`, admin.Gauge, 1, gcHelp},
	{"gc_pinned", "gc_log_bytes", `part="pinned"`, admin.Gauge, 1, gcHelp},
	{"gc_mutable", "gc_region_bytes", `region="mutable"`, admin.Gauge, 1, regionHelp},
	{"gc_read_only", "gc_region_bytes", `region="read_only"`, admin.Gauge, 1, regionHelp},
	{"gc_on_disk", "gc_region_bytes", `region="on_disk"`, admin.Gauge, 1, regionHelp},
	{"gc_mutable_entries", "gc_region_entries", `region="mutable"`, admin.Gauge, 1, entriesHelp},
	{"gc_read_only_entries", "gc_region_entries", `region="read_only"`, admin.Gauge, 1, entriesHelp},
	{"gc_on_disk_entries", "gc_region_entries", `region="on_disk"`, admin.Gauge, 1, entriesHelp},
	{"gc_live_ratio", "gc_live_ratio", "", admin.Gauge, 1, "Share of the log that is live, estimated."},
	{"gc_would_pay", "gc_would_pay", "", admin.Gauge, 1, "Whether a pass of compaction would begin by itself now."},
	{"engine_write_amplification", "write_amplification_ratio", "", admin.Gauge, 1, "Bytes of log written for one that clients appended."},
	{"engine_sessions", "sessions", "", admin.Gauge, 1, "Sessions that can be resumed."},
	{"engine_commits", "commits_total", "", admin.Counter, 1, "Commits."},
	{"engine_checkpoint_bytes", "checkpoint_bytes", "", admin.Gauge, 1, "Disk that checkpoints take, besides the log."},
	{"engine_checkpoint_in_progress", "checkpoint_in_progress", "", admin.Gauge, 1, "Whether a checkpoint is being taken."},
	{"engine_checkpoints", "checkpoints_total", "", admin.Counter, 1, "Checkpoints taken."},
	{"engine_checkpoints_failed", "checkpoint_failures_total", "", admin.Counter, 1, "Checkpoints that failed."},
	{"engine_replay_bytes", "replay_bytes", "", admin.Gauge, 1, "Bytes of log a start after a crash would have to read now."},
	{"engine_write_hold_p50_ns", "write_hold_seconds", `percentile="50"`, admin.Gauge, 1e-9, "How long commits held writes."},
	{"engine_write_hold_p9999_ns", "write_hold_seconds", `percentile="99.99"`, admin.Gauge, 1e-9, "How long commits held writes."},
	{"engine_write_hold_max_ns", "write_hold_seconds", `percentile="100"`, admin.Gauge, 1e-9, "How long commits held writes."},
	{"engine_device_reads", "device_operations_total", `kind="read"`, admin.Counter, 1, "Operations of the storage device."},
	{"engine_device_writes", "device_operations_total", `kind="write"`, admin.Counter, 1, "Operations of the storage device."},
	{"engine_device_syncs", "device_operations_total", `kind="sync"`, admin.Counter, 1, "Operations of the storage device."},
	{"engine_device_read_bytes", "device_bytes_total", `kind="read"`, admin.Counter, 1, "Bytes moved by the storage device."},
	{"engine_device_written_bytes", "device_bytes_total", `kind="write"`, admin.Counter, 1, "Bytes moved by the storage device."},
	{"engine_device_errors", "device_errors_total", "", admin.Counter, 1, "Operations of the storage device that failed."},
}

const (
	lastPassHelp        = "What the last pass of compaction looked at, copied and gave back."
	lastPassRecordsHelp = "Records the last pass of compaction looked at, and those of them that were dead."
	gcHelp              = "Bytes of log, estimated: live, what compaction would give back, and what only checkpoints keep."
	regionHelp          = "Bytes of log in each of its regions."
	entriesHelp         = "Entries in each region of the log, estimated from the mean size of a record."
)

const logHelp = "Where the markers of the log stand; begin <= head <= flushed <= read_only <= tail."

// unexposed are the numbers in stats that other families say, or that follow
// from them.
var unexposed = []string{
	"daemon_requests", "daemon_requests_*", // requests_total, request_errors_total
	"daemon_goroutines",                         // go_goroutines
	"latency_*",                                 // request_duration_seconds
	"io_direct",                                 // build_info
	"daemon_reads_found", "daemon_reads_absent", // key_operations_total
}

// The families that no row of the table says.
const (
	familyRequests = metricPrefix + "requests_total"
	familyErrors   = metricPrefix + "request_errors_total"
	familyDuration = metricPrefix + "request_duration_seconds"
	familyBuild    = metricPrefix + "build_info"
	familyUp       = metricPrefix + "ready"
	familyWritable = metricPrefix + "writable"
)

// families gathers everything /metrics shows.
func (s *server) families() []admin.Family {
	all := []admin.Family{s.buildFamily(), truth(familyUp, "Whether clients are served.", s.health.ready() == nil)}
	s.health.look(func() {
		stats := s.stats()
		all = append(all, tableFamilies(stats)...)
		st := s.store.Stats()
		all = append(all, deviceFamily(&st))
		all = append(all, taskFamilies(s.store.Tasks())...)
		all = append(all, s.requestFamily(), s.outcomeFamily(), s.errorFamily(), s.durationFamily(),
			truth(familyWritable, "Whether the store takes writes.", stats["engine_state"] == "ok"))
	})
	return append(all, processFamilies(s.started)...)
}

// tableFamilies says what the table says.
func tableFamilies(stats map[string]any) []admin.Family {
	var all []admin.Family
	for _, m := range metrics {
		v, ok := asFloat(stats[m.stat])
		if !ok {
			continue // a daemon without it, for want of the kernel's support
		}
		if n := len(all); n == 0 || all[n-1].Name != metricPrefix+m.name {
			all = append(all, admin.Family{Name: metricPrefix + m.name, Kind: m.kind, Help: m.help})
		}
		f := &all[len(all)-1]
		f.Samples = append(f.Samples, admin.Sample{Labels: m.labels(), Value: v * m.scale})
	}
	return all
}

func (m *metric) labels() []admin.Label {
	name, value, ok := strings.Cut(m.label, "=")
	if !ok {
		return nil
	}
	return []admin.Label{{Name: name, Value: strings.Trim(value, `"`)}}
}

// asFloat turns a number or a truth of stats into a sample's value.
func asFloat(v any) (float64, bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	case uint64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

func truth(name, help string, v bool) admin.Family {
	f, _ := asFloat(v)
	return admin.Family{Name: name, Kind: admin.Gauge, Help: help, Samples: []admin.Sample{{Value: f}}}
}

// buildFamily says what runs here. Its value is 1; the labels are what counts.
func (s *server) buildFamily() admin.Family {
	backend := "" // until the store is open
	s.health.look(func() { backend = s.store.Info().Backend })
	labels := []admin.Label{{Name: "version", Value: Version()}, {Name: "go_version", Value: runtime.Version()}, {Name: "io_backend", Value: backend}}
	return admin.Family{Name: familyBuild, Kind: admin.Gauge, Help: "What runs here.", Samples: []admin.Sample{{Labels: labels, Value: 1}}}
}

// requestFamily counts requests by method; "unknown" is a method there is not.
func (s *server) requestFamily() admin.Family {
	f := admin.Family{Name: familyRequests, Kind: admin.Counter, Help: "Requests by method."}
	for _, m := range append([]ipc.Method{ipc.MethodUnknown}, ipc.Methods()...) {
		f.Samples = append(f.Samples, admin.Sample{
			Labels: []admin.Label{{Name: "method", Value: m.String()}}, Value: float64(s.traffic.requests(m)),
		})
	}
	return f
}

// errorFamily counts requests that were answered with an error.
func (s *server) errorFamily() admin.Family {
	f := admin.Family{Name: familyErrors, Kind: admin.Counter, Help: "Requests answered with an error, by its code and what that means: user, recoverable, corruption or fault."}
	for i, code := range ipc.Codes {
		f.Samples = append(f.Samples, admin.Sample{
			Labels: []admin.Label{{Name: "code", Value: string(code)}, {Name: "category", Value: code.Category()}}, Value: float64(s.count.codes[i].Load()),
		})
	}
	return f
}

// durationFamily is the latency histograms, one bucket for each power of two.
func (s *server) durationFamily() admin.Family {
	f := admin.Family{
		Name: familyDuration, Kind: admin.Histogram,
		Help: "Time from reading a request to handing its answer to the socket, by what it waited for.",
	}
	for kind := range timedKinds {
		steps, sum := s.traffic.times(kind)
		of := &admin.Distribution{Sum: float64(sum) * 1e-9}
		for i := 0; i < latencySteps-1; i += 4 {
			of.Bounds = append(of.Bounds, float64(stepEnd(i))*1e-9)
			n := uint64(0)
			for _, v := range steps[max(0, i-3) : i+1] {
				n += v
			}
			of.Counts = append(of.Counts, n)
		}
		of.Counts = append(of.Counts, steps[latencySteps-1])
		f.Samples = append(f.Samples, admin.Sample{
			Labels: []admin.Label{{Name: "kind", Value: timedLabels[kind][0]}, {Name: "wait", Value: timedLabels[kind][1]}}, Of: of,
		})
	}
	return f
}

// processFamilies are about the process, under the names every exporter uses.
func processFamilies(started time.Time) []admin.Family {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	all := []admin.Family{
		gauge("go_goroutines", "Goroutines.", float64(runtime.NumGoroutine())),
		gauge("go_memstats_heap_alloc_bytes", "Bytes of the Go heap in use; the store's memory is not on it.", float64(memory.HeapAlloc)),
		gauge("process_start_time_seconds", "When the daemon was started, in seconds since 1970.", float64(started.UnixMilli())/1e3),
	}
	usage, ok := processUsage()
	if !ok {
		return all
	}
	return append(all,
		gauge("process_resident_memory_bytes", "Resident memory.", float64(usage.resident)),
		gauge("process_open_fds", "Open file descriptors.", float64(usage.descriptors)),
		admin.Family{
			Name: "process_cpu_seconds_total", Kind: admin.Counter, Help: "Processor time used.",
			Samples: []admin.Sample{{Value: usage.cpu.Seconds()}},
		})
}

func gauge(name, help string, v float64) admin.Family {
	return admin.Family{Name: name, Kind: admin.Gauge, Help: help, Samples: []admin.Sample{{Value: v}}}
}

// MetricDoc is what there is to know about one metric.
type MetricDoc struct {
	Name, Kind, Help string
	Labels           string // their names, separated by commas
}

// MetricDocs describes every metric that /metrics can show, in its order.
func MetricDocs() []MetricDoc {
	s := newServer(Defaults(), nil)
	var all []MetricDoc
	add := func(families ...admin.Family) {
		for _, f := range families {
			var labels []string
			for _, l := range f.Samples[0].Labels {
				labels = append(labels, l.Name)
			}
			all = append(all, MetricDoc{f.Name, string(f.Kind), f.Help, strings.Join(labels, ", ")})
		}
	}
	stats := map[string]any{}
	for _, m := range metrics {
		stats[m.stat] = 0
	}
	add(s.buildFamily(), truth(familyUp, "Whether clients are served.", true))
	add(tableFamilies(stats)...)
	add(deviceFamily(&engine.Stats{}))
	add(taskFamilies([]engine.TaskInfo{{}})...)
	add(s.requestFamily(), s.outcomeFamily(), s.errorFamily(), s.durationFamily(), truth(familyWritable, "Whether the store takes writes.", true))
	add(processFamilies(s.started)...)
	return all
}

// exposed reports whether a name of stats has a row, or is said elsewhere.
func exposed(stat string) bool {
	if slices.ContainsFunc(metrics, func(m metric) bool { return m.stat == stat }) {
		return true
	}
	return slices.ContainsFunc(unexposed, func(pattern string) bool {
		prefix, below := strings.CutSuffix(pattern, "*")
		return stat == pattern || below && strings.HasPrefix(stat, prefix)
	})
}
