"""Many adapters on one base in memory, each with its own task, labels and head."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlp_transfer.checkpoints import Model
from nlp_transfer.data.cells import refuse_surrogates
from nlp_transfer.data.encoded import EncodedSplit, Indices, put_together
from nlp_transfer.errors import ConfigError, DataError, NlpTransferError, did_you_mean, quoted
from nlp_transfer.hub.pull import local_folder, named_models
from nlp_transfer.inference.bank_layers import Call, LowRank, calling, ranks_of, stacked, taken_out
from nlp_transfer.inference.base import Base, Part
from nlp_transfer.inference.heads import head_logits
from nlp_transfer.inference.texts import OnError, Question, Text, answers_of, as_list, ask, raise_first, refusal
from nlp_transfer.inference.unions import Union, make_union, united
from nlp_transfer.saved_models import AnyTask, model_folder
from nlp_transfer.tasks.base import Piece, Probabilities
from nlp_transfer.training.evaluate import batches_of, joined
from nlp_transfer.training.processes import processes

Request = tuple[str, Text]
"""The name of an adapter, and a text for it."""


@dataclass(frozen=True)
class Member:
    """One adapter of the bank."""

    number: int
    """In the stacks of the layers."""
    task: AnyTask
    model: Model
    """Its network is the head, on given hidden states."""
    ranks: Mapping[str, int]
    """Of the layers that it adapts."""


@dataclass(frozen=True)
class Snapshot:
    """The bank at one moment. A call works with the one that it began with, whatever is added or removed meanwhile."""

    layers: Mapping[str, LowRank]
    members: Mapping[str, Member]
    unions: Mapping[str, Union]

    def parts(self, name: str) -> list[Member]:
        """The members that answer to a name."""
        union = self.unions.get(name)
        return [self.members[part] for part in union.parts] if union else [self.members[name]]

    def task(self, name: str) -> AnyTask:
        """Raises ConfigError for a name that is none of the bank's."""
        known: dict[str, Member | Union] = {**self.members, **self.unions}
        if name not in known:
            raise ConfigError(
                f"There is no adapter '{name}' in the bank. It has {quoted(tuple(known)) or 'none'}."
                f"{did_you_mean(name, known)}"
            )
        return known[name].task


