"""The special tokens that a tokenizer puts around a text, so that any piece of a text can be made an input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Frame:
    """What stands before and after the tokens of a text, as inputs by name."""

    before: dict[str, list[int]]
    within: dict[str, int]
    """What each token of the text has in the inputs other than ``input_ids``."""
    after: dict[str, list[int]]

    @property
    def size(self) -> int:
        return len(self.before["input_ids"]) + len(self.after["input_ids"])

    def around(self, ids: Sequence[int]) -> dict[str, list[int]]:
        """Inputs for the network; all lists are equally long."""
        inputs = {"input_ids": [*self.before["input_ids"], *ids, *self.after["input_ids"]]}
        for name, value in self.within.items():
            inputs[name] = self.before[name] + [value] * len(ids) + self.after[name]
        return inputs

    def inside(self, ids: Sequence[int]) -> list[int]:
        """The tokens of the text alone."""
        return list(ids[len(self.before["input_ids"]) : len(ids) - len(self.after["input_ids"])])


def frame_of(tokenizer: PreTrainedTokenizerBase) -> Frame:
    encoding = tokenizer("a", return_special_tokens_mask=True)
    special = encoding.pop("special_tokens_mask")
    first = special.index(0)
    last = len(special) - special[::-1].index(0)
    return Frame(
        {name: encoding[name][:first] for name in encoding},
        {name: encoding[name][first] for name in encoding if name != "input_ids"},
        {name: encoding[name][last:] for name in encoding},
    )
