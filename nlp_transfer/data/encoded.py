"""Encoded rows, one after the other in flat arrays, and the padded tensors that are made of some of them."""

from __future__ import annotations

import io
import json
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from nlp_transfer.data.examples import IntArray
from nlp_transfer.labels import IGNORE_INDEX

Indices = tuple[int, ...]

ATTENTION_MASK = "attention_mask"
SPLIT_FILE = "split.json"
ROWS_AT_ONCE = 4096
UNREAD = -1
"""The position of a word that lies beyond the limit."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a forward pass: an example, or one window of a long one."""

    inputs: Mapping[str, list[int]]
    """What the tokenizer gives, by name; all lists are as long as ``input_ids``."""
    labels: int | list[int] | list[float]
    """One id, one number a label (multi-label), or one id a token."""
    example: int
    """Position of its example in the split."""
    start: int = 0
    """Which of its example's rows it is; where labels belong to words, the first word that is predicted here."""
    positions: tuple[int, ...] = ()
    """Where labels belong to words: the first token, or ``UNREAD``, of each word from ``start`` on predicted here."""
    is_cut: bool = False
    """Whether something of its example lies beyond the limit and is not read."""


@dataclass(frozen=True)
class Padding:
    """What fills a row up to the width of its batch."""

    values: dict[str, int]
    side: str
    """"right", or "left" for the few models that read the last token (XLNet)."""


@dataclass(frozen=True)
class Batch:
    """Shapes: inputs ``(rows, tokens)``; labels ``(rows,)``, ``(rows, labels)`` or ``(rows, tokens)``."""

    inputs: dict[str, Tensor]
    labels: Tensor
    rows: Indices
    """Of the split, in order."""

    @property
    def num_rows(self) -> int:
        return len(self.labels)

    @property
    def width(self) -> int:
        """Tokens of a row, padding included."""
        return self.inputs["input_ids"].shape[1]

    def part(self, start: int, stop: int) -> Batch:
        """The rows from ``start`` to before ``stop``, as wide as before."""
        inputs = {name: tensor[start:stop] for name, tensor in self.inputs.items()}
        return Batch(inputs, self.labels[start:stop], self.rows[start:stop])

    def to(self, device: torch.device) -> Batch:
        inputs = {name: moved(tensor, device) for name, tensor in self.inputs.items()}
        return Batch(inputs, moved(self.labels, device), self.rows)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """To a GPU through pinned memory, so that the copy does not wait for what is computed there."""
    pins = device.type == "cuda" and tensor.device.type == "cpu"
    return (tensor.pin_memory() if pins else tensor).to(device, non_blocking=True)


