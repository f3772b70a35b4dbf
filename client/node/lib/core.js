// The state of a client without its input and output: what is in flight, what a session keeps, and
// what a lost connection means for each. client/session.go in the repository explains the numbers:
//
//       durable          applied            next
//    1 ────┼────────────────┼─────────────────┼───→ numbers of writes
//          │  in memory     │ on the wire, or │
//    forgotten, kept here   │ not yet there   │

import { AnswerSplitter } from './answers.js'
import { AnswerLost, Closed, ConnectionLost, ProtocolError, refused, SessionLost, SessionUnknown } from './errors.js'
import { DURABLE, ONCE, READ, Request, sync, WRITE } from './request.js'

export const MAX_MESSAGE = 64 << 20 // bytes; the protocol's limit of requests and answers
const MAX_TRIES = 4 // connections that may be lost over a request before it is given up
const MAX_ID = 2 ** 32 - 1

export class Core {
  up = false // the connection is there, and has been greeted
  closed = false
  inflight = new Map() // requests not answered, by order of submission
  kept = new Map() // writes not known to be durable, by number
  keptBytes = 0
  durable = 0
  applied = 0
  next = 1 // number of the write to come
  #seq = 0
  #syncing = false
  #suspect = { applied: 0, tries: 0 } // connections lost with the same first write behind applied

  // options: session, resume, name, maxKept, maxKeptBytes, onSessionLoss
  constructor(options) {
    this.options = options
    this.session = options.resume ?? null
    this.foreign = this.session !== null // begun by another client, and not resumed yet
    this.#reset()
  }

  // A connection's life: greet, feed and take until it is lost, lost.

