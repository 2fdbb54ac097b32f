"""How long texts are in tokens, and what a limit would cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from nlp_transfer.checking.findings import Finding, all_places
from nlp_transfer.data.examples import IntArray, TaggedExample, TextExample
from nlp_transfer.data.framing import frame_of
from nlp_transfer.data.layouts import TAGGED
from nlp_transfer.data.store import ExampleStore
from nlp_transfer.data.tokenizing import encode_texts
from nlp_transfer.data.words import WordTokenizer
from nlp_transfer.errors import counted
from nlp_transfer.labels import spans_of
from nlp_transfer.reporting.progress import progress_bar
from nlp_transfer.tasks.base import in_chunks


@dataclass(frozen=True)
class Lengths:
    """Of the texts of one part."""

    tokens: IntArray
    """Special ones included."""
    entities_beyond: int
    """In NER: those that end beyond the limit."""


def measure(part: ExampleStore[Any], tokenizer: PreTrainedTokenizerBase, limit: int) -> Lengths:
    words = WordTokenizer(tokenizer, limit)
    special = frame_of(tokenizer).size
    tokens: list[IntArray] = []
    beyond = 0
    with progress_bar("counting tokens", len(part)) as bar:
        for chunk in in_chunks(part, bar):
            if part.layout is TAGGED:
                ends = word_ends(chunk, words)
                beyond += sum(ends_beyond(e, end, limit - special) for e, end in zip(chunk, ends, strict=True))
                tokens.append(np.array([special + end[-1] for end in ends]))
            else:
                tokens.append(text_lengths(chunk, tokenizer))
    return Lengths(np.concatenate(tokens), beyond)


def text_lengths(examples: Sequence[TextExample], tokenizer: PreTrainedTokenizerBase) -> IntArray:
    texts = [example.text for example in examples]
    pairs = [example.text_pair for example in examples] if examples[0].text_pair is not None else None
    return np.array([len(inputs["input_ids"]) for inputs in encode_texts(tokenizer, texts, pairs)], dtype=np.int64)


def word_ends(examples: Sequence[TaggedExample], words: WordTokenizer) -> list[IntArray]:
    """Of each text: how many tokens there are up to the end of each word."""
    words.learn(example.words for example in examples)
    return [np.cumsum([len(words.pieces(word)) for word in example.words]) for example in examples]


def ends_beyond(example: TaggedExample, ends: IntArray, room: int) -> int:
    """Entities that a limit would cut."""
    return 0 if ends[-1] <= room else sum(int(ends[span.end - 1]) > room for span in spans_of(example.tags))


def find_long(name: str, part: ExampleStore[Any], lengths: Lengths, limit: int) -> Finding:
    is_long = np.flatnonzero(lengths.tokens > limit)
    beyond = int((lengths.tokens[is_long] - limit).sum()) / max(1, int(lengths.tokens.sum()))
    number = counted(len(is_long), "text")
    message = f"{number} of {name} with more than {limit} tokens; {beyond:.1%} of all tokens lie beyond"
    is_ner = part.layout is TAGGED
    if is_ner:
        message += f", and {lengths.entities_beyond:,} entities. They are read in windows, and nothing is lost."
    else:
        message += ". Choose what is read with --task.long-texts, or a checkpoint that takes more."
    return Finding(
        kind="long_texts",
        severity="note" if is_ner else "warning",
        count=len(is_long),
        message=message,
        places=all_places(part.take(is_long).sources()),
    )
