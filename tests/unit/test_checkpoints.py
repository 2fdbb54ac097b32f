"""Checkpoints that are damaged, incomplete, or without a limit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import nlp_transfer as nt

LABELS = nt.LabelSet(("a", "b"))


@pytest.mark.parametrize("size", [0, 500])
def test_cut_weights_are_refused(checkpoint, tmp_path, size):
    folder = shutil.copytree(checkpoint, tmp_path / "cut")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(nt.CheckpointError, match="cannot be read"):
        nt.load_sequence_classifier(str(folder), LABELS)


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "camembert", "deberta-v2", "xlnet", "modernbert"])
def test_a_checkpoint_without_its_tokenizer_is_refused(make_checkpoint, tmp_path, family):
    """transformers makes one that knows no word, and training would go on."""
    folder = shutil.copytree(make_checkpoint(family), tmp_path / "bare")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(nt.CheckpointError, match="tokenizer"):
        nt.load_sequence_classifier(str(folder), LABELS)


def test_a_network_without_a_limit_reads_as_much_as_the_default(make_checkpoint, tmp_path):
    """XLNet's config states -1 positions, and its tokenizer no limit."""
    folder: Path = shutil.copytree(make_checkpoint("xlnet"), tmp_path / "free")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["model_max_length"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    model = nt.load_sequence_classifier(str(folder), LABELS)
    assert nt.TextClassification(labels=LABELS).token_limit(model) == 512
