"""What must not leave this machine: tokens, keys, and paths that name it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

import huggingface_hub

from nlp_transfer.errors import ArtifactError

SECRETS = {
    "a Hugging Face token": rb"\bhf_[A-Za-z0-9]{30,}",
    "a GitHub token": rb"\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_\w{50,}",
    "an OpenAI or Anthropic key": rb"\bsk-[A-Za-z0-9_-]{20,}",
    "an AWS key": rb"\bAKIA[0-9A-Z]{16}\b",
    "a Google key": rb"\bAIza[0-9A-Za-z_-]{35}",
    "a Slack token": rb"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "a JSON web token": rb"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}
"""Beginnings that their makers chose so that they can be found."""
TEXT = (".json", ".md", ".txt")


def refuse_leaks(folder: Path, paths: Iterable[Path]) -> None:
    """Raises ArtifactError for a file that holds a secret, the token in use, or a path in this user's home."""
    token, home = huggingface_hub.get_token(), f"{Path.home()}/".encode()
    for path in paths:
        content = path.read_bytes()
        found = [what for what, pattern in SECRETS.items() if re.search(pattern, content)]
        if token and token.encode() in content:
            found.append("the token in use")
        if path.suffix in TEXT and home in content:
            found.append("a path of this machine")
        if found:
            raise ArtifactError(
                f"{path.relative_to(folder)} would publish {found[0]}, so nothing was sent. Remove it from the data or "
                "the settings."
            )


def without_folders(command: str) -> str:
    """The command with the names of files alone where they were named from the root or the home."""
    return shlex.join(without_folder(word) for word in shlex.split(command))


def without_folder(word: str) -> str:
    flag, equals, value = word.rpartition("=")
    return f"{flag}{equals}{Path(value).name}" if value.startswith(("/", "~")) else word
