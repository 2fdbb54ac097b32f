"""How examples of each kind lie in columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic

import pyarrow as pa

from nlp_transfer.data.examples import Example, Source, TaggedExample, TextExample
from nlp_transfer.labels import split_tag


class Layout(ABC, Generic[Example]):
    """How one kind of example lies in columns."""

    columns: ClassVar[Mapping[str, pa.DataType]]

    @abstractmethod
    def cells(self, example: Example) -> tuple[Any, ...]:
        """What stands in ``columns``."""

    @abstractmethod
    def labels(self, example: Example) -> tuple[str, ...]:
        """What is kept as ids."""

    @abstractmethod
    def class_of(self, label: str) -> str:
        """The class that a label tells of; nothing where it tells of none."""

    @abstractmethod
    def example(self, cells: tuple[Any, ...], labels: tuple[str, ...], source: Source) -> Example:
        """The way back."""


class TextLayout(Layout[TextExample]):
    columns: ClassVar = {"text": pa.large_string(), "text_pair": pa.large_string()}

    def cells(self, example: TextExample) -> tuple[Any, ...]:
        return example.text, example.text_pair

    def labels(self, example: TextExample) -> tuple[str, ...]:
        return example.labels

    def class_of(self, label: str) -> str:
        return label

    def example(self, cells: tuple[Any, ...], labels: tuple[str, ...], source: Source) -> TextExample:
        return TextExample(cells[0], labels, source, cells[1])


class TaggedLayout(Layout[TaggedExample]):
    columns: ClassVar = {"words": pa.list_(pa.large_string()), "lines": pa.list_(pa.int64())}

    def cells(self, example: TaggedExample) -> tuple[Any, ...]:
        return example.words, example.lines

    def labels(self, example: TaggedExample) -> tuple[str, ...]:
        return example.tags

    def class_of(self, label: str) -> str:
        return split_tag(label)[1]

    def example(self, cells: tuple[Any, ...], labels: tuple[str, ...], source: Source) -> TaggedExample:
        return TaggedExample(tuple(cells[0]), labels, source, tuple(cells[1]))


TEXTS, TAGGED = TextLayout(), TaggedLayout()
