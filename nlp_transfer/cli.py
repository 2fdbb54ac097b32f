"""The ``nlp-transfer`` command. It loads torch only when a command needs it."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from nlp_transfer import __version__
from nlp_transfer.bundled_recipes import find_recipe, load_recipe, recipe_files
from nlp_transfer.checking.config import CheckConfig
from nlp_transfer.errors import ConfigError, DataError, counted, needing
from nlp_transfer.launching import guarded, launch, one_line_errors


def list_recipes() -> None:
    """List the recipes, one a line."""
    for name, path in recipe_files().items():
        summary = path.read_text("utf-8").split('"""')[1].splitlines()[0]
        print(f"{name:<24} {summary}")


def copy_recipe(recipe: Positional[str], destination: Positional[Path] = Path()) -> None:
    """Copy a recipe, to make it your own.

    Args:
        recipe: Name of the recipe; see `nlp-transfer recipes`.
        destination: Folder or file to write; a file that exists is not replaced.
    """
    source = find_recipe(recipe)
    target = destination / source.name if destination.is_dir() else destination
    if target.exists():
        raise ConfigError(f"{target} exists already. Name another file.")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
    print(f"{target} (try: python {target} --help)")


def run_recipe(recipe: Positional[str], settings: Positional[tuple[str, ...]] = ()) -> None:
    """Run a recipe with its settings. `nlp-transfer run RECIPE --help` shows them all.

    Args:
        recipe: Name of the recipe, see `nlp-transfer recipes`; or the path of one's own.
        settings: Flags of the recipe.
    """
    module = load_recipe(find_recipe(recipe))
    sys.argv = [f"nlp-transfer run {recipe}", *settings]
    launch(module.run, module.Config)


def check(files: Positional[tuple[str, ...]], config: OmitArgPrefixes[CheckConfig]) -> None:
    """Check labelled data: leaks, copies, contradictions, odd labels, long texts. Exit code 2 if there is an error.

    Args:
        files: Train; train and test; or train, validation and test. Or a folder with the parts.
        config: What is checked.
    """
    from nlp_transfer.checking.check import described, write_check
    from nlp_transfer.checking.files import check_files

    if config.output.is_file():
        raise ConfigError(f"--output {config.output} is a file. Name a folder.")
    found = check_files(files, config)
    write_check(found, config.output)
    for line in (*found.notes, *(described(finding, most=2) for finding in found.findings)):
        print(line)
    counts = ", ".join(counted(found.number_of(severity), severity) for severity in ("error", "warning", "note"))
    summary = f"{counts}; see {config.output / 'report.md'}."
    if found.has("error") or (config.strict and found.has("warning")):
        raise DataError(summary)
    print(summary)


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
        model: Model folder of a run.
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

    check_output(output)
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
        model: Model folder of a run.
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
    check_output(output)
    predictor = load(model, checkpoint=checkpoint)
    if texts:
        write_records(predict_records(predictor, texts), output)
    else:
        write_records(predict_file(predictor, file or STANDARD_INPUT, text_column, text_pair_column), output)


def merge(
    output: Positional[Path],
    models: Positional[tuple[Path, ...]],
    method: Literal["average", "ties", "dare"] = "average",
    weights: tuple[float, ...] | None = None,
    density: float = 0.5,
    seed: int = 0,
    checkpoint: str | None = None,
    overwrite: bool = False,
) -> None:
    """Fold an adapter into the weights of its base, or several of one task by their mean; prints the new folder.

    Args:
        output: Folder to write.
        models: Model folders of runs.
        method: How several are put together: their mean, or their largest or random changes to the base.
        weights: What each of them counts; they add up to 1. Equal if not given.
        density: Share of the changes that ties and dare keep.
        seed: Of what dare keeps.
        checkpoint: Where the base is, if not where they were trained from.
        overwrite: Replace a model that stands there.
    """
    from nlp_transfer.merging import merge as merge_models

    settings = {
        "method": method,
        "weights": weights,
        "density": density,
        "seed": seed,
        "checkpoint": checkpoint,
        "overwrite": overwrite,
    }
    print(merge_models(models, output, **settings))  # type: ignore[arg-type]


