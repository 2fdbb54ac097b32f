"""One value of a row: a text, a label, or the reason why it is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nlp_transfer.data.examples import Source
from nlp_transfer.data.folding import INVISIBLE, fold
from nlp_transfer.errors import DataError

MULTI_LABEL_SEPARATOR = ","


def cell_text(value: Any, source: Source, column: str) -> str:
    if not isinstance(value, str) or not fold(value):
        raise DataError(f"{source}: column '{column}' holds no text. Each row needs one; delete the row or fill it.")
    if "\0" in value:
        raise DataError(f"{source}: column '{column}' holds a NUL character. Delete it.")
    refuse_surrogates(value, f"{source}: column '{column}'")
    return value


def refuse_surrogates(text: str, where: str) -> None:
    """Tokenizers fail at them; JSON escapes and bytes that are no UTF-8 bring them in."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where} holds half a surrogate pair, which is no character.") from None


def split_labels(value: Any) -> list[Any]:
    """A list as it is, or names parted by commas; nothing means no label."""
    if isinstance(value, str):
        return [part for part in value.split(MULTI_LABEL_SEPARATOR) if part.strip()]
    if is_missing(value):
        return []
    return list(value) if isinstance(value, Sequence) else [value]


def label_name(value: Any, names: Sequence[str], source: Source) -> str:
    """Names stay names: a number is kept as it is written and never becomes an id or a target value."""
    if names and isinstance(value, int):
        if not 0 <= value < len(names):
            raise DataError(f"{source}: label id {value} has no name; the file names 0 to {len(names) - 1}.")
        return names[value]
    if isinstance(value, list | dict):
        raise DataError(
            f"{source}: the label is a {type(value).__name__}, expected a name. For lists, use multi-label."
        )
    if is_missing(value):
        raise DataError(f"{source}: label is empty. Each row needs one of your labels; delete the row or label it.")
    if isinstance(value, bytes):
        raise DataError(f"{source}: the label is binary, expected a name.")
    name = str(value).strip()
    refuse_surrogates(name, f"{source}: the label")
    if name != name.translate(INVISIBLE):
        raise DataError(f"{source}: the label {name!a} holds characters that cannot be seen. Delete them.")
    return name


def is_missing(value: Any) -> bool:
    """Nothing, not a number, or blanks alone."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or not str(value).strip()
