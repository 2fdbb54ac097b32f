"""The encoder that the adapters of a bank share, and what a model folder adds to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from nlp_transfer.checkpoints import HeadKind, Model, encoder_of, load_model as load_checkpoint, skeleton
from nlp_transfer.errors import ArtifactError
from nlp_transfer.fingerprints import hash_tensors
from nlp_transfer.inference.bank_layers import LowRank, learn_row_dims, replace_linears
from nlp_transfer.inference.heads import make_head, refuse_unshareable
from nlp_transfer.inspection import DOWN, PREFIX, UP, lora_scale, read_shapes, refuse_not_finite, refuse_other_labels
from nlp_transfer.manifest import ADAPTER_FILES, Manifest, read_manifest
from nlp_transfer.saved_models import AnyTask, base_name, check_base, inspected_config, make_task
from nlp_transfer.training.processes import processes


@dataclass(frozen=True)
class Part:
    """An adapter, ready to be put beside others."""

    layers: dict[str, LowRank]
    task: AnyTask
    model: Model


class Base:
    """One encoder in memory, under the heads of both kinds of task."""

    def __init__(self) -> None:
        self._kinds: dict[HeadKind, Model] = {}
        self._sha256 = ""
        self.encoder: nn.Module = nn.Identity()
        self.mixes = True
        """Whether one pass can hold rows of several adapters."""

    def read(self, folder: Path, checkpoint: str | None) -> Part:
        """Raises ArtifactError for what ``nt.load`` refuses, for another base, and for what cannot share one."""
        manifest = read_manifest(folder)
        if manifest.adapter in ("none", "onnx"):
            raise ArtifactError(f"{folder} holds whole weights, which share no base. Use nt.load.")
        task = make_task(manifest)
        refuse_other_labels(read_shapes(folder / ADAPTER_FILES[1]), len(task.labels), folder)
        base = self._model(task, manifest, folder, checkpoint)
        task.token_limit(base)
        network = skeleton(base.network.config, task.labels, task.head)
        config = inspected_config(replace(base, network=network), folder)
        if config.get("use_dora"):
            raise ArtifactError(f"{folder} uses DoRA, which changes the base's weights. Use nt.load, or merge it.")
        tensors = {name.removeprefix(PREFIX): t for name, t in load_file(folder / ADAPTER_FILES[1]).items()}
        refuse_not_finite(tensors, folder / ADAPTER_FILES[1])
        layers = low_rank(config, tensors)
        head = make_head(network, {name: t for name, t in tensors.items() if ".lora_" not in name})
        head.to(processes().device)
        with torch.random.fork_rng(devices=[]):
            refuse_unshareable(head, base.tokenizer.padding_side, folder)
        model = replace(base, network=head, adapter=manifest.adapter)
        return Part(layers, task, model)

    def _model(self, task: AnyTask, manifest: Manifest, folder: Path, checkpoint: str | None) -> Model:
        """The base as a network of this kind, without weights: those of the encoder are held once for both kinds."""
        if task.head not in self._kinds:
            found = load_checkpoint(checkpoint or base_name(manifest.checkpoint), task.labels, task.head)
            check_base(manifest.checkpoint, found.origin, folder)
            self._share(found, folder)
            bare = skeleton(found.network.config, task.labels, task.head)
            self._kinds[task.head] = replace(found, network=bare)
        else:
            check_base(manifest.checkpoint, self._kinds[task.head].origin, folder)
        return self._kinds[task.head]

    def _share(self, found: Model, folder: Path) -> None:
        encoder = encoder_of(found.network)
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # type: ignore[assignment] # it belongs to the heads
        sha256 = hash_tensors(encoder.state_dict())
        if not self._kinds:
            self._take(found.network, encoder)
            self._sha256 = sha256
        elif sha256 != self._sha256:
            raise ArtifactError(f"{folder} was trained on '{found.origin.name}', and this bank has another base.")

    def _take(self, network: PreTrainedModel, encoder: nn.Module) -> None:
        replace_linears(encoder, network.base_model_prefix)
        for parameter in encoder.parameters():
            parameter.requires_grad_(False)
        self.encoder = encoder.to(processes().device).eval()
        self.mixes = learn_row_dims(self.encoder, pad=network.config.pad_token_id or 0)


def low_rank(config: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, LowRank]:
    """By layer; the scale is part of the second factor."""
    scale = lora_scale(config)
    targets = [name.removesuffix(DOWN) for name in tensors if name.endswith(DOWN)]
    device = processes().device
    return {
        target: (
            tensors[target + DOWN].float().T.contiguous().to(device),
            (tensors[target + UP].float().T * scale).contiguous().to(device),
        )
        for target in targets
    }
