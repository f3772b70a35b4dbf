package daemon

import (
	"rskv/engine"
	"rskv/ipc"
)

// handle takes up one request whose outer shape is right. Operations go into
// the batch; everything else is done at once.
func (c *conn) handle() {
	q := &c.request
	c.batch.counts.request(q.Method)
	k := call{id: q.ID, method: q.Method, answered: q.Answered(), began: c.began}
	if q.Method.Class() == ipc.ClassWrite {
		// A write that is refused takes its number all the same: the client
		// counts what it sends.
		k.number = c.writes.next()
	}
	if err := ipc.ParseCall(q, &c.limits, &c.call); err != nil {
		c.refuse(&k, err)
		return
	}
	if err := c.permit(&c.call); err != nil {
		c.refuse(&k, err)
		return
	}
	k.sync, k.blind = c.call.Sync, c.call.Blind
	if c.watched {
		c.observe(k.method)
	}
	c.carryOut(k)
}

// permit returns why the peer may not do what it asks for; nil: it may.
func (c *conn) permit(q *ipc.Call) *ipc.Error {
	class := q.Class()
	if role(class) > c.role {
		c.denyCall(q.Method, class)
		return &ipc.Error{Code: ipc.CodeForbidden, Message: q.Method.String() + " needs the role " + class.String()}
	}
	if class == ipc.ClassAdmin {
		c.audit(q)
	}
	if c.rate > 0 && c.role < roleAdmin && !c.user.take(operations(q), c.rate, c.began) {
		c.server.count.limited.Add(1)
		return errRate
	}
	return nil
}

// operations is how many operations a call is.
func operations(q *ipc.Call) int {
	switch q.Method {
	case ipc.MethodMGet, ipc.MethodMPut, ipc.MethodMDel:
		return max(len(q.Keys), 1)
	}
	return 1
}

var errRate = &ipc.Error{Code: ipc.CodeBusy, Message: "too many operations of this user in a second (max_rate_user)"}

// carryOut does what a call asks for.
func (c *conn) carryOut(k call) {
	q := &c.call
	switch k.method {
	case ipc.MethodGet:
		k.sync = false // left over from a put: a get does not have it
		op := c.add(k)
		op.Kind, op.Key = engine.OpGet, q.Key
	case ipc.MethodExists:
		op := c.add(k)
		op.Kind, op.Key = engine.OpExists, q.Key
	case ipc.MethodPut:
		op := c.add(k)
		op.Kind, op.Key, op.Value, op.If, op.TTL = engine.OpPut, q.Key, q.Value, condition(q.If), q.TTL
	case ipc.MethodDel:
		op := c.add(k)
		op.Kind, op.Key, op.Blind = engine.OpDelete, q.Key, q.Blind
	case ipc.MethodCas:
		op := c.add(k)
		op.Kind, op.Key, op.Old, op.Value = engine.OpCompareAndSwap, q.Key, q.Old, q.Value
		op.OldAbsent, op.NewAbsent, op.TTL = q.OldAbsent, q.NewAbsent, q.TTL
	case ipc.MethodAdd:
		op := c.add(k)
		op.Kind, op.Key, op.Delta, op.TTL = engine.OpAdd, q.Key, q.Delta, q.TTL
	case ipc.MethodAppend:
		op := c.add(k)
		op.Kind, op.Key, op.Value = engine.OpAppend, q.Key, q.Value
	case ipc.MethodExpire:
		op := c.add(k)
		op.Kind, op.Key, op.TTL = engine.OpExpire, q.Key, q.TTL
	case ipc.MethodTTL:
		op := c.add(k)
		op.Kind, op.Key = engine.OpTTL, q.Key
	case ipc.MethodMGet, ipc.MethodMPut, ipc.MethodMDel:
		c.fanOut(k)
	default:
		c.note()
		c.run() // what follows looks at what was done before it
		c.about(k)
	}
}

func condition(c ipc.Condition) engine.Cond {
	switch c {
	case ipc.IfAbsent:
		return engine.IfAbsent
	case ipc.IfPresent:
		return engine.IfPresent
	}
	return engine.Always
}

