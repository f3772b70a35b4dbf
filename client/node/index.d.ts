/** A key or a value to send; a string is its UTF-8. */
export type Bytes = string | Uint8Array

export interface ConnectOptions {
  /** The daemon's socket; default: the one it listens on unless it was told another. */
  path?: string
  /** Milliseconds that calls wait for a lost connection to come back, 5000 by default. */
  retryFor?: number
  /**
   * true: every write takes effect exactly once as long as the client lives. 16 bytes: resumes the
   * session of a client that is gone.
   */
  session?: boolean | Uint8Array
  /** How many writes a session keeps that are not durable before writes wait, 100,000 by default. */
  maxKept?: number
  /** What the daemon calls a client with a session in its logs. */
  name?: string
  /** Called when a session cannot keep its promise. */
  onSessionLoss?: (loss: SessionLoss) => void
}

export interface SessionLoss {
  session: Buffer | null
  /** Writes answered with success, or given up, that may be lost. */
  unconfirmed: number
  error: RskvError
}

export interface SessionState {
  id: Buffer
  /** Number of the last write that was made. */
  written: number
  /** Highest number known to be on stable storage. */
  durable: number
  /** Highest number the daemon had when the connection was made. */
  applied: number
}

export interface CallOptions {
  /** Ends the wait. A request that was sent may still take effect. */
  signal?: AbortSignal
}

export interface WriteOptions extends CallOptions {
  /** Answered when it is on stable storage. */
  sync?: boolean
}

export interface ExpiringOptions extends WriteOptions {
  /** Milliseconds until the key is gone; without it, never. */
  ttl?: number
}

export interface PutOptions extends ExpiringOptions {
  ifAbsent?: boolean
  ifPresent?: boolean
}

export interface DeleteOptions extends WriteOptions {
  /** Does not look whether it was there, and answers null. */
  blind?: boolean
}

export interface ScanOptions extends CallOptions {
  prefix?: Bytes
  /** The lowest key that is wanted; needs a daemon with the ordered index, as do to and reverse. */
  from?: Bytes
  /** The lowest key above those that are wanted. */
  to?: Bytes
  /** The highest keys first. */
  reverse?: boolean
  /** Entries of one page, 1000 by default. */
  count?: number
}

export interface WatchOptions extends CallOptions {
  prefix?: Bytes
  /** The address of a commit that came before: what was changed since then. */
  since?: number
}

/** A commit says that all changes up to its address have come. */
export type Change =
  | { op: 'put'; address: number; key: Buffer; value: Buffer }
  | { op: 'del'; address: number; key: Buffer; value: null }
  | { op: 'commit'; address: number }

export type Pairs = Iterable<readonly [Bytes, Bytes]> | { readonly [key: string]: Bytes }

/** Connects to the daemon. */
export function connect(options?: ConnectOptions): Promise<Client>

/** The path a daemon listens on unless it was told another. */
export function defaultSocket(): string

/**
 * A connection to the daemon, which is made again when it is lost. Requests that are made in one turn
 * of the event loop are one write.
 */
