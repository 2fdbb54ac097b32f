"""Hide some tokens of a training example, differently in each epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from nlp_transfer.data.examples import IntArray
from nlp_transfer.errors import ConfigError


@dataclass(frozen=True)
class TokenMasking:
    """Replaces a share of the tokens by the mask token; special tokens stay.

    Which ones is a function of (seed, epoch, example, row of the example), so it is the same in any order, batch or
    process, and after a stop.
    """

    share: float
    mask_id: int
    special_ids: tuple[int, ...]
    seed: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, share: float, seed: int) -> TokenMasking:
        """Raises ConfigError for a tokenizer without a mask token."""
        if tokenizer.mask_token_id is None:
            raise ConfigError("TrainingConfig.token_masking: the tokenizer of this checkpoint has no mask token.")
        return cls(share, tokenizer.mask_token_id, tuple(sorted(set(tokenizer.all_special_ids))), seed)

    def __call__(self, ids: IntArray, epoch: int, example: int, start: int) -> IntArray:
        """``ids`` of shape ``(tokens,)`` with some replaced."""
        rng = np.random.default_rng([self.seed, epoch, example, start])
        hidden = (rng.random(len(ids)) < self.share) & ~np.isin(ids, self.special_ids)
        return np.where(hidden, self.mask_id, ids)
