"""The pages are true: commands and snippets are run, links lead somewhere, names and numbers are those of the code."""

from __future__ import annotations

import ast
import asyncio
import csv
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import datasets
import pytest
from accelerate.commands.launch import launch_command_parser

import nlp_transfer as nt
from nlp_transfer import cli, inspection
from nlp_transfer.data import columns
from nlp_transfer.errors import EXIT_STOPPED
from nlp_transfer.inference import server
from nlp_transfer.inspection import MAX_JSON
from nlp_transfer.labels import spans_of
from nlp_transfer.training import defaults, fit
from nlp_transfer.training.checkpointing import checkpoint_name
from tests.adapters_at_random import make_adapter
from tests.corpus import REVIEWS, SENTENCES
from tests.foreign_models import plain_adapter, whole_model
from tests.processes import PROJECT, environment, launch

TINY = "FacebookAI/roberta-base"
"""In the folder where commands are run, a tiny checkpoint stands under this name: snippets can say it too."""
FAST = ["--checkpoint", TINY, "--training.num-epochs", "1", "--training.mixed-precision", "no"]
"""Appended to every command that trains; everything else is as the page has it."""

RUN_PAGES = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md")] + sorted(
    page for page in PROJECT.glob("docs/*.md") if page.name != "publishing.md"
)
PAGES = [*RUN_PAGES, PROJECT / "docs" / "publishing.md", PROJECT / "CHANGELOG.md", PROJECT / "recipes" / "README.md"]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z_.-]*[a-z]")
LAUNCHER_FLAGS = {flag for action in launch_command_parser()._actions for flag in action.option_strings}
OTHER_FLAGS = {"--all", "--name", "--seeds", "--render"} | LAUNCHER_FLAGS
OF_SCRIPTS = re.compile(r"`python scripts/[^`]*`")
"""What a script was called with stands beside what it measured; the scripts' flags are their own."""
OF_SLURM = re.compile(r"^#SBATCH .*$", re.MULTILINE)
VARIABLE = re.compile(r"[A-Z_]+=\S*")


def blocks(page: Path, language: str) -> list[str]:
    return [body for found, body in BLOCK.findall(page.read_text("utf-8")) if found == language]


def commands(page: Path) -> list[str]:
    """Each line of a ``sh`` block is one."""
    return [line for block in blocks(page, "sh") for line in block.splitlines() if line.strip()]


def commands_of_recipe(recipe: Path) -> list[str]:
    docstring = ast.get_docstring(ast.parse(recipe.read_text("utf-8"))) or ""
    starts = ("nlp-transfer ", "python ", "accelerate ")
    return [line.strip() for line in docstring.splitlines() if line.strip().startswith(starts)]


RECIPE_COMMANDS = [
    (recipe, line) for recipe in sorted(PROJECT.glob("recipes/*.py")) for line in commands_of_recipe(recipe)
]


