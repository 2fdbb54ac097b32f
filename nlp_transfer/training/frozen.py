"""Compute the frozen trunk once: whether that is exact, what it makes of every row, and passes that begin with that."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nlp_transfer.data.encoded import Batch, EncodedSplit, moved
from nlp_transfer.reporting.progress import progress_bar, say
from nlp_transfer.training.evaluate import batches_of
from nlp_transfer.training.hidden_states import HiddenStates, room_for
from nlp_transfer.training.precision import computing_in_fp32
from nlp_transfer.training.trunk import Made, Trunk

Autocast = Callable[[], AbstractContextManager[None]]
PROBED = 4
"""Rows, of all lengths, by which it is seen whether a trunk can be left out."""
TOLERANCE = 1e-4
"""How far logits may be apart in fp32, in proportion to the largest: sums are added up in another order."""


@dataclass(frozen=True)
class FrozenPart:
    """A trunk, and what it made of the rows of one split, if that is kept."""

    trunk: Trunk
    states: HiddenStates | None = None

    def passing(self, batch: Batch) -> AbstractContextManager[None]:
        """Within, a pass of ``batch`` leaves the trunk out."""
        if self.states is None:
            return nullcontext()
        hidden = moved(self.states.batch(batch.rows, batch.width), batch.labels.device)
        return self.trunk.replaced(Made(hidden, self.states.rest))


def room_to_keep(trunk: Trunk, network: nn.Module, split: EncodedSplit, autocast: Autocast, part: str) -> FrozenPart:
    """With room for the trunk's hidden states of every row, not computed yet; without, where there is none."""
    network.eval()
    with autocast():
        first = trunk.made(split.batch((0,)).to(device_of(trunk)))
    flat = room_for(split, first.hidden.shape[-1], first.hidden.dtype)
    if flat is None:
        say(f"Neither memory nor disk has room for what the frozen layers make of {part}: each epoch computes it anew.")
        return FrozenPart(trunk)
    return FrozenPart(trunk, HiddenStates(split, flat, first.rest))


def fill(frozen: FrozenPart, network: nn.Module, autocast: Autocast, part: str) -> None:
    """Compute the hidden states, in the order of inference: a run that goes on gets the same bits."""
    states = frozen.states
    if states is None:
        return
    network.eval()
    with progress_bar(f"computing the frozen layers once for {part}", len(states.split)) as bar:
        for rows in batches_of(states.split.lengths):
            with autocast():
                made = frozen.trunk.made(states.split.batch(rows).to(device_of(frozen.trunk)))
            states.put(rows, made.hidden.cpu())
            bar.advance(len(rows))


def device_of(trunk: Trunk) -> torch.device:
    return next(trunk.encoder.parameters()).device


@torch.no_grad()
def can_be_left_out(trunk: Trunk, network: nn.Module, split: EncodedSplit) -> bool:
    """Whether the trunk draws nothing at random, and a pass that begins with what it made of each row by itself gives
    what a pass of all rows does. Tried in fp32: what bf16 rounds off could hide that it does not.
    """
    order = np.argsort(split.lengths, kind="stable")
    places = np.linspace(0, len(order) - 1, min(PROBED, len(order))).astype(int)
    batch = split.batch(tuple(int(row) for row in order[places])).to(device_of(trunk))
    try:
        with computing_in_fp32(network):
            if not is_settled(trunk, network, batch):
                return False
            expected, found = both_ways(trunk, network, split, batch)
    except Exception:  # noqa: BLE001 - an encoder of another build fails in any way, and is then computed as ever
        return False
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp(min=1))


def is_settled(trunk: Trunk, network: nn.Module, batch: Batch) -> bool:
    """Whether the trunk gives the same twice while training, and nothing beside its hidden states."""

    def made(seed: int) -> Made:
        network.train()
        trunk.without_dropout()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # a GPU's goes on by itself
            return trunk.made(batch)

    first, second = made(0), made(1)
    network.eval()
    return torch.equal(first.hidden, second.hidden) and all(value is None for value in first.rest or ())


def both_ways(trunk: Trunk, network: nn.Module, split: EncodedSplit, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits of the tokens and rows of ``batch`` with the trunk computed, and with it left out."""
    network.eval()
    states: HiddenStates | None = None
    for row in batch.rows:
        made = trunk.made(split.batch((row,)).to(device_of(trunk)))
        if states is None:
            empty = made.hidden.new_zeros((int(split.offsets[-1]), made.hidden.shape[-1]), device="cpu")
            states = HiddenStates(split, empty, made.rest)
        states.put((row,), made.hidden.cpu())
    expected: Tensor = network(**batch.inputs).logits
    with FrozenPart(trunk, states).passing(batch):
        found: Tensor = network(**batch.inputs).logits
    if expected.dim() == 3:
        mask = torch.from_numpy(split.mask(batch.rows)).to(expected.device)
        return expected[mask], found[mask]
    return expected, found
