// The published bytes are what this client sends and understands.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import fs from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { test } from 'node:test'

import * as rskv from '../index.js'
import { codes, refused } from '../lib/errors.js'
import { Feed } from '../lib/feed.js'
import { decode, encode, Splitter } from '../lib/msgpack.js'
import { root, tempDir } from './daemon.js'
import { vectors } from './vectors.js'

// What the client is asked, by the notation of the request that it must send.
const calls = {
  '[0, 1, "ping", []]': (c) => c.ping(),
  '[0, 7, "get", [\'k\']]': (c) => c.get('k'),
  '[0, 300, "exists", [\'k\']]': (c) => c.exists(Buffer.from('k')),
  '[0, 70000, "put", [\'k\', \'v\']]': (c) => c.put('k', 'v'),
  '[0, 2, "put", [\'k\', \'v\', {"if": "absent", "sync": true}]]': (c) => c.put('k', 'v', { ifAbsent: true, sync: true }),
  '[0, 2, "put", [\'k\', \'v\', {"ttl": 60000}]]': (c) => c.put('k', 'v', { ttl: 60_000 }),
  '[0, 12, "expire", [\'k\', 60000]]': (c) => c.expire('k', 60_000),
  '[0, 12, "expire", [\'k\', nil, {"sync": true}]]': (c) => c.persist('k', { sync: true }),
  '[0, 12, "ttl", [\'k\']]': (c) => c.ttl('k'),
  '[0, 3, "del", [\'k\']]': (c) => c.del('k'),
  '[0, 3, "del", [\'k\', {"blind": true}]]': (c) => c.del('k', { blind: true }),
  '[0, 4, "cas", [\'k\', \'v\', \'w\']]': (c) => c.cas('k', 'v', 'w'),
  '[0, 5, "cas", [\'lock\', nil, \'me\', {"sync": true}]]': (c) => c.cas('lock', null, 'me', { sync: true }),
  '[0, 6, "add", [\'n\', -1]]': (c) => c.add('n', -1),
  '[0, 8, "append", [\'k\', \'tail\']]': (c) => c.append('k', 'tail'),
  '[0, 9, "mget", [[\'a\', \'b\']]]': (c) => c.mget(['a', 'b']),
  '[0, 10, "mput", [[[\'a\', \'1\'], [\'b\', \'2\']]]]': (c) => c.mput({ a: '1', b: '2' }),
  '[0, 11, "mdel", [[\'a\', \'b\'], {"sync": true}]]': (c) => c.mdel(['a', 'b'], { sync: true }),
  '[0, 12, "len", []]': (c) => c.len(),
  '[0, 12, "len", [{"exact": true}]]': (c) => c.len({ exact: true }),
  '[0, 23, "scan", [{"prefix": \'a\', "count": 2}]]': async (c) => (await c.scan({ prefix: 'a', count: 2 }).next()).value,
  '[0, 25, "scan", [{"from": \'a\', "to": \'ac\', "count": 2, "reverse": true}]]': async (c) => (await c.scan({ from: 'a', to: 'ac', count: 2, reverse: true }).next()).value,
  '[0, 13, "sync", []]': (c) => c.sync(),
  '[0, 14, "stats", []]': (c) => c.stats(),
  '[0, 26, "health", []]': (c) => c.health(),
  '[0, 15, "config", []]': (c) => c.config(),
  '[0, 15, "config", [{"set": {"commit_interval": "5ms"}}]]': (c) => c.config({ commit_interval: '5ms' }),
  '[0, 16, "checkpoint", [{"kind": "full", "cookie": \'nightly\'}]]': (c) => c.call('checkpoint', { kind: 'full', cookie: Buffer.from('nightly') }),
}

// What the client makes of an answer, where that is not the result itself.
const read = { ping: () => undefined, ttl: (r) => (r === -1 ? Infinity : r), sync: (r) => r.durable, scan: (r) => r[1][0] }

// Maps come without a prototype, which deepEqual minds.
const plain = (v) => JSON.parse(JSON.stringify(v ?? null))

const behindID = (m) => m.subarray(2 + ({ 0xcc: 2, 0xcd: 3, 0xce: 5 }[m[2]] ?? 1))

test('bytes match their notation', () => {
  // What could go wrong: the codec reads, or writes, other than the protocol says.
  const all = vectors()
  assert.ok(all.length > 40)
  let shortest = 0
  for (const v of all) {
    assert.deepEqual(plain(decode(v.bytes)), plain(v.value), v.notation)
    shortest += encode(v.value).equals(v.bytes)
    const split = new Splitter(1 << 20) // byte by byte, and two of them in one piece
    const found = []
    for (const b of v.bytes) found.push(...split.push(Buffer.of(b)))
    found.push(...split.push(Buffer.concat([v.bytes, v.bytes])))
    assert.deepEqual(plain(found), plain([v.value, v.value, v.value]), v.notation)
  }
  assert.ok(shortest >= all.length - 3) // all but those that show other forms
})

