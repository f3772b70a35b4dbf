"""Exactly once, against a daemon that is killed and a line that is cut."""

from __future__ import annotations

import os
import threading
import time
import unittest

import rskv

from .daemon import Daemon, Line


class TestSession(unittest.TestCase):
    def setUp(self) -> None:
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)

    def client(self, path: str | None = None, **options: object) -> rskv.Client:
        c = rskv.Client(path or self.daemon.socket, **{"session": True, **options})  # type: ignore[arg-type]
        self.addCleanup(c.close)
        return c

    def test_state(self) -> None:
        """What could go wrong: the client counts other than the daemon."""
        c = self.client(name="test")
        for _ in range(10):
            c.add("n")
        c.get("n")
        with self.assertRaises(rskv.NotInteger):
            c.put("t", "x")
            c.add("t")
        self.assertEqual(c.sync(), 12)
        s = c.session
        assert s is not None
        self.assertEqual((s.written, s.durable, s.applied, len(s.id)), (12, 12, 0, 16))
        self.assertEqual(len(c._core.kept), 0)
        c.close()
        again = self.client(session=s.id)
        assert again.session is not None
        self.assertEqual((again.session.id, again.session.applied), (s.id, 12))
        with self.assertRaises(rskv.SessionUnknown):
            self.client(session=bytes(16))

    def run_cut(self, kills: int, cut: int) -> None:
        """Counts and appends under trouble; each write must have its effect once and in order."""
        seed = int.from_bytes(os.urandom(4), "big")
        line = Line(self.daemon.socket, seed, cut)
        self.addCleanup(line.close)
        losses: list[rskv.Loss] = []
        c = self.client(line.path, retry_for=60, timeout=60, on_session_loss=losses.append)
        stop = threading.Event()

        def trouble() -> None:
            for _ in range(kills):
                if stop.wait(0.15):
                    return
                self.daemon.kill()

        killer = threading.Thread(target=trouble)
        killer.start()
        order = b""
        adds = 0
        end = time.monotonic() + 60
        i = 0
        try:
            while (i < 400 or (cut and line.cuts < 5) or killer.is_alive()) and time.monotonic() < end:
                with c.pipeline() as p:
                    for _ in range(5):
                        i += 1
                        p.add("n")
                        p.append("order", f"{i},")
                        p.put("last", str(i))
                        order += f"{i},".encode()
                    got = p.get("last")
                    for j, result in enumerate(p.execute(errors=True)):
                        if isinstance(result, rskv.Error):
                            # A read is given up when too many connections were lost, a write is not.
                            kind = rskv.AnswerLost if j < 15 else rskv.ConnectionLost
                            self.assertIsInstance(result, kind, f"seed {seed}: request {j}: {result!r}")
                adds += 5
                if not isinstance(p.results[-1], rskv.Error):
                    self.assertEqual(got.value, str(i).encode(), f"seed {seed}: reads see the writes before them")
        finally:
            stop.set()
            killer.join()
        line.most = 0
        c.sync()
        self.assertEqual(losses, [], f"seed {seed}")
        self.assertEqual(c.add("n", 0), adds, f"seed {seed}")
        self.assertEqual(c.get("order"), order, f"seed {seed}")

    def test_cut_line(self) -> None:
        """What could go wrong: a write is lost with its connection, or sent twice."""
        self.run_cut(0, 5000)

    def test_killed_daemon(self) -> None:
        """What could go wrong: what a crash undid is not sent again, or what it did not undo is."""
        self.run_cut(5, 0)

    def test_both(self) -> None:
        """What could go wrong: the two interfere."""
        self.run_cut(4, 20000)

    def test_refused_writes_stay_refused(self) -> None:
        """What could go wrong: a write that was answered with an error takes effect later."""
        daemon = Daemon(commit_interval="1h")
        self.addCleanup(daemon.close)
        c = self.client(daemon.socket, retry_for=30)
        c.put("k", "text")
        with self.assertRaises(rskv.NotInteger):
            c.add("k", 5)
        c.put("k", (1).to_bytes(8, "little"))  # now the add would go through
        daemon.kill()  # none of it is durable
        self.assertEqual(c.add("k", 0), 1)

    def test_kept_is_bounded(self) -> None:
        """What could go wrong: a session keeps all writes in memory because nobody syncs."""
        daemon = Daemon(commit_interval="1h")
        self.addCleanup(daemon.close)
        c = self.client(daemon.socket, max_kept=100)
        for i in range(1000):
            c.put(f"k{i}", "v")
            self.assertLessEqual(len(c._core.kept), 101)
        with c.pipeline() as p:
            for i in range(1000):
                p.put(f"k{i}", "v")
        self.assertLessEqual(len(c._core.kept), 101)

    def test_loss(self) -> None:
        """What could go wrong: a session that cannot be resumed goes on as if nothing had happened."""
        losses: list[rskv.Loss] = []
        daemon = Daemon(commit_interval="1h")
        self.addCleanup(daemon.close)
        c = self.client(daemon.socket, on_session_loss=losses.append, retry_for=30)
        c.put("a", "1", sync=True)
        c.put("b", "2")
        daemon.stop()
        assert c.session is not None
        old = c.session.id
        # Another store in the same place: it cannot know the session.
        os.rename(os.path.join(daemon.dir, "data"), os.path.join(daemon.dir, "old"))
        daemon.start()
        c.put("c", "3")
        self.assertEqual(len(losses), 1)
        self.assertEqual((losses[0].session, losses[0].unconfirmed), (old, 1))
        self.assertIsInstance(losses[0].error, rskv.SessionLost)
        self.assertNotEqual(c.session.id, old)
        self.assertEqual(c.mget(["a", "b", "c"]), [None, None, b"3"])


if __name__ == "__main__":
    unittest.main()