// fanOut issues the parts of an mget, mput or mdel.
func (c *conn) fanOut(k call) {
	q := &c.call
	g := c.startGather(k, len(q.Keys))
	for i, key := range q.Keys {
		op := c.add(c.nextPart(g, i))
		op.Key = key
		switch k.method {
		case ipc.MethodMGet:
			op.Kind = engine.OpGet
		case ipc.MethodMPut:
			op.Kind, op.Value, op.TTL = engine.OpPut, q.Values[i], q.TTL
		default:
			op.Kind, op.Blind = engine.OpDelete, q.Blind
		}
	}
	c.gatherDone(g)
}

// about carries out the methods that are not operations on keys.
func (c *conn) about(k call) {
	o := &c.output
	switch k.method {
	case ipc.MethodPing:
		if k.answered {
			o.ready = ipc.AppendStrResult(o.ready, k.id, "pong")
		}
	case ipc.MethodHello:
		c.hello(k)
	case ipc.MethodLen:
		c.length(k)
	case ipc.MethodSync:
		c.sync(k)
	case ipc.MethodStats:
		c.lane.tally(&c.batch.counts)
		if k.answered {
			o.ready = c.server.appendStats(ipc.AppendResultHeader(o.ready, k.id))
		}
	case ipc.MethodHealth:
		c.healthOf(k)
	case ipc.MethodConfig:
		c.config(k)
	case ipc.MethodCheckpoint:
		c.checkpoint(k)
	case ipc.MethodCheckpoints:
		c.checkpoints(k)
	case ipc.MethodBackup:
		c.backup(k)
	case ipc.MethodScrub:
		c.scrub(k)
	case ipc.MethodSlowlog:
		c.slowlog(k)
	case ipc.MethodMonitor:
		c.monitor(k)
	case ipc.MethodCompact:
		c.compact(k)
	case ipc.MethodTasks:
		c.tasks(k)
	case ipc.MethodScan:
		c.scan(k)
	case ipc.MethodWatch:
		c.follow(k)
	}
}

func (c *conn) length(k call) {
	if c.call.Exact {
		c.lengthExact(k)
		return
	}
	c.reply(&k, result{resultInt, c.server.store.Len()})
}

// config answers with the settings in force, after changing those asked for.
func (c *conn) config(k call) {
	if err := c.server.change(c.call.Settings); err != nil {
		c.refuse(&k, &ipc.Error{Code: ipc.CodeBadRequest, Message: "config: " + err.Error()})
		return
	}
	if !k.answered {
		return
	}
	all := c.server.settings().All()
	dst := ipc.AppendMapHeader(ipc.AppendResultHeader(c.output.ready, k.id), len(all))
	for _, s := range all {
		dst = ipc.AppendStr(ipc.AppendStr(dst, s.Name), s.Value)
	}
	c.output.ready = dst
}

// hello starts or resumes a session. The answer tells how far its writes are.
func (c *conn) hello(k call) {
	h := c.call.Hello
	if c.owner != nil {
		c.refuse(&k, &ipc.Error{Code: ipc.CodeBadRequest, Message: "hello was said before on this connection"})
		return
	}
	if c.writes.last > 0 {
		c.refuse(&k, &ipc.Error{Code: ipc.CodeBadRequest, Message: "hello must come before the first write"})
		return
	}
	var owner *clientSession
	var err *ipc.Error
	c.settle()
	c.unlocked(func() { // taking a session over waits for its last connection
		c.flush()
		owner, err = c.server.sessions.attach(c, &h)
	})
	if err != nil {
		c.refuse(&k, err)
		return
	}
	c.owner, c.name = owner, h.Client
	durable, applied := c.tellDurable(), owner.ledger.Applied()
	c.session.Attach(owner.ledger)
	c.writes.last, c.writes.given = applied, applied
	if h.Client != "" {
		c.log.Debug("client said hello", "client", h.Client, "resumed", h.HasSession, "applied", applied)
	}
	if !k.answered {
		return
	}
	answer := ipc.Hello{
		Server: serverName, Version: Version(), Protocol: ipc.ProtocolVersion,
		Session: owner.id, Applied: applied, Durable: durable,
		Role: ipc.Class(c.role), Limits: c.limits,
	}
	if h.HasSeen && h.Seen >= owner.since {
		answer.Refused = owner.refusedAfter(h.Seen)
	}
	c.output.ready = ipc.AppendHello(ipc.AppendResultHeader(c.output.ready, k.id), &answer)
}
