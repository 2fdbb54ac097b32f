"""What cannot be used is refused in one line that names the file, and the line where there is one."""

import bz2
import gzip
import json
import lzma
import os
import re

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from nlp_transfer.data.config import NerData, TextData
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.reading import read_ner, read_ner_parts, read_text_classification, read_text_parts
from nlp_transfer.errors import ConfigError, DataError

HEADER = b"text,label\n"
TEXT_FILES = {
    "empty csv": ("f.csv", b"", ""),
    "empty tsv": ("f.tsv", b"\n \n", ""),
    "empty jsonl": ("f.jsonl", b"\n", ""),
    "empty file of unknown kind": ("f.txt", b"", ""),
    "csv header only": ("f.csv", HEADER, ""),
    "tsv header only": ("f.tsv", b"text\tlabel\n", ""),
    "ragged csv": ("f.csv", HEADER + b"a,x\nb, c,y\n", ":3"),
    "short csv": ("f.csv", HEADER + b"a\n", ":2"),
    "ragged csv after a text of two lines": ("f.csv", HEADER + b'"a\nb",x\nc\n', ":4"),
    "ragged tsv": ("f.tsv", b"text\tlabel\na\tx\nb\tc\ty\n", ":3"),
    "column twice": ("f.csv", b"text,label,label\na,x,y\nb,x,y\n", ""),
    "no label column": ("f.csv", b"id,text,note\n1,a,c\n2,b,d\n", ""),
    "no text column": ("f.csv", b"id,note,label\n1,a,x\n2,b,x\n", ""),
    "empty label": ("f.csv", HEADER + b"a,x\nb,\n", ":3"),
    "blank label": ("f.csv", HEADER + b"a,x\nb,  \n", ":3"),
    "empty text": ("f.csv", HEADER + b"a,x\n,y\n", ":3"),
    "blank text": ("f.tsv", b"text\tlabel\n  \ty\n", ":2"),
    "unclosed quotation mark": ("f.csv", HEADER + b'a,x\n"b,y\nc,x\n', ":3"),
    "text after a quotation": ("f.csv", HEADER + b'"a" b,x\n', ":2"),
    "not UTF-8": ("f.csv", HEADER + b"a,x\nb,y\ncaf\xe9,x\n", ":4"),
    "not UTF-8 far down": ("f.csv", HEADER + b"some text,x\n" * 3000 + b"caf\xe9,x\n", ":3002"),
    "UTF-16 cut in a character": ("f.csv", "text,label\na,x\n".encode("utf-16")[:-3], ":2"),
    "latin-1 in tsv": ("f.tsv", "text\tlabel\ncafé\tx\n".encode("latin-1"), ":2"),
    "cut gzip": ("f.csv.gz", gzip.compress(HEADER + b"a,x\nb,y\n" * 99)[:-20], ""),
    "damaged gzip": ("f.csv.gz", gzip.compress(HEADER + b"a,x\n" * 99)[:-8] + b"12345678", ""),
    "cut xz": ("f.jsonl.xz", lzma.compress(b'{"text": "a", "label": "x"}\n' * 99)[:-20], ""),
    "damaged bzip2": ("f.csv.bz2", b"BZh91AY&SY" + b"x" * 50, ""),
    "a zip archive": ("f.csv", b"PK\x03\x04" + b"x" * 50, ""),
    "packed parquet": ("f.parquet.gz", gzip.compress(b"PAR1"), ""),
    "carriage returns alone": ("f.csv", b"text,label\ra,x\rb,y\r", ""),
    "header twice": ("f.csv", HEADER + b"a,x\ntext,label\nb,y\n", ":3"),
    "header twice in tsv": ("f.tsv", b"text\tlabel\na\tx\ntext\tlabel\n", ":3"),
    "labels that differ in case": ("f.csv", HEADER + b"a,pos\nb,neg\nc,Pos\n", ":4"),
    "labels that differ in blanks": ("f.csv", HEADER + b"a,very good\nb,bad\nc,very  good\n", ":4"),
    "header twice with blanks": ("f.csv", b"text, label\na, x\ntext, label\nb, y\n", ":3"),
    "header twice with a mark": ("f.csv", b"\xef\xbb\xbftext,label\na,x\n\xef\xbb\xbftext,label\nb,y\n", ":3"),
    "header twice in other letters": ("f.csv", HEADER + b"a,x\nText,Label\nb,y\n", ":3"),
    "carriage return in a later line": ("f.tsv", b"text\tlabel\na\tx\nb\ry\tx\n", ":3"),
    "row of empty cells": ("f.csv", HEADER + b"a,x\n,\nb,y\n", ":3"),
    "row of empty cells in tsv": ("f.tsv", b"text\tlabel\na\tx\n\t\nb\ty\n", ":3"),
    "label with a zero-width blank": ("f.csv", HEADER + "a,x\nb,y\u200b\n".encode(), ":3"),
    "labels in two Unicode forms": ("f.csv", HEADER + "a,caf\u00e9\nb,y\nc,cafe\u0301\n".encode(), ":4"),
    "labels of two widths": ("f.csv", HEADER + "a,pos\nb,neg\nc,\uff50\uff4f\uff53\n".encode(), ":4"),
    "text of nothing visible": ("f.csv", HEADER + "a,x\n\u200b,y\n".encode(), ":3"),
    "NUL in a json text": ("f.jsonl", b'{"text": "a\\u0000b", "label": "x"}\n', ":1"),
    "an old Excel sheet": ("f.csv", b"\xd0\xcf\x11\xe0" + b"x" * 50, ""),
    "parquet by another name": ("f.csv", b"PAR1" + b"x" * 50, ""),
    "half a surrogate in a label": ("f.jsonl", b'{"text": "a", "label": "\\ud83d"}\n', ":1"),
    "ragged semicolons": ("f.csv", b"text;label\na;x\nb;c;y\n", ":3"),
    "NUL byte in csv": ("f.csv", HEADER + b"a,x\nb\x00c,y\n", ":3"),
    "NUL byte in tsv": ("f.tsv", b"text\tlabel\nb\x00c\ty\n", ":2"),
    "UTF-16 without a mark": ("f.csv", "text,label\na,x\n".encode("utf-16-le"), ":1"),
    "broken json": ("f.jsonl", b'{"text": "a", "label": "x"}\n{"text": "b", \n', ":2"),
    "two objects a line": ("f.jsonl", b'{"text": "a", "label": "x"} {"text": "a", "label": "x"}\n', ":1"),
    "json list": ("f.jsonl", b'["a", "x"]\n', ":1"),
    "json string": ("f.jsonl", b'"a"\n', ":1"),
    "file of one json list": ("f.json", b'[\n{"text": "a", "label": "x"}\n]\n', ""),
    "json too deep": ("f.jsonl", b"[" * 100_000 + b"\n", ":1"),
    "json number too long": ("f.jsonl", b'{"text": "a", "label": ' + b"1" * 5000 + b"}\n", ":1"),
    "json without label": ("f.jsonl", b'{"text": "a", "label": "x"}\n{"text": "b"}\n', ":2"),
    "null label": ("f.jsonl", b'{"text": "a", "label": null}\n', ":1"),
    "label that is not a number": ("f.jsonl", b'{"text": "a", "label": NaN}\n', ":1"),
    "list of labels": ("f.jsonl", b'{"text": "a", "label": ["x"]}\n', ":1"),
    "label object": ("f.jsonl", b'{"text": "a", "label": {"x": 1}}\n', ":1"),
    "null text": ("f.jsonl", b'{"text": null, "label": "x"}\n', ":1"),
    "text that is a number": ("f.jsonl", b'{"text": 5, "label": "x"}\n', ":1"),
    "half a surrogate pair": ("f.jsonl", b'{"text": "a \\ud83d b", "label": "x"}\n', ":1"),
    "jsonl named csv": ("f.csv", b'{"text": "a", "label": "x"}\n', ""),
    "jsonl named tsv": ("f.tsv", b'{"text": "a", "label": "x"}\n', ""),
    "fastText's format": ("f.txt", b"__label__x a, b\n__label__y c, d\n", ""),
    "two separators that fit": ("f.csv", b"phrase;mood;score, in %\na;x;3,5\nb;y;4,5\n", ""),
    "a title above the header": ("f.csv", b"My survey,2021\ntext,label\na,x\nb,y\n", ":2"),
    "header below rows": ("f.csv", b"a,x\nb,y\ntext,label\nc,x\nd,y\n", ":3"),
    "column file for texts": ("f.conll", b"Ada B-PER\n", ""),
    "json list over lines": ("f.jsonl", b'[\n{"text": "a", "label": "x"}\n]\n', ":1"),
    "header in another order": ("f.csv", HEADER + b"a,x\nlabel,text\nb,y\n", ":3"),
    "text and Text": ("f.csv", b"text,Text,label\na,b,x\nc,d,y\n", ""),
    "label and Label": ("f.jsonl", b'{"text": "a", "label": "x", "Label": "y"}\n', ""),
    "index in place of a label": ("f.csv", b"Unnamed: 0,text\n0,a\n1,b\n", ""),
    "id in place of a label": ("f.csv", b"id,text\n0,a\n1,b\n", ""),
    "labels that differ in quotation marks": ("f.csv", HEADER + b"a,'x'\nb,y\nc,x\n", ":4"),
    "labels that are one number": ("f.csv", HEADER + b"a,1\nb,0\nc,1.0\n", ":4"),
    "labels with leading zeros": ("f.csv", HEADER + b"a,7\nb,8\nc,007\n", ":4"),
    "label with a mark of direction": ("f.csv", HEADER + "a,x\nb,y\u200e\n".encode(), ":3"),
    "label with an escape": ("f.csv", HEADER + b"a,x\nb,\x1by\n", ":3"),
    "NUL in a json label": ("f.jsonl", b'{"text": "a", "label": "x\\u0000"}\n', ":1"),
    "text of marks of direction": ("f.csv", HEADER + "a,x\n\u200e,y\n".encode(), ":3"),
    "infinite label": ("f.jsonl", b'{"text": "a", "label": Infinity}\n', ":1"),
    "key twice": ("f.jsonl", b'{"text": "a", "label": "x"}\n{"text": "a", "label": "x", "label": "y"}\n', ":2"),
    "label key missing": ("f.jsonl", b'{"text": "a", "label": "x"}\n{"text": "b", "lable": "y"}\n', ":2"),
    "bzip2 with garbage behind": ("f.csv.bz2", bz2.compress(HEADER + b"a,x\nb,y\n") + b"garbage", ""),
    "bzip2 with a cut second stream": ("f.csv.bz2", bz2.compress(HEADER + b"a,x\n") + bz2.compress(b"b,y\n")[:-9], ""),
    "xz with garbage behind": ("f.csv.xz", lzma.compress(HEADER + b"a,x\nb,y\n") + b"garbage", ""),
    "packed twice": ("f.csv.gz", gzip.compress(gzip.compress(HEADER + b"a,x\n")), ""),
    "zip in gzip": ("f.csv.gz", gzip.compress(b"PK\x03\x04" + b"x" * 50), ""),
    "a 7z archive": ("f.csv", b"7z\xbc\xaf\x27\x1c" + b"x" * 50, ""),
    "an LFS pointer": ("f.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n", ""),
    "a web page": ("f.csv", b"<!DOCTYPE html>\n<html></html>\n", ""),
    "no parquet": ("f.parquet", HEADER + b"a,x\n", ""),
    "empty parquet": ("f.parquet", b"", ""),
    "cut parquet": ("f.parquet", b"PAR1\x00\x00\x00", ""),
}
TAG_FILES = {
    "empty": ("f.conll", b"", ""),
    "blank": ("f.conll", b"\n\t\n\n", ""),
    "documents only": ("f.conll", b"-DOCSTART- O\n\n", ""),
    "line of one column": ("f.conll", b"Ada B-PER\nleft O\nParis\n", ":3"),
    "line of three columns": ("f.conll", b"Ada B-PER\nleft O\n\nNew York B-LOC\n", ":4"),
    "tag of no scheme": ("f.conll", b"Ada B-PER\nleft O\n\nParis LOC\n", ":4"),
    "tag without a type": ("f.conll", b"Ada B-\n", ":1"),
    "type of outside": ("f.conll", b"Ada O-PER\n", ":1"),
    "two schemes": ("f.conll", b"Ada S-PER\n\nBob U-PER\n", ":3"),
    "small letters": ("f.conll", b"Ada b-per\n", ":1"),
    "header": ("f.tsv", b"word\ttag\nAda\tB-PER\n", ":1"),
    "not UTF-8": ("f.conll", b"Ada B-PER\n\nZ\xfcrich B-LOC\n", ":3"),
    "NUL byte": ("f.conll", b"Ada B-PER\n\nA\x00da B-PER\n", ":3"),
    "more words than tags": ("f.jsonl", b'{"tokens": ["a", "b"], "tags": ["O"]}\n', ":1"),
    "no words": ("f.jsonl", b'{"tokens": [], "tags": []}\n', ":1"),
    "words in one string": ("f.jsonl", b'{"tokens": "a b", "tags": "O O"}\n', ":1"),
    "tags missing": ("f.jsonl", b'{"tokens": ["a"], "tags": ["O"]}\n{"tokens": ["a"]}\n', ":2"),
    "null tag": ("f.jsonl", b'{"tokens": ["a"], "tags": [null]}\n', ":1"),
    "null word": ("f.jsonl", b'{"tokens": ["a", null], "tags": ["O", "O"]}\n', ":1"),
    "word that is a list": ("f.jsonl", b'{"tokens": [["a"]], "tags": ["O"]}\n', ":1"),
    "tags that are class ids": ("f.jsonl", b'{"tokens": ["a"], "tags": ["3"]}\n', ":1"),
    "tags that are numbers": ("f.jsonl", b'{"tokens": ["a"], "tags": [0]}\n', ":1"),
    "a word without a tag that begins with #": ("f.conll", b"Ada B-PER\n#MeToo\nleft O\n", ":2"),
    "carriage returns between words": ("f.conll", b"Ada B-PER\rleft O\nBob B-PER\n", ":1"),
    "prefix of two letters": ("f.conll", b"Ada B-PER\nBob BI-PER\n", ":2"),
    "prefix of two letters in BIOES": ("f.conll", b"Ada S-PER\nBob IES-PER\n", ":2"),
    "words counted wrongly": ("f.conllu", b"1\tAda\tX\tB-PER\n\n1\tBob\tX\tB-PER\n3\twent\tX\tO\n", ":4"),
    "words counted on and on": ("f.conllu", b"1\tAda\tX\tB-PER\n\n2\tBob\tX\tB-PER\n", ":3"),
    "types that differ in case in a long sentence": ("f.conll", b"Ada B-PER\n\nwith O\nBob B-Per\n", ":4"),
    "span that states another text": (
        "f.jsonl",
        b'{"text": "Ada left", "spans": [{"start": 0, "end": 3, "label": "P", "text": "Bob"}]}\n',
        ":1",
    ),
    "two columns of spans": ("f.jsonl", b'{"text": "Ada", "spans": [[0, 3, "P"]], "label": [[0, 3, "P"]]}\n', ""),
    "types that differ in case": ("f.conll", b"Ada B-PER\n\nBob B-Per\n", ":3"),
    "a tag that is none beside a good one": ("f.conll", b"Ada B-PER\nleft 0\n", ":2"),
    "cut gzip": ("f.conll.gz", gzip.compress(b"Ada B-PER\nleft O\n" * 99)[:-20], ""),
    "span past the end": ("f.jsonl", b'{"text": "Ada left", "entities": [[0, 99, "PER"]]}\n', ":1"),
    "span of nothing": ("f.jsonl", b'{"text": "Ada left", "entities": [[3, 3, "PER"]]}\n', ":1"),
    "span of a blank": ("f.jsonl", b'{"text": "Ada left", "entities": [[3, 4, "PER"]]}\n', ":1"),
    "span that ends before it starts": ("f.jsonl", b'{"text": "Ada left", "entities": [[3, 0, "PER"]]}\n', ":1"),
    "span before the start": ("f.jsonl", b'{"text": "Ada left", "entities": [[-3, 2, "PER"]]}\n', ":1"),
    "span without a label": ("f.jsonl", b'{"text": "Ada left", "entities": [[0, 3, null]]}\n', ":1"),
    "span of two parts": ("f.jsonl", b'{"text": "Ada left", "entities": [[0, 3]]}\n', ":1"),
    "span of words": ("f.jsonl", b'{"text": "Ada left", "entities": [["0", "3", "PER"]]}\n', ":1"),
    "spans that overlap": ("f.jsonl", b'{"text": "Ada left", "entities": [[0, 3, "PER"], [2, 8, "X"]]}\n', ":1"),
    "spans missing": ("f.jsonl", b'{"text": "Ada", "spans": []}\n{"text": "Ada"}\n', ":2"),
    "text missing beside spans": ("f.jsonl", b'{"text": "Ada", "spans": []}\n{"text": null, "spans": []}\n', ":2"),
    "NUL in a json word": ("f.jsonl", b'{"tokens": ["a\\u0000"], "tags": ["O"]}\n', ":1"),
    "words and spans": (
        "f.jsonl",
        b'{"tokens": ["Ada"], "ner_tags": ["B-P"], "text": "Ada", "entities": []}\n',
        "",
    ),
    "only ranges": ("f.conllu", b"1\tAda\tX\tB-P\n2\tleft\tX\tO\n\n1-2\tdu\tX\tO\n", ":4"),
    "range with a tag": ("f.conllu", b"1-2\tdu\tX\tB-LOC\n1\tde\tX\tO\n2\tle\tX\tO\n", ":1"),
    "type that is a tag": ("f.conll", b"Ada B-PER\nBob B-B-PER\n", ":2"),
    "type that begins with a hyphen": ("f.conll", b"Ada B-PER\nBob B--PER\n", ":2"),
    "type with a no-break space": ("f.conll", "Ada B-PER\nBob B-PER\u00a0\n".encode(), ":2"),
    "type with a zero-width blank": ("f.conll", "Ada B-PER\nBob B-LOC\u200b\n".encode(), ":2"),
    "one S in an IOB2 file": ("f.conll", b"Ada B-PER\nL I-PER\n\nBob B-PER\n\nCy S-PER\n", ":6"),
    "one S in an IOB1 file": ("f.conll", b"Ada I-PER\nL I-PER\n\nBob I-PER\n\nCy S-PER\n", ":6"),
    "empty word": ("f.conll", b"Ada\tB-PER\n\tO\n", ":2"),
    "span label that is a tag": (
        "f.jsonl",
        b'{"text": "Ada Bob", "entities": [[0, 3, "PER"], [4, 7, "B-PER"]]}\n',
        ":1",
    ),
    "span label O": ("f.jsonl", b'{"text": "Ada", "entities": [[0, 3, "O"]]}\n', ":1"),
    "all rejected": ("f.jsonl", b'{"text": "Ada", "spans": [], "answer": "reject"}\n', ""),
    "jsonl named conll": ("f.conll", b'{"tokens": ["Ada"], "tags": ["B-P"]}\n', ":1"),
    "no tags column": ("f.jsonl", b'{"tokens": ["a"], "pos": ["N"]}\n', ""),
    "no parquet": ("f.parquet", b"Ada B-PER\n", ""),
    "empty parquet": ("f.parquet", b"", ""),
}
FOLDERS = {
    "no file": ({}, ""),
    "no labels": ({"seq.in": "a\n"}, ""),
    "label missing at the end": ({"seq.in": "a\nb\n", "label": "x\n", "seq.out": "O\n"}, "seq.in"),
    "text missing at the end": ({"seq.in": "a\n", "label": "x\ny\n", "seq.out": "O\nO\n"}, "seq.in"),
    "empty text": ({"seq.in": "a\n\nb\n", "label": "x\ny\nx\n", "seq.out": "O\nO\nO\n"}, "seq.in:2"),
    "empty label": ({"seq.in": "a\nb\n", "label": "x\n\n", "seq.out": "O\n\n"}, ":2"),
    "empty files": ({"seq.in": "", "label": "", "seq.out": ""}, ""),
}