@dataclass(frozen=True)
class EncodedSplit:
    """The rows of a split. Row ``i`` holds the tokens ``offsets[i]:offsets[i + 1]`` of every flat array."""

    inputs: Mapping[str, IntArray]
    """Flat, by name, without the attention mask, which is 1 for every token that is no padding."""
    offsets: IntArray
    labels: np.ndarray[Any, Any]
    """Shape ``(rows,)``, ``(rows, labels)`` (multi-label), or flat with ``token_labels``."""
    examples: IntArray
    """Of each row; see ``Row``. As are ``starts`` and, flat, ``positions``."""
    starts: IntArray
    positions: IntArray
    position_offsets: IntArray
    padding: Padding
    token_labels: bool
    """Whether labels belong to tokens, so that they are padded with the inputs."""
    num_cut: int = 0
    """Examples of which something lies beyond the limit and was not read."""

    def __len__(self) -> int:
        return len(self.examples)

    @cached_property
    def lengths(self) -> IntArray:
        return np.diff(self.offsets)

    @cached_property
    def num_targets(self) -> IntArray:
        """Of each row: the positions that count in the loss."""
        counts = self.labels != IGNORE_INDEX
        if not self.token_labels:
            found: IntArray = counts.reshape(len(self), -1).sum(axis=1)
            return found
        before = np.concatenate([[0], np.cumsum(counts)])
        return np.diff(before[self.offsets])

    def positions_of(self, row: int, width: int) -> IntArray:
        """Where in a batch of this width the words that ``row`` predicts stand; ``UNREAD`` for words that do not."""
        own = self.positions[self.position_offsets[row] : self.position_offsets[row + 1]]
        shift = width - int(self.lengths[row]) if self.padding.side == "left" else 0
        return np.where(own == UNREAD, UNREAD, own + shift)

    def batch(self, indices: Indices) -> Batch:
        """As wide as its longest row."""
        mask, tokens = self.mask(indices), self.tokens(indices)
        filled = {
            name: padded(flat[tokens], mask, self.padding.values[name], np.int64) for name, flat in self.inputs.items()
        }
        filled[ATTENTION_MASK] = mask.astype(np.int64)
        inputs = {name: torch.from_numpy(filled[name]) for name in self.padding.values}
        labels = (
            padded(self.labels[tokens], mask, IGNORE_INDEX, np.int64)
            if self.token_labels
            else self.labels[list(indices)]
        )
        return Batch(inputs, torch.from_numpy(labels), indices)

    def mask(self, indices: Indices, width: int | None = None) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which positions of a batch of these rows hold tokens: shape ``(rows, width)``."""
        lengths = self.lengths[list(indices), None]
        places = np.arange(width or lengths.max())
        found: np.ndarray[Any, np.dtype[np.bool_]] = (
            places < lengths if self.padding.side == "right" else places >= len(places) - lengths
        )
        return found

    def tokens(self, indices: Indices) -> IntArray:
        """Where the tokens of these rows stand in the flat arrays, row after row."""
        lengths = self.lengths[list(indices)]
        before = np.cumsum(lengths) - lengths
        found: IntArray = np.arange(int(lengths.sum())) + np.repeat(self.offsets[list(indices)] - before, lengths)
        return found

    def empty_batch(self) -> Batch:
        """One row without a target: what a process computes when a step has no more rows for it."""
        batch = self.batch((int(self.lengths.argmin()),))
        return replace(batch, labels=torch.full_like(batch.labels, IGNORE_INDEX))

    def place_of(self, row: int, width: int) -> slice:
        """Where in a batch of this width the tokens of ``row`` stand."""
        length = int(self.lengths[row])
        return slice(length) if self.padding.side == "right" else slice(width - length, width)


def padded(values: np.ndarray[Any, Any], mask: np.ndarray[Any, Any], fill: int, kind: Any) -> np.ndarray[Any, Any]:
    """``values`` where ``mask`` is, in order, and ``fill`` elsewhere."""
    found = np.full(mask.shape, fill, kind)
    found[mask] = values
    return found


def put_together(splits: Sequence[EncodedSplit], num_examples: Sequence[int]) -> EncodedSplit:
    """One split of the rows of several, which one tokenizer made; labels are left out. Examples are counted on."""
    firsts = np.cumsum([0, *num_examples[:-1]])
    return EncodedSplit(
        {name: np.concatenate([split.inputs[name] for split in splits]) for name in splits[0].inputs},
        counted_on([split.lengths for split in splits]),
        np.zeros(sum(map(len, splits)), np.int64),
        np.concatenate([split.examples + first for split, first in zip(splits, firsts, strict=True)]),
        np.concatenate([split.starts for split in splits]),
        np.concatenate([split.positions for split in splits]),
        counted_on([np.diff(split.position_offsets) for split in splits]),
        splits[0].padding,
        token_labels=False,
    )


def counted_on(sizes: Sequence[IntArray]) -> IntArray:
    """Where each of them begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(np.concatenate(sizes))])


def pack(rows: Iterable[Row], padding: Padding, *, token_labels: bool) -> EncodedSplit:
    """In memory."""
    files: dict[str, io.BytesIO] = {}
    header = write_rows(rows, padding, lambda name: files.setdefault(name, io.BytesIO()), token_labels=token_labels)
    return assemble(header, padding, lambda name, kind: np.frombuffer(files[name].getvalue(), kind))


