package client

import (
	"context"
	"fmt"
	"time"

	"rskv/ipc"
)

// ScrubStatus tells of the scrub that runs in the daemon, or of the last one.
type ScrubStatus struct {
	State        string    // never, running, done, stopped or failed
	Begun, Ended time.Time // to the millisecond; zero: not yet
	Rate         int64     // bytes a second; 0: no limit
	Bytes, Total int64     // of log read, of how many
	Records      uint64
	Damages      int64         // damaged stretches
	DamagedBytes int64         // in them
	Found        []ScrubDamage // the first of them
	Err          string        // why it has failed, or was stopped
}

// ScrubDamage is a damaged stretch of the log.
type ScrubDamage struct {
	File        string // in the store's directory
	From, Until int64  // byte addresses in the log
	Why         string
}

// ScrubRateDefault has the daemon's setting decide how fast a scrub reads.
const ScrubRateDefault = -1

// Scrub has the daemon read the whole log back and verify it, at a rate in bytes a second; 0 is no
// limit. It returns when that has begun; ErrBusy says that one is running. It is for administrators, as
// the two below are.
func (c *Client) Scrub(ctx context.Context, rate int64) error {
	f := takeFlight()
	if rate < 0 {
		f.scrub(ipc.ActionStart, 1)
	} else {
		start := f.scrubBegin(ipc.ActionStart, 2)
		f.buf = ipc.AppendInt(ipc.AppendStr(ipc.AppendMapHeader(f.buf, 1), "rate"), rate)
		f.end(start, natureOnce)
	}
	_, err := c.flyBool(ctx, f, nil)
	return err
}

// StopScrub ends the scrub that runs, and reports whether one did.
func (c *Client) StopScrub(ctx context.Context) (bool, error) {
	f := takeFlight()
	f.scrub(ipc.ActionStop, 1)
	return c.flyBool(ctx, f, nil)
}

// ScrubStatus tells how far the scrub is, and what it has found.
func (c *Client) ScrubStatus(ctx context.Context) (ScrubStatus, error) {
	f := takeFlight()
	start := f.scrubBegin(ipc.ActionStatus, 1)
	f.end(start, natureRead)
	m, err := c.flyMap(ctx, f)
	if err != nil {
		return ScrubStatus{}, err
	}
	s := ScrubStatus{
		Begun: moment(m, "begun"), Ended: moment(m, "ended"), Rate: int64(number(m, "rate")),
		Bytes: int64(number(m, "bytes")), Total: int64(number(m, "total")), Records: number(m, "records"),
		Damages: int64(number(m, "damages")), DamagedBytes: int64(number(m, "damaged_bytes")),
	}
	s.State, _ = m["state"].(string)
	s.Err, _ = m["error"].(string)
	found, _ := m["found"].([]any)
	for _, one := range found {
		d, ok := one.([]any)
		if !ok || len(d) != 4 {
			return s, fmt.Errorf("%w: %v is no damage", ErrProtocol, one)
		}
		damage := ScrubDamage{From: int64(unsigned(d[1])), Until: int64(unsigned(d[2]))}
		damage.File, _ = d[0].(string)
		damage.Why, _ = d[3].(string)
		s.Found = append(s.Found, damage)
	}
	return s, nil
}

// scrubBegin begins a request of the method with so many parameters.
func (f *flight) scrubBegin(a ipc.Action, count int) int {
	start := f.begin(ipc.MethodScrub, count)
	f.buf = ipc.AppendStr(f.buf, a.String())
	return start
}

// scrub is a whole request without options.
func (f *flight) scrub(a ipc.Action, count int) {
	f.end(f.scrubBegin(a, count), natureOnce)
}
