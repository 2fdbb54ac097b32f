"""Take one optimizer step at learning rate 1 without momentum, so that the weights move by exactly their gradient.

A script too, for several processes: ``accelerate launch one_step.py CHECKPOINT CORPUS TASK BATCH ACCUMULATION OUT``.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

import nlp_transfer as nt
from nlp_transfer.adapters.trainable import trainable_state
from nlp_transfer.data.encoded import EncodedSplit
from nlp_transfer.data.loading import Loading
from nlp_transfer.training.defaults import plan_training
from nlp_transfer.training.loop import take_step
from nlp_transfer.training.passes import LossSum
from nlp_transfer.training.precision import make_accelerator
from nlp_transfer.training.processes import processes
from nlp_transfer.training.state import Progress, TrainState

STEP_EXAMPLES = 16
NO_CLIPPING = 1e9


def load(checkpoint: str, corpus: str, task_name: str) -> tuple[nt.Model, LossSum, EncodedSplit]:
    """A model with fresh LoRA adapters, dropout off, and the corpus encoded for it."""
    if task_name == "ner":
        splits = nt.read_ner(nt.NerData(train=corpus, validation=corpus, allow_leakage=True))
        task = nt.Ner.for_splits(splits, nt.NerConfig())
        model = nt.load_token_classifier(checkpoint, task.labels)
    else:
        splits = nt.read_text_classification(nt.TextData(train=corpus, validation=corpus, allow_leakage=True))
        task = nt.TextClassification.for_splits(splits, nt.TextClassificationConfig())
        model = nt.load_sequence_classifier(checkpoint, task.labels)
    model = nt.add_adapter(model, "lora", nt.LoraConfig(rank=4, init="gaussian"))
    for module in model.network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model, task.loss_sum, task.encode(splits.train, model)


def gradient(
    checkpoint: str, corpus: str, task_name: str, batch_size: int, accumulation: int, *, mean_of_means: bool = False
) -> dict[str, Tensor]:
    """Of the loss of the first whole step, by the name of the weight."""
    model, loss_sum, split = load(checkpoint, corpus, task_name)
    config = nt.TrainingConfig(batch_size=batch_size, gradient_accumulation_steps=accumulation, mixed_precision="no")
    accelerator = make_accelerator(config)
    plan = plan_training(config, split, adapter="lora", num_labels=2, width=32, num_processes=accelerator.num_processes)
    step = next(s for s in plan.batches.steps(0) if sum(map(len, s.micro_batches)) == STEP_EXAMPLES)
    if mean_of_means:
        step, loss_sum = replace(step, num_targets=len(step.micro_batches)), per_micro_batch(loss_sum)

    before = {name: tensor.clone() for name, tensor in trainable_state(model.network).items()}
    optimizer = torch.optim.SGD([p for p in model.network.parameters() if p.requires_grad], lr=1.0)
    network, optimizer = accelerator.prepare_model(model.network, evaluation_mode=True), accelerator.prepare(optimizer)
    state = TrainState(network, optimizer, lambda _: 1.0, Progress())
    own = step.share(accelerator.process_index, accelerator.num_processes)
    batches = list(Loading(split).batches(own, 0))
    take_step(accelerator, state, step, batches, loss_sum, NO_CLIPPING, (0, 0))
    return {name: before[name] - tensor for name, tensor in trainable_state(model.network).items()}


def per_micro_batch(loss_sum: LossSum) -> LossSum:
    """The usual trainers' loss: the mean over the targets of one micro-batch."""
    return lambda logits, labels: loss_sum(logits, labels) / (labels != -100).sum()


def relative_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Norm of the difference of all gradients over the norm of the first."""
    a, b = (torch.cat([gradients[name].flatten() for name in sorted(gradients)]) for gradients in (one, other))
    return float((a - b).norm() / a.norm())


if __name__ == "__main__":
    checkpoint, corpus, task_name, batch_size, accumulation, num_processes, out = sys.argv[1:]
    found = gradient(checkpoint, corpus, task_name, int(batch_size), int(accumulation))
    # without this a launch that fell apart into separate runs would pass for two processes
    assert processes().num_processes == int(num_processes), processes()
    if processes().is_main_process:
        save_file(found, Path(out))
