"""Which files make up which part: a file, a pattern of files, or a folder that holds the parts."""

from __future__ import annotations

import glob
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from nlp_transfer.data.config import DataConfig
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.packing import ending
from nlp_transfer.data.rows import Table
from nlp_transfer.data.tables import HUB_PREFIX, TABLE_FORMATS
from nlp_transfer.durable import as_path
from nlp_transfer.errors import DataError, counted, quoted

SEQUENCE_FILE = "seq.in"
"""A folder with this file is one part: texts, tags and labels line by line in files of their own."""
PART_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "dev", "valid", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""What parts are called in folders and on the Hub; the first name that is found is taken."""
COLUMN_ENDINGS = {".conll", ".conllu", ".bio", ".iob", ".iob1", ".iob2", ".bioes", ".bilou"}
ENDINGS = {*TABLE_FORMATS, *COLUMN_ENDINGS, ".json", ".txt", ""}
PAGES = {"README", "LICENSE", "LICENCE", "COPYING", "NOTICE", "SOURCE", "CHANGELOG", "CITATION"}
NO_DATA = (".py", ".md", ".log", ".sh", ".yml", ".yaml", ".ipynb")
"""What lies beside data and is none: by name, and by ending."""
SHARD = re.compile(r"[-_]\d+(?:-of-\d+)?")
PATTERN_MARKS = "*?["


def part_files(config: DataConfig, notes: Notes) -> dict[str, list[Path]]:
    """The files of every part that ``config`` names, or that lie in the folder it names for training."""
    files: dict[str, list[Path]] = {}
    named = {"train": config.train, "validation": config.validation, "test": config.test}
    for name, spelling in named.items():
        if spelling is None or spelling.startswith(HUB_PREFIX):
            if spelling is not None and name != "train":
                raise DataError(
                    f"--{name} {spelling}: only --train takes a Hub id; its splits are used as they are named."
                )
        elif name == "train" and spelling and holds_parts(as_path(spelling)):
            files = files_of_folder(as_path(spelling), named, notes)
        else:
            files[name] = files_of(spelling, f"--{name} ")
    for name, paths in files.items():
        if len(paths) > 1:
            notes.say(f"{name} is read from {len(paths)} files, {paths[0]} to {paths[-1]}.")
        elif named[name] is None or paths[0] != as_path(str(named[name])):
            notes.say(f"{name} is read from {paths[0]}.")
    return files


def holds_parts(path: Path) -> bool:
    return os.path.isdir(path) and not (path / SEQUENCE_FILE).is_file()


def files_of(spelling: str, flag: str = "") -> list[Path]:
    """The file, the files of a pattern, or a folder that is one part. ``flag`` begins the message if there is none."""
    path = as_path(spelling)
    if not spelling:
        raise DataError(f"{flag}'' names no file.")
    if spelling.startswith(HUB_PREFIX):
        raise DataError(f"{flag}{spelling}: a data set on the Hub is read by --train alone. Save the split to a file.")
    if holds_parts(path):
        raise DataError(f"{flag}{spelling} is a folder without a file '{SEQUENCE_FILE}'. Name a file.")
    if os.path.isfile(path) or os.path.isdir(path):  # False, not an error, where the name is too long
        return [path]
    if os.path.exists(path):
        raise DataError(f"{flag}{spelling} is no regular file. It is read more than once: save it to a file first.")
    if any(mark in spelling for mark in PATTERN_MARKS):
        return files_of_pattern(spelling, path, flag)
    hub = " A data set on the Hub is spelled hub:org/name." if flag == "--train " else ""
    raise DataError(f"{flag}{spelling}: there is no such file.{hub}")


def files_of_part(path: Path) -> list[Path]:
    """What is read of a path: the file itself; of a folder that is one part, all of its files."""
    return sorted(filter(Path.is_file, path.iterdir())) if path.is_dir() else [path]


def files_of_pattern(spelling: str, pattern: Path, flag: str) -> list[Path]:
    """Every file once, also where links lead to it twice."""
    by_place = {os.path.realpath(name): Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))[::-1]}
    found = sorted(by_place.values())
    if not found:
        raise DataError(f"{flag}{spelling}: no file fits this pattern.")
    if folder := next((path for path in found if path.is_dir()), None):
        raise DataError(f"{flag}{spelling}: {folder} is a folder. Let the pattern fit files only, such as '*.csv'.")
    if other := next((path for path in found if ending(path) != ending(found[0])), None):
        raise DataError(f"{flag}{spelling}: {found[0]} and {other} are of several formats. Narrow the pattern down.")
    return found


def files_of_folder(folder: Path, named: Mapping[str, str | None], notes: Notes) -> dict[str, list[Path]]:
    """Files or folders named after the parts: ``train.csv``, ``train-00000-of-00002.parquet``, ``train/...``."""
    found = {name: paths for name in PART_NAMES if (paths := named_after(folder, name))}
    if "train" not in found:
        names = ", ".join(sorted(path.name for path in folder.iterdir())[:20]) or "nothing"
        raise DataError(
            f"--train {folder} is a folder with neither '{SEQUENCE_FILE}' nor a file named 'train' and an ending such "
            f"as .csv; it holds {names}. Name a file."
        )
    used = {path for paths in found.values() for path in paths}
    unused = [path for path in content_of(folder) if path not in used and not path.name.startswith((".", "_"))]
    for part in ("validation", "test"):
        alike = next((path for path in unused if kind_of_name(path, part) and path.suffix not in NO_DATA), None)
        if alike is not None and part not in found and named[part] is None:
            raise DataError(f"{alike} is named like the {part} part, but cannot be read. Name a file with --{part}.")
    if unused:
        shown = ", ".join(str(path.relative_to(folder)) for path in unused[:5])
        notes.say(f"{folder}: {counted(len(unused), 'file')} not read: {shown}{', ...' if len(unused) > 5 else ''}.")
    return found


def content_of(folder: Path) -> list[Path]:
    """What lies in a folder, and in those of its folders that are named after parts."""
    names = [name for names in PART_NAMES.values() for name in names]
    found = []
    for path in sorted(folder.iterdir()):
        is_part = path.is_dir() and path.name.casefold() in names and not (path / SEQUENCE_FILE).is_file()
        found += (sorted(path.iterdir()) or [path]) if is_part else [path]
    return found


def named_after(folder: Path, part: str) -> list[Path]:
    """The files of a part. Raises DataError when more than one file, set of shards or folder could be it."""
    candidates: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name.casefold() in PART_NAMES[part]:
            inside = [path] if (path / SEQUENCE_FILE).is_file() else sorted(filter(is_data, path.iterdir()))
            candidates[f"{path.name}/"] += inside
        elif is_data(path) and (kind := kind_of_name(path, part)):
            candidates[kind] += [path]
    kept = without_companions([path for paths in candidates.values() for path in paths])
    found = {kind: own for kind, paths in candidates.items() if (own := [path for path in paths if path in kept])}
    if len(found) > 1:
        raise DataError(f"{folder}: the {part} part may be {' or '.join(sorted(found))}. Name one with --{part}.")
    [paths] = found.values() or [[]]
    refuse_mixed(folder, paths)
    return paths


def without_companions(paths: list[Path]) -> set[Path]:
    """Of .json and another format, the other one: then the .json tells of the data."""
    return {path for path in paths if ending(path) != ".json"} or set(paths)


def is_data(path: Path) -> bool:
    is_page = path.name.partition(".")[0].upper() in PAGES
    return path.is_file() and ending(path) in ENDINGS and not (is_page or path.name.startswith((".", "_")))


def kind_of_name(path: Path, part: str) -> str | None:
    """``train.csv`` is itself; ``train-00000-of-00002.parquet`` and ``train_1.csv`` are shards."""
    stem = path.name.partition(".")[0]
    for name in PART_NAMES[part]:
        if stem.casefold() == name:
            return path.name
        if stem.casefold().startswith(name) and SHARD.fullmatch(stem[len(name) :]):
            return f"{name}-*{ending(path)}"
    return None


def refuse_mixed(folder: Path, paths: list[Path]) -> None:
    """Shards of several formats, or fewer than their names say."""
    if len({ending(path) for path in paths}) > 1:
        raise DataError(f"{folder}: {paths[0].name} and {paths[-1].name} are of several formats. Name files.")
    totals = {int(total[1]) for path in paths if (total := re.search(r"-of-(\d+)\.", path.name))}
    numbers = sorted(map(shard_number, paths))
    if any(numbers != list(range(numbers[0], numbers[0] + total)) for total in totals):
        raise DataError(
            f"{folder}: {len(paths)} shards are there, {paths[0].name} to {paths[-1].name}; some are missing, or there "
            "twice."
        )


def shard_number(path: Path) -> int:
    found = re.search(r"(\d+)-of-\d+\.", path.name)
    return int(found[1]) if found else -1


def rename_hub_splits(tables: dict[str, Table], spelling: str, notes: Notes) -> dict[str, Table]:
    """By the names that parts have here; other splits, and a test split whose labels were withheld, are left alone."""
    if "train" not in tables:
        raise DataError(f"{spelling} has no split 'train'. Its splits are {quoted(list(tables))}.")
    named = {part: next((tables[name] for name in names if name in tables), None) for part, names in PART_NAMES.items()}
    parts = {part: table for part, table in named.items() if table is not None}
    if "test" in parts and is_unlabelled(parts["test"]):
        notes.say(f"{parts['test'].name} is not read: all of its labels are withheld (-1).")
        del parts["test"]
    used = [table.name for table in named.values() if table is not None]
    if unused := [name for name, table in tables.items() if table.name not in used]:
        notes.say(f"{spelling}: {counted(len(unused), 'split')} not read: {quoted(unused)}.")
    return parts


def is_unlabelled(table: Table) -> bool:
    """Whether a column of class ids holds nothing but -1, as test splits of benchmarks do."""
    return any(all(row.get(column) == -1 for _, row in table.rows) for column in table.label_names)
