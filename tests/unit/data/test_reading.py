"""Texts and labels come out of every kind of file as they went in."""

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from nlp_transfer.data.config import TextData
from nlp_transfer.data.examples import Source, TextExample
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.reading import read_text_classification, read_text_file
from nlp_transfer.errors import DataError

ROWS = [("Good film", "praise"), ('He said "no", twice', "blame"), ("été 東京 🙂", "praise"), ("a | b; 'c'", "2")]


def read(path: Path, *, multi_label: bool = False, **columns: str) -> list[TextExample]:
    """The examples of one file."""
    return list(read_text_file(str(path), TextData(train=str(path), **columns), Notes(), multi_label=multi_label))


def pairs(examples: list[TextExample]) -> list[tuple[str, str]]:
    return [(example.text, *example.labels) for example in examples]


def lines(examples: list[TextExample]) -> list[int]:
    return [example.source.line for example in examples]


def write_csv(path: Path) -> None:
    cells = [tuple(cell.replace('"', '""') for cell in row) for row in ROWS]
    path.write_text("text,label\n" + "".join(f'"{text}","{label}"\n' for text, label in cells))


def write_tsv(path: Path) -> None:
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in ROWS))


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS))


def write_parquet(path: Path) -> None:
    texts, labels = map(list, zip(*ROWS, strict=True))
    pyarrow.parquet.write_table(pa.table({"text": texts, "label": labels}), path)


def write_class_ids(path: Path) -> None:
    texts, labels = map(list, zip(*ROWS, strict=True))
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=sorted(set(labels))))
    datasets.Dataset.from_dict({"text": texts, "label": labels}, features=features).to_parquet(path)


def write_categories(path: Path) -> None:
    texts, labels = map(list, zip(*ROWS, strict=True))
    columns = {"text": pa.array(texts, pa.large_string()), "label": pa.array(labels).dictionary_encode()}
    pyarrow.parquet.write_table(pa.table(columns), path)


@pytest.mark.parametrize(
    ("name", "write", "first_line"),
    [
        ("rows.csv", write_csv, 2),
        ("rows.CSV", write_csv, 2),
        ("rows.txt", write_csv, 2),
        ("rows.tsv", write_tsv, 2),
        ("rows", write_tsv, 2),
        ("rows.jsonl", write_jsonl, 1),
        ("rows.ndjson", write_jsonl, 1),
        ("rows.json", write_jsonl, 1),
        ("rows.parquet", write_parquet, 1),
        ("class-ids.parquet", write_class_ids, 1),
        ("categories.parquet", write_categories, 1),
    ],
)
def test_every_format_gives_the_same_examples_with_their_place(
    tmp_path: Path, name: str, write: Callable[[Path], None], first_line: int
):
    path = tmp_path / name
    write(path)
    assert read(path) == [
        TextExample(text, (label,), Source(str(path), line)) for line, (text, label) in enumerate(ROWS, first_line)
    ]


def test_a_folder_with_seq_in_and_label_is_read_line_by_line(tmp_path):
    (tmp_path / "seq.in").write_text("play a song\nwhat's on ?\n")
    (tmp_path / "label").write_text("PlayMusic\nSearch\n")
    examples = read(tmp_path)
    assert pairs(examples) == [("play a song", "PlayMusic"), ("what's on ?", "Search")]
    assert str(examples[1].source) == f"{tmp_path / 'seq.in'}:2"


@pytest.mark.parametrize(
    ("content", "expected", "expected_lines"),
    [
        (b'text,label\r\n"a, b",x\r\nc,y\r\n', [("a, b", "x"), ("c", "y")], [2, 3]),
        (b'text,label\n"two\nlines",x\nc,y\n', [("two\nlines", "x"), ("c", "y")], [2, 4]),
        (b'text,label\n"say ""hi""",x\n', [('say "hi"', "x")], [2]),
        (b"text,label\n\na,x\n\n\nb,y", [("a", "x"), ("b", "y")], [3, 6]),
        (b"\xef\xbb\xbftext,label\na,x\n", [("a", "x")], [2]),
        (b"text,label\na, x \n", [("a", "x")], [2]),
        (b" text , label \na,x\n", [("a", "x")], [2]),
        (b"id,label,text\n1,x,a\n", [("a", "x")], [2]),
        ("text,label\na\u2028b\x85c,x\n".encode(), [("a\u2028b\x85c", "x")], [2]),
        (b"text,label\n" + b"a" * 200_000 + b",x\n", [("a" * 200_000, "x")], [2]),
    ],
    ids=["CRLF", "line feed", "quotes", "blank lines", "BOM", "blanks", "header", "order", "separators", "long text"],
)
def test_csv_is_read_as_it_was_written(tmp_path, content, expected, expected_lines):
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    assert pairs(read(path)) == expected
    assert lines(read(path)) == expected_lines


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'text\tlabel\n"a\tx\n', [('"a', "x")]),
        (b'text\tlabel\n"a"\tx\n', [('"a"', "x")]),
        (b"text\tlabel\r\na, b\tx\r\n", [("a, b", "x")]),
    ],
    ids=["one quotation mark", "quotation marks", "commas and CRLF"],
)
def test_tsv_has_no_quoting(tmp_path, content, expected):
    path = tmp_path / "rows.tsv"
    path.write_bytes(content)
    assert pairs(read(path)) == expected


