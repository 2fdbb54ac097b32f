"""Whether a card on the Hub is as it was written, or a person has worked on it since."""

from __future__ import annotations

import hashlib
import re

SEAL = "\n<!-- written by nlp-transfer; sha256 of all above: {} -->\n"
SEALED = re.compile(re.escape(SEAL).replace(r"\{\}", "([0-9a-f]{64})"))


def sealed(card: str) -> str:
    """With a line at its end that no longer fits once anything above is changed."""
    return card + SEAL.format(hashlib.sha256(card.encode()).hexdigest())


def is_as_written(card: str) -> bool:
    """Without regard to how lines end, which editors in a browser change."""
    text = card.replace("\r\n", "\n")
    return (found := SEALED.search(text)) is not None and sealed(text[: found.start()]) == text
