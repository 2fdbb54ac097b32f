"""What reading saw and did: nothing is recognised, converted, repaired or skipped in silence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nlp_transfer.data.examples import Source

PASSED_OVER = "passed over"
"""Said of what is no data and was never meant to be."""


@dataclass
class Notes:
    """Sentences, each said once, and counts, each with the first place it is about."""

    sentences: dict[str, None] = field(default_factory=dict)
    counts: dict[str, tuple[int, Source]] = field(default_factory=dict)

    def say(self, sentence: str) -> None:
        self.sentences[sentence] = None

    def count(self, what: str, source: Source, times: int = 1) -> None:
        """``what`` stands before the number: "Rows without a label, skipped: 3"."""
        number, first = self.counts.get(what, (0, source))
        self.counts[what] = number + times, first

    def lines(self) -> tuple[str, ...]:
        counted = (f"{what}: {number:,} (first: {first})." for what, (number, first) in self.counts.items())
        return (*self.sentences, *counted)

    def add(self, others: Notes) -> None:
        for sentence in others.sentences:
            self.say(sentence)
        for what, (number, first) in others.counts.items():
            self.count(what, first, number)

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"sentences": list(self.sentences), "counts": self.counts}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Notes:
        counts = {what: (number, Source(*first)) for what, (number, first) in plain["counts"].items()}
        return cls(dict.fromkeys(plain["sentences"]), counts)
