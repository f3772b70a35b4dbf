// Requests: how each method is encoded, what a lost connection means for it, how its answer is read.

import { encode } from './msgpack.js'
import { ProtocolError } from './errors.js'

export const READ = 'read' // changes nothing: may be sent twice
export const WRITE = 'write' // changes keys: sent twice by a session only
export const ONCE = 'once' // about something else, or the connection: never sent twice
export const DURABLE = 'durable' // sync: tells how far the session is durable; sent again by a session only

// Request is one request, from the call to its answer.
export class Request {
  seq = 0 // order of submission
  number = 0 // in the session; 0: it has none
  tries = 0 // connections it was queued for
  end = 0 // where it ends in what was queued on the connection
  sent = false // a connection had taken all of it
  void = false // must not be sent again: refused, or given up before it was sent
  done = false // answered, failed or given up
  failed = null // the error, if that is how it ended

  // read turns the answer's result into the caller's, or throws. sure, if there, is the one answer
  // to the write unless it is refused.
  constructor(nature, read, method, params, { sure, sync = false } = {}) {
    this.nature = nature
    this.read = read
    this.sure = sure
    this.sync = sync
    this.body = Buffer.concat([encode(method), encode(params)])
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
    this.promise.catch(() => {}) // one that nobody waits for any more
  }

  message(id) {
    return Buffer.concat([Buffer.of(0x94, 0x00), encode(id), this.body])
  }

  answer(result) {
    if (this.done) return
    let value
    try {
      value = this.read(result)
    } catch (e) {
      this.fail(e instanceof RangeError ? e : new ProtocolError(`unexpected answer: ${e.message}`))
      return
    }
    this.done = true
    this.resolve(value)
  }

  fail(error) {
    if (this.done) return
    this.done = true
    this.failed = error
    this.reject(error)
  }
}

// bytes returns a key or value as it is sent; a string is its UTF-8.
function bytes(b) {
  if (typeof b === 'string') return Buffer.from(b)
  if (b instanceof Uint8Array) return b
  throw new TypeError(`keys and values are strings or Uint8Arrays, not ${b === null ? 'null' : typeof b}`)
}

const orNull = (b) => (b === null ? null : bytes(b))

// options returns the parameter for options: those that were given, or none.
function options(given) {
  const there = Object.entries(given).filter(([, v]) => v !== undefined && v !== null && v !== false)
  return there.length > 0 ? [Object.fromEntries(there)] : []
}

function expect(is, what) {
  return (result) => {
    if (!is(result)) throw new TypeError(`not ${what}`)
    return result
  }
}

// ttl returns how long a key has to live, in milliseconds, as it is sent.
function millis(ttl) {
  if (ttl === undefined || ttl === null) return undefined
  if (!(ttl > 0 && Number.isFinite(ttl))) throw new RangeError(`a time to live is above 0, not ${ttl}`)
  return Math.max(1, Math.round(ttl))
}

const anything = (result) => result
const bool = expect((r) => typeof r === 'boolean', 'a bool')
const boolOrNull = expect((r) => r === null || typeof r === 'boolean', 'a bool or nil')
const number = expect((r) => typeof r === 'number', 'a number')
const numberOrNull = expect((r) => r === null || typeof r === 'number', 'a number or nil')
const buffer = expect((r) => Buffer.isBuffer(r), 'a byte string')
const bufferOrNull = expect((r) => r === null || Buffer.isBuffer(r), 'a byte string or nil')
const map = expect((r) => r !== null && typeof r === 'object' && !Array.isArray(r) && !Buffer.isBuffer(r), 'a map')
const list = expect(Array.isArray, 'an array')

export const ping = () => new Request(READ, () => undefined, 'ping', [])
export const get = (key) => new Request(READ, bufferOrNull, 'get', [bytes(key)])
export const exists = (key) => new Request(READ, bool, 'exists', [bytes(key)])

export function put(key, value, { ifAbsent, ifPresent, ttl, sync } = {}) {
  if (ifAbsent && ifPresent) throw new TypeError('ifAbsent and ifPresent exclude each other')
  const condition = ifAbsent ? 'absent' : ifPresent ? 'present' : undefined
  const params = [bytes(key), bytes(value), ...options({ ttl: millis(ttl), if: condition, sync })]
  return new Request(WRITE, bool, 'put', params, { sure: condition ? undefined : [true], sync })
}

