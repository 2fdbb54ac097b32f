"""The command line as a user types it: results on standard output, one line for every mistake, exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nlp_transfer import __version__
from nlp_transfer.inference.predictor import Predictor
from tests.processes import PROJECT, environment, launch, nlp_transfer

FAST = ["--training.num-epochs", "1", "--training.mixed-precision", "no", "--lora.rank", "2"]


@pytest.fixture(scope="module")
def model(checkpoint, tsv, tmp_path_factory) -> Path:
    """A classifier, made by the command line."""
    run_dir = tmp_path_factory.mktemp("runs") / "reviews"
    done = nlp_transfer(
        "run", "text_classification", "--train", tsv, "--checkpoint", checkpoint, "--run-dir", run_dir, *FAST
    )
    assert done.returncode == 0, done.stderr
    return run_dir / "model"


GOOD = "text,label\n" + "".join(f"some text {i},{'ab'[i % 2]}\n" for i in range(40))
GOOD_CONLL = "\n".join(f"Ada B-PER\nleft O\nin O\n{year} O\n" for year in range(1980, 2020))

BAD_TEXT = {
    "a wrong flag": (GOOD, ["--trian", "x.csv"], "--trian"),
    "a misspelt setting": (GOOD, ["--lora.rnk", "4"], "--lora.rank"),
    "a value of the wrong kind": (GOOD, ["--training.seed", "many"], "--training.seed"),
    "a value out of range": (GOOD, ["--training.num-epochs", "0"], "num_epochs must be at least 1, got 0"),
    "a rank of nothing": (GOOD, ["--lora.rank", "0"], "rank must be at least 1, got 0"),
    "an unknown choice": (GOOD, ["--adapter", "prefix"], "'lora', 'none', 'head'"),
    "a missing file": (None, [], "data.csv: there is no such file"),
    "a missing validation file": (GOOD, ["--validation", "dev.csv"], "dev.csv: there is no such file"),
    "an unknown column": (GOOD, ["--label-column", "lable"], "Did you mean 'label'?"),
    "one class only": (GOOD.replace(",b", ",a"), [], "needs at least two"),
    "an empty file": ("", [], "data.csv is empty"),
    "a header alone": ("text,label\n", [], "data.csv"),
    "an empty label": (GOOD + "more text,\n", [], "data.csv:42: label is empty"),
    "a row with too many cells": (GOOD + "more, text,a\n", [], "data.csv:42: 3 columns where 2 are expected"),
    "an unknown checkpoint": (GOOD, ["--checkpoint", "./nowhere"], "'./nowhere'"),
    "an unknown package": (GOOD, ["--checkpoint", "package:nothing_here/model"], "nothing_here"),
    "a Hub id that cannot be": (GOOD, ["--checkpoint", "a--b"], "'a--b'"),
    "no target modules": (GOOD, ["--lora.target-modules"], "at least one linear layer"),
    "unknown target modules": (GOOD, ["--lora.target-modules", "q_proj"], "end in ['dense', 'key', 'query', 'value']"),
    "more tokens than the checkpoint takes": (GOOD, ["--task.max-tokens", "4096"], "max_tokens must be from 8 to 62"),
    "an unknown metric": (GOOD, ["--training.selection-metric", "bleu"], "selection_metric must be one of accuracy"),
    "fp16 without a GPU": (GOOD, ["--training.mixed-precision", "fp16"], "needs a CUDA GPU"),
}  # fmt: skip
BAD_NER = {
    "a tag that is none": (GOOD_CONLL.replace("1990 O", "1990 YEAR"), [], "tag 'YEAR'"),
    "a word without a tag": (GOOD_CONLL.replace("1990 O", "1990"), [], "data.conll:"),
    "no entity at all": (GOOD_CONLL.replace("B-PER", "O"), [], "holds no entity"),
    "an empty file": ("", [], "holds no sentence"),
}


@pytest.mark.parametrize(
    ("recipe", "content", "flags", "words"),
    [pytest.param("text_classification", *case, id=name) for name, case in BAD_TEXT.items()]
    + [pytest.param("ner", *case, id=f"ner: {name}") for name, case in BAD_NER.items()],
)
def test_a_mistake_is_one_line_and_exit_2_and_leaves_no_model(
    call, checkpoint, tmp_path, recipe, content, flags, words
):
    data = "data.conll" if recipe == "ner" else "data.csv"
    if content is not None:
        (tmp_path / data).write_text(content)
    base = [] if "--checkpoint" in flags else ["--checkpoint", checkpoint]
    code, out, err = call("run", recipe, "--train", data, "--run-dir", "run", *base, *flags)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, out, len(errors)) == (2, "", 1), err
    assert words in errors[0]
    assert "Traceback" not in err
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_label_that_train_lacks_is_named_with_its_place(call, checkpoint, tmp_path, part):
    (tmp_path / "data.csv").write_text(GOOD)
    (tmp_path / "other.csv").write_text("text,label\nfine,a\nstrange,c\n")
    code, _, err = call("run", "text_classification", "--train", "data.csv", f"--{part}", "other.csv")
    assert code == 2
    assert "other.csv:3: label 'c' does not occur in the training part (data.csv)" in err


def test_a_label_that_train_lacks_may_be_kept_and_then_counts_as_wrong(call, checkpoint, tmp_path):
    (tmp_path / "data.csv").write_text(GOOD)
    (tmp_path / "other.csv").write_text("text,label\nfine,a\nstrange,c\n")
    parts = ["--train", "data.csv", "--validation", "other.csv", "--checkpoint", checkpoint]
    code, _, err = call(
        "run", "text_classification", *parts, "--run-dir", "run", "--task.on-unseen-label", "keep", *FAST
    )
    assert code == 0, err
    assert "Label 'c' does not occur in train" in err
    assert json.loads(Path("run/metrics.json").read_text())["validation"]["accuracy"] <= 0.5
    assert "c" in json.loads(Path("run/model/manifest.json").read_text())["task"]["labels"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["bogus"], "bogus"),
        (["run", "bogus", "--train", "x"], "no recipe 'bogus'. The recipes are "),
        (["copy", "nerr"], "Did you mean 'ner'?"),
        (["predict", "nowhere", "a text"], "nowhere does not exist"),
        (["evaluate", "nowhere", "file.csv"], "nowhere does not exist"),
        (["evaluate", "nowhere", "hub:org/name"], "nowhere does not exist"),
        (["run", "ner", "--train", __file__, os.__file__, re.__file__], "named by one pattern in quotation marks"),
        (["predict"], "Model folder of a run, or user/name[@revision] on the Hub. (required)"),
    ],
)
def test_a_wrong_command_is_one_line(call, args, words):
    code, out, err = call(*args)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert words in err


def test_recipes_are_listed_and_copied_and_never_overwritten(call, tmp_path):
    code, out, _ = call("recipes")
    assert code == 0
    assert {"ner", "text_classification"} <= {line.split()[0] for line in out.splitlines()}
    assert call("copy", "ner", "mine.py")[0] == 0
    assert "import nlp_transfer as nt" in (tmp_path / "mine.py").read_text()
    code, _, err = call("copy", "ner", "mine.py")
    assert (code, "exists already" in err) == (2, True)


def test_the_version_is_printed(call):
    assert call("--version") == (0, f"nlp-transfer {__version__}\n", "")


def test_help_shows_every_setting_with_meaning_and_default(call):
    code, out, _ = call("run", "ner", "--help")
    assert code == 0
    assert out.startswith("usage: nlp-transfer run ner")
    for words in ("--training.learning-rate", "Inner size of each adapter", "default: 16", "--dry-run"):
        assert words in out


def test_a_failing_run_leaves_the_finished_one_in_its_folder_whole(call, checkpoint, tsv, tmp_path):
    same = ["run", "text_classification", "--train", tsv, "--checkpoint", checkpoint, "--run-dir", "run", *FAST]
    assert call(*same)[0] == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    assert call(*same, "--overwrite", "--training.selection-metric", "bleu")[0] == 2
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("run_dir", ["data.csv", "data.csv/run"])
def test_a_folder_that_cannot_be_made_is_named(call, checkpoint, tmp_path, run_dir):
    (tmp_path / "data.csv").write_text(GOOD)
    code, _, err = call(
        *("run", "text_classification", "--train", "data.csv", "--checkpoint", checkpoint, "--run-dir", run_dir, *FAST)
    )
    assert code == 2
    assert re.match(r"error: (--run-dir )?data.csv", err.splitlines()[-1])


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--version"], ["check", "--help"], ["run", "ner", "--help"]])
def test_a_reader_that_goes_away_is_no_error(words, unbuffered):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "nlp_transfer", *words],
        check=False,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env=environment() | {"PYTHONUNBUFFERED": unbuffered},
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_dry_run_says_what_would_happen_and_writes_nothing(call, checkpoint, tsv, tmp_path):
    code, _, err = call("run", "text_classification", "--train", tsv, "--checkpoint", checkpoint, "--dry-run")
    assert code == 0
    for words in ("weights (lora)", "steps", "padding", "minutes", "GiB of memory", "Nothing was written"):
        assert words in err
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_is_not_overwritten_unasked(call, checkpoint, tsv, model):
    same = ["run", "text_classification", "--train", tsv, "--checkpoint", checkpoint, "--run-dir", model.parent, *FAST]
    code, _, err = call(*same)
    assert (code, "--overwrite" in err) == (2, True)
    assert call(*same, "--overwrite")[0] == 0


def test_a_json_list_is_refused_in_a_short_line(call, checkpoint, tmp_path):
    (tmp_path / "list.json").write_text(json.dumps([{"text": "a text " * 100, "label": "b"}] * 50))
    code, _, err = call("run", "text_classification", "--train", "list.json", "--checkpoint", checkpoint)
    mend = "Write one object a line (jsonl), for instance with \"jq -c '.[]'\"."
    assert (code, err) == (2, f"error: list.json: a JSON list is not read. {mend}\n")


def test_an_unfinished_run_is_told_from_a_folder_that_is_none(call, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text("{}")
    for spelling in ("run", "run/model"):
        code, _, err = call("predict", spelling, "a text")
        assert (code, "run is an unfinished run" in err) == (2, True), err


def test_a_model_that_predicts_nothing_is_told(call, checkpoint, conll):
    few = ["--training.num-epochs", "1", "--training.learning-rate", "1e-7", "--training.mixed-precision", "no"]
    code, _, err = call("run", "ner", "--train", conll, "--checkpoint", checkpoint, "--run-dir", "run", *few)
    predicted = [json.loads(line)["predicted"] for line in Path("run/predictions.jsonl").read_text().splitlines()]
    assert code == 0
    assert ("The model predicts nothing" in err) == all(set(tags) == {"O"} for tags in predicted)


def test_the_folder_of_a_run_stands_for_its_model(call, model):
    assert call("predict", model.parent, "a great film") == call("predict", model, "a great film")


def test_others_may_read_what_a_run_leaves(model):
    assert {path.stat().st_mode & 0o777 for path in model.iterdir()} == {
        (model / "manifest.json").stat().st_mode & 0o777
    }


def test_predictions_are_json_lines_from_texts_a_file_or_standard_input(call, model, tmp_path):
    done = nlp_transfer("predict", model, stdin="a great film\nan awful book\n")
    piped = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["text"] for line in piped] == ["a great film", "an awful book"]
    assert [line.pop("source") for line in piped] == ["standard input:1", "standard input:2"]
    assert set(piped[0]["probabilities"]) == {"praise", "blame"}

    code, out, _ = call("predict", model, "a great film", "an awful book")
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == piped

    (tmp_path / "texts.csv").write_text('text,id\n"a great film",1\n\nan awful book,2\n')
    assert call("predict", model, "--file", "texts.csv", "--output", "out.jsonl")[0] == 0
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line.pop("source") for line in written] == ["texts.csv:2", "texts.csv:4"]
    assert written == piped


def test_texts_that_are_not_read_to_their_end_are_counted(call, model, tmp_path):
    (tmp_path / "texts.txt").write_text("a great film\n" + "a long film " * 100 + "\n")
    code, out, err = call("predict", model, "--file", "texts.txt")
    assert (code, len(out.splitlines())) == (0, 2)
    assert "1 text of more than " in err


def test_the_last_row_is_looked_at_before_the_first_is_predicted(call, model, tmp_path, monkeypatch):
    monkeypatch.setattr(Predictor, "predict_batch", lambda *_, **__: pytest.fail("predicted"))
    (tmp_path / "texts.jsonl").write_text('{"text": "a"}\n' * 3000 + '{"text": null}\n')
    code, _, err = call("predict", model, "--file", "texts.jsonl")
    assert (code, "texts.jsonl:3001: column 'text' holds no text" in err) == (2, True), err


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_the_file_that_is_read_is_not_written_over(call, model, tmp_path, command):
    content = "text\tlabel\na film\tpraise\n"
    (tmp_path / "data.tsv").write_text(content)
    (tmp_path / "link.tsv").symlink_to("data.tsv")
    flag = ["--file"] if command == "predict" else []
    cases = [("data.tsv", "data.tsv"), ("data.tsv", "./data.tsv"), ("data.tsv", "link.tsv")]
    for read, output in [*cases, *([("d*.tsv", "data.tsv")] if command == "evaluate" else [])]:
        code, _, err = call(command, model, *flag, read, "--output", output)
        assert (code, "is the file that is read" in err) == (2, True), err
    assert (tmp_path / "data.tsv").read_text() == content


def test_an_output_that_is_no_plain_file_is_written_to_and_not_replaced(call, model, tmp_path):
    """/dev/null, a pipe; a link stays one."""
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    assert call("predict", model, "a film", "--output", "pipe")[0] == 0
    reader.join()
    assert json.loads(read[0])["text"] == "a film"
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "link.jsonl").symlink_to("answers.jsonl")
    assert call("predict", model, "a film", "--output", "link.jsonl")[0] == 0
    assert (tmp_path / "link.jsonl").is_symlink()
    assert (tmp_path / "answers.jsonl").read_text() == read[0]


def test_an_output_that_is_standard_output_is_added_to(model, tmp_path):
    """``--output /dev/stdout >> all.jsonl``."""
    (tmp_path / "all.jsonl").write_text("before\n")
    with (tmp_path / "all.jsonl").open("a") as out:
        words = [sys.executable, "-m", "nlp_transfer", "predict", model, "a film", "--output", "/dev/stdout"]
        subprocess.run(words, check=True, stdout=out, env=environment(), timeout=120)
    before, answer = (tmp_path / "all.jsonl").read_text().splitlines()
    assert (before, json.loads(answer)["text"]) == ("before", "a film")


def test_a_name_that_begins_as_a_home_and_is_none_is_a_name(call, model):
    assert call("predict", model, "a film", "--output", "~nobody.jsonl")[0] == 0
    assert json.loads(Path("~nobody.jsonl").read_text())["text"] == "a film"


def test_columns_of_words_are_not_predicted_line_by_line(call, tagger, conll):
    code, _, err = call("predict", tagger, "--file", conll)
    assert (code, "columns of words are no texts" in err) == (2, True), err


def test_evaluating_the_held_out_examples_gives_the_score_of_the_run(call, model, tsv, tmp_path):
    held_out = json.loads((model.parent / "splits.json").read_text())["test"]
    numbers = {int(place.rpartition(":")[2]) for place in held_out}
    lines = tsv.read_text().splitlines()
    (tmp_path / "test.tsv").write_text("\n".join([lines[0], *(lines[n - 1] for n in sorted(numbers))]) + "\n")
    code, out, err = call("evaluate", model, "test.tsv")
    assert code == 0, err
    expected = json.loads((model.parent / "metrics.json").read_text())["test"]
    assert json.loads(out) == {name: pytest.approx(value, abs=1e-4) for name, value in expected.items()}


@pytest.mark.multiprocess
def test_a_predictor_waits_for_no_other_process(model):
    printed = launch(2, PROJECT / "tests" / "promises" / "predict_alone.py", model, "a great film")
    assert "answer: " in printed


def test_evaluating_unknown_labels_is_refused(call, model, tmp_path):
    (tmp_path / "test.tsv").write_text("text\tlabel\nfine\tprais\n")
    code, _, err = call("evaluate", model, "test.tsv")
    assert code == 2
    assert "test.tsv:2: label 'prais'" in err
    assert "Did you mean 'praise'?" in err


def test_columns_of_another_task_are_not_passed_over(call, model, tsv):
    code, _, err = call("evaluate", model, tsv, "--tags-column", "3")
    assert (code, "tags_column: this model does text_classification" in err) == (2, True), err


def test_a_run_says_what_it_tells_apart(call, checkpoint, tsv, conll):
    for recipe, train, words in [
        ("text_classification", tsv, "2 labels: 'blame', 'praise'."),
        ("ner", conll, "3 labels: 'LOC', 'ORG', 'PER'."),
    ]:
        code, _, err = call("run", recipe, "--train", train, "--checkpoint", checkpoint, "--dry-run")
        assert (code, words in err) == (0, True), err


@pytest.fixture(scope="module")
def tagger(checkpoint, conll, tmp_path_factory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "entities"
    done = nlp_transfer("run", "ner", "--train", conll, "--checkpoint", checkpoint, "--run-dir", run_dir, *FAST)
    assert done.returncode == 0, done.stderr
    return run_dir / "model"


def test_a_tagger_reads_one_column_even_if_two_look_like_a_pair(call, tagger, tmp_path):
    (tmp_path / "texts.csv").write_text("question,answer\nAda left Paris .,Bob left .\n")
    code, out, _ = call("predict", tagger, "--file", "texts.csv")
    assert (code, json.loads(out).keys()) == (0, {"source", "text", "entities"})
    code, _, err = call("predict", tagger, "--file", "texts.csv", "--text-pair-column", "answer")
    assert (code, "reads one text" in err) == (2, True)


@pytest.mark.parametrize("text", ["good", "half \\ud800 a pair"])
def test_what_cannot_be_predicted_leaves_no_file(call, model, tmp_path, text):
    lines = [f'{{"text": "{text}"}}', '{"text": 3}']
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    code, _, err = call("predict", model, "--file", "texts.jsonl", "--output", "out.jsonl")
    said, error = err.splitlines()
    assert (code, said) == (2, "Text is read from column 'text'.")
    assert error.startswith(f"error: texts.jsonl:{1 if 'half' in text else 2}: column 'text' holds")
    assert [path.name for path in tmp_path.iterdir()] == ["texts.jsonl"]


@pytest.mark.parametrize("args", [("half \udcff a pair",), ("a text", "--output", ".")])
def test_a_text_or_output_that_cannot_be_is_one_line(call, model, args):
    code, out, err = call("predict", model, *args)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err


def test_a_list_of_texts_needs_no_header(call, model, tmp_path):
    (tmp_path / "texts.csv").write_text("a great film\nan awful book\na fine song\n")
    code, out, err = call("predict", model, "--file", "texts.csv")
    assert (code, len(out.splitlines())) == (0, 3), err


def test_the_column_without_a_text_is_named_with_its_line(call, model, tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"text": "good"}\n' * 1500 + '{"text": null}\n')
    code, _, err = call("predict", model, "--file", "texts.jsonl", "--output", "out.jsonl")
    assert (code, err.splitlines()[-1]) == (2, "error: texts.jsonl:1501: column 'text' holds no text.")


@pytest.mark.parametrize("args", [("a text",), ("--file", "texts.txt")])
def test_a_column_where_there_is_none_is_refused(call, model, tmp_path, args):
    (tmp_path / "texts.txt").write_text("a text\n")
    code, _, err = call("predict", model, *args, "--text-column", "text")
    assert (code, len(err.splitlines())) == (2, 1), err


def test_an_output_that_cannot_be_written_is_refused_before_the_work(call, model, tsv):
    for command in (("evaluate", model, tsv), ("predict", model, "a text")):
        code, out, err = call(*command, "--output", "nowhere/out.jsonl")
        assert (code, out) == (2, "")
        assert "there is no folder nowhere" in err


def test_a_recipe_of_ones_own_is_run_by_its_path(call, checkpoint, tsv):
    assert call("copy", "text_classification", "mine.py")[0] == 0
    code, _, err = call("run", "mine.py", "--train", tsv, "--checkpoint", checkpoint, "--dry-run")
    assert (code, "Nothing was written" in err) == (0, True), err


def test_standard_input_that_is_no_utf8_is_one_line(model):
    command = f"printf 'good\\n\\377\\n' | {sys.executable} -m nlp_transfer predict {model}"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True, env=environment())
    assert done.returncode == 2
    assert done.stderr.startswith("error: standard input:2: not UTF-8")


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_a_folder_that_is_no_saved_model_is_never_replaced(call, checkpoint, tsv, tmp_path, flags):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("mine")
    args = ["run", "text_classification", "--train", tsv, "--checkpoint", checkpoint, "--run-dir", "."]
    code, _, err = call(*args, *FAST, *flags)
    assert (code, "no saved model" in err) == (2, True), err
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"


def test_gradient_checkpointing_is_refused_where_the_network_has_none(call, make_checkpoint, tsv):
    args = ["run", "text_classification", "--train", tsv, "--checkpoint", make_checkpoint("mpnet"), "--dry-run"]
    code, _, err = call(*args, "--training.gradient-checkpointing")
    assert (code, "gradient_checkpointing: mpnet" in err) == (2, True), err


@pytest.mark.parametrize("adapter", ["head", "none"])
def test_settings_of_lora_that_are_not_used_are_named(call, checkpoint, tsv, adapter):
    args = ["run", "text_classification", "--train", tsv, "--checkpoint", checkpoint, "--dry-run", "--adapter", adapter]
    unused = f"The settings of lora are not used, for the adapter is {adapter}."
    code, _, err = call(*args, "--lora.rank", "4")
    assert (code, unused in err) == (0, True), err
    code, _, err = call(*args)
    assert (code, unused in err) == (0, False), err


def test_json_is_not_predicted_line_by_line(model, call, tmp_path):
    (tmp_path / "list.json").write_text('[\n {"text": "a great film"}\n]\n')
    code, out, err = call("predict", model, "--file", "list.json")
    assert (code, out) == (2, "")
    assert "a JSON list is not read" in err
    (tmp_path / "lines.txt").write_text('{"text": "a great film"}\n{"text": "an awful book"}\n')
    code, out, _ = call("predict", model, "--file", "lines.txt")
    assert (code, [json.loads(line)["text"] for line in out.splitlines()]) == (0, ["a great film", "an awful book"])
