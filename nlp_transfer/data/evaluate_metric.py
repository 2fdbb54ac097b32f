"""Entity F1 as a metric of the `evaluate` library.

A subclass in our own code, because ``evaluate.load`` fetches code when it is called and fails offline.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from nlp_transfer.labels import split_tag
from nlp_transfer.metrics import Metrics, score_entities


class EntityF1(evaluate.Metric):  # type: ignore[misc]  # evaluate is not typed
    """``compute(predictions=..., references=...)`` over lists of IOB2 tags gives ``score_entities``' metrics."""

    def _info(self) -> Any:
        tags = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description="Exact-match entity scores over sentences of IOB2 tags.",
            citation="",
            features=datasets.Features({"predictions": tags, "references": tags}),
        )

    def _compute(self, predictions: list[list[str]], references: list[list[str]]) -> Metrics:
        types = {split_tag(tag)[1] for sentences in (predictions, references) for tags in sentences for tag in tags}
        return score_entities(predictions, references, sorted(types - {""})).metrics
