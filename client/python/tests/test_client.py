"""The client without an event loop, against the daemon."""

from __future__ import annotations

import math
import os
import threading
import time
import unittest
from datetime import timedelta

import rskv

from .daemon import Daemon, Line


class TestClient(unittest.TestCase):
    daemon: Daemon

    @classmethod
    def setUpClass(cls) -> None:
        cls.daemon = Daemon()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.daemon.close()

    def setUp(self) -> None:
        self.c = rskv.Client(self.daemon.socket)
        self.addCleanup(self.c.close)

    def test_methods(self) -> None:
        """What could go wrong: a method does something else than it says."""
        daemon = Daemon()
        self.addCleanup(daemon.close)
        c = rskv.Client(daemon.socket)
        self.addCleanup(c.close)
        c.ping()
        self.assertIsNone(c.get("m"))
        self.assertFalse(c.put("m", "v", if_present=True))
        self.assertTrue(c.put("m", "v", if_absent=True, sync=True))
        self.assertFalse(c.put("m", "v", if_absent=True))
        self.assertEqual(c.get(b"m"), b"v")
        self.assertTrue(c.exists(bytearray(b"m")))
        self.assertEqual(c.append(memoryview(b"m"), "12"), 3)
        self.assertFalse(c.cas("m", "v", "w"))
        self.assertTrue(c.cas("m", "v12", ""))
        self.assertEqual(c.get("m"), b"")
        self.assertTrue(c.cas("m", "", None))
        self.assertTrue(c.cas("m", None, "new"))
        self.assertTrue(c.delete("m"))
        self.assertFalse(c.delete("m"))
        self.assertIsNone(c.delete("m", blind=True))
        self.assertEqual(c.add("n"), 1)
        self.assertEqual(c.add("n", -(1 << 62)), 1 - (1 << 62))
        self.assertEqual(c.mput({"a": "1", b"b": b"2"}), 2)  # type: ignore[dict-item]
        self.assertEqual(c.mput([("c", "3")], sync=True), 1)
        self.assertEqual(c.mget(["a", "none", "c"]), [b"1", None, b"3"])
        self.assertEqual(c.mdelete(["a", "none"]), 1)
        self.assertIsNone(c.mdelete(["b", "c"], blind=True))
        self.assertEqual(c.len(exact=True), 1)
        self.assertEqual(c.len(), 1)
        c.sync()
        self.assertEqual(c.stats()["health"], "ok")
        self.assertEqual(c.health()["state"], "ok")
        self.assertEqual(c.config({"log_level": "warn"})["log_level"], "warn")
        self.assertGreater(c.call("checkpoint", {"kind": "log"})["version"], 0)
        self.assertIsNone(c.session)
        c.delete("n")

    def test_ttl(self) -> None:
        """What could go wrong: a key lives a thousand times longer than it should."""
        c = self.c
        c.put("ttl", "v", ttl=60)
        left = c.ttl("ttl")
        assert left is not None
        self.assertTrue(50 < left <= 60)
        self.assertTrue(c.expire("ttl", timedelta(hours=1)))
        self.assertGreater(c.ttl("ttl") or 0, 3000)
        self.assertTrue(c.persist("ttl"))
        self.assertEqual(c.ttl("ttl"), math.inf)
        self.assertIsNone(c.ttl("none"))
        self.assertFalse(c.expire("none", 1))
        c.add("ttl/n", ttl=60)
        c.mput({"ttl/m": "v"}, ttl=60)
        c.cas("ttl/c", None, "v", ttl=60)
        for key in ("ttl/n", "ttl/m", "ttl/c"):
            self.assertLessEqual(c.ttl(key) or 0, 60)
        with c.pipeline() as p:
            p.put("ttl", "v", ttl=0.001)
            p.expire("ttl/n", 5)
            p.ttl("ttl/n")
            p.persist("ttl/m")
            p.ttl("ttl/m")
        self.assertLessEqual(p.results[2], 5)
        self.assertEqual(p.results[3:], [True, math.inf])
        time.sleep(0.01)
        self.assertIsNone(c.get("ttl"))
        with self.assertRaises(ValueError):
            c.put("ttl", "v", ttl=0)

    def test_scan(self) -> None:
        """What could go wrong: a page is left out or comes twice."""
        want = {f"scan/{i}".encode(): str(i).encode() for i in range(500)}
        self.c.mput(want)
        pairs = list(self.c.scan("scan/", count=70))
        self.assertEqual(len(pairs), 500)
        self.assertEqual(dict(pairs), want)
        self.assertEqual(sorted(self.c.scan_keys("scan/", count=70)), sorted(want))
        self.assertEqual(list(self.c.scan("scan/none")), [])

    def test_scan_in_order(self) -> None:
        """What could go wrong: a bound or the direction is not heeded, or another daemon does not mind them."""
        daemon = Daemon(ordered="on")
        self.addCleanup(daemon.close)
        c = rskv.Client(daemon.socket)
        self.addCleanup(c.close)
        keys = sorted(f"{i}".encode() for i in range(500))
        c.mput({k: k for k in keys})
        self.assertEqual([k for k, _ in c.scan(count=70)], keys)
        part = [k for k in keys if b"17" <= k < b"30"]
        self.assertEqual(list(c.scan_keys(start="17", stop=b"30", count=7)), part)
        self.assertEqual(list(c.scan_keys(start="17", stop=b"30", reverse=True, count=7)), part[::-1])
        self.assertEqual(list(c.scan_keys("1", start="17")), [k for k in part if k < b"2"])
        with self.assertRaises(rskv.BadRequest):
            list(self.c.scan(start="a"))

    def test_errors(self) -> None:
        """What could go wrong: an error cannot be told from another, or harms the connection."""
        c = self.c
        c.put("text", "abc")
        with self.assertRaises(rskv.NotInteger) as e:
            c.add("text")
        self.assertEqual(e.exception.code, "NotInteger")
        with self.assertRaises(rskv.TooLarge):
            c.put("k" * 65536, "v")
        with self.assertRaises(rskv.ValueTooLarge):
            c.put("k", bytes((16 << 20) + 1))
        with self.assertRaises(rskv.RequestTooLarge):  # here, and not by losing the connection over it
            c.mput((str(i), bytes(16 << 20)) for i in range(5))
        with self.assertRaises(rskv.BadRequest):
            c.get("")
        with self.assertRaises(rskv.UnknownMethod):
            c.call("nonsense")
        with self.assertRaises(TypeError):
            c.put("k", 5)  # type: ignore[arg-type]
        with self.assertRaises(ValueError):
            c.put("k", "v", if_absent=True, if_present=True)
        with self.assertRaises(ValueError):
            c.call("put", b"k", b"v")
        for e_ in (rskv.Refused, rskv.AnswerLost, rskv.Closed):
            self.assertTrue(issubclass(e_, rskv.Error))
        c.ping()
        c.close()
        c.close()
        with self.assertRaises(rskv.Closed):
            c.ping()
        with self.assertRaisesRegex(FileNotFoundError, self.daemon.socket + ".none"):
            rskv.Client(self.daemon.socket + ".none")

    def test_pipeline(self) -> None:
        """What could go wrong: answers are given to other requests, or one error spoils the rest."""
        c = self.c
        with c.pipeline() as p:
            for i in range(1000):
                p.put(f"p{i % 10}", str(i))
                p.get(f"p{i % 10}")
            n = p.add("pn", 5)
        self.assertEqual(p.results, [x for i in range(1000) for x in (True, str(i).encode())] + [5])
        self.assertEqual(n.value, 5)
        bad = p.add("p1")
        good = p.get("p1")
        with self.assertRaises(RuntimeError):
            bad.value  # noqa: B018
        self.assertEqual(len(p), 2)
        with self.assertRaises(rskv.NotInteger):
            p.execute()
        self.assertEqual(good.value, b"991")
        with self.assertRaises(rskv.NotInteger):
            bad.value  # noqa: B018
        p.add("p1")
        p.exists("p1")
        results = p.execute(errors=True)
        self.assertIsInstance(results[0], rskv.NotInteger)
        self.assertIs(results[1], True)
        self.assertEqual(p.execute(), [])
        with self.assertRaises(KeyError), c.pipeline() as p:
            p.put("p1", "not sent")
            raise KeyError
        self.assertEqual(c.get("p1"), b"991")

    def test_large_pipeline(self) -> None:
        """What could go wrong: both sides wait for the other to read first."""
        value = os.urandom(1 << 20)
        with self.c.pipeline() as p:
            for i in range(64):
                p.put(f"large{i}", value)
                p.get(f"large{i}")
        self.assertEqual(p.results[1::2], [value] * 64)
        self.assertEqual(self.c.mget(f"large{i}" for i in range(32)), [value] * 32)
        self.c.mdelete([f"large{i}" for i in range(64)])

    def test_threads(self) -> None:
        """What could go wrong: threads get each other's answers."""
        failures = []

        def count(name: str) -> None:
            for i in range(300):
                if self.c.add(name) != i + 1:
                    failures.append(name)

        threads = [threading.Thread(target=count, args=(f"thread{i}",)) for i in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(failures, [])

    def test_fork(self) -> None:
        """What could go wrong: parent and child read each other's answers from one socket."""
        with rskv.Client(self.daemon.socket, session=True) as c:
            c.put("fork", "parent")
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    ok = all(c.add("forked") > 0 for _ in range(100)) and c.session is not None
                    os.write(write, b"1" if ok else b"0")
                finally:
                    os._exit(0)
            before = c.session
            for i in range(100):
                self.assertTrue(c.put("fork", str(i)))
            self.assertEqual(os.read(read, 1), b"1")
            os.waitpid(child, 0)
            os.close(read)
            os.close(write)
            assert before is not None and c.session is not None
            self.assertEqual(c.session.id, before.id)
            self.assertEqual(self.c.add("forked", 0), 100)

    def test_timeout(self) -> None:
        """What could go wrong: a call hangs, or a late answer goes to the next one."""
        self.daemon.pause()
        c = rskv.Client(self.daemon.socket, timeout=0.1)
        try:
            with self.assertRaises(TimeoutError):
                c.add("late")
        finally:
            self.daemon.resume()
        c.timeout = 30
        self.assertEqual(c.add("late", 10) % 10, 1)  # behind the one given up, on the same connection
        self.assertEqual(c.get("late"), (11).to_bytes(8, "little"))
        c.close()


class TestReconnect(unittest.TestCase):
    def test_reads_go_on(self) -> None:
        """What could go wrong: a read fails though it could be sent again, or a write is sent twice."""
        daemon = Daemon()
        self.addCleanup(daemon.close)
        seed = int.from_bytes(os.urandom(4), "big")
        line = Line(daemon.socket, seed, 4000)
        self.addCleanup(line.close)
        with self.subTest(seed=seed), rskv.Client(line.path) as c:
            done = lost = 0
            for i in range(2000):
                try:
                    c.add("n")
                    done += 1
                except rskv.AnswerLost:
                    lost += 1
                except rskv.ConnectionLost:
                    pass
                self.assertIn(c.get("none"), (None,))
            self.assertGreater(line.cuts, 3)
            line.most = 0
            n = c.add("n", 0)
            self.assertLessEqual(done, n)
            self.assertLessEqual(n, done + lost)

    def test_watch(self) -> None:
        """What could go wrong: a change is missed or comes twice when the daemon goes away."""
        daemon = Daemon()
        self.addCleanup(daemon.close)
        seed = int.from_bytes(os.urandom(4), "big")
        line = Line(daemon.socket, seed, 60_000)
        self.addCleanup(line.close)
        writer = rskv.Client(daemon.socket, session=True, retry_for=60)
        self.addCleanup(writer.close)
        watcher = rskv.Client(daemon.socket, retry_for=60)
        self.addCleanup(watcher.close)
        watcher.path = line.path  # its watch is cut, not its greeting
        changes = watcher.watch("w/")
        begin = next(changes)
        self.assertEqual(begin.op, "commit")

        def write() -> None:
            for i in range(600):
                writer.put(f"w/{i}", str(i))
                writer.put(f"other/{i}", "x")
                if i % 200 == 100:
                    daemon.kill()
            writer.delete("w/0")
            writer.put("w/end", "", sync=True)

        thread = threading.Thread(target=write)
        thread.start()
        state: dict[bytes, bytes | None] = {}
        last = begin.address
        for change in changes:
            if change.op == "commit":
                self.assertGreater(change.address, last, f"seed {seed}")
                last = change.address
                if b"w/end" in state:
                    break
                continue
            self.assertTrue(change.key not in state or change.key == b"w/0", f"seed {seed}: {change}")
            state[change.key] = change.value
        thread.join()
        want: dict[bytes, bytes | None] = {f"w/{i}".encode(): str(i).encode() for i in range(600)}
        self.assertEqual(state, {**want, b"w/0": None, b"w/end": b""}, f"seed {seed}")
        again = watcher.watch("w/e", since=begin.address)
        self.assertEqual([next(again).op, next(again).key], ["commit", b"w/end"])
        with self.assertRaises(rskv.CursorLost):
            next(watcher.watch(since=1 << 60))

    def test_daemon_away(self) -> None:
        """What could go wrong: a call waits for ever, or the client does not come back."""
        daemon = Daemon()
        self.addCleanup(daemon.close)
        with rskv.Client(daemon.socket, retry_for=0.2) as c:
            c.put("k", "v", sync=True)
            daemon.stop()
            begin = time.monotonic()
            with self.assertRaises(rskv.ConnectionLost):
                c.get("k")
            self.assertGreaterEqual(time.monotonic() - begin, 0.19)
            begin = time.monotonic()
            for _ in range(5):
                with self.assertRaises(rskv.ConnectionLost):
                    c.get("k")
            self.assertLess(time.monotonic() - begin, 5)
            daemon.start()
            self.assertEqual(c.get("k"), b"v")


if __name__ == "__main__":
    unittest.main()
