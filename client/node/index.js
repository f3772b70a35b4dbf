// Client of rskvd, a key-value daemon for the programs of one Linux machine.
//
//	import { connect } from 'rskv'
//
//	const c = await connect()
//	await c.put('greeting', 'hello')
//	await c.get('greeting')                     // <Buffer 68 65 6c 6c 6f>, null if absent
//	await Promise.all(keys.map((k) => c.get(k))) // one write, one connection
//	await c.close()
//
// What a lost connection means: it is made again, with growing pauses. Requests that change nothing
// are sent again; a write is only if it was not sent, else it fails with AnswerLost, because nobody
// knows whether it took effect. With {session: true} each write is kept until it is on stable
// storage, and sent again after a lost connection or a crash of the daemon, from where the daemon
// says it got: it takes effect once. Its answer may be lost all the same (AnswerLost), if there is
// more than one answer to it. close ends that promise: sync before it.

import { once } from 'node:events'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { Core, MAX_MESSAGE } from './lib/core.js'
import { ConnectionLost, RskvError, ShuttingDown } from './lib/errors.js'
import { Feed } from './lib/feed.js'
import * as requests from './lib/request.js'

export {
  RskvError, Closed, ProtocolError, ConnectionLost, AnswerLost, SessionLost, Refused, BadRequest, UnknownMethod, TooLarge,
  KeyTooLarge, ValueTooLarge, RequestTooLarge, AnswerTooLarge, NotInteger, Overflow, Forbidden, Busy, DiskFull, ReadOnly, Corrupt,
  IO, SessionUnknown, CursorLost, ShuttingDown, Internal,
} from './lib/errors.js'

const HELLO_MAX = 30_000 // ms the daemon may take to greet: it may have to finish what the session had begun
const PAUSE_MIN = 5 // ms between attempts to connect; each is twice the one before, less up to half at random
const PAUSE_MAX = 1000

// connect returns a Client that is connected.
export const connect = (options) => Client.connect(options)

// defaultSocket is the path a daemon listens on unless it was told another.
export function defaultSocket(env = process.env, uid = process.getuid()) {
  if (env.RSKV_SOCKET) return env.RSKV_SOCKET
  const runtime = env.RUNTIME_DIRECTORY?.split(':')[0]
  if (runtime) return path.join(runtime, 'rskv.sock')
  if (uid === 0) return '/run/rskv/rskv.sock'
  for (const [name, ...below] of [['XDG_RUNTIME_DIR', 'rskv'], ['XDG_STATE_HOME', 'rskv'], ['HOME', '.local', 'state', 'rskv']]) {
    if (path.isAbsolute(env[name] ?? '')) return path.join(env[name], ...below, 'rskv.sock')
  }
  return path.join(os.tmpdir(), `rskv-${uid}`, 'rskv.sock')
}

// Client is a connection to the daemon, which is made again when it is lost. Requests that are made
// in one turn of the event loop are one write.
export class Client {
  #core
  #socket = null
  #ended = null // settles with the reason when the connection is lost
  #running = null // the loop that looks after the connection
  #stop = new AbortController()
  #flushing = false
  #refusing = null // why there has been no connection for retryFor
  #room = null // the sync that writes wait for which a session has no room to keep

  constructor({ path: socket, retryFor = 5000, session = false, maxKept = 100_000, name = '', onSessionLoss } = {}) {
    this.path = socket ?? defaultSocket()
    this.retryFor = retryFor
    const resume = session instanceof Uint8Array ? Buffer.from(session) : null
    this.#core = new Core({ session: Boolean(session), resume, name, maxKept, maxKeptBytes: 64 << 20, onSessionLoss })
  }

  static async connect(options = {}) {
    const c = new Client(options)
    try {
      await c.#connect()
    } catch (e) {
      await c.close()
      throw e.cause ?? e // ENOENT says more than a lost connection
    }
    c.#running = c.#run()
    return c
  }

  // close ends the connection; everything in flight fails with Closed.
  async close() {
    this.#core.closed = true
    this.#stop.abort()
    this.#hangUp()
    this.#core.refuse(new RskvError('closed'))
    await this.#running
  }

