package daemon

import (
	"rskv/daemon/admin"
	"rskv/engine"
	"rskv/ipc"
)

// outcome is how an operation on one key ended.
type outcome uint8

const (
	outcomeYes   outcome = iota // found, stored, swapped, removed; or done without a look
	outcomeNo                   // absent, or the condition did not hold
	outcomeError                // refused, or failed
	outcomes
)

var outcomeNames = [outcomes]string{"yes", "no", "error"}

// outcomeOf tells how an operation ended that was done for a method.
func outcomeOf(k *call, op *engine.Op) outcome {
	switch {
	case op.Err != nil:
		return outcomeError
	case op.Found, k.blind, op.Kind == engine.OpAdd, op.Kind == engine.OpAppend:
		return outcomeYes
	}
	return outcomeNo
}

const familyOutcomes = metricPrefix + "key_operations_total"

// outcomeFamily counts operations on single keys, those of mget, mput and mdel
// each by itself.
func (s *server) outcomeFamily() admin.Family {
	f := admin.Family{
		Name: familyOutcomes, Kind: admin.Counter,
		Help: "Operations on single keys: yes for found or done, no for absent or a condition that did not hold.",
	}
	for _, m := range ipc.Methods() {
		for o := range outcomes {
			n := s.traffic.ended(m, o)
			if n == 0 && m != ipc.MethodGet && m != ipc.MethodPut {
				continue // most methods never have any
			}
			f.Samples = append(f.Samples, admin.Sample{
				Labels: []admin.Label{{Name: "method", Value: m.String()}, {Name: "outcome", Value: outcomeNames[o]}},
				Value:  float64(n),
			})
		}
	}
	return f
}

// outcomeStats adds how many reads have found their keys.
func (s *server) outcomeStats(all map[string]any) {
	var found, absent uint64
	for _, m := range []ipc.Method{ipc.MethodGet, ipc.MethodExists, ipc.MethodMGet} {
		found += s.traffic.ended(m, outcomeYes)
		absent += s.traffic.ended(m, outcomeNo)
	}
	all["daemon_reads_found"], all["daemon_reads_absent"] = found, absent
}
