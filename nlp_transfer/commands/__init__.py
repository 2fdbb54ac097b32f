"""The commands of ``nlp-transfer``: their flags are the arguments of these functions."""
