"""The usual way, for comparison: HF Trainer + PEFT on a recipe's splits, settings and scorer.

    python scripts/peer_hf_trainer.py wnut17_minilm_lora --train T --validation V --test E --run-dir R

Takes from the recipe: splits, checkpoint, LoRA rank and alpha, epochs, learning rate, batch size, warm-up,
longest gradient and seed.
All else is as Trainer and PEFT have it, except bf16 (ours trains in bf16 too) and the best epoch being kept (ours is).
Words get the label of their first piece, as in the run_ner example. Writes metrics.json.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import datasets
import numpy as np
import peft
import torch
import transformers as hf
import tyro

import nlp_transfer as nt
from nlp_transfer.bundled_recipes import find_recipe, load_recipe
from nlp_transfer.checkpoint_folders import find
from nlp_transfer.metrics import score_classes, score_entities

MAX_TOKENS = 512
BERT_LINEARS = ["query", "key", "value", "dense"]
"""PEFT's "all-linear" raises TypeError with a token head: it takes the head too."""


def main() -> None:
    recipe = load_recipe(find_recipe(sys.argv[1]))
    config = tyro.cli(recipe.Config, args=sys.argv[2:])
    is_ner = isinstance(config, nt.NerData)
    seed = config.training.seed
    splits: Any = nt.read_ner(config, seed=seed) if is_ner else nt.read_text_classification(config, seed=seed)
    task: Any = (nt.Ner if is_ner else nt.TextClassification).for_splits(splits, config.task)
    folder = find(config.checkpoint)[0]
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    parts = {name: encode(part, tokenizer, task.labels) for name, part in splits.parts()}

    hf.set_seed(config.training.seed)
    auto = hf.AutoModelForTokenClassification if is_ner else hf.AutoModelForSequenceClassification
    model = auto.from_pretrained(folder, num_labels=len(task.labels))
    lora = peft.LoraConfig(
        task_type="TOKEN_CLS" if is_ner else "SEQ_CLS",
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        target_modules=BERT_LINEARS,
    )
    collator = hf.DataCollatorForTokenClassification if is_ner else hf.DataCollatorWithPadding
    trainer = hf.Trainer(
        peft.get_peft_model(model, lora),
        arguments(config),
        data_collator=collator(tokenizer),
        train_dataset=parts["train"],
        eval_dataset=parts["validation"],
        compute_metrics=lambda output: score(output.predictions, output.label_ids, splits.validation, task),
    )
    trainer.train()
    trainer.compute_metrics = None  # it knows the validation part only
    predicted = trainer.predict(parts["test"])
    metrics = score(predicted.predictions, predicted.label_ids, splits.test, task)
    config.run_dir.mkdir(parents=True, exist_ok=True)
    (config.run_dir / "metrics.json").write_text(json.dumps({"test": metrics}))


def arguments(config: Any) -> hf.TrainingArguments:
    training = config.training
    return hf.TrainingArguments(
        output_dir=str(config.run_dir / "trainer"),
        num_train_epochs=training.num_epochs,
        learning_rate=training.learning_rate,
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=64,
        max_grad_norm=training.max_grad_norm,
        warmup_steps=training.warmup_fraction,  # below 1 it is a share of all steps
        seed=training.seed,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="score",
        greater_is_better=True,
        report_to=[],
        disable_tqdm=True,
    )


class Clock(hf.TrainerCallback):
    """The seconds from the first step to the last, without what Trainer sets up before."""

    seconds = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.seconds = -time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds += time.perf_counter()


def encode(examples: Any, tokenizer: Any, labels: nt.LabelSet) -> datasets.Dataset:
    if isinstance(examples[0], nt.TextExample):
        encoding = tokenizer([example.text for example in examples], truncation=True, max_length=MAX_TOKENS)
        encoding["labels"] = [labels.id(example.labels[0]) for example in examples]
        return datasets.Dataset.from_dict(dict(encoding))
    words = [list(example.words) for example in examples]
    encoding = tokenizer(words, is_split_into_words=True, truncation=True, max_length=MAX_TOKENS)
    rows = []
    for i, example in enumerate(examples):
        ids = encoding.word_ids(i)
        first = [word is not None and word != before for word, before in zip(ids, [None, *ids[:-1]], strict=True)]
        rows.append([labels.id(example.tags[w]) if f else -100 for w, f in zip(ids, first, strict=True)])
    encoding["labels"] = rows
    return datasets.Dataset.from_dict(dict(encoding))


def score(logits: Any, label_ids: Any, examples: Any, task: Any) -> dict[str, float]:
    """By the toolkit's scorer, over all words of the examples; a word without a prediction counts as O."""
    ids = np.argmax(logits, axis=-1)
    names = task.labels.names
    if isinstance(task, nt.TextClassification):
        found = score_classes([names[i] for i in ids], [example.labels[0] for example in examples], names)
        return {"accuracy": found.metrics["accuracy"], "score": found.metrics["accuracy"]}
    predicted = []
    for row, gold, example in zip(ids, label_ids, examples, strict=True):
        tags = [names[i] for i in row[gold != -100]]
        predicted.append(tags + ["O"] * (len(example.words) - len(tags)))
    f1 = score_entities(predicted, [example.tags for example in examples], task.classes).metrics["f1"]
    return {"f1": f1, "score": f1}


if __name__ == "__main__":
    main()