def export(
    model: Positional[Path],
    output: Positional[Path],
    file: str | None = None,
    int8: bool = False,
    min_agreement: float = 1.0,
    checkpoint: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write an ONNX model for onnxruntime, if it answers alike. Needs the extra: pip install 'nlp-transfer[onnx]'.

    Args:
        model: Model folder of a run.
        output: Folder to write.
        file: Texts to compare answers on, a table or a text a line; the samples in the model's manifest if not given.
        int8: Hold the weights of linear layers in 8 bits.
        min_agreement: Share of texts that must get the same labels or entities.
        checkpoint: Where the base is, if not where it was trained from.
        overwrite: Replace a model that stands there.
    """
    with needing("onnx"):
        from nlp_transfer.inference.onnx import export as export_model
    from nlp_transfer.inference.files import texts_to_compare

    settings = {"int8": int8, "min_agreement": min_agreement, "checkpoint": checkpoint, "overwrite": overwrite}
    print(f"{output}: {export_model(model, output, texts_to_compare(model, file), **settings)}")  # type: ignore[arg-type]


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
        models: Model folders of runs, each as FOLDER or NAME=FOLDER; requests name the adapter so.
        host: Address to listen at; 0.0.0.0 for all of the machine's.
        port: Port to listen at.
        max_waiting: Requests that may wait; others are told to come later.
        max_batch: Requests that are computed together.
        checkpoint: Where the base is, if not where they were trained from.
    """
    with needing("serve"):
        from nlp_transfer.inference.server import Limits, serve as serve_bank
    from nlp_transfer.inference.bank import AdapterBank

    pairs = [model.partition("=")[::2] if "=" in model else (model, model) for model in models]
    if not pairs or len(dict(pairs)) < len(pairs):
        raise ConfigError(f"serve takes model folders under different names, got {' '.join(models) or 'none'}.")
    bank = AdapterBank.load(dict(pairs), checkpoint=checkpoint)
    serve_bank(bank, host, port, Limits(max_waiting=max_waiting, max_batch=max_batch))


COMMANDS: dict[str, Callable[..., None]] = {
    "recipes": list_recipes,
    "copy": copy_recipe,
    "check": check,
    "run": run_recipe,
    "evaluate": evaluate,
    "predict": predict,
    "merge": merge,
    "export": export,
    "serve": serve,
}


def main() -> int:
    """The ``nlp-transfer`` command; gives the exit code."""
    args = sys.argv[1:]
    if args[:1] == ["run"] and len(args) > 1 and not args[1].startswith("-"):
        return guarded(lambda: run_recipe(args[1], tuple(args[2:])))  # the recipe reads its own flags
    return guarded(lambda: dispatch(args))


def dispatch(args: list[str]) -> None:
    """Parse under one-line errors, and run outside of them, so that nothing a command prints is caught."""
    if args == ["--version"]:
        print(f"nlp-transfer {__version__}")
        return
    chosen: list[Callable[[], None]] = []
    deferred = {name: defer(command, chosen) for name, command in COMMANDS.items()}
    with one_line_errors():
        tyro.extras.subcommand_cli_from_dict(
            deferred, prog="nlp-transfer", description="Fine-tune, evaluate and use adapters.", args=args or ["--help"]
        )
    chosen[0]()


def defer(command: Callable[..., None], chosen: list[Callable[[], None]]) -> Callable[..., None]:
    """The same signature and help; calling it only notes the call."""

    @functools.wraps(command)
    def note(*args: Any, **kwargs: Any) -> None:
        chosen.append(functools.partial(command, *args, **kwargs))

    return note
