"""How repositories, and adapters in them, are named."""

import re

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
MEMBER = re.compile(r"[\w-][\w.-]{0,95}", re.ASCII)
"""Of a bank: the name of a folder."""
