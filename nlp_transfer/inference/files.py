"""Predict and score the examples of a file with a saved model, and write what comes of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, fields, replace
from itertools import islice, tee
from pathlib import Path
from typing import Any

from nlp_transfer.data.cells import refuse_surrogates
from nlp_transfer.data.columns import HEADER_NAMES, text_only_columns
from nlp_transfer.data.config import NerData, TextData
from nlp_transfer.data.examples import Source
from nlp_transfer.data.lines import decoded, numbered_lines
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.packing import ending
from nlp_transfer.data.reading import read_ner_file, read_text_file
from nlp_transfer.data.sources import COLUMN_ENDINGS, files_of, files_of_part
from nlp_transfer.data.store import ExampleStore
from nlp_transfer.data.tables import TABLE_FORMATS, read_table, sniff
from nlp_transfer.durable import as_path
from nlp_transfer.errors import ConfigError, DataError, counted
from nlp_transfer.inference.predictor import CHUNK, Predictor
from nlp_transfer.inference.texts import Prediction, Text
from nlp_transfer.manifest import read_manifest
from nlp_transfer.reporting.progress import progress_bar, say
from nlp_transfer.saved_models import model_folder
from nlp_transfer.tasks.base import refuse_unknown
from nlp_transfer.tasks.ner import Ner
from nlp_transfer.tasks.text_classification import Classification
from nlp_transfer.training.evaluate import Evaluation, evaluate

STANDARD_INPUT = "-"


def evaluate_file(predictor: Predictor, file: str, columns: Mapping[str, Any]) -> Evaluation[Any, Any]:
    """Score the labelled examples of ``file``; ``columns`` are settings of NerData or TextData.

    Raises DataError for a label that the model does not know, ConfigError for a column that its task does not read.
    """
    model, task = predictor.model, predictor.task
    data_type = NerData if isinstance(task, Ner) else TextData
    known = [
        field.name for field in fields(data_type) if field.name.endswith("_column") or field.name == "on_missing_label"
    ]
    if foreign := [name for name in columns if name not in known]:
        raise ConfigError(f"{foreign[0]}: this model does {task.name}, which takes {', '.join(known)}.")
    notes = Notes()
    examples: ExampleStore[Any]
    if isinstance(task, Ner):
        examples = read_ner_file(file, replace(NerData(train=file), **columns), notes)
    else:
        data = replace(TextData(train=file), **columns)
        examples = read_text_file(file, data, notes, multi_label=task.multi_label)
    for note in notes.lines():
        say(note)
    refuse_unknown(task.labels, examples)
    return evaluate(model, task, file, examples)


def predict_file(
    predictor: Predictor, file: str, text_column: str | None, text_pair_column: str | None
) -> Iterator[dict[str, Any]]:
    """A record a text, in order: of a table its rows, of any other file and of "-" (standard input) its lines."""
    reads_pairs = getattr(predictor.task, "text_pair", False)
    if text_pair_column is not None and not reads_pairs:
        raise DataError(f"text_pair_column '{text_pair_column}': this model reads one text, no pairs. Leave it out.")
    texts, places = tee(texts_of_file(file, text_column, text_pair_column, reads_pairs=reads_pairs))
    records = predict_records(predictor, (text for _, text in texts))
    for (source, _), record in zip(places, records, strict=True):
        yield {"source": str(source)} | record


def texts_to_compare(model: Path, file: str | None) -> list[Text]:
    """Of a file, as ``predict_file`` reads it; else the samples that the model's manifest holds."""
    manifest = read_manifest(model_folder(model))
    if file is not None:
        reads_pairs = bool(manifest.task.get("text_pair"))
        return [text for _, text in texts_of_file(file, None, None, reads_pairs=reads_pairs)]
    if manifest.task["name"] == Ner.name:
        return [list(sample["words"]) for sample in manifest.samples]
    samples = [(sample["text"], sample.get("text_pair")) for sample in manifest.samples]
    return [(text, pair) if pair is not None else text for text, pair in samples]


def predict_records(predictor: Predictor, texts: Iterable[Text]) -> Iterator[dict[str, Any]]:
    """Plain values: the text, and its label and probabilities or its entities."""
    waiting, cut_before = iter(texts), predictor.num_cut
    with progress_bar("predicting", None) as bar:
        while chunk := list(islice(waiting, CHUNK)):
            for text, prediction in zip(chunk, predictor.predict_batch(chunk, bar), strict=True):
                record = {"text": text[0], "text_pair": text[1]} if isinstance(text, tuple) else {"text": text}
                yield record | as_record(prediction)
    if num_cut := predictor.num_cut - cut_before:
        limit = predictor.task.token_limit(predictor.model)
        say(f"{counted(num_cut, 'text')} of more than {limit} tokens: what is beyond is not read.")


