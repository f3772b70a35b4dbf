// MessagePack as far as the protocol of rskvd goes.
//
// JavaScript            MessagePack
// null, undefined       nil
// boolean               bool
// number (an integer)   int, in its shortest form
// bigint                int
// string                str
// Uint8Array            bin                  -> Buffer
// Array                 array
// plain object          map of str           -> object without a prototype
//
// An integer comes back as a number if that holds it exactly, else as a bigint. Floats are read and
// not written. Lengths are believed only as far as bytes have come.

const MAX_DEPTH = 32 // of arrays and maps, the protocol's limit

// encode returns value as bytes.
export function encode(value) {
  const parts = []
  put(parts, value)
  return Buffer.concat(parts)
}

function put(parts, value) {
  switch (typeof value) {
    case 'undefined':
      parts.push(Buffer.of(0xc0))
      return
    case 'boolean':
      parts.push(Buffer.of(value ? 0xc3 : 0xc2))
      return
    case 'number':
      if (!Number.isSafeInteger(value)) throw new TypeError(`not an integer: ${value}`)
      parts.push(integer(value))
      return
    case 'bigint':
      parts.push(integer(value))
      return
    case 'string': {
      const bytes = Buffer.from(value)
      parts.push(head(bytes.length, [0xa0, 31], 0xd9, 0xda, 0xdb), bytes)
      return
    }
    case 'object':
      break
    default:
      throw new TypeError(`a ${typeof value} cannot be sent`)
  }
  if (value === null) {
    parts.push(Buffer.of(0xc0))
  } else if (value instanceof Uint8Array) {
    parts.push(head(value.length, null, 0xc4, 0xc5, 0xc6), value)
  } else if (Array.isArray(value)) {
    parts.push(head(value.length, [0x90, 15], 0, 0xdc, 0xdd))
    for (const v of value) put(parts, v)
  } else {
    const entries = Object.entries(value)
    parts.push(head(entries.length, [0x80, 15], 0, 0xde, 0xdf))
    for (const [k, v] of entries) {
      put(parts, k)
      put(parts, v)
    }
  }
}

// head writes a length: within the first byte if fix = [byte, most] has room for it, else behind the
// byte for 8 bits (0: there is none), 16 or 32.
function head(n, fix, byte8, byte16, byte32) {
  if (fix && n <= fix[1]) return Buffer.of(fix[0] | n)
  if (byte8 && n < 0x100) return Buffer.of(byte8, n)
  if (n < 0x10000) return Buffer.of(byte16, n >> 8, n & 0xff)
  const b = Buffer.allocUnsafe(5)
  b[0] = byte32
  b.writeUInt32BE(n, 1)
  return b
}

function integer(v) {
  if (v >= 0) {
    if (v < 0x80) return Buffer.of(Number(v))
    if (v < 0x100) return Buffer.of(0xcc, Number(v))
    if (v < 0x10000) return Buffer.of(0xcd, Number(v) >> 8, Number(v) & 0xff)
    if (v < 0x100000000) {
      const b = Buffer.allocUnsafe(5)
      b[0] = 0xce
      b.writeUInt32BE(Number(v), 1)
      return b
    }
    const b = Buffer.allocUnsafe(9)
    b[0] = 0xcf
    b.writeBigUInt64BE(BigInt(v), 1) // throws beyond 64 bits
    return b
  }
  if (v >= -0x20) return Buffer.of(Number(v) & 0xff)
  if (v >= -0x80) return Buffer.of(0xd0, Number(v) & 0xff)
  if (v >= -0x8000) return Buffer.of(0xd1, (Number(v) >> 8) & 0xff, Number(v) & 0xff)
  const b = Buffer.allocUnsafe(v >= -0x80000000 ? 5 : 9)
  b[0] = b.length === 5 ? 0xd2 : 0xd3
  if (b.length === 5) b.writeInt32BE(Number(v), 1)
  else b.writeBigInt64BE(BigInt(v), 1)
  return b
}

// What stands at pos: how many bytes its head has, how many bytes of content follow, how many values.
// null: the head has not come in full.
function look(b, pos) {
  const c = b[pos]
  const sized = (width, what) => {
    if (pos + 1 + width > b.length) return null
    const n = b.readUIntBE(pos + 1, width)
    return { head: 1 + width, bytes: what === 0 ? n : 0, values: what * n, n }
  }
  if (c < 0x80 || c >= 0xe0) return { head: 1, bytes: 0, values: 0 }
  if (c < 0x90) return { head: 1, bytes: 0, values: 2 * (c & 15), n: c & 15 }
  if (c < 0xa0) return { head: 1, bytes: 0, values: c & 15, n: c & 15 }
  if (c < 0xc0) return { head: 1, bytes: c & 31, values: 0, n: c & 31 }
  switch (c) {
    case 0xc0: case 0xc2: case 0xc3:
      return { head: 1, bytes: 0, values: 0 }
    case 0xc4: case 0xd9: return sized(1, 0)
    case 0xc5: case 0xda: return sized(2, 0)
    case 0xc6: case 0xdb: return sized(4, 0)
    case 0xcc: case 0xd0: return { head: 1, bytes: 1, values: 0 }
    case 0xcd: case 0xd1: return { head: 1, bytes: 2, values: 0 }
    case 0xca: case 0xce: case 0xd2: return { head: 1, bytes: 4, values: 0 }
    case 0xcb: case 0xcf: case 0xd3: return { head: 1, bytes: 8, values: 0 }
    case 0xdc: return sized(2, 1)
    case 0xdd: return sized(4, 1)
    case 0xde: return sized(2, 2)
    case 0xdf: return sized(4, 2)
  }
  throw new RangeError(`0x${c.toString(16)} begins no value of the protocol`)
}

