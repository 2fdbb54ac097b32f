"""Compute the frozen trunk once: whether that is exact, what it makes of every row, and passes that begin with that."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nlp_transfer.data.encoded import Batch, EncodedSplit
from nlp_transfer.reporting.progress import progress_bar, say
from nlp_transfer.training.evaluate import batches_of
from nlp_transfer.training.hidden_states import HiddenStates, room_for
from nlp_transfer.training.trunk import Made, Trunk

Autocast = Callable[[], AbstractContextManager[None]]
PROBED = 4
"""Rows by which it is seen whether a trunk can be left out."""


@dataclass(frozen=True)
class FrozenPart:
    """A trunk, and what it made of the rows of one split, if that is kept."""

    trunk: Trunk
    states: HiddenStates | None = None

    def passing(self, batch: Batch) -> AbstractContextManager[None]:
        """Within, a pass of ``batch`` leaves the trunk out."""
        if self.states is None:
            return nullcontext()
        hidden = self.states.batch(batch.rows, batch.width).to(batch.labels.device)
        return self.trunk.replaced(Made(hidden, self.states.rest))


def kept(trunk: Trunk, network: nn.Module, split: EncodedSplit, autocast: Autocast, part: str) -> HiddenStates | None:
    """The trunk's hidden states of every row; None where there is no room for them, which is said.

    Rows are computed in the order of inference, the same in every run, so that one that goes on gets the same bits.
    """
    device = next(trunk.encoder.parameters()).device
    network.eval()
    with autocast():
        first = trunk.made(split.batch((0,)).to(device))
    flat = room_for(split, first.hidden.shape[-1], first.hidden.dtype)
    if flat is None:
        say(f"Neither memory nor disk has room for what the frozen layers make of {part}: each epoch computes it anew.")
        return None
    states = HiddenStates(split, flat, first.rest)
    with progress_bar(f"computing the frozen layers once for {part}", len(split)) as bar:
        for rows in batches_of(split.lengths):
            with autocast():
                states.put(rows, trunk.made(split.batch(rows).to(device)).hidden.cpu())
            bar.advance(len(rows))
    return states


@torch.no_grad()
def can_be_left_out(trunk: Trunk, network: nn.Module, split: EncodedSplit, autocast: Autocast) -> bool:
    """Whether the trunk draws nothing at random, and a pass that begins with its output gives the same to the bit."""
    device = next(trunk.encoder.parameters()).device
    probe = split.batch(tuple(range(min(PROBED, len(split))))).to(device)

    def made(seed: int) -> Made:
        network.train()
        trunk.without_dropout()
        with torch.random.fork_rng(devices=[]), autocast():
            torch.manual_seed(seed)
            return trunk.made(probe)

    first, second = made(0), made(1)
    if any(value is not None for value in first.rest or ()) or not torch.equal(first.hidden, second.hidden):
        return False
    network.eval()
    expected: Tensor = network(**probe.inputs).logits
    with trunk.replaced(first):
        found: Tensor = network(**probe.inputs).logits
    return torch.equal(found, expected)
