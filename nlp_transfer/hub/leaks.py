"""What must not leave this machine: tokens, keys, and paths that name it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

import huggingface_hub

from nlp_transfer.data.tables import HUB_PREFIX
from nlp_transfer.durable import as_path
from nlp_transfer.errors import ArtifactError

SECRETS = {
    "a Hugging Face token": rb"\bhf_[A-Za-z0-9]{30,}",
    "a GitHub token": rb"\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_\w{50,}",
    "an OpenAI or Anthropic key": rb"\bsk-[A-Za-z0-9_-]{20,}",
    "a GitLab token": rb"\bglpat-[A-Za-z0-9_-]{20,}",
    "an npm token": rb"\bnpm_[A-Za-z0-9]{36}\b",
    "a PyPI token": rb"\bpypi-[A-Za-z0-9_-]{50,}",
    "a Stripe key": rb"\b[sr]k_live_[A-Za-z0-9]{16,}",
    "an AWS key": rb"\bA[KS]IA[0-9A-Z]{16}\b",
    "a Google key": rb"\bAIza[0-9A-Za-z_-]{35}",
    "a Slack token": rb"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "a JSON web token": rb"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}
"""Beginnings that their makers chose so that they can be found."""
IN_ADDRESS = rb"\b[a-z][a-z0-9+.-]*://[^\s/:@\"]+:[^\s/:@\"]{3,}@"
"""A password. Weights are bytes of all kinds, and in a hundred million of them it stands by chance."""
TEXT = (".json", ".md", ".txt")


def refuse_leaks(folder: Path, paths: Iterable[Path]) -> None:
    """Raises ArtifactError for a file that holds a secret, the token in use, or a path in this user's home."""
    token = huggingface_hub.get_token()
    for path in paths:
        content = path.read_bytes()
        found = [what for what, pattern in SECRETS.items() if re.search(pattern, content)]
        if token and token.encode() in content:
            found.append("the token in use")
        if path.suffix in TEXT and re.search(IN_ADDRESS, content):
            found.append("a password in an address")
        if path.suffix in TEXT and re.search(home_pattern(Path.home()), content):
            found.append("a path of this machine")
        if found:
            raise ArtifactError(
                f"{path.relative_to(folder)} would publish {found[0]}, so nothing was sent. Remove it from the data or "
                "the settings."
            )


def home_pattern(home: Path) -> bytes:
    """As it is, and as JSON spells it; not in the midst of a longer name. Nothing fits where the home is the root."""
    if len(home.parts) < 2:
        return rb"(?!)"
    spellings = {str(home), json.dumps(str(home))[1:-1], json.dumps(str(home), ensure_ascii=False)[1:-1]}
    return rb"(?<![\w.-])(" + b"|".join(re.escape(spelling.encode()) for spelling in spellings) + rb")(?![\w.-])"


def without_folders(command: str, base: str) -> str:
    """The command with no more of a path than the file's name, and the checkpoint as others call it."""
    try:
        words = shlex.split(command)
    except ValueError:  # written by an older version, for a program with a quote in its name
        return command.partition(" ")[0]
    cleaned: list[str] = []
    for word in words:
        flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        asks = flag or (cleaned[-1] if cleaned else "")
        cleaned.append(flag + equals + without_folder(value, base if asks == "--checkpoint" else None))
    return shlex.join(cleaned)


def without_folder(value: str, base: str | None) -> str:
    """``base`` for a folder that holds the base; a data set on the Hub ("hub:org/name") keeps its name."""
    if value.startswith(HUB_PREFIX) or not ({"/", "\\"} & {*value} or value.startswith("~")):
        return value
    if base is not None:
        return base
    if as_path(value) == Path.home():
        return "~"
    return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
