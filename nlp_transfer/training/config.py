"""Settings of a training run. No tensors here: recipes read them for their help text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from nlp_transfer.errors import ConfigError, did_you_mean, quoted, refuse_other_choices

MixedPrecision = Literal["auto", "no", "bf16", "fp16"]
ScheduleKind = Literal["linear", "cosine"]
OnNonfinite = Literal["skip", "stop"]
Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a model is fine-tuned. What is None follows from the size of the data and the kind of adapter."""

    num_epochs: int | None = None
    """Passes over the training part. None: from the size of the data and the number of labels, 3 to 20."""
    learning_rate: float | None = None
    """Peak learning rate, reached at the end of the warm-up. None: from the adapter and the width of the encoder."""
    batch_size: int | None = None
    """Examples in a micro-batch on each process. None: 8 to 32 a step, by the size of the data; with batch_tokens, as
    many as fit that."""
    batch_tokens: int | None = None
    """Most tokens in a micro-batch, padding included. With batch_size, a larger micro-batch is split, which changes the
    draws of dropout only; without, it decides how many examples make a step. None: 8,192, as a bound."""
    gradient_accumulation_steps: int = 1
    """Micro-batches on each process before the weights are changed once."""
    dropout: float | None = None
    """Share of the activations of encoder and head that is dropped. None: what the checkpoint has. Adapters have their
    own, lora.dropout."""
    schedule: ScheduleKind = "linear"
    """How the learning rate falls to 0 after the warm-up."""
    warmup_fraction: float = 0.1
    """Share of all steps in which the learning rate rises from 0 to its peak."""
    weight_decay: float = 0.01
    """Pull of matrices towards 0; biases and norms have none."""
    layer_decay: float = 1.0
    """Learning rate of each encoder layer relative to the one above it."""
    max_grad_norm: float = 0.3
    """Longer gradients are shortened to this norm. At the usual 1.0 the first, long gradients of a tagger can drive
    LoRA to where it says O for every word; 0.3 is from QLoRA (Dettmers et al., 2023, arXiv 2305.14314)."""
    mixed_precision: MixedPrecision = "auto"
    """Type that matrix products are computed in. auto: what this hardware runs well. Weights are trained in fp32."""
    token_masking: float = 0.0
    """Share of the tokens of a training example that the mask token hides, others in every epoch."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, more time."""
    early_stopping_patience: int | None = None
    """Stop after this many epochs without a better validation score."""
    selection_metric: str | None = None
    """Validation metric that picks the best epoch. None: accuracy, micro_f1 (multi-label) or f1 (NER)."""
    seed: int = 0
    """Order of the examples, new weights, dropout and held-out parts all follow from it."""

    on_nonfinite: OnNonfinite = "skip"
    """What to do with a step whose loss or gradient is not finite. skip: leave the weights as they are, say so, and end
    the run after ten in a row. stop: end it at once."""
    save_every: int = 200
    """Steps between checkpoints. There is one after each epoch in any case, and one when a signal stops the run."""
    keep_checkpoints: int = 2
    """How many checkpoints are kept, the last ones; each holds the best epoch's weights too."""
    dataloader_num_workers: int = 0
    """Processes that put micro-batches together ahead of time. 0: the training process itself."""
    process_timeout: float = 60.0
    """Of several processes: seconds without a sign of life after which one is taken for lost and the run ends."""
    explain: bool = False
    """Say what was chosen for speed, and why."""
    trackers: tuple[Tracker, ...] = ()
    """Where losses and scores are sent to beside the log, through accelerate; the package must be installed."""

    def __post_init__(self) -> None:
        refuse_other_choices(self)
        if odd := [tracker for tracker in self.trackers if tracker not in get_args(Tracker)]:
            raise ConfigError(
                f"TrainingConfig.trackers must be of {quoted(get_args(Tracker))}, got {odd[0]!r}."
                f"{did_you_mean(odd[0], get_args(Tracker))}"
            )
        for names, allowed, fits in BOUNDS:
            for name in names:
                value = getattr(self, name)
                if value is not None and not fits(value):
                    raise ConfigError(f"TrainingConfig.{name} must be {allowed}, got {value}.")


COUNTS = (
    "num_epochs",
    "batch_size",
    "batch_tokens",
    "gradient_accumulation_steps",
    "early_stopping_patience",
    "save_every",
    "keep_checkpoints",
)
BOUNDS: tuple[tuple[tuple[str, ...], str, Callable[[float], bool]], ...] = (
    (COUNTS, "at least 1", lambda value: value >= 1),
    (("warmup_fraction", "layer_decay"), "from 0 to 1", lambda value: 0 <= value <= 1),
    (("learning_rate", "max_grad_norm"), "above 0", lambda value: value > 0),
    (("process_timeout",), "at least 3 (a sign of life comes every half second)", lambda value: value >= 3),
    (("dropout", "token_masking"), "from 0 to below 1", lambda value: 0 <= value < 1),
    (("weight_decay", "seed", "dataloader_num_workers"), "at least 0", lambda value: value >= 0),
)
"""What the numbers must be."""
