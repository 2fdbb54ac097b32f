"""How fast is training, beside the usual trainer on the same machine, in one run?

    python scripts/benchmark_training.py --banking77 DIR --wnut17 DIR --rounds 5 --write
    python scripts/benchmark_training.py --wnut17 DIR --wnut17-examples 1000 --epochs 6 --rounds 3 --write
    python scripts/benchmark_training.py --banking77 DIR --frozen 400 --rounds 5 --write
    python scripts/benchmark_training.py --banking77 DIR --wnut17 DIR --profile --write

Each variant trains the same examples for ``--epochs`` in a process of its own, one after the other, each round in
another order, so that a slow spell of the machine meets all of them. Timed are the steps alone, not what comes before
the first; tokens are those of the texts, without padding. The variants are nlp-transfer with nothing set, and HF
Trainer + PEFT: as it comes (fp32, LoRA dropout 0.1, batches in random order), with bf16, and at its best (no LoRA
dropout, grouped by length, on a CPU with eager attention, which is faster there; fp32 and bf16). bf16 is left out where
the processor does not multiply in it. Rank 16 on all linear layers, 32 examples a step, one learning rate for all.
Memory is the most that the process held by the end of training.

With ``--frozen`` it is measured what is saved where the lowest layers are frozen: the head alone, and LoRA on the
top two layers, ten epochs with validation, with what the frozen layers make kept and computed in every epoch.

The share of the peak compares the time with that of the model's matrix products alone: those of the weights of all
linear layers of the encoder, forward and back, then also those of the adapters, for the tokens of the texts, at the
rate that the same shapes reach in a loop. (Under a head that reads the first token we need fewer; they are counted all
the same.) With ``--profile`` torch's profiler tells, for some of our steps, where their time goes. ``--write`` fills
docs/performance.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from measured import (
    PROJECT,
    command_line,
    committed,
    fill,
    in_a_process,
    machine,
    missing,
    not_positive,
    peak_mib,
    refuse,
    spread,
)
from step_profile import NUM_STEPS, step_profile

from nlp_transfer.errors import counted

PAGE = PROJECT / "docs" / "performance.md"
OURS = "nlp-transfer"
PEERS: dict[str, dict[str, Any]] = {
    "HF Trainer + PEFT": {"bf16": False, "lora_dropout": 0.1, "grouped": False},
    "HF Trainer + PEFT, bf16": {"bf16": True, "lora_dropout": 0.1, "grouped": False},
    "HF Trainer + PEFT, grouped by length, no LoRA dropout": {"bf16": False, "lora_dropout": 0.0, "grouped": True},
    "HF Trainer + PEFT, bf16, grouped by length, no LoRA dropout": {"bf16": True, "lora_dropout": 0.0, "grouped": True},
}
FROZEN: dict[str, dict[str, Any]] = {
    "the head alone": {"kind": "head"},
    "LoRA on the top two layers": {"kind": "lora", "top_layers": 2},
}
FROZEN_EPOCHS = 10
BANKING77_FILES = "train.csv", "test.csv"
WNUT17_FILES = "wnut17train.conll", "emerging.test.annotated"
LEARNING_RATE, BATCH_SIZE, RANK, MAX_TOKENS = 1e-3, 32, 16, 512


@dataclass(frozen=True, kw_only=True)
class Config:
    banking77: Path | None = None
    """Folder with train.csv and test.csv."""
    wnut17: Path | None = None
    """Folder with wnut17train.conll and emerging.test.annotated."""
    banking77_examples: int = 3200
    """Of the training part."""
    wnut17_examples: int = 1600
    """The same."""
    epochs: int = 1
    """Over these examples."""
    frozen: int = 0
    """Examples of Banking77 with which frozen layers are measured, in place of the above; 0 for the above."""
    profile: bool = False
    """Measure where the time of our steps goes, in place of the above."""
    rounds: int = 5
    """Each measures all variants once."""
    threads: int = os.cpu_count() or 1
    write: bool = False
    """Put the tables into docs/performance.md."""


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        task = json.loads(sys.argv[2])
        print(json.dumps(WORK[task.pop("work")](**task)))
        return
    config = tyro.cli(Config, description=__doc__)
    refuse(problem(config))
    commit = committed() if config.write else "not recorded"
    if config.profile:
        mark, rounds, sections = "benchmark_profile", "", [profile_table(config)]
    else:
        mark = (
            "benchmark_frozen" if config.frozen else "benchmark_epochs" if config.epochs > 1 else "benchmark_training"
        )
        rounds = f"{config.rounds} rounds; medians, with the smallest and largest of the rounds; "
        sections = frozen_section(config) if config.frozen else sections_of_sets(config)
    body = "\n\n".join([f"Commit {commit}; {rounds}{machine(config.threads, 1)}. `{command_line()}`", *sections])
    print(body)
    if config.write:
        fill(PAGE, mark, body)


def problem(config: Config) -> str | None:
    """With what was asked for."""
    if not given_sets(config):
        return "pass --banking77, --wnut17 or both"
    if config.frozen and config.profile:
        return "--frozen and --profile are measured one at a time"
    if config.frozen and config.banking77 is None:
        return "--frozen needs --banking77"
    if config.epochs > 1 and (config.frozen or config.profile):
        return "--epochs is for neither --frozen nor --profile"
    least = NUM_STEPS * BATCH_SIZE if config.profile else 1
    if (fewest := min(config.banking77_examples, config.wnut17_examples)) < least:
        return f"--banking77-examples and --wnut17-examples must be at least {least}, got {fewest}"
    given = [(config.banking77, BANKING77_FILES), (config.wnut17, WNUT17_FILES)]
    files = [folder / name for folder, names in given if folder is not None for name in names]
    found: str | None = missing(files) or not_positive(config, "rounds", "threads", "epochs")
    return found


def sections_of_sets(config: Config) -> list[str]:
    return [
        f"{name}, {size(examples, config.epochs)}:\n\n{table(measure(name, folder, examples, config))}"
        for name, (folder, examples) in given_sets(config).items()
    ]


def size(examples: int, epochs: int) -> str:
    return f"{counted(examples, 'example')}, {counted(epochs, 'epoch')}"


def given_sets(config: Config) -> dict[str, tuple[str, int]]:
    """The folder of each, and how many examples of it are trained."""
    sets = {
        "Banking77": (config.banking77, config.banking77_examples),
        "WNUT-17": (config.wnut17, config.wnut17_examples),
    }
    return {name: (str(folder), examples) for name, (folder, examples) in sets.items() if folder is not None}


def frozen_section(config: Config) -> list[str]:
    found = measure_frozen(str(config.banking77), config)
    return [f"Banking77, {size(config.frozen, FROZEN_EPOCHS)}:\n\n{frozen_table(found)}"]


def measure(name: str, folder: str, examples: int, config: Config) -> dict[str, list[dict[str, float]]]:
    from nlp_transfer.training.precision import runs_bf16
    from nlp_transfer.training.processes import processes

    has_bf16 = runs_bf16(processes().device)  # else it takes fifteen times as long, and nobody would
    variants = [OURS, *(name for name, options in PEERS.items() if has_bf16 or not options["bf16"])]
    found: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
    for round_ in range(config.rounds):
        for variant in random.Random(round_).sample(variants, len(variants)):
            results = found[variant]
            task = {"data": name, "folder": folder, "examples": examples, "epochs": config.epochs}
            task |= {"work": "train", "variant": variant, "seed": round_}
            results.append(in_a_process(__file__, task, config.threads))
            print(f"{name}, round {round_ + 1}, {variant}: {results[-1]}", file=sys.stderr)
    return found


def measure_frozen(folder: str, config: Config) -> dict[str, list[dict[str, float]]]:
    """Both ways in one process, the second way first in every other round."""
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in FROZEN}
    for round_ in range(config.rounds):
        for kind, results in found.items():
            task = {"work": "frozen", "frozen": kind, "folder": folder, "seed": round_, "examples": config.frozen}
            results.append(in_a_process(__file__, task, config.threads))
            print(f"frozen, round {round_ + 1}, {kind}: {results[-1]}", file=sys.stderr)
    return found


def frozen_table(found: dict[str, list[dict[str, float]]]) -> str:
    from nlp_transfer.reporting.tables import markdown_table

    rows = [
        [
            kind,
            f"{statistics.median(result['plain'] for result in results):,.1f}",
            f"{statistics.median(result['kept'] for result in results):,.1f}",
            spread([result["plain"] / result["kept"] for result in results]),
            f"{max(result['apart'] for result in results):.1e}",
        ]
        for kind, results in found.items()
    ]
    return markdown_table(
        ["", "seconds, every epoch anew", "seconds, once", "ratio", "weights differ by at most"], rows
    )


def table(found: dict[str, list[dict[str, float]]]) -> str:
    from nlp_transfer.reporting.tables import markdown_table

    rows = []
    for variant, results in found.items():
        ratios = [other["seconds"] / own["seconds"] for own, other in zip(found[OURS], results, strict=True)]
        shares = [
            statistics.median(result[of] for result in results) if of in results[0] else None
            for of in ("share_of_peak", "share_with_adapters")
        ]
        rows.append(
            [
                variant,
                f"{statistics.median(result['tokens_per_second'] for result in results):,.0f}",
                "1" if variant == OURS else spread(ratios),
                *("–" if share is None else f"{share:.0%}" for share in shares),
                f"{statistics.median(result['memory_mib'] for result in results):,.0f}",
                mean_and_sd([result["score"] for result in results]),
            ]
        )
    header = [
        "",
        "tokens a second",
        "time against ours",
        "share of the peak: weights",
        "with adapters",
        "peak MiB",
        "score",
    ]
    return markdown_table(header, rows)


def mean_and_sd(values: list[float]) -> str:
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {sd:.3f}"


def profile_table(config: Config) -> str:
    from nlp_transfer.reporting.tables import markdown_table

    found = {}
    for name, (folder, examples) in given_sets(config).items():
        task = {"work": "profile", "data": name, "folder": folder, "examples": examples}
        found[name] = in_a_process(__file__, task, config.threads)
    rows = [[kind, *(f"{shares[kind]:.0%}" for shares in found.values())] for kind in next(iter(found.values()))]
    return markdown_table(["", *found], rows)


def work_train(data: str, folder: str, examples: int, epochs: int, variant: str, seed: int) -> dict[str, float]:
    """In a process of its own: train, and score the test part."""
    import torch

    task, train, test = read(data, folder, examples)
    product_seconds(512, (1024, 1024), torch.float32)  # the processor's threads are up before anything is timed
    run = train_ours if variant == OURS else train_theirs
    options = {} if variant == OURS else PEERS[variant]
    result = run(task, train, test, epochs, seed, **options)
    return {**result, "tokens_per_second": result["tokens"] / result["seconds"]}


def work_profile(data: str, folder: str, examples: int) -> dict[str, float]:
    task, train, _ = read(data, folder, examples)
    found: dict[str, float] = step_profile(our_steps(task, our_run(task, train, epochs=1, seed=0)))
    return found


def read(data: str, folder: str, examples: int) -> tuple[Any, list[Any], list[Any]]:
    """The task, and examples to train and to score on."""
    import nlp_transfer as nt

    if data == "Banking77":
        text = nt.TextData(train=f"{folder}/train.csv", test=f"{folder}/test.csv", label_column="category")
        splits: Any = nt.read_text_classification(text, seed=0)
        task: Any = nt.TextClassification.for_splits(splits, nt.TextClassificationConfig())
    else:
        tagged = nt.NerData(train=f"{folder}/wnut17train.conll", test=f"{folder}/emerging.test.annotated")
        splits = nt.read_ner(tagged, seed=0)
        task = nt.Ner.for_splits(splits, nt.NerConfig())
    train = [splits.train[i] for i in range(min(examples, len(splits.train)))]
    return task, train, list(splits.test)[:1000]


def our_run(task: Any, train: list[Any], epochs: int, seed: int) -> Any:
    import nlp_transfer as nt
    from nlp_transfer.training.prepare import prepare

    load = nt.load_token_classifier if task.head == "token" else nt.load_sequence_classifier
    model = nt.add_adapter(
        load(nt.default_checkpoint(), task.labels, seed=seed), "lora", nt.LoraConfig(rank=RANK), seed=seed
    )
    config = nt.TrainingConfig(num_epochs=epochs, batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE, seed=seed)
    return prepare(model, task, train, config)


def our_steps(task: Any, run: Any) -> Iterator[Any]:
    import nlp_transfer as nt
    from nlp_transfer.training.loop import train_steps

    max_grad_norm = nt.TrainingConfig.max_grad_norm
    return train_steps(run.accelerator, run.state, run.loading, task.loss_sum, run.plan, max_grad_norm)


def train_ours(task: Any, train: list[Any], test: list[Any], epochs: int, seed: int) -> dict[str, float]:
    import nlp_transfer as nt

    run = our_run(task, train, epochs, seed)
    start = time.perf_counter()
    for _ in our_steps(task, run):
        pass
    seconds, peak = time.perf_counter() - start, peak_mib()
    score = nt.evaluate(run.model, task, "test", test).metrics[task.metric_names[0]]
    weights, products = (epochs * of_one for of_one in ideal_seconds(run))
    return {
        "seconds": seconds,
        "tokens": epochs * int(run.split.lengths.sum()),
        "score": score,
        "share_of_peak": weights / seconds,
        "share_with_adapters": products / seconds,
        "memory_mib": peak,
    }


def work_frozen(frozen: str, folder: str, seed: int, examples: int) -> dict[str, float]:
    """Seconds of ``nt.fit`` with what the frozen layers make kept and not, and how far the weights are apart."""
    import nlp_transfer as nt

    text = nt.TextData(train=f"{folder}/train.csv", label_column="category")
    splits = nt.read_text_classification(text, seed=0)
    task = nt.TextClassification.for_splits(splits, nt.TextClassificationConfig())
    train, validation = (
        [part[i] for i in range(min(examples, len(part)))] for part in (splits.train, splits.validation)
    )
    seconds, weights = {}, {}
    for way in ("plain", "kept") if seed % 2 else ("kept", "plain"):
        seconds[way], weights[way] = fit_frozen(
            task, train, validation[: examples // 8], frozen, seed, keep=way == "kept"
        )
    apart = max(float((weights["plain"][name] - kept).abs().max()) for name, kept in weights["kept"].items())
    return {**seconds, "apart": apart}


def fit_frozen(
    task: Any, train: list[Any], validation: list[Any], frozen: str, seed: int, *, keep: bool
) -> tuple[float, dict[str, Any]]:
    from unittest import mock

    import nlp_transfer as nt
    from nlp_transfer.adapters.trainable import trainable_state
    from nlp_transfer.training import fit

    options = dict(FROZEN[frozen])
    kind = options.pop("kind")
    model = nt.load_sequence_classifier(nt.default_checkpoint(), task.labels, seed=seed)
    model = nt.add_adapter(model, kind, nt.LoraConfig(rank=RANK, **options), seed=seed)
    config = nt.TrainingConfig(num_epochs=FROZEN_EPOCHS, batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE, seed=seed)
    plain = mock.patch.object(fit, "keep_trunk", lambda run, _: (run, None))
    with tempfile.TemporaryDirectory() as run_dir, contextlib.nullcontext() if keep else plain:
        start = time.perf_counter()
        model = nt.fit(model, task, train=train, validation=validation, config=config, run_dir=Path(run_dir))
        return time.perf_counter() - start, trainable_state(model.network)


def ideal_seconds(run: Any) -> tuple[float, float]:
    """What an epoch's matrix products take in a loop, forward and back: those of all adapted layers' own weights, and
    with those of the adapters.
    """
    import torch

    from nlp_transfer.adapters.one_product import one_product_layers

    dtype = torch.bfloat16 if run.accelerator.mixed_precision == "bf16" else torch.float32
    shapes = [tuple(layer.frozen.shape) for layer in one_product_layers(run.model.network)]
    lengths, steps = run.split.lengths, run.plan.batches.steps(0)
    rows = int(statistics.median(sum(int(lengths[list(rows)].sum()) for rows in s.micro_batches) for s in steps))
    per_row = {shape: [seconds / rows for seconds in product_seconds(rows, shape, dtype)] for shape in set(shapes)}
    weights, adapters = (int(lengths.sum()) * sum(per_row[shape][i] for shape in shapes) for i in (0, 1))
    return weights, weights + adapters


def product_seconds(rows: int, shape: tuple[int, ...], dtype: Any) -> tuple[float, float]:
    """Of a layer's two products, and of its adapter's six; the best of several tries."""
    import torch

    outputs, inputs = shape
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = ((outputs, inputs), (rows, inputs), (rows, outputs), (RANK, inputs), (outputs, RANK))
    weight, x, error, down, up = (torch.randn(size, device=device).to(dtype) for size in sizes)

    def of_weights() -> None:
        torch.nn.functional.linear(x, weight)
        error.mm(weight)

    def of_adapter() -> None:
        below, above = x.mm(down.t()), error.mm(up)
        below.mm(up.t())
        above.mm(down)
        above.t().mm(x)
        error.t().mm(below)

    return best_of(of_weights), best_of(of_adapter)


def best_of(work: Callable[[], None]) -> float:
    import torch

    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def train_theirs(
    task: Any,
    train: list[Any],
    test: list[Any],
    epochs: int,
    seed: int,
    *,
    bf16: bool,
    lora_dropout: float,
    grouped: bool,
) -> dict[str, float]:
    import peft
    import torch
    import transformers as hf
    from peer_hf_trainer import BERT_LINEARS, Clock, encode, score

    from nlp_transfer.checkpoint_folders import find
    from nlp_transfer.known_checkpoints import default_checkpoint

    is_tagger = task.head == "token"
    folder = find(default_checkpoint())[0]
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    parts = [encode(part, tokenizer, task.labels) for part in (train, test)]
    hf.set_seed(seed)
    auto = hf.AutoModelForTokenClassification if is_tagger else hf.AutoModelForSequenceClassification
    lora = peft.LoraConfig(
        task_type="TOKEN_CLS" if is_tagger else "SEQ_CLS",
        r=RANK,
        lora_alpha=2 * RANK,
        lora_dropout=lora_dropout,
        target_modules=BERT_LINEARS,
    )
    collator = hf.DataCollatorForTokenClassification if is_tagger else hf.DataCollatorWithPadding
    with tempfile.TemporaryDirectory() as out:
        arguments = hf.TrainingArguments(
            output_dir=out,
            num_train_epochs=epochs,
            learning_rate=LEARNING_RATE,
            per_device_train_batch_size=BATCH_SIZE,
            per_device_eval_batch_size=64,
            train_sampling_strategy="group_by_length" if grouped else "random",
            seed=seed,
            bf16=bf16,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        kind = "eager" if grouped and not torch.cuda.is_available() else None
        base = auto.from_pretrained(folder, num_labels=len(task.labels), attn_implementation=kind)
        trainer = hf.Trainer(
            peft.get_peft_model(base, lora), arguments, data_collator=collator(tokenizer), train_dataset=parts[0]
        )
        clock = Clock()
        trainer.add_callback(clock)
        trainer.train()
        seconds, peak = clock.seconds, peak_mib()
        arguments.train_sampling_strategy = "random"  # else predict gives rows in another order (transformers 5.23)
        predicted = trainer.predict(parts[1])
    found = score(predicted.predictions, predicted.label_ids, test, task)["score"]
    return {
        "seconds": seconds,
        "tokens": epochs * sum(map(len, parts[0]["input_ids"])),
        "score": found,
        "memory_mib": peak,
    }


WORK: dict[str, Callable[..., dict[str, float]]] = {
    "train": work_train,
    "frozen": work_frozen,
    "profile": work_profile,
}

if __name__ == "__main__":
    main()
