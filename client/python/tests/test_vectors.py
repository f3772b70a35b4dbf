"""The published bytes are what this client sends and understands."""

from __future__ import annotations

import math
import os
import re
import socket
import tempfile
import threading
import unittest
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgpack
import rskv
from rskv import errors
from rskv._watch import Change, Feed

from .daemon import ROOT
from .vectors import Vector, vectors

# What the client is asked, by the notation of the request that it must send. The answer is the first
# response behind it, unless there are several: then each in turn.
CALLS: dict[str, Callable[[rskv.Client], Any]] = {
    '[0, 1, "ping", []]': lambda c: c.ping(),
    "[0, 7, \"get\", ['k']]": lambda c: c.get(b"k"),
    "[0, 300, \"exists\", ['k']]": lambda c: c.exists("k"),
    "[0, 70000, \"put\", ['k', 'v']]": lambda c: c.put("k", "v"),
    "[0, 2, \"put\", ['k', 'v', {\"if\": \"absent\", \"sync\": true}]]": lambda c: c.put("k", "v", if_absent=True, sync=True),
    "[0, 2, \"put\", ['k', 'v', {\"ttl\": 60000}]]": lambda c: c.put("k", "v", ttl=60),
    "[0, 12, \"expire\", ['k', 60000]]": lambda c: c.expire("k", timedelta(minutes=1)),
    "[0, 12, \"expire\", ['k', nil, {\"sync\": true}]]": lambda c: c.persist("k", sync=True),
    "[0, 12, \"ttl\", ['k']]": lambda c: c.ttl("k"),
    "[0, 3, \"del\", ['k']]": lambda c: c.delete("k"),
    "[0, 3, \"del\", ['k', {\"blind\": true}]]": lambda c: c.delete("k", blind=True),
    "[0, 4, \"cas\", ['k', 'v', 'w']]": lambda c: c.cas("k", "v", "w"),
    "[0, 5, \"cas\", ['lock', nil, 'me', {\"sync\": true}]]": lambda c: c.cas("lock", None, "me", sync=True),
    "[0, 6, \"add\", ['n', -1]]": lambda c: c.add("n", -1),
    "[0, 8, \"append\", ['k', 'tail']]": lambda c: c.append("k", "tail"),
    "[0, 9, \"mget\", [['a', 'b']]]": lambda c: c.mget(["a", "b"]),
    "[0, 10, \"mput\", [[['a', '1'], ['b', '2']]]]": lambda c: c.mput({"a": "1", "b": "2"}),
    "[0, 11, \"mdel\", [['a', 'b'], {\"sync\": true}]]": lambda c: c.mdelete(["a", "b"], sync=True),
    '[0, 12, "len", []]': lambda c: c.len(),
    '[0, 12, "len", [{"exact": true}]]': lambda c: c.len(exact=True),
    "[0, 23, \"scan\", [{\"prefix\": 'a', \"count\": 2}]]": lambda c: next(iter(c.scan("a", count=2))),
    "[0, 25, \"scan\", [{\"from\": 'a', \"to\": 'ac', \"count\": 2, \"reverse\": true}]]": lambda c: next(iter(c.scan(start="a", stop="ac", count=2, reverse=True))),
    '[0, 13, "sync", []]': lambda c: c.sync(),
    '[0, 14, "stats", []]': lambda c: c.stats(),
    '[0, 26, "health", []]': lambda c: c.health(),
    '[0, 15, "config", []]': lambda c: c.config(),
    '[0, 15, "config", [{"set": {"commit_interval": "5ms"}}]]': lambda c: c.config({"commit_interval": "5ms"}),
    "[0, 16, \"checkpoint\", [{\"kind\": \"full\", \"cookie\": 'nightly'}]]": lambda c: c.call("checkpoint", {"kind": "full", "cookie": b"nightly"}),
}

# What the client makes of an answer, where that is not the result itself.
READ: dict[str, Callable[[Any], Any]] = {
    "ping": lambda r: None,
    "ttl": lambda r: math.inf if r == -1 else r / 1000,
    "sync": lambda r: r["durable"],
    "scan": lambda r: tuple(r[1][0]),
}


class Player:
    """A daemon that knows one message: it notes what it was sent, and answers with what it is given."""

    def __init__(self, path: str, answer: bytes) -> None:
        self.received = b""
        self.answer = answer
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.thread = threading.Thread(target=self.play)
        self.thread.start()

    def play(self) -> None:
        s, _ = self.listener.accept()
        unpacker = msgpack.Unpacker()
        while data := s.recv(4096):
            self.received += data
            unpacker.feed(data)
            for message in unpacker:
                s.sendall(with_id(self.answer, message[1]))
        s.close()
        self.listener.close()


