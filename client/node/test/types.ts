// What a program in TypeScript may write, and what it may not: `npm run types` compiles it.

import { connect, AnswerLost, Refused, type Client, type SessionLoss } from '../index.js'

async function main(): Promise<void> {
  const losses: SessionLoss[] = []
  await using c: Client = await connect({ session: true, onSessionLoss: (l) => losses.push(l) })
  const value: Buffer | null = await c.get('k', { signal: AbortSignal.timeout(1000) })
  const stored: boolean = await c.put('k', new Uint8Array(3), { ifAbsent: true, sync: true })
  const gone: boolean = await c.del('k')
  const blind: null = await c.del('k', { blind: true })
  const sum: number = await c.add('n')
  const large: bigint = await c.add('n', 1n)
  const swapped: boolean = await c.cas('k', null, 'v')
  const values: (Buffer | null)[] = await c.mget(['a', Buffer.from('b')])
  const n: number = await c.mput({ a: '1' })
  const m: number = await c.mput(new Map([['a', '1']]))
  for await (const [key, v] of c.scan({ prefix: 'user/' })) console.log(key.toString(), v.length)
  for await (const key of c.scanKeys()) console.log(key.toString())
  await c.put('session', 'ada', { ttl: 1_800_000 })
  const left: number | null = await c.ttl('session')
  const longer: boolean = (await c.expire('session', 3_600_000)) && (await c.persist('session'))
  for await (const change of c.watch({ prefix: 'user/' })) {
    if (change.op === 'put') console.log(change.key.toString(), change.value.length, left, longer)
  }
  const applied: number | undefined = c.session?.applied
  try {
    await c.sync()
  } catch (e) {
    if (e instanceof AnswerLost) return
    if (e instanceof Refused) console.log(e.code)
  }
  console.log(value, stored, gone, blind, sum, large, swapped, values, n, m, applied, losses)

  // @ts-expect-error: a number is no value
  await c.put('k', 5)
  // @ts-expect-error: no such option
  await c.get('k', { sync: true })
  // @ts-expect-error: a value may be absent
  const wrong: Buffer = await c.get('k')
  // @ts-expect-error: clients are made by connect
  new (await import('../index.js')).Client()
  console.log(wrong)
}

void main()
