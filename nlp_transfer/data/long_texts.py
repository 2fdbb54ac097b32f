"""What of a text that is longer than the limit is read: its beginning, both its ends, or all of it in windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

LongTexts = Literal["head", "head_tail", "windows"]
LongTaggedTexts = Literal["windows", "head"]

HEAD_SHARE = 4
"""With both ends: a quarter from the beginning, the rest from the end (Sun et al., 2019, arXiv 1905.05583)."""
OVERLAP_SHARE = 4
"""Windows share a quarter of their tokens with the next one."""


def pieces_of(ids: Sequence[int], room: int, policy: LongTexts) -> list[list[int]]:
    """The pieces, of at most ``room`` tokens each, that are read of a text of more tokens."""
    if policy == "head":
        return [list(ids[:room])]
    if policy == "head_tail":
        head = room // HEAD_SHARE
        return [[*ids[:head], *ids[len(ids) - (room - head) :]]]
    step = room - room // OVERLAP_SHARE
    starts = [*range(0, len(ids) - room, step), len(ids) - room]
    return [list(ids[start : start + room]) for start in starts]
