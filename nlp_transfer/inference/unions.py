"""Several members of a bank that answer as one, under the labels of all: each text is put to every one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nlp_transfer.errors import ConfigError
from nlp_transfer.merging import settings_in_common, united_task
from nlp_transfer.output_rows import united_rows
from nlp_transfer.saved_models import AnyTask
from nlp_transfer.tasks.base import Probabilities


@dataclass(frozen=True)
class Union:
    """Names of members, and the task that they do together."""

    parts: tuple[str, ...]
    task: AnyTask


def make_union(name: str, parts: Sequence[str], tasks: Mapping[str, AnyTask]) -> Union:
    """Raises ConfigError for members that differ in more than their labels."""
    found = [tasks[part] for part in parts]
    for part, task in zip(parts, found, strict=True):
        same = settings_in_common(task.settings()) == settings_in_common(found[0].settings())
        if not same or task.max_tokens != found[0].max_tokens:
            raise ConfigError(
                f"'{part}' has another task or another limit than '{parts[0]}', so they cannot be united as '{name}'."
            )
    return Union(tuple(parts), united_task(found, [1.0] * len(found)))


def united(parts: Sequence[Probabilities], tasks: Sequence[AnyTask], task: AnyTask) -> Probabilities:
    """What the members say of one text, each of shape ``(positions, labels)``, under the labels of ``task``.

    Among the labels of one member all is as it says; of a text in windows, on average over them. Labels of a softmax
    are held against each other as ``united_rows`` does; where the members have none in common, each has the same share.
    """
    if not task.token_labels:
        parts = [part.mean(axis=0, keepdims=True) for part in parts]
    shares, label_sets = [1.0] * len(parts), [one.labels for one in tasks]
    if getattr(task, "multi_label", False):
        rows = [torch.from_numpy(part.T.copy()) for part in parts]
        return united_rows(rows, label_sets, task.labels, shares, level=False).numpy().T
    rows = [torch.from_numpy(np.log(np.maximum(part.T, np.finfo(np.float32).tiny))) for part in parts]
    found: Probabilities = united_rows(rows, label_sets, task.labels, shares, level=True).softmax(dim=0).numpy().T
    return found