def as_record(prediction: Prediction) -> dict[str, Any]:
    if not isinstance(prediction, Classification):
        return {"entities": [{**asdict(entity), "score": round(entity.score, 4)} for entity in prediction]}
    many = prediction.multi_label
    found: dict[str, Any] = {"labels": list(prediction.labels)} if many else {"label": prediction.label}
    probabilities = {name: round(value, 6) for name, value in prediction.probabilities.items()}
    return found | {"probability": round(prediction.probability, 6), "probabilities": probabilities}


def texts_of_file(
    file: str, text_column: str | None, text_pair_column: str | None, *, reads_pairs: bool
) -> Iterator[tuple[Source, Text]]:
    """Each with its place. All of a table are looked at before the first one is given: what is wrong with the last row
    must not cost the work on all others.
    """
    path = as_path(file)
    if ending(path) in COLUMN_ENDINGS:
        raise DataError(f"--file {file}: columns of words are no texts. Write a text a line; evaluate reads columns.")
    is_table = ending(path) in TABLE_FORMATS or (path.is_file() and sniff(path) == "jsonl")
    if file == STANDARD_INPUT or (path.is_file() and not is_table):
        if named := text_column or text_pair_column:
            raise ConfigError(f"column '{named}': only tables ({', '.join(TABLE_FORMATS)}) have columns. Leave it out.")
        yield from texts_of_lines(file)
        return
    if not path.is_file():
        raise DataError(f"--file {file}: there is no such file. '-' reads standard input.")
    notes = Notes()
    table = read_table(path, HEADER_NAMES, notes)
    for note in notes.lines():
        say(note)
    text, pair = text_only_columns(table, text_column, text_pair_column)
    pair = pair if reads_pairs else None  # a column that looks like a second text is none to this model
    say(f"Text is read from column '{text}'" + (f", second text from '{pair}'." if pair else "."))
    for source, row in table.rows:
        for column in filter(None, (text, pair)):
            text_of(row, column, source)
    for source, row in table.rows:
        first = text_of(row, text, source)
        yield source, (first, text_of(row, pair, source)) if pair else first


def texts_of_lines(file: str) -> Iterator[tuple[Source, str]]:
    """What a line holds may also be nothing."""
    if file == STANDARD_INPUT:
        name, lines = "standard input", decoded(sys.stdin.buffer, "standard input")
    else:
        name, lines = file, numbered_lines(as_path(file))
    yield from ((Source(name, number), line) for number, line in lines)


def text_of(row: Mapping[str, Any], column: str, source: Source) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise DataError(f"{source}: column '{column}' holds no text.")
    refuse_surrogates(value, f"{source}: column '{column}'")
    return value


def check_output(output: Path | None, file: str | None) -> None:
    """Before the work, so that it is not lost at its end. ``file`` is what is read."""
    if output is None:
        return
    output = as_path(output)
    if output.is_dir():
        raise ConfigError(f"--output {output} is a folder. Name a file.")
    if not output.parent.is_dir():
        raise ConfigError(f"--output {output}: there is no folder {output.parent}. Make it, or name another one.")
    if output.is_file() and any(map(output.samefile, files_read(file))):
        raise ConfigError(f"--output {output} is the file that is read. Name another one.")


def files_read(file: str | None) -> list[Path]:
    """All of a pattern, or of a folder that is one part. What is wrong with them is said when they are read."""
    with suppress(DataError):
        return [path for part in files_of(file or STANDARD_INPUT) for path in files_of_part(part)]
    return []


def is_open(output: Path) -> bool:
    """Whether it is where our standard output goes, as /dev/stdout is."""
    with suppress(OSError):
        return os.path.samestat(output.stat(), os.fstat(1))
    return False


def write_records(records: Iterable[dict[str, Any]], output: Path | None) -> None:
    lines = (json.dumps(record, ensure_ascii=False) for record in records)
    if output is None:
        for line in lines:
            print(line)
        return
    output = as_path(output)
    if output.exists() and (not output.is_file() or is_open(output)):  # a pipe or a device is written to as it is
        with output.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        return
    output = Path(os.path.realpath(output))  # not the link to it is replaced
    staged = output.with_name(f".{output.name}.part")
    try:
        with staged.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        staged.replace(output)
    finally:
        staged.unlink(missing_ok=True)