export function del(key, { blind, sync } = {}) {
  return new Request(WRITE, boolOrNull, 'del', [bytes(key), ...options({ blind, sync })], { sure: blind ? [null] : undefined, sync })
}

export function cas(key, old, value, { ttl, sync } = {}) {
  const params = [bytes(key), orNull(old), orNull(value), ...options({ ttl: millis(ttl), sync })]
  return new Request(WRITE, bool, 'cas', params, { sync })
}

// expire gives a key so many milliseconds to live; null takes its expiry away.
export function expire(key, ttl, { sync } = {}) {
  return new Request(WRITE, bool, 'expire', [bytes(key), ttl === null ? null : millis(ttl), ...options({ sync })], { sync })
}

export function ttl(key) {
  const read = (left) => (numberOrNull(left) !== null && left < 0 ? Infinity : left)
  return new Request(READ, read, 'ttl', [bytes(key)])
}

// add answers with a number to a number, and with a bigint to a bigint.
export function add(key, delta, { ttl, sync } = {}) {
  const read = (sum) => {
    if (typeof sum !== 'number' && typeof sum !== 'bigint') throw new TypeError('not an integer')
    if (typeof delta === 'bigint') return BigInt(sum)
    if (typeof sum === 'bigint') throw new RangeError(`the sum, ${sum}, is beyond what a number holds: add a bigint`)
    return sum
  }
  return new Request(WRITE, read, 'add', [bytes(key), delta, ...options({ ttl: millis(ttl), sync })], { sync })
}

export function append(key, tail, { sync } = {}) {
  return new Request(WRITE, number, 'append', [bytes(key), bytes(tail), ...options({ sync })], { sync })
}

export function mget(keys) {
  const wanted = Array.from(keys, bytes)
  const read = (result) => {
    if (list(result).length !== wanted.length) throw new TypeError(`${result.length} values for ${wanted.length} keys`)
    return result.map(bufferOrNull)
  }
  return new Request(READ, read, 'mget', [wanted])
}

// mput takes a Map, an iterable of pairs, or an object.
export function mput(pairs, { ttl, sync } = {}) {
  const entries = typeof pairs[Symbol.iterator] === 'function' ? pairs : Object.entries(pairs)
  const all = Array.from(entries, ([k, v]) => [bytes(k), bytes(v)])
  return new Request(WRITE, number, 'mput', [all, ...options({ ttl: millis(ttl), sync })], { sure: [all.length], sync })
}

export function mdel(keys, { blind, sync } = {}) {
  const params = [Array.from(keys, bytes), ...options({ blind, sync })]
  return new Request(WRITE, numberOrNull, 'mdel', params, { sure: blind ? [null] : undefined, sync })
}

export function scan({ prefix = '', from, to, reverse, count = 1000 }, cursor, keys) {
  const read = (result) => {
    const [next, entries] = list(result)
    const one = keys ? buffer : (e) => list(e).map(buffer)
    return { next: bufferOrNull(next), entries: list(entries).map(one) }
  }
  const bound = (key) => (key === undefined || key === null ? null : bytes(key))
  const given = options({ prefix: bytes(prefix).length > 0 ? bytes(prefix) : null, from: bound(from), to: bound(to), count, cursor, keys, reverse })
  return new Request(READ, read, 'scan', given)
}

// watch is the request that a watch's connection begins with.
export function watch(prefix, from) {
  return new Request(ONCE, number, 'watch', options({ prefix: bytes(prefix).length > 0 ? bytes(prefix) : null, from }))
}

export const length = ({ exact } = {}) => new Request(READ, number, 'len', options({ exact }))
export const sync = () => new Request(DURABLE, (r) => number(map(r).durable), 'sync', [])
export const stats = () => new Request(READ, map, 'stats', [])
export const health = () => new Request(READ, map, 'health', [])

export function config(changes) {
  return changes ? new Request(ONCE, map, 'config', [{ set: changes }]) : new Request(READ, map, 'config', [])
}

const own = new Set(['put', 'del', 'cas', 'add', 'append', 'mput', 'mdel', 'hello', 'sync', 'expire', 'watch'])

export function call(method, params) {
  if (own.has(method)) throw new TypeError(`${method} has a method of its own`)
  return new Request(ONCE, anything, method, params)
}
