"""Adapters folded into the weights of their base: of one, or of several by their mean, under the labels of all.

The result is a model folder of whole weights, which plain transformers reads too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import peft
import torch
from torch import Tensor

from nlp_transfer.artifacts import Tried, refuse_existing, save_tried
from nlp_transfer.checkpoints import Model, load_model as load_checkpoint, quiet_transformers
from nlp_transfer.data.examples import Source, TaggedExample, TextExample
from nlp_transfer.durable import as_path
from nlp_transfer.errors import ArtifactError, ConfigError, counted, quoted
from nlp_transfer.labels import LabelSet
from nlp_transfer.manifest import Manifest, read_manifest
from nlp_transfer.mixing import MergeMethod, Weights, combiner, mean
from nlp_transfer.output_rows import output_names, united_rows
from nlp_transfer.reporting.progress import progress_bar, say
from nlp_transfer.saved_models import AnyTask, base_name, load_model, logits, model_folder
from nlp_transfer.tasks.base import Probabilities
from nlp_transfer.tasks.config import THRESHOLD
from nlp_transfer.tasks.ner import Ner, Tagging
from nlp_transfer.training.evaluate import predict_split
from nlp_transfer.training.processes import processes

FOLD_TOLERANCE = 1e-3
"""By how much logits may differ for adding the low-rank products to the weights beforehand: rounding."""


def merge(
    folders: Sequence[str | Path],
    output: str | Path,
    *,
    method: MergeMethod = "average",
    weights: Sequence[float] | None = None,
    density: float = 0.5,
    seed: int = 0,
    union_head: bool = False,
    min_agreement: float = 1.0,
    checkpoint: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the merged model to ``output``; one adapter's answers to its samples are compared on the way.

    average: the weighted mean of the weights, heads included. ties (Yadav et al., 2023, arXiv 2306.01708): of each
    change to the base the ``density`` largest share, of those the ones that go the way most go. dare (Yu et al., 2023,
    arXiv 2311.03099): of each change a random share of ``density``, enlarged to make up for the rest. Heads, which have
    no base, are averaged. ``weights`` are 1 / number of folders unless given.

    ``union_head``: labels may differ, and the result has those of all; see ``united_rows``. Where the encoders are the
    same, as they are of adapters of kind "head", each model's answers among its own labels are kept. Where they are
    not, the share of its samples that it still answers so must be at least ``min_agreement``.

    Raises ConfigError for settings that do not fit, ArtifactError for models of other labels, tasks or bases.
    """
    paths, output = [as_path(folder) for folder in folders], as_path(output)
    refuse_existing(output, overwrite=overwrite)
    shares = checked_shares(paths, method, weights, density, min_agreement)
    manifests = [read_manifest(model_folder(path)) for path in paths]
    refuse_strangers(paths, manifests, union_head=union_head)
    found = [load_model(path, checkpoint=checkpoint) for path in paths]
    wholes = [folded(model) for model, _ in found]
    first, task = found[0]
    if len(paths) == 1:
        examples = examples_of(manifests[0])
        refuse_other_answers(first, wholes[0], task, examples, paths[0])
        return save_tried(wholes[0], task, Tried(manifests[0].scores, manifests[0].samples, examples), output)
    task = united_task([task for _, task in found], shares) if union_head else task
    base = load_checkpoint(checkpoint or base_name(manifests[0].checkpoint), task.labels, task.head)
    parents = [(whole, task) for whole, (_, task) in zip(wholes, found, strict=True)]
    fill(base, task, parents, shares, combiner(method, shares, density, seed))
    examples = [examples_of(manifest) for manifest in manifests]
    if union_head:
        for parent, own, path in zip(parents, examples, paths, strict=True):
            refuse_other_choices(parent, (base, task), own, min_agreement, path)
    return save_tried(base, task, Tried({}, [], examples[0]), output)


def checked_shares(
    folders: Sequence[Path],
    method: MergeMethod,
    weights: Sequence[float] | None,
    density: float,
    min_agreement: float,
) -> list[float]:
    if not folders:
        raise ConfigError("merge needs at least one model folder, got none.")
    if method not in get_args(MergeMethod):
        raise ConfigError(f"method must be one of {quoted(get_args(MergeMethod))}, got '{method}'.")
    if len(folders) == 1 and method != "average":
        raise ConfigError(f"method '{method}' puts several models together, and one folder was named.")
    if not 0 < density <= 1:
        raise ConfigError(f"density must be above 0 and at most 1, got {density}.")
    if not 0 <= min_agreement <= 1:
        raise ConfigError(f"min_agreement must be from 0 to 1, got {min_agreement}.")
    shares = list(weights) if weights is not None else [1 / len(folders)] * len(folders)
    if len(shares) != len(folders):
        raise ConfigError(f"weights must be as many as the {len(folders)} folders, got {len(shares)}.")
    if not all(share >= 0 for share in shares) or not abs(sum(shares) - 1) <= 1e-6:
        raise ConfigError(f"weights must not be negative and add up to 1, got {', '.join(map(str, shares))}.")
    return shares


