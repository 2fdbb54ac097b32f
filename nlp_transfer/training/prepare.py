"""Everything that a run needs before its first step."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from nlp_transfer.adapters.lora import plain_network
from nlp_transfer.adapters.trainable import count_parameters
from nlp_transfer.checkpoints import Model, encoder_of
from nlp_transfer.data.encoded import EncodedSplit
from nlp_transfer.data.loading import Loading
from nlp_transfer.data.masking import TokenMasking
from nlp_transfer.errors import ConfigError, counted, quoted
from nlp_transfer.reporting.progress import say
from nlp_transfer.tasks.base import E, P, Task
from nlp_transfer.training.config import TrainingConfig
from nlp_transfer.training.defaults import TrainingPlan, plan_training
from nlp_transfer.training.dropout import contexts_of_checkpoint
from nlp_transfer.training.evaluate import say_cut
from nlp_transfer.training.frozen import FrozenPart, can_be_left_out, fill, room_to_keep
from nlp_transfer.training.optim import make_optimizer, make_schedule
from nlp_transfer.training.parallel import is_sharded, shard
from nlp_transfer.training.precision import make_accelerator, precision_name, unwrap
from nlp_transfer.training.state import Progress, TrainState
from nlp_transfer.training.tracking import refuse_missing_trackers
from nlp_transfer.training.trunk import find_trunk
from nlp_transfer.training.unpadded import unpadding_of
from nlp_transfer.training.zero import make_engine, uses_zero

LORA_DROPOUT = "lora_dropout"


@dataclass(frozen=True)
class Run:
    """All that a run works with."""

    accelerator: Accelerator
    state: TrainState
    loading: Loading
    plan: TrainingPlan
    model: Model
    """To be given back: its network is the one that is trained, or where that one is sharded, a whole one."""

    @property
    def split(self) -> EncodedSplit:
        return self.loading.split

    @property
    def network(self) -> nn.Module:
        """The network without what accelerate puts around it."""
        inner: nn.Module = self.accelerator.unwrap_model(self.state.network, keep_torch_compile=False)
        return inner


def prepare(
    model: Model, task: Task[E, P], train: Sequence[E], config: TrainingConfig, run_dir: Path | None = None
) -> Run:
    """Encode the training part, plan the run, and hand network and optimizer to accelerate. Trackers write to
    ``run_dir``; without one there are none.
    """
    refuse_missing_trackers(config)
    accelerator = make_accelerator(config, run_dir)
    split = task.encode(train, model)
    say_cut(split, "train", task.token_limit(model))
    network = model.network
    unwrap(network)  # it may come from a run that an error has ended
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
        network.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": contexts_of_checkpoint})
    whole = replace(model, network=deepcopy(network)) if is_sharded(accelerator) else model
    if is_sharded(accelerator):
        shard(accelerator, network)
    network.to(accelerator.device)
    unpadding = None if is_sharded(accelerator) or uses_zero() else unpadding_of(network)
    # the mode for evaluation leaves out DDP: gradients are summed over processes once a step, in `parallel`
    prepared = accelerator.prepare_model(network, evaluation_mode=True)
    adamw = make_optimizer(network, config, plan.learning_rate, network.config.num_hidden_layers)
    optimizer = accelerator.prepare_optimizer(adamw)
    if uses_zero():
        prepared = make_engine(prepared, adamw, config.max_grad_norm)
    schedule = make_schedule(plan.num_steps, config.warmup_fraction, config.schedule)
    masking = TokenMasking.of(model.tokenizer, config.token_masking, config.seed) if config.token_masking else None
    loading = Loading(split, masking, config.dataloader_num_workers)
    trunk = find_trunk(encoder_of(plain_network(model)))
    frozen = FrozenPart(trunk) if trunk else None
    prepared.eval()  # whatever its modules were in, the first step puts all of them into training
    state = TrainState(prepared, optimizer, schedule, Progress(), frozen, unpadding)
    return Run(accelerator, state, loading, plan, whole)


def why_not_kept(run: Run) -> str | None:
    """Why what the frozen layers make is not kept; None where it is."""
    if run.plan.num_epochs == 1:
        return "it is one epoch alone"
    if run.loading.masking is not None:
        return "tokens are masked at random"
    if run.accelerator.num_processes > 1 or uses_zero():
        return "there are several processes"
    if run.state.frozen is None or can_be_left_out(run.state.frozen.trunk, run.state.network, run.split):
        return None
    return "this encoder gives something else without them"


def keep_trunk(run: Run, held_out: EncodedSplit) -> tuple[Run, FrozenPart | None]:
    """The run and its validation with room for what the frozen layers make of every row, where that saves work and is
    exact. ``fill_trunk`` computes it.
    """
    frozen, network, autocast = run.state.frozen, run.state.network, run.accelerator.autocast
    if frozen is None or why_not_kept(run) is not None:
        return run, None
    train, validation = (
        room_to_keep(frozen.trunk, network, split, autocast, part)
        for split, part in ((run.split, "train"), (held_out, "validation"))
    )
    return replace(run, state=replace(run.state, frozen=train)), validation


def fill_trunk(run: Run, validation: FrozenPart | None) -> None:
    for frozen, part in ((run.state.frozen, "train"), (validation, "validation")):
        if frozen is not None:
            fill(frozen, run.state.network, run.accelerator.autocast, part)


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


def describe(run: Run, task: Task[Any, Any]) -> None:
    model, plan, precision = run.model, run.plan, run.accelerator.mixed_precision
    where = ", in attention alone" if run.state.unpadding else ""
    padding = f"{plan.batches.padding_share(0):.1%} padding{where}"
    trainable, total = count_parameters(model.network)
    say(f"{counted(len(task.classes), 'label')}: {quoted(task.classes)}.")
    if model.brings_head:
        say(f"Training begins with the head that checkpoint '{model.origin.name}' brings for as many labels.")
    say(
        f"Training {trainable:,} of {total:,} weights ({model.adapter}) for {counted(plan.num_epochs, 'epoch')}, "
        f"{plan.num_steps:,} steps, peak learning rate {plan.learning_rate:.1e}, "
        f"{precision_name(precision)} precision, {padding}."
    )


def choose_metric(task: Task[Any, Any], config: TrainingConfig) -> str:
    metric = config.selection_metric or task.metric_names[0]
    if metric not in task.metric_names:
        raise ConfigError(
            f"TrainingConfig.selection_metric must be one of {', '.join(task.metric_names)}, got '{metric}'."
        )
    return metric
