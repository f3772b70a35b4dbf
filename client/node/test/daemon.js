// A daemon, and a line to it that can be cut, for the tests.
//
// The program is $RSKVD, or rskvd from the repository's bin (make build).

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..')
const program = process.env.RSKVD ?? path.join(root, 'bin', 'rskvd')

// tempDir makes a directory that goes when the test ends.
export function tempDir(t) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rskv'))
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }))
  return dir
}

// startDaemon starts rskvd as a process of its own, which ends with the test.
export async function startDaemon(t, settings = {}) {
  const d = new Daemon(fs.mkdtempSync(path.join(os.tmpdir(), 'rskv')), settings)
  t.after(async () => {
    await d.kill9() // before its directory goes: hooks run in the order they were made in
    fs.rmSync(d.dir, { recursive: true, force: true })
  })
  await d.start()
  return d
}

class Daemon {
  constructor(dir, settings) {
    this.dir = dir
    this.socket = path.join(dir, 's')
    this.settings = { memory: '32MiB', 'commit-interval': '20ms', 'admin-socket': 'off', ...settings }
  }

  async start() {
    const args = Object.entries(this.settings).map(([k, v]) => `--${k}=${v}`)
    const env = Object.fromEntries(Object.entries(process.env).filter(([k]) => !k.startsWith('RSKV_')))
    const log = fs.openSync(path.join(this.dir, 'log'), 'a')
    this.process = spawn(program, ['--dir', path.join(this.dir, 'data'), '--socket', this.socket, ...args], { env, stdio: ['ignore', log, log] })
    fs.closeSync(log)
    this.exited = once(this.process, 'exit')
    for (let i = 0; i < 6000; i++) {
      if (this.process.exitCode !== null) break
      const s = net.connect(this.socket)
      const up = await Promise.race([once(s, 'connect').then(() => true, () => false)])
      s.destroy()
      if (up) return
      await sleep(5)
    }
    throw new Error('the daemon did not start:\n' + fs.readFileSync(path.join(this.dir, 'log')))
  }

  async stop() {
    this.process.kill('SIGTERM')
    await this.exited
  }

  async kill9() {
    if (!this.process) return
    this.process.kill('SIGKILL')
    await this.exited
  }

  // pause stops the process without ending it, until resume.
  async pause() {
    this.process.kill('SIGSTOP')
    while (!/^State:\s+T/m.test(fs.readFileSync(`/proc/${this.process.pid}/status`, 'utf8'))) await sleep(1)
  }

  resume() {
    this.process.kill('SIGCONT')
  }

  // crash is kill -9, and start again.
  async crash() {
    await this.kill9()
    await this.start()
  }
}

// Line is a socket that leads to another, and cuts each connection after a random number of bytes,
// 500 at least.
export class Line {
  cuts = 0

  static async to(t, target, seed, most) {
    const l = new Line(target, seed, most)
    l.server = net.createServer((near) => l.#pass(near))
    l.server.listen(l.path)
    t.after(() => l.server.close())
    await once(l.server, 'listening')
    return l
  }

  constructor(target, seed, most) {
    this.target = target
    this.path = target + '.line'
    this.most = most // bytes before a cut; 0: none
    this.state = seed >>> 0
  }

  // random is a number from 0 to n-1 (xorshift).
  random(n) {
    let x = this.state || 1
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    this.state = x >>> 0
    return this.state % n
  }

  #pass(near) {
    const far = net.connect(this.target)
    const end = () => {
      near.destroy()
      far.destroy()
    }
    for (const [src, dst] of [[near, far], [far, near]]) {
      let left = this.most ? 500 + this.random(this.most - 500) : Infinity
      src.on('error', end)
      src.on('close', end)
      src.on('data', (b) => {
        if (left <= 0) return
        dst.write(b.subarray(0, left))
        left -= b.length
        if (left <= 0) {
          this.cuts++
          dst.end(end)
        }
      })
    }
  }
}

export const randomSeed = () => Math.floor(Math.random() * 2 ** 32)