def refusal(config: TextData | NerData) -> str:
    with pytest.raises(DataError) as caught:
        read_text_classification(config) if isinstance(config, TextData) else read_ner(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_names(message: str, place: str) -> None:
    assert re.search(re.escape(place) + r"(?!\d)", message), message


BAD_FILES = [
    pytest.param(kind, *case, id=f"{what} {name}")
    for what, kind, cases in (("texts:", TextData, TEXT_FILES), ("tags:", NerData, TAG_FILES))
    for name, case in cases.items()
]


@pytest.mark.parametrize(("kind", "name", "content", "place"), BAD_FILES)
def test_a_bad_file_is_refused_with_its_name_and_line(tmp_path, tsv, conll, kind, name, content, place):
    path, good = tmp_path / name, tsv if kind is TextData else conll
    path.write_bytes(content)
    for train, validation in [(path, path), (good, path)]:
        message = refusal(kind(train=str(train), validation=str(validation), allow_leakage=True))
        assert_names(message, f"{path}{place}")


@pytest.mark.parametrize(("files", "place"), FOLDERS.values(), ids=FOLDERS)
@pytest.mark.parametrize("kind", [TextData, NerData])
def test_a_bad_folder_is_refused_with_its_name_and_line(tmp_path, kind, files, place):
    folder = tmp_path / "data"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content)
    message = refusal(kind(train=str(folder), validation=str(folder), allow_leakage=True))
    assert_names(message, str(folder))
    assert_names(message, place)


