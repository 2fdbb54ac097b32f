"""Settings of a training run. No tensors here: recipes read them for their help text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nlp_transfer.errors import ConfigError, refuse_other_choices

MixedPrecision = Literal["auto", "no", "bf16", "fp16"]
ScheduleKind = Literal["linear", "cosine"]


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
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, more time."""
    early_stopping_patience: int | None = None
    """Stop after this many epochs without a better validation score."""
    selection_metric: str | None = None
    """Validation metric that picks the best epoch. None: accuracy, micro_f1 (multi-label) or f1 (NER)."""
    seed: int = 0
    """Order of the examples, new weights, dropout and held-out parts all follow from it."""

    def __post_init__(self) -> None:
        refuse_other_choices(self)
        for name in ("num_epochs", "batch_size", "batch_tokens", "gradient_accumulation_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"TrainingConfig.{name} must be at least 1, got {value}.")
        for name in ("warmup_fraction", "layer_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"TrainingConfig.{name} must be from 0 to 1, got {getattr(self, name)}.")
        for name in ("learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"TrainingConfig.{name} must be above 0, got {value}.")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ConfigError(f"TrainingConfig.dropout must be from 0 to below 1, got {self.dropout}.")
        if not self.weight_decay >= 0:
            raise ConfigError(f"TrainingConfig.weight_decay must be at least 0, got {self.weight_decay}.")
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise ConfigError(
                f"TrainingConfig.early_stopping_patience must be at least 1, got {self.early_stopping_patience}."
            )
        if self.seed < 0:
            raise ConfigError(f"TrainingConfig.seed must be at least 0, got {self.seed}.")
