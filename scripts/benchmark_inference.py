"""Many adapters on one base, and one adapter against the `pipeline` of transformers; all sides take turns in one run.

    python scripts/benchmark_inference.py
    python scripts/benchmark_inference.py --rounds 1 --texts 64
    python scripts/benchmark_inference.py --file lines.txt --write

Texts are those of --file, as `nlp-transfer predict --file` reads it, drawn with a fixed seed; without it, made up.
Adapters have random weights, so that each gives other answers; half of them classify and half tag, with two to five
labels and ranks of 8 and 16 on all linear layers of the default checkpoint. Answers of all sides are compared before
anything is timed. Memory is what a process of its own holds more than the base alone. With --write the tables go to
docs/inference.md, with commit and machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peft
import psutil
import torch
import transformers as hf
from measured import committed, fill, machine
from safetensors.torch import load_file

import nlp_transfer as nt
from nlp_transfer.checkpoint_folders import find
from nlp_transfer.data.examples import Source
from nlp_transfer.data.raw_text import split_words
from nlp_transfer.inference.bank import Member
from nlp_transfer.inference.files import texts_of_file
from nlp_transfer.inference.heads import head_logits
from nlp_transfer.inference.onnx import export
from nlp_transfer.inference.texts import ask
from nlp_transfer.reporting.tables import markdown_table
from nlp_transfer.training.evaluate import batches_of, joined

PROJECT = Path(__file__).parent.parent
PAGE = PROJECT / "docs" / "inference.md"
NUMBER = 16
IN_A_BATCH = (1, 4, 16)
BATCH = 64
"""Requests of a mixed batch."""
BATCH_SIZES = (1, 8, 32, 128)
"""That the pipeline is tried with; its best one counts."""
Request = tuple[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--file", help="texts to answer: a table, or a text a line")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/inference.md")
    parser.add_argument("--memory", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--adapters", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        print(json.dumps(memory_of(args.memory, args.adapters)))
        return
    commit = committed() if args.write else "the code as it is"
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        root = Path(folder)
        for number in range(NUMBER):
            make_adapter(root / f"a{number}", number)
        texts = drawn_texts(args.file, args.texts) if args.file else made_up_texts(args.texts)
        tables = [make(root, texts, args.rounds) for make in (mixed_table, pipeline_table, onnx_table)]
    sizes = sorted(len(text.split()) for text in texts)
    source = Path(args.file).name if args.file else "random words"
    how = (
        f"{len(texts)} texts of {source}, {sizes[0]} to {sizes[-1]} words "
        f"(median {statistics.median(sizes):g}), fp32; medians of {args.rounds} rounds; `python "
        f"scripts/benchmark_inference.py` at {commit}, {date.today()}, {machine(torch.get_num_threads(), 1)}."
    )
    content = "\n\n".join([*tables, how])
    print(content)
    if args.write:
        fill(PAGE, "benchmark_inference", content)


def make_adapter(folder: Path, number: int) -> None:
    """Even numbers classify, odd ones tag."""
    names = [f"{chr(65 + i)}{number}" for i in range(2 + number % 4)]
    checkpoint, source = nt.default_checkpoint(), Source("text", 1)
    if number % 2:
        task: Any = nt.Ner(labels=nt.LabelSet.for_tags(names))
        model = nt.load_token_classifier(checkpoint, task.labels, seed=number)
        example: Any = nt.TaggedExample(("a", "text"), ("O", "O"), source)
    else:
        task = nt.TextClassification(labels=nt.LabelSet(tuple(names)))
        model = nt.load_sequence_classifier(checkpoint, task.labels, seed=number)
        example = nt.TextExample("a text", (names[0],), source)
    model = nt.add_adapter(model, "lora", nt.LoraConfig(rank=8 if number % 3 else 16), seed=number)
    drawn = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for parameter in model.network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=drawn), alpha=0.02)
    nt.save_model(model, task, nt.evaluate(model, task, "test", [example]), folder)


def drawn_texts(file: str, number: int) -> list[str]:
    texts = [str(text) for text in texts_of_file(file, None, None, reads_pairs=False)]
    return random.Random(0).sample(texts, min(number, len(texts)))


def made_up_texts(number: int) -> list[str]:
    """Words of the tokenizer's vocabulary, in no order; lengths as reviews have them."""
    rng = random.Random(0)
    vocabulary = hf.AutoTokenizer.from_pretrained(find(nt.default_checkpoint())[0]).get_vocab()
    words = sorted(word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 1)
    lengths = [max(1, min(60, round(rng.lognormvariate(2.5, 0.8)))) for _ in range(number)]
    return [" ".join(rng.choices(words, k=length)) for length in lengths]


