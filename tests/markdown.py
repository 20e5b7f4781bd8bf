"""Reads Markdown files: fenced blocks, links, headings."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OBJECT = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
"""What mkdocstrings describes from its docstring."""
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and the lines in it."""

    language: str
    text: str

    @property
    def lines(self) -> list[str]:
        """The lines that are not empty."""
        return [line for line in self.text.splitlines() if line.strip()]


def blocks(text: str, language: str | None = None) -> list[Block]:
    """The fenced blocks, or those of a language."""
    found = [Block(match[1], match[2]) for match in _FENCE.finditer(text)]
    return [block for block in found if language in (None, block.language)]


def sections(text: str, level: int) -> dict[str, str]:
    """Texts of the sections of a level, by heading; lines of fenced blocks are no headings."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    in_block = False
    for line in text.splitlines(keepends=True):
        in_block ^= line.startswith("```")
        marks = 0 if in_block else len(line) - len(line.lstrip("#"))
        if 0 < marks <= level:
            current = found.setdefault(line.strip("# \n"), []) if marks == level else []
        else:
            current.append(line)
    return {heading: "".join(lines) for heading, lines in found.items()}


def commands(text: str) -> Iterator[list[str]]:
    """Shell commands of the bash blocks, without comments, as words; lines that end in a backslash are joined."""
    for block in blocks(text, "bash"):
        for line in block.text.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def links(text: str) -> list[tuple[str, str]]:
    """Path and anchor of links and pictures that are no addresses."""
    targets = [match[1] for match in _LINK.finditer(_FENCE.sub("", text))]
    parts = [target.partition("#") for target in targets if not target.startswith(("http", "mailto"))]
    return [(path, anchor) for path, _, anchor in parts]


def anchors(text: str) -> set[str]:
    """Anchors of the headings, as GitHub makes them, and those of the objects that the site describes there."""
    headings = (line.lstrip("#").strip().lower() for line in text.splitlines() if line.startswith("#"))
    objects = (name for path in _OBJECT.findall(text) for name in _with_members(path))
    return {re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in headings}.union(objects)


def _with_members(path: str) -> Iterator[str]:
    """The path of an object of a module, and of each of its members."""
    module, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    yield path
    yield from (f"{path}.{member}" for member in getattr(found, "__dict__", ()))


def table_rows(text: str) -> list[list[str]]:
    """Cells of the rows of all tables, without headings."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rules = {number for number, line in enumerate(lines) if not line.strip("|-: ")}
    return [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for number, line in enumerate(lines)
        if not {number, number + 1} & rules
    ]
