"""The gradient does not depend on how a step's examples are spread over batch size, accumulation and processes."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.processes import launch
from tests.promises import one_step

SAME = 1e-5
TASKS = ["ner", "text_classification"]


def corpus_of(task: str, request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("conll" if task == "ner" else "tsv"))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("batch_size", "accumulation"), [(8, 2), (4, 4), (1, 16)])
def test_accumulating_micro_batches_gives_the_gradient_of_one_batch(
    checkpoint, request, task, batch_size, accumulation
):
    corpus = corpus_of(task, request)
    whole = one_step.gradient(checkpoint, corpus, task, one_step.STEP_EXAMPLES, 1)
    spread = one_step.gradient(checkpoint, corpus, task, batch_size, accumulation)
    assert one_step.relative_difference(whole, spread) <= SAME


def test_a_mean_of_micro_batch_means_would_be_caught(checkpoint, conll):
    """The same comparison with the usual trainers' loss; the corpus has sentences of 3 to 31 words."""
    whole = one_step.gradient(checkpoint, str(conll), "ner", one_step.STEP_EXAMPLES, 1)
    for batch_size, accumulation in [(8, 2), (4, 4), (1, 16)]:
        faulty = one_step.gradient(checkpoint, str(conll), "ner", batch_size, accumulation, mean_of_means=True)
        assert one_step.relative_difference(whole, faulty) > 100 * SAME


@pytest.mark.multiprocess
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("number", "batch_size", "accumulation"),
    [(2, 2, 4), pytest.param(2, 8, 1, marks=pytest.mark.slow), pytest.param(4, 2, 2, marks=pytest.mark.slow)],
)
def test_several_processes_give_the_gradient_of_one(
    checkpoint, request, tmp_path, task, number, batch_size, accumulation
):
    corpus, out = corpus_of(task, request), tmp_path / "gradient.safetensors"
    launch(number, Path(one_step.__file__), checkpoint, corpus, task, batch_size, accumulation, number, out)
    whole = one_step.gradient(checkpoint, corpus, task, one_step.STEP_EXAMPLES, 1)
    assert one_step.relative_difference(whole, load_file(out)) <= SAME
