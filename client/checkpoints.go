package client

import (
	"context"
	"time"

	"rskv/ipc"
)

// CheckpointInfo is a checkpoint that the daemon keeps.
type CheckpointInfo struct {
	Version uint64        // its name
	Kind    string        // full, log, index or snapshot
	Time    time.Time     // to the millisecond
	Begin   uint64        // byte address at which the log it needs begins
	Tail    uint64        // byte address up to which the log is part of it
	Keys    uint64        // that were stored; 0 from a daemon that does not tell
	Bytes   uint64        // of its files, beside the log
	Took    time.Duration // to the millisecond; 0 where that was not kept
	Cookie  []byte
}

// Checkpoints lists the checkpoints that are kept, newest first.
func (c *Client) Checkpoints(ctx context.Context) ([]CheckpointInfo, error) {
	f := takeFlight()
	f.end(f.begin(ipc.MethodCheckpoints, 0), natureRead)
	all, err := c.flyMaps(ctx, f)
	if err != nil {
		return nil, err
	}
	list := make([]CheckpointInfo, len(all))
	for i, m := range all {
		kind, _ := m["kind"].(string)
		cookie, _ := m["cookie"].([]byte)
		list[i] = CheckpointInfo{
			Version: number(m, "version"), Kind: kind, Time: time.UnixMilli(int64(number(m, "time"))),
			Begin: number(m, "begin"), Tail: number(m, "tail"), Keys: number(m, "keys"), Bytes: number(m, "bytes"),
			Took: time.Duration(number(m, "ms")) * time.Millisecond, Cookie: cookie,
		}
	}
	return list, nil
}
