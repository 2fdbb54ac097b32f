"""Examples in Arrow's columns, on disk and mapped into memory: a million of them need no more of it than a thousand."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from nlp_transfer.cache import cached
from nlp_transfer.data.examples import Example, IntArray, Source, TaggedExample
from nlp_transfer.data.layouts import TAGGED, TEXTS, Layout
from nlp_transfer.data.notes import Notes
from nlp_transfer.fingerprints import hash_json
from nlp_transfer.reporting.progress import progress_bar

Keys = np.ndarray[Any, np.dtype[np.uint64]]

BATCH_ROWS = 1024
MANY_SETS = 100_000
EXAMPLES_FILE, HEADER_FILE = "examples.arrow", "header.json"


@dataclass(frozen=True)
class Header:
    """What the ids in the columns stand for."""

    labels: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ExampleStore(Sequence[Example]):
    """A sequence of examples; iterate it rather than index it."""

    layout: Layout[Example]
    batches: tuple[pa.RecordBatch, ...]
    header: Header
    fingerprint: str | None = None
    """Equal for equal examples; None where they have no key to be cached under."""
    rows: IntArray | None = None
    """Of a view: which rows, in rising order."""

    @classmethod
    def of(cls, examples: Sequence[Example]) -> ExampleStore[Example]:
        """In memory."""
        layout: Layout[Any] = TAGGED if examples and isinstance(examples[0], TaggedExample) else TEXTS
        sink = pa.BufferOutputStream()
        header = write_columns(examples, layout, sink)
        return cls(layout, batches_of(pa.BufferReader(sink.getvalue())), header)

    def __len__(self) -> int:
        return sum(batch.num_rows for batch in self.batches) if self.rows is None else len(self.rows)

    def __iter__(self) -> Iterator[Example]:
        for batch in self.selected():
            yield from self._examples(batch)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> ExampleStore[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | ExampleStore[Example]:
        places = np.arange(len(self))[index]
        if isinstance(index, slice):
            return self.take(places)
        return next(iter(self.take(places[np.newaxis])))

    def take(self, places: IntArray) -> ExampleStore[Example]:
        """A view of the examples at ``places``, which rise; nothing is copied."""
        if (np.diff(places) <= 0).any():
            raise ValueError("the places of a view must rise")
        rows = places if self.rows is None else self.rows[places]
        fingerprint = self.fingerprint and hash_json([self.fingerprint, hashlib.sha256(rows.tobytes()).hexdigest()])
        return replace(self, rows=rows, fingerprint=fingerprint)

    def renamed(self, names: Mapping[str, str]) -> ExampleStore[Example]:
        """The same with other names for some labels."""
        labels = tuple(names.get(label, label) for label in self.header.labels)
        if labels == self.header.labels:
            return self
        fingerprint = self.fingerprint and hash_json([self.fingerprint, labels])
        return replace(self, header=replace(self.header, labels=labels), fingerprint=fingerprint)

    def selected(self) -> Iterator[pa.RecordBatch]:
        """The rows, batch by batch."""
        start = 0
        for batch in self.batches:
            end = start + batch.num_rows
            if self.rows is None:
                yield batch
            else:
                low, high = np.searchsorted(self.rows, [start, end])
                if high > low:
                    yield batch.take(pa.array(self.rows[low:high] - start))
            start = end

    @cached_property
    def keys(self) -> Keys:
        """Of each example: a hash of its folded text, equal for copies."""
        none = np.zeros(0, dtype=np.uint64)
        return np.concatenate([none, *(batch.column("key").to_numpy() for batch in self.selected())])

    def sources(self) -> Iterator[Source]:
        for batch in self.selected():
            for file, line in zip(plain(batch.column("file")), plain(batch.column("line")), strict=True):
                yield Source(self.header.files[file], line)

    def label_places(self) -> dict[str, tuple[int, Source]]:
        """Of each label, or tag: how often it occurs, and where first; in the order of their first places."""
        counts = np.zeros(len(self.header.labels), dtype=np.int64)
        first: dict[str, Source] = {}
        for batch in self.selected():
            ids = batch.column("labels").flatten().to_numpy()
            counts += np.bincount(ids, minlength=len(counts))
            if any(self.header.labels[i] not in first for i in np.unique(ids)):
                for label, source in self._labels_with_places(batch):
                    first.setdefault(label, source)
        total = Counter(dict(zip(self.header.labels, counts.tolist(), strict=True)))
        if len(total) < len(counts):  # two ids bear one name, which a text bears once
            total = Counter(label for example in self for label in self.layout.labels(example))
        return {label: (total[label], source) for label, source in first.items()}

    def class_places(self) -> dict[str, tuple[int, Source]]:
        """Of each class: how many labels bear it (of a type, how many entities in IOB2), and where it first stands."""
        places: dict[str, tuple[int, Source]] = {}
        for label, (count, source) in self.label_places().items():
            class_ = self.layout.class_of(label)
            if class_ and not (self.layout is TAGGED and label.startswith("I-")):
                before, first = places.get(class_, (0, source))
                places[class_] = before + count, first
        return places

    def strata(self) -> tuple[list[str], IntArray]:
        """Names of the sets of classes that occur together, and which of them each example bears."""
        classes = [self.layout.class_of(label) for label in self.header.labels]
        names: dict[str, int] = {}
        known: dict[tuple[int, ...], int] = {}
        found: list[IntArray] = [np.zeros(0, dtype=np.int64)]
        for batch in self.selected():
            of_each = list(map(tuple, lists(batch.column("labels"))))
            for ids in set(of_each) - known.keys():
                name = "\t".join(sorted({classes[i] for i in ids} - {""}))
                known[ids] = names.setdefault(name, len(names))
            found.append(np.array([known[ids] for ids in of_each], dtype=np.int64))
            if len(known) > MANY_SETS:  # sequences of tags hardly recur
                known.clear()
        return list(names), np.concatenate(found)

    def label_keys(self) -> IntArray:
        """Of each example: a number that is equal, in this process, for equal labels (of a text in any order)."""
        names = self.header.labels
        if self.layout is TEXTS:
            keys = (hash(frozenset(names[i] for i in ids)) for ids in self._label_ids())
        else:
            keys = (hash(tuple(names[i] for i in ids)) for ids in self._label_ids())
        return np.fromiter(keys, dtype=np.int64, count=len(self))

    def _label_ids(self) -> Iterator[list[int]]:
        return (ids for batch in self.selected() for ids in lists(batch.column("labels")))

    def _labels_with_places(self, batch: pa.RecordBatch) -> Iterator[tuple[str, Source]]:
        for example in self._examples(batch):
            for position, label in enumerate(self.layout.labels(example)):
                yield label, example.place(position) if isinstance(example, TaggedExample) else example.source

    def _examples(self, batch: pa.RecordBatch) -> Iterator[Example]:
        names, files = self.header.labels, self.header.files
        columns = zip(*(values(batch.column(name)) for name in self.layout.columns), strict=True)
        common = zip(
            lists(batch.column("labels")), plain(batch.column("file")), plain(batch.column("line")), strict=True
        )
        for cells, (ids, file, line) in zip(columns, common, strict=True):
            labels = dict.fromkeys(names[i] for i in ids) if self.layout is TEXTS else (names[i] for i in ids)
            yield self.layout.example(cells, tuple(labels), Source(files[file], line))


def plain(column: pa.Array) -> list[Any]:
    """The same as ``to_pylist``, several times as fast."""
    found: list[Any] = column.to_numpy(zero_copy_only=False).tolist()
    return found


def lists(column: pa.ListArray) -> Iterator[list[Any]]:
    flat, start = plain(column.flatten()), 0
    for length in plain(column.value_lengths()):
        yield flat[start : start + length]
        start += length


def values(column: pa.Array) -> Iterable[Any]:
    return lists(column) if pa.types.is_list(column.type) else plain(column)


def write_columns(examples: Iterable[Example], layout: Layout[Example], sink: Any) -> Header:
    """Write batch by batch, with labels and files as ids."""
    common = {"labels": pa.list_(pa.int32()), "file": pa.int32(), "line": pa.int64(), "key": pa.uint64()}
    schema = pa.schema({**layout.columns, **common})
    labels: dict[str, int] = {}
    files: dict[str, int] = {}
    waiting = iter(examples)
    with pa.ipc.new_file(sink, schema) as writer, progress_bar("reading", None) as bar:
        while batch := list(islice(waiting, BATCH_ROWS)):
            rows = [cells_of(example, layout, labels, files) for example in batch]
            columns = [
                pa.array(column, type_) for column, type_ in zip(zip(*rows, strict=True), schema.types, strict=True)
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            bar.advance(len(batch))
    return Header(tuple(labels), tuple(files))


def cells_of(
    example: Example, layout: Layout[Example], labels: dict[str, int], files: dict[str, int]
) -> tuple[Any, ...]:
    ids = [labels.setdefault(label, len(labels)) for label in layout.labels(example)]
    file = files.setdefault(example.source.file, len(files))
    return *layout.cells(example), ids, file, example.source.line, key_of(example.folded())


def key_of(folded: str) -> int:
    """64 bits: two different texts of a million share one with a chance of 3 in 100 million."""
    return int.from_bytes(hashlib.blake2b(folded.encode(), digest_size=8).digest(), "little")


def batches_of(source: Any) -> tuple[pa.RecordBatch, ...]:
    reader = pa.ipc.open_file(source)
    return tuple(reader.get_batch(i) for i in range(reader.num_record_batches))


def stored(
    layout: Layout[Example], key: Sequence[Any], read: Callable[[Notes], Iterable[Example]], notes: Notes
) -> ExampleStore[Example]:
    """What ``read`` gives, from the cache where the same was read before; with what it noted then."""

    def write(folder: Path) -> None:
        own = Notes()
        with pa.OSFile(str(folder / EXAMPLES_FILE), "wb") as sink:
            header = write_columns(read(own), layout, sink)
        plain_header = {"labels": header.labels, "files": header.files, "notes": own.plain()}
        (folder / HEADER_FILE).write_text(json.dumps(plain_header), "utf-8")

    def load(folder: Path) -> tuple[ExampleStore[Example], Notes]:
        found = json.loads((folder / HEADER_FILE).read_text("utf-8"))
        header = Header(tuple(found["labels"]), tuple(found["files"]))
        batches = batches_of(pa.memory_map(str(folder / EXAMPLES_FILE)))
        return ExampleStore(layout, batches, header, hash_json(key)), Notes.of_plain(found["notes"])

    store, own = cached("examples", key, write, load)
    notes.add(own)
    return store