class Bank:
    """Ours: one pass for all adapters of a batch."""

    name = "AdapterBank"

    def __init__(self, root: Path) -> None:
        self._bank = nt.AdapterBank.load({f"a{n}": root / f"a{n}" for n in range(NUMBER)})

    def predict(self, requests: Sequence[Request]) -> list[Any]:
        return self._bank.predict(requests)


class Switching:
    """PEFT's way: one base, ``set_adapter`` before each pass. It cannot hold heads of several sizes, nor of two kinds
    of task, so the heads are ours, and it has the low-rank weights alone.
    """

    name = "PEFT, a switch for each request"

    def __init__(self, root: Path) -> None:
        bank = nt.AdapterBank.load({f"a{n}": root / f"a{n}" for n in range(NUMBER)})
        self._members: dict[str, Member] = dict(bank._now.members)  # its heads and tasks; its layers are let go
        encoder = hf.AutoModel.from_pretrained(
            find(nt.default_checkpoint())[0], attn_implementation="eager", add_pooling_layer=False
        )
        for number in range(NUMBER):
            folder = root / f"a{number}"
            stated = peft.LoraConfig.from_pretrained(str(folder))
            names = [name.removeprefix("bert.") for name in stated.target_modules]
            config = peft.LoraConfig(r=stated.r, lora_alpha=stated.lora_alpha, target_modules=names)
            if not number:
                self._encoder: Any = peft.get_peft_model(encoder, config, adapter_name="a0")
            else:
                self._encoder.add_adapter(f"a{number}", config)
            tensors = load_file(folder / "adapter_model.safetensors")
            own = {name.replace(".bert.", "."): tensor for name, tensor in tensors.items() if ".lora_" in name}
            peft.set_peft_model_state_dict(self._encoder, own, adapter_name=f"a{number}")
        self._encoder.eval()

    def predict(self, requests: Sequence[Request]) -> list[Any]:
        return [answer for name, text in requests for answer in self.predict_some(name, [text])]

    @torch.no_grad()
    def predict_some(self, name: str, texts: Sequence[str]) -> list[Any]:
        member = self._members[name]
        self._encoder.set_adapter(name)
        question = ask(member.task, texts)
        split = member.task.encode(question.examples, member.model)
        pieces = []
        for indices in batches_of(split.lengths):
            inputs = split.batch(indices).inputs
            logits = head_logits(member.model.network, self._encoder(**inputs)[0], inputs)
            pieces += member.task.pieces(logits, split, indices)
        return question.answers(joined(pieces, len(texts)))


class Sorted(Switching):
    """The same, with the requests of an adapter put together first."""

    name = "PEFT, a switch for each adapter"

    def predict(self, requests: Sequence[Request]) -> list[Any]:
        return by_adapter(requests, self.predict_some)


class Merged:
    """One network an adapter."""

    name = "16 merged models"

    def __init__(self, root: Path) -> None:
        self._models = {}
        for number in range(NUMBER):
            if not (root / f"m{number}").exists():
                nt.merge([root / f"a{number}"], root / f"m{number}")
            self._models[f"a{number}"] = nt.load(root / f"m{number}")

    def predict(self, requests: Sequence[Request]) -> list[Any]:
        return by_adapter(requests, lambda name, texts: self._models[name].predict(texts))


SIDES: dict[str, Callable[[Path], Any]] = {side.name: side for side in (Bank, Switching, Sorted, Merged)}


def by_adapter(requests: Sequence[Request], predict: Callable[[str, list[str]], list[Any]]) -> list[Any]:
    found: list[Any] = [None] * len(requests)
    for name in dict.fromkeys(name for name, _ in requests):
        own = [i for i, request in enumerate(requests) if request[0] == name]
        for i, answer in zip(own, predict(name, [requests[i][1] for i in own]), strict=True):
            found[i] = answer
    return found


def mixed_table(root: Path, texts: list[str], rounds: int) -> str:
    sides = {name: make(root) for name, make in SIDES.items()}
    columns: dict[str, list[str]] = {name: [] for name in sides}
    for number in IN_A_BATCH:
        requests = [(f"a{i % number}", text) for i, text in enumerate(texts)]
        batches = [requests[i : i + BATCH] for i in range(0, len(requests), BATCH)]
        wanted = [label_of(answer) for batch in batches for answer in sides[Bank.name].predict(batch)]
        for name, side in sides.items():
            found = [label_of(answer) for batch in batches for answer in side.predict(batch)]
            assert found == wanted, f"{name} answers differently from {Bank.name}"
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, side in sides.items():
                start = time.perf_counter()
                for batch in batches:
                    side.predict(batch)
                seconds[name].append(time.perf_counter() - start)
        for name in sides:
            rate = len(texts) / statistics.median(seconds[name])
            ratios = [other / ours for other, ours in zip(seconds[name], seconds[Bank.name], strict=True)]
            columns[name].append(f"{rate:,.0f} ({statistics.median(ratios):.2f})")
    memories = {name: measured_memory(name, root) for name in sides}
    header = ["", *(f"{number} adapters in a batch" for number in IN_A_BATCH), "memory, MiB"]
    rows = [[name, *columns[name], f"{memories[name]:,.0f}"] for name in sides]
    return (
        f"Texts a second in batches of {BATCH}, and in brackets how many times as fast {Bank.name} is:\n\n"
        + markdown_table(header, rows)
    )


