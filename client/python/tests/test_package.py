"""What pip would install."""

from __future__ import annotations

import importlib.util
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).parent.parent


class TestPackage(unittest.TestCase):
    @unittest.skipUnless(importlib.util.find_spec("setuptools"), "setuptools is not installed")
    def test_files(self) -> None:
        """What could go wrong: a module, or the mark that there are types, is left out."""
        with tempfile.TemporaryDirectory() as work:
            source = pathlib.Path(work, "source")
            shutil.copytree(HERE, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info", ".*"))
            subprocess.run(
                [sys.executable, "-c", "from setuptools import setup; setup()", "-q", "build", "-b", f"{work}/build"],
                cwd=source, check=True, capture_output=True, timeout=120,
            )
            built = {p.name for p in pathlib.Path(work, "build", "lib", "rskv").iterdir()}
        self.assertEqual(built, {p.name for p in (HERE / "rskv").iterdir() if p.suffix in (".py", ".typed")})


if __name__ == "__main__":
    unittest.main()
