// The client against the daemon.

import assert from 'node:assert/strict'
import crypto from 'node:crypto'
import { test } from 'node:test'

import * as rskv from '../index.js'
import { Line, randomSeed, startDaemon } from './daemon.js'

async function connected(t, path, options) {
  const c = await rskv.connect({ path, ...options })
  t.after(() => c.close())
  return c
}

async function all(iterable) {
  const list = []
  for await (const v of iterable) list.push(v)
  return list
}

const text = (b) => b?.toString() ?? null

test('methods', async (t) => {
  // What could go wrong: a method does something else than it says.
  const d = await startDaemon(t)
  const c = await connected(t, d.socket)
  await c.ping()
  assert.equal(await c.get('k'), null)
  assert.equal(await c.put('k', 'v', { ifPresent: true }), false)
  assert.equal(await c.put('k', 'v', { ifAbsent: true, sync: true }), true)
  assert.equal(text(await c.get(new Uint8Array([0x6b]))), 'v')
  assert.equal(await c.exists('k'), true)
  assert.equal(await c.append('k', '12'), 3)
  assert.equal(await c.cas('k', 'v', 'w'), false)
  assert.equal(await c.cas('k', 'v12', ''), true)
  assert.equal((await c.get('k')).length, 0)
  assert.equal(await c.cas('k', '', null), true)
  assert.equal(await c.cas('k', null, 'new'), true)
  assert.equal(await c.del('k'), true)
  assert.equal(await c.del('k'), false)
  assert.equal(await c.del('k', { blind: true }), null)
  assert.equal(await c.add('n'), 1)
  assert.equal(await c.add('n', -5), -4)
  assert.equal(await c.add('n', 4n), 0n)
  assert.equal(await c.add('n', 2n ** 60n), 2n ** 60n)
  await assert.rejects(c.add('n', 1), RangeError)
  assert.equal(await c.add('n', 0n), 2n ** 60n + 1n) // it took effect, as RangeError says
  assert.equal(await c.mput(new Map([['a', '1'], [Buffer.from('b'), '2']])), 2)
  assert.equal(await c.mput([['c', '3']], { sync: true }), 1)
  assert.deepEqual((await c.mget(['a', 'none', 'c'])).map(text), ['1', null, '3'])
  assert.equal(await c.mdel(['a', 'none']), 1)
  assert.equal(await c.mdel(['b', 'c'], { blind: true }), null)
  assert.equal(await c.len({ exact: true }), 1)
  assert.equal(await c.len(), 1)
  await c.sync()
  assert.equal((await c.stats()).health, 'ok')
  assert.equal((await c.health()).state, 'ok')
  assert.equal((await c.config({ log_level: 'warn' })).log_level, 'warn')
  assert.ok((await c.call('checkpoint', { kind: 'log' })).version > 0)
  assert.equal(c.session, null)
})

test('ttl', async (t) => {
  // What could go wrong: a key lives a thousand times longer than it should.
  const d = await startDaemon(t)
  const c = await connected(t, d.socket)
  await c.put('k', 'v', { ttl: 60_000 })
  const left = await c.ttl('k')
  assert.ok(left > 50_000 && left <= 60_000)
  assert.equal(await c.expire('k', 3_600_000), true)
  assert.ok((await c.ttl('k')) > 3_000_000)
  assert.equal(await c.persist('k'), true)
  assert.equal(await c.ttl('k'), Infinity)
  assert.equal(await c.ttl('none'), null)
  assert.equal(await c.expire('none', 1), false)
  await c.add('n', 1, { ttl: 60_000 })
  await c.mput({ m: 'v' }, { ttl: 60_000 })
  await c.cas('c', null, 'v', { ttl: 60_000 })
  for (const key of ['n', 'm', 'c']) assert.ok((await c.ttl(key)) <= 60_000)
  await c.put('k', 'v', { ttl: 1 })
  await new Promise((r) => setTimeout(r, 10))
  assert.equal(await c.get('k'), null)
  await assert.rejects(c.put('k', 'v', { ttl: 0 }), RangeError)
})

