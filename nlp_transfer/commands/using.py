"""Put texts to saved models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from nlp_transfer.errors import ConfigError, needing


def evaluate(
    model: Positional[Path],
    file: Positional[str],
    checkpoint: str | None = None,
    output: Path | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    words_column: str | None = None,
    tags_column: str | None = None,
    on_missing_label: Literal["refuse", "skip"] = "refuse",
) -> None:
    """Score a saved model on a labelled file; the scores are printed as JSON.

    Args:
        model: Model folder of a run, or user/name[@revision] on the Hub.
        file: Labelled file or folder, in any format that a recipe reads (Hub sets excepted).
        checkpoint: Where the base is, if not where it was trained from.
        output: File for a line of JSON an example with its prediction.
        text_column: Text classification: column of the text.
        text_pair_column: Text classification: column of the second text.
        label_column: Text classification: column of the label.
        words_column: NER: column of the words.
        tags_column: NER: column of the tags.
        on_missing_label: Text classification: rows without a label: skip them, and count them.
    """
    from nlp_transfer.inference.files import check_output, evaluate_file, write_records
    from nlp_transfer.inference.predictor import load

    check_output(output, file)
    columns = {
        "text_column": text_column,
        "text_pair_column": text_pair_column,
        "label_column": label_column,
        "words_column": words_column,
        "tags_column": tags_column,
        "on_missing_label": "skip" if on_missing_label == "skip" else None,
    }
    predictor = load(model, checkpoint=checkpoint)
    result = evaluate_file(predictor, file, {name: value for name, value in columns.items() if value is not None})
    print(json.dumps({name: round(value, 4) for name, value in result.metrics.items()}))
    if output is not None:
        pairs = zip(result.examples, result.predictions, strict=True)
        write_records((predictor.task.record(example, prediction) for example, prediction in pairs), output)


def predict(
    model: Positional[Path],
    texts: Positional[tuple[str, ...]] = (),
    file: Annotated[str | None, tyro.conf.arg(aliases=["-f"])] = None,
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    checkpoint: str | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
) -> None:
    """Predict texts, the rows or lines of a file, or the lines of standard input; a line of JSON for each.

    Args:
        model: Model folder of a run, or user/name[@revision] on the Hub.
        texts: Texts to predict; without texts and --file, standard input is read.
        file: A table (csv, tsv, jsonl, parquet), or any other file with a text a line.
        output: File to write; standard output if not given.
        checkpoint: Where the base is, if not where it was trained from.
        text_column: Column of the text in a table.
        text_pair_column: Column of the second text in a table.
    """
    from nlp_transfer.inference.files import STANDARD_INPUT, check_output, predict_file, predict_records, write_records
    from nlp_transfer.inference.predictor import load

    if texts and file is not None:
        raise ConfigError("Give texts or --file, not both.")
    if texts and (text_column or text_pair_column):
        raise ConfigError("Texts on the command line have no columns: leave --text-column and --text-pair-column out.")
    check_output(output, file)
    predictor = load(model, checkpoint=checkpoint)
    if texts:
        write_records(predict_records(predictor, texts), output)
    else:
        write_records(predict_file(predictor, file or STANDARD_INPUT, text_column, text_pair_column), output)


def is_named(model: str) -> bool:
    """Whether it is NAME=FOLDER, and not a folder with such a name."""
    return "=" in model and not Path(model).exists()


def serve(
    models: Positional[tuple[str, ...]],
    host: str = "127.0.0.1",
    port: int = 8000,
    max_waiting: int = 1024,
    max_batch: int = 64,
    checkpoint: str | None = None,
) -> None:
    """Answer over HTTP with many adapters on one base. Needs the extra: pip install 'nlp-transfer[serve]'.

    Args:
        models: Models, each as FOLDER or NAME=FOLDER, as requests shall name them; or one bank of several. A folder may
            be user/name[@revision] on the Hub.
        host: Address to listen at; 0.0.0.0, or :: with IPv6, for all of the machine's.
        port: Port to listen at.
        max_waiting: Requests that may wait; others are told to come later.
        max_batch: Requests that are computed together.
        checkpoint: Where the base is, if not where they were trained from.
    """
    with needing("serve"):
        from nlp_transfer.inference.server import Limits, serve as serve_bank
    from nlp_transfer.hub.banks import members_of
    from nlp_transfer.hub.pull import local_folder
    from nlp_transfer.inference.bank import AdapterBank

    named = [model.partition("=")[::2] if is_named(model) else (model, model) for model in models]
    if not named or len(dict(named)) < len(named):
        raise ConfigError(f"serve takes model folders under different names, got {' '.join(models) or 'none'}.")
    only = local_folder(models[0]) if len(models) == 1 and not is_named(models[0]) else None
    bank = AdapterBank.load(only if only and members_of(only) else dict(named), checkpoint=checkpoint)
    serve_bank(bank, host, port, Limits(max_waiting=max_waiting, max_batch=max_batch))
