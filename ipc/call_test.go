package ipc_test

import (
	"bytes"
	"strings"
	"testing"

	"rskv/ipc"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
)

type (
	list = []any
	dict = map[string]any
)

// call encodes a request with msgpack/v5 and parses it.
func call(t testing.TB, lim ipc.Limits, method string, params ...any) (ipc.Call, *ipc.Error) {
	if params == nil {
		params = list{}
	}
	b, err := msgpack.Marshal(list{0, 1, method, params})
	require.NoError(t, err)
	var q ipc.Request
	require.Nil(t, ipc.ParseRequest(b, &q))
	require.True(t, q.Answered())
	var c ipc.Call
	return c, ipc.ParseCall(&q, &lim, &c)
}

// What could go wrong: a parameter or an option lands in another field than its own, or a missing
// one is not its default.
func TestParseCall_EveryMethod(t *testing.T) {
	k, v := []byte("k"), []byte("v")
	session := [16]byte{1, 2, 3}
	for _, x := range []struct {
		method string
		params list
		want   ipc.Call
	}{
		{"ping", nil, ipc.Call{Method: ipc.MethodPing}},
		{"get", list{k}, ipc.Call{Method: ipc.MethodGet, Key: k}},
		{"get", list{"k"}, ipc.Call{Method: ipc.MethodGet, Key: k}},
		{"exists", list{k}, ipc.Call{Method: ipc.MethodExists, Key: k}},
		{"put", list{k, v}, ipc.Call{Method: ipc.MethodPut, Key: k, Value: v}},
		{"put", list{k, "v", dict{}}, ipc.Call{Method: ipc.MethodPut, Key: k, Value: v}},
		{"put", list{k, v, dict{"if": "absent"}}, ipc.Call{Method: ipc.MethodPut, Key: k, Value: v, If: ipc.IfAbsent}},
		{"put", list{k, v, dict{"if": "present", "sync": true}}, ipc.Call{Method: ipc.MethodPut, Key: k, Value: v, If: ipc.IfPresent, Sync: true}},
		{"del", list{k}, ipc.Call{Method: ipc.MethodDel, Key: k}},
		{"del", list{k, dict{"blind": true, "sync": false}}, ipc.Call{Method: ipc.MethodDel, Key: k, Blind: true}},
		{"cas", list{k, v, "w"}, ipc.Call{Method: ipc.MethodCas, Key: k, Old: v, Value: []byte("w")}},
		{"cas", list{k, nil, v, dict{"sync": true}}, ipc.Call{Method: ipc.MethodCas, Key: k, OldAbsent: true, Value: v, Sync: true}},
		{"cas", list{k, v, nil}, ipc.Call{Method: ipc.MethodCas, Key: k, Old: v, NewAbsent: true}},
		{"add", list{k, -7}, ipc.Call{Method: ipc.MethodAdd, Key: k, Delta: -7}},
		{"add", list{k, uint64(7), dict{"sync": true}}, ipc.Call{Method: ipc.MethodAdd, Key: k, Delta: 7, Sync: true}},
		{"append", list{k, v, dict{"sync": true}}, ipc.Call{Method: ipc.MethodAppend, Key: k, Value: v, Sync: true}},
		{"mget", list{list{k, v}}, ipc.Call{Method: ipc.MethodMGet, Keys: [][]byte{k, v}}},
		{"mget", list{list{}}, ipc.Call{Method: ipc.MethodMGet}},
		{"mput", list{list{list{k, v}, list{v, k}}, dict{"sync": true}}, ipc.Call{Method: ipc.MethodMPut, Keys: [][]byte{k, v}, Values: [][]byte{v, k}, Sync: true}},
		{"mdel", list{list{k, v}, dict{"blind": true}}, ipc.Call{Method: ipc.MethodMDel, Keys: [][]byte{k, v}, Blind: true}},
		{"len", nil, ipc.Call{Method: ipc.MethodLen}},
		{"scan", nil, ipc.Call{Method: ipc.MethodScan}},
		{"scan", list{dict{"cursor": nil, "count": 7}}, ipc.Call{Method: ipc.MethodScan, Scan: ipc.ScanCall{Count: 7}}},
		{"scan", list{dict{"from": nil, "to": k, "reverse": true}}, ipc.Call{Method: ipc.MethodScan, Scan: ipc.ScanCall{To: k, Reverse: true}}},
		{"scan", list{dict{"from": []byte{}, "to": nil}}, ipc.Call{Method: ipc.MethodScan, Scan: ipc.ScanCall{From: []byte{}}}},
		{"scan", list{dict{"cursor": []byte{}, "keys": true, "prefix": k}}, ipc.Call{Method: ipc.MethodScan, Scan: ipc.ScanCall{Prefix: k, Cursor: []byte{}, HasCursor: true, KeysOnly: true}}},
		{"watch", nil, ipc.Call{Method: ipc.MethodWatch}},
		{"watch", list{dict{"from": nil, "prefix": k}}, ipc.Call{Method: ipc.MethodWatch, Watch: ipc.WatchCall{Prefix: k}}},
		{"watch", list{dict{"from": 1 << 40}}, ipc.Call{Method: ipc.MethodWatch, Watch: ipc.WatchCall{From: 1 << 40, HasFrom: true}}},
		{"len", list{dict{"exact": true}}, ipc.Call{Method: ipc.MethodLen, Exact: true}},
		{"sync", nil, ipc.Call{Method: ipc.MethodSync}},
		{"stats", nil, ipc.Call{Method: ipc.MethodStats}},
		{"config", nil, ipc.Call{Method: ipc.MethodConfig}},
		{"config", list{dict{"set": dict{"a": -5}}}, ipc.Call{Method: ipc.MethodConfig, Settings: []ipc.Setting{{"a", "-5"}}}},
		{"config", list{dict{"set": dict{"a": true}}}, ipc.Call{Method: ipc.MethodConfig, Settings: []ipc.Setting{{"a", "true"}}}},
		{"config", list{dict{"set": dict{"a": 0.5}}}, ipc.Call{Method: ipc.MethodConfig, Settings: []ipc.Setting{{"a", "0.5"}}}},
		{"config", list{dict{"set": dict{"a": "64MiB"}}}, ipc.Call{Method: ipc.MethodConfig, Settings: []ipc.Setting{{"a", "64MiB"}}}},
		{"hello", nil, ipc.Call{Method: ipc.MethodHello}},
		{"hello", list{dict{"client": "c", "protocol": 1, "session": session[:], "seen": 9}}, ipc.Call{Method: ipc.MethodHello,
			Hello: ipc.HelloCall{Client: "c", Session: session, HasSession: true, Seen: 9, HasSeen: true}}},
		{"checkpoint", nil, ipc.Call{Method: ipc.MethodCheckpoint}},
		{"checkpoints", nil, ipc.Call{Method: ipc.MethodCheckpoints}},
		{"backup", list{"open"}, ipc.Call{Method: ipc.MethodBackup, Action: ipc.ActionOpen}},
		{"backup", list{"read", 1 << 40}, ipc.Call{Method: ipc.MethodBackup, Action: ipc.ActionRead, Offset: 1 << 40}},
		{"backup", list{"close"}, ipc.Call{Method: ipc.MethodBackup, Action: ipc.ActionClose}},
		{"slowlog", list{"get"}, ipc.Call{Method: ipc.MethodSlowlog, Action: ipc.ActionGet}},
		{"slowlog", list{"get", dict{"count": 5}}, ipc.Call{Method: ipc.MethodSlowlog, Action: ipc.ActionGet, Number: 5}},
		{"slowlog", list{"reset"}, ipc.Call{Method: ipc.MethodSlowlog, Action: ipc.ActionReset}},
		{"monitor", list{"start"}, ipc.Call{Method: ipc.MethodMonitor, Action: ipc.ActionStart}},
		{"monitor", list{"start", dict{"every": 100}}, ipc.Call{Method: ipc.MethodMonitor, Action: ipc.ActionStart, Number: 100}},
		{"monitor", list{"take"}, ipc.Call{Method: ipc.MethodMonitor, Action: ipc.ActionTake}},
		{"monitor", list{"stop"}, ipc.Call{Method: ipc.MethodMonitor, Action: ipc.ActionStop}},
		{"health", nil, ipc.Call{Method: ipc.MethodHealth}},
		{"compact", nil, ipc.Call{Method: ipc.MethodCompact}},
		{"compact", list{dict{"until": 1 << 40}}, ipc.Call{Method: ipc.MethodCompact, Offset: 1 << 40}},
		{"tasks", list{"get"}, ipc.Call{Method: ipc.MethodTasks, Action: ipc.ActionGet}},
		{"tasks", list{"stop", k}, ipc.Call{Method: ipc.MethodTasks, Action: ipc.ActionStop, Name: k}},
		{"tasks", list{"start", k}, ipc.Call{Method: ipc.MethodTasks, Action: ipc.ActionStart, Name: k}},
		{"tasks", list{"run", "k"}, ipc.Call{Method: ipc.MethodTasks, Action: ipc.ActionRun, Name: k}},
		{"scrub", list{"start"}, ipc.Call{Method: ipc.MethodScrub, Action: ipc.ActionStart}},
		{"scrub", list{"start", dict{"rate": 0}}, ipc.Call{Method: ipc.MethodScrub, Action: ipc.ActionStart, HasRate: true}},
		{"scrub", list{"start", dict{"rate": 1 << 40}}, ipc.Call{Method: ipc.MethodScrub, Action: ipc.ActionStart, Rate: 1 << 40, HasRate: true}},
		{"put", list{k, v, dict{"ttl": 5}}, ipc.Call{Method: ipc.MethodPut, Key: k, Value: v, TTL: 5}},
		{"cas", list{k, nil, v, dict{"ttl": ipc.MaxTTL}}, ipc.Call{Method: ipc.MethodCas, Key: k, OldAbsent: true, Value: v, TTL: ipc.MaxTTL}},
		{"add", list{k, 1, dict{"sync": true, "ttl": 1}}, ipc.Call{Method: ipc.MethodAdd, Key: k, Delta: 1, TTL: 1, Sync: true}},
		{"mput", list{list{list{k, v}}, dict{"ttl": 7}}, ipc.Call{Method: ipc.MethodMPut, Keys: [][]byte{k}, Values: [][]byte{v}, TTL: 7}},
		{"expire", list{k, 5}, ipc.Call{Method: ipc.MethodExpire, Key: k, TTL: 5}},
		{"expire", list{k, nil, dict{"sync": true}}, ipc.Call{Method: ipc.MethodExpire, Key: k, Sync: true}},
		{"ttl", list{k}, ipc.Call{Method: ipc.MethodTTL, Key: k}},
		{"scrub", list{"status"}, ipc.Call{Method: ipc.MethodScrub, Action: ipc.ActionStatus}},
		{"scrub", list{"stop", dict{}}, ipc.Call{Method: ipc.MethodScrub, Action: ipc.ActionStop}},
		{"checkpoint", list{dict{"kind": "index", "cookie": v}}, ipc.Call{Method: ipc.MethodCheckpoint,
			Checkpoint: ipc.CheckpointCall{Kind: ipc.CheckpointIndex, Cookie: v}}},
	} {
		got, err := call(t, ipc.DefaultLimits(), x.method, x.params...)
		require.Nil(t, err, "%s %v", x.method, x.params)
		require.Equal(t, x.want, got, "%s %v", x.method, x.params)
	}
}

