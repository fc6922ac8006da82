"""Docstrings as Markdown: lines that are aligned in columns become a list; formulas that are indented stay."""

from __future__ import annotations

import inspect
import re
from typing import Any

import griffe

_ENTRY = re.compile(r"^(\S(?:.*?\S)?) {2,}(\S.*)$")


class AlignedLists(griffe.Extension):
    """Turn each docstring into Markdown when its object has been read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object that has one."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """Return a docstring as Markdown; a paragraph with no aligned or indented line stays as it is."""
    blocks = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(_block(b) for b in blocks)


def _block(block: str) -> str:
    lines = block.splitlines()
    first = next((n for n, line in enumerate(lines) if _ENTRY.match(line) or line.startswith("    ")), None)
    if first is None:
        return _plain(block)
    lead, rest = [_plain(line) for line in lines[:first]], lines[first:]
    made = _list(rest) or "```text\n" + inspect.cleandoc("\n".join(["", *rest])) + "\n```"
    return "\n".join(lead) + ("\n\n" if lead else "") + made


def _list(lines: list[str]) -> str | None:
    """Return aligned lines as a list; None where they hold columns inside columns: those have to stay as they are."""
    entries: list[list[str]] = []
    for line in lines:
        found = _ENTRY.match(line)
        if found:
            entries.append([found[1], found[2]])
        elif not entries or not line.startswith("  ") or _ENTRY.match(line.strip()):
            return None
        else:
            entries[-1][1] += " " + line.strip()
    if any(_ENTRY.match(said) for _, said in entries):
        return None
    return "\n".join(f"- {_named(name)}: {_plain(said)}" for name, said in entries)


def _named(name: str) -> str:
    return name if "`" in name else ", ".join(f"`{n.strip()}`" for n in name.split(","))


def _plain(text: str) -> str:
    """Return text in which only backticks are markup: no tag, no emphasis by a formula's stars and underscores."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(p if p.startswith("`") else re.sub(r"([*_\[])", r"\\\1", p.replace("<", "&lt;")) for p in parts)
