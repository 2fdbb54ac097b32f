"""A saved model, ready to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from nlp_transfer.artifacts import AnyTask, load_model
from nlp_transfer.checkpoints import Model
from nlp_transfer.data.cells import refuse_surrogates
from nlp_transfer.data.examples import Source, TaggedExample, TextExample
from nlp_transfer.data.raw_text import Word, split_words
from nlp_transfer.errors import DataError
from nlp_transfer.reporting.progress import Bar, progress_bar
from nlp_transfer.tasks.ner import Ner, Tagging
from nlp_transfer.tasks.text_classification import Classification, TextClassification
from nlp_transfer.training.evaluate import predict_split
from nlp_transfer.training.processes import processes

Text = str | tuple[str, str] | list[str]
"""A text; for tasks on pairs, two; for NER also a text that is already split into words."""


@dataclass(frozen=True)
class Entity:
    """A typed span of a text: ``text[start:end]``."""

    text: str
    label: str
    start: int
    """First character."""
    end: int
    """One past the last character."""
    score: float
    """Mean probability of its words' tags."""


Prediction = Classification | list[Entity]


def load(folder: str | Path, *, checkpoint: str | None = None) -> Predictor:
    """A predictor from the model folder of a finished run.

    The base is the checkpoint it was trained on, or ``checkpoint``, any spelling of one with the same weights. Raises
    ArtifactError when the folder is damaged or the base is another one.
    """
    model, task = load_model(Path(folder), checkpoint=checkpoint)
    return Predictor(model, task)


class Predictor:
    """Answers for texts. Long texts are read in windows by NER; classification reads up to its limit of tokens."""

    def __init__(self, model: Model, task: AnyTask) -> None:
        self.model = model
        self.task = task

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names; of NER, the entity types."""
        return self.task.classes

    @overload
    def predict(self, texts: str | tuple[str, str]) -> Any: ...
    @overload
    def predict(self, texts: Sequence[Text]) -> list[Any]: ...
    def predict(self, texts: str | tuple[str, str] | Sequence[Text]) -> Any:
        """A ``Classification``, or a list of ``Entity``, for one text; a list of these for a list of texts.

        Offsets count characters of the text; of a list of words, of the words joined by blanks.
        """
        if isinstance(texts, str | tuple):
            return self.predict([texts])[0]
        if not isinstance(texts, Sequence):
            raise DataError(f"predict takes a text or a list of texts, got {type(texts).__name__}.")
        with progress_bar("predicting", len(texts)) as bar:
            return self.predict_batch(list(texts), bar)

    def predict_batch(self, texts: list[Text], bar: Bar) -> list[Prediction]:
        """One part of longer work: ``bar`` shows how that goes."""
        if not texts:
            return []
        for number, text in enumerate(texts, start=1):
            check_text(text, number)
        if isinstance(self.task, Ner):
            return list(self._find_entities(self.task, texts, bar))
        return list(self._classify(self.task, texts, bar))

    def _classify(self, task: TextClassification, texts: list[Text], bar: Bar) -> list[Classification]:
        examples = []
        for number, text in enumerate(texts, start=1):
            first, second = text if isinstance(text, tuple) and len(text) == 2 else (text, None)
            if not isinstance(first, str):
                raise DataError(f"text {number}: expected a text or a pair of texts, got {type(text).__name__}.")
            examples.append(TextExample(first, (), Source("text", number), second))
        return task.predictions(self._probabilities(task, examples, bar))

    def _find_entities(self, task: Ner, texts: list[Text], bar: Bar) -> list[list[Entity]]:
        joined = [text if isinstance(text, str) else " ".join(text) for text in texts]
        words = [split_words(text) if isinstance(text, str) else place(text) for text in texts]
        examples = [
            TaggedExample(tuple(word.text for word in row), (), Source("text", number))
            for number, row in enumerate(words, start=1)
        ]
        taggings = task.predictions(self._probabilities(task, examples, bar))
        return [entities(*item) for item in zip(joined, words, taggings, strict=True)]

    def _probabilities(self, task: Any, examples: Sequence[Any], bar: Bar) -> Any:
        split = task.encode(examples, self.model)
        self.model.network.to(processes().device)
        return predict_split(self.model.network, task, split, len(examples), bar, together=False)


def check_text(text: Any, number: int) -> None:
    parts = text if isinstance(text, list | tuple) else [text]
    if not all(isinstance(part, str) for part in parts):
        raise DataError(f"text {number}: expected a text or a pair of texts, got {type(text).__name__}.")
    refuse_surrogates(" ".join(parts), f"text {number}")


def place(words: Sequence[str]) -> list[Word]:
    """Words with their places in the text that they make when joined by blanks."""
    placed, start = [], 0
    for word in words:
        placed.append(Word(word, start, start + len(word)))
        start += len(word) + 1
    return placed


def entities(text: str, words: Sequence[Word], tagging: Tagging) -> list[Entity]:
    found = []
    for span, score in tagging.entities():
        start, end = words[span.start].start, words[span.end - 1].end
        found.append(Entity(text[start:end], span.label, start, end, score))
    return found
