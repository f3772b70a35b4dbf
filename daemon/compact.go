package daemon

import (
	"context"

	"rskv/engine"
	"rskv/ipc"
)

// compact carries out the method of that name: a pass over the log that somebody
// asked for.
func (c *conn) compact(k call) {
	options := engine.CompactOptions{Until: c.call.Offset}
	c.beside(func() func() {
		res, err := c.server.store.Compact(context.Background(), options)
		return func() { c.compacted(&k, &res, err) }
	})
}

// compacted answers it.
func (c *conn) compacted(k *call, res *engine.CompactResult, err error) {
	switch {
	case err != nil:
		c.refuse(k, wireError(err))
	case k.answered:
		dst := ipc.AppendMapHeader(ipc.AppendResultHeader(c.output.ready, k.id), 5)
		dst = ipc.AppendInt(ipc.AppendStr(dst, "begin"), res.Begin)
		dst = ipc.AppendInt(ipc.AppendStr(dst, "scanned"), res.Scanned)
		dst = ipc.AppendInt(ipc.AppendStr(dst, "copied"), res.Copied)
		dst = ipc.AppendInt(ipc.AppendStr(dst, "freed"), res.Freed)
		dst = ipc.AppendInt(ipc.AppendStr(dst, "ms"), res.Took.Milliseconds())
		c.output.ready = dst
	}
}