// What could go wrong: bad parameters are taken, or refused without saying what is wrong with which.
func TestParseCall_Refuses(t *testing.T) {
	k, v := []byte("k"), []byte("v")
	lim := ipc.DefaultLimits()
	lim.Key, lim.Value, lim.Keys = 10, 20, 3
	long := bytes.Repeat([]byte("x"), 21)
	for _, x := range []struct {
		method string
		params list
		want   string
	}{
		{"watch", list{dict{"from": -1}}, `BadRequest: watch: option "from" is out of range, must be an integer from 0 to 2^63-1`},
		{"watch", list{dict{"from": k}}, `BadRequest: watch: option "from" is bin, must be an integer from 0 to 2^63-1`},
		{"watch", list{dict{"prefix": long[:11]}}, `KeyTooLarge: watch: key has 11 bytes, the limit is 10`},
		{"watch", list{dict{"count": 4}}, `BadRequest: watch: unknown option "count"`},
		{"watch", list{0}, `BadRequest: watch: options is int, must be a map`},
		{"scan", list{dict{"count": 4}}, `BadRequest: scan: option "count" is out of range, must be an integer from 1 to 3`},
		{"scan", list{dict{"count": 0}}, `BadRequest: scan: option "count" is out of range, must be an integer from 1 to 3`},
		{"scan", list{dict{"count": "x"}}, `BadRequest: scan: option "count" is str, must be an integer from 1 to 3`},
		{"scan", list{dict{"prefix": long[:11]}}, `KeyTooLarge: scan: key has 11 bytes, the limit is 10`},
		{"scan", list{dict{"from": long[:11]}}, `KeyTooLarge: scan: key has 11 bytes, the limit is 10`},
		{"scan", list{dict{"to": 1}}, `BadRequest: scan: option "to" is int, must be bin, str or nil`},
		{"scan", list{dict{"from": true}}, `BadRequest: scan: option "from" is bool, must be bin, str or nil`},
		{"scan", list{dict{"reverse": 1}}, `BadRequest: scan: option "reverse" is int, must be bool`},
		{"watch", list{dict{"to": k}}, `BadRequest: watch: unknown option "to"`},
		{"scan", list{dict{"prefix": 1}}, `BadRequest: scan: option "prefix" is int, must be bin or str`},
		{"scan", list{dict{"cursor": 1}}, `BadRequest: scan: option "cursor" is int, must be bin or nil`},
		{"scan", list{dict{"keys": 1}}, `BadRequest: scan: option "keys" is int, must be bool`},
		{"scan", list{dict{"every": 1}}, `BadRequest: scan: unknown option "every"`},
		{"no\xffpe", nil, `UnknownMethod: no method "no\xffpe"`},
		{"GET", list{k}, `UnknownMethod: no method "GET"`},
		{strings.Repeat("m", 100_000), nil, `UnknownMethod: no method "` + strings.Repeat("m", 64) + `"`},
		{"get", nil, `BadRequest: get: 0 parameters, must be 1`},
		{"get", list{k, dict{}}, `BadRequest: get: 2 parameters, must be 1`},
		{"ping", list{nil}, `BadRequest: ping: 1 parameters, must be 0`},
		{"put", list{k}, `BadRequest: put: 1 parameters, must be 2 to 3`},
		{"put", list{k, v, dict{}, nil}, `BadRequest: put: 4 parameters, must be 2 to 3`},
		{"cas", list{k, v}, `BadRequest: cas: 2 parameters, must be 3 to 4`},
		{"get", list{nil}, `BadRequest: get: key is nil, must be bin or str`},
		{"get", list{7}, `BadRequest: get: key is int, must be bin or str`},
		{"get", list{list{k}}, `BadRequest: get: key is array, must be bin or str`},
		{"get", list{""}, `BadRequest: get: key is empty`},
		{"get", list{long[:11]}, `KeyTooLarge: get: key has 11 bytes, the limit is 10`},
		{"put", list{k, nil}, `BadRequest: put: value is nil, must be bin or str`},
		{"put", list{k, 1.5}, `BadRequest: put: value is float, must be bin or str`},
		{"put", list{k, long}, `ValueTooLarge: put: value has 21 bytes, the limit is 20`},
		{"append", list{k, long}, `ValueTooLarge: append: bytes has 21 bytes, the limit is 20`},
		{"cas", list{k, long, v}, `ValueTooLarge: cas: old has 21 bytes, the limit is 20`},
		{"cas", list{k, v, long}, `ValueTooLarge: cas: new has 21 bytes, the limit is 20`},
		{"cas", list{k, true, v}, `BadRequest: cas: old is bool, must be bin or str`},
		{"put", list{k, v, nil}, `BadRequest: put: options is nil, must be a map`},
		{"put", list{k, v, list{}}, `BadRequest: put: options is array, must be a map`},
		{"put", list{k, v, dict{"tll": 1}}, `BadRequest: put: unknown option "tll"`},
		{"put", list{k, v, dict{"blind": true}}, `BadRequest: put: unknown option "blind"`},
		{"put", list{k, v, dict{"ttl": 0}}, `BadRequest: put: option "ttl" is out of range, must be a number of ms from 1 to 281474976710655`},
		{"mput", list{list{}, dict{"ttl": uint64(1) << 48}}, `BadRequest: mput: option "ttl" is out of range, must be a number of ms from 1 to 281474976710655`},
		{"add", list{k, 1, dict{"ttl": nil}}, `BadRequest: add: option "ttl" is nil, must be a number of ms from 1 to 281474976710655`},
		{"append", list{k, v, dict{"ttl": 5}}, `BadRequest: append: unknown option "ttl"`},
		{"cas", list{k, v, nil, dict{"ttl": 5}}, `BadRequest: cas: option "ttl" goes with a new value`},
		{"expire", list{k, 0}, `BadRequest: expire: ttl is out of range, must be a number of ms from 1 to 281474976710655`},
		{"expire", list{k, "1"}, `BadRequest: expire: ttl is str, must be a number of ms from 1 to 281474976710655`},
		{"expire", list{k}, `BadRequest: expire: 1 parameters, must be 2 to 3`},
		{"expire", list{k, 1, dict{"ttl": 1}}, `BadRequest: expire: unknown option "ttl"`},
		{"ttl", list{k, dict{}}, `BadRequest: ttl: 2 parameters, must be 1`},
		{"del", list{k, dict{"ttl": 5}}, `BadRequest: del: unknown option "ttl"`},
		{"put", list{k, v, dict{"sync": 1}}, `BadRequest: put: option "sync" is int, must be bool`},
		{"put", list{k, v, dict{"if": "maybe"}}, `BadRequest: put: option "if" must be "absent" or "present"`},
		{"put", list{k, v, dict{"if": true}}, `BadRequest: put: option "if" is bool, must be str`},
		{"put", list{k, v, map[int]int{1: 1}}, `BadRequest: put: the name of an option is int, must be str`},
		{"add", list{k, "1"}, `BadRequest: add: delta is str, must be a 64-bit integer`},
		{"add", list{k, uint64(1 << 63)}, `BadRequest: add: delta is out of range, must be a 64-bit integer`},
		{"add", list{k, 1.0}, `BadRequest: add: delta is float, must be a 64-bit integer`},
		{"mget", list{k}, `BadRequest: mget: the list is bin, must be an array`},
		{"mget", list{list{k, k, k, k}}, `BadRequest: mget: 4 keys, the limit is 3`},
		{"mget", list{list{k, 1}}, `BadRequest: mget: key is int, must be bin or str`},
		{"mdel", list{list{k, ""}}, `BadRequest: mdel: key is empty`},
		{"mput", list{list{k}}, `BadRequest: mput: each pair must be [key, value]`},
		{"mput", list{list{list{k}}}, `BadRequest: mput: each pair must be [key, value]`},
		{"mput", list{list{list{k, v, v}}}, `BadRequest: mput: each pair must be [key, value]`},
		{"mput", list{list{list{k, long}}}, `ValueTooLarge: mput: value has 21 bytes, the limit is 20`},
		{"mput", list{list{list{k, v}}, dict{"if": "absent"}}, `BadRequest: mput: unknown option "if"`},
		{"config", list{dict{"set": 1}}, `BadRequest: config: option "set" is int, must be a map`},
		{"config", list{dict{"set": dict{"a": nil}}}, `BadRequest: config: setting "a" is nil, must be str, int, float or bool`},
		{"hello", list{dict{"session": v}}, `BadRequest: hello: option "session" has 1 bytes, must be 16`},
		{"hello", list{dict{"protocol": 2}}, `BadRequest: hello: protocol 2 is not spoken here, only 1`},
		{"hello", list{dict{"seen": -1}}, `BadRequest: hello: option "seen" is out of range, must be an unsigned integer`},
		{"hello", list{dict{"client": strings.Repeat("c", 257)}}, `BadRequest: hello: option "client" has 257 bytes, the limit is 256`},
		{"backup", nil, `BadRequest: backup: 0 parameters, must be 1 to 2`},
		{"backup", list{1}, `BadRequest: backup: what to do is int, must be str`},
		{"backup", list{"start"}, `BadRequest: backup: what to do must be "open", "read" or "close"`},
		{"backup", list{"read"}, `BadRequest: backup: an offset goes with "read", and with nothing else`},
		{"backup", list{"open", 0}, `BadRequest: backup: an offset goes with "read", and with nothing else`},
		{"backup", list{"read", uint64(1) << 63}, `BadRequest: backup: offset is out of range, must be an integer from 0 to 2^63-1`},
		{"slowlog", list{"get", dict{"count": 0}}, `BadRequest: slowlog: option "count" is out of range, must be an integer from 1 to 2^31-1`},
		{"slowlog", list{"take"}, `BadRequest: slowlog: what to do must be "get" or "reset"`},
		{"monitor", list{"start", dict{"every": "1"}}, `BadRequest: monitor: option "every" is str, must be an integer from 1 to 2^31-1`},
		{"monitor", list{"take", dict{"every": 1}}, `BadRequest: monitor: unknown option "every"`},
		{"compact", list{dict{"until": -1}}, `BadRequest: compact: option "until" is out of range, must be an integer from 0 to 2^63-1`},
		{"compact", list{dict{"until": nil}}, `BadRequest: compact: option "until" is nil, must be an integer from 0 to 2^63-1`},
		{"tasks", nil, `BadRequest: tasks: 0 parameters, must be 1 to 2`},
		{"tasks", list{"open"}, `BadRequest: tasks: what to do must be "get", "stop", "start" or "run"`},
		{"tasks", list{"get", "compact"}, `BadRequest: tasks: a task goes with "stop", "start" and "run", and with nothing else`},
		{"tasks", list{"stop"}, `BadRequest: tasks: a task goes with "stop", "start" and "run", and with nothing else`},
		{"tasks", list{"run", 1}, `BadRequest: tasks: the name of a task is int, must be str`},
		{"scrub", list{"open"}, `BadRequest: scrub: what to do must be "start", "status" or "stop"`},
		{"scrub", list{"status", dict{"rate": 1}}, `BadRequest: scrub: unknown option "rate"`},
		{"scrub", list{"start", dict{"rate": -1}}, `BadRequest: scrub: option "rate" is out of range, must be a number of bytes`},
		{"scrub", list{"start", dict{"rate": "1"}}, `BadRequest: scrub: option "rate" is str, must be a number of bytes`},
		{"checkpoint", list{dict{"kind": "half"}}, `BadRequest: checkpoint: option "kind" must be "full", "log", "index" or "snapshot"`},
		{"checkpoint", list{dict{"cookie": make([]byte, 4097)}}, `BadRequest: checkpoint: option "cookie" has 4097 bytes, the limit is 4096`},
	} {
		_, err := call(t, lim, x.method, x.params...)
		require.NotNil(t, err, "%s %v", x.method, x.params)
		require.EqualError(t, err, x.want)
	}
}

