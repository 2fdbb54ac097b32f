"""Adapters folded into the weights of their base: of one, or of several of the same task by their mean.

The result is a model folder of whole weights, which plain transformers reads too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import peft
import torch
from torch import Tensor

from nlp_transfer.artifacts import Tried, refuse_existing, save_tried
from nlp_transfer.checkpoints import Model, load_model as load_checkpoint, quiet_transformers
from nlp_transfer.data.examples import Source, TaggedExample, TextExample
from nlp_transfer.errors import ArtifactError, ConfigError, quoted
from nlp_transfer.manifest import Manifest, read_manifest
from nlp_transfer.saved_models import AnyTask, base_name, load_model, logits, model_folder

MergeMethod = Literal["average", "ties", "dare"]
FOLD_TOLERANCE = 1e-3
"""By how much logits may differ for adding the low-rank products to the weights beforehand: rounding."""
Weights = Mapping[str, Tensor]


def merge(
    folders: Sequence[Path],
    output: Path,
    *,
    method: MergeMethod = "average",
    weights: Sequence[float] | None = None,
    density: float = 0.5,
    seed: int = 0,
    checkpoint: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the merged model to ``output``; its answers to the samples of the first folder are compared on the way.

    average: the weighted mean of the weights, heads included. ties (Yadav et al., 2023, arXiv 2306.01708): of each
    change to the base the ``density`` largest share, of those the ones that go the way most go. dare (Yu et al., 2023,
    arXiv 2311.03099): of each change a random share of ``density``, enlarged to make up for the rest. Heads, which have
    no base, are averaged. ``weights`` are 1 / number of folders unless given.

    Raises ConfigError for settings that do not fit, ArtifactError for models of other labels, tasks or bases.
    """
    refuse_existing(output, overwrite=overwrite)
    shares = checked_shares(folders, method, weights, density)
    manifests = [read_manifest(model_folder(folder)) for folder in folders]
    refuse_strangers(folders, manifests)
    found = [load_model(folder, checkpoint=checkpoint) for folder in folders]
    wholes = [folded(model) for model, _ in found]
    first, task = found[0]
    examples = examples_of(manifests[0])
    if len(folders) == 1:
        refuse_other_answers(first, wholes[0], task, examples, folders[0])
        return save_tried(wholes[0], task, Tried(manifests[0].scores, manifests[0].samples, examples), output)
    base = load_checkpoint(checkpoint or base_name(manifests[0].checkpoint), task.labels, task.head).network
    states, start = [whole.network.state_dict() for whole in wholes], base.state_dict()
    combine = combiner(method, shares, density, seed)
    merged = {
        name: mean(states, name, shares) if in_head(name, first) else combine(start[name], states, name)
        for name in states[0]
    }
    wholes[0].network.load_state_dict(merged)
    return save_tried(wholes[0], task, Tried({}, [], examples), output)


def checked_shares(
    folders: Sequence[Path], method: MergeMethod, weights: Sequence[float] | None, density: float
) -> list[float]:
    if not folders:
        raise ConfigError("merge needs at least one model folder, got none.")
    if method not in get_args(MergeMethod):
        raise ConfigError(f"method must be one of {quoted(get_args(MergeMethod))}, got '{method}'.")
    if not 0 < density <= 1:
        raise ConfigError(f"density must be above 0 and at most 1, got {density}.")
    shares = list(weights) if weights is not None else [1 / len(folders)] * len(folders)
    if len(shares) != len(folders):
        raise ConfigError(f"weights must be as many as the {len(folders)} folders, got {len(shares)}.")
    if not all(share >= 0 for share in shares) or not abs(sum(shares) - 1) <= 1e-6:
        raise ConfigError(f"weights must not be negative and add up to 1, got {', '.join(map(str, shares))}.")
    return shares


