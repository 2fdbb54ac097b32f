"""Which column is the text and which the label: as named by the user, or recognised by the usual names."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from nlp_transfer.data.rows import Table
from nlp_transfer.errors import DataError, did_you_mean, quoted

TEXT_NAMES = (
    *("text", "sentence", "review", "utterance", "content", "message", "tweet", "comment", "query", "question"),
    *("sms", "body", "document", "description", "sentence1", "premise", "text_a", "text1", "question1"),
)
PAIR_NAMES = {
    "sentence1": ("sentence2",),
    "premise": ("hypothesis",),
    "text_a": ("text_b",),
    "text1": ("text2",),
    "question1": ("question2",),
    "text": ("text_pair",),
    "question": ("sentence", "passage", "context", "answer"),
    "query": ("passage", "document"),
}
LABEL_NAMES = (
    *("label", "labels", "category", "class", "intent", "sentiment", "target", "emotion", "emotions", "topic"),
    *("categories", "classes", "gold_label", "rating", "stance", "y"),
)
INDEX_NAMES = ("", "id", "index", "unnamed: 0", "__index_level_0__", "nr", "no")
"""What counts rows is no label, even where it is the only other column."""
WORDS_NAMES = ("tokens", "words", "token", "word")
TAGS_NAMES = ("ner_tags", "tags", "ner", "labels", "entities", "tag", "label")
HEADER_NAMES = frozenset((*TEXT_NAMES, *LABEL_NAMES, *WORDS_NAMES, *TAGS_NAMES, *sum(PAIR_NAMES.values(), ())))


@dataclass(frozen=True, kw_only=True)
class TextColumns:
    """Column names of a table, as the table spells them."""

    text: str
    text_pair: str | None
    label: str


def text_columns(table: Table, text: str | None, text_pair: str | None, label: str | None) -> TextColumns:
    """Raises DataError when a named column is missing or nothing is named and nothing recognised."""
    label_column = column(table, label, LABEL_NAMES, "label", "--label-column") or guess_label(table, text)
    others = [name for name in table.columns if name != label_column]
    text_column = column(table, text, TEXT_NAMES, "text", "--text-column") if text else usual_text(table)
    if text_column is None and len(others) == 1:
        text_column = others[0]
    if text_column is None:
        raise not_recognised(table, "text", "--text-column", TEXT_NAMES)
    pair_names = () if text else PAIR_NAMES.get(text_column.casefold(), ())
    pair_names = tuple(name for name in pair_names if name != label_column.casefold())
    pair_column = column(table, text_pair, pair_names, "second text", "--text-pair-column")
    chosen = {"text": text_column, "second text": pair_column, "label": label_column}
    for first, second in itertools.combinations(chosen, 2):
        if chosen[first] == chosen[second]:
            flag = "--text-pair-column" if "second text" in (first, second) else "--text-column"
            raise DataError(f"{table.name}: column '{chosen[first]}' cannot be both {first} and {second}. Name {flag}.")
    return TextColumns(text=text_column, text_pair=pair_column, label=label_column)


def text_only_columns(table: Table, text: str | None, text_pair: str | None) -> tuple[str, str | None]:
    """Text and second text of a table that need not have labels."""
    found = column(table, text, TEXT_NAMES, "text", "--text-column") if text else usual_text(table)
    if found is None and len(table.columns) == 1:
        found = table.columns[0]
    if found is None:
        raise not_recognised(table, "text", "--text-column", TEXT_NAMES)
    pair_names = () if text else PAIR_NAMES.get(found.casefold(), ())
    return found, column(table, text_pair, pair_names, "second text", "--text-pair-column")


def usual_text(table: Table) -> str | None:
    """The first of a usual pair, so that its second is not taken for the only text; else the first usual name."""
    folded = {name.casefold() for name in table.columns}
    firsts = [first for first, seconds in PAIR_NAMES.items() if first in folded and folded & set(seconds)]
    return column(table, None, [*firsts, *TEXT_NAMES], "text", "--text-column")


def word_columns(table: Table, words: str | None, tags: str | None) -> tuple[str, str]:
    words_column = column(table, words, WORDS_NAMES, "words", "--words-column")
    tags_column = column(table, tags, TAGS_NAMES, "tags", "--tags-column")
    if words_column is None:
        raise not_recognised(table, "words", "--words-column", WORDS_NAMES)
    if tags_column is None:
        raise not_recognised(table, "tags", "--tags-column", TAGS_NAMES)
    return words_column, tags_column


def usual_word_columns(table: Table) -> list[str]:
    """The columns of words and tags, where both have usual names other than those that spans have, too."""
    words = column(table, None, WORDS_NAMES, "words", "--words-column")
    tags = column(table, None, ("ner_tags", "tags", "ner"), "tags", "--tags-column")
    return [words, tags] if words and tags else []


def column(table: Table, wanted: str | None, usual: Sequence[str], what: str, setting: str) -> str | None:
    """The wanted column, or the first usual one that the table has, or None."""
    if wanted is not None:
        if wanted in table.columns:
            return wanted
        raise DataError(
            f"{table.name}: no column '{wanted}' for the {what} ({setting}). "
            f"The columns are {quoted(table.columns)}.{did_you_mean(wanted, table.columns)}"
        )
    found = next((name for name in usual if name in map(str.casefold, table.columns)), None)
    spellings = [name for name in table.columns if name.casefold() == found]
    if len(spellings) > 1:
        raise DataError(f"{table.name}: columns {quoted(spellings)} may both be the {what}. Name one with {setting}.")
    return spellings[0] if spellings else None


def guess_label(table: Table, text: str | None) -> str:
    """Of two columns without usual names, the label is the one whose values recur."""
    no_label = {*TEXT_NAMES, *INDEX_NAMES}
    candidates = [name for name in table.columns if name != text and name.casefold() not in no_label]
    if len(table.columns) == 2 and len(candidates) == 1:
        return candidates[0]
    if len(candidates) == 2 == len(table.columns):
        num_rows = 0
        distinct: dict[str, set[int]] = {name: set() for name in candidates}
        for _, row in table.rows:
            num_rows += 1
            for name in candidates:
                distinct[name].add(hash(str(row.get(name))))  # the strings themselves would fill the memory
        fewest = min(candidates, key=lambda name: len(distinct[name]))
        if len(distinct[fewest]) * 2 <= num_rows and len(distinct[fewest]) < max(map(len, distinct.values())):
            return fewest
    raise not_recognised(table, "label", "--label-column", LABEL_NAMES)


def not_recognised(table: Table, what: str, setting: str, usual: Sequence[str]) -> DataError:
    return DataError(
        f"{table.name}: no column was recognised as the {what}. The columns are {quoted(table.columns)}; name one "
        f"with {setting}, or call it {' or '.join(repr(name) for name in usual[:3])}."
    )
