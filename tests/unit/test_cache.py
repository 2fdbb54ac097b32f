"""What was read and tokenized once is not read and tokenized again, unless something it depends on has changed."""

import importlib
import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from transformers import CanineTokenizer

import nlp_transfer as nt
from nlp_transfer import cache
from nlp_transfer.cache import cache_folder, cached
from nlp_transfer.data import conll as conll_module, reading, tables
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.reading import read_ner_file, read_ner_parts, read_text_file
from nlp_transfer.errors import DataError
from nlp_transfer.tasks import text_classification
from tests.processes import PROJECT

ROWS = "".join(
    json.dumps({"text": f"text {i} of some more words than eight or nine", "label": "xy"[i % 2]}) + "\n"
    for i in range(40)
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(ROWS)
    return path


def read(path, **settings):
    notes = Notes()
    examples = read_text_file(str(path), nt.TextData(train="", **settings), notes, multi_label=False)
    return list(examples), notes.lines()


@pytest.fixture
def count_reads(monkeypatch):
    """How often a file's rows are gone through."""
    counts = []
    real = tables.objects
    monkeypatch.setattr(tables, "objects", lambda path: counts.append(path) or real(path))
    return counts


def test_a_second_reading_reads_nothing_and_notes_the_same(rows, count_reads):
    first = read(rows)
    num_reads = len(count_reads)
    assert num_reads
    assert read(rows) == first
    assert len(count_reads) == num_reads


@pytest.mark.parametrize("change", ["content", "name", "setting"])
def test_another_content_name_or_setting_is_read_anew(rows, count_reads, change):
    read(rows)
    num_reads = len(count_reads)
    settings = {"label_column": "label"} if change == "setting" else {}
    if change == "content":
        rows.write_text(ROWS.replace("text 3 ", "TEXT 3 "))
    if change == "name":
        rows = rows.rename(rows.with_name("other.jsonl"))
    examples, _ = read(rows, **settings)
    assert len(count_reads) > num_reads
    assert examples[3].text.startswith("TEXT" if change == "content" else "text")
    assert examples[3].source.file == str(rows)


@pytest.mark.parametrize("damage", ["cut", "emptied", "deleted", "garbage"])
@pytest.mark.parametrize("file", ["examples.arrow", "header.json"])
def test_a_damaged_entry_is_made_anew(rows, own_cache, file, damage):
    first = read(rows)
    [entry] = own_cache.rglob(file)
    content = entry.read_bytes()
    entry.unlink()
    if damage != "deleted":
        entry.write_bytes({"cut": content[:-30], "emptied": b"", "garbage": b"x" * 500}[damage])
    assert read(rows) == first


def test_what_cannot_be_read_is_not_kept(rows, own_cache):
    rows.write_text(ROWS + "{broken\n")
    for _ in range(2):
        with pytest.raises(DataError, match=r"rows\.jsonl:41: no valid JSON"):
            read(rows)
    assert not [path for path in own_cache.rglob("*") if path.suffix != ".lock" and path.is_file()]


def test_a_kill_leaves_no_half_an_entry(own_cache):
    half = (
        "import os; from nlp_transfer.cache import cached\n"
        "write = lambda folder: ((folder / 'a').write_text('half'), os.kill(os.getpid(), 9))\n"
        "cached('kind', [1], write, lambda folder: (folder / 'a').read_text())"
    )
    assert subprocess.run([sys.executable, "-c", half], check=False, cwd=PROJECT).returncode == -9

    def write(folder):
        assert not list(folder.iterdir())
        (folder / "a").write_text("whole")

    assert cached("kind", [1], write, lambda folder: (folder / "a").read_text()) == "whole"


def test_where_the_cache_cannot_be_written_nothing_is_kept_and_that_is_said(rows, own_cache, capsys):
    own_cache.write_text("a file")
    first = read(rows)
    assert "cache: nothing is kept, since the cache cannot be written" in capsys.readouterr().err
    assert read(rows) == first


def test_an_entry_is_read_without_being_locked(rows, own_cache, monkeypatch):
    first = read(rows)

    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr(cache.FileLock, "acquire", refuse)
    assert read(rows) == first


def test_a_file_that_changes_while_it_is_read_is_refused(rows, monkeypatch):
    real = reading.hash_files
    counter = itertools.count()
    monkeypatch.setattr(reading, "hash_files", lambda paths: f"{real(paths)}{next(counter)}")
    with pytest.raises(DataError, match=r"rows\.jsonl: changed while it was read"):
        read(rows)


def test_a_disk_that_is_full_is_named(own_cache):
    def write(_):
        raise OSError("Error writing bytes to file")  # as Arrow has it: without a name

    with pytest.raises(OSError, match=r"the cache cannot be written .* NLP_TRANSFER_CACHE"):
        cached("kind", [3], write, lambda folder: (folder / "a").read_text())


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv(cache.FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "nlp_transfer"


@pytest.mark.multiprocess
def test_of_processes_that_start_together_one_writes(own_cache, tmp_path):
    work = (
        "import time; from pathlib import Path; from nlp_transfer.cache import cached\n"
        f"log = Path({str(tmp_path / 'log')!r})\n"
        "def write(folder):\n"
        "    log.open('a').write('wrote\\n'); time.sleep(0.5); (folder / 'a').write_text('done')\n"
        "print(cached('kind', [2], write, lambda folder: (folder / 'a').read_text()))"
    )
    started = [subprocess.Popen([sys.executable, "-c", work], cwd=PROJECT, stdout=subprocess.PIPE) for _ in range(3)]
    assert [process.communicate()[0] for process in started] == [b"done\n"] * 3
    assert (tmp_path / "log").read_text() == "wrote\n"


def test_tokens_are_kept_and_made_anew_for_another_limit(rows, checkpoint, monkeypatch):
    examples = read_text_file(str(rows), nt.TextData(train=""), Notes(), multi_label=False)
    labels = nt.LabelSet(("x", "y"))
    model = nt.load_sequence_classifier(checkpoint, labels)
    calls = []
    real = text_classification.encode_texts
    monkeypatch.setattr(text_classification, "encode_texts", lambda *args: calls.append(1) or real(*args))

    def encode(part, **settings):
        split = nt.TextClassification(labels=labels, **settings).encode(part, model)
        batch = split.batch(tuple(range(40)))
        return [tensor.tolist() for tensor in (*batch.inputs.values(), batch.labels)], split.num_cut

    first = encode(examples)
    assert encode(examples) == first == encode(list(examples))
    assert len(calls) == 2  # a plain list has no key to be kept under
    assert encode(examples, max_tokens=8) != first
    assert encode(examples.take(np.arange(40)[::1])) == first
    assert len(calls) == 4


def test_tokens_are_made_anew_when_the_code_of_a_users_task_changes(rows, checkpoint, tmp_path, monkeypatch):
    examples = read_text_file(str(rows), nt.TextData(train=""), Notes(), multi_label=False)
    model = nt.load_sequence_classifier(checkpoint, XY)
    source = (
        "import nlp_transfer as nt\nclass Own(nt.TextClassification):\n    def _label_ids(self, example): return {}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setitem(sys.modules, "changing_task", None)  # afterwards there is none again
    for label in (0, 1):
        (tmp_path / "changing_task.py").write_text(source.format(label))
        del sys.modules["changing_task"]
        importlib.invalidate_caches()
        split = importlib.import_module("changing_task").Own(labels=XY).encode(examples, model)
        assert set(split.labels.tolist()) == {label}


def test_tokens_of_a_task_that_is_in_no_file_are_not_kept(rows, checkpoint, own_cache):
    """As in a notebook: whether it has changed cannot be seen."""
    examples = read_text_file(str(rows), nt.TextData(train=""), Notes(), multi_label=False)
    model = nt.load_sequence_classifier(checkpoint, XY)
    own = type("Own", (nt.TextClassification,), {"__module__": "a_cell"})
    own(labels=XY).encode(examples, model)
    assert not (own_cache / "tokens").exists()


def encodings(examples, task, model):
    """From the cache, or made for it; and made without it."""
    indices = tuple(range(len(examples)))
    splits = [task.encode(part, model) for part in (examples, list(examples))]
    return [
        [tensor.tolist() for tensor in (*split.batch(indices).inputs.values(), split.batch(indices).labels)]
        for split in splits
    ]


XY, YX = nt.LabelSet(("x", "y")), nt.LabelSet(("y", "x"))
TASKS = {
    "first": {"labels": XY},
    "other order of labels": {"labels": YX},
    "other limit": {"labels": XY, "max_tokens": 8},
    "other policy": {"labels": XY, "max_tokens": 8, "long_texts": "head_tail"},
    "several labels": {"labels": XY, "multi_label": True},
}


def test_tokens_of_every_task_tokenizer_and_view_are_kept_apart(rows, make_checkpoint):
    """One cache for all of them: each gives what it gives without a cache."""
    examples = read_text_file(str(rows), nt.TextData(train=""), Notes(), multi_label=False)
    models = [nt.load_sequence_classifier(str(make_checkpoint(family)), XY) for family in ("bert", "roberta")]
    views = [examples, examples.take(np.arange(20)), examples.take(np.arange(10, 40))]
    views.append(examples.renamed({"x": "y", "y": "x"}))
    found = [encodings(examples, nt.TextClassification(**settings), models[0]) for settings in TASKS.values()]
    found += [encodings(view, nt.TextClassification(labels=XY), models[0]) for view in views[1:]]
    found.append(encodings(examples, nt.TextClassification(labels=XY), models[1]))
    for kept, fresh in found:
        assert kept == fresh
    alike = [pair for pair in itertools.combinations([kept for kept, _ in found], 2) if pair[0] == pair[1]]
    assert len(alike) == 1  # labels in another order are ids as of names that were swapped


def test_a_tokenizer_written_in_python_is_never_taken_from_the_cache(rows, checkpoint, own_cache):
    examples = read_text_file(str(rows), nt.TextData(train=""), Notes(), multi_label=False)
    model = replace(nt.load_sequence_classifier(checkpoint, XY), tokenizer=CanineTokenizer())
    nt.TextClassification(labels=XY).encode(examples, model)
    assert not (own_cache / "tokens").exists()


@pytest.mark.parametrize(
    ("first", "second"),
    [({}, {"on_illegal_tags": "refuse"}), ({"on_similar_labels": "merge"}, {"on_similar_labels": "keep"})],
)
def test_every_setting_of_reading_is_part_of_the_key(tmp_path, first, second):
    path = tmp_path / "f.conll"
    path.write_text("Ada B-PER\nLovelace I-Per\n")

    def read_with(settings):
        try:
            parts = read_ner_parts(nt.NerData(train=str(path), **({"on_similar_labels": "keep"} | settings)), Notes())
            return [example.tags for example in parts["train"]]
        except DataError as error:
            return str(error)

    assert read_with(first) != read_with(second)
    assert read_with(first) == read_with(first)


def test_tagged_files_are_read_once_too(conll, monkeypatch):
    counts = []
    real = conll_module.sentences
    monkeypatch.setattr(conll_module, "sentences", lambda *args: counts.append(1) or real(*args))
    first = list(read_ner_file(str(conll), nt.NerData(train=""), Notes()))
    num_reads = len(counts)
    assert list(read_ner_file(str(conll), nt.NerData(train=""), Notes())) == first
    assert len(counts) == num_reads


MEASURE = """
import resource, sys
import nlp_transfer as nt
from nlp_transfer.data.reading import read_text_classification

def memory(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) // 1024

before = memory("VmRSS")
splits = read_text_classification(nt.TextData(train=sys.argv[1]))
assert sum(map(len, splits.parts().values())) == 1_000_000
assert len(splits.train.class_places()) == 77
print(memory("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads memory from /proc")
def test_a_million_rows_add_at_most_300_mebibytes(tmp_path):
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for i in range(1_000_000):
            file.write(json.dumps({"text": f"a text of some words, number {i}", "label": f"class {i % 77}"}) + "\n")
    for _ in ("first start", "second start"):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, path], check=True, capture_output=True, text=True, cwd=PROJECT
        )
        assert int(done.stdout) <= 300
