#!/usr/bin/python3
"""MessagePack-RPC over a Unix socket in Python, against python3-msgpack: no line of it knows rskv.

    with RPC("/run/rskv/rskv.sock") as rskv:
        rskv.call("put", b"key", b"value")
        print(rskv.call("get", b"key"))

Run as a program, it tests a daemon: rpc.py SOCKET. It exits with 0 if every answer was right.
"""

import socket
import sys
import time

import msgpack


class RPC:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        self.sock.settimeout(60)
        self.unpacker = msgpack.Unpacker(max_buffer_size=1 << 27)
        self.msgid = 0
        self.answers = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def request(self, method, *params):
        """Returns a request's id and bytes."""
        self.msgid += 1
        return self.msgid, msgpack.packb([0, self.msgid, method, params])

    def wait(self, msgid):
        """Returns [error, result] of that request, in whatever order answers come."""
        while msgid not in self.answers:
            data = self.sock.recv(1 << 16)
            if not data:
                raise EOFError("the daemon closed the connection")
            self.unpacker.feed(data)
            for kind, *rest in self.unpacker:
                if kind == 1:  # a response; notifications are of no interest
                    self.answers[rest[0]] = rest[1:]
        return self.answers.pop(msgid)

    def call(self, method, *params):
        """Sends a request and returns its result, or raises its error."""
        msgid, data = self.request(method, *params)
        self.sock.sendall(data)
        error, result = self.wait(msgid)
        if error is not None:
            raise RuntimeError(": ".join(error))
        return result


# What follows tests a daemon.

failed = 0


def expect(what, got, want):
    global failed
    if got != want:
        failed += 1
        print(f"FAIL {what}: got {got!r}, want {want!r}")


def refused(rpc, what, code, method, *params):
    """Expects the request to be answered with the error code, and the connection to go on."""
    try:
        expect(what, rpc.call(method, *params), code)
    except RuntimeError as e:
        expect(what, str(e).split(":")[0], code)


def test_methods(rpc, p):
    k, n, big = p + b"k", p + b"n", p + b"big"
    expect("ping", rpc.call("ping"), "pong")
    expect("get absent", rpc.call("get", k), None)
    expect("put", rpc.call("put", k, b"v"), True)
    expect("put if absent", rpc.call("put", k, b"x", {"if": "absent"}), False)
    expect("put if present", rpc.call("put", k, b"w", {"if": "present", "sync": True}), True)
    expect("get", rpc.call("get", k), b"w")
    expect("key as str", rpc.call("get", k.decode()), b"w")
    expect("exists", rpc.call("exists", k), True)
    expect("append", rpc.call("append", k, b"12"), 3)
    expect("cas no", rpc.call("cas", k, b"w", b"z"), False)
    expect("cas yes", rpc.call("cas", k, b"w12", b""), True)
    expect("empty value", rpc.call("get", k), b"")
    expect("cas delete", rpc.call("cas", k, b"", None), True)
    expect("cas create", rpc.call("cas", k, None, b"new"), True)
    expect("add", rpc.call("add", n, 1 << 40), 1 << 40)
    expect("add negative", rpc.call("add", n, -(1 << 41)), -(1 << 40))
    expect("counter's bytes", rpc.call("get", n), (-(1 << 40)).to_bytes(8, "little", signed=True))
    refused(rpc, "add to text", "NotInteger", "add", k, 1)
    expect("mput", rpc.call("mput", [[p + b"a", b"1"], [p + b"b", b"2"]]), 2)
    expect("mget", rpc.call("mget", [p + b"b", p + b"none", p + b"a"]), [b"2", None, b"1"])
    expect("mdel", rpc.call("mdel", [p + b"a", p + b"none"]), 1)
    expect("mdel blind", rpc.call("mdel", [p + b"b"], {"blind": True}), None)
    expect("put ttl", rpc.call("put", p + b"a", b"1", {"ttl": 3600000}), True)
    expect("ttl", 0 < rpc.call("ttl", p + b"a") <= 3600000, True)
    expect("expire nil", rpc.call("expire", p + b"a", None), True)
    expect("ttl none", rpc.call("ttl", p + b"a"), -1)
    expect("expire", rpc.call("expire", p + b"a", 1), True)
    time.sleep(0.01)
    expect("expired", rpc.call("get", p + b"a"), None)
    expect("ttl absent", rpc.call("ttl", p + b"a"), None)
    refused(rpc, "ttl 0", "BadRequest", "put", k, b"v", {"ttl": 0})
    value = bytes(range(256)) * 4096
    expect("put 1 MiB", rpc.call("put", big, value), True)
    expect("get 1 MiB", rpc.call("get", big) == value, True)
    expect("del", rpc.call("del", big), True)
    expect("del again", rpc.call("del", big), False)
    expect("del blind", rpc.call("del", k, {"blind": True}), None)
    expect("len", isinstance(rpc.call("len"), int), True)
    expect("sync", "durable" in rpc.call("sync"), True)
    expect("stats", isinstance(rpc.call("stats"), dict), True)
    expect("config", isinstance(rpc.call("config"), dict), True)
    refused(rpc, "unknown method", "UnknownMethod", "nonsense")
    refused(rpc, "unknown option", "BadRequest", "put", k, b"v", {"tll": 1})
    refused(rpc, "too many parameters", "BadRequest", "get", k, 1, 2)
    refused(rpc, "too few parameters", "BadRequest", "put", k)
    refused(rpc, "wrong type", "BadRequest", "get", [k])
    refused(rpc, "empty key", "BadRequest", "get", b"")
    refused(rpc, "long key", "KeyTooLarge", "get", b"k" * 65536)
    rpc.call("del", n)


