"""One value of a row: a text, a label, or the reason why it is none."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from nlp_transfer.data.examples import Source
from nlp_transfer.data.folding import fold
from nlp_transfer.errors import DataError

MULTI_LABEL_SEPARATOR = ","
WRITTEN_LIST = re.compile(r"\[.*\]|\(.*,.*\)|\{.*\}", re.DOTALL)
MISSING_WORDS = frozenset(("nan", "none", "null", "n/a", "na", "<na>", "#n/a", "nil", "#name?", "#ref!", "-", "?"))
QUOTES = "\"'“”„«»"
JOINERS = "\u200c\u200d"
"""Part of the spelling in Persian, Indic scripts and emoji, between characters that can be seen."""
CONTROL = ("Cc", "Cf", "Zl", "Zp")
"""Unicode's categories of what is no character to be seen."""


def cell_text(value: Any, source: Source, column: str) -> str:
    if not isinstance(value, str) or not (value.strip() if value.isascii() else fold(value)):
        raise DataError(f"{source}: column '{column}' holds no text. Each row needs one; delete the row or fill it.")
    if "\0" in value:
        raise DataError(f"{source}: column '{column}' holds a NUL character. Delete it.")
    if not value.isascii():
        refuse_surrogates(value, f"{source}: column '{column}'")
    return value


def refuse_surrogates(text: str, where: str) -> None:
    """Tokenizers fail at them; JSON escapes and bytes that are no UTF-8 bring them in."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where} holds half a surrogate pair, which is no character.") from None


def split_labels(value: Any, source: Source) -> list[Any]:
    """A list as it is, or names parted by commas; nothing means no label."""
    if isinstance(value, str):
        if WRITTEN_LIST.fullmatch(value.strip()):
            raise DataError(
                f"{source}: the labels {value[:60]!r} are a list written as text. Write names parted by commas, or a "
                "list in jsonl."
            )
        return [part for part in value.split(MULTI_LABEL_SEPARATOR) if part.strip()]
    if not isinstance(value, list | tuple):
        return [] if is_missing(value) else [value]
    is_one_hot = len(set(map(str, value))) < len(value) or any(isinstance(item, bool) for item in value)
    if is_one_hot and not any(isinstance(item, str) for item in value):
        raise DataError(
            f"{source}: the labels {str(value)[:60]} are one number for every class (one-hot), which is not "
            "read. List the names of those that apply."
        )
    return list(value)


def label_name(value: Any, names: Sequence[str], source: Source) -> str:
    """Names stay names: a number is kept as it is written and never becomes an id or a target value."""
    if names and isinstance(value, int):
        if not 0 <= value < len(names):
            raise DataError(f"{source}: label id {value} has no name; the file names 0 to {len(names) - 1}.")
        return names[value]
    if isinstance(value, list | dict | tuple):
        hint = "" if isinstance(value, dict) else " Several labels a text are read with --task.multi-label."
        raise DataError(f"{source}: the label is a {type(value).__name__}, expected a name.{hint}")
    if is_missing(value):
        raise DataError(f"{source}: label is empty. Each row needs one of your labels; delete the row or label it.")
    if isinstance(value, bytes) or (isinstance(value, float) and math.isinf(value)):
        raise DataError(f"{source}: the label is {value!r}, expected a name.")
    name = str(value).lower() if isinstance(value, bool) else str(value).strip()  # as JSON writes true
    if not (name.isascii() and name.isprintable()):
        refuse_surrogates(name, f"{source}: the label")
        refuse_invisible(name, f"{source}: the label")
    return name


def refuse_invisible(name: str, where: str) -> None:
    """Two names that look alike would be two classes."""
    if name.strip(JOINERS) != name or any(unicodedata.category(c) in CONTROL and c not in JOINERS for c in name):
        raise DataError(f"{where} {name!a} holds characters that cannot be seen. Delete them.")


def is_missing(value: Any) -> bool:
    """Nothing, not a number, or blanks alone."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value)) or not str(value).strip()
