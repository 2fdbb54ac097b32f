"""What the Hub refuses in the metadata of a card, as far as its documentation says; the lists are cut short."""

from __future__ import annotations

import re
from typing import Any

LICENCES = {"apache-2.0", "mit", "openrail", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "gpl-3.0", "other"}
TASKS = {"text-classification", "token-classification", "feature-extraction", "fill-mask"}
RELATIONS = {"adapter", "finetune", "merge", "quantized"}
NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
WORDS = {
    "library_name": str,
    "model_name": str,
    "language": (str, list),
    "tags": list,
    "datasets": list,
    "metrics": list,
}


def problems(metadata: Any) -> list[str]:
    """One line each, as the Hub words them."""
    if not isinstance(metadata, dict):
        return ['"metadata" must be of type object']
    found = [f'"{name}" must be of type {kind}' for name, kind in WORDS.items() if not has(metadata, name, kind)]
    for name, allowed in (("license", LICENCES), ("pipeline_tag", TASKS), ("base_model_relation", RELATIONS)):
        if name in metadata and metadata[name] not in allowed:
            found.append(f'"{name}" must be one of [{", ".join(sorted(allowed))}]')
    bases = metadata.get("base_model", [])
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str) or not NAME.fullmatch(base):
            found.append(f'"base_model" with value "{base}" is not valid. Use a model id from https://hf.co/models.')
    return found + [line for entry in as_list(metadata.get("model-index", [])) for line in problems_of_entry(entry)]


def has(metadata: dict[str, Any], name: str, kind: Any) -> bool:
    """Or lacks it, which is allowed."""
    return name not in metadata or isinstance(metadata[name], kind)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def problems_of_entry(entry: Any) -> list[str]:
    """Of a model with its scores: every result has a task, a data set, and metrics with their values."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        return ['"model-index[0].name" is required']
    needed = {"task": ("type",), "dataset": ("type", "name")}
    found = []
    for result in as_list(entry.get("results")):
        for part, fields in needed.items():
            found += [
                f'"model-index[0].results[0].{part}.{field}" is required'
                for field in fields
                if not isinstance(result.get(part, {}).get(field), str)
            ]
        for metric in as_list(result.get("metrics")):
            if not isinstance(metric.get("type"), str) or not isinstance(metric.get("value"), int | float | str):
                found.append('"model-index[0].results[0].metrics[0]" needs a type and a value')
    return found
