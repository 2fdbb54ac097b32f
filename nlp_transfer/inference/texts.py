"""What is asked and what is answered: texts to the examples of a task, and what it says of them to predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from nlp_transfer.data.cells import refuse_surrogates
from nlp_transfer.data.examples import Source, TaggedExample, TextExample
from nlp_transfer.data.raw_text import Word, split_words
from nlp_transfer.errors import ArtifactError, ConfigError, DataError, NlpTransferError, quoted
from nlp_transfer.saved_models import AnyTask
from nlp_transfer.tasks.base import Probabilities
from nlp_transfer.tasks.ner import Ner, Tagging
from nlp_transfer.tasks.text_classification import Classification

OnError = Literal["raise", "return"]
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


@dataclass(frozen=True)
class Question:
    """Some texts as the examples of a task, and how its answers to them are read."""

    examples: Sequence[Any]
    answers: Callable[[Sequence[Probabilities]], list[Any]]
    """Takes the probabilities of each example, of shape ``(positions, labels)``."""
    is_tagging: bool
    """Whether positions are words; else they are windows of one text."""


def as_list(items: Any, what: str) -> list[Any]:
    """Of anything that holds things in order."""
    refuse_unordered(items, what)
    return list(items)


def refuse_unordered(items: Any, what: str) -> None:
    """Raises DataError for one text, for what has no order, and for tables, which give the names of their columns."""
    if isinstance(items, str | bytes | Mapping | Set) or not isinstance(items, Iterable):
        raise DataError(f"expected a list of {what}, got {type(items).__name__}.")
    if hasattr(items, "columns"):
        raise DataError(f"expected a list of {what}, got a {type(items).__name__}. Pass one column of it.")


def raise_first(found: Sequence[Any], on_error: OnError) -> None:
    """Of the errors among the answers, unless they are to stay there."""
    if on_error not in get_args(OnError):
        raise ConfigError(f"on_error must be one of {quoted(get_args(OnError))}, got {on_error!r}.")
    for one in found:
        if on_error == "raise" and isinstance(one, NlpTransferError):
            raise one


def answers_of(question: Question, probabilities: Sequence[Probabilities]) -> list[Any]:
    """An error stands where the model's weights, finite as they may be, give no numbers."""
    found: list[Any] = [ArtifactError(BROKEN) if not np.isfinite(rows).all() else None for rows in probabilities]
    safe = [np.nan_to_num(rows) for rows in probabilities]
    return [error or answer for error, answer in zip(found, question.answers(safe), strict=True)]


BROKEN = "The model gives no finite probabilities for this text: its weights are too large."


def refusal(task: AnyTask, text: Any, number: int | None) -> DataError | None:
    """Why this is no text of the kind that the task reads; None where it is one. ``number`` is its place in a list."""
    place = "text" if number is None else f"text {number}"
    if isinstance(task, Ner):
        is_read, wanted = isinstance(text, str) or is_texts(text, list), "a text or a list of words"
    elif task.text_pair:
        is_read, wanted = is_texts(text, tuple) and len(text) == 2, "a pair of texts (a tuple)"
    else:
        is_read, wanted = isinstance(text, str), "a text"
    if not is_read:
        return DataError(f"{place}: this model reads {wanted}, got {type(text).__name__}.")
    try:
        refuse_surrogates(" ".join([text] if isinstance(text, str) else text), place)
    except DataError as error:
        return error
    return None


def is_texts(value: Any, kind: type[Sequence[Any]]) -> bool:
    return isinstance(value, kind) and all(isinstance(part, str) for part in value)


def ask(task: AnyTask, texts: Sequence[Text]) -> Question:
    """Of texts that ``refusal`` has nothing against."""
    if isinstance(task, Ner):
        return ask_for_entities(task, texts)
    pairs = [text if isinstance(text, tuple) else (text, None) for text in texts]
    examples = [
        TextExample(str(first), (), Source("text", number), second)
        for number, (first, second) in enumerate(pairs, start=1)
    ]
    return Question(examples, task.predictions, is_tagging=False)


def ask_for_entities(task: Ner, texts: Sequence[Text]) -> Question:
    joined = [text if isinstance(text, str) else " ".join(text) for text in texts]
    words = [split_words(text) if isinstance(text, str) else placed_words(text) for text in texts]
    examples = [
        TaggedExample(tuple(word.text for word in row), (), Source("text", number))
        for number, row in enumerate(words, start=1)
    ]

    def answers(probabilities: Sequence[Probabilities]) -> list[list[Entity]]:
        taggings = task.predictions(probabilities)
        return [entities(*item) for item in zip(joined, words, taggings, strict=True)]

    return Question(examples, answers, is_tagging=True)


def placed_words(words: Sequence[str]) -> list[Word]:
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
