"""Named-entity recognition with any checkpoint and any tagged file: every word of every text gets one tag.

nlp-transfer run ner --train train.conll
python recipes/ner.py --train train.conll --validation dev.conll --test test.conll
accelerate launch recipes/ner.py --train train.conll --checkpoint FacebookAI/roberta-base --lora.rank 32
"""

from dataclasses import dataclass
from pathlib import Path

import nlp_transfer as nt


@dataclass(frozen=True, kw_only=True)
class Config(nt.NerData):
    """Everything this recipe lets you change. Only --train must be given."""

    checkpoint: str = nt.default_checkpoint()
    """Hub id (with @revision if wanted), folder, or package:module/folder."""
    adapter: nt.AdapterKind = "lora"
    """lora: low-rank adapters and the head; none: all weights; head: the head alone."""
    run_dir: Path = Path("runs/ner")
    """Folder for the log, the report and the finished model."""
    overwrite: bool = False
    """Replace a finished run in run_dir, or an unfinished one with other settings or data."""
    dry_run: bool = False
    """Do everything for one step, say what the run would cost, and write nothing."""
    task: nt.NerConfig = nt.NerConfig()
    lora: nt.LoraConfig = nt.LoraConfig()
    training: nt.TrainingConfig = nt.TrainingConfig()


def run(config: Config) -> nt.Metrics:
    """Fine-tune, keep the best epoch, save it, and return its scores."""
    seed = config.training.seed
    splits = nt.read_ner(config, seed=seed)
    task = nt.Ner.for_splits(splits, config.task)
    model = nt.load_token_classifier(config.checkpoint, task.labels, seed=seed)
    model = nt.add_adapter(model, config.adapter, config.lora, seed=seed)

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
