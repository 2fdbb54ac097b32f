"""Micro-batches as padded tensors, made in this process or ahead of time in others."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from nlp_transfer.data.encoded import Batch, EncodedSplit, Indices
from nlp_transfer.data.masking import TokenMasking
from nlp_transfer.signals import STOPPING


@dataclass(frozen=True)
class Loading:
    """How the micro-batches of a split are made."""

    split: EncodedSplit
    masking: TokenMasking | None = None
    num_workers: int = 0

    def batches(self, micro_batches: Sequence[Indices], epoch: int) -> Iterator[Batch]:
        """In the order given; an empty one is a row without a target."""
        made = MicroBatches(self, micro_batches, epoch)
        # a generator of its own: a loader draws from the global one whenever it is iterated
        own = torch.Generator()
        return iter(
            DataLoader(made, batch_size=None, num_workers=self.num_workers, worker_init_fn=leave_signals, generator=own)
        )


@dataclass(frozen=True)
class MicroBatches(Dataset[Batch]):
    """What workers index."""

    loading: Loading
    micro_batches: Sequence[Indices]
    epoch: int

    def __len__(self) -> int:
        return len(self.micro_batches)

    def __getitem__(self, place: int) -> Batch:
        rows, split = self.micro_batches[place], self.loading.split
        if not rows:
            return split.empty_batch()
        batch = split.batch(rows)
        if self.loading.masking is not None:
            self._mask(batch, rows, self.loading.masking)
        return batch

    def _mask(self, batch: Batch, rows: Indices, masking: TokenMasking) -> None:
        split, ids = self.loading.split, batch.inputs["input_ids"].numpy()
        for line, row in zip(ids, rows, strict=True):
            own = split.place_of(row, ids.shape[1])
            line[own] = masking(line[own], self.epoch, int(split.examples[row]), int(split.starts[row]))


def leave_signals(worker: int) -> None:  # noqa: ARG001
    """A signal is often sent to all processes of a job. The workers go on, so that the run can finish its step."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
