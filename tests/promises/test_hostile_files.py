"""Folders of weights from anybody: what is damaged or meant to harm is refused at once, and nothing of it runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import nlp_transfer as nt
from nlp_transfer.fingerprints import hash_files
from tests.adapters_at_random import make_adapter
from tests.promises.test_saved_model import save

WEIGHTS, CONFIG, MANIFEST = "adapter_model.safetensors", "adapter_config.json", "manifest.json"
HEAD = "base_model.model.classifier.weight"
LAYER = "base_model.model.bert.encoder.layer.0.attention.self.query"
MAX_SECONDS, MAX_BYTES = 1.0, 160 * 2**20


class Payload:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def edit_json(name, **changes):
    """Change fields; None removes one."""

    def edit(folder):
        raw = json.loads((folder / name).read_text())
        raw.update(changes)
        (folder / name).write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))

    return edit


def edit_task(**changes):
    def edit(folder):
        raw = json.loads((folder / MANIFEST).read_text())
        raw["task"].update(changes)
        (folder / MANIFEST).write_text(json.dumps(raw))

    return edit


def edit_base(**changes):
    def edit(folder):
        raw = json.loads((folder / MANIFEST).read_text())
        raw["checkpoint"].update(changes)
        (folder / MANIFEST).write_text(json.dumps(raw))

    return edit


def edit_tensors(change, name=WEIGHTS):
    def edit(folder):
        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name, metadata={"format": "pt"})

    return edit


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def header_of(size, content=b"{}"):
    return struct.pack("<Q", size) + content


def remove(name):
    return lambda folder: (folder / name).unlink()


def flip(name):
    def edit(folder):
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return edit


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-10])


def link_outside(name):
    def edit(folder):
        target = folder.parent / f"outside-{name}"
        (folder / name).rename(target)
        (folder / name).symlink_to(target)

    return edit


def fifo(name):
    def edit(folder):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return edit


def pickled(name):
    return lambda folder: (folder / name).write_bytes(pickle.dumps(Payload(folder.parent / "executed")))


def directory(name):
    def edit(folder):
        (folder / name).unlink()
        (folder / name).mkdir()

    return edit


def half(tensors):
    for name in sorted(tensors)[::2]:
        del tensors[name]


def set_value(name, value):
    def change(tensors):
        tensors[name].view(-1)[0] = value

    return change


def added(**more):
    return lambda tensors: tensors.update({name.replace("__", "."): tensor for name, tensor in more.items()})


def reshaped(name, *shape):
    return lambda tensors: tensors.update({name: torch.zeros(shape)})


def typed(name, kind):
    return lambda tensors: tensors.update({name: tensors[name].to(kind)})


def sparse(name, size):
    def edit(folder):
        with (folder / name).open("wb") as file:
            file.truncate(size)

    return edit


def beside(*names):
    """Files of an adapter, which transformers would put on top of whole weights."""

    def edit(folder):
        for name in names:
            shutil.copy(folder.parent / "adapter" / name, folder)

    return edit


def link_in_a_subfolder(folder):
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "x.jinja").symlink_to("/etc/passwd")


BOMB = "(" * 30 + "a+" + ")+" * 30 + "$"
ADAPTERS = {
    "a key of the base": edit_tensors(
        added(base_model__model__bert__embeddings__word_embeddings__weight=torch.zeros(3, 32))
    ),
    "a key of nowhere": edit_tensors(added(more=torch.zeros(2))),
    "no head": edit_tensors(lambda tensors: tensors.pop(HEAD)),
    "half the tensors": edit_tensors(half),
    "not a number": edit_tensors(set_value(HEAD, float("nan"))),
    "infinite": edit_tensors(set_value(f"{LAYER}.lora_A.weight", float("inf"))),
    "another rank than stated": edit_tensors(reshaped(f"{LAYER}.lora_A.weight", 2, 32)),
    "a head for other labels": edit_tensors(reshaped(HEAD, 5, 32)),
    "whole numbers for weights": edit_tensors(typed(HEAD, torch.int64)),
    "tensors of no size": edit_tensors(reshaped(HEAD, 0, 32)),
    "truncated": cut(WEIGHTS),
    "a bit flipped": flip(WEIGHTS),
    "empty": write(WEIGHTS, b""),
    "a header larger than the file": write(WEIGHTS, header_of(10**6)),
    "a header of a hundred terabytes": write(WEIGHTS, header_of(10**14)),
    "a header that is no JSON": write(WEIGHTS, header_of(4, b"\x80\x04K\x01")),
    "offsets beyond the file": write(
        WEIGHTS, header_of(57, b'{"a":{"dtype":"F32","shape":[1000],"data_offsets":[0,4000]}}'[:57])
    ),
    "weights that are a pickle": pickled(WEIGHTS),
    "weights that are missing": remove(WEIGHTS),
    "weights that are a folder": directory(WEIGHTS),
    "weights that lie elsewhere": link_outside(WEIGHTS),
    "weights that are a pipe": fifo(WEIGHTS),
    "a manifest that lies elsewhere": link_outside(MANIFEST),
    "a pipe beside them": fifo("extra.json"),
    "a link to itself": lambda folder: (folder / "extra.json").symlink_to("extra.json"),
    "a manifest that lists code": write("handler.py", b"raise SystemExit"),
    "scores that are no numbers": edit_json(MANIFEST, scores={"test": {"f1": "high"}}),
    "a pickle beside them": pickled("pytorch_model.bin"),
    "a pickle of an optimizer": pickled("optimizer.pt"),
    "code beside them": write("modeling_evil.py", b"raise SystemExit"),
    "a rank of 10^9": edit_json(CONFIG, r=10**9),
    "a rank that is no number": edit_json(CONFIG, r="4"),
    "a negative rank": edit_json(CONFIG, r=-1),
    "a rank of yes": edit_json(CONFIG, r=True),
    "a huge alpha": edit_json(CONFIG, lora_alpha=10**30),
    "an alpha of nothing": edit_json(CONFIG, lora_alpha=0),
    "a dropout of 7": edit_json(CONFIG, lora_dropout=7),
    "a regex bomb for targets": edit_json(CONFIG, target_modules=BOMB),
    "a regex bomb in a list": edit_json(CONFIG, target_modules=[BOMB]),
    "a regex bomb for ranks": edit_json(CONFIG, rank_pattern={BOMB: 8}),
    "a regex bomb for layers": edit_json(CONFIG, layers_pattern=BOMB, layers_to_transform=[0]),
    "targets that are no layers": edit_json(CONFIG, target_modules=["bert.embeddings.word_embeddings"]),
    "targets in the head": edit_json(CONFIG, target_modules=["classifier"]),
    "a head inside the encoder": edit_json(CONFIG, modules_to_save=["bert.encoder"]),
    "no targets": edit_json(CONFIG, target_modules=None),
    "another kind of adapter": edit_json(CONFIG, peft_type="PROMPT_TUNING"),
    "weights that are moved": edit_json(CONFIG, init_lora_weights="pissa"),
    "layers that are repeated": edit_json(CONFIG, layer_replication=[[0, 10**6]]),
    "a module for mappings": edit_json(CONFIG, loftq_config={"loftq_bits": 4}),
    "a layer of number 0": edit_json(CONFIG, layers_to_transform=0),
    "a rank of four hundred digits": edit_json(CONFIG, r=10**400),
    "no kind of task": edit_json(CONFIG, task_type=None),
    "three million targets": edit_json(CONFIG, target_modules=["a"] * 3_000_000),
    "a file of eight gigabytes": sparse(WEIGHTS, 8 * 2**30),
    "a tokenizer of a gigabyte": sparse("tokenizer.json", 2**30),
    "samples that are none": edit_json(MANIFEST, samples=[{"x": 1}]),
    "six hundred thousand labels": edit_task(labels=[str(i) for i in range(600_000)]),
    "the wrong task": edit_json(CONFIG, task_type="TOKEN_CLS"),
    "a config of lists in lists": write(CONFIG, b"[" * 200_000 + b"]" * 200_000),
    "a config of objects in objects": write(CONFIG, b'{"r":' * 100_000 + b"1" + b"}" * 100_000),
    "a number of a million digits": write(CONFIG, b'{"r": ' + b"9" * 10**6 + b"}"),
    "a config of 20 MB": write(CONFIG, b'{"r": "' + b"9" * 20 * 2**20 + b'"}'),
    "a config that is no UTF-8": write(CONFIG, b"\xff\xfe{}"),
    "a manifest of lists in lists": write(MANIFEST, b"[" * 200_000 + b"]" * 200_000),
    "a manifest with NaN": write(MANIFEST, b'{"format": NaN}'),
    "a manifest that is a pickle": pickled(MANIFEST),
    "one label less": edit_task(labels=["blame"]),
    "one label more": edit_task(labels=["blame", "praise", "neither"]),
    "a label that is an object": edit_task(labels=["blame", {}]),
    "a threshold too few": edit_task(multi_label=True, thresholds=[0.5]),
    "a threshold of nothing": edit_task(multi_label=True, thresholds=[0.5, 0.0]),
    "another task": edit_task(name="ner", labels=["O", "B-PER", "I-PER"]),
    "a file above its folder": edit_json(MANIFEST, sha256={"../secret": "0" * 64}),
    "a file at an absolute path": edit_json(MANIFEST, sha256={"/etc/passwd": "0" * 64}),
    "a base that is a file": edit_base(name="/etc/passwd"),
    "a base that is an address": edit_base(name="http://example.com/model"),
    "another base": edit_base(encoder_sha256="0" * 64),
    "another tokenizer": edit_base(tokenizer_sha256="0" * 64),
    "a base of another kind": edit_base(name=["a", "b"]),
}
KEEPS_ITS_HASHES = {"a file above its folder", "a file at an absolute path", "a bit flipped"}


def sign(folder: Path) -> None:
    """Write the hashes of the files as they are now, as somebody would who means harm."""
    try:
        raw = json.loads((folder / MANIFEST).read_text())
    except (ValueError, RecursionError):
        return
    files = [path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST]
    large = {path.name for path in files if path.stat().st_size > 2**28}  # which are not read either
    raw["sha256"] = {path.name: "0" * 64 if path.name in large else hash_files([path]) for path in files}
    (folder / MANIFEST).write_text(json.dumps(raw))


pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads memory as Linux tells it")


@pytest.fixture(scope="module")
def good(checkpoint, tsv, tmp_path_factory):
    """A model of each kind, as it should be; loaded once, so that nothing else is measured."""
    root = tmp_path_factory.mktemp("good")
    for adapter in ("lora", "none"):
        save(checkpoint, tsv, "text_classification", adapter, root / adapter)
        nt.load(root / adapter)
    return root


def check_refused(folder: Path, outside: Path) -> None:
    """Seconds are those of the clock, so that a wait counts too; memory is the peak of all of this process."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, start = memory("VmRSS"), time.perf_counter()
    with pytest.raises(nt.NlpTransferError) as refused:
        nt.load(folder)
    assert time.perf_counter() - start < MAX_SECONDS, refused.value
    assert memory("VmHWM") - before < MAX_BYTES, refused.value
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 1000
    assert not (outside / "executed").exists()


