"""The programs of the README."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import unittest

from .daemon import Daemon

HERE = pathlib.Path(__file__).resolve().parents[1]


class TestReadme(unittest.TestCase):
    def test_programs(self) -> None:
        """What could go wrong: what a reader copies does not run."""
        daemon = Daemon()
        self.addCleanup(daemon.close)
        programs = re.findall(r"```python\n(.*?)```", (HERE / "README.md").read_text(), re.DOTALL)
        self.assertEqual(len(programs), 3)
        for program in programs:
            if not program.startswith("import"):
                program = "import rskv\n" + program
            done = subprocess.run(
                [sys.executable, "-c", program], capture_output=True, text=True, timeout=60,
                env={**os.environ, "RSKV_SOCKET": daemon.socket, "PYTHONPATH": str(HERE)},
            )  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stderr + program)


if __name__ == "__main__":
    unittest.main()
