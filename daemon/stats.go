package daemon

import (
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"rskv/ipc"
)

// counters are what the daemon counts since it started, beside its traffic. All
// atomic: written by the connections, none of them for each request, read by stats.
type counters struct {
	accepted   atomic.Uint64 // connections served
	turnedAway atomic.Uint64 // connections refused for their number, or for want of a role
	denied     atomic.Uint64 // connections and requests that a role or max_connections_user forbids
	limited    atomic.Uint64 // requests refused for max_rate_user
	broken     atomic.Uint64 // streams that could not be resynchronised
	timeouts   atomic.Uint64 // connections closed by request_timeout or answer_timeout
	refused    atomic.Uint64 // requests answered with an error
	codes      [codeCount]atomic.Uint64
	heldUp     atomic.Uint64 // times a connection was not read on for its bounds
	commits    atomic.Uint64 // commits asked for by connections
	backups    atomic.Int64  // open now
	watches    atomic.Int64  // running now
	lagged     atomic.Uint64 // watches that ended because they did not keep up
	changes    atomic.Uint64 // told to watches
}

// codeCount is how many codes of errors the protocol has room for here.
const codeCount = 32

// refuse counts a request that is answered with an error.
func (n *counters) refuse(code ipc.Code) {
	n.refused.Add(1)
	if i := slices.Index(ipc.Codes, code); i >= 0 {
		n.codes[i].Add(1)
	}
}

// appendStats appends the map that stats answers with: names and numbers or
// strings, no nesting. daemon_ is the daemon's own, engine_ the store's.
func (s *server) appendStats(dst []byte) []byte {
	all := s.stats()
	dst = ipc.AppendMapHeader(dst, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		dst = appendScalar(ipc.AppendStr(dst, name), all[name])
	}
	return dst
}

func appendScalar(dst []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		return ipc.AppendStr(dst, v)
	case bool:
		return ipc.AppendBool(dst, v)
	case int:
		return ipc.AppendInt(dst, int64(v))
	case int64:
		return ipc.AppendInt(dst, v)
	case uint64:
		return ipc.AppendUint(dst, v)
	case float64:
		return ipc.AppendFloat(dst, v)
	}
	return ipc.AppendNil(dst)
}

func (s *server) stats() map[string]any {
	s.mu.Lock()
	connections := len(s.mu.conns)
	s.mu.Unlock()
	cfg, n := s.settings(), &s.count
	all := map[string]any{
		"version":                     Version(),
		"daemon_uptime_seconds":       time.Since(s.started).Seconds(),
		"daemon_connections":          connections,
		"daemon_connections_accepted": n.accepted.Load(),
		"daemon_connections_refused":  n.turnedAway.Load(),
		"daemon_connections_broken":   n.broken.Load(),
		"daemon_denied":               n.denied.Load(),
		"daemon_requests_limited":     n.limited.Load(),
		"daemon_connections_late":     n.timeouts.Load(),
		"daemon_connections_held_up":  n.heldUp.Load(),
		"daemon_sessions":             s.sessions.count(),
		"daemon_requests_refused":     n.refused.Load(),
		"daemon_commits_asked":        n.commits.Load(),
		"daemon_backups":              n.backups.Load(),
		"daemon_watches":              n.watches.Load(),
		"daemon_watches_lagged":       n.lagged.Load(),
		"daemon_changes_told":         n.changes.Load(),
		"daemon_bytes_in":             s.traffic.bytesIn(),
		"daemon_bytes_out":            s.traffic.bytesOut(),
		"daemon_queued_bytes":         s.queued.Load(),
		"daemon_request_memory_used":  cfg.RequestMemory - s.requests.left(),
		"daemon_goroutines":           runtime.NumGoroutine(),
	}
	total := uint64(0)
	for _, m := range append([]ipc.Method{ipc.MethodUnknown}, ipc.Methods()...) {
		v := s.traffic.requests(m)
		all["daemon_requests_"+m.String()] = v
		total += v
	}
	all["daemon_requests"] = total
	info := s.store.Info()
	all["io_backend"], all["io_why"], all["io_direct"] = info.Backend, info.Why, info.Direct
	s.latencyStats(all)
	s.outcomeStats(all)
	s.scrubs.stats(all)
	is, _, _ := s.writable.look()
	all["health"] = string(is)
	all["daemon_slow_requests"] = s.slowlog.total()
	s.storeStats(all)
	return all
}

// latencyStats adds how long requests took, by what they asked and waited for.
func (s *server) latencyStats(all map[string]any) {
	for kind := range timedKinds {
		counts, _ := s.traffic.times(kind)
		total := uint64(0)
		for _, n := range counts {
			total += n
		}
		prefix := "latency_" + timedLabels[kind][0] + "_" + timedLabels[kind][1]
		all[prefix+"_count"] = total
		for name, q := range map[string]float64{"_p50_ns": 0.5, "_p99_ns": 0.99, "_p999_ns": 0.999} {
			all[prefix+name] = quantile(&counts, q)
		}
	}
}

// storeStats adds every counter of the engine under its own name, and what
// compaction could bring behind gc_.
func (s *server) storeStats(all map[string]any) {
	all["engine_keys"] = s.store.Len()
	flatten(all, "engine", reflect.ValueOf(s.store.Stats()))
	flatten(all, "gc", reflect.ValueOf(s.store.EstimateGC()))
}

// flatten adds the fields of a struct to all, each under the name of its json
// tag behind prefix, those of structs inside it too. Other types than numbers,
// bools and strings have no place in a flat map and are left out.
func flatten(all map[string]any, prefix string, v reflect.Value) {
	for field, value := range v.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if !field.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = strings.ToLower(field.Name)
		}
		name = prefix + "_" + name
		switch {
		case value.Kind() == reflect.Struct:
			flatten(all, name, value)
		case value.CanInt():
			all[name] = value.Int()
		case value.CanUint():
			all[name] = value.Uint()
		case value.CanFloat():
			all[name] = value.Float()
		case value.Kind() == reflect.Bool:
			all[name] = value.Bool()
		case value.Kind() == reflect.String:
			all[name] = value.String()
		}
	}
}