// What could go wrong: an option that is given twice is taken twice, silently.
func TestParseCall_RefusesDuplicates(t *testing.T) {
	b := ipc.AppendMapHeader(ipc.AppendBin(ipc.AppendRequestHeader(nil, 1, ipc.MethodDel, 2), []byte("k")), 2)
	b = ipc.AppendBool(ipc.AppendStr(b, "sync"), true)
	b = ipc.AppendBool(ipc.AppendStr(b, "sync"), false)
	require.EqualError(t, parse(t, b), `BadRequest: del: option "sync" is given twice`)

	b = ipc.AppendMapHeader(ipc.AppendStr(ipc.AppendMapHeader(ipc.AppendRequestHeader(nil, 1, ipc.MethodConfig, 1), 1), "set"), 2)
	b = ipc.AppendUint(ipc.AppendStr(ipc.AppendUint(ipc.AppendStr(b, "a"), 1), "a"), 2)
	require.EqualError(t, parse(t, b), `BadRequest: config: setting "a" is given twice`)
}

func parse(t testing.TB, b []byte) *ipc.Error {
	lim := ipc.DefaultLimits()
	var q ipc.Request
	require.Nil(t, ipc.ParseRequest(b, &q))
	var c ipc.Call
	return ipc.ParseCall(&q, &lim, &c)
}

