"""Settings of adapters. No tensors here: recipes read them for their help text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nlp_transfer.errors import ConfigError, refuse_other_choices

AdapterKind = Literal["lora", "none", "head"]
"""lora: low-rank adapters and the head; none: all weights; head: the head alone."""

LoraInit = Literal["default", "gaussian", "orthogonal", "pissa", "olora"]


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters beside the encoder's linear layers (Hu et al., 2021, arXiv 2106.09685)."""

    rank: int = 16
    """Inner size of each adapter."""
    alpha: int = 32
    """Scale: an adapter's output is multiplied by alpha / rank, or by alpha / sqrt(rank) with use_rslora."""
    dropout: float = 0.0
    """Share of an adapter's inputs that is dropped while training."""
    use_rslora: bool = False
    """Scale by sqrt(rank), so that high ranks keep learning (Kalajdzievski, 2023, arXiv 2312.03732)."""
    use_dora: bool = False
    """Train the size of each weight column apart from its direction (Liu et al., 2024, arXiv 2402.09353)."""
    init: LoraInit = "default"
    """How adapters begin. pissa and olora begin with the weights' main directions and move the frozen weights."""
    target_modules: tuple[str, ...] | None = None
    """Last parts of the names of linear layers, such as query value. None: all of the encoder's layers."""
    top_layers: int | None = None
    """Adapt only so many of the encoder's last layers: what is below is computed once. None: all layers."""

    def __post_init__(self) -> None:
        refuse_other_choices(self)
        if self.rank < 1:
            raise ConfigError(f"LoraConfig.rank must be at least 1, got {self.rank}.")
        if self.init == "orthogonal" and self.rank % 2:
            raise ConfigError(f"LoraConfig.rank must be even with init 'orthogonal', got {self.rank}.")
        if self.alpha < 1:
            raise ConfigError(f"LoraConfig.alpha must be at least 1, got {self.alpha}.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"LoraConfig.dropout must be from 0 to below 1, got {self.dropout}.")
        if self.top_layers is not None and self.top_layers < 1:
            raise ConfigError(f"LoraConfig.top_layers must be at least 1, got {self.top_layers}.")
        if isinstance(self.target_modules, str):
            raise ConfigError(
                f"LoraConfig.target_modules is a tuple of names, such as ({self.target_modules!r},), got "
                f"{self.target_modules!r}. Leave it out for all linear layers of the encoder."
            )
        if self.target_modules == ():
            raise ConfigError("LoraConfig.target_modules must name at least one linear layer, got none.")