test('watch', async (t) => {
  // What could go wrong: a change is missed or comes twice when the daemon or the line goes away.
  const d = await startDaemon(t)
  const seed = randomSeed()
  const writer = await connected(t, d.socket, { session: true, retryFor: 60_000 })
  const watcher = await connected(t, d.socket, { retryFor: 60_000 })
  const line = await Line.to(t, d.socket, seed, 60_000)
  watcher.path = line.path // its watch is cut, not its other requests
  const changes = watcher.watch({ prefix: 'w/' })
  const begin = (await changes.next()).value
  assert.equal(begin.op, 'commit')
  const writing = (async () => {
    for (let i = 0; i < 600; i++) {
      await writer.put(`w/${i}`, String(i)).catch((e) => assert.ok(e instanceof rskv.AnswerLost, e))
      if (i % 200 === 100) await d.crash()
    }
    await writer.del('w/0')
    await writer.put('w/end', '', { sync: true })
  })()
  const state = new Map()
  let last = begin.address
  for await (const change of changes) {
    if (change.op === 'commit') {
      assert.ok(change.address > last, `seed ${seed}`)
      last = change.address
      if (state.has('w/end')) break
      continue
    }
    assert.ok(!state.has(text(change.key)) || text(change.key) === 'w/0', `seed ${seed}: ${text(change.key)} twice`)
    state.set(text(change.key), text(change.value))
  }
  await writing
  assert.equal(state.size, 601)
  assert.equal(state.get('w/0'), null)
  for (let i = 1; i < 600; i++) assert.equal(state.get(`w/${i}`), String(i), `seed ${seed}`)
  line.most = 0
  const again = watcher.watch({ prefix: 'w/e', since: begin.address })
  assert.equal((await again.next()).value.op, 'commit')
  assert.equal(text((await again.next()).value.key), 'w/end')
  await again.return()
  await assert.rejects(watcher.watch({ since: 2 ** 50 }).next(), rskv.CursorLost)
  const giveUp = new AbortController()
  const aborted = watcher.watch({ signal: giveUp.signal })
  await aborted.next()
  setTimeout(() => giveUp.abort(), 50)
  await assert.rejects(async () => { while (!(await aborted.next()).done); }, { name: 'AbortError' })
  const ended = watcher.watch()
  await ended.next()
  const next = ended.next()
  await watcher.close()
  assert.equal((await next).done, true, 'close ends a watch')
})

test('scan', async (t) => {
  // What could go wrong: a page is left out or comes twice.
  const d = await startDaemon(t)
  const c = await connected(t, d.socket)
  const want = Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`scan/${i}`, String(i)]))
  await c.mput(want)
  await c.put('other', '')
  const pairs = await all(c.scan({ prefix: 'scan/', count: 70 }))
  assert.equal(pairs.length, 500)
  assert.deepEqual(Object.fromEntries(pairs.map(([k, v]) => [text(k), text(v)])), want)
  assert.deepEqual((await all(c.scanKeys({ prefix: 'scan/', count: 70 }))).map(text).sort(), Object.keys(want).sort())
  assert.equal((await all(c.scanKeys())).length, 501)
})

test('scan in order', async (t) => {
  // What could go wrong: a bound or the direction is not heeded, or another daemon does not mind them.
  const d = await startDaemon(t, { ordered: 'on' })
  const c = await connected(t, d.socket)
  const keys = Array.from({ length: 500 }, (_, i) => String(i)).sort()
  await c.mput(keys.map((k) => [k, k]))
  assert.deepEqual((await all(c.scan({ count: 70 }))).map(([k]) => text(k)), keys)
  const part = keys.filter((k) => k >= '17' && k < '30')
  assert.deepEqual((await all(c.scanKeys({ from: '17', to: Buffer.from('30'), count: 7 }))).map(text), part)
  assert.deepEqual((await all(c.scanKeys({ from: '17', to: '30', reverse: true, count: 7 }))).map(text), part.reverse())
  const other = await startDaemon(t)
  const without = await connected(t, other.socket)
  await assert.rejects(all(without.scan({ from: 'a' })), { name: 'BadRequest' })
})

test('errors', async (t) => {
  // What could go wrong: an error cannot be told from another, or harms the connection.
  const d = await startDaemon(t)
  const c = await connected(t, d.socket)
  await c.put('text', 'abc')
  await assert.rejects(c.add('text'), (e) => e instanceof rskv.NotInteger && e.code === 'NotInteger' && e instanceof rskv.RskvError)
  await assert.rejects(c.put('k'.repeat(65536), 'v'), rskv.TooLarge)
  await assert.rejects(c.put('k', Buffer.alloc((16 << 20) + 1)), rskv.ValueTooLarge)
  await assert.rejects(c.mput([1, 2, 3, 4, 5].map((i) => [String(i), Buffer.alloc(16 << 20)])), rskv.RequestTooLarge)
  await assert.rejects(c.get(''), rskv.BadRequest)
  await assert.rejects(c.call('nonsense'), rskv.UnknownMethod)
  await assert.rejects(c.put('k', 5), TypeError)
  await assert.rejects(c.put('k', 'v', { ifAbsent: true, ifPresent: true }), TypeError)
  await assert.rejects(c.call('put', 'k', 'v'), TypeError)
  await c.ping()
  await c.close()
  await c.close()
  await assert.rejects(c.ping(), rskv.Closed)
  await assert.rejects(rskv.connect({ path: d.socket + '.none' }), { code: 'ENOENT' })
})