@pytest.mark.parametrize("kind", [TextData, NerData])
@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_missing_file_is_named_with_its_flag(conll, tsv, part, kind):
    good = str(tsv if kind is TextData else conll)
    message = refusal(kind(**{"train": good, part: "nowhere/rows.csv"}))
    assert message.startswith(f"--{part} nowhere/rows.csv: there is no such file.")
    assert ("hub:org/name" in message) == (part == "train")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label_column": "lable"}, "no column 'lable' for the label (--label-column)"),
        ({"label_column": "lable"}, "Did you mean 'label'?"),
        ({"text_column": "Text"}, "Did you mean 'text'?"),
        ({"text_pair_column": "other"}, "The columns are 'text', 'label'."),
    ],
)
def test_an_unknown_column_is_refused_with_the_nearest_one(tsv, columns, message):
    assert message in refusal(TextData(train=str(tsv), **columns))
    assert str(tsv) in refusal(TextData(train=str(tsv), **columns))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"words_column": "2"}, "words_column 2 is outside the file's 2 columns, 0 to 1"),
        ({"tags_column": "-3"}, "tags_column -3 is outside the file's 2 columns, 0 to 1"),
        ({"tags_column": "ner"}, "got 'ner', expected a number"),
        ({"tags_column": "--1"}, "got '--1', expected a number"),
        ({"tags_column": ""}, "got '', expected a number"),
    ],
)
def test_a_column_that_a_column_file_lacks_is_refused(conll, columns, message):
    assert message in refusal(NerData(train=str(conll), **columns))