def refuse_strangers(folders: Sequence[Path], manifests: Sequence[Manifest], *, union_head: bool) -> None:
    """Raises ArtifactError where there is nothing to fold, or where models do not speak of the same."""
    first = manifests[0]
    compared = settings_in_common if union_head else dict
    for folder, manifest in zip(folders, manifests, strict=True):
        if manifest.adapter in ("none", "onnx"):
            raise ArtifactError(f"{folder} holds whole weights already. Merge adapters.")
        if compared(manifest.task) != compared(first.task) or manifest.max_tokens != first.max_tokens:
            what = "another task" if union_head else "another task, other labels (see --union-head)"
            raise ArtifactError(
                f"{folder} has {what} or another limit than {folders[0]}. Models that differ in these share a base in "
                "nt.AdapterBank."
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


def settings_in_common(task: Mapping[str, Any]) -> dict[str, Any]:
    """What models must agree in to be put together under the labels of all."""
    return {name: value for name, value in task.items() if name not in {"labels", "thresholds"}}


def united_task(tasks: Sequence[AnyTask], shares: Sequence[float]) -> AnyTask:
    """The labels of all, in the order in which they come; thresholds of a label that several have are averaged."""
    if isinstance(tasks[0], Ner):
        return replace(tasks[0], labels=LabelSet.for_tags(name for task in tasks for name in task.classes))
    union = LabelSet(tuple(dict.fromkeys(name for task in tasks for name in task.labels.names)))
    if not tasks[0].multi_label:
        return replace(tasks[0], labels=union)
    stated = [thresholds_of(task) for task in tasks]
    thresholds = united_rows(stated, [task.labels for task in tasks], union, shares, level=False)
    return replace(tasks[0], labels=union, thresholds=tuple(thresholds.tolist()))


def fill(
    base: Model,
    task: AnyTask,
    parents: Sequence[tuple[Model, AnyTask]],
    shares: Sequence[float],
    combine: Callable[[Tensor, Sequence[Weights], str], Tensor],
) -> None:
    """Put what comes of the parents' weights into the network of ``base``, which has a head for ``task``."""
    start, outputs = base.network.state_dict(), output_names(base.network.config, task.head)
    states, label_sets = [model.network.state_dict() for model, _ in parents], [one.labels for _, one in parents]
    level = any(labels != task.labels for labels in label_sets) and not getattr(task, "multi_label", False)
    mixed = {}
    for name in start:
        if name in outputs:
            mixed[name] = united_rows([state[name] for state in states], label_sets, task.labels, shares, level=level)
        else:
            mixed[name] = mean(states, name, shares) if in_head(name, base) else combine(start[name], states, name)
    base.network.load_state_dict(mixed)


def refuse_other_choices(
    parent: tuple[Model, AnyTask],
    union: tuple[Model, AnyTask],
    examples: Sequence[Any],
    least: float,
    folder: Path,
) -> None:
    """Raises ArtifactError where too few examples get the labels that the parent gives, among its labels."""
    if least and not examples:
        raise ArtifactError(f"{folder} holds no samples to compare. Pass --min-agreement 0 to go without.")
    task = parent[1]
    columns = [union[1].labels.id(name) for name in task.labels.names]
    among = [rows[:, columns] for rows in probabilities(*union, examples)]
    own = list(map(choice, task.predictions(probabilities(*parent, examples))))
    found = list(map(choice, restricted(union[1], task).predictions(among)))
    same = sum(a == b for a, b in zip(own, found, strict=True))
    say(f"{folder}: {same} of its {counted(len(examples), 'sample')} get the same labels, among its own.")
    if same < least * len(examples):
        raise ArtifactError(
            f"{folder}: under the labels of all, {same} of its {counted(len(examples), 'sample')} get the same labels, "
            f"fewer than --min-agreement {least:g} (min_agreement). Adapters whose encoders differ keep their answers "
            "in nt.AdapterBank; nothing was saved."
        )


def probabilities(model: Model, task: AnyTask, examples: Sequence[Any]) -> list[Probabilities]:
    split = task.encode(examples, model)
    model.network.to(processes().device)
    with progress_bar("comparing", len(split)) as bar:
        return predict_split(model.network, task, split, len(examples), bar, together=False)


def restricted(union: AnyTask, task: AnyTask) -> AnyTask:
    """The task of a parent, with the union's thresholds."""
    if isinstance(task, Ner) or not task.multi_label:
        return task
    stated = thresholds_of(union)
    return replace(task, thresholds=tuple(float(stated[union.labels.id(name)]) for name in task.labels.names))


def choice(prediction: Any) -> Any:
    return prediction.tags if isinstance(prediction, Tagging) else set(prediction.labels)


def thresholds_of(task: AnyTask) -> Tensor:
    return torch.tensor(getattr(task, "thresholds", None) or (THRESHOLD,) * len(task.labels))