def save_rows(rows: Iterable[Row], padding: Padding, folder: Path, *, token_labels: bool) -> None:
    """On disk: what is packed does not stay in memory."""
    with ExitStack() as opened:
        header = write_rows(
            rows, padding, lambda name: opened.enter_context((folder / name).open("wb")), token_labels=token_labels
        )
    (folder / SPLIT_FILE).write_text(json.dumps(header), "utf-8")


def load_rows(folder: Path, padding: Padding) -> EncodedSplit:
    """Mapped into memory. Raises ValueError where files were cut."""

    def read(name: str, kind: str) -> np.ndarray[Any, Any]:
        is_empty = (folder / name).stat().st_size == 0  # which cannot be mapped
        return np.zeros(0, kind) if is_empty else np.memmap(folder / name, kind, mode="r")

    return assemble(json.loads((folder / SPLIT_FILE).read_text("utf-8")), padding, read)


def write_rows(
    rows: Iterable[Row], padding: Padding, file: Callable[[str], BinaryIO], *, token_labels: bool
) -> dict[str, Any]:
    """Append every row to the files of all arrays; gives what else there is to know."""
    kinds = dict.fromkeys((name for name in padding.values if name != ATTENTION_MASK), "i")
    inputs = tuple(kinds)
    kinds |= {"labels": "i", "sizes": "q", "places": "q", "positions": "i"}
    files = {name: file(name) for name in kinds}
    columns = {name: array(kind) for name, kind in kinds.items()}
    num_rows, num_labels, cut = 0, 0, set()
    for row in rows:
        for name in inputs:
            columns[name].extend(row.inputs[name])
        num_labels = add_labels(row.labels, columns, token_labels=token_labels)
        columns["sizes"].extend((len(row.inputs["input_ids"]), len(row.positions)))
        columns["places"].extend((row.example, row.start))
        columns["positions"].extend(row.positions)
        num_rows += 1
        if row.is_cut:
            cut.add(row.example)
        if num_rows % ROWS_AT_ONCE == 0:
            flush(columns, files)
    flush(columns, files)
    return {"rows": num_rows, "labels": num_labels, "token_labels": token_labels, "cut": len(cut)}


def add_labels(labels: int | list[int] | list[float], columns: dict[str, array[Any]], *, token_labels: bool) -> int:
    """Gives the number of labels a row has in multi-label data, else 0."""
    if isinstance(labels, int):
        columns["labels"].append(labels)
        return 0
    if not token_labels and columns["labels"].typecode != "f":
        columns["labels"] = array("f")
    columns["labels"].extend(labels)
    return 0 if token_labels else len(labels)


def flush(columns: Mapping[str, array[Any]], files: Mapping[str, BinaryIO]) -> None:
    for name, values in columns.items():
        files[name].write(values.tobytes())
        del values[:]


def assemble(
    header: Mapping[str, Any], padding: Padding, read: Callable[[str, str], np.ndarray[Any, Any]]
) -> EncodedSplit:
    """The split whose arrays ``read`` gives by name and type."""
    sizes, places = read("sizes", "i8").reshape(header["rows"], 2), read("places", "i8").reshape(header["rows"], 2)
    offsets, position_offsets = (np.concatenate([[0], np.cumsum(sizes[:, i])]) for i in (0, 1))
    labels = read("labels", "f4" if header["labels"] else "i4")
    if header["labels"]:
        labels = labels.reshape(header["rows"], header["labels"])
    split = EncodedSplit(
        {name: read(name, "i4") for name in padding.values if name != ATTENTION_MASK},
        offsets,
        labels if header["token_labels"] or header["labels"] else labels.astype(np.int64),
        places[:, 0],
        places[:, 1],
        read("positions", "i4"),
        position_offsets,
        padding,
        token_labels=header["token_labels"],
        num_cut=header["cut"],
    )
    wanted = [*[offsets[-1]] * len(split.inputs), position_offsets[-1]]
    if [*map(len, split.inputs.values()), len(split.positions)] != wanted or (
        len(labels) != (offsets[-1] if split.token_labels else header["rows"])
    ):
        raise ValueError("arrays of a split are of unequal length")
    return split