@pytest.mark.parametrize("metadata", [b"{broken", b'{"info": {"features": {"text": {"_type": "Unheard"}}}}'])
def test_parquet_files_with_odd_metadata_are_refused(tmp_path, metadata):
    path = tmp_path / "f.parquet"
    table = pyarrow.table({"text": ["a"], "label": ["x"]}).replace_schema_metadata({b"huggingface": metadata})
    pyarrow.parquet.write_table(table, path)
    message = refusal(TextData(train=str(path), validation=str(path), allow_leakage=True))
    assert message.startswith(f"{path}: cannot be read as a parquet file")


def test_a_pipe_is_refused_since_it_can_be_read_once_only(tmp_path):
    os.mkfifo(tmp_path / "f.csv")
    assert "no regular file" in refusal(TextData(train=str(tmp_path / "f.csv")))


def test_nothing_and_a_name_too_long_are_no_files(tmp_path):
    assert "names no file" in refusal(TextData(train=""))
    assert "no such file" in refusal(TextData(train="x" * 5000 + ".csv"))


@pytest.mark.parametrize("rows", [[{"text": "a", "label": ["x"]}, {"text": "b", "lable": ["y"]}]])
def test_a_row_without_the_key_of_its_labels_is_refused_also_with_several_labels(tmp_path, rows):
    path = tmp_path / "f.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"f.jsonl:2: label is empty"):
        read_text_classification(TextData(train=str(path), validation=str(path)), multi_label=True)


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        (TextData, {"on_missing_label": "drop"}),
        (NerData, {"on_illegal_tags": "Refuse"}),
        (TextData, {"on_similar_labels": "Merge"}),
    ],
)
def test_a_choice_that_does_not_exist_is_refused(kind, setting):
    with pytest.raises(ConfigError, match="must be one of"):
        kind(train="f.csv", **setting)


