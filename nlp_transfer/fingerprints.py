"""sha256 of files, tensors and tokenizers: what makes a checkpoint the same wherever it is found."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # files are hashed where nothing else needs torch, as when one is refused
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

PACKAGE = Path(__file__).parent
PROBES = (
    "Hello, World!",
    "naïve café — 漢字 🙂",
    "don't\tstop  e-mail @user #tag http://x.y",
    "İSTANBUL ß ﬁ 12,345.67",
)


def hash_files(paths: Sequence[Path]) -> str:
    """Of one file its bytes; of several, the list of their names and hashes."""
    hashes = []
    for path in paths:
        with path.open("rb") as file:
            hashes.append((path.name, hashlib.file_digest(file, "sha256").hexdigest()))
    return hashes[0][1] if len(hashes) == 1 else hash_json(hashes)


def hash_tensors(state: Mapping[str, Tensor]) -> str:
    """Over name, type, shape and bytes of every tensor, in the order of their names."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Over vocabulary and behaviour, because the files are written anew by every version of the libraries."""
    return hash_json([sorted(tokenizer.get_vocab().items()), [tokenizer(text)["input_ids"] for text in PROBES]])


def tokenizer_key(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Over all that decides about tokens, for one version of the libraries.

    None for a tokenizer written in Python: what it does is not all in its settings.
    """
    settings = sorted((name, repr(value)) for name, value in tokenizer.init_kwargs.items())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    backend.no_truncation()  # what an earlier call asked for stays set, and is no part of it
    backend.no_padding()
    return hash_json([settings, backend.to_str()])


def hash_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape")).hexdigest()


@functools.cache
def code_sha256() -> str:
    """Of the toolkit's own code."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def own_code_sha256(task: type) -> str:
    """Of the user's code: the program or recipe, and what defines the task. (Not of what these import.)"""
    recipes = (name for name in sys.modules if name.startswith("recipe_"))
    return own_files_sha256({"__main__", *recipes, *modules_of(task)})


def task_code_sha256(task: type) -> str | None:
    """Of the user's code that defines the task; None where that is in no file, as in a notebook."""
    names = modules_of(task) - {"builtins"}
    if any(getattr(sys.modules.get(name), "__file__", None) is None for name in names):
        return None
    return own_files_sha256(names)


def modules_of(task: type) -> set[str]:
    return {base.__module__ for base in task.__mro__}


def own_files_sha256(names: Iterable[str]) -> str:
    """Of the files of those of these modules that are not the toolkit's."""
    files = {getattr(sys.modules.get(name), "__file__", None) or "" for name in names}
    own = {Path(file) for file in files if file.endswith(".py") and not Path(file).is_relative_to(PACKAGE)}
    return hash_json(sorted(hash_files([path]) for path in own if path.is_file()))