export class Client {
  private constructor()
  static connect(options?: ConnectOptions): Promise<Client>
  readonly path: string
  /** How far the session is; null without one. */
  readonly session: SessionState | null
  /** Ends the connection, and the promise of a session: sync before it. */
  close(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>

  ping(options?: CallOptions): Promise<void>
  /** The value of key, null if there is no such key. */
  get(key: Bytes, options?: CallOptions): Promise<Buffer | null>
  exists(key: Bytes, options?: CallOptions): Promise<boolean>
  /** Stores value under key; false if the condition was not met. */
  put(key: Bytes, value: Bytes, options?: PutOptions): Promise<boolean>
  /** Removes key; whether it was there. */
  del(key: Bytes, options?: DeleteOptions & { blind?: false }): Promise<boolean>
  del(key: Bytes, options: DeleteOptions & { blind: true }): Promise<null>
  /** Stores value if the old one is as given, and tells whether it was. null is an absent key. */
  cas(key: Bytes, old: Bytes | null, value: Bytes | null, options?: ExpiringOptions): Promise<boolean>
  /**
   * Adds to the counter under key, 0 if it is absent, and returns the sum. A sum that a number does not
   * hold exactly rejects with a RangeError, though it has been added: use bigints there.
   */
  add(key: Bytes, delta?: number, options?: ExpiringOptions): Promise<number>
  add(key: Bytes, delta: bigint, options?: ExpiringOptions): Promise<bigint>
  /** Appends to the value of key, which may be absent, and returns the new length. */
  append(key: Bytes, tail: Bytes, options?: WriteOptions): Promise<number>
  /** Gives key so many milliseconds to live from now on; false if there is no such key. */
  expire(key: Bytes, ttl: number, options?: WriteOptions): Promise<boolean>
  /** Takes the expiry of key away; false if there is no such key. */
  persist(key: Bytes, options?: WriteOptions): Promise<boolean>
  /** Milliseconds key has to live, Infinity without an expiry, null if there is no such key. */
  ttl(key: Bytes, options?: CallOptions): Promise<number | null>
  /** The values of keys in their order, null for what is not there. */
  mget(keys: Iterable<Bytes>, options?: CallOptions): Promise<Array<Buffer | null>>
  /** Stores pairs, each by itself and in order: no transaction. Returns how many. */
  mput(pairs: Pairs, options?: ExpiringOptions): Promise<number>
  /** Removes keys and returns how many were there. */
  mdel(keys: Iterable<Bytes>, options?: DeleteOptions & { blind?: false }): Promise<number>
  mdel(keys: Iterable<Bytes>, options: DeleteOptions & { blind: true }): Promise<null>
  /**
   * All keys that begin with prefix, with their values: in the order of the keys if the daemon has the ordered
   * index, else in none.
   */
  scan(options?: ScanOptions): AsyncGenerator<[Buffer, Buffer], void, undefined>
  scanKeys(options?: ScanOptions): AsyncGenerator<Buffer, void, undefined>
  /**
   * What is changed of the keys that begin with prefix, commit by commit, until the loop is left. The first
   * that comes is a commit with the address at which the watch begins. A lost connection does not end it.
   */
  watch(options?: WatchOptions): AsyncGenerator<Change, void, undefined>
  /** The number of keys, from counters or, exact, from a scan. */
  len(options?: CallOptions & { exact?: boolean }): Promise<number>
  /** Resolves when every earlier write is on stable storage, with its number in the session. */
  sync(options?: CallOptions): Promise<number>
  stats(options?: CallOptions): Promise<Record<string, unknown>>
  health(options?: CallOptions): Promise<{ state: 'ok' | 'read only' | 'disk full'; error: string; since: number }>
  /** The settings in force, after some changes. */
  config(changes?: Record<string, string | number | boolean>, options?: CallOptions): Promise<Record<string, unknown>>
  /** Any other method of the protocol, such as call('checkpoint', {kind: 'log'}). */
  call(method: string, ...params: unknown[]): Promise<unknown>
}

/** Every error of this package. */
export class RskvError extends Error {}
/** The client was closed. */
export class Closed extends RskvError {}
/** The daemon's answer is not what the protocol has for that method. */
export class ProtocolError extends RskvError {}
/** The request was not answered. Unless it is an AnswerLost, it has no effect. */
export class ConnectionLost extends RskvError {}
/** The request was sent and its answer will not come: it may have taken effect or not. */
export class AnswerLost extends ConnectionLost {}
/** The session cannot be resumed; a write may have taken effect or not, or been undone since. */
export class SessionLost extends AnswerLost {}
/** The daemon answered with an error. */
export class Refused extends RskvError {
  /** What to act on. */
  code: string
}
export class BadRequest extends Refused {}
export class UnknownMethod extends Refused {}
/** One of the four below. */
export class TooLarge extends Refused {}
export class KeyTooLarge extends TooLarge {}
export class ValueTooLarge extends TooLarge {}
export class RequestTooLarge extends TooLarge {}
export class AnswerTooLarge extends TooLarge {}
export class NotInteger extends Refused {}
export class Overflow extends Refused {}
export class Forbidden extends Refused {}
export class Busy extends Refused {}
export class DiskFull extends Refused {}
export class ReadOnly extends Refused {}
export class Corrupt extends Refused {}
export class IO extends Refused {}
export class SessionUnknown extends Refused {}
export class CursorLost extends Refused {}
export class ShuttingDown extends Refused {}
export class Internal extends Refused {}