// What could go wrong: at exactly a limit the call is refused already.
func TestParseCall_AtTheLimits(t *testing.T) {
	lim := ipc.DefaultLimits()
	key := bytes.Repeat([]byte("k"), ipc.MaxKey)
	_, err := call(t, lim, "put", key, make([]byte, ipc.MaxValue))
	require.Nil(t, err)
	_, err = call(t, lim, "put", append(key, 'k'), nil)
	require.ErrorIs(t, err, ipc.CodeKeyTooLarge)
	_, err = call(t, lim, "put", key, make([]byte, ipc.MaxValue+1))
	require.ErrorIs(t, err, ipc.CodeValueTooLarge)
	require.ErrorIs(t, err, ipc.ErrAnyTooLarge)
	keys := make(list, ipc.MaxKeys)
	for i := range keys {
		keys[i] = "k"
	}
	_, err = call(t, lim, "mget", keys)
	require.Nil(t, err)
	_, err = call(t, lim, "mget", append(keys, "k"))
	require.ErrorIs(t, err, ipc.CodeBadRequest)
}

// What could go wrong: a Call that is parsed into again keeps something of the call before it.
func TestParseCall_Reuse(t *testing.T) {
	lim := ipc.DefaultLimits()
	var c ipc.Call
	for _, e := range examples(t) {
		if !e.toDaemon {
			continue
		}
		var q ipc.Request
		require.Nil(t, ipc.ParseRequest(e.bytes, &q))
		var fresh ipc.Call
		require.Nil(t, ipc.ParseCall(&q, &lim, &fresh))
		require.Nil(t, ipc.ParseCall(&q, &lim, &c))
		require.Equal(t, fresh.Class(), c.Class(), e.notation)
		if q.Method == ipc.MethodGet || q.Method == ipc.MethodPut {
			require.Equal(t, fresh.Key, c.Key)
			require.Equal(t, [2]any{fresh.If, fresh.Sync}, [2]any{c.If, c.Sync})
			c.If, c.Sync = ipc.IfPresent, true // the next one must not see these
			continue
		}
		require.Equal(t, len(fresh.Keys), len(c.Keys), e.notation)
		c.Keys, c.Values, fresh.Keys, fresh.Values = nil, nil, nil, nil
		require.Equal(t, fresh, c, e.notation)
	}
}