def test_class_ids_without_a_name_are_refused(tmp_path):
    path = tmp_path / "f.parquet"
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["x", "y"]))
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, -1]}, features=features).to_parquet(path)
    assert_names(refusal(TextData(train=str(path), validation=str(path))), f"{path}:2")


NOTED = {
    "texts over several lines": ("f.csv", b'"great,x\nbad,y\nso good",x\nmeh,y\n', "go over several lines", 1),
    "quotation marks in cells": ("f.csv", b'a, "x"\nb, "y"\n', "with quotation marks", 2),
    "quotation marks in tsv": ("f.tsv", b'a\t"x"\nb\t"y"\n', "with quotation marks", 2),
    "rows that look like a header": ("f.csv", b"sentence,category\na,y\nb,category\n", "look like a header", 1),
    "formulas": ("f.csv", b'"=A1",x\nb,y\n', "spreadsheet's formulas", 1),
    "labels that may be missing": (
        "f.csv",
        b"a,nan\nb,y\nc,nan\n",
        "Labels 'nan', which may stand for a missing one",
        2,
    ),
    "texts that may be missing": ("f.csv", b"nan,x\n#REF!,y\nc,y\n", "Texts of .* that may stand for a missing one", 2),
}


@pytest.mark.parametrize(("name", "rows", "what", "number"), NOTED.values(), ids=NOTED)
def test_what_is_dubious_is_counted_with_its_first_place(tmp_path, name, rows, what, number):
    path, other = tmp_path / name, tmp_path / "other.jsonl"
    header = HEADER if name.endswith("csv") else HEADER.replace(b",", b"\t")
    path.write_bytes(header + rows)
    [_, second, *_] = read_text_parts(TextData(train=str(path)), Notes(), multi_label=False)["train"]
    other.write_text(json.dumps({"text": "another", "label": second.labels[0]}) + "\n")
    [note] = [
        n for n in read_text_classification(TextData(train=str(path), validation=str(other))).notes if "first:" in n
    ]
    assert re.search(rf"{what}.*: {number} \(first: {re.escape(str(path))}:2\)", note), note


