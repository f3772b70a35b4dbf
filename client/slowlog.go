package client

import (
	"context"
	"fmt"
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
	if err := c.fly(ctx, f); err != nil {
		return nil, err
	}
	defer f.release()
	r, err := f.raw(0, ipc.KindArray)
	if err != nil {
		return nil, err
	}
	var all []map[string]any
	if err := unmarshal(r.Rest(), &all); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
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

// signed is an integer of any type that msgpack makes; what is negative is -1.
func signed(v any) int {
	switch v := v.(type) {
	case int8:
		return max(int(v), -1)
	case int64:
		return int(max(v, -1))
	}
	return int(unsigned(v))
}

// Monitored is a request that another client has sent.
type Monitored struct {
	Time     time.Time // to the microsecond
	UID, PID int       // -1: not known
	Client   string    // the name it said in hello
	Method   string
	Key      []byte // the beginning of the first; nil: none
	Keys     int
	Bytes    int // of the values sent
}

// StartMonitor has the daemon keep the requests that come in, or one of so many, for TakeMonitored. The
// monitor belongs to the connection: when that is lost it has to be started again.
func (c *Client) StartMonitor(ctx context.Context, every int) error {
	f := takeFlight()
	start := f.begin(ipc.MethodMonitor, 2)
	f.buf = ipc.AppendStr(f.buf, ipc.ActionStart.String())
	f.buf = ipc.AppendInt(ipc.AppendStr(ipc.AppendMapHeader(f.buf, 1), "every"), int64(every))
	f.end(start, natureOnce)
	_, err := c.flyBool(ctx, f, nil)
	return err
}

// StopMonitor ends the connection's monitor, and reports whether there was one.
func (c *Client) StopMonitor(ctx context.Context) (bool, error) {
	f := takeFlight()
	start := f.begin(ipc.MethodMonitor, 1)
	f.buf = ipc.AppendStr(f.buf, ipc.ActionStop.String())
	f.end(start, natureOnce)
	return c.flyBool(ctx, f, nil)
}

// TakeMonitored returns the requests since the last call, and how many the daemon has dropped because
// there were more than it keeps.
func (c *Client) TakeMonitored(ctx context.Context) (list []Monitored, dropped uint64, err error) {
	f := takeFlight()
	start := f.begin(ipc.MethodMonitor, 1)
	f.buf = ipc.AppendStr(f.buf, ipc.ActionTake.String())
	f.end(start, natureOnce)
	m, err := c.flyMap(ctx, f)
	if err != nil {
		return nil, 0, err
	}
	all, _ := m["requests"].([]any)
	for _, one := range all {
		r, ok := one.([]any)
		if !ok || len(r) != 8 {
			return nil, 0, fmt.Errorf("%w: %v is no request", ErrProtocol, one)
		}
		q := Monitored{Time: time.UnixMicro(int64(unsigned(r[0]))), UID: signed(r[1]), PID: signed(r[2]), Keys: int(unsigned(r[6])), Bytes: int(unsigned(r[7]))}
		q.Client, _ = r[3].(string)
		q.Method, _ = r[4].(string)
		q.Key, _ = r[5].([]byte)
		list = append(list, q)
	}
	return list, number(m, "dropped"), nil
}
