"""Checkpoints that are damaged, incomplete, or without a limit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import sentencepiece
import torch
import transformers as hf

import nlp_transfer as nt
from tests.adapters_at_random import make_adapter
from tests.conftest import SIZE, TEXTS

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


def test_random_numbers_of_the_program_stay_as_they_are(checkpoint, tmp_path, monkeypatch):
    """Those of GPUs, too: torch.manual_seed sets all of them."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: pytest.fail("GPUs were seeded"))
    before = torch.get_rng_state()
    folder = make_adapter(checkpoint, tmp_path / "one", 1)
    nt.load(folder)
    nt.AdapterBank.load({"one": folder})
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_without_a_limit_reads_as_much_as_the_default(make_checkpoint, tmp_path):
    """XLNet's config states -1 positions, and its tokenizer no limit."""
    folder: Path = shutil.copytree(make_checkpoint("xlnet"), tmp_path / "free")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["model_max_length"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    model = nt.load_sequence_classifier(str(folder), LABELS)
    assert nt.TextClassification(labels=LABELS).token_limit(model) == 512


DAMAGES = {
    "config.json": [{"hidden_size": "abc"}, {"num_attention_heads": 0}, {"model_type": "unheard_of"}, []],
    "tokenizer.json": [[], {"version": "1.0"}],
}


@pytest.mark.parametrize(
    ("file", "change"), [(file, change) for file, changes in DAMAGES.items() for change in changes], ids=str
)
def test_a_damaged_checkpoint_is_one_error(checkpoint, tmp_path, file, change):
    folder = shutil.copytree(checkpoint, tmp_path / "damaged")
    whole = json.loads((folder / file).read_text())
    changed = whole | change if file == "config.json" and isinstance(change, dict) else change
    (folder / file).write_text(json.dumps(changed))
    with pytest.raises(nt.CheckpointError):
        nt.load_sequence_classifier(str(folder), LABELS)


def test_a_folder_of_another_kind_is_told_apart(checkpoint, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    shutil.copy(Path(checkpoint) / "config.json", pickled)
    (pickled / "pytorch_model.bin").write_bytes(b"")
    for folder, words in [(adapter, "is an adapter, not a checkpoint"), (pickled, "the only format read here")]:
        with pytest.raises(nt.CheckpointError, match=words):
            nt.load_sequence_classifier(str(folder), LABELS)


def test_a_head_that_the_checkpoint_brings_is_kept_and_known(checkpoint, tmp_path):
    first = nt.load_sequence_classifier(checkpoint, LABELS)
    assert not first.brings_head
    first.network.save_pretrained(tmp_path)
    first.tokenizer.save_pretrained(tmp_path)
    again = nt.load_sequence_classifier(str(tmp_path), LABELS, seed=1)
    assert again.brings_head
    assert torch.equal(again.network.classifier.weight, first.network.classifier.weight)
    assert not nt.load_sequence_classifier(str(tmp_path), nt.LabelSet(("a", "b", "c"))).brings_head


def test_a_pooler_that_a_token_head_does_not_use_is_not_trained(tmp_path, checkpoint):
    """It would have no gradient, and several processes would wait for it."""
    config = hf.BigBirdConfig(vocab_size=400, attention_type="original_full", max_position_embeddings=64, **SIZE)
    hf.BigBirdModel(config).save_pretrained(tmp_path)
    for file in Path(checkpoint).glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    assert nt.load_token_classifier(str(tmp_path), LABELS).head_modules == ("classifier",)


def test_a_tokenizer_that_is_a_sentencepiece_model_alone_can_be_read(make_checkpoint, tmp_path):
    """As DeBERTa-v3 has it on the Hub."""
    folder = shutil.copytree(make_checkpoint("deberta-v2"), tmp_path / "spm")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    specials = {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3, "pad_piece": "[PAD]", "unk_piece": "[UNK]"}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_prefix=str(folder / "spm"),
        vocab_size=60,
        user_defined_symbols=["[CLS]", "[SEP]", "[MASK]"],
        minloglevel=2,
        **specials,
    )
    model = nt.load_token_classifier(str(folder), LABELS)
    assert model.tokenizer("Ada left Paris")["input_ids"][1:-1]