def stream(rpc, p, count):
    """Returns a pipeline's bytes and what it must answer: puts, gets and adds over a few keys."""
    data, want = b"", {}
    last, total = {}, 0
    for i in range(count):
        key = p + b"%d" % (i % 7)
        for method, params, answer in (
            ("put", (key, b"%d" % i), True),
            ("get", (key,), b"%d" % i),
            ("add", (p + b"sum", i), total + i),
        ):
            msgid, request = rpc.request(method, *params)
            data += request
            want[msgid] = (method, answer)
        last[key] = b"%d" % i
        total += i
    msgid, request = rpc.request("mget", sorted(last))
    data += request
    want[msgid] = ("mget", [last[k] for k in sorted(last)])
    msgid, request = rpc.request("mdel", sorted(last) + [p + b"sum"])
    want[msgid] = ("mdel", len(last) + 1)
    return data + request, want


def check(rpc, want, how):
    for msgid, (method, answer) in want.items():
        expect(f"{how}: {method}", rpc.wait(msgid), [None, answer])


def test_pipelined(rpc, p):
    data, want = stream(rpc, p, 1000)
    rpc.sock.sendall(data)
    check(rpc, want, "pipelined")


def test_every_byte_alone(rpc, p):
    data, want = stream(rpc, p, 50)
    for i in range(len(data)):
        rpc.sock.sendall(data[i : i + 1])
    check(rpc, want, "byte by byte")


def test_every_split(rpc, p):
    data, _ = stream(rpc, p, 3)
    for i in range(1, len(data)):
        data, want = stream(rpc, p, 3)
        rpc.sock.sendall(data[:i])
        rpc.sock.sendall(data[i:])
        check(rpc, want, f"split at byte {i}")


def main(path):
    tests = [test_methods, test_pipelined, test_every_byte_alone, test_every_split]
    for test in tests:
        before = failed
        with RPC(path) as rpc:
            test(rpc, b"rpc.py/%s/" % test.__name__.encode())
        print("ok  " if failed == before else "FAIL", test.__name__)
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: rpc.py SOCKET")
    sys.exit(main(sys.argv[1]))