def with_id(message: bytes, msgid: int) -> bytes:
    """Replaces the id, which stands behind the head of four and the type."""
    assert message[0] == 0x94
    return message[:2] + msgpack.packb(msgid) + behind_id(message)


def behind_id(message: bytes) -> bytes:
    return message[2 + {0xCC: 2, 0xCD: 3, 0xCE: 5}.get(message[2], 1) :]


class TestVectors(unittest.TestCase):
    def setUp(self) -> None:
        self.all = vectors()
        self.assertGreater(len(self.all), 40)

    def test_bytes_match_notation(self) -> None:
        """What could go wrong: msgpack reads, or writes, other than the protocol says."""
        shortest = 0
        for v in self.all:
            self.assertEqual(msgpack.unpackb(v.bytes), v.value, v.notation)
            shortest += msgpack.packb(v.value) == v.bytes
        self.assertGreaterEqual(shortest, len(self.all) - 3)  # all but those that show other forms

    def test_calls_send_the_bytes_and_read_the_answers(self) -> None:
        """What could go wrong: a method sends other bytes than the published ones, or returns something else."""
        by_notation: dict[str, list[Vector]] = {}
        by_method: dict[str, list[Vector]] = {}  # the answers of a method, for requests that show none
        for v in self.all:
            if v.to_daemon and v.value[0] == 0:
                last = by_notation.setdefault(v.notation, [v])
                method = v.value[2]
            elif v.value[0] == 1 and v.value[1] == last[0].value[1]:
                last.append(v)
                by_method.setdefault(method, []).append(v)
        answered = 0
        for notation, call in CALLS.items():
            request, *responses = by_notation[notation]
            for response in responses or by_method[request.value[2]][:1]:
                answered += 1
                with tempfile.TemporaryDirectory(prefix="rskv") as d, self.subTest(response.notation):
                    player = Player(os.path.join(d, "s"), response.bytes)
                    with rskv.Client(os.path.join(d, "s")) as c:
                        if response.value[2] is None:
                            result = response.value[3]
                            method = request.value[2]
                            if method in ("del", "mdel", "get") and result is None:
                                self.assertIsNone(call(c))
                            else:
                                self.assertEqual(call(c), READ.get(method, lambda r: r)(result))
                        else:
                            with self.assertRaises(rskv.Refused) as raised:
                                call(c)
                            self.assertEqual([raised.exception.code, raised.exception.message], response.value[2])
                    player.thread.join()
                    self.assertEqual(player.received[:2] + behind_id(player.received), b"\x94\x00" + behind_id(request.bytes))
        self.assertGreater(answered, 20)

    def test_watch(self) -> None:
        """What could go wrong: a change is read as another, or comes twice after a lost connection."""
        want = [v for v in self.all if v.value[0] == 0 and v.value[2] == "watch"]
        at = self.all.index(want[0])
        feed = Feed(b"a", None)
        self.assertEqual(behind_id(feed.begin()), behind_id(want[0].bytes))
        first = [v for v in self.all[at:] if not v.to_daemon][:4]
        got = [c for v in first for b in v.bytes for c in feed.take(bytes([b]))]
        changes = [Change("put", 4128, b"a", b"1"), Change("del", 4160, b"ab")]
        self.assertEqual(got, [Change("commit", 4096), *changes, Change("commit", 8192)])
        self.assertEqual(behind_id(feed.begin()), behind_id(want[1].bytes))
        self.assertEqual(feed.take(first[0].bytes), [])  # begins again
        self.assertEqual(feed.take(first[1].bytes + first[2].bytes + first[3].bytes), [])  # came before
        lagged, lost = [v for v in self.all if v.value[1] == "lagged" or (v.value[0] == 1 and v.value[2] and v.value[2][0] == "CursorLost")]
        with self.assertRaises(rskv.ConnectionLost):
            feed.take(lagged.bytes)
        feed.begin()
        with self.assertRaises(rskv.CursorLost):
            feed.take(lost.bytes)

    def test_every_code_has_a_class(self) -> None:
        """What could go wrong: a code of the protocol is no class of its own."""
        table = (ROOT / "ipc" / "errors.go").read_text()
        codes = re.findall(r'Code = "(\w+)"', table)
        self.assertGreater(len(codes), 15)
        for code in codes:
            self.assertEqual(errors.CODES[code].__name__, code)
            self.assertIs(getattr(rskv, code), errors.CODES[code])
        self.assertEqual(str(errors.refused(["New", "of tomorrow"])), "New: of tomorrow")


if __name__ == "__main__":
    unittest.main()
