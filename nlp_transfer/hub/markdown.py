"""Names and texts of others in a page of ours: shown as they are, and never taken for a part of the page."""

from __future__ import annotations

import re

SPECIAL = re.compile(r"([\\`*_\[\]<>])")


def plain(text: str) -> str:
    """In one line, with every mark of Markdown and HTML escaped (of tables, `markdown_table` sees to it)."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """In a line of text. A run of backticks in it gets a longer one around it."""
    line = " ".join(text.split())
    fence = "`" * (longest_run(line) + 1)
    return f"{fence}{line}{fence}" if fence == "`" else f"{fence} {line} {fence}"


def block(text: str, language: str) -> str:
    """In lines of its own."""
    fence = "`" * max(3, longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
