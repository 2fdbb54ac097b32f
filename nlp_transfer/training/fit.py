"""Fine-tune: the training loop, plus the log, validation after each epoch, and keeping the best one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn

from nlp_transfer.adapters.trainable import count_parameters, trainable_state
from nlp_transfer.checkpoints import Model
from nlp_transfer.data.encoded import EncodedSplit
from nlp_transfer.errors import ConfigError, counted, quoted
from nlp_transfer.metrics import Metrics
from nlp_transfer.reporting.progress import progress_bar, say
from nlp_transfer.tasks.base import E, P, Task
from nlp_transfer.training.config import TrainingConfig
from nlp_transfer.training.defaults import TrainingPlan, plan_training
from nlp_transfer.training.evaluate import predict_split, say_cut
from nlp_transfer.training.log import LOG_FILE, Log
from nlp_transfer.training.loop import Progress, StepResult, TrainState, train_steps
from nlp_transfer.training.optim import make_optimizer, make_schedule
from nlp_transfer.training.precision import make_accelerator

LORA_DROPOUT = "lora_dropout"
BEST_FILE = Path("checkpoints", "best.safetensors")


@dataclass(frozen=True)
class Run:
    """All that a run works with."""

    accelerator: Accelerator
    state: TrainState
    split: EncodedSplit
    plan: TrainingPlan


def fit(
    model: Model,
    task: Task[E, P],
    *,
    train: Sequence[E],
    validation: Sequence[E],
    config: TrainingConfig,
    run_dir: Path,
) -> Model:
    """Fine-tune and return the model as it was after its best epoch on the validation part.

    Writes a line a step and a line an epoch to ``log.jsonl`` in ``run_dir``. Raises TrainingError when the loss is no
    longer finite. The random number generator of torch is set anew for every micro-batch.
    """
    metric = choose_metric(task, config)
    run = prepare(model, task, train, config)
    describe(run, model, task)
    held_out = task.encode(validation, model)
    say_cut(held_out, "validation", task.token_limit(model))
    best, best_epoch = -math.inf, 0
    log = Log(run_dir / LOG_FILE, run.accelerator.is_main_process)
    log.plan(run.plan, run.accelerator, run.split.num_cut, metric)
    inner = run.accelerator.unwrap_model(run.state.network)
    with progress_bar("training", len(run.split) * run.plan.num_epochs) as bar:
        for result in steps_of(run, task, config):
            log.step(result, bar)
            if not result.ends_epoch:
                continue
            scores = validate(inner, task, held_out, validation)
            log.epoch(result, scores)
            if scores[metric] > best:
                best, best_epoch = scores[metric], result.epoch
                save_best(run.accelerator, inner, run_dir / BEST_FILE)
            if config.early_stopping_patience and result.epoch - best_epoch >= config.early_stopping_patience:
                say(f"No better {metric} for {config.early_stopping_patience} epochs: stopped.")
                break
    return restore_best(run, model, run_dir / BEST_FILE)


def prepare(model: Model, task: Task[E, P], train: Sequence[E], config: TrainingConfig) -> Run:
    """Encode the training part, plan the run, and hand network and optimizer to accelerate."""
    accelerator = make_accelerator(config.mixed_precision, some_weights_unused=model.adapter == "none")
    split = task.encode(train, model)
    say_cut(split, "train", task.token_limit(model))
    network = model.network
    if config.dropout is not None:
        set_dropout(network, config.dropout)
    plan = plan_training(
        config,
        split,
        adapter=model.adapter,
        num_labels=len(task.labels),
        width=network.config.hidden_size,
        num_processes=accelerator.num_processes,
    )
    if config.gradient_checkpointing:
        if not network.supports_gradient_checkpointing:
            raise ConfigError(
                f"TrainingConfig.gradient_checkpointing: {network.config.model_type} models cannot do it."
            )
        network.gradient_checkpointing_enable({"use_reentrant": False})
    network.to(accelerator.device)
    optimizer = make_optimizer(network, config, plan.learning_rate, network.config.num_hidden_layers)
    prepared, optimizer = accelerator.prepare(network, optimizer)
    scheduler = make_schedule(optimizer.optimizer, plan.num_steps, config.warmup_fraction, config.schedule)
    return Run(accelerator, TrainState(prepared, optimizer, scheduler, Progress()), split, plan)


def set_dropout(network: nn.Module, share: float) -> None:
    """In all of the network but the adapters: some families hold it in modules, some as numbers."""
    for name, module in network.named_modules():
        if LORA_DROPOUT in name:
            continue
        if isinstance(module, nn.Dropout):
            module.p = share
        for key, value in vars(module).items():
            if "dropout" in key and isinstance(value, float):
                setattr(module, key, share)


def steps_of(run: Run, task: Task[Any, Any], config: TrainingConfig) -> Iterable[StepResult]:
    return train_steps(run.accelerator, run.state, run.split, task.loss_sum, run.plan, config.max_grad_norm)


def describe(run: Run, model: Model, task: Task[Any, Any]) -> None:
    trainable, total = count_parameters(model.network)
    plan, precision = run.plan, run.accelerator.mixed_precision
    say(f"{counted(len(task.classes), 'label')}: {quoted(task.classes)}.")
    if model.brings_head:
        say(f"Training begins with the head that checkpoint '{model.origin.name}' brings for as many labels.")
    say(
        f"Training {trainable:,} of {total:,} weights ({model.adapter}) for {counted(plan.num_epochs, 'epoch')}, "
        f"{plan.num_steps:,} steps, peak learning rate {plan.learning_rate:.1e}, "
        f"{'fp32' if precision == 'no' else precision} precision, {plan.batches.padding_share(0):.1%} padding."
    )


def validate(network: nn.Module, task: Task[E, P], split: EncodedSplit, examples: Sequence[E]) -> Metrics:
    """Scores in the precision of the training."""
    with progress_bar("validating", len(split)) as bar:
        probabilities = predict_split(network, task, split, len(examples), bar, together=True)
    return task.score(task.predictions(probabilities), examples).metrics


def choose_metric(task: Task[Any, Any], config: TrainingConfig) -> str:
    metric = config.selection_metric or task.metric_names[0]
    if metric not in task.metric_names:
        raise ConfigError(
            f"TrainingConfig.selection_metric must be one of {', '.join(task.metric_names)}, got '{metric}'."
        )
    return metric


def save_best(accelerator: Accelerator, network: nn.Module, path: Path) -> None:
    """Write the trained weights beside the old file and put them in its place."""
    if accelerator.is_main_process:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_suffix(".part")
        save_file({name: tensor.contiguous() for name, tensor in trainable_state(network).items()}, staged)
        staged.replace(path)
    accelerator.wait_for_everyone()


def restore_best(run: Run, model: Model, path: Path) -> Model:
    network = run.accelerator.unwrap_model(run.state.network, keep_fp32_wrapper=False)
    weights = load_file(path)
    with torch.no_grad():
        for name, parameter in trainable_state(network).items():
            parameter.copy_(weights[name])
    return replace(model, network=network.eval())
