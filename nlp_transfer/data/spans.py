"""Raw texts with entities as spans of characters, as annotation tools export them, to words with tags.

{"text": "Ada left.", "entities": [[0, 3, "PER"]]}
{"text": "Ada left.", "spans": [{"start": 0, "end": 3, "label": "PER"}]}
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from nlp_transfer.data.cells import cell_text, label_name
from nlp_transfer.data.config import OnMisalignedSpan
from nlp_transfer.data.examples import Source, TaggedExample
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.raw_text import Word, split_words
from nlp_transfer.data.rows import Table
from nlp_transfer.errors import DataError
from nlp_transfer.labels import Span, tags_of

TEXT_COLUMN = "text"
SPAN_COLUMNS = ("entities", "spans", "label", "labels")
"""spaCy and others, Prodigy, doccano (old and new)."""
REJECTED = ("reject", "ignore")
"""What Prodigy writes under "answer" of a text that is no example."""
SHIFTED_SHARE = 0.2
"""From this share of spans that cut a word on it is hardly a slip."""
START_NAMES, END_NAMES, LABEL_NAMES = ("start", "start_offset"), ("end", "end_offset"), ("label", "type", "tag")


class Characters(NamedTuple):
    """``text[start:end]`` is an entity."""

    start: int
    end: int
    label: str


def span_columns(table: Table) -> list[str]:
    """Columns that hold spans; of empty lists alone, the first."""
    named = [name for name in SPAN_COLUMNS if name in table.columns]
    if TEXT_COLUMN not in table.columns or not named:
        return []
    filled = dict.fromkeys(named, False)
    seen = dict.fromkeys(named, False)
    for _, row in table.rows:
        for name in [name for name in named if isinstance(row.get(name), list)]:
            if not is_spans(row[name]):
                named.remove(name)
            seen[name] = True
            filled[name] = filled[name] or bool(row[name])
    possible = [name for name in named if seen[name]]
    return [name for name in possible if filled[name]] or possible[:1]


def is_spans(value: list[Any]) -> bool:
    """A list of lists or objects, not of names."""
    return all(isinstance(item, list | dict) for item in value)


def has_spans(table: Table) -> bool:
    """Whether rows hold a text in one string beside a list of spans."""
    return bool(span_columns(table))


def tagged_by_spans(table: Table, on_misaligned: OnMisalignedSpan, notes: Notes) -> Iterator[TaggedExample]:
    """Words are split as for prediction. A span that cuts a word is widened to whole words, and counted, or refused."""
    column, *others = span_columns(table)
    if others:
        raise DataError(f"{table.name}: columns '{column}' and '{others[0]}' both hold spans. Delete one.")
    notes.say(f"Entities are read from the character spans of column '{column}'.")
    num_spans, own = 0, Notes()
    for source, row in table.rows:
        if str(row.get("answer")).casefold() in REJECTED:
            notes.count("Texts that were rejected or ignored in annotation, skipped", source)
            continue
        text = cell_text(row.get(TEXT_COLUMN), source, TEXT_COLUMN)
        words = split_words(text)
        spans = [
            span_of_words(span, words, text, source, on_misaligned, own)
            for span in spans_of_row(row, column, source, text)
        ]
        num_spans += len(spans)
        refuse_overlap(spans, words, source)
        tags = tags_of(spans, len(words))
        yield TaggedExample(tuple(word.text for word in words), tuple(tags), source)
    notes.add(own)
    num_widened = sum(number for number, _ in own.counts.values())
    if num_widened > SHIFTED_SHARE * num_spans:
        notes.say(f"{table.name}: {num_widened:,} of {num_spans:,} spans cut a word. Are all offsets shifted?")


def spans_of_row(row: Mapping[str, Any], column: str, source: Source, text: str) -> list[Characters]:
    values = row.get(column)
    if not isinstance(values, list):
        raise DataError(f"{source}: column '{column}' must be a list of spans, got {type(values).__name__}.")
    return sorted(characters(value, column, source, text) for value in values)


def characters(value: Any, column: str, source: Source, text: str) -> Characters:
    """A list of start, end, label, or an object with these."""
    parts: Sequence[Any] = ()
    if isinstance(value, list):
        parts = value
    elif isinstance(value, dict):
        parts = [next((value[n] for n in names if n in value), None) for names in (START_NAMES, END_NAMES, LABEL_NAMES)]
    if len(parts) != 3 or not all(isinstance(offset, int) and not isinstance(offset, bool) for offset in parts[:2]):
        raise DataError(f"{source}: a span in '{column}' is {str(value)[:60]}, expected [start, end, label].")
    start, end = parts[:2]
    if not 0 <= start < end <= len(text) or not text[start:end].strip():
        raise DataError(
            f"{source}: span {start} to {end} marks no characters of its text, which has {len(text)}. "
            "Offsets count characters from 0; the end is one past the last."
        )
    if isinstance(value, dict) and value.get("text", text[start:end]) != text[start:end]:
        raise DataError(
            f"{source}: span {start} to {end} is {text[start:end]!r:.40} of the text, but states "
            f"{value['text']!r:.40}. Offsets count characters, not bytes."
        )
    if parts[2] is None:
        raise DataError(f"{source}: a span in '{column}' names no label: {str(value)[:60]}.")
    return Characters(start, end, label_name(parts[2], (), source))


def span_of_words(
    span: Characters, words: Sequence[Word], text: str, source: Source, on_misaligned: OnMisalignedSpan, notes: Notes
) -> Span:
    """The words that the span touches."""
    first = bisect_right(words, span.start, key=lambda word: word.end)
    last = bisect_left(words, span.end, key=lambda word: word.start)
    marked = text[span.start : span.end]
    if text[words[first].start : words[last - 1].end] != marked.strip():
        if on_misaligned == "refuse":
            raise DataError(
                f"{source}: span {span.start} to {span.end} ({marked!r:.40}) cuts a word. Correct it, or pass "
                "--on-misaligned-span widen."
            )
        notes.count("Spans that cut a word, widened to whole words", source)
    return Span(span.label, first, last)


def refuse_overlap(spans: Sequence[Span], words: Sequence[Word], source: Source) -> None:
    for one, other in pairwise(spans):
        if other.start < one.end:
            raise DataError(
                f"{source}: two spans share the word '{words[other.start].text}'. A word bears one label; delete one."
            )