// What could go wrong: a method asks for less than its role.
func TestMethod_Classes(t *testing.T) {
	for method, want := range map[string]string{
		"ping": "read", "hello": "read", "get": "read", "exists": "read", "mget": "read", "len": "read",
		"sync": "read", "stats": "read", "config": "read", "put": "write", "del": "write", "cas": "write",
		"add": "write", "append": "write", "mput": "write", "mdel": "write", "checkpoint": "admin", "checkpoints": "read",
		"compact": "admin", "tasks": "admin",
		"backup": "admin", "scrub": "admin", "health": "read", "slowlog": "admin", "monitor": "admin", "scan": "read", "watch": "read",
		"expire": "write", "ttl": "read",
	} {
		m := ipc.LookupMethod([]byte(method))
		require.NotEqual(t, ipc.MethodUnknown, m, method)
		require.Equal(t, method, m.String())
		require.Equal(t, want, m.Class().String(), method)
	}
	require.Len(t, ipc.Methods(), 29)
	c, err := call(t, ipc.DefaultLimits(), "config", dict{"set": dict{"a": 1}})
	require.Nil(t, err)
	require.Equal(t, ipc.ClassAdmin, c.Class())
}

// What could go wrong: a message whose outer shape is wrong is taken for a request.
func TestParseRequest_OuterShape(t *testing.T) {
	for _, x := range []struct {
		message any
		want    string
	}{
		{list{1, 1, nil, nil}, "message type"},
		{list{3, 1, "get", list{}}, "message type"},
		{list{"0", 1, "get", list{}}, "message type"},
		{list{0, -1, "get", list{}}, "msgid"},
		{list{0, int64(1) << 32, "get", list{}}, "msgid"},
		{list{0, "1", "get", list{}}, "msgid"},
		{list{0, 1, 5, list{}}, "method"},
		{list{0, 1, nil, list{}}, "method"},
		{list{0, 1, "get", dict{}}, "params"},
		{list{0, 1, "get", nil}, "params"},
		{list{0, 1, "get"}, "request is not"},
		{list{2, 1, "get", list{}}, "request is not"},
		{list{2, 1, list{}}, "method"},
	} {
		b, err := msgpack.Marshal(x.message)
		require.NoError(t, err)
		var q ipc.Request
		got := ipc.ParseRequest(b, &q)
		require.NotNil(t, got, "%v", x.message)
		require.ErrorContains(t, got, "BadRequest: "+x.want)
	}
	b, err := msgpack.Marshal(list{2, "put", list{"k", "v"}})
	require.NoError(t, err)
	var q ipc.Request
	require.Nil(t, ipc.ParseRequest(b, &q))
	require.False(t, q.Answered())
	require.Equal(t, ipc.MethodPut, q.Method)
}

// FuzzRequest looks for a message that makes the parsers panic, hand out bytes from outside it, or
// accept a call beyond the limits.
func FuzzRequest(f *testing.F) {
	for _, e := range examples(f) {
		f.Add(e.bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		lim := ipc.DefaultLimits()
		lim.Key, lim.Value, lim.Keys = 20, 100, 10
		var q ipc.Request
		if ipc.ParseRequest(b, &q) != nil {
			return
		}
		var c ipc.Call
		if err := ipc.ParseCall(&q, &lim, &c); err != nil {
			require.Contains(t, ipc.Codes, err.Code)
			require.Less(t, len(err.Message), 500)
			return
		}
		require.LessOrEqual(t, len(c.Keys), lim.Keys)
		for _, k := range append([][]byte{c.Key}, c.Keys...) {
			require.LessOrEqual(t, len(k), lim.Key)
		}
		for _, v := range append([][]byte{c.Value, c.Old}, c.Values...) {
			require.LessOrEqual(t, len(v), lim.Value)
			require.Equal(t, len(v), cap(v), "an append would write into what follows")
		}
		require.Equal(t, q.Method, c.Method)
	})
}