test('many at once', async (t) => {
  // What could go wrong: answers are given to other requests, or both sides wait for the other to read.
  const d = await startDaemon(t)
  const c = await connected(t, d.socket)
  const sums = await Promise.all(Array.from({ length: 5000 }, () => c.add('n')))
  assert.deepEqual(sums, Array.from({ length: 5000 }, (_, i) => i + 1))
  const value = crypto.randomBytes(1 << 20)
  const keys = Array.from({ length: 64 }, (_, i) => `large${i}`)
  const got = await Promise.all(keys.flatMap((k) => [c.put(k, value), c.get(k)]))
  for (let i = 1; i < got.length; i += 2) assert.ok(got[i].equals(value))
  for (const v of await c.mget(keys.slice(0, 32))) assert.ok(v.equals(value))
})

test('signal', async (t) => {
  // What could go wrong: a call hangs, or a late answer is given to another.
  const d = await startDaemon(t)
  const c = await connected(t, d.socket)
  await assert.rejects(c.get('k', { signal: AbortSignal.abort() }), { name: 'AbortError' })
  await d.pause()
  const late = c.add('late', 1, { signal: AbortSignal.timeout(100) })
  await assert.rejects(late, { name: 'TimeoutError' })
  d.resume()
  assert.equal(await c.add('late', 10), 11) // behind the one given up, on the same connection
  assert.equal(text(await c.get('none', { signal: AbortSignal.timeout(20_000) })), null)
})

test('a line that is cut', async (t) => {
  // What could go wrong: a read fails though it could be sent again, or a write is sent twice.
  const d = await startDaemon(t)
  const seed = randomSeed()
  const line = await Line.to(t, d.socket, seed, 4000)
  const c = await connected(t, line.path)
  let done = 0
  let lost = 0
  for (let i = 0; i < 1000 || line.cuts < 4; i++) {
    try {
      await c.add('n')
      done++
    } catch (e) {
      assert.ok(e instanceof rskv.ConnectionLost, e)
      if (e instanceof rskv.AnswerLost) lost++
    }
    assert.equal(await c.get('none'), null)
  }
  line.most = 0
  const direct = await connected(t, d.socket)
  const n = await direct.add('n', 0)
  assert.ok(done <= n && n <= done + lost, `seed ${seed}: ${done} done, ${lost} lost, ${n} counted`)
})

test('a daemon that is away', async (t) => {
  // What could go wrong: a call waits for ever, or the client does not come back.
  const d = await startDaemon(t)
  const c = await connected(t, d.socket, { retryFor: 200 })
  await c.put('k', 'v', { sync: true })
  await d.stop()
  await assert.rejects(c.get('k'), rskv.ConnectionLost)
  await assert.rejects(c.get('k'), rskv.ConnectionLost)
  await d.start()
  for (let i = 0; ; i++) {
    try {
      assert.equal(text(await c.get('k')), 'v')
      break
    } catch (e) {
      assert.ok(e instanceof rskv.ConnectionLost && i < 1000, e)
      await new Promise((r) => setTimeout(r, 10))
    }
  }
})

test('the default socket', () => {
  // What could go wrong: the client looks for the daemon where it is not.
  assert.equal(rskv.defaultSocket({ RSKV_SOCKET: '/s', RUNTIME_DIRECTORY: '/r' }, 0), '/s')
  assert.equal(rskv.defaultSocket({ RUNTIME_DIRECTORY: '/r:/q' }, 0), '/r/rskv.sock')
  assert.equal(rskv.defaultSocket({ XDG_RUNTIME_DIR: '/x' }, 0), '/run/rskv/rskv.sock')
  assert.equal(rskv.defaultSocket({ XDG_RUNTIME_DIR: '/x' }, 1), '/x/rskv/rskv.sock')
  assert.equal(rskv.defaultSocket({ XDG_RUNTIME_DIR: 'x', HOME: '/h' }, 1), '/h/.local/state/rskv/rskv.sock')
  assert.match(rskv.defaultSocket({}, 7), /rskv-7\/rskv.sock$/)
})
