// A watch without its input and output: what came, and where to go on after a lost connection.

import { AnswerSplitter } from './answers.js'
import { ConnectionLost, ProtocolError, refused } from './errors.js'
import { watch } from './request.js'

export class Feed {
  told = false // that it has begun
  seen = -1 // address of the last change that came

  // since is the address of a commit that came before; null: begin now.
  constructor(prefix, since, most) {
    this.prefix = prefix
    this.at = since // the last commit that came, or where to begin
    this.most = most // bytes of a message
  }

  // begin returns what a new connection begins with.
  begin() {
    this.splitter = new AnswerSplitter(this.most)
    return watch(this.prefix, this.at).message(1)
  }

  // take takes bytes from the connection and returns what has not come before.
  take(received) {
    return this.splitter.push(received).flatMap((m) => this.#message(m))
  }

  #message(m) {
    const [kind, name, params] = Array.isArray(m) ? m : []
    if (kind === 1 && m.length === 4) {
      if (m[2] !== null) throw refused(m[2])
      if (this.told) return []
      this.told = true
      this.at = m[3]
      return [{ op: 'commit', address: m[3] }]
    }
    if (kind !== 2 || m.length !== 3 || !Array.isArray(params)) throw new ProtocolError('not a message')
    switch (name) {
      case 'change': {
        const [address, op, key, value] = params
        if (address <= this.seen) return [] // it came before the connection was lost
        this.seen = address
        return [{ op, address, key, value }]
      }
      case 'commit': {
        const [address] = params
        if (this.at !== null && address <= this.at) return []
        this.at = address
        return [{ op: 'commit', address }]
      }
      case 'lagged':
        throw new ConnectionLost('the watch fell behind') // and goes on on the next one
    }
    return [] // of a later version
  }
}
