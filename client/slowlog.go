package client

import (
	"context"
	"time"

	"rskv/ipc"
)

// SlowRequest is one entry of the daemon's slow log.
type SlowRequest struct {
	ID       uint64    // counts from 1 since the daemon started
	Time     time.Time // when it was done, to the millisecond
	Took     time.Duration
	Waited   string // for what: none, disk or commit
	Method   string
	Key      []byte // its beginning; nil: none
	Requests int    // that were answered together; the rest is about the first
	Client   string // the name it said in hello
	UID, PID int    // -1: not known
}

// SlowLog returns the last requests that took longer than the daemon's slowlog_threshold, newest
// first, at most count of them; 0 is all that are kept. It is for administrators, as the others below
// are.
func (c *Client) SlowLog(ctx context.Context, count int) ([]SlowRequest, error) {
	f := takeFlight()
	var start int
	if count > 0 {
		start = f.begin(ipc.MethodSlowlog, 2)
		f.buf = ipc.AppendStr(f.buf, ipc.ActionGet.String())
		f.buf = ipc.AppendInt(ipc.AppendStr(ipc.AppendMapHeader(f.buf, 1), "count"), int64(count))
	} else {
		start = f.begin(ipc.MethodSlowlog, 1)
		f.buf = ipc.AppendStr(f.buf, ipc.ActionGet.String())
	}
	f.end(start, natureRead)
	all, err := c.flyMaps(ctx, f)
	if err != nil {
		return nil, err
	}
	list := make([]SlowRequest, len(all))
	for i, m := range all {
		s := &list[i]
		*s = SlowRequest{
			ID: number(m, "id"), Time: moment(m, "time"), Took: time.Duration(number(m, "us")) * time.Microsecond,
			Requests: int(number(m, "requests")), UID: signed(m["uid"]), PID: signed(m["pid"]),
		}
		s.Waited, _ = m["waited"].(string)
		s.Method, _ = m["method"].(string)
		s.Key, _ = m["key"].([]byte)
		s.Client, _ = m["client"].(string)
	}
	return list, nil
}

// ResetSlowLog empties the slow log and returns how many entries it had.
func (c *Client) ResetSlowLog(ctx context.Context) (int, error) {
	f := takeFlight()
	start := f.begin(ipc.MethodSlowlog, 1)
	f.buf = ipc.AppendStr(f.buf, ipc.ActionReset.String())
	f.end(start, natureOnce)
	n, err := c.flyInt(ctx, f, nil)
	return int(n), err
}
