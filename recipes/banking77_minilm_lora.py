"""Intents of bank customers (Banking77, 77 labels): all-MiniLM-L6-v2 with LoRA on every linear layer of the encoder.

    python recipes/banking77_minilm_lora.py --train train.csv --test test.csv
    accelerate launch recipes/banking77_minilm_lora.py --train train.csv --test test.csv

Score, spread over seeds and cost: recipes/README.md. Data: Casanueva et al., 2020, arXiv 2003.04807.
"""

from dataclasses import dataclass
from pathlib import Path

import nlp_transfer as nt


@dataclass(frozen=True, kw_only=True)
class Config(nt.TextData):
    """Everything this recipe lets you change; the defaults are the measured recipe."""

    checkpoint: str = nt.default_checkpoint()
    """Hub id (with @revision if wanted), folder, or package:module/folder."""
    run_dir: Path = Path("runs/banking77_minilm_lora")
    """Folder for the log, the report and the finished model."""
    overwrite: bool = False
    """Replace a finished run in run_dir, or an unfinished one with other settings or data."""
    dry_run: bool = False
    """Do everything for one step, say what the run would cost, and write nothing."""
    task: nt.TextClassificationConfig = nt.TextClassificationConfig()
    lora: nt.LoraConfig = nt.LoraConfig(rank=16, alpha=32)
    training: nt.TrainingConfig = nt.TrainingConfig(num_epochs=8, learning_rate=1e-3, batch_size=32)


def run(config: Config) -> nt.Metrics:
    """Fine-tune, keep the best epoch, save it, and return its test scores."""
    seed = config.training.seed
    splits = nt.read_text_classification(config, multi_label=config.task.multi_label, seed=seed)
    task = nt.TextClassification.for_splits(splits, config.task)
    model = nt.load_sequence_classifier(config.checkpoint, task.labels, seed=seed)
    model = nt.add_adapter(model, "lora", config.lora, seed=seed)

    nt.start_run(config.run_dir, config, splits, overwrite=config.overwrite, dry_run=config.dry_run)
    if config.dry_run:
        return nt.dry_run(model, task, train=splits.train, config=config.training)
    model = nt.fit(
        model,
        task,
        train=splits.train,
        validation=splits.validation,
        config=config.training,
        run_dir=config.run_dir,
        overwrite=config.overwrite,
    )
    evaluation = nt.evaluate(model, task, *splits.scored)
    nt.save_model(model, task, evaluation, Path(config.run_dir, "model"))
    return nt.finish_run(config.run_dir, model, evaluation, task)


if __name__ == "__main__":
    nt.launch(run, Config)
