"""What a training run uses where its config leaves the choice open.

The rules were fitted on the sets named in recipes/README.md, with a 384-wide encoder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nlp_transfer.data.batching import BatchPlan
from nlp_transfer.data.encoded import EncodedSplit
from nlp_transfer.training.config import TrainingConfig

FITTED_WIDTH = 384
PEAK_LEARNING_RATE = {"lora": 1e-3, "head": 5e-3, "none": 1e-4}
STEPS = {"lora": 500, "head": 1000, "none": 400}
STEPS_A_LABEL = 10
"""More labels take longer to tell apart: a run has about STEPS + STEPS_A_LABEL for each."""
MIN_EPOCHS, MAX_EPOCHS = 3, 20
MIN_ROWS, MAX_ROWS = 8, 32
MICRO_BATCH_TOKENS = 8192
"""What a micro-batch holds at the most, so that long texts do not need more memory than short ones."""
STEPS_AN_EPOCH = 100
"""A small set gets smaller steps, so that an epoch still has about this many."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """The numbers that a run goes by."""

    num_epochs: int
    learning_rate: float
    batches: BatchPlan
    num_steps: int
    """Of all epochs together."""


def plan_training(
    config: TrainingConfig, split: EncodedSplit, *, adapter: str, num_labels: int, width: int, num_processes: int
) -> TrainingPlan:
    """Fill what ``config`` leaves open; ``width`` is the encoder's hidden size."""
    rows = len(split)
    rows_per_step = power_of_two_near(rows / STEPS_AN_EPOCH, MIN_ROWS, MAX_ROWS)
    micro_batches = config.gradient_accumulation_steps * num_processes
    # the step stays the same size however many micro-batches it is spread over
    batch_size = config.batch_size or (None if config.batch_tokens else math.ceil(rows_per_step / micro_batches))
    batches = BatchPlan(
        lengths=split.lengths,
        num_targets=split.num_targets,
        batch_size=batch_size,
        batch_tokens=config.batch_tokens or MICRO_BATCH_TOKENS,
        micro_batches_per_step=micro_batches,
        seed=config.seed,
    )
    steps_an_epoch = len(batches.steps(0))
    wanted = math.ceil((STEPS[adapter] + STEPS_A_LABEL * num_labels) / steps_an_epoch)
    num_epochs = config.num_epochs or int(np.clip(wanted, MIN_EPOCHS, MAX_EPOCHS))
    return TrainingPlan(
        num_epochs=num_epochs,
        learning_rate=config.learning_rate or PEAK_LEARNING_RATE[adapter] * FITTED_WIDTH / width,
        batches=batches,
        # by rows, every epoch has the same number; by tokens, it depends on the order
        num_steps=steps_an_epoch * num_epochs
        if batch_size
        else sum(len(batches.steps(epoch)) for epoch in range(num_epochs)),
    )


def power_of_two_near(value: float, lowest: int, highest: int) -> int:
    return int(np.clip(2 ** round(math.log2(max(value, 1))), lowest, highest))
