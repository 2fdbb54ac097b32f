"""How long texts are in tokens, and what a limit would cut."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from nlp_transfer.checking.findings import Finding, Item, Parts, first_places
from nlp_transfer.errors import counted
from nlp_transfer.labels import spans_of

BATCH = 1024
Lengths = dict[str, np.ndarray[Any, np.dtype[np.int64]]]


def token_lengths(parts: Parts, tokenizer: PreTrainedTokenizerBase) -> Lengths:
    """Tokens of every text, special ones included; a little more in NER, where words are tokenized one by one."""
    return {name: lengths_of(items, tokenizer) for name, items in parts.items()}


def lengths_of(items: list[Item], tokenizer: PreTrainedTokenizerBase) -> np.ndarray[Any, np.dtype[np.int64]]:
    found: list[int] = []
    for start in range(0, len(items), BATCH):
        texts = [item.text for item in items[start : start + BATCH]]
        found += map(len, tokenizer(texts, verbose=False)["input_ids"])
    return np.array(found, dtype=np.int64)


def find_long(parts: Parts, lengths: Lengths, limit: int, *, is_ner: bool) -> list[Finding]:
    findings = [long_of(name, items, lengths[name], limit, is_ner=is_ner) for name, items in parts.items()]
    return [finding for finding in findings if finding.count]


def long_of(
    name: str, items: list[Item], lengths: np.ndarray[Any, np.dtype[np.int64]], limit: int, *, is_ner: bool
) -> Finding:
    is_long = lengths > limit
    beyond = int((lengths[is_long] - limit).sum()) / max(1, int(lengths.sum()))
    number = counted(int(is_long.sum()), "text")
    message = f"{number} of {name} with more than {limit} tokens; {beyond:.1%} of all tokens lie beyond"
    if is_ner:
        lost = sum(entities_beyond(items[i], int(lengths[i]), limit) for i in np.flatnonzero(is_long))
        message += f", and about {lost:,} entities. They are read in windows, and nothing is lost."
    else:
        message += ". Choose what is read with --task.long-texts, or a checkpoint that takes more."
    return Finding(
        kind="long_texts",
        severity="note" if is_ner else "warning",
        count=int(is_long.sum()),
        message=message,
        places=first_places([items[i].source for i in np.flatnonzero(is_long)]),
    )


def entities_beyond(item: Item, length: int, limit: int) -> int:
    """Those whose place among the words is later than the limit's place among the tokens."""
    last_word = len(item.labels) * limit / length
    return sum(span.end > last_word for span in spans_of(item.labels))
