"""Where the time of a training step goes, by kind of work. Nothing to run."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

KINDS = {
    "products of weights and adapters": r"mm|addmm_?",
    "attention": r"bmm|baddbmm|_softmax(_backward_data)?|.*dot_product.*|.*attention.*",
    "activation": r".*gelu.*|.*tanh.*|.*relu.*",
    "layer norm": r".*layer_norm.*",
    "drawing dropout": r"random_|ge|.*dropout.*|.*bernoulli.*",
    "embeddings, leaving out padding": r"index_select|index_copy_",
    "optimizer, norm of the gradient": r".*adamw.*|linalg_vector_norm|_foreach.*",
    "sums, products by element, copies": r"add_?|mul_?|copy_|sum|div_?",
}
"""Of each kind, the names of torch's operators; the first that fits counts."""
EVERYTHING_ELSE = "everything else: Python, waiting, memory, small operators"
WARM_UP, STEPS = 3, 16
NUM_STEPS = WARM_UP + STEPS
"""Of the epoch that is looked at."""


def step_profile(steps: Iterator[Any]) -> dict[str, float]:
    """The share of each kind of work in the time of some steps; the GPU's where there is one."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    on_gpu = torch.cuda.is_available()
    list(islice(steps, WARM_UP))
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as seen:
        start = time.perf_counter()
        assert len(list(islice(steps, STEPS))) == STEPS
        if on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    shares = dict.fromkeys(KINDS, 0.0)
    for event in seen.key_averages():
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if (kind := kind_of(event.key)) is not None:
            shares[kind] += own / 1e6 / seconds
    return {**shares, EVERYTHING_ELSE: 1 - sum(shares.values())}


def kind_of(event: str) -> str | None:
    """None for what is no operator of torch's, and for those that only look at tensors in another way."""
    operator = event.removeprefix("aten::")
    fitting = (kind for kind, names in KINDS.items() if re.fullmatch(names, operator))
    return next(fitting, None) if operator != event else None
