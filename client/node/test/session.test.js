// Exactly once, against a daemon that is killed and a line that is cut.

import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import * as rskv from '../index.js'
import { Line, randomSeed, startDaemon } from './daemon.js'

async function connected(t, path, options) {
  const c = await rskv.connect({ path, session: true, retryFor: 60_000, ...options })
  t.after(() => c.close())
  return c
}

test('state', async (t) => {
  // What could go wrong: the client counts other than the daemon.
  const d = await startDaemon(t)
  const c = await connected(t, d.socket, { name: 'test' })
  for (let i = 0; i < 10; i++) await c.add('n')
  await c.put('t', 'x')
  await assert.rejects(c.add('t'), rskv.NotInteger)
  await c.get('n')
  assert.equal(await c.sync(), 12)
  const { id, ...rest } = c.session
  assert.deepEqual(rest, { written: 12, durable: 12, applied: 0 })
  await c.close()
  const again = await connected(t, d.socket, { session: id })
  assert.deepEqual([again.session.id, again.session.applied], [id, 12])
  await assert.rejects(rskv.connect({ path: d.socket, session: Buffer.alloc(16) }), rskv.SessionUnknown)
})

// trouble counts and appends while connections are cut and the daemon is killed: each write must have
// its effect once, and in order.
async function trouble(t, { cut, kills }) {
  const d = await startDaemon(t)
  const seed = randomSeed()
  const line = await Line.to(t, d.socket, seed, cut)
  const losses = []
  const c = await connected(t, line.path, { maxKept: 500, onSessionLoss: (l) => losses.push(l) })
  let adds = 0
  let order = ''
  let stop = false
  const lost = (e) => assert.ok(e instanceof rskv.AnswerLost, `seed ${seed}: ${e}`)
  const count = async () => {
    while (!stop) {
      adds++
      await c.add('n').catch(lost)
    }
  }
  const write = async () => {
    for (let i = 0; !stop; i++) {
      order += `${i},`
      await c.append('order', `${i},`).catch(lost)
      if (i % 500 === 499) {
        order = ''
        await c.put('order', '').catch(lost)
      }
    }
  }
  const workers = [write(), ...Array.from({ length: 10 }, count)]
  for (let i = 0; i < kills; i++) {
    await sleep(200)
    await d.crash()
  }
  for (let i = 0; i < 1000 && cut && line.cuts < 3; i++) await sleep(10)
  await sleep(200)
  stop = true
  line.most = 0
  await Promise.all(workers)
  await c.sync()
  assert.deepEqual(losses, [], `seed ${seed}`)
  const other = await connected(t, d.socket, { session: false })
  assert.equal(await other.add('n', 0), adds, `seed ${seed}`)
  assert.equal(String(await other.get('order')), order, `seed ${seed}`)
}

// What could go wrong: a write is lost with its connection, or sent twice; what a crash undid is not
// sent again, or what it did not undo is.
test('a line that is cut', (t) => trouble(t, { cut: 20_000, kills: 0 }))
test('a daemon that is killed', (t) => trouble(t, { cut: 0, kills: 4 }))
test('both', (t) => trouble(t, { cut: 30_000, kills: 4 }))

test('refused writes stay refused', async (t) => {
  // What could go wrong: a write that was answered with an error takes effect later.
  const d = await startDaemon(t, { 'commit-interval': '1h' })
  const c = await connected(t, d.socket)
  await c.put('k', 'text')
  await assert.rejects(c.add('k', 5), rskv.NotInteger)
  await c.put('k', Buffer.from([1, 0, 0, 0, 0, 0, 0, 0])) // now the add would go through
  await d.crash() // none of it is durable
  assert.equal(await c.add('k', 0), 1)
})

test('a session that is lost', async (t) => {
  // What could go wrong: one that cannot be resumed goes on as if nothing had happened.
  const d = await startDaemon(t, { 'commit-interval': '1h' })
  const losses = []
  const c = await connected(t, d.socket, { onSessionLoss: (l) => losses.push(l) })
  await c.put('a', '1', { sync: true })
  await c.put('b', '2')
  const old = c.session.id
  await d.stop()
  // Another store in the same place: it cannot know the session.
  fs.renameSync(path.join(d.dir, 'data'), path.join(d.dir, 'old'))
  await d.start()
  await c.put('c', '3')
  assert.equal(losses.length, 1)
  assert.deepEqual([losses[0].session, losses[0].unconfirmed], [old, 1])
  assert.ok(losses[0].error instanceof rskv.SessionLost)
  assert.notDeepEqual(c.session.id, old)
  assert.deepEqual((await c.mget(['a', 'b', 'c'])).map((b) => b && String(b)), [null, null, '3'])
})
