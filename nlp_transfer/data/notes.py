"""What reading saw and did: nothing is recognised, converted, repaired or skipped in silence."""

from __future__ import annotations

from dataclasses import dataclass, field

from nlp_transfer.data.examples import Source


@dataclass
class Notes:
    """Sentences, each said once, and counts, each with the first place it is about."""

    sentences: dict[str, None] = field(default_factory=dict)
    counts: dict[str, tuple[int, Source]] = field(default_factory=dict)

    def say(self, sentence: str) -> None:
        self.sentences[sentence] = None

    def count(self, what: str, source: Source) -> None:
        """``what`` stands before the number: "Rows without a label, skipped: 3"."""
        number, first = self.counts.get(what, (0, source))
        self.counts[what] = number + 1, first

    def lines(self) -> tuple[str, ...]:
        counted = (f"{what}: {number:,} (first: {first})." for what, (number, first) in self.counts.items())
        return (*self.sentences, *counted)
