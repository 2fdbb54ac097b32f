"""Words and tags come out of every kind of file as they went in, in IOB2."""

from pathlib import Path

import datasets
import pytest

from nlp_transfer.data.config import NerData
from nlp_transfer.data.examples import TaggedExample
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.reading import read_ner, read_ner_file

ADA = (("Ada", "Lovelace", "left"), ("B-PER", "I-PER", "O"))
PARIS = (("Paris", "!"), ("B-geo-loc", "O"))


def read(path: Path, **columns: str) -> list[TaggedExample]:
    """The sentences of one file."""
    return list(read_ner_file(str(path), NerData(train=str(path), **columns), Notes()))


def plain(examples: list[TaggedExample]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(example.words, example.tags) for example in examples]


def lines(examples: list[TaggedExample]) -> list[int]:
    return [example.source.line for example in examples]


@pytest.mark.parametrize(
    ("content", "expected_lines"),
    [
        ("Ada B-PER\nLovelace I-PER\nleft O\n\nParis B-geo-loc\n! O\n", [1, 5]),
        ("Ada\tB-PER\nLovelace\tI-PER\nleft\tO\n\nParis\tB-geo-loc\n!\tO", [1, 5]),
        ("Ada B-PER\r\nLovelace I-PER\r\nleft O\r\n\r\nParis B-geo-loc\r\n! O\r\n", [1, 5]),
        ("Ada   B-PER \nLovelace  I-PER\nleft O\n\n\n\nParis B-geo-loc\n! O\n\n", [1, 7]),
        ("\n\nAda\tB-PER\nLovelace\tI-PER\nleft\tO\n\t\nParis\tB-geo-loc\n!\tO\n", [3, 7]),
        ("\ufeffAda B-PER\nLovelace I-PER\nleft O\n \nParis B-geo-loc\n! O\n", [1, 5]),
        (
            "-DOCSTART- -X- O O\n\nAda NNP I B-PER\nLovelace NNP I I-PER\nleft V O O\n\n"
            "-DOCSTART- -X- O O\n\nParis NNP I B-geo-loc\n! . O O\n",
            [3, 9],
        ),
        ("# id = 1\nAda B-PER\nLovelace I-PER\nleft O\n\n# id = 2\nParis B-geo-loc\n! O\n", [2, 7]),
        ("# newdoc\nAda\tB-PER\nLovelace\tI-PER\nleft\tO\n\n# newdoc\nParis\tB-geo-loc\n!\tO\n", [2, 7]),
    ],
    ids=["blanks", "tabs", "CRLF", "many blanks", "line of a tab", "BOM", "documents", "comments", "short comments"],
)
def test_column_files_are_read_whatever_parts_their_columns_and_sentences(tmp_path, content, expected_lines):
    path = tmp_path / "train.conll"
    path.write_bytes(content.encode())
    assert plain(read(path)) == [ADA, PARIS]
    assert lines(read(path)) == expected_lines


@pytest.mark.parametrize(
    ("columns", "words", "tags"),
    [
        ({}, ("Ada", "#1"), ("B-PER", "O")),
        ({"words_column": "0"}, ("1", "2"), ("B-PER", "O")),
        ({"words_column": "1"}, ("Ada", "#1"), ("B-PER", "O")),
        ({"words_column": "1", "tags_column": "2"}, ("Ada", "#1"), ("B-X", "B-Y")),
        ({"words_column": "-3", "tags_column": "-1"}, ("Ada", "#1"), ("B-PER", "O")),
    ],
)
def test_columns_of_a_column_file_are_chosen_by_number(tmp_path, columns, words, tags):
    path = tmp_path / "train.conll"
    path.write_text("1 Ada B-X B-PER\n2 #1 B-Y O\n")
    assert plain(read(path, **columns)) == [(words, tags)]


@pytest.mark.parametrize("word", ["10\u00a0000", "a\u2028b", "a\x85b", "\u200b", "#1", "-", "'"])
@pytest.mark.parametrize("separator", [" ", "\t"])
def test_words_hold_any_character_but_blanks_and_tabs(tmp_path, separator, word):
    path = tmp_path / "train.conll"
    path.write_text(f"{word}{separator}B-PER\nleft{separator}O\n")
    assert plain(read(path)) == [((word, "left"), ("B-PER", "O"))]


def test_jsonl_lists_are_read(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text(
        '{"tokens": ["Ada", "Lovelace", "left"], "ner_tags": ["B-PER", "I-PER", "O"]}\n\n'
        '{"tokens": ["Paris", "!"], "ner_tags": ["B-geo-loc", "O"]}\n'
    )
    assert plain(read(path)) == [ADA, PARIS]
    assert lines(read(path)) == [1, 3]


def test_jsonl_is_known_by_its_look(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text('{"id": 1, "words": ["Paris", "!"], "labels": ["B-geo-loc", "O"]}')
    assert plain(read(path)) == [PARIS]


@pytest.mark.parametrize("named", [True, False], ids=["class ids", "strings"])
def test_parquet_lists_are_read(tmp_path, named):
    path = tmp_path / "train.parquet"
    names = ["O", "B-PER", "I-PER", "B-geo-loc"]
    tag = datasets.ClassLabel(names=names) if named else datasets.Value("string")
    features = datasets.Features(tokens=datasets.List(datasets.Value("string")), ner_tags=datasets.List(tag))
    columns = {"tokens": [list(ADA[0]), list(PARIS[0])], "ner_tags": [list(ADA[1]), list(PARIS[1])]}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path)
    assert plain(read(path)) == [ADA, PARIS]


def test_a_folder_with_seq_in_and_seq_out_is_read_line_by_line(tmp_path):
    (tmp_path / "seq.in").write_text("Ada Lovelace left\nParis !\n")
    (tmp_path / "seq.out").write_text("B-PER I-PER O\nB-geo-loc O\n")
    assert plain(read(tmp_path)) == [ADA, PARIS]
    assert str(read(tmp_path)[1].source) == f"{tmp_path / 'seq.in'}:2"


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("IOB1", ["I-PER", "I-PER", "B-PER", "O", "I-geo-loc"]),
        ("IOB2", ["B-PER", "I-PER", "B-PER", "O", "B-geo-loc"]),
        ("BIOES", ["B-PER", "E-PER", "S-PER", "O", "S-geo-loc"]),
        ("BILOU", ["B-PER", "L-PER", "U-PER", "O", "U-geo-loc"]),
    ],
)
def test_every_scheme_is_read_as_iob2_and_the_reader_is_told(tmp_path, scheme, tags):
    path = tmp_path / "train.conll"
    path.write_text("\n".join(f"word{i} {tag}" for i, tag in enumerate(tags)))
    splits = read_ner(NerData(train=str(path), validation=str(path), allow_leakage=True))
    assert splits.train[0].tags == ("B-PER", "I-PER", "B-PER", "O", "B-geo-loc")
    said = [note for note in splits.notes if "tags are in" in note]
    assert said == ([] if scheme == "IOB2" else [f"{path}: tags are in {scheme}, read as IOB2."])


def test_each_file_has_a_scheme_of_its_own(tmp_path):
    train, validation = tmp_path / "train.conll", tmp_path / "dev.conll"
    train.write_text("Ada B-PER\nLovelace E-PER\n")
    validation.write_text("Ada I-PER\nByron I-PER\n\nBob I-PER\nBob B-PER\n")
    splits = read_ner(NerData(train=str(train), validation=str(validation)))
    assert splits.train[0].tags == splits.validation[0].tags == ("B-PER", "I-PER")
    assert len([note for note in splits.notes if "tags are in" in note]) == 2
