"""What a model of others is trained to do: names of labels, and the task; what is not recorded is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlp_transfer.checkpoints import HeadKind
from nlp_transfer.data.cells import refuse_surrogates
from nlp_transfer.errors import ArtifactError, ConfigError, counted, quoted
from nlp_transfer.labels import LabelSet, split_tag
from nlp_transfer.reporting.progress import say
from nlp_transfer.saved_models import AnyTask
from nlp_transfer.tasks.config import THRESHOLD
from nlp_transfer.tasks.ner import Ner
from nlp_transfer.tasks.text_classification import TextClassification


@dataclass(frozen=True)
class Told:
    """What the user says of the model."""

    labels: tuple[str, ...] | None
    multi_label: bool
    text_pair: bool


def known_names(config: Mapping[str, Any], number: int, told: Told, path: Path) -> LabelSet:
    """The names of the labels in the order of the head's rows, of which there are ``number``.

    Raises ConfigError where the user names more or fewer, ArtifactError where the config does.
    """
    raw = config.get("id2label")
    pairs = (
        sorted((int(i), str(name)) for i, name in raw.items()) if isinstance(raw, dict) and all(map(is_id, raw)) else []
    )
    stated = tuple(name for _, name in pairs)
    if told.labels is not None and not len(told.labels) == len(set(told.labels)) == number:
        raise ConfigError(f"labels must be {number} different names, got {len(told.labels)}: {quoted(told.labels)}.")
    if stated and len(stated) != number and told.labels is None:
        raise ArtifactError(f"{path} names {counted(len(stated), 'label')}, and the head has {number}. Pass --labels.")
    unnamed = tuple(f"LABEL_{i}" for i in range(number))
    names = told.labels or stated or unnamed
    if names == unnamed:
        say(f"Not recorded: the names of the {counted(number, 'label')}. They are LABEL_0 and so on; see --labels.")
    if len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise ArtifactError(f"{path}: two labels have the same name, or one has none: {quoted(names)}. Pass --labels.")
    for name in names:
        refuse_surrogates(name, f"{path}: a label")
    return LabelSet(names)


def is_id(text: Any) -> bool:
    return isinstance(text, str) and text.isascii() and text.isdigit()


def make_task(head: HeadKind, names: LabelSet, problem_type: Any, told: Told, path: Path) -> tuple[AnyTask, list[int]]:
    """The task, and which row of the head belongs to each of its labels."""
    if head == "token":
        if told.multi_label or told.text_pair:
            raise ConfigError("multi_label and text_pair belong to text classification, and this model tags words.")
        labels = LabelSet.for_tags(split_tag(name)[1] for name in names.names if name != "O")
        if set(labels.names) != set(names.names):
            raise ArtifactError(
                f"{path}: tags must be O, and B-X and I-X of each entity type, got {quoted(names.names)}. See --labels."
            )
        say("Taken to be usual: tags are IOB2, and the tag of a word stands at its first token.")
        return Ner(labels=labels), [names.id(name) for name in labels.names]
    if problem_type == "regression" or len(names) < (1 if told.multi_label else 2):
        raise ArtifactError(f"{path}: a regression, or a model of one output, is not read here.")
    multi_label = told.multi_label or problem_type == "multi_label_classification"
    if multi_label:
        say(f"Not recorded: thresholds. Taken to be usual: {THRESHOLD} for each label.")
    elif problem_type is None:
        say("Taken to be usual: one label a text (else pass --multi-label).")
    if not told.text_pair:
        say("Taken to be usual: it reads single texts (else pass --text-pair).")
    thresholds = (THRESHOLD,) * len(names) if multi_label else None
    task = TextClassification(labels=names, multi_label=multi_label, text_pair=told.text_pair, thresholds=thresholds)
    return task, list(range(len(names)))