class AdapterBank:
    """Answers for many adapters from any number of threads, in mixed batches: one pass through the encoder holds rows
    of different adapters, and each row gets its own adapter's low-rank products and head.
    """

    def __init__(self) -> None:
        self._base: Base | None = None
        self._now = Snapshot({}, MappingProxyType({}), MappingProxyType({}))
        self._changing = threading.Lock()
        self._tokenizing = threading.Lock()  # a tokenizer keeps what it was last asked to cut

    @classmethod
    def load(
        cls,
        models: str | Path | Sequence[str | Path] | Mapping[str, str | Path],
        *,
        checkpoint: str | None = None,
        revision: str | None = None,
    ) -> AdapterBank:
        """A bank of models, each a folder or a repository on the Hub, under their own names or those of a mapping; or
        of all models in one folder or repository, under the names that they have there.

        Raises ArtifactError as ``nt.load`` does, and for a folder that was trained on another base than the first.
        """
        bank = cls()
        bank._put(named_models(models, revision), checkpoint, bank._refuse_taken)
        return bank

    def __repr__(self) -> str:
        return f"AdapterBank({quoted(self.names)})"

    @property
    def names(self) -> tuple[str, ...]:
        now = self._now  # another thread may put a new one there
        return (*now.members, *now.unions)

    def labels(self, name: str) -> tuple[str, ...]:
        """Of one adapter: the label names; of NER, the entity types."""
        return self._now.task(name).classes

    def add(self, name: str, folder: str | Path, *, checkpoint: str | None = None) -> None:
        """One more adapter, while others are answering. Raises ConfigError for a name that is taken."""
        self._put({name: folder}, checkpoint, refuse=self._refuse_taken)

    def replace(self, name: str, folder: str | Path, *, checkpoint: str | None = None) -> None:
        """From the next call on, ``name`` is the adapter of ``folder``."""
        self._put({name: folder}, checkpoint, refuse=self._refuse_no_member)

    def unite(self, name: str, parts: Sequence[str]) -> None:
        """From the next call on, ``name`` answers under the labels of all of ``parts``, adapters of one task: each text
        is put to every one of them, and among its own labels each is heard unchanged.

        Raises ConfigError for adapters that differ in more than their labels, and for a name that is taken.
        """
        with self._changing:
            self._refuse_taken(name)
            if isinstance(parts, str) or len(parts) < 2 or len(set(parts)) < len(parts):
                raise ConfigError(f"unite takes the names of two or more adapters, got {parts!r:.60}.")
            for part in parts:
                self._refuse_no_member(part)
            tasks = {part: self._now.task(part) for part in parts}
            unions = {**self._now.unions, name: make_union(name, parts, tasks)}
            self._now = replace(self._now, unions=MappingProxyType(unions))

    def remove(self, name: str) -> None:
        """Calls that have begun are still answered. Raises ConfigError for an adapter that a union needs."""
        with self._changing:
            self._now.task(name)
            if users := [union for union, made in self._now.unions.items() if name in made.parts]:
                raise ConfigError(f"'{name}' is a part of '{users[0]}'. Remove that first.")
            kept = {union: made for union, made in self._now.unions.items() if union != name}
            self._now = rebuilt(replace(self._now, unions=kept), {}, without={name})

    def predict(self, requests: Iterable[Request], *, on_error: OnError = "raise") -> list[Any]:
        """The answer to each request, as ``Predictor.predict`` gives it.

        Raises ConfigError for a name that is none of the bank's, and DataError for what is no text of its task; with
        ``on_error`` "return" the error stands in that request's place, and all others are answered.
        """
        return self._ask(requests, on_error, answers_of)

    def predict_proba(self, requests: Iterable[Request]) -> list[Probabilities]:
        """For each request the probabilities of its adapter's labels, shape ``(labels,)``; of NER ``(words, tags)``.

        Raises as ``predict`` does.
        """

        def numbers(question: Question, said: list[Probabilities]) -> list[Probabilities]:
            return said if question.is_tagging else [rows.mean(axis=0) for rows in said]

        return self._ask(requests, "raise", numbers)

    def _ask(
        self,
        requests: Iterable[Request],
        on_error: OnError,
        read: Callable[[Question, list[Probabilities]], list[Any]],
    ) -> list[Any]:
        """``read`` makes of the probabilities of each adapter's texts what is given back for them."""
        now, requests = self._now, as_list(requests, "requests")
        numbers = range(1, len(requests) + 1) if on_error == "raise" else [None] * len(requests)
        found: list[Any] = list(map(partial(self._refusal, now), requests, numbers))
        raise_first(found, on_error)
        asked: dict[str, list[int]] = {}
        for i, (error, request) in enumerate(zip(found, requests, strict=True)):
            if error is None:
                asked.setdefault(request[0], []).append(i)
        questions = {name: ask(now.task(name), [requests[i][1] for i in own]) for name, own in asked.items()}
        for name, said in self._said(now, questions).items():
            for i, answer in zip(asked[name], read(questions[name], said), strict=True):
                found[i] = answer
        raise_first(found, on_error)
        return found

    def _refusal(self, now: Snapshot, request: Any, number: int | None) -> NlpTransferError | None:
        place = "request" if number is None else f"request {number}"
        if not isinstance(request, tuple) or len(request) != 2 or not isinstance(request[0], str):
            return DataError(f"{place}: expected the name of an adapter and a text, got {request!r:.60}.")
        try:
            refuse_surrogates(request[0], f"{place}: the adapter's name")
            return refusal(now.task(request[0]), request[1], number)
        except NlpTransferError as error:
            return error

    def _said(self, now: Snapshot, questions: Mapping[str, Question]) -> dict[str, list[Probabilities]]:
        """What each adapter, or union of some, says of its texts."""
        if not questions:
            return {}
        asked = [(name, member) for name in questions for member in now.parts(name)]
        with self._tokenizing:
            splits = [member.task.encode(questions[name].examples, member.model) for name, member in asked]
        sizes = [len(questions[name].examples) for name, _ in asked]
        split = put_together(splits, sizes)
        whose = np.repeat([member.number for _, member in asked], list(map(len, splits)))
        by_number = {member.number: member for _, member in asked}
        pieces = [
            piece
            for indices in self._batches(split, whose)
            for piece in self._pass(now, by_number, split, whose, indices)
        ]
        probabilities = iter(joined(pieces, sum(sizes)))
        said = [[next(probabilities) for _ in range(size)] for size in sizes]
        return {name: self._heard(now, name, [said.pop(0) for _ in now.parts(name)]) for name in questions}

    def _heard(self, now: Snapshot, name: str, said: list[list[Probabilities]]) -> list[Probabilities]:
        """Of one member, what it says; of several, what they say together."""
        if len(said) == 1:
            return said[0]
        tasks = [member.task for member in now.parts(name)]
        return [united(parts, tasks, now.task(name)) for parts in zip(*said, strict=True)]

    def _batches(self, split: EncodedSplit, whose: np.ndarray[Any, Any]) -> list[Indices]:
        """By length; of one adapter each, where rows of several cannot go through the encoder together."""
        if self._base is None or self._base.mixes:
            return batches_of(split.lengths)
        return [
            tuple(int(rows[i]) for i in indices)
            for number in np.unique(whose)
            for rows in [np.flatnonzero(whose == number)]
            for indices in batches_of(split.lengths[rows])
        ]

    @torch.no_grad()
    def _pass(
        self,
        now: Snapshot,
        members: Mapping[int, Member],
        split: EncodedSplit,
        whose: np.ndarray[Any, Any],
        indices: Indices,
    ) -> list[Piece]:
        """One pass through the encoder, and then one through each head that has rows in it."""
        assert self._base is not None
        inputs = split.batch(indices).to(processes().device).inputs
        numbers = whose[list(indices)]
        present = np.unique(numbers)
        rows = torch.from_numpy(numbers).to(processes().device)
        with calling(Call(now.layers, rows, only=int(present[0]) if len(present) == 1 else None)):
            hidden: Tensor = self._base.encoder(**inputs)[0]
        pieces: list[Piece] = []
        for number in present:
            own = np.flatnonzero(numbers == number)
            picked = torch.from_numpy(own).to(processes().device)
            member = members[int(number)]
            logits = head_logits(member.model.network, hidden[picked], {name: t[picked] for name, t in inputs.items()})
            pieces += member.task.pieces(logits, split, tuple(indices[i] for i in own))
        return pieces

    def _refuse_no_member(self, name: str) -> None:
        self._now.task(name)
        if name in self._now.unions:
            raise ConfigError(
                f"'{name}' is made of several adapters. Name one of {quoted(self._now.unions[name].parts)}."
            )

    def _refuse_taken(self, name: str) -> None:
        if name in self.names:
            raise ConfigError(f"There is an adapter '{name}' in the bank already. Take replace, or another name.")

    def _put(self, folders: Mapping[str, str | Path], checkpoint: str | None, refuse: Callable[[str], object]) -> None:
        """``refuse`` looks at each name once nobody else changes the bank any more."""
        with self._changing:
            for name in folders:
                if not isinstance(name, str) or not name:
                    raise ConfigError(f"The name of an adapter must be a word, got {name!r}.")
                refuse(name)
            base = self._base or Base()
            parts = {
                name: base.read(model_folder(local_folder(folder)), checkpoint) for name, folder in folders.items()
            }
            self._base, self._now = base, rebuilt(self._now, parts, without=set(parts))


def rebuilt(now: Snapshot, parts: Mapping[str, Part], without: set[str]) -> Snapshot:
    """All but ``without``, and ``parts``, in stacks of their own: the ones before are not touched."""
    kept = {name: member for name, member in now.members.items() if name not in without}
    pairs = [taken_out(now.layers, member.number, member.ranks) for member in kept.values()]
    new = [Member(0, part.task, part.model, ranks_of(part.layers)) for part in parts.values()]
    numbered = [replace(member, number=number) for number, member in enumerate([*kept.values(), *new])]
    layers = stacked([*pairs, *(part.layers for part in parts.values())])
    members = dict(zip([*kept, *parts], numbered, strict=True))
    tasks = {name: member.task for name, member in members.items()}
    unions = {name: make_union(name, union.parts, tasks) for name, union in now.unions.items()}
    return Snapshot(layers, MappingProxyType(members), MappingProxyType(unions))