test('calls send the bytes and read the answers', async (t) => {
  // What could go wrong: a method sends other bytes than the published ones, or returns something else.
  const byNotation = new Map()
  const byMethod = new Map() // the answers of a method, for requests that show none
  let last = null
  for (const v of vectors()) {
    if (v.toDaemon && v.value[0] === 0) {
      if (!byNotation.has(v.notation)) byNotation.set(v.notation, [v])
      last = byNotation.get(v.notation)
    } else if (v.value[0] === 1 && v.value[1] === last[0].value[1]) {
      last.push(v)
      const method = last[0].value[2]
      byMethod.set(method, [...(byMethod.get(method) ?? []), v])
    }
  }
  let answered = 0
  for (const [notation, call] of Object.entries(calls)) {
    const [request, ...responses] = byNotation.get(notation)
    for (const response of responses.length > 0 ? responses : byMethod.get(request.value[2]).slice(0, 1)) {
      answered++
      const where = path.join(tempDir(t), 's')
      let received = Buffer.alloc(0)
      const server = net.createServer((s) => {
        s.on('data', (b) => {
          received = Buffer.concat([received, b])
          s.write(Buffer.concat([Buffer.of(0x94, 0x01), encode(decode(received)[1]), behindID(response.bytes)]))
        })
        s.on('error', () => {})
      })
      server.listen(where)
      await once(server, 'listening')
      const c = await rskv.connect({ path: where })
      const [, , error, result] = response.value
      const method = request.value[2]
      if (error) {
        await assert.rejects(call(c), (e) => e instanceof rskv.Refused && e.code === error[0] && e.message === error[1])
      } else {
        const want = method in read ? read[method](result) : result
        assert.deepEqual(plain(await call(c)), plain(want), response.notation)
      }
      await c.close()
      server.close()
      assert.deepEqual(received.subarray(0, 2), Buffer.of(0x94, 0x00))
      assert.deepEqual(behindID(received), behindID(request.bytes), notation)
    }
  }
  assert.ok(answered > 20)
})

test('watch', () => {
  // What could go wrong: a change is read as another, or comes twice after a lost connection.
  const all = vectors()
  const requests = all.filter((v) => v.value[0] === 0 && v.value[2] === 'watch')
  const first = all.slice(all.indexOf(requests[0])).filter((v) => !v.toDaemon).slice(0, 4)
  const feed = new Feed('a', null, 1 << 20)
  assert.deepEqual(behindID(feed.begin()), behindID(requests[0].bytes))
  const got = first.flatMap((v) => [...v.bytes].flatMap((b) => feed.take(Buffer.of(b))))
  assert.deepEqual(got, [
    { op: 'commit', address: 4096 },
    { op: 'put', address: 4128, key: Buffer.from('a'), value: Buffer.from('1') },
    { op: 'del', address: 4160, key: Buffer.from('ab'), value: null },
    { op: 'commit', address: 8192 },
  ])
  assert.deepEqual(behindID(feed.begin()), behindID(requests[1].bytes))
  assert.deepEqual(feed.take(Buffer.concat(first.map((v) => v.bytes))), [], 'came before')
  assert.throws(() => feed.take(all.find((v) => v.value[1] === 'lagged').bytes), rskv.ConnectionLost)
  feed.begin()
  assert.throws(() => feed.take(all.find((v) => v.value[0] === 1 && v.value[2]?.[0] === 'CursorLost').bytes), rskv.CursorLost)
})

test('every code has a class', () => {
  // What could go wrong: a code of the protocol is no class of its own.
  const source = fs.readFileSync(path.join(root, 'ipc', 'errors.go'), 'utf8')
  const names = [...source.matchAll(/Code = "(\w+)"/g)].map((m) => m[1])
  assert.ok(names.length > 15)
  for (const name of names) {
    assert.equal(codes.get(name).name, name)
    assert.equal(rskv[name], codes.get(name))
  }
  assert.equal(String(refused(['New', 'of tomorrow'])), 'Refused: of tomorrow')
})

test('integers in every form', () => {
  // What could go wrong: an integer at the edge of an encoding comes back as another.
  for (const exponent of [0, 5, 7, 8, 15, 16, 31, 32, 52, 53, 62, 63, 64]) {
    for (const sign of [1n, -1n]) {
      for (const off of [-2n, -1n, 0n, 1n]) {
        const v = sign * (1n << BigInt(exponent)) + off
        if (v < -(1n << 63n) || v >= 1n << 64n) {
          assert.throws(() => encode(v), RangeError)
          continue
        }
        const back = decode(encode(v))
        assert.equal(BigInt(back), v)
        assert.equal(typeof back, Number.isSafeInteger(Number(v)) ? 'number' : 'bigint', String(v))
        if (Number.isSafeInteger(Number(v))) assert.deepEqual(encode(Number(v)), encode(v))
      }
    }
  }
})

test('damaged and hostile bytes cost nothing', () => {
  // What could go wrong: five bytes have gigabytes set aside for them, or nesting overflows the stack.
  const before = process.memoryUsage().heapUsed + process.memoryUsage().arrayBuffers
  for (const hex of ['c640000000', 'db40000000', 'dd10000000', 'df10000000', 'c1', '', '92', 'cf00', 'c7', 'd4']) {
    assert.throws(() => decode(Buffer.from(hex, 'hex')), RangeError, hex)
  }
  assert.throws(() => decode(Buffer.alloc(1_000_000, 0x91)), RangeError)
  assert.throws(() => decode(Buffer.from('0101', 'hex')), RangeError, 'more than one value')
  assert.throws(() => new Splitter(1000).push(Buffer.from('c640000000', 'hex')), RangeError)
  assert.throws(() => new Splitter(1000).push(Buffer.from('dd10000000', 'hex')), RangeError)
  assert.ok(process.memoryUsage().heapUsed + process.memoryUsage().arrayBuffers - before < 100 << 20)
  assert.deepEqual(Object.keys(decode(encode(JSON.parse('{"__proto__": 1}')))), ['__proto__'])
  for (const v of [1.5, NaN, 2 ** 60, () => {}, Symbol('x')]) assert.throws(() => encode(v), TypeError)
})
