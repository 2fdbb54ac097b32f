"""Encoded rows to steps and micro-batches.

Which rows make up a step is a function of (seed, epoch) alone: it does not depend on how the step is cut into
micro-batches and spread over processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nlp_transfer.data.encoded import Indices
from nlp_transfer.data.examples import IntArray

STEPS_PER_BUCKET = 32
"""Rows of about this many steps are sorted by length together: little padding, and still a random order."""
MIN_BUCKETS = 8
"""In a small set fewer, else the same rows would meet in every epoch."""


@dataclass(frozen=True)
class Step:
    """The rows of one optimizer step, cut into micro-batches; equal in every process."""

    micro_batches: tuple[Indices, ...]
    num_targets: int
    """Of the whole step, over all micro-batches and processes."""
    ends_epoch: bool

    def share(self, process: int, num_processes: int) -> list[Indices]:
        """The micro-batches of one process; every process gets equally many, if need be empty ones."""
        rounds = -(-len(self.micro_batches) // num_processes)
        own = list(self.micro_batches[process::num_processes])
        return own + [()] * (rounds - len(own))


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """How the rows of a split are put into steps.

    A step holds ``batch_size`` rows times ``micro_batches_per_step`` (accumulation steps times processes), whatever
    their length, so that every example counts alike; or, with ``batch_size`` None, as many rows as fit ``batch_tokens``
    times that number. A micro-batch never holds more than ``batch_tokens``, padding included, or else one row.
    """

    lengths: IntArray
    num_targets: IntArray
    batch_size: int | None
    batch_tokens: int
    micro_batches_per_step: int
    seed: int

    def steps(self, epoch: int) -> list[Step]:
        """The steps of an epoch, in order; a function of (seed, epoch)."""
        # numpy spreads the pair over the generator's whole state: neighbouring seeds share no order
        rng = np.random.default_rng([self.seed, epoch])
        groups = self._cut(self._bucketed(rng), self._whole_step)
        order = rng.permutation(len(groups))
        last = len(groups) - 1
        return [self._step(groups[i], ends_epoch=position == last) for position, i in enumerate(order)]

    def padding_share(self, epoch: int) -> float:
        """Share of the positions computed in an epoch that are padding."""
        return 1 - int(self.lengths.sum()) / sum(map(self.computed_tokens, self.steps(epoch)))

    def computed_tokens(self, step: Step) -> int:
        """Positions of a step, padding included."""
        return sum(len(rows) * int(self.lengths[list(rows)].max()) for rows in step.micro_batches)

    def _bucketed(self, rng: np.random.Generator) -> IntArray:
        """A random order, sorted by length within buckets; every second bucket descends so that they join well."""
        order = rng.permutation(len(self.lengths))
        rows_per_step = self._rows_per_step()
        size = min(STEPS_PER_BUCKET * rows_per_step, max(rows_per_step, len(order) // MIN_BUCKETS))
        buckets = []
        for number, start in enumerate(range(0, len(order), size)):
            bucket = order[start : start + size]
            bucket = bucket[np.argsort(self.lengths[bucket], kind="stable")]
            buckets.append(bucket[::-1] if number % 2 else bucket)
        return np.concatenate(buckets)

    def _rows_per_step(self) -> int:
        if self.batch_size is not None:
            return self.batch_size * self.micro_batches_per_step
        return max(1, int(self.batch_tokens * self.micro_batches_per_step / self.lengths.mean()))

    def _whole_step(self, rows: int, width: int) -> bool:
        if self.batch_size is not None:
            return rows <= self.batch_size * self.micro_batches_per_step
        return rows * width <= self.batch_tokens * self.micro_batches_per_step

    def _micro_batch(self, rows: int, width: int) -> bool:
        fits_rows = self.batch_size is None or rows <= self.batch_size
        return fits_rows and rows * width <= self.batch_tokens

    def _cut(self, order: Sequence[int] | IntArray, fits: Callable[[int, int], bool]) -> list[Indices]:
        return list(cut(order, self.lengths, fits))

    def _step(self, rows: Indices, *, ends_epoch: bool) -> Step:
        targets = int(self.num_targets[list(rows)].sum())
        return Step(tuple(self._cut(rows, self._micro_batch)), targets, ends_epoch)


def cut(order: Sequence[int] | IntArray, lengths: IntArray, fits: Callable[[int, int], bool]) -> Iterator[Indices]:
    """Consecutive groups, each as large as ``fits(rows, longest)`` allows and at least one row."""
    group: list[int] = []
    width = 0
    for index in map(int, order):
        wider = max(width, int(lengths[index]))
        if group and not fits(len(group) + 1, wider):
            yield tuple(group)
            group, wider = [], int(lengths[index])
        group.append(index)
        width = wider
    if group:
        yield tuple(group)


def inference_batches(lengths: IntArray, batch_tokens: int, pass_tokens: int) -> list[Indices]:
    """All rows once, longest first, in batches of at most ``batch_tokens`` with their padding.

    Where a batch ends is chosen so that the least is computed, when one more pass costs as much as ``pass_tokens``.
    """
    order = np.argsort(-lengths, kind="stable")
    batches: list[Indices] = []
    for start, stop in cheapest_cuts(lengths[order], batch_tokens, pass_tokens):
        batches += cut(order[start:stop], lengths, lambda rows, width: rows * width <= batch_tokens)
    return batches


def cheapest_cuts(descending: IntArray, batch_tokens: int, pass_tokens: int) -> list[tuple[int, int]]:
    """First and last + 1 of each group; rows of one length stay together. (Bellman, 1957: the best way from each length
    on is the best first group and the best way from there.)
    """
    if not len(descending):
        return []
    firsts = np.flatnonzero(np.diff(descending, prepend=descending[0] + 1))
    ends = np.append(firsts[1:], len(descending))
    costs, following = np.zeros(len(firsts) + 1), np.zeros(len(firsts), np.int64)
    for i in range(len(firsts) - 1, -1, -1):
        tokens = (ends[i:] - firsts[i]) * descending[firsts[i]]
        of_group = tokens + pass_tokens * -(-tokens // batch_tokens) + costs[i + 1 :]
        following[i] = i + 1 + int(of_group.argmin())
        costs[i] = of_group.min()
    cuts, i = [], 0
    while i < len(firsts):
        cuts.append((int(firsts[i]), int(ends[following[i] - 1])))
        i = int(following[i])
    return cuts
