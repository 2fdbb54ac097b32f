"""What a run does for speed, and why: a line for each choice."""

from __future__ import annotations

from nlp_transfer.adapters.lora import adapter_settings
from nlp_transfer.adapters.one_product import is_one_product
from nlp_transfer.reporting.progress import say
from nlp_transfer.training.config import TrainingConfig
from nlp_transfer.training.precision import precision_name, runs_bf16
from nlp_transfer.training.prepare import Run, why_not_kept
from nlp_transfer.training.unpadded import attention_name


def explain(run: Run, config: TrainingConfig) -> None:
    """Say it, if that was asked for."""
    if config.explain:
        for line in explanations(run, config):
            say(line)


def explanations(run: Run, config: TrainingConfig) -> list[str]:
    lines = [precision(run, config), attention(run)]
    if run.model.adapter == "lora":
        lines.append(adapter(run))
    return [*lines, trunk(run), batches(run)]


def precision(run: Run, config: TrainingConfig) -> str:
    chosen = precision_name(run.accelerator.mixed_precision)
    if config.mixed_precision != "auto":
        return f"Precision: {chosen}, as asked for."
    device = run.accelerator.device
    has = "multiplies in bf16" if runs_bf16(device) else "does not multiply in bf16"
    return f"Precision: {chosen}, for this {'GPU' if device.type == 'cuda' else 'processor'} {has}."


def attention(run: Run) -> str:
    kind, device = attention_name(run.model.network), run.accelerator.device.type
    if kind == "eager" and device == "cpu":
        return "Attention: eager, for on a CPU the way back through SDPA takes a third of a step on short texts."
    return f"Attention: {kind}, as transformers chooses for this encoder."


def adapter(run: Run) -> str:
    run.state.train()
    if is_one_product(run.network):
        return "LoRA: one matrix product for each adapted layer, as there is no dropout before it and no DoRA."
    settings = adapter_settings(run.model)
    reason = "LoRA dropout" if settings["dropout"] else "DoRA" if settings["use_dora"] else "how its layers are built"
    return f"LoRA: PEFT's own layers, with several products each, for {reason}."


def trunk(run: Run) -> str:
    if run.state.frozen is None:
        return "Frozen layers: none below all that is trained."
    depth = run.state.frozen.trunk.depth
    layers = f"the lowest {depth} layers" if depth > 1 else "the lowest layer"
    reason = None if run.state.frozen.states is not None else why_not_kept(run)
    return f"Frozen layers: {layers}, " + ("once for all epochs." if reason is None else f"in each epoch: {reason}.")


def batches(run: Run) -> str:
    plan = run.plan.batches
    rows = f"{plan.batch_size} rows" if plan.batch_size is not None else f"{plan.batch_tokens:,} tokens"
    share = f"{plan.padding_share(0):.1%} of their positions are padding"
    if run.state.unpadding is None:
        return f"Batches: {rows}, of about the same length: {share}, for this encoder cannot leave it out."
    first = (
        "; of the last layer just each text's first token, which the head reads"
        if run.state.unpadding.first_alone
        else ""
    )
    return f"Batches: {rows}, of about the same length: {share}, which is computed in attention alone{first}."