@pytest.mark.parametrize(
    ("label", "is_list"),
    [
        ("['p', 'q']", True),
        ("[]", True),
        ("('p',)", True),
        ([0, 1, 0], True),
        ([True, False], True),
        ("(other)", False),
    ],
)
def test_lists_written_as_text_and_one_hot_lists_are_refused_as_several_labels(tmp_path, label, is_list):
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps({"text": "a", "labels": label}) + "\n")
    if is_list:
        with pytest.raises(DataError, match=r"f.jsonl:1: the labels .*(list written as text|one-hot)"):
            read_text_parts(TextData(train=str(path)), Notes(), multi_label=True)
    else:
        assert next(iter(read_text_parts(TextData(train=str(path)), Notes(), multi_label=True)["train"])).labels == (
            label,
        )


GOOD = {
    "E-MAIL as a type": ("f.conll", "a@b.c B-E-MAIL\nleft O\n\nI-94 B-ROAD\n", {"E-MAIL", "ROAD"}),
    "decimals": ("f.csv", "text,label\na,1.1\nb,1.10\nc,1.11\n", {"1.1", "1.10", "1.11"}),
    "codes": ("f.csv", "text,label\na,0e10\nb,0e11\nc,1e1\nd,10\n", {"0e10", "0e11", "1e1", "10"}),
    "long numbers": ("f.csv", "text,label\na,900719925474099312\nb,900719925474099313\n", None),
    "texts that are names of columns": ("f.csv", "text,label\nAnswer,question\nb,topic\n", {"question", "topic"}),
    "emoji with a joiner": ("f.csv", "text,label\na,👩\u200d💻\nb,x\n", {"👩\u200d💻", "x"}),
    "Persian": ("f.csv", "text,label\na,علمی\u200cتخیلی\nb,x\n", {"علمی\u200cتخیلی", "x"}),
    "a no-break space": ("f.csv", "text,label\na,Service\u00a0public\nb,x\n", {"Service\u00a0public", "x"}),
    "semicolons in texts": ("f.csv", "text,label\nI came; I saw,x\nI won; I left,y\n", {"x", "y"}),
    "semicolons and a comma in the header": ("f.csv", "text;label;in %, rounded\na;x;3,5\nb;y;4,5\n", {"x", "y"}),
    "a tab file with a semicolon": ("f.csv", "a; b\tx\nc\ty\nd\tx\ne\ty\n", {"x", "y"}),
    "markup": ("f.tsv", "text\tlabel\n<html>hi</html>\tx\nb\ty\n", {"x", "y"}),
    "braces": ("f.csv", "{name} said,hi {x}\n{name} said,hi {x}\nb,y\nc,y\n", {"hi {x}", "y"}),
    "labels that look missing": ("f.csv", "text,label\na,none\nb,N/A\nc,-\n", {"none", "N/A", "-"}),
    "a word #": ("f.conll", "# O\nAda B-PER\n\nBob B-PER\n", {"PER"}),
    "tags in IO": ("f.conll", "Ada I-PER\nLovelace I-PER\n\nParis I-LOC\n", {"PER", "LOC"}),
    "few entities in BIOES": ("f.conll", "Ada B-PER\nLovelace E-PER\nleft O\n", {"PER"}),
}


