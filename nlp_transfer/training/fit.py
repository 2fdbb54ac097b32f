"""Fine-tune: the training loop, plus the log, validation after each epoch, keeping the best one, and checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from nlp_transfer.checkpoints import Model
from nlp_transfer.data.encoded import Batch, EncodedSplit
from nlp_transfer.data.store import ExampleStore
from nlp_transfer.durable import as_path
from nlp_transfer.errors import Interrupted, TrainingError, counted
from nlp_transfer.metrics import Metrics
from nlp_transfer.reporting.progress import Bar, progress_bar, say
from nlp_transfer.signals import RECEIVED, noting_stops, stop_at_once, stop_when_asked
from nlp_transfer.tasks.base import E, P, Task
from nlp_transfer.training.config import TrainingConfig
from nlp_transfer.training.evaluate import predict_split, say_cut
from nlp_transfer.training.explained import explain
from nlp_transfer.training.frozen import FrozenPart
from nlp_transfer.training.log import Log
from nlp_transfer.training.loop import StepResult, train_steps
from nlp_transfer.training.parallel import from_main, in_any_process, refuse_different_weights
from nlp_transfer.training.passes import advice_where_memory_ends
from nlp_transfer.training.prepare import Run, choose_metric, describe, fill_trunk, keep_trunk, prepare
from nlp_transfer.training.processes import processes
from nlp_transfer.training.resume import Origin, made_of, made_with
from nlp_transfer.training.saving import Saving, alone_in
from nlp_transfer.training.tracking import Trackers
from nlp_transfer.training.watchdog import naming_the_lost, set_timeout

MAX_SKIPPED_IN_A_ROW = 10
MAX_NAMED = 8
"""Examples in a message."""


def fit(
    model: Model,
    task: Task[E, P],
    *,
    train: Iterable[E],
    validation: Iterable[E],
    config: TrainingConfig,
    run_dir: str | Path,
    overwrite: bool = False,
) -> Model:
    """Fine-tune and return the model as it was after its best epoch on the validation part.

    Writes a line a step and a line an epoch to ``log.jsonl`` in ``run_dir``, and checkpoints. Where that holds an
    unfinished run with the same settings and data, it goes on, and the result is, bit for bit, that of a run which
    never stopped. What is no sequence is read once and kept in memory.

    Raises ConfigError where the folder holds an unfinished run of another kind, unless ``overwrite``; TrainingError
    when the run cannot go on; Interrupted when a signal stopped it, with a checkpoint written. The random number
    generators of Python, numpy and torch are set anew for every micro-batch.
    """
    run_dir = as_path(run_dir)
    processes()  # the watch over them begins
    set_timeout(config.process_timeout)
    metric = choose_metric(task, config)
    train, validation = (
        part if isinstance(part, Sequence) else ExampleStore.of(list(part)) for part in (train, validation)
    )
    run = prepare(model, task, train, config, run_dir)
    describe(run, task)
    explain(run, config)
    held_out = task.encode(validation, model)
    say_cut(held_out, "validation", task.token_limit(model))
    run, frozen = keep_trunk(run, held_out)
    trackers = Trackers(run.accelerator)
    log = Log(run_dir, run.state.progress, trackers, writes=run.accelerator.is_main_process)
    origin = Origin(made_of(run, task, held_out, config, metric), made_with(run, task, config))
    saving = Saving(run, run_dir, log, config.keep_checkpoints, origin)
    session = Session(run, task, train, Validation(held_out, validation, metric, frozen), config, log, saving)
    with stop_at_once(), noting_stops(run_dir), naming_the_lost(), advice_where_memory_ends(), alone_in(run_dir):
        if not saving.begin(overwrite=overwrite):
            accelerator = run.accelerator
            log.plan(run.plan, accelerator.num_processes, accelerator.mixed_precision, run.split.num_cut, metric)
        refuse_different_weights(run.accelerator, run.network)
        if not session.is_over():
            fill_trunk(run, frozen)
        with trackers.running(run_dir, config, run.state.progress.step):
            session.train_until_asked()
        return saving.best_model()


def all_rows(run: Run) -> int:
    """Of all epochs together."""
    return run.plan.num_epochs * len(run.split)


def rows_done(run: Run) -> int:
    """Of these, trained before this start; in the epoch under way, those of the steps taken."""
    progress = run.state.progress
    steps = run.plan.batches.steps(progress.epoch)[: progress.steps_in_epoch] if progress.steps_in_epoch else []
    return progress.epoch * len(run.split) + sum(len(rows) for step in steps for rows in step.micro_batches)


@dataclass(frozen=True)
class Validation(Generic[E]):
    """What the run is judged by after each epoch."""

    split: EncodedSplit
    examples: Sequence[E]
    metric: str
    frozen: FrozenPart | None

    def passing(self, batch: Batch) -> AbstractContextManager[None]:
        return nullcontext() if self.frozen is None else self.frozen.passing(batch)


@dataclass(frozen=True)
class Session(Generic[E, P]):
    """One start of a run, from where it stands to its end or until a signal comes."""

    run: Run
    task: Task[E, P]
    examples: Sequence[E]
    validation: Validation[E]
    config: TrainingConfig
    log: Log
    saving: Saving

    def is_over(self) -> bool:
        """Whether nothing is left to be trained and validated."""
        is_trained = rows_done(self.run) == all_rows(self.run) or self._has_stalled()
        return is_trained and self.run.state.progress.is_validated

    def train_until_asked(self) -> None:
        """Raises Interrupted, with a checkpoint written, when a signal has come to any process."""
        promise = "finishing this step, then a checkpoint is written."
        with progress_bar("training", all_rows(self.run), rows_done(self.run)) as bar, stop_when_asked(promise):
            try:
                self.train(bar)
            except Interrupted as stopped:
                if RECEIVED.has_raised:  # wherever that was: a step may be half done
                    raise
                self.saving.save()
                step = self.run.state.progress.step
                raise Interrupted(f"{stopped} at step {step:,}; the same command goes on from there") from None
        self._look_for_signals()  # one may have come after the last look, and everything is saved

    def train(self, bar: Bar) -> None:
        progress = self.run.state.progress
        if not progress.is_validated:  # it was stopped in the midst of that
            self._finish_epoch()
        if self._stops_early():
            return
        for result in self._steps():
            self.log.step(result, bar)
            self._judge(result)
            if result.ends_epoch:
                self._finish_epoch()
            elif result.step % self.config.save_every == 0:
                self.saving.save()
            self._look_for_signals()
            if result.ends_epoch and self._stops_early():
                break

    def _steps(self) -> Iterable[StepResult]:
        run = self.run
        return train_steps(
            run.accelerator, run.state, run.loading, self.task.loss_sum, run.plan, self.config.max_grad_norm
        )

    def _finish_epoch(self) -> None:
        """Score the validation part, note whether it is the best so far, and save."""
        refuse_different_weights(self.run.accelerator, self.run.network)
        # computed alike in all processes; what the main one has is what counts
        scores = from_main(self._validate())
        if self.run.state.progress.count_score(scores[self.validation.metric]):
            self.saving.keep_best()
        self.log.epoch(scores)
        self.saving.save()

    def _validate(self) -> Metrics:
        """Scores in the precision of the training."""
        split, examples = self.validation.split, self.validation.examples
        network = self.run.state.network
        with progress_bar("validating", len(split)) as bar:
            found = predict_split(
                network,
                self.task,
                split,
                len(examples),
                bar,
                together=True,
                between=self._look_for_signals,
                passing=self.validation.passing,
            )
        return self.task.score(self.task.predictions(found), examples).metrics

    def _stops_early(self) -> bool:
        if stalled := self._has_stalled():
            say(f"No better {self.validation.metric} for {self.config.early_stopping_patience} epochs: stopped.")
        return stalled

    def _has_stalled(self) -> bool:
        """Whether the score has not risen for as many epochs as are allowed."""
        progress, patience = self.run.state.progress, self.config.early_stopping_patience
        return patience is not None and progress.epoch - progress.best_epoch >= patience

    def _look_for_signals(self) -> None:
        """Raises Interrupted in all processes at the same place if a signal has come to one of them."""
        if in_any_process(RECEIVED.name is not None):
            raise Interrupted(f"by {RECEIVED.name or 'a signal to another process'}")

    def _judge(self, result: StepResult) -> None:
        """Say that a step was left out; raises TrainingError where the run shall stop or cannot get on."""
        if not result.suspects:
            return
        what = (
            f"The loss of step {result.step:,} is {result.loss.item():.4g}, the norm of its gradient "
            f"{result.grad_norm.item():.4g} (learning rate {result.learning_rate:.1e}; {self._named(result.suspects)})"
        )
        advice = (
            "Look at these examples, or begin anew with a lower learning_rate, in another folder or with --overwrite."
        )
        if self.config.on_nonfinite == "stop":
            raise TrainingError(f"{what}. The weights are those before the step. {advice}")
        say(f"{what}. The step is left out.")
        if self.run.state.progress.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise TrainingError(f"{what}. The last {MAX_SKIPPED_IN_A_ROW} steps were left out like this one. {advice}")

    def _named(self, rows: tuple[int, ...]) -> str:
        """The examples of some rows, by file and line."""
        numbers = sorted({int(self.run.split.examples[row]) for row in rows})
        places = ", ".join(str(self.examples[number].source) for number in numbers[:MAX_NAMED])
        more = f" and {len(numbers) - MAX_NAMED} more" if len(numbers) > MAX_NAMED else ""
        return f"{counted(len(numbers), 'example')}: {places}{more}"