def label_of(answer: Any) -> Any:
    """What a person reads; probabilities differ by rounding."""
    if isinstance(answer, list):
        return [(entity.label, entity.start, entity.end) for entity in answer]
    return answer.labels


def measured_memory(side: str, root: Path) -> float:
    command = [sys.executable, __file__, "--memory", side, "--adapters", str(root)]
    env = os.environ | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def memory_of(side: str, root: Path) -> float:
    """MiB that the weights of a side take, the base included, after a first answer."""
    nt.load(root / "a0").predict("a text")  # what is imported on the way
    before = psutil.Process().memory_info().rss
    held = SIDES[side](root)
    held.predict([(f"a{number}", "a text") for number in range(NUMBER)])
    return float(psutil.Process().memory_info().rss - before) / 2**20


def pipeline_table(root: Path, texts: list[str], rounds: int) -> str:
    """The merged weights in both, so that the network is the same."""
    rows = [
        pipeline_row(root / "m0", "text-classification", texts, rounds),
        pipeline_row(root / "m1", "token-classification", texts, rounds),
    ]
    header = ["", "Predictor", "pipeline", "times as fast (range)", "labels equal"]
    return "One adapter, merged, texts a second:\n\n" + markdown_table(header, rows)


def pipeline_row(folder: Path, kind: str, texts: list[str], rounds: int) -> list[str]:
    make: Any = hf.pipeline  # typed for each kind by name
    ours, theirs = nt.load(folder), make(kind, model=str(folder), tokenizer=str(folder))
    times = {size: timed(partial(theirs, texts, batch_size=size)) for size in BATCH_SIZES}
    best = min(times, key=lambda size: times[size])
    pairs = [
        (timed(partial(ours.predict, texts)), timed(partial(theirs, texts, batch_size=best))) for _ in range(rounds)
    ]
    ratios = [their_time / our_time for our_time, their_time in pairs]
    rate = [len(texts) / statistics.median(side) for side in zip(*pairs, strict=True)]
    return [
        kind,
        f"{rate[0]:,.0f}",
        f"{rate[1]:,.0f} (batches of {best})",
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{share_equal(ours, theirs, texts):.1%}",
    ]


def share_equal(ours: nt.Predictor, theirs: Any, texts: list[str]) -> float:
    """Of the labels: of texts, or of the first token of each word."""
    if not isinstance(ours.task, nt.Ner):
        return float(np.mean([a.label == b["label"] for a, b in zip(ours.predict(texts), theirs(texts), strict=True)]))
    equal = []
    names = ours.task.labels.names
    for rows, tokens, text in zip(ours.predict_proba(texts), theirs(texts, ignore_labels=[]), texts, strict=True):
        tags = {token["start"]: token["entity"] for token in tokens}
        words = split_words(text)
        equal += [tags.get(word.start) == names[row.argmax()] for word, row in zip(words, rows, strict=True)]
    return float(np.mean(equal))


def onnx_table(root: Path, texts: list[str], rounds: int) -> str:
    rows = []
    for number, kind in ((0, "classification"), (1, "NER")):
        sides = {"torch": nt.load(root / f"a{number}"), "torch, merged": nt.load(root / f"m{number}")}
        for name, int8 in (("ONNX", False), ("ONNX, int8", True)):
            folder = root / f"{name}{number}"
            export(root / f"a{number}", folder, texts[:8], int8=int8, min_agreement=0 if int8 else 1)
            sides[name] = nt.load(folder)
        wanted = [label_of(answer) for answer in sides["torch"].predict(texts)]
        equal = {
            name: np.mean([label_of(a) == b for a, b in zip(side.predict(texts), wanted, strict=True)])
            for name, side in sides.items()
        }
        seconds = [{name: timed(partial(side.predict, texts)) for name, side in sides.items()} for _ in range(rounds)]
        for name in sides:
            rate = len(texts) / statistics.median(one[name] for one in seconds)
            ratio = statistics.median(one["torch"] / one[name] for one in seconds)
            rows.append([f"{kind}, {name}", f"{rate:,.0f}", f"{ratio:.2f}", f"{equal[name]:.1%}"])
    return "One adapter, by torch and by onnxruntime:\n\n" + markdown_table(
        ["", "texts a second", "times as fast as torch", "texts with equal answers"], rows
    )


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