  async [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() {
    await this.close()
  }

  // session tells how far the session is: {id, written, durable, applied}; null without one.
  get session() {
    return this.#core.state()
  }

  ping(o) { return this.#call(requests.ping(), o) }
  get(key, o) { return this.#call(() => requests.get(key), o) }
  exists(key, o) { return this.#call(() => requests.exists(key), o) }
  put(key, value, o) { return this.#call(() => requests.put(key, value, o), o) }
  del(key, o) { return this.#call(() => requests.del(key, o), o) }
  cas(key, old, value, o) { return this.#call(() => requests.cas(key, old, value, o), o) }
  add(key, delta = 1, o = undefined) { return this.#call(() => requests.add(key, delta, o), o) }
  expire(key, ttl, o) { return this.#call(() => requests.expire(key, ttl, o), o) }
  persist(key, o) { return this.#call(() => requests.expire(key, null, o), o) }
  ttl(key, o) { return this.#call(() => requests.ttl(key), o) }
  append(key, tail, o) { return this.#call(() => requests.append(key, tail, o), o) }
  mget(keys, o) { return this.#call(() => requests.mget(keys), o) }
  mput(pairs, o) { return this.#call(() => requests.mput(pairs, o), o) }
  mdel(keys, o) { return this.#call(() => requests.mdel(keys, o), o) }
  len(o) { return this.#call(() => requests.length(o), o) }
  sync(o) { return this.#call(requests.sync(), o) }
  stats(o) { return this.#call(requests.stats(), o) }
  health(o) { return this.#call(requests.health(), o) }
  config(changes, o) { return this.#call(() => requests.config(changes), o) }
  call(method, ...params) { return this.#call(() => requests.call(method, params)) }

  // scan yields [key, value] of all keys that begin with prefix. CursorLost says that it was interrupted
  // for too long: begin anew. A daemon with the ordered index (setting ordered) yields them in the order
  // of the keys, from one on and below another (from, to), the highest first if reverse. Without it there
  // is no order, and these are a BadRequest.
  async *scan(o = {}) { yield* this.#scan(o, false) }

  // scanKeys is scan without the values.
  async *scanKeys(o = {}) { yield* this.#scan(o, true) }

  async *#scan(o, keys) {
    let cursor = null
    do {
      const page = await this.#call(() => requests.scan(o, cursor, keys), o)
      yield* page.entries
      cursor = page.next
    } while (cursor !== null)
  }

  // watch yields what is changed of the keys that begin with prefix, commit by commit, until the loop is
  // left. The first that comes is a commit with the address at which the watch begins: from now on, or
  // since the address of a commit that came before. It has a connection of its own; if that is lost it
  // goes on where it was: nothing comes twice and nothing is missing. CursorLost says that the daemon has
  // given back what was not told yet: begin anew, with a scan behind the first commit.
  async *watch({ prefix = '', since = null, signal } = {}) {
    const feed = new Feed(prefix, since, 2 * MAX_MESSAGE)
    for (;;) {
      const socket = await this.#dialWatch(signal)
      const abort = () => socket.destroy(new ConnectionLost('the watch was ended'))
      signal?.addEventListener('abort', abort, { once: true })
      this.#stop.signal.addEventListener('abort', abort, { once: true })
      try {
        socket.write(feed.begin())
        for await (const received of socket) yield* feed.take(received)
      } catch (e) {
        signal?.throwIfAborted()
        const again = e instanceof ConnectionLost || e instanceof ShuttingDown || !(e instanceof RskvError || e.code === undefined)
        if (!again) throw e
      } finally {
        signal?.removeEventListener('abort', abort)
        this.#stop.signal.removeEventListener('abort', abort)
        socket.destroy()
      }
      if (this.#core.closed) return
    }
  }

  async #dialWatch(signal) {
    const begin = performance.now()
    for (let pause = PAUSE_MIN; ; pause = Math.min(2 * pause, PAUSE_MAX)) {
      signal?.throwIfAborted()
      const socket = net.connect(this.path)
      try {
        await once(socket, 'connect')
        return socket
      } catch (e) {
        socket.destroy()
        if (this.#core.closed || performance.now() - begin + pause > this.retryFor) {
          throw new ConnectionLost(`no connection to ${this.path}: ${e.message}`, { cause: e })
        }
      }
      await sleep(pause * (0.5 + Math.random() / 2))
    }
  }

  // A call fails by its promise, whatever it is about.
  async #call(request, { signal } = {}) {
    signal?.throwIfAborted()
    const r = typeof request === 'function' ? request() : request
    if (this.#refusing) throw new ConnectionLost(`no connection to ${this.path}: ${this.#refusing.message}`)
    while (r.nature === requests.WRITE && this.#core.over()) await this.#makeRoom()
    signal?.throwIfAborted()
    this.#core.submit(r)
    this.#flushSoon()
    if (!signal) return r.promise
    const abort = () => this.#core.giveUp(r, signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    return r.promise.finally(() => signal.removeEventListener('abort', abort))
  }

  // One sync serves all who wait.
  #makeRoom() {
    this.#room ??= this.#core.askSync().promise.finally(() => {
      this.#room = null
    })
    this.#flushSoon()
    return this.#room
  }

  #flushSoon() {
    if (this.#flushing || this.#core.out.length === 0) return
    this.#flushing = true
    queueMicrotask(() => {
      this.#flushing = false
      this.#flush()
    })
  }

  #flush() {
    if (this.#socket && this.#core.out.length > 0) this.#socket.write(this.#core.take())
  }

  // run looks after the connection until the client is closed.
  async #run() {
    while (!this.#core.closed) {
      const cause = await this.#ended
      if (this.#core.closed) return
      this.#core.lost(cause)
      await this.#again(cause)
    }
  }

  // again connects, with growing pauses. After retryFor what is in flight fails, and what comes.
  async #again(cause) {
    const begin = performance.now()
    for (let pause = PAUSE_MIN; !this.#core.closed; pause = Math.min(2 * pause, PAUSE_MAX)) {
      const left = begin + this.retryFor - performance.now()
      if (left <= 0) {
        this.#refusing = cause
        this.#core.refuse(cause)
      }
      const wait = pause * (0.5 + Math.random() / 2)
      await sleep(left > 0 ? Math.min(wait, left) : wait, undefined, { signal: this.#stop.signal }).catch(() => {})
      try {
        await this.#connect()
        this.#refusing = null
        return
      } catch (e) {
        this.#core.lost(e)
        cause = e
      }
    }
  }

  // connect makes one connection, and resolves when it is greeted.
  #connect() {
    return new Promise((resolve, reject) => {
      if (this.#core.closed) {
        reject(new ConnectionLost('the client is closed'))
        return
      }
      const socket = net.connect(this.path)
      const late = setTimeout(() => socket.destroy(new Error(`the daemon did not greet within ${HELLO_MAX / 1000} s`)), HELLO_MAX)
      this.#socket = socket
      let cause = new ConnectionLost('the daemon closed the connection')
      const greeted = () => {
        clearTimeout(late)
        this.#flush()
        resolve()
      }
      this.#ended = new Promise((ended) => {
        socket.on('error', (e) => {
          cause = e instanceof RskvError ? e : new ConnectionLost(e.message, { cause: e })
        })
        socket.on('close', () => {
          clearTimeout(late)
          if (this.#socket === socket) this.#socket = null
          reject(cause) // nothing happens if it was greeted
          ended(cause)
        })
      })
      socket.on('connect', () => {
        this.#core.greet()
        this.#flush()
        if (this.#core.up) greeted()
      })
      socket.on('data', (received) => {
        const wasUp = this.#core.up
        try {
          this.#core.feed(received)
        } catch (e) {
          socket.destroy(e)
          return
        }
        if (!wasUp && this.#core.up) greeted()
        else this.#flushSoon()
      })
      socket.on('end', () => socket.destroy())
    })
  }

  #hangUp() {
    this.#socket?.destroy()
  }
}
