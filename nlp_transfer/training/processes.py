"""The processes of a run."""

from __future__ import annotations

import atexit
from datetime import timedelta
from functools import cache

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from nlp_transfer.training.watchdog import RUNNING, begin_watching
from nlp_transfer.training.zero import zero_settings

PATIENCE = timedelta(hours=2)
"""How long processes wait for each other. NCCL's own ten minutes can be less than the main one takes for a checkpoint;
one that is lost is noticed by the watchdog."""


def processes() -> PartialState:
    """This process among those that were launched together; set up when first asked for.

    accelerate takes processes without a GPU for separate runs unless it is told that they use the CPU, and reads
    ACCELERATE_USE_CPU too late when this state is asked for before an ``Accelerator`` was made.
    """
    zero_settings()  # before accelerate looks for them
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    group = PartialState(cpu=on_cpu, timeout=PATIENCE)
    if group.num_processes > 1:
        join(group.process_index, group.num_processes)
    return group


@cache
def join(process: int, num_processes: int) -> None:
    begin_watching(process, num_processes)
    atexit.register(leave_group)


def leave_group() -> None:
    """A process that ends while threads of gloo or ours still run is aborted, now and then."""
    for watchdog in RUNNING:
        watchdog.leave()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
