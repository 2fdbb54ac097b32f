"""Everything up to and including one step, to see what a run would do and cost."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import torch

from nlp_transfer.adapters.trainable import count_parameters
from nlp_transfer.checkpoints import Model
from nlp_transfer.data.batching import Step
from nlp_transfer.metrics import Metrics
from nlp_transfer.reporting.progress import say
from nlp_transfer.tasks.base import E, P, Task
from nlp_transfer.training.config import TrainingConfig
from nlp_transfer.training.explained import explain
from nlp_transfer.training.loop import take_step
from nlp_transfer.training.prepare import Run, choose_metric, describe, prepare

GIBIBYTE = 2**30


def dry_run(model: Model, task: Task[E, P], *, train: Sequence[E], config: TrainingConfig) -> Metrics:
    """Take the widest step of the first epoch twice, say what the run would be, and write nothing.

    The first time warms up; the second is timed, and stands for all steps in proportion to their tokens. The weights
    have moved by then: load the model anew to train it.
    """
    choose_metric(task, config)
    run = prepare(model, task, train, config)
    describe(run, task)
    explain(run, config)
    batches = run.plan.batches
    steps = batches.steps(0)
    widest = max(steps, key=batches.computed_tokens)
    seconds = [timed_step(run, task, widest, config.max_grad_norm) for _ in range(2)][-1]
    share = batches.computed_tokens(widest) / sum(map(batches.computed_tokens, steps))
    expected = seconds / share * run.plan.num_epochs
    memory = peak_memory()
    anew = "" if run.state.frozen is None else ", frozen layers computed in every epoch"
    say(
        f"The widest step, of {sum(map(len, widest.micro_batches))} examples, took {seconds:.2f} s; training would "
        f"take about {expected / 60:.1f} minutes (validation not included{anew}) and {memory:.1f} GiB of memory. "
        "Nothing was written."
    )
    return {
        "trainable_parameters": float(count_parameters(model.network)[0]),
        "steps": float(run.plan.num_steps),
        "padding_share": batches.padding_share(0),
        "seconds": expected,
        "memory_gib": memory,
    }


def timed_step(run: Run, task: Task[E, P], step: Step, max_grad_norm: float) -> float:
    start = time.perf_counter()
    own = step.share(run.accelerator.process_index, run.accelerator.num_processes)
    batches = list(run.loading.batches(own, 0))
    seed = (run.plan.batches.seed, 0)
    loss, *_ = take_step(run.accelerator, run.state, step, batches, task.loss_sum, max_grad_norm, seed)
    loss.item()  # a GPU has only finished when its result is here
    return time.perf_counter() - start


def peak_memory() -> float:
    """In GiB: of the GPU's memory where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / GIBIBYTE
    import resource  # not on Windows

    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return kilobytes * 1024 / GIBIBYTE