@pytest.mark.parametrize(
    "labels",
    [("pos", "neg"), ("1", "0"), ("y", "n"), ("question", "comment")],
    ids="/".join,
)
@pytest.mark.parametrize("name", ["rows.tsv", "rows.csv"])
def test_a_file_without_a_header_loses_no_row(tmp_path, name, labels):
    path = tmp_path / name
    rows = [(f"some text {i}", labels[i % 2]) for i in range(6)]
    path.write_text("".join(f"{text}{chr(9) if name.endswith('tsv') else ','}{label}\n" for text, label in rows))
    assert pairs(read(path)) == rows
    assert lines(read(path)) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("header", ["text\tlabel", "phrase\tmood", "Sentence\tY", "label\ttext"])
def test_a_header_is_not_taken_for_an_example(tmp_path, header):
    path = tmp_path / "rows.tsv"
    rows = [(f"some text {i}", "ny"[i % 2]) for i in range(6)]
    cells = [(label, text) if header.startswith("label") else (text, label) for text, label in rows]
    path.write_text("\n".join([header, *map("\t".join, cells)]))
    assert pairs(read(path)) == rows


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, ("one", "two", ("a",))),
        ({"text_column": "hypothesis"}, ("two", None, ("a",))),
        ({"text_column": "hypothesis", "text_pair_column": "premise"}, ("two", "one", ("a",))),
        ({"label_column": "genre"}, ("one", "two", ("b",))),
    ],
    ids=["recognised", "text named", "pair named", "label named"],
)
def test_columns_are_recognised_or_named(tmp_path, columns, expected):
    path = tmp_path / "rows.csv"
    path.write_text("premise,hypothesis,label,genre\none,two,a,b\n")
    (example,) = read(path, **columns)
    assert (example.text, example.text_pair, example.labels) == expected


