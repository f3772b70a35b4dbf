"""The examples of ipc/PROTOCOL.md: a notation and the bytes it stands for."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Any

from .daemon import ROOT


@dataclass
class Vector:
    to_daemon: bool
    notation: str
    value: Any
    bytes: bytes


TOKEN = re.compile(r"""("(?:[^"\\]|\\.)*")|('(?:[^'\\]|\\.)*')|\b(nil|true|false)\b""")


def parse(notation: str) -> Any:
    """A notation is a Python literal, but for the names of three values and a b before byte strings."""
    names = {"nil": "None", "true": "True", "false": "False"}
    return ast.literal_eval(TOKEN.sub(lambda m: m[1] or (m[2] and "b" + m[2]) or names[m[3]], notation))


def vectors() -> list[Vector]:
    found: list[Vector] = []
    block = False
    for line in (ROOT / "ipc" / "PROTOCOL.md").read_text().splitlines():
        if line == "```":
            block = not block
        elif block and line[:2] in ("> ", "< "):
            found.append(Vector(line[0] == ">", line[2:], parse(line[2:]), b""))
        elif block:
            found[-1].bytes += bytes.fromhex(line)
    return found
