"""When two texts, or two labels, are the same but for how they are written."""

from __future__ import annotations

import unicodedata

INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))
"""Zero-width characters and the soft hyphen, as ``str.translate`` deletes them."""


def fold(text: str) -> str:
    """Equal for texts that differ in case, blanks, invisible characters and Unicode form (NFKC) only."""
    visible = unicodedata.normalize("NFKC", text).translate(INVISIBLE)
    return " ".join(visible.casefold().split())
