"""Words to tokens and windows: every word stands in exactly one window as that window's own.

Words are tokenized one by one, so that which tokens belong to which word is known for every kind of tokenizer.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from nlp_transfer.data.encoded import UNREAD
from nlp_transfer.data.framing import Frame, frame_of
from nlp_transfer.data.tokenizing import encode_texts, fallback_id

CONTEXT_SHARE = 4
"""A window holds up to a quarter of its tokens as context before its own words, and as much after them."""

MAX_KNOWN = 500_000
"""Words whose tokens are remembered."""


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a text that fits the encoder."""

    inputs: dict[str, list[int]]
    start: int
    """The first word that is predicted here."""
    positions: tuple[int, ...]
    """Of the words that are predicted here: the position of each one's first token, ``UNREAD`` of one that has none.
    Other words are context."""


class WordTokenizer:
    """Tokenizes lists of words for one encoder."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._pieces: dict[str, array[int]] = {}
        self._max_tokens = max_tokens

    def learn(self, texts: Iterable[Sequence[str]]) -> None:
        """Tokenize the words that are new all at once, which takes a tenth of the time, and all cores."""
        if len(self._pieces) > MAX_KNOWN:
            self._pieces.clear()
        new = list({word: None for words in texts for word in words if word not in self._pieces})
        if not new:
            return
        spelled = [f" {word}" for word in new] if self._needs_space else new
        found = encode_texts(self._tokenizer, spelled, special_tokens=False)
        for word, inputs in zip(new, found, strict=True):
            self._pieces[word] = array("i", inputs["input_ids"] or [self._fallback_id])

    def windows(self, words: Sequence[str]) -> Iterator[Window]:
        """One window where the text fits; else windows that overlap by their context."""
        pieces, sizes = self._measured(words)
        if sum(sizes) <= self._room:
            yield self._window(pieces, sizes, (0, len(words)), (0, len(words)))
            return
        context = self._room // CONTEXT_SHARE
        start = 0
        while start < len(words):
            first = reach_back(sizes, start, context)
            while start > first and sum(sizes[first:start]) + sizes[start] > self._room:
                first += 1  # a very long word leaves less room for context
            end = reach_on(sizes, first, self._room)
            own_end = end if end == len(words) else max(start + 1, reach_back(sizes, end, context))
            yield self._window(pieces, sizes, (first, end), (start, own_end))
            start = own_end

    def head(self, words: Sequence[str]) -> Window:
        """The words that fit; the others are not read."""
        pieces, sizes = self._measured(words)
        end = reach_on(sizes, 0, self._room)
        window = self._window(pieces, sizes, (0, end), (0, end))
        return replace(window, positions=window.positions + (UNREAD,) * (len(words) - end))

    def has_cut(self, words: Sequence[str]) -> bool:
        """Whether a word has more tokens than a whole window holds; what is beyond is not read."""
        return any(len(self.pieces(word)) > self._room for word in words)

    def pieces(self, word: str) -> array[int]:
        """The word's token ids, at least one: a word that the tokenizer drops (zero-width, empty) becomes unknown."""
        if word not in self._pieces:
            self.learn([[word]])
        return self._pieces[word]

    @property
    def _room(self) -> int:
        return self._max_tokens - self._frame.size

    def _measured(self, words: Sequence[str]) -> tuple[list[array[int]], list[int]]:
        pieces = [self.pieces(word) for word in words]
        return pieces, [min(len(ids), self._room) for ids in pieces]

    def _window(
        self, pieces: list[array[int]], sizes: list[int], held: tuple[int, int], own: tuple[int, int]
    ) -> Window:
        ids: list[int] = []
        positions: list[int] = []
        start = len(self._frame.before["input_ids"])
        for word in range(*held):
            if own[0] <= word < own[1]:
                positions.append(start + len(ids))
            ids += pieces[word][: sizes[word]]
        return Window(self._frame.around(ids), own[0], tuple(positions))

    @cached_property
    def _frame(self) -> Frame:
        return frame_of(self._tokenizer)

    @cached_property
    def _needs_space(self) -> bool:
        """Whether words inside a text begin with a blank of their own (byte-level BPE without add_prefix_space)."""

        def ids(text: str) -> list[int]:
            found: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            return found

        return ids("a a") != ids("a") + ids("a") and ids("a a") == ids("a") + ids(" a")

    @cached_property
    def _fallback_id(self) -> int:
        return fallback_id(self._tokenizer)


def reach_back(sizes: Sequence[int], end: int, budget: int) -> int:
    """The first word of the longest run before ``end`` of at most ``budget`` tokens."""
    start = end
    while start > 0 and budget >= sizes[start - 1]:
        start -= 1
        budget -= sizes[start]
    return start


def reach_on(sizes: Sequence[int], start: int, budget: int) -> int:
    """The end of the longest run from ``start`` of at most ``budget`` tokens."""
    end = start
    while end < len(sizes) and budget >= sizes[end]:
        budget -= sizes[end]
        end += 1
    return end
