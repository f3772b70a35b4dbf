package client

import (
	"context"
	"fmt"
	"time"

	"rskv/ipc"
)

// CheckpointInfo is a checkpoint that the daemon keeps.
type CheckpointInfo struct {
	Version uint64    // its name
	Kind    string    // full, log or index
	Time    time.Time // to the millisecond
	Begin   uint64    // byte address at which the log it needs begins
	Tail    uint64    // byte address up to which the log is part of it
	Bytes   uint64    // of its files, beside the log
	Cookie  []byte
}

// Checkpoints lists the checkpoints that are kept, newest first.
func (c *Client) Checkpoints(ctx context.Context) ([]CheckpointInfo, error) {
	f := takeFlight()
	f.end(f.begin(ipc.MethodCheckpoints, 0), natureRead)
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
	list := make([]CheckpointInfo, len(all))
	for i, m := range all {
		kind, _ := m["kind"].(string)
		cookie, _ := m["cookie"].([]byte)
		list[i] = CheckpointInfo{
			Version: number(m, "version"), Kind: kind, Time: time.UnixMilli(int64(number(m, "time"))),
			Begin: number(m, "begin"), Tail: number(m, "tail"), Bytes: number(m, "bytes"), Cookie: cookie,
		}
	}
	return list, nil
}
