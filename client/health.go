package client

import (
	"context"
	"time"

	"rskv/ipc"
)

// The states of a store.
const (
	StateOK       = "ok"
	StateReadOnly = "read only" // after an I/O error, until the daemon is started again
	StateFull     = "disk full" // until there is room
)

// Health is whether the store takes writes.
type Health struct {
	State string    // one of the above, or one that a newer daemon has
	Err   string    // the reason, "" if it is StateOK
	Since time.Time // when that was noticed, to the millisecond; zero if it is StateOK
}

// Health asks whether the store takes writes. Reads go on in any state.
func (c *Client) Health(ctx context.Context) (Health, error) {
	f := takeFlight()
	f.end(f.begin(ipc.MethodHealth, 0), natureRead)
	m, err := c.flyMap(ctx, f)
	if err != nil {
		return Health{}, err
	}
	h := Health{Since: moment(m, "since")}
	var ok bool
	if h.State, ok = m["state"].(string); !ok {
		return h, ErrProtocol
	}
	h.Err, _ = m["error"].(string)
	return h, nil
}
