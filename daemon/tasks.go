package daemon

import (
	"context"

	"rskv/engine"
	"rskv/ipc"
)

// tasks carries out the method of that name.
func (c *conn) tasks(k call) {
	store, name := c.server.store, engine.TaskName(c.call.Name)
	var err error
	switch c.call.Action {
	case ipc.ActionRun:
		c.beside(func() func() {
			err := store.RunTask(context.Background(), name)
			return func() { c.tasked(&k, err) }
		})
		return
	case ipc.ActionStop:
		err = store.StopTask(name)
	case ipc.ActionStart:
		err = store.StartTask(name)
	default:
		if k.answered {
			c.output.ready = appendTasks(ipc.AppendResultHeader(c.output.ready, k.id), store.Tasks())
		}
		return
	}
	c.tasked(&k, err)
}

// tasked answers what was done to a task.
func (c *conn) tasked(k *call, err error) {
	if err != nil {
		c.refuse(k, wireError(err))
		return
	}
	c.reply(k, yesNo(true))
}

func appendTasks(dst []byte, list []engine.TaskInfo) []byte {
	dst = ipc.AppendArrayHeader(dst, len(list))
	for i := range list {
		t := &list[i]
		dst = ipc.AppendStr(ipc.AppendStr(ipc.AppendMapHeader(dst, 8), "name"), string(t.Name))
		dst = ipc.AppendBool(ipc.AppendStr(dst, "stopped"), t.Stopped)
		dst = ipc.AppendBool(ipc.AppendStr(dst, "fixed"), t.Fixed)
		dst = ipc.AppendUint(ipc.AppendStr(dst, "runs"), t.Runs)
		dst = ipc.AppendInt(ipc.AppendStr(dst, "last"), unixMilli(t.LastRun))
		dst = ipc.AppendInt(ipc.AppendStr(dst, "us"), t.LastTook.Microseconds())
		dst = ipc.AppendStr(ipc.AppendStr(dst, "error"), errorText(t.LastErr))
		dst = ipc.AppendStr(ipc.AppendStr(dst, "next"), t.Next)
	}
	return dst
}
