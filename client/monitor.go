package client

import (
	"context"
	"fmt"
	"time"

	"rskv/ipc"
)

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
