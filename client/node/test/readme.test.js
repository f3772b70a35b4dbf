// The programs of the README, and what they print.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

import { startDaemon, tempDir } from './daemon.js'

test('programs', async (t) => {
  // What could go wrong: what a reader copies does not run.
  const d = await startDaemon(t)
  const here = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
  const dir = tempDir(t)
  fs.mkdirSync(path.join(dir, 'node_modules'))
  fs.symlinkSync(here, path.join(dir, 'node_modules', 'rskv')) // as npm install does
  const programs = [...fs.readFileSync(path.join(here, 'README.md'), 'utf8').matchAll(/```js\n(.*?)```/gs)].map((m) => m[1])
  assert.equal(programs.length, 2)
  const outputs = []
  for (const [i, program] of programs.entries()) {
    const file = path.join(dir, `${i}.mjs`)
    fs.writeFileSync(file, program)
    const { stdout } = await promisify(execFile)(process.execPath, [file], { env: { ...process.env, RSKV_SOCKET: d.socket }, timeout: 60_000 })
    outputs.push(stdout)
  }
  assert.deepEqual(outputs, ['hello\nnull\n41\ntrue\n1000\ntrue NotInteger\n', ''])
})
