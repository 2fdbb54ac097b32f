"""Labelled files to examples, and encoded examples to batches."""
