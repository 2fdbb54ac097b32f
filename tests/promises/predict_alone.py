"""Predict in the first of several processes only, as a service's worker may: ``predict_alone.py MODEL TEXT``."""

import sys

import nlp_transfer as nt
from nlp_transfer.training.processes import processes

model, text = sys.argv[1:]
assert processes().num_processes == 2
if processes().is_main_process:
    print(f"answer: {nt.load(model).predict(text).label}")
