"""A daemon, and a line to it that can be cut, for the tests.

The program is $RSKVD, or rskvd from the repository's bin (make build).
"""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
PROGRAM = os.environ.get("RSKVD", str(ROOT / "bin" / "rskvd"))


class Daemon:
    """rskvd as a process of its own, in a directory of its own."""

    def __init__(self, **settings: str) -> None:
        self.dir = tempfile.mkdtemp(prefix="rskv")
        self.socket = os.path.join(self.dir, "s")
        self.settings = {"memory": "32MiB", "commit_interval": "20ms", "admin_socket": "off", **settings}
        self.log = open(os.path.join(self.dir, "log"), "wb")
        self.start()

    def start(self) -> None:
        args = [f"--{name.replace('_', '-')}={value}" for name, value in self.settings.items()]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("RSKV_")}
        self.process = subprocess.Popen(
            [PROGRAM, "--dir", os.path.join(self.dir, "data"), "--socket", self.socket, *args],
            stdout=self.log, stderr=self.log, env=environ,
        )  # fmt: skip
        end = time.monotonic() + 60
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as s:
                    s.connect(self.socket)
                    return
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise RuntimeError("the daemon did not start:\n" + self.said()) from None
                time.sleep(0.005)

    def kill(self) -> None:
        """kill -9, and start again."""
        self.process.kill()
        self.process.wait()
        self.start()

    def pause(self) -> None:
        """Stops the process without ending it, until resume."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(60) != 0:
            raise RuntimeError("the daemon failed:\n" + self.said())

    def said(self) -> str:
        with open(self.log.name, errors="replace") as f:
            return f.read()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)


class Line:
    """A socket that leads to another, and cuts each connection after a random number of bytes, 500 at least."""

    def __init__(self, to: str, seed: int, most: int) -> None:
        self.path = to + ".line"
        self.to = to
        self.random = random.Random(seed)
        self.most = most  # bytes before a cut; 0: none
        self.cuts = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(self.to)
            except OSError:
                near.close()
                far.close()
                continue
            for a, b in ((near, far), (far, near)):
                left = self.random.randrange(500, self.most) if self.most else 1 << 62  # greeted at least
                threading.Thread(target=self._copy, args=(a, b, left), daemon=True).start()

    def _copy(self, src: socket.socket, dst: socket.socket, left: int) -> None:
        try:
            while left > 0 and (data := src.recv(min(left, 1 << 16))):
                dst.sendall(data)
                left -= len(data)
        except OSError:
            pass
        if left <= 0:
            self.cuts += 1
        for s in (src, dst):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()

    def close(self) -> None:
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        os.unlink(self.path)
