package client

import (
	"context"
	"time"

	"rskv/ipc"
)

// Compaction is what a pass of compaction did. Sizes are in bytes.
type Compaction struct {
	Begin   int64 // byte address the log begins at now
	Scanned int64 // log looked at
	Copied  int64 // of it still live, copied to the log's end
	Freed   int64 // given back to the file system; what kept checkpoints need waits
	Took    time.Duration
}

// Compact has the daemon copy what is live at the beginning of its log to the end and give the rest
// back, up to the byte address until; 0 is everything durable. It returns when that is on stable
// storage; ErrBusy says that another pass is under way. It is for administrators, as the others below
// are.
func (c *Client) Compact(ctx context.Context, until int64) (Compaction, error) {
	f := takeFlight()
	var start int
	if until == 0 {
		start = f.begin(ipc.MethodCompact, 0)
	} else {
		start = f.begin(ipc.MethodCompact, 1)
		f.buf = ipc.AppendInt(ipc.AppendStr(ipc.AppendMapHeader(f.buf, 1), "until"), until)
	}
	f.end(start, natureOnce)
	m, err := c.flyMap(ctx, f)
	if err != nil {
		return Compaction{}, err
	}
	return Compaction{
		Begin: int64(number(m, "begin")), Scanned: int64(number(m, "scanned")), Copied: int64(number(m, "copied")),
		Freed: int64(number(m, "freed")), Took: time.Duration(number(m, "ms")) * time.Millisecond,
	}, nil
}

// Task is what the daemon does in the background.
type Task struct {
	Name    string
	Stopped bool          // it begins nothing by itself
	Fixed   bool          // it cannot be stopped
	Runs    uint64        // since the daemon started
	Last    time.Time     // to the millisecond; zero: never
	Took    time.Duration // the last run
	Err     string        // how the last run failed
	Next    string        // what the next one waits for
}

// Tasks lists them.
func (c *Client) Tasks(ctx context.Context) ([]Task, error) {
	f := takeFlight()
	start := f.begin(ipc.MethodTasks, 1)
	f.buf = ipc.AppendStr(f.buf, ipc.ActionGet.String())
	f.end(start, natureRead)
	all, err := c.flyMaps(ctx, f)
	if err != nil {
		return nil, err
	}
	list := make([]Task, len(all))
	for i, m := range all {
		t := &list[i]
		*t = Task{Runs: number(m, "runs"), Last: moment(m, "last"), Took: time.Duration(number(m, "us")) * time.Microsecond}
		t.Name, _ = m["name"].(string)
		t.Stopped, _ = m["stopped"].(bool)
		t.Fixed, _ = m["fixed"].(bool)
		t.Err, _ = m["error"].(string)
		t.Next, _ = m["next"].(string)
	}
	return list, nil
}

// StopTask has a task begin nothing by itself any more.
func (c *Client) StopTask(ctx context.Context, name string) error {
	return c.task(ctx, ipc.ActionStop, name)
}

// StartTask takes StopTask back.
func (c *Client) StartTask(ctx context.Context, name string) error {
	return c.task(ctx, ipc.ActionStart, name)
}

// RunTask has a task do its work once, also one that is stopped, and returns when that is done.
func (c *Client) RunTask(ctx context.Context, name string) error {
	return c.task(ctx, ipc.ActionRun, name)
}

func (c *Client) task(ctx context.Context, a ipc.Action, name string) error {
	f := takeFlight()
	start := f.begin(ipc.MethodTasks, 2)
	f.buf = ipc.AppendStr(ipc.AppendStr(f.buf, a.String()), name)
	f.end(start, natureOnce)
	_, err := c.flyBool(ctx, f, nil)
	return err
}
