// The examples of ipc/PROTOCOL.md: a notation and the bytes it stands for.

import fs from 'node:fs'
import path from 'node:path'

import { root } from './daemon.js'

// parse reads a notation: JSON, but for nil and 'byte strings'.
export function parse(text) {
  let at = 0
  const next = (pattern) => {
    pattern.lastIndex = at
    const m = pattern.exec(text)
    if (m) at = pattern.lastIndex
    return m
  }
  const list = (end, one) => {
    const all = []
    while (!next(end)) {
      all.push(one())
      next(/,\s*/y)
    }
    return all
  }
  const value = () => {
    let m
    if (next(/\[/y)) return list(/\]/y, value)
    if (next(/\{/y)) {
      return Object.fromEntries(
        list(/\}/y, () => {
          const name = value()
          next(/:\s*/y)
          return [name, value()]
        }),
      )
    }
    if ((m = next(/'((?:[^'\\]|\\x[0-9a-f]{2})*)'/y))) {
      return Buffer.from(m[1].replace(/\\x(..)/g, (_, hex) => String.fromCharCode(parseInt(hex, 16))), 'latin1')
    }
    if ((m = next(/"(?:[^"\\]|\\.)*"|-?\d+|true|false/y))) return JSON.parse(m[0])
    if (next(/nil/y)) return null
    throw new SyntaxError(`at ${at} of ${text}`)
  }
  return value()
}

export function vectors() {
  const found = []
  let block = false
  for (const line of fs.readFileSync(path.join(root, 'ipc', 'PROTOCOL.md'), 'utf8').split('\n')) {
    if (line === '```') block = !block
    else if (block && /^[<>] /.test(line)) {
      found.push({ toDaemon: line[0] === '>', notation: line.slice(2), value: parse(line.slice(2)), bytes: Buffer.alloc(0) })
    } else if (block) {
      const last = found.at(-1)
      last.bytes = Buffer.concat([last.bytes, Buffer.from(line.replaceAll(' ', ''), 'hex')])
    }
  }
  return found
}
