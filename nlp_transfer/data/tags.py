"""Words with tags, in any of their formats and schemes, to examples in IOB2."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from nlp_transfer.data.cells import label_name, refuse_invisible, refuse_surrogates
from nlp_transfer.data.columns import HEADER_NAMES, usual_word_columns, word_columns
from nlp_transfer.data.config import NerData
from nlp_transfer.data.conll import read_conll
from nlp_transfer.data.examples import Source, TaggedExample
from nlp_transfer.data.layouts import TAGGED
from nlp_transfer.data.lines import zip_lines
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.packing import ending
from nlp_transfer.data.rows import Table
from nlp_transfer.data.sources import COLUMN_ENDINGS, SEQUENCE_FILE
from nlp_transfer.data.spans import has_spans, tagged_by_spans
from nlp_transfer.data.store import ExampleStore, stored
from nlp_transfer.data.tables import TABLE_FORMATS, read_table, sniff
from nlp_transfer.errors import DataError, did_you_mean, quoted
from nlp_transfer.labels import OUTSIDE, PREFIXES, Scheme, detect_scheme, illegal_places, split_tag, to_iob2

TAGS_FILE = "seq.out"
ODD_TYPE, TAG_MARK = re.compile(r"[-\s]|O$"), re.compile("[BIESLU]-")


def read_tagged(path: Path, config: NerData, notes: Notes) -> Iterator[TaggedExample]:
    """The examples of one file, or of a folder with ``seq.in`` and ``seq.out``, with tags as they stand there."""
    if path.is_dir():
        return read_sequences(path)
    if ending(path) == ".csv":
        raise DataError(f"{path}: words and tags are read from CoNLL columns, jsonl or parquet, not from csv.")
    kind = "columns" if ending(path) in COLUMN_ENDINGS else TABLE_FORMATS.get(ending(path)) or sniff(path)
    if kind in ("jsonl", "parquet"):
        return tagged_of(read_table(path, HEADER_NAMES, notes), config, notes)
    return read_conll(path, config.words_column, config.tags_column, notes)


def read_sequences(folder: Path) -> Iterator[TaggedExample]:
    file = folder / SEQUENCE_FILE
    for number, words, tags in zip_lines(file, folder / TAGS_FILE):
        yield tagged(Source(str(file), number), split_at_blanks(words), split_at_blanks(tags))


def split_at_blanks(line: str) -> list[str]:
    """A word may hold a no-break space."""
    return [word for word in re.split("[ \t]+", line) if word]


def tagged_of(table: Table, config: NerData, notes: Notes) -> Iterator[TaggedExample]:
    """Rows of words and tags, or of a raw text and spans of its characters."""
    if config.words_column is None and config.tags_column is None and has_spans(table):
        if usual := usual_word_columns(table):
            raise DataError(
                f"{table.name} holds words with tags ({quoted(usual)}) and a text with spans. Name --words-column and "
                "--tags-column, or delete one of the two."
            )
        yield from tagged_by_spans(table, config.on_misaligned_span, notes)
        return
    words_column, tags_column = word_columns(table, config.words_column, config.tags_column)
    if words_column == tags_column:
        raise DataError(f"{table.name}: column '{words_column}' cannot hold both words and tags.")
    notes.say(f"{table.name}: words are read from column '{words_column}', tags from '{tags_column}'.")
    names = table.label_names.get(tags_column, ())
    for source, row in table.rows:
        words, tags = row.get(words_column), row.get(tags_column)
        if not isinstance(words, list) or not isinstance(tags, list):
            raise DataError(f"{source}: '{words_column}' and '{tags_column}' must be lists of words and of tags.")
        if not all(isinstance(word, str) for word in words):
            raise DataError(f"{source}: column '{words_column}' holds something that is no word.")
        if not all(map(str.strip, words)):
            notes.count("Texts with words that are empty or blank", source)
        yield tagged(source, words, [label_name(tag, names, source) for tag in tags])


def tagged(source: Source, words: Sequence[str], tags: Sequence[str]) -> TaggedExample:
    if len(words) != len(tags) or not words:
        raise DataError(f"{source}: {len(words)} words and {len(tags)} tags; every word needs one tag.")
    text = " ".join(words)
    if not text.isascii():
        refuse_surrogates(text, f"{source}: a word")
    if "\0" in text:
        raise DataError(f"{source}: a word holds a NUL character. Delete it.")
    return TaggedExample(tuple(words), tuple(tags), source)


def in_iob2(store: ExampleStore[TaggedExample], config: NerData, notes: Notes) -> ExampleStore[TaggedExample]:
    """Recognise the tag scheme of each file, check every tag and convert."""
    key = ["IOB2", store.fingerprint, config.on_illegal_tags]
    return stored(TAGGED, key, lambda notes: converted(store, config, notes), notes)


def converted(store: ExampleStore[TaggedExample], config: NerData, notes: Notes) -> Iterator[TaggedExample]:
    by_file = groupby(store, key=lambda example: example.source.file)
    schemes = {file: detect_scheme(example.tags for example in group) for file, group in by_file}
    for file, scheme in schemes.items():
        if scheme != "IOB2":
            notes.say(f"{file}: tags are in {scheme}, read as IOB2.")
    places = store.label_places()
    known, types = set(places), {split_tag(tag)[1] for tag in places}
    for tag, (number, source) in places.items():
        refuse_invisible(tag, f"{source}: the tag")
        if TAG_MARK.match(split_tag(tag)[1]):
            notes.count("Tags whose type looks like a tag of its own", source, number)
    for example in store:
        scheme = schemes[example.source.file]
        check_tags(example, scheme, known, types)
        check_order(example, scheme, config, notes)
        yield replace(example, tags=tuple(to_iob2(example.tags, scheme)))


def check_tags(example: TaggedExample, scheme: Scheme, known: set[str], types: set[str]) -> None:
    prefixes = PREFIXES[scheme].replace(OUTSIDE, "")
    for i, tag in enumerate(example.tags):
        prefix, label = split_tag(tag)
        if ODD_TYPE.match(label) or (TAG_MARK.match(label) and label[2:] in types):
            raise DataError(
                f"{example.place(i)}: tag '{tag}' of word {i + 1} ('{example.words[i]}') has the type '{label}', which "
                "looks like a tag of its own. Correct it."
            )
        if tag != OUTSIDE and not (label and prefix in set(prefixes)):
            good = [other for other in known if split_tag(other)[1] and split_tag(other)[0] in set(prefixes)]
            raise DataError(
                f"{example.place(i)}: tag '{tag}' of word {i + 1} ('{example.words[i]}') is not of the form "
                f"{OUTSIDE} or {'/'.join(prefixes)}-TYPE ({scheme}).{did_you_mean(tag, [OUTSIDE, *good])}"
                + (" Class ids need names: write the tags themselves." if tag.isdecimal() else "")
            )


def check_order(example: TaggedExample, scheme: Scheme, config: NerData, notes: Notes) -> None:
    """Count, or refuse, tags that cannot stand where they do."""
    for i in illegal_places(example.tags, scheme):
        if config.on_illegal_tags == "refuse":
            before = f"after {example.tags[i - 1]}" if i else "at the beginning"
            raise DataError(
                f"{example.place(i)}: tag '{example.tags[i]}' of word {i + 1} ('{example.words[i]}') cannot stand "
                f"{before} in {scheme}, or is not ended. Correct it, or pass --on-illegal-tags repair."
            )
        file = example.source.file
        notes.count(f"Tags of {file} that cannot stand where they do in {scheme}, repaired", example.place(i))
