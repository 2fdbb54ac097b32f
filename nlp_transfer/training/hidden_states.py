"""What the frozen trunk made of every row of a split, token after token in one flat tensor."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass

import torch
from torch import Tensor

from nlp_transfer.cache import cache_folder
from nlp_transfer.data.encoded import EncodedSplit, Indices
from nlp_transfer.reporting.progress import say
from nlp_transfer.training.free_memory import free_memory

MEMORY_SHARE = 0.25
"""Of the memory that is free, what hidden states may take before they go to the disk."""
DISK_SHARE = 0.5
"""Of the disk that is free."""


@dataclass(frozen=True)
class HiddenStates:
    """``flat`` has a row for each token of the split, in the order of its rows."""

    split: EncodedSplit
    flat: Tensor
    rest: tuple[None, ...] | None
    """What goes with them where the layers give tuples; see ``trunk.Made``."""

    def put(self, rows: Indices, hidden: Tensor) -> None:
        """Keep the tokens of these rows out of ``(rows, tokens, width)``; padding is left out."""
        self.flat[torch.from_numpy(self.split.tokens(rows))] = hidden[torch.from_numpy(self.split.mask(rows))]

    def batch(self, rows: Indices, width: int) -> Tensor:
        """Of shape ``(rows, width, hidden)``, padded with zeros."""
        mask = torch.from_numpy(self.split.mask(rows, width))
        found = self.flat.new_zeros((*mask.shape, self.flat.shape[1]))
        found[mask] = self.flat[torch.from_numpy(self.split.tokens(rows))]
        return found


def room_for(split: EncodedSplit, width: int, dtype: torch.dtype) -> Tensor | None:
    """A tensor for the hidden states of a split, in memory or in a file; None where neither has room for it."""
    shape = (int(split.offsets[-1]), width)
    size = shape[0] * width * dtype.itemsize
    if size <= MEMORY_SHARE * free_memory():
        return torch.empty(shape, dtype=dtype)
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if size > DISK_SHARE * shutil.disk_usage(folder).free:
            return None
        with tempfile.NamedTemporaryFile(dir=folder) as file:  # without a name its room is free again however we end
            os.posix_fallocate(file.fileno(), 0, size)  # all of it now: a disk that fills up later would kill us
            say(f"What the frozen layers make is kept in {folder}: {size / 2**30:.1f} GiB until the run ends.")
            return torch.from_file(file.name, shared=True, size=shape[0] * width, dtype=dtype).view(shape)
    except (OSError, AttributeError):  # neither macOS nor Windows has posix_fallocate
        return None
