// The daemon's messages as they come from a connection.

import { ProtocolError } from './errors.js'
import { Splitter } from './msgpack.js'

// AnswerSplitter is a Splitter that says of what it cannot read that it is not the protocol's.
export class AnswerSplitter extends Splitter {
  push(received) {
    try {
      return super.push(received)
    } catch (e) {
      throw new ProtocolError(`cannot read the daemon's answer: ${e.message}`)
    }
  }
}