def write_csv(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def spans_of_sentence(words: tuple[str, ...], tags: tuple[str, ...]) -> dict[str, object]:
    """The sentence as an annotation tool exports it."""
    starts = [sum(len(word) + 1 for word in words[:i]) for i in range(len(words))]
    spans = [[starts[s.start], starts[s.end - 1] + len(words[s.end - 1]), s.label] for s in spans_of(tags)]
    return {"text": " ".join(words), "entities": spans}


ENDS = {"reviews": "", "train": "", "dev": " today", "test": " again"}
"""So that no text of one part stands in another one."""


def write_inputs(folder: Path) -> None:
    """The files that the pages speak of."""
    reviews = [{"text": text.strip(), "label": label} for text, label in REVIEWS]
    (folder / "shards").mkdir()
    (folder / "org" / "name").mkdir(parents=True)  # `datasets` reads a folder like a set on the Hub
    for name in ("reviews", "train", "dev", "test", "org/name/train", "org/name/test"):
        texts = [row | {"text": f"{row['text']}{ENDS[Path(name).name]}"} for row in reviews[::2]]
        write_csv(folder / f"{name}.csv", texts)
    for number in range(2):
        write_csv(folder / "shards" / f"part-{number}.csv", reviews[number::2])
    (folder / "spans.jsonl").write_text("".join(json.dumps(spans_of_sentence(*pair)) + "\n" for pair in SENTENCES))
    write_csv(folder / "texts.csv", [{"text": row["text"]} for row in reviews[:5]])
    write_csv(folder / "long.csv", [row | {"text": row["text"] + " again" * 30} for row in reviews[::4]])
    pairs = [{"sentence1": row["text"], "sentence2": "the thing", "label": row["label"]} for row in reviews[::4]]
    write_csv(folder / "pairs.tsv", pairs, "\t")
    topics = [{"text": row["text"], "labels": [row["label"], "short"]} for row in reviews[::4]]
    (folder / "topics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in topics))
    (folder / "lines.txt").write_text("Ada lives in Paris.\nBob left.\n")
    sentences = ["".join(f"{w} NN O {t}\n" for w, t in zip(*pair, strict=True)) for pair in SENTENCES]
    for name in ("train", "dev", "test"):
        more = f"{ENDS[name].strip()} NN O O\n" if ENDS[name] else ""
        (folder / f"{name}.conll").write_text("\n".join(sentence + more for sentence in sentences))


@pytest.fixture(scope="module")
def inputs(make_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    for name in (TINY, "roberta-base"):
        shutil.copytree(make_checkpoint("roberta"), folder / name)
    plain_adapter(folder / "roberta-base", "sequence", folder / "their-adapter")
    whole_model(folder / "roberta-base", "token", folder / "their-model")
    return folder


@pytest.fixture
def desk(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder: a reader's files, and the project's recipes and scripts beside them."""
    folder = tmp_path / "desk"
    shutil.copytree(inputs, folder)
    for name in ("recipes", "scripts"):
        (folder / name).symlink_to(PROJECT / name)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == folder:
            del sys.modules[name]


async def asked(bank: nt.AdapterBank, path: str, body: bytes) -> tuple[int, str]:
    """What the server answers, without a socket: its application is called as a server would call it."""
    app, sent = server.make_app(bank, server.Limits()), []
    scope = {"type": "http", "method": "POST" if body else "GET", "path": path, "headers": [], "query_string": b""}

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async with app.router.lifespan_context(app):
        await app(scope, receive, send)
    return sent[0]["status"], sent[1]["body"].decode()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Run one command of a page in this process; fails when it fails, or when nobody knows how to run it."""

    served: list[nt.AdapterBank] = []

    def call(work: Callable[[], object], words: list[str]) -> None:
        monkeypatch.setattr(sys, "argv", words)
        try:
            code = work()
        except SystemExit as exit_:
            code = exit_.code
        assert code in (None, 0), shlex.join(words)

    def run_script(script: str, args: list[str]) -> None:
        def work() -> None:
            runpy.run_path(script, run_name="__main__")

        call(work, [script, *args, *FAST])

    def run_line(line: str) -> None:
        words = shlex.split(line, comments=True)
        while VARIABLE.fullmatch(words[0]):
            del words[0]
        match words:
            case ["nlp-transfer", "run", *_]:
                call(cli.main, [*words, *FAST])
            case ["nlp-transfer", "serve", *_]:
                monkeypatch.setattr(server, "serve", lambda bank, *_: served.append(bank))
                call(cli.main, words)
            case ["nlp-transfer", *_]:
                call(cli.main, words)
            case ["curl", "-s", url, *rest]:
                status, answer = asyncio.run(
                    asked(served[-1], f"/{url.rpartition('/')[2]}", "".join(rest[1:]).encode())
                )
                assert (status, "error" in answer) == (200, False), answer
            case ["accelerate", "launch", *rest]:  # of its processes just one; see the test for several
                launcher = launch_command_parser().parse_args(rest)
                run_script(launcher.training_script, launcher.training_script_args)
            case ["python", script, *args] if not script.startswith("scripts/"):
                run_script(script, args)
            case ["python", script, *args] | [script, *args] if script.startswith("scripts/"):
                assert words[0] == "python" or os.access(script, os.X_OK), script
                text = Path(script).read_text("utf-8")
                assert all(flag in text for flag in args if flag.startswith("--")), line
            case _:
                pytest.fail(f"no test knows how to run: {line}")

    return run_line


@pytest.mark.parametrize("page", RUN_PAGES, ids=lambda page: page.name)
def test_commands_and_snippets_of_a_page_run_in_their_order(page, desk, run):
    for line in commands(page):
        run(line)
    names: dict[str, object] = {}
    for number, snippet in enumerate(blocks(page, "python"), start=1):
        exec(compile(snippet, f"{page.name}, snippet {number}", "exec"), names)  # noqa: S102


@pytest.mark.parametrize(("recipe", "line"), RECIPE_COMMANDS, ids=lambda value: getattr(value, "stem", None))
def test_each_command_of_a_recipe_runs(recipe, line, desk, run):
    run(line)


def test_every_recipe_has_a_command():
    assert {recipe for recipe, _ in RECIPE_COMMANDS} == set(PROJECT.glob("recipes/*.py"))


@pytest.mark.multiprocess
def test_the_command_for_several_processes_without_a_gpu_starts_several(desk):
    [line] = [
        line for line in commands(PROJECT / "docs" / "processes.md") if line.startswith("ACCELERATE_USE_CPU=true ")
    ]
    launcher = launch_command_parser().parse_args(shlex.split(line)[3:])
    assert (launcher.multi_gpu, launcher.num_processes) == (True, 2)
    args = [*launcher.training_script_args, *FAST, "--training.batch-size", "4", "--run-dir", "run"]
    launch(launcher.num_processes, desk / launcher.training_script, *args, cwd=desk)
    steps = [json.loads(line) for line in (desk / "run" / "log.jsonl").read_text().splitlines()]
    assert max(step.get("rows", 0) for step in steps) == 4 * launcher.num_processes


SLURM = {
    "scontrol": 'if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> requeued.txt; fi',
    # the tasks get the signal that the batch script does not get
    "srun": '"$@" & task=$!; trap "kill -TERM $task $(pgrep -P $task)" USR2; wait $task; wait $task',
}
"""What SLURM does with a job of one task, in two lines of shell."""


@pytest.mark.multiprocess
@pytest.mark.skipif(not shutil.which("pgrep"), reason="stands in for SLURM with pgrep")
def test_the_script_for_slurm_queues_its_job_again_when_it_was_stopped_and_only_then(desk, monkeypatch):
    (script,) = blocks(PROJECT / "docs" / "processes.md", "bash")
    flags = shlex.join([*FAST, "--training.num-epochs", "30"])
    script = script.replace("--run-dir runs/slurm'", f"--run-dir runs/slurm {flags}'").replace("29500", "0")
    Path("job.sh").write_text(script.replace("SLURM_NNODES * 4", "SLURM_NNODES * 2"))
    Path("bin").mkdir()
    for name, body in SLURM.items():
        Path("bin", name).write_text(f"#!/bin/bash\n{body}\n")
        Path("bin", name).chmod(0o755)
    launcher = Path("bin", "accelerate")
    launcher.write_text(f'#!/bin/bash\nexec {sys.executable} -m accelerate.commands.accelerate_cli "$@"\n')
    launcher.chmod(0o755)
    job = {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "here"}
    variables = environment() | job | {"ACCELERATE_USE_CPU": "true", "PATH": f"{desk}/bin:{os.environ['PATH']}"}

    stopped = desk / "runs" / "slurm" / "stopped.json"  # of the time before; this start fails
    stopped.parent.mkdir(parents=True)
    stopped.write_text("{}")
    Path("train.conll").rename("away.conll")
    failed = subprocess.run(["bash", "job.sh"], env=variables, check=False, capture_output=True, text=True, timeout=300)
    assert "error: " in failed.stderr
    assert not Path("requeued.txt").exists()
    Path("away.conll").rename("train.conll")

    with subprocess.Popen(["bash", "job.sh"], env=variables, stderr=subprocess.PIPE, text=True) as running:
        while not list(desk.glob("runs/slurm/checkpoints/step-*")):
            assert running.poll() is None, running.stderr.read()
            time.sleep(0.05)
        subprocess.run(["pkill", "-USR2", "-P", str(running.pid), "srun"], check=True)
        said = running.stderr.read()
    assert Path("requeued.txt").read_text() == "requeue 7\n", said
    again = subprocess.run(["bash", "job.sh"], env=variables, check=False, capture_output=True, text=True, timeout=300)
    assert "Going on from step" in again.stderr
    assert (desk / "runs/slurm/metrics.json").exists(), again.stderr
    assert Path("requeued.txt").read_text() == "requeue 7\n"


def test_what_is_guessed_held_out_or_cut_is_said(desk, run, capsys):
    run("nlp-transfer run text_classification --train long.csv --task.max-tokens 16 --run-dir run")
    said = capsys.readouterr().err
    assert "long.csv: text is read from column 'text', label from 'label'." in said
    assert "2 examples of long.csv held out as test" in said
    assert "2 examples of long.csv held out as validation" in said
    assert "20 examples of train were cut at 16 tokens; what is beyond is not read" in said
    held_out = json.loads((desk / "run" / "splits.json").read_text())
    assert {part: len(places) for part, places in held_out.items()} == {"validation": 2, "test": 2}


def test_the_pages_name_every_file_of_a_run_and_of_its_model(desk, run):
    run("nlp-transfer run text_classification --train reviews.csv --run-dir run")
    names = ("recipes", "format", "guarantees")
    pages = {name: (PROJECT / "docs" / f"{name}.md").read_text("utf-8") for name in names}
    for path in (path for path in (desk / "run").rglob("*") if path.is_file() and path.name != ".lock"):
        inside = path.relative_to(desk / "run")
        page = {"model": "format", "checkpoints": "guarantees"}.get(inside.parts[0], "recipes")
        name = str(inside) if page == "recipes" else path.name
        assert f"`{name}`" in pages[page]


def short(value: float) -> str:
    """As a page writes it: ``1e-3``."""
    return f"{value:.0e}".replace("e-0", "e-")


PRECISE = {
    "docs/data.md": [f"`{name}`" for name in sorted(columns.HEADER_NAMES)],
    "docs/adapters.md": [
        *(f"`--lora.{field.name.replace('_', '-')}`" for field in fields(nt.LoraConfig)),
        *(f"| {getattr(nt.LoraConfig(), name)} |" for name in ("rank", "alpha")),
    ],
    "docs/recipes.md": [
        *map(short, defaults.PEAK_LEARNING_RATE.values()),
        f"about {defaults.STEPS['lora']} steps (`head` {defaults.STEPS['head']:,}, `none` {defaults.STEPS['none']})",
        f"{defaults.STEPS_A_LABEL} for each label; {defaults.MIN_EPOCHS} to {defaults.MAX_EPOCHS} epochs",
        f"{defaults.MIN_ROWS}, 16 or {defaults.MAX_ROWS}",
        f"about {defaults.STEPS_AN_EPOCH} steps an epoch",
        f"at most {defaults.MICRO_BATCH_TOKENS:,} tokens",
        f"times {defaults.FITTED_WIDTH} / width",
        f"rank {nt.LoraConfig().rank}, alpha {nt.LoraConfig().alpha}",
        f"weight decay {nt.TrainingConfig().weight_decay}",
        f"{nt.TrainingConfig().warmup_fraction * 100:.0f} % warm-up",
        f"norm {nt.TrainingConfig().max_grad_norm}",
        f"{nt.TrainingConfig().save_every} steps, and each epoch",
        "ten in a row" if fit.MAX_SKIPPED_IN_A_ROW == 10 else "?",
    ],
    "docs/guarantees.md": [
        f"`--training.save-every` steps ({nt.TrainingConfig().save_every})",
        f"`--training.keep-checkpoints` ({nt.TrainingConfig().keep_checkpoints})",
        f"exit code {EXIT_STOPPED}",
        f"`checkpoints/{checkpoint_name(40, 2)}`",
    ],
    "docs/inference.md": [
        f"more than {server.Limits().max_bytes // 2**20} MiB or {server.Limits().max_requests} requests",
        f"{server.Limits().max_characters:,} characters",
        f"max_batch={server.Limits().max_batch}, max_waiting={server.Limits().max_waiting:}",
    ],
    "docs/security.md": [
        f"At most {MAX_JSON // 2**20} MiB",
        *(f"`{ending}`" for ending in (".bin", ".pt", ".py", ".so")),
    ],
    "docs/processes.md": [f"`--training.process-timeout` seconds ({nt.TrainingConfig().process_timeout:.0f})"],
}


@pytest.mark.parametrize("page", PRECISE)
def test_names_and_numbers_of_a_page_are_those_of_the_code(page):
    text = " ".join((PROJECT / page).read_text("utf-8").split())
    assert [words for words in PRECISE[page] if words not in text] == []


def test_every_flag_on_a_page_exists(desk, run, capsys):
    for command in (
        "run text_classification",
        "run ner",
        "check",
        "evaluate",
        "predict",
        "merge",
        "export",
        "convert",
        "push",
        "pull",
        "serve",
    ):
        run(f"nlp-transfer {command} --help")
    known = set(FLAG.findall(capsys.readouterr().out)) | OTHER_FLAGS
    for page in PAGES:
        text = OF_SCRIPTS.sub("", OF_SLURM.sub("", page.read_text("utf-8")))
        assert set(FLAG.findall(text)) <= known, page.name


def test_every_public_name_on_a_page_exists():
    for page in PAGES:
        for name in re.findall(r"\bnt\.(\w+)", page.read_text("utf-8")):
            assert name in nt.__all__, f"{page.name}: nt.{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_of_a_page_leads_to_a_file(page):
    for target in LINK.findall(page.read_text("utf-8")):
        assert re.match(r"https?://", target) or (page.parent / target).exists(), target


def fields_in(page: str, heading: str) -> set[str]:
    """The first column of the first table after a heading."""
    table = page.partition(f"\n{heading}\n")[2].lstrip().partition("\n\n")[0].splitlines()[2:]
    return {name for row in table for name in re.findall(r"`([a-z_0-9]+)`", row.split("|")[1])}


def test_the_page_on_the_format_has_every_field(checkpoint, tmp_path):
    page = (PROJECT / "docs" / "format.md").read_text("utf-8")
    found: dict[str, set[str]] = {"## manifest.json": set(), "`task`:": set(), "`checkpoint`:": set()}
    for number in (0, 1, 2):
        manifest = json.loads((make_adapter(checkpoint, tmp_path / str(number), number) / "manifest.json").read_text())
        found["## manifest.json"] |= manifest.keys()
        found["`task`:"] |= manifest["task"].keys()
        found["`checkpoint`:"] |= manifest["checkpoint"].keys()
    assert {heading: fields_in(page, heading) for heading in found} == found
    read = fields_in(page, "**`adapter_config.json`** is PEFT's. These fields decide what is computed, and are read:")
    assert read == inspection.SIZED | set(inspection.COMPUTED)
