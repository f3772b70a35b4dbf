"""The client on asyncio, against the daemon."""

from __future__ import annotations

import asyncio
import os
import time
import unittest

import rskv
from rskv import aio

from .daemon import Daemon, Line


class TestAio(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)

    async def test_methods(self) -> None:
        """What could go wrong: a method does something else than its twin without a loop."""
        async with await aio.connect(self.daemon.socket) as c:
            await c.ping()
            self.assertTrue(await c.put("k", "v", if_absent=True))
            self.assertEqual(await c.get("k"), b"v")
            self.assertTrue(await c.exists("k"))
            self.assertEqual(await c.append("k", "w"), 2)
            self.assertTrue(await c.cas("k", "vw", None))
            self.assertFalse(await c.delete("k"))
            self.assertEqual(await c.add("n", 7, sync=True), 7)
            self.assertEqual(await c.mput({"a": "1", "b": "2"}), 2)
            self.assertEqual(await c.mget(["a", "c", "b"]), [b"1", None, b"2"])
            self.assertEqual({k async for k in c.scan_keys()}, {b"a", b"b", b"n"})
            self.assertEqual([p async for p in c.scan("a")], [(b"a", b"1")])
            self.assertEqual(await c.len(exact=True), 3)
            self.assertEqual(await c.mdelete(["a", "b"]), 2)
            await c.sync()
            self.assertEqual((await c.health())["state"], (await c.stats())["health"])
            self.assertEqual((await c.config({"log_level": "info"}))["log_level"], "info")
            self.assertGreater((await c.call("checkpoint", {"kind": "log"}))["version"], 0)
            with self.assertRaises(rskv.BadRequest):
                await c.get("")
        with self.assertRaises(rskv.Closed):
            await c.ping()
        with self.assertRaisesRegex(FileNotFoundError, self.daemon.socket + ".none"):
            await aio.connect(self.daemon.socket + ".none")

    async def test_watch(self) -> None:
        """What could go wrong: a watch holds up the other requests, or does not end."""
        async with await aio.connect(self.daemon.socket) as c:
            changes = c.watch("w/")
            self.assertEqual((await anext(changes)).op, "commit")
            await asyncio.gather(*(c.put(f"w/{i}", "v", ttl=60) for i in range(100)))
            seen = set()
            async for change in changes:
                if change.op == "put":
                    seen.add(change.key)
                elif len(seen) == 100:
                    break
            self.assertLessEqual(await c.ttl("w/1") or 0, 60)
            self.assertTrue(await c.expire("w/1", 5))
            self.assertTrue(await c.persist("w/1"))
            await self.kill_and_watch(c)

    async def kill_and_watch(self, c: aio.Client) -> None:
        changes = c.watch("k/")
        await anext(changes)
        await c.put("k/1", "v", sync=True)
        while (await anext(changes)).op != "commit":
            pass
        await asyncio.to_thread(self.daemon.kill)
        await c.put("k/2", "v", sync=True)
        async for change in changes:
            if change.op == "put":
                self.assertEqual(change.key, b"k/2")
                break
        await changes.aclose()

    async def test_gather(self) -> None:
        """What could go wrong: tasks get each other's answers, or each sends by itself."""
        async with await aio.connect(self.daemon.socket) as c:
            sums = await asyncio.gather(*(c.add("n") for _ in range(2000)))
            self.assertEqual(sums, list(range(1, 2001)))
            value = os.urandom(1 << 20)
            await asyncio.gather(*(c.put(f"large{i}", value) for i in range(32)))
            self.assertEqual(await asyncio.gather(*(c.get(f"large{i}") for i in range(32))), [value] * 32)

    async def test_cancel(self) -> None:
        """What could go wrong: the answer to a cancelled request is given to another."""
        async with await aio.connect(self.daemon.socket) as c:
            for i in range(200):
                task = asyncio.create_task(c.add("n", 0))
                await asyncio.sleep(0)
                task.cancel()
                self.assertTrue(await c.put("k", str(i)))
                self.assertEqual(await c.get("k"), str(i).encode())
            self.daemon.pause()
            try:
                with self.assertRaises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await c.get("k")
            finally:
                self.daemon.resume()
            self.assertEqual(await c.get("none"), None)

    async def test_session(self) -> None:
        """What could go wrong: a crash, or a lost connection, undoes or repeats a write."""
        seed = int.from_bytes(os.urandom(4), "big")
        line = Line(self.daemon.socket, seed, 20_000)
        self.addCleanup(line.close)
        losses: list[rskv.Loss] = []
        async with await aio.connect(line.path, session=True, retry_for=60, max_kept=500, on_session_loss=losses.append) as c:
            done = 0
            stop = time.monotonic() + 2

            async def count() -> None:
                nonlocal done
                while time.monotonic() < stop or line.cuts == 0:
                    try:
                        await c.add("n")
                    except rskv.AnswerLost:
                        pass
                    done += 1

            workers = [asyncio.create_task(count()) for _ in range(20)]
            for _ in range(4):
                await asyncio.sleep(0.4)
                await asyncio.to_thread(self.daemon.kill)
            await asyncio.gather(*workers)
            line.most = 0
            await c.sync()
            self.assertEqual(losses, [], f"seed {seed}")
            self.assertEqual(await c.add("n", 0), done, f"seed {seed}")
            self.assertGreater(line.cuts, 0)

    async def test_daemon_away(self) -> None:
        """What could go wrong: a call waits for ever, or the client does not come back."""
        async with await aio.connect(self.daemon.socket, retry_for=0.2) as c:
            await c.put("k", "v", sync=True)
            self.daemon.stop()
            with self.assertRaises(rskv.ConnectionLost):
                await c.get("k")
            with self.assertRaises(rskv.ConnectionLost):
                await c.get("k")
            self.daemon.start()
            for _ in range(500):
                try:
                    self.assertEqual(await c.get("k"), b"v")
                    return
                except rskv.ConnectionLost:
                    await asyncio.sleep(0.02)
            self.fail("it does not come back")


if __name__ == "__main__":
    unittest.main()
