"""A saved model, ready to answer."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from nlp_transfer.adapters.lora import fold, plain_network
from nlp_transfer.checkpoints import Model, encoder_of
from nlp_transfer.data.encoded import ATTENTION_MASK, EncodedSplit
from nlp_transfer.errors import ConfigError, counted, needing, quoted
from nlp_transfer.hub.banks import members_of
from nlp_transfer.hub.pull import local_folder
from nlp_transfer.inference.texts import (
    OnError,
    Question,
    Text,
    answers_of,
    as_list,
    ask,
    raise_first,
    refusal,
    refuse_unordered,
)
from nlp_transfer.manifest import ONNX_FILES, read_manifest
from nlp_transfer.reporting.progress import Bar, progress_bar
from nlp_transfer.saved_models import AnyTask, load_model, model_folder
from nlp_transfer.tasks.base import Probabilities
from nlp_transfer.training.evaluate import batches_of, predict_split
from nlp_transfer.training.processes import processes
from nlp_transfer.training.unpadded import Unpadding, unpadded, unpadding_of

CHUNK = 1024
"""Texts of a stream that are predicted together; memory does not grow with the stream."""


def load(folder: str | Path, *, checkpoint: str | Path | None = None, revision: str | None = None) -> Predictor:
    """A predictor from the model folder of a finished run, or a repository on the Hub ("user/name", with ``revision``
    or @revision if wanted), whose files are compared with their hashes.

    The base is the checkpoint it was trained on, or ``checkpoint``, any spelling of one with the same weights. Raises
    ArtifactError when the folder is damaged or the base is another one.
    """
    here = local_folder(folder, revision)
    if members := members_of(here):
        raise ConfigError(
            f"{folder} is a bank of {quoted(tuple(members))}. AdapterBank.load reads it whole; for one adapter, name "
            f"its folder, here {next(iter(members.values()))}."
        )
    found = model_folder(here)
    if (found / ONNX_FILES[1]).is_file() and read_manifest(found).adapter == "onnx":
        with needing("onnx"):
            from nlp_transfer.inference.onnx import load_onnx
        return load_onnx(found)
    model, task = load_model(found, checkpoint=checkpoint)
    return Predictor(fold(model), task, saved_as=model.adapter)


class Predictor:
    """Answers for texts, from any number of threads. Long texts are read as the model was trained to: NER in windows,
    classification up to its limit of tokens unless it says otherwise.
    """

    def __init__(self, model: Model, task: AnyTask, *, saved_as: str | None = None) -> None:
        self.model = model
        self._kind = saved_as or model.adapter  # an adapter may be folded into the weights by now
        self.task = task
        self._tokenizing = threading.Lock()  # a tokenizer keeps what it was last asked to cut
        self.num_cut = 0
        """Texts, up to now, that were longer than the limit and not read to their end."""
        model.network.to(processes().device)

    def __repr__(self) -> str:
        number = counted(len(self.labels), "entity type" if self.task.token_labels else "label")
        return f"Predictor({self.task.name}, {number}, {self._kind} on '{self.model.origin.name}')"

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names; of NER, the entity types."""
        return self.task.classes

    @overload
    def predict(self, texts: str | tuple[str, str], *, on_error: OnError = "raise") -> Any: ...
    @overload
    def predict(self, texts: Iterable[Text], *, on_error: OnError = "raise") -> list[Any]: ...
    def predict(self, texts: str | tuple[str, str] | Iterable[Text], *, on_error: OnError = "raise") -> Any:
        """A ``Classification``, or a list of ``Entity``, for one text; a list of these for a list of texts.

        Offsets count characters of the text; of a list of words, of the words joined by blanks. An empty text has a
        label like any other, and no entities.

        Raises DataError for what is no text; with ``on_error`` "return" the error stands in that text's place, and all
        others are answered.
        """
        if isinstance(texts, str | tuple):
            return self.predict([texts], on_error=on_error)[0]
        return self.predict_batch(as_list(texts, "texts"), on_error=on_error)

    def stream(self, texts: Iterable[Text], *, on_error: OnError = "raise") -> Iterator[Any]:
        """The prediction of each text in turn; holds some at a time, however many there are."""
        refuse_unordered(texts, "texts")
        waiting, first = iter(texts), 1
        with progress_bar("predicting", None) as bar:
            while chunk := list(islice(waiting, CHUNK)):
                yield from self.predict_batch(chunk, bar, on_error=on_error, first=first)
                first += len(chunk)

    def predict_batch(
        self, texts: list[Text], bar: Bar | None = None, *, on_error: OnError = "raise", first: int = 1
    ) -> list[Any]:
        """One part of longer work, from text number ``first`` on: ``bar`` shows how that goes."""
        found: list[Any] = [refusal(self.task, text, number) for number, text in enumerate(texts, start=first)]
        raise_first(found, on_error)
        good = [i for i, error in enumerate(found) if error is None]
        question = ask(self.task, [texts[i] for i in good])
        for i, answer in zip(good, answers_of(question, self._probabilities(question.examples, bar)), strict=True):
            found[i] = answer
        raise_first(found, on_error)
        return found

    def predict_proba(self, texts: Iterable[Text]) -> Any:
        """Probabilities, labels in the order of ``task.labels``: an array of shape ``(texts, labels)``; of NER a list
        with an array of shape ``(words, tags)`` for each text.
        """
        found = self._probabilities(self._question(texts).examples)
        if self.task.token_labels:
            return found
        return np.stack([rows.mean(axis=0) for rows in found]) if found else np.zeros((0, len(self.task.labels)))

    def embed(self, texts: Iterable[Text]) -> np.ndarray[Any, Any]:
        """The mean over its tokens of the encoder's last hidden states, adapter included, for each text: an array of
        shape ``(texts, width)``. (Reimers & Gurevych, 2019.)
        """
        if self.model.adapter == "onnx":
            raise ConfigError("An ONNX model gives logits and no hidden states. Use the model it was exported from.")
        examples = self._question(texts).examples
        split = self._encode(examples)
        encoder = encoder_of(plain_network(self.model))
        device = processes().device
        unpadding = Unpadding(first_alone=False) if unpadding_of(self.model.network) else None
        sums = np.zeros((len(examples), self.model.network.config.hidden_size), np.float32)
        counts = np.zeros((len(examples), 1), np.float32)
        for indices in batches_of(split.lengths, padded=unpadding is None):
            batch = split.batch(indices)
            layout = unpadded(unpadding, batch.inputs, device)
            inputs = batch.to(device).inputs
            mask = inputs[ATTENTION_MASK][..., None]
            with torch.no_grad():
                hidden = encoder(**inputs, **layout)[0] * mask
            rows = split.examples[list(indices)]
            np.add.at(sums, rows, hidden.sum(1).float().cpu().numpy())
            np.add.at(counts, rows, mask.sum(1).cpu().numpy())
        return sums / np.maximum(counts, 1)

    def _question(self, texts: Iterable[Text]) -> Question:
        listed = as_list(texts, "texts")
        raise_first([refusal(self.task, text, number) for number, text in enumerate(listed, start=1)], "raise")
        return ask(self.task, listed)

    def _encode(self, examples: Sequence[Any]) -> EncodedSplit:
        with self._tokenizing:
            split = self.task.encode(examples, self.model)
            self.num_cut += split.num_cut
        return split

    def _probabilities(self, examples: Sequence[Any], bar: Bar | None = None) -> list[Probabilities]:
        if not examples:
            return []
        split = self._encode(examples)
        shown = progress_bar("predicting", len(split)) if bar is None else nullcontext(bar)
        with shown as own:
            return predict_split(self.model.network, self.task, split, len(examples), own, together=False)