// Splitter finds the messages in a stream. It looks at each value once, however many pieces a message
// comes in.
export class Splitter {
  #buffer = Buffer.alloc(0)
  #end = 0 // of what has come, in #buffer; the message that is coming begins at 0
  #pos = 0 // where the next value begins; it may be beyond #end
  #todo = 1 // values of the message that have not begun

  constructor(most) {
    this.most = most // bytes of a message
  }

  // push takes bytes of the stream and returns the messages that are whole now, decoded.
  push(bytes) {
    this.#append(bytes)
    const messages = []
    for (;;) {
      if (this.#todo === 0) {
        if (this.#pos > this.#end) return messages
        messages.push(decode(this.#buffer.subarray(0, this.#pos)))
        this.#buffer = this.#buffer.subarray(this.#pos)
        this.#end -= this.#pos
        this.#pos = 0
        this.#todo = 1
      }
      if (this.#pos >= this.#end) return messages
      const at = look(this.#buffer.subarray(0, this.#end), this.#pos)
      if (at === null) return messages
      this.#pos += at.head + at.bytes
      this.#todo += at.values - 1
      if (this.#pos + this.#todo > this.most) throw new RangeError('an answer is above its limit')
    }
  }

  #append(bytes) {
    if (this.#end === 0) {
      this.#buffer = bytes
      this.#end = bytes.length
      return
    }
    if (this.#end + bytes.length > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(2 * (this.#end + bytes.length)) // twice, so that copying stays linear
      this.#buffer.copy(larger, 0, 0, this.#end)
      this.#buffer = larger
    }
    bytes.copy(this.#buffer, this.#end)
    this.#end += bytes.length
  }
}

// decode returns the one value in b, and nothing that is part of b.
export function decode(b) {
  const r = { b, pos: 0 }
  const value = take(r, 0)
  if (r.pos !== b.length) throw new RangeError(`${b.length - r.pos} bytes follow the value`)
  return value
}

function take(r, depth) {
  const { b, pos } = r
  if (pos >= b.length) throw new RangeError('the value is cut off')
  const at = look(b, pos)
  if (at === null || at.values > b.length - pos || pos + at.head + at.bytes > b.length) throw new RangeError('the value is cut off')
  r.pos = pos + at.head + at.bytes
  const c = b[pos]
  const content = pos + at.head
  if (c < 0x80) return c
  if (c >= 0xe0) return c - 0x100
  if (c < 0x90 || c === 0xde || c === 0xdf) return takeMap(r, at.n, depth)
  if (c < 0xa0 || c === 0xdc || c === 0xdd) return takeArray(r, at.n, depth)
  if (c < 0xc0 || (c >= 0xd9 && c <= 0xdb)) return b.toString('utf8', content, r.pos)
  switch (c) {
    case 0xc0: return null
    case 0xc2: return false
    case 0xc3: return true
    case 0xca: return b.readFloatBE(content)
    case 0xcb: return b.readDoubleBE(content)
    case 0xcc: return b[content]
    case 0xcd: return b.readUInt16BE(content)
    case 0xce: return b.readUInt32BE(content)
    case 0xcf: return exact(b.readBigUInt64BE(content))
    case 0xd0: return b.readInt8(content)
    case 0xd1: return b.readInt16BE(content)
    case 0xd2: return b.readInt32BE(content)
    case 0xd3: return exact(b.readBigInt64BE(content))
  }
  return Buffer.from(b.subarray(content, r.pos))
}

function exact(v) {
  return v >= Number.MIN_SAFE_INTEGER && v <= Number.MAX_SAFE_INTEGER ? Number(v) : v
}

function takeArray(r, n, depth) {
  if (depth === MAX_DEPTH) throw new RangeError('the value nests too deep')
  const list = new Array(n)
  for (let i = 0; i < n; i++) list[i] = take(r, depth + 1)
  return list
}

function takeMap(r, n, depth) {
  if (depth === MAX_DEPTH) throw new RangeError('the value nests too deep')
  const map = Object.create(null) // "__proto__" is a name like any other
  for (let i = 0; i < n; i++) {
    const name = take(r, depth + 1)
    map[String(name)] = take(r, depth + 1)
  }
  return map
}