  #reset() {
    this.up = false
    this.out = [] // messages queued and not yet taken
    this.queued = 0 // bytes, on this connection
    this.sent = 0
    this.ids = new Map()
    this.lastID = 1 // 1 is hello's
    this.splitter = new AnswerSplitter(2 * MAX_MESSAGE)
  }

  // greet begins a connection. It is up at once, or with the answer to hello.
  greet() {
    this.#reset()
    if (!this.options.session) {
      this.up = true
      for (const r of [...this.inflight.values()]) this.#queue(r)
      return
    }
    const say = { protocol: 1 }
    if (this.options.name) say.client = this.options.name
    if (this.session) say.session = this.session
    if (this.session && !this.foreign) {
      say.seen = this.next - 1
      for (const r of this.kept.values()) {
        if (!r.done) {
          say.seen = r.number - 1
          break // they are in order
        }
      }
    }
    this.#write(new Request(ONCE, (r) => r, 'hello', [say]).message(1))
  }

  #write(message) {
    this.out.push(message)
    this.queued += message.length
  }

  // take returns what is to be sent, as one buffer. It counts as sent.
  take() {
    const all = this.out.length === 1 ? this.out[0] : Buffer.concat(this.out)
    this.out = []
    this.sent += all.length
    return all
  }

  // feed takes bytes from the connection. An error says that it is of no more use.
  feed(received) {
    for (const m of this.splitter.push(received)) this.#message(m)
  }

  #message(m) {
    if (!Array.isArray(m)) throw new ProtocolError('not a message')
    if (m.length === 4 && m[0] === 1 && typeof m[1] === 'number') {
      this.#answered(m[1], m[2], m[3])
    } else if (m.length === 3 && m[0] === 2 && m[1] === 'durable' && typeof m[2]?.[0] === 'number') {
      this.#becameDurable(m[2][0])
    } else if (m.length !== 3 || m[0] !== 2) {
      throw new ProtocolError('not a message')
    } // else a notification of a later version
  }

  #answered(id, error, result) {
    if (this.options.session && !this.up && id === 1) {
      if (error !== null) throw refused(error)
      this.#greeted(result)
      return
    }
    const r = this.ids.get(id)
    if (!r) throw id === 0 && error !== null ? refused(error) : new ProtocolError(`answer to request ${id}, which is not in flight`)
    this.ids.delete(id)
    this.inflight.delete(r.seq)
    r.sent = true
    if (error !== null) {
      this.#refusedWrite(r, refused(error))
    } else {
      if (r.nature === DURABLE && typeof result?.durable === 'number') this.#becameDurable(result.durable)
      else if (r.sync && r.number) this.#becameDurable(r.number)
      r.answer(result)
    }
    if (r.nature === DURABLE) this.#syncing = false
  }

  #refusedWrite(r, error) {
    if (r.number) {
      this.#forget(r)
      r.void = true
      // Answered with success, undone by a crash, and refused now.
      if (r.done && r.failed === null) this.#tell(1, error)
    }
    r.fail(error)
  }

  #becameDurable(number) {
    if (!this.options.session) return
    if (number >= this.next) throw new ProtocolError(`write ${number} is durable, ${this.next - 1} were made`)
    this.durable = Math.max(this.durable, number)
    for (const r of this.kept.values()) {
      if (r.number > number) break
      this.#forget(r)
    }
  }

  #forget(r) {
    if (this.kept.delete(r.number)) this.keptBytes -= r.body.length
  }

  // lost sorts out what was in flight on a connection that failed: what may be sent again stays.
  lost(cause) {
    this.up = false
    this.#syncing = false
    if (cause instanceof SessionLost || cause instanceof SessionUnknown) this.#sessionLost(cause)
    for (const r of [...this.inflight.values()]) {
      r.sent ||= this.#wasSent(r)
      r.end = 0
      if (r.number || (this.options.session && r.nature === DURABLE)) continue // the next hello tells
      if (r.sent && r.nature !== READ) {
        this.#drop(r, new AnswerLost(`connection lost, the request may have taken effect: ${cause.message}`))
      } else if (r.tries >= MAX_TRIES) {
        this.#drop(r, new ConnectionLost(`connection lost ${r.tries} times: ${cause.message}`))
      }
    }
  }

  #wasSent(r) {
    return r.end > 0 && r.end <= this.sent
  }

  #drop(r, error) {
    this.inflight.delete(r.seq)
    r.fail(error)
  }

  // refuse fails everything in flight: there is no connection for too long, or the client is closed.
  refuse(cause) {
    this.#syncing = false
    for (const r of [...this.inflight.values()]) {
      if (this.closed) {
        this.#drop(r, new Closed('the client is closed'))
      } else if (r.number && r.sent) { // it is kept, and takes effect when there is a connection again
        this.#drop(r, new AnswerLost(`no connection: ${cause.message}`))
      } else {
        r.void = true
        this.#drop(r, new ConnectionLost(`no connection: ${cause.message}`))
      }
    }
  }

  // giveUp says that nobody waits for a request any more. What was sent may still take effect.
  giveUp(r, reason) {
    if (r.done) return
    if (!this.up && !r.sent) {
      this.inflight.delete(r.seq)
      r.void = true
    }
    r.fail(reason)
  }

  // Requests.

  submit(r) {
    if (this.closed) throw new Closed('the client is closed')
    if (r.body.length + 8 > MAX_MESSAGE) {
      throw refused(['RequestTooLarge', `request has ${r.body.length + 8} bytes, the limit is ${MAX_MESSAGE}`])
    }
    r.seq = ++this.#seq
    this.inflight.set(r.seq, r)
    if (this.options.session && r.nature === WRITE) this.#keep(r)
    if (!this.up) return
    this.#queue(r)
    if (this.over(2) && !this.#syncing) this.askSync()
  }

  #keep(r) {
    r.number = this.next++
    this.kept.set(r.number, r)
    this.keptBytes += r.body.length
  }

  // over tells whether more is kept than there may be, divided by divisor.
  over(divisor = 1) {
    const { session, maxKept, maxKeptBytes } = this.options
    return session && (this.kept.size > maxKept / divisor || this.keptBytes > maxKeptBytes / divisor)
  }

  askSync() {
    const r = sync()
    this.#syncing = true
    this.submit(r)
    return r
  }

  #queue(r) {
    do {
      this.lastID = (this.lastID % MAX_ID) + 1
    } while (this.ids.has(this.lastID))
    this.ids.set(this.lastID, r)
    this.#write(r.message(this.lastID))
    r.end = this.queued
    r.tries++
  }

  // A session that comes back.

  #greeted(hello) {
    const { session, applied, durable } = hello ?? {}
    const told = hello?.refused
    if (!Buffer.isBuffer(session) || session.length !== 16 || !Number.isSafeInteger(applied) || !(durable >= 0 && durable <= applied)) {
      throw new ProtocolError('cannot read the answer to hello')
    }
    const codes = Array.isArray(told) ? new Map(told) : null
    const known = this.session !== null && !this.foreign
    if (this.session !== null && !session.equals(this.session)) throw new SessionLost('the daemon resumed another session')
    if (known && durable < this.durable) throw new SessionLost(`writes up to ${this.durable} were durable, now up to ${durable}`)
    if (known && applied >= this.next) throw new SessionLost(`the daemon has ${applied} writes of the session, ${this.next - 1} were made`)
    if (this.session === null && applied > 0) throw new ProtocolError(`a new session has ${applied} writes`)
    const unkept = this.foreign && durable < applied // what the former client wrote is nobody's to send again
    this.session = session
    this.foreign = false
    this.applied = applied
    this.#resume(applied, durable, codes)
    if (unkept) this.askSync()
  }

  // resume goes on where the daemon says the session is, and queues what it does not have.
  #resume(applied, durable, codes) {
    const again = []
    let first = true
    for (const r of [...this.kept.values()]) {
      if (r.number <= applied) {
        this.#settle(r, durable, codes)
        if (r.number <= durable) this.#forget(r)
        continue
      }
      this.#forget(r)
      if (r.void) continue
      if (first && r.sent && this.#stuck(applied)) {
        const error = new ConnectionLost('connections are lost over the write')
        this.inflight.delete(r.seq)
        if (r.done) this.#tell(1, error)
        r.fail(error)
        this.#suspect = { applied, tries: 0 }
        continue
      }
      first = false
      again.push(r)
    }
    this.durable = durable
    this.next = applied + 1
    this.up = true
    const others = [...this.inflight.values()].filter((r) => !r.number)
    for (const r of [...again, ...others].sort((a, b) => a.seq - b.seq)) {
      if (r.number) this.#keep(r)
      this.#queue(r)
      this.inflight.set(r.seq, r) // also one that was answered before: it is answered again
    }
  }

  // settle finds out the answer to a write that took effect, unless it is known.
  #settle(r, durable, codes) {
    this.inflight.delete(r.seq)
    const code = codes?.get(r.number)
    if (code !== undefined) {
      this.#forget(r)
      r.fail(refused([code, 'refused, the reason was lost with the connection']))
    } else if (codes && r.sure && (!r.sync || r.number <= durable)) {
      r.answer(r.sure[0])
    } else {
      r.fail(new AnswerLost('connection lost, the write took effect unless it was refused'))
    }
  }

  // stuck tells whether the first write the daemon does not have has been on too many connections.
  #stuck(applied) {
    const tries = this.#suspect.applied === applied ? this.#suspect.tries + 1 : 1
    this.#suspect = { applied, tries }
    return tries > MAX_TRIES
  }

  // sessionLost begins anew: what was sent and is not durable is uncertain for good, the rest goes on.
  #sessionLost(cause) {
    const error = cause instanceof SessionLost ? cause : new SessionLost(cause.message)
    let unconfirmed = 0
    const rest = []
    for (const r of [...this.kept.values()]) {
      this.#forget(r)
      if (!r.done && !r.sent && !this.#wasSent(r)) {
        rest.push(r)
      } else if (r.done && !r.void) {
        unconfirmed++
        this.inflight.delete(r.seq)
      } else {
        this.#drop(r, error)
      }
    }
    for (const r of [...this.inflight.values()]) { // in the next session a sync would answer for what is lost
      if (r.nature === DURABLE) this.#drop(r, error)
    }
    const lost = this.session
    this.session = null
    this.foreign = false
    this.durable = this.applied = 0
    this.next = 1
    for (const r of rest) this.#keep(r)
    this.#tell(unconfirmed, error, lost)
  }

  #tell(unconfirmed, error, session = this.session) {
    this.options.onSessionLoss?.({ session, unconfirmed, error })
  }

  state() {
    if (!this.options.session || this.session === null) return null
    return { id: this.session, written: this.next - 1, durable: this.durable, applied: this.applied }
  }
}