def refuse_strangers(folders: Sequence[Path], manifests: Sequence[Manifest]) -> None:
    """Raises ArtifactError where there is nothing to fold, or where models do not speak of the same."""
    first = manifests[0]
    for folder, manifest in zip(folders, manifests, strict=True):
        if manifest.adapter in ("none", "onnx"):
            raise ArtifactError(f"{folder} holds whole weights already. Merge adapters.")
        if manifest.task != first.task or manifest.max_tokens != first.max_tokens:
            raise ArtifactError(
                f"{folder} has another task, other labels or another limit than {folders[0]}. Models that differ in "
                "these share a base in nt.AdapterBank."
            )
        if manifest.checkpoint.encoder_sha256 != first.checkpoint.encoder_sha256:
            raise ArtifactError(f"{folder} was trained on another base than {folders[0]}.")


def folded(model: Model) -> Model:
    """The same model with its adapter added to the weights."""
    network = cast(peft.PeftModel, deepcopy(model.network))
    with quiet_transformers():
        whole: Any = network.merge_and_unload(safe_merge=True)
    return replace(model, network=whole.eval(), adapter="none", moved_by=None)


def refuse_other_answers(model: Model, whole: Model, task: AnyTask, examples: Sequence[Any], folder: Path) -> None:
    pairs = zip(logits(model, task, examples), logits(whole, task, examples), strict=True)
    worst = max((float((a - b).abs().max()) for a, b in pairs), default=0.0)
    if not worst <= FOLD_TOLERANCE:
        raise ArtifactError(
            f"{folder}: merged, it answers differently (logits differ by up to {worst:.3g}, allowed is "
            f"{FOLD_TOLERANCE:g}); nothing was saved."
        )


def examples_of(manifest: Manifest) -> list[Any]:
    """The samples as examples without labels."""
    source = Source("sample", 1)
    if manifest.task["name"] == "ner":
        return [TaggedExample(tuple(sample["words"]), (), source) for sample in manifest.samples]
    return [TextExample(sample["text"], (), source, sample.get("text_pair")) for sample in manifest.samples]


def in_head(name: str, model: Model) -> bool:
    return any(name.startswith(f"{module}.") for module in model.head_modules)


def mean(states: Sequence[Weights], name: str, shares: Sequence[float]) -> Tensor:
    """With shares of 1 and 0 one of them, bit for bit."""
    if not states[0][name].is_floating_point():
        return states[0][name]
    return sum((share * state[name] for share, state in zip(shares, states, strict=True)), torch.zeros(()))


def combiner(
    method: MergeMethod, shares: Sequence[float], density: float, seed: int
) -> Callable[[Tensor, Sequence[Weights], str], Tensor]:
    """What makes one weight of the encoder from the base's and those of each model."""
    drawn = torch.Generator().manual_seed(seed)

    def combine(base: Tensor, states: Sequence[Weights], name: str) -> Tensor:
        if method == "average" or not base.is_floating_point():
            return mean(states, name, shares)
        changes = [state[name] - base for state in states]
        if method == "dare":
            kept = [torch.bernoulli(torch.full_like(change, density), generator=drawn) for change in changes]
            parts = [share * keep * change / density for share, keep, change in zip(shares, kept, changes, strict=True)]
            return base + sum(parts, torch.zeros(()))
        return base + ties([largest(change, density) for change in changes], shares)

    return combine


def largest(change: Tensor, density: float) -> Tensor:
    """The share of ``density`` that is farthest from 0; the rest is 0."""
    number = max(1, round(density * change.numel()))
    least = change.abs().flatten().kthvalue(change.numel() - number + 1).values
    return torch.where(change.abs() >= least, change, torch.zeros(()))


def ties(changes: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The weighted mean of those that have the sign of the weighted sum, place by place."""
    weighted = torch.stack([share * change for share, change in zip(shares, changes, strict=True)])
    agrees = (weighted.sign() == weighted.sum(0).sign()) & (weighted != 0)
    share = torch.tensor(shares).view(-1, *[1] * (weighted.dim() - 1))
    total = (agrees * share).sum(0)
    return torch.where(total > 0, (weighted * agrees).sum(0) / total.clamp_min(1e-12), torch.zeros(()))
