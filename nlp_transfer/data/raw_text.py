"""Raw text to words that keep their place in it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

CHUNK = re.compile(r"\S+")
HAN_OR_KANA = (
    "\u3040-\u3098\u309b-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f\U00030000-\U000323af"
)
MARKS = "\u3099\u309a\ufe00-\ufe0f\U000e0100-\U000e01ef"
"""Of voice, and of variants: they belong to the character before them."""
WITHOUT_BLANKS = re.compile(f"[{HAN_OR_KANA}][{MARKS}]*|[^{HAN_OR_KANA}]+")
POSSESSIVE = re.compile(r"(?<=\w)['’][sS]$")
SIGILS = "@#"
"""Kept with the word that follows: @user, #tag."""


class Word(NamedTuple):
    """``text[start:end]`` is the word."""

    text: str
    start: int
    end: int


def split_words(text: str) -> list[Word]:
    """Split at blanks, and take punctuation and symbols off both ends of what stands between them.

    What stands inside stays: ``U.S``, ``e-mail``, ``don't``, ``http://x.y/z``. A final 's becomes a word of its own,
    and so does every Han and kana character, since Chinese and Japanese write no blanks.
    """
    return [
        Word(text[start:end], start, end)
        for chunk in CHUNK.finditer(text)
        for piece in WITHOUT_BLANKS.finditer(text, chunk.start(), chunk.end())
        for start, end in split_chunk(text, piece.start(), piece.end())
    ]


def split_chunk(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    inner_start, inner_end = start, end
    while inner_start < end and is_mark(text[inner_start]) and not opens_tag(text, inner_start, end):
        inner_start += 1
    while inner_end > inner_start and is_mark(text[inner_end - 1]):
        inner_end -= 1
    yield from ((i, i + 1) for i in range(start, inner_start))
    if inner_start < inner_end:
        possessive = POSSESSIVE.search(text, inner_start, inner_end)
        cut = possessive.start() if possessive else inner_end
        yield inner_start, cut
        if possessive:
            yield cut, inner_end
    yield from ((i, i + 1) for i in range(inner_end, end))


def is_mark(character: str) -> bool:
    """Punctuation or symbol. Combining marks are neither, so words of every script stay whole."""
    return unicodedata.category(character)[0] in "PS"


def opens_tag(text: str, position: int, end: int) -> bool:
    return text[position] in SIGILS and position + 1 < end and not is_mark(text[position + 1])
