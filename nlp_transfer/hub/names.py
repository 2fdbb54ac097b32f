"""How repositories, and adapters in them, are named."""

import re

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
REFERENCE = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)*", re.ASCII)
MEMBER = re.compile(r"[\w-][\w.-]{0,95}", re.ASCII)
"""Of a bank: the name of a folder."""


def is_reference(name: str) -> bool:
    """Whether git takes it for a branch or tag, and no person for a command."""
    return bool(REFERENCE.fullmatch(name)) and ".." not in name and not name.endswith((".lock", "."))