def test_what_was_recognised_is_said(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("premise,hypothesis,label\none,two,a\n")
    splits = read_text_classification(TextData(train=str(path), validation=str(path), allow_leakage=True))
    assert (
        splits.notes[0]
        == f"{path}: text is read from column 'premise', second text from 'hypothesis', label from 'label'."
    )


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ('{"text": "a", "label": 5}', "5"),
        ('{"text": "a", "label": "05"}', "05"),
        ('{"text": "a", "label": 0}', "0"),
        ('{"text": "a", "label": true}', "true"),
        ('{"text": "a", "label": 1.10}', "1.10"),
        ('{"text": "a", "label": 2e2}', "2e2"),
        ('{"text": "a", "label": 4.5}', "4.5"),
    ],
)
def test_numeric_labels_stay_names(tmp_path, line, label):
    path = tmp_path / "rows.jsonl"
    path.write_text(line)
    assert read(path)[0].labels == (label,)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("rows.csv", 'text,labels\na,"x, y"\nb,x\nc,\n', [("x", "y"), ("x",), ()]),
        ("rows.tsv", "text\tlabels\na\tx,y,\nb\tx\n", [("x", "y"), ("x",)]),
        (
            "rows.jsonl",
            '{"text": "a", "labels": ["x", "y, z"]}\n{"text": "b", "labels": []}\n{"text": "c", "labels": null}\n',
            [("x", "y, z"), (), ()],
        ),
        ("rows.jsonl", '{"text": "a", "labels": "x,y"}\n{"text": "b", "labels": [3, 5]}\n', [("x", "y"), ("3", "5")]),
    ],
    ids=["csv", "tsv", "lists", "mixed"],
)
def test_multi_label_takes_lists_and_names_parted_by_commas(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_text(content)
    assert [example.labels for example in read(path, multi_label=True)] == expected


def test_multi_label_ids_of_a_parquet_file_get_their_names(tmp_path):
    path = tmp_path / "rows.parquet"
    features = datasets.Features(
        text=datasets.Value("string"), labels=datasets.List(datasets.ClassLabel(names=["x", "y", "z"]))
    )
    datasets.Dataset.from_dict({"text": ["a", "b"], "labels": [[0, 2], []]}, features=features).to_parquet(path)
    assert [example.labels for example in read(path, multi_label=True)] == [("x", "z"), ()]


def test_multi_label_takes_a_folder(tmp_path):
    (tmp_path / "seq.in").write_text("play a song and stop\nstop\n")
    (tmp_path / "label").write_text("Play,Stop\nStop\n")
    assert [example.labels for example in read(tmp_path, multi_label=True)] == [("Play", "Stop"), ("Stop",)]


def test_commas_are_part_of_a_name_unless_multi_label(tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text("text\tlabel\na\tx, y\n")
    assert read(path)[0].labels == ("x, y",)


@pytest.fixture
def hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, socket_disabled: None) -> Path:
    """A folder that `datasets` reads like a set on the Hub; what it caches goes with the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    for split, count in [("train", 3), ("validation", 2), ("test", 1)]:
        (folder / f"{split}.csv").write_text("text,label\n" + "".join(f"{split} {i},{i % 2}\n" for i in range(count)))
    return folder


def test_a_hub_id_brings_its_splits(hub_folder):
    splits = read_text_classification(TextData(train=f"hub:{hub_folder}"))
    assert pairs(splits.train) == [("train 0", "0"), ("train 1", "1"), ("train 2", "0")]
    assert pairs(splits.validation) == [("validation 0", "0"), ("validation 1", "1")]
    assert pairs(splits.test) == [("test 0", "0")]
    assert str(splits.train[1].source) == f"hub:{hub_folder}/train:2"
    assert splits.held_out is None


def test_a_named_file_stands_in_for_a_split_of_the_hub(hub_folder, tmp_path):
    path = tmp_path / "dev.csv"
    path.write_text("text,label\nother,1\n")
    splits = read_text_classification(TextData(train=f"hub:{hub_folder}", validation=str(path)))
    assert pairs(splits.validation) == [("other", "1")]
    assert pairs(splits.test) == [("test 0", "0")]


@pytest.mark.parametrize(
    ("kept", "train", "message"),
    [
        (["train"], "missing", "could not be downloaded from the Hub"),
        (["test"], "set", "has no split 'train'. Its splits are 'test'."),
        ([], "set", "could not be downloaded from the Hub"),
    ],
    ids=["no such set", "no train", "no files"],
)
def test_an_unusable_hub_set_is_refused(hub_folder, kept, train, message):
    for path in hub_folder.glob("*.csv"):
        if path.stem not in kept:
            path.unlink()
    spelling = f"hub:{hub_folder.parent / train}"
    with pytest.raises(DataError) as caught:
        read_text_classification(TextData(train=spelling))
    assert str(caught.value).startswith(spelling)
    assert message in str(caught.value)


def test_the_configurations_of_a_hub_set_are_named_where_one_must_be_chosen(tmp_path):
    lines = [f"- config_name: {name}\n  data_files: {name}/train.csv\n" for name in ("cola", "sst2")]
    for name in ("cola", "sst2"):
        (tmp_path / name).mkdir()
        write_csv(tmp_path / name / "train.csv")
    (tmp_path / "README.md").write_text("---\nconfigs:\n" + "".join(lines) + "---\n")
    with pytest.raises(DataError) as caught:
        read_text_classification(TextData(train=f"hub:{tmp_path}"))
    assert "has several configurations" in str(caught.value)
    assert "['cola', 'sst2']" in str(caught.value)
    assert str(caught.value).endswith(f"as hub:{tmp_path}:CONFIG.")


@pytest.mark.parametrize("part", ["validation", "test"])
def test_only_train_takes_a_hub_id(tmp_path, part):
    path = tmp_path / "rows.csv"
    write_csv(path)
    with pytest.raises(DataError, match="only --train takes a Hub id"):
        read_text_classification(TextData(train=str(path), **{part: "hub:org/name"}))
