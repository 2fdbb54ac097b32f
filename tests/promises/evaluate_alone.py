"""Score the first n rows of a corpus for many n, in as many processes as are launched together.

``accelerate launch evaluate_alone.py CHECKPOINT CORPUS MOST FOLDER``: each process writes what it got.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nlp_transfer as nt
from nlp_transfer.data.store import ExampleStore
from nlp_transfer.training.processes import processes


def scores(checkpoint: str, corpus: str, most: int) -> list[Any]:
    """Metrics and all probabilities, exactly, for n = 1 … ``most``."""
    examples = list(nt.read_text_classification(nt.TextData(train=corpus)).train)[:most]
    task = nt.TextClassification(labels=nt.LabelSet(("blame", "praise")))
    model = nt.load_sequence_classifier(checkpoint, task.labels)
    found = []
    for n in range(1, most + 1):
        evaluation = nt.evaluate(model, task, "test", ExampleStore.of(examples[:n]))
        found.append([evaluation.metrics, [list(p.probabilities.values()) for p in evaluation.predictions]])
    return found


if __name__ == "__main__":
    checkpoint, corpus, most, folder = sys.argv[1:]
    group = processes()
    result = {"processes": group.num_processes, "scores": scores(checkpoint, corpus, int(most))}
    Path(folder, f"{group.process_index}.json").write_text(json.dumps(result))