def memory(name: str) -> int:
    """In bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_hostile_adapter_is_refused_at_once_and_nothing_runs(good, tmp_path, name):
    folder = shutil.copytree(good / "lora", tmp_path / "model")
    ADAPTERS[name](folder)
    if name not in KEEPS_ITS_HASHES:
        sign(folder)
    check_refused(folder, tmp_path)


WHOLE = {
    "code that is named": edit_json("config.json", auto_map={"AutoModel": "evil--model.py"}),
    "names of labels without end": edit_json("config.json", num_labels=10**9),
    "layers without end": edit_json("config.json", num_hidden_layers=10**9),
    "a hidden size of 10^9": edit_json("config.json", hidden_size=10**9),
    "a vocabulary of 10^12": edit_json("config.json", vocab_size=10**12),
    "another kind of model": edit_json("config.json", model_type="evil"),
    "no kind of model": edit_json("config.json", model_type=None),
    "other names of labels": edit_json("config.json", id2label={"0": "praise", "1": "blame"}),
    "names that are a list": edit_json("config.json", id2label=[]),
    "a kernel on the Hub": edit_json("config.json", attn_implementation="org/kernel"),
    "another model without end": edit_json("config.json", model_type="albert", inner_group_num=200_000),
    "a decoder without end": edit_json("config.json", model_type="bart", decoder_layers=200_000),
    "an adapter on top": beside(CONFIG, WEIGHTS),
    "a link in a subfolder": link_in_a_subfolder,
    "quantized weights": edit_json("config.json", quantization_config={"quant_method": "bitsandbytes"}),
    "a layer less": edit_tensors(half, "model.safetensors"),
    "not a number": edit_tensors(set_value("classifier.weight", float("nan")), "model.safetensors"),
    "an index that leads elsewhere": write(
        "model.safetensors.index.json", b'{"weight_map": {"a": "../../secret.safetensors"}}'
    ),
    "an index of an absolute path": write("model.safetensors.index.json", b'{"weight_map": {"a": "/etc/passwd"}}'),
    "an index that is none": write("model.safetensors.index.json", b"[]"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_hostile_whole_weights_are_refused_at_once_and_nothing_runs(good, tmp_path, name):
    folder = shutil.copytree(good / "none", tmp_path / "model")
    shutil.copytree(good / "lora", tmp_path / "adapter")
    WHOLE[name](folder)
    sign(folder)
    check_refused(folder, tmp_path)


def test_the_links_of_the_hubs_cache_are_followed(good, tmp_path):
    """As it lays files out: snapshots/COMMIT/file leads to blobs/SHA."""
    cache = tmp_path / "models--me--adapter"
    (cache / "snapshots" / "c0ffee").mkdir(parents=True)
    (cache / "blobs").mkdir()
    for path in (good / "lora").iterdir():
        shutil.copy(path, cache / "blobs" / hash_files([path]))
        (cache / "snapshots" / "c0ffee" / path.name).symlink_to(f"../../blobs/{hash_files([path])}")
    (cache / "snapshots" / "c0ffee" / "handler.py").write_text("raise SystemExit")  # of a service; nobody reads it
    assert nt.load(cache / "snapshots" / "c0ffee").predict("a film").label in ("blame", "praise")
    sign(cache / "snapshots" / "c0ffee")
    with pytest.raises(nt.ArtifactError, match=r"lists handler.py, which may hold code"):
        nt.load(cache / "snapshots" / "c0ffee")


@pytest.mark.parametrize("labels", [["B-A", "I-A", "O"], ["O", "I-A", "B-A"], ["O", "A", "B"]], ids=str)
def test_tags_in_another_order_are_refused(checkpoint, tmp_path, labels):
    folder = make_adapter(checkpoint, tmp_path / "model", 1)
    stated = json.loads((folder / MANIFEST).read_text())["task"]["labels"]
    edit_task(labels=[*labels, *stated[3:]])(folder)
    with pytest.raises(nt.ArtifactError, match="Tags must be O, then B-X and I-X"):
        nt.load(folder)
