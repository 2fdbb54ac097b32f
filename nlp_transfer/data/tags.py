"""Words with tags, in any of their formats and schemes, to examples in IOB2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nlp_transfer.data.cells import label_name, refuse_surrogates
from nlp_transfer.data.columns import HEADER_NAMES, word_columns
from nlp_transfer.data.config import NerData
from nlp_transfer.data.conll import read_conll
from nlp_transfer.data.examples import Source, TaggedExample
from nlp_transfer.data.lines import ending, zip_lines
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.sources import SEQUENCE_FILE
from nlp_transfer.data.spans import has_spans, tagged_by_spans
from nlp_transfer.data.tables import TABLE_FORMATS, Table, read_table, sniff
from nlp_transfer.errors import DataError, did_you_mean
from nlp_transfer.labels import OUTSIDE, PREFIXES, Scheme, detect_scheme, illegal_places, split_tag, to_iob2

TAGS_FILE = "seq.out"


PlaceOfWord = Callable[[TaggedExample, int], Source]


def read_tagged(path: Path, config: NerData, notes: Notes) -> list[TaggedExample]:
    """The examples of one file, or of a folder with ``seq.in`` and ``seq.out``, in IOB2."""
    if path.is_dir():
        return in_iob2(read_sequences(path), config, notes)
    kind = TABLE_FORMATS.get(ending(path)) or sniff(path)
    if kind == "csv" and ending(path) == ".csv":
        raise DataError(f"{path}: words and tags are read from CoNLL columns, jsonl or parquet, not from csv.")
    if kind in ("jsonl", "parquet"):
        return in_iob2(tagged_of(read_table(path, HEADER_NAMES, notes), config, notes), config, notes)
    examples = read_conll(path, config.words_column, config.tags_column, notes)
    return in_iob2(examples, config, notes, lambda example, word: example.source.below(word))


def read_sequences(folder: Path) -> list[TaggedExample]:
    file = folder / SEQUENCE_FILE
    return [
        tagged(Source(str(file), number), words.split(), tags.split())
        for number, words, tags in zip_lines(file, folder / TAGS_FILE)
    ]


def tagged_of(table: Table, config: NerData, notes: Notes) -> list[TaggedExample]:
    """Rows of words and tags, or of a raw text and spans of its characters."""
    if config.words_column is None and config.tags_column is None and has_spans(table):
        return tagged_by_spans(table, config.on_misaligned_span, notes)
    words_column, tags_column = word_columns(table, config.words_column, config.tags_column)
    names = table.label_names.get(tags_column, ())
    examples = []
    for source, row in table.rows:
        words, tags = row.get(words_column), row.get(tags_column)
        if not isinstance(words, list) or not isinstance(tags, list):
            raise DataError(f"{source}: '{words_column}' and '{tags_column}' must be lists of words and of tags.")
        if not all(isinstance(word, str) for word in words):
            raise DataError(f"{source}: column '{words_column}' holds something that is no word.")
        examples.append(tagged(source, words, [label_name(tag, names, source) for tag in tags]))
    return examples


def tagged(source: Source, words: Sequence[str], tags: Sequence[str]) -> TaggedExample:
    if len(words) != len(tags) or not words:
        raise DataError(f"{source}: {len(words)} words and {len(tags)} tags; every word needs one tag.")
    refuse_surrogates(" ".join(words), f"{source}: a word")
    return TaggedExample(tuple(words), tuple(tags), source)


def in_iob2(
    examples: Sequence[TaggedExample],
    config: NerData,
    notes: Notes,
    place: PlaceOfWord = lambda example, _: example.source,
) -> list[TaggedExample]:
    """Recognise the tag scheme of one file, check every tag and convert. ``place`` tells where a word stands."""
    scheme = detect_scheme(example.tags for example in examples)
    known = {tag for example in examples for tag in example.tags}
    if scheme != "IOB2":
        notes.say(f"{examples[0].source.file}: tags are in {scheme}, read as IOB2.")
    for example in examples:
        check_tags(example, scheme, known, place)
        check_order(example, scheme, config, notes, place)
    return [TaggedExample(e.words, tuple(to_iob2(e.tags, scheme)), e.source) for e in examples]


def check_tags(example: TaggedExample, scheme: Scheme, known: set[str], place: PlaceOfWord) -> None:
    prefixes = PREFIXES[scheme].replace(OUTSIDE, "")
    for i, tag in enumerate(example.tags):
        prefix, label = split_tag(tag)
        if tag != OUTSIDE and not (label and prefix and prefix in prefixes):
            good = [other for other in known if split_tag(other)[1] and split_tag(other)[0] in set(prefixes)]
            raise DataError(
                f"{place(example, i)}: tag '{tag}' of word {i + 1} ('{example.words[i]}') is not of the form "
                f"{OUTSIDE} or {'/'.join(prefixes)}-TYPE ({scheme}).{did_you_mean(tag, [OUTSIDE, *good])}"
            )


def check_order(example: TaggedExample, scheme: Scheme, config: NerData, notes: Notes, place: PlaceOfWord) -> None:
    """Count, or refuse, tags that cannot follow the one before."""
    for i in illegal_places(example.tags, scheme):
        if config.on_illegal_tags == "refuse":
            before = example.tags[i - 1] if i else "the beginning"
            raise DataError(
                f"{place(example, i)}: tag '{example.tags[i]}' of word {i + 1} ('{example.words[i]}') cannot follow "
                f"{before} in {scheme}. Correct it, or pass --on-illegal-tags repair."
            )
        file = example.source.file
        notes.count(f"tags of {file} cannot follow the one before in {scheme} and were repaired", place(example, i))
