"""The processes of a run."""

from __future__ import annotations

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def processes() -> PartialState:
    """This process among those that were launched together; set up when first asked for.

    accelerate takes processes without a GPU for separate runs unless it is told that they use the CPU, and reads
    ACCELERATE_USE_CPU too late when this state is asked for before an ``Accelerator`` was made.
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())