@pytest.mark.parametrize(("name", "content", "classes"), GOOD.values(), ids=GOOD)
def test_what_is_unusual_and_right_is_read(tmp_path, name, content, classes):
    path = tmp_path / name
    path.write_text(content)
    if name.endswith(".conll"):
        parts = read_ner_parts(NerData(train=str(path)), Notes())
    else:
        parts = read_text_parts(TextData(train=str(path)), Notes(), multi_label=False)
    found = set(parts["train"].class_places())
    assert found == classes if classes else len(found) == len(parts["train"])


BESIDE = ["README.md", "LICENSE", "test_notes.txt", "testing.md", "development.log", "validate.py", "value_names.txt"]


@pytest.mark.parametrize("name", BESIDE)
def test_what_lies_beside_the_parts_is_named_as_not_read(tmp_path, tsv, name):
    (tmp_path / "train.tsv").write_bytes(tsv.read_bytes())
    (tmp_path / name).write_text("text")
    notes = read_text_classification(TextData(train=str(tmp_path))).notes
    assert f"{tmp_path}: 1 file not read: {name}." in notes


@pytest.mark.parametrize("name", ["dev.xml", "test.xlsx", "validation_1.zip", "test"])
def test_what_is_named_like_a_part_and_cannot_be_read_is_refused(tmp_path, tsv, name):
    (tmp_path / "train.tsv").write_bytes(tsv.read_bytes())
    if "." in name:
        (tmp_path / name).write_text("text")
    else:
        (tmp_path / name).mkdir()
    assert f"{name} is named like the" in refusal(TextData(train=str(tmp_path)))


@pytest.mark.parametrize(
    "names", [["train_2019.tsv", "train_2020.tsv"], ["train/reviews_5.tsv", "train/reviews_12.tsv"]]
)
def test_shards_may_bear_any_numbers(tmp_path, tsv, names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"text\tlabel\n{name}\tx\nb{name}\ty\n")
    parts = read_text_parts(TextData(train=str(tmp_path)), Notes(), multi_label=False)
    assert len(parts["train"]) == 4
