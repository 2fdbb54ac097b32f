"""The card of a bank: what its adapters have in common, and a line for each; their own cards say the rest."""

from __future__ import annotations

from collections.abc import Sequence

from huggingface_hub import ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index

from nlp_transfer.hub.card import PIPELINE, Card, licence, link, results
from nlp_transfer.hub.markdown import block
from nlp_transfer.hub.snippets import asked_of, own_snippet, plain_snippet
from nlp_transfer.reporting.tables import markdown_table


def make_bank_card(cards: Sequence[Card]) -> str:
    """The text of ``README.md`` beside ``bank.json``."""
    first = cards[0]
    sections = [
        f"---\n{bank_metadata(cards).to_yaml()}\n---",
        f"# {first.repo.rpartition('/')[2]}",
        f"{len(cards)} adapters on {link(first.base)}. One copy of it in memory answers for all, in mixed batches.",
        adapters(cards),
        f"## Use\n\n{block(bank_snippet(cards), 'python')}",
        "One adapter with plain PEFT; the others are named in the same way:",
        block(plain_snippet(first), "python"),
        "## Limits\n\nEach adapter has limits of its own: see its card, in its folder.",
        licence(first),
    ]
    return "\n\n".join(sections) + "\n"


def bank_metadata(cards: Sequence[Card]) -> ModelCardData:
    """With the scores of each adapter under its own name."""
    first, tasks = cards[0], {card.task["name"] for card in cards}
    data = ModelCardData(
        base_model=first.base.name,
        library_name="peft",
        license=first.licence,
        pipeline_tag=PIPELINE[first.task["name"]] if len(tasks) == 1 else None,
        tags=["nlp-transfer", "adapter-bank", "lora"],
        base_model_relation="adapter",
    )
    scored = [eval_results_to_model_index(card.name, found) for card in cards if (found := results(card))]
    if scored:
        data["model-index"] = [entry for index in scored for entry in index]
    return data


def adapters(cards: Sequence[Card]) -> str:
    rows = [
        [
            f"[{card.member}]({card.member}/README.md)",
            PIPELINE[card.task["name"]],
            f"{len(card.classes):,}",
            ", ".join(
                f"{name} {value:.4f}" for found in card.manifest.scores.values() for name, value in found.items()
            ),
        ]
        for card in cards
    ]
    return "## Adapters\n\n" + markdown_table(["adapter", "task", "labels", "scores"], rows)


def bank_snippet(cards: Sequence[Card]) -> str:
    lines = own_snippet(cards[0]).splitlines()[:-1]
    asked = [f'    ("{card.member}", {asked_of(card)}),' for card in cards]
    return "\n".join([*lines, "requests = [", *asked, "]", "print(bank.predict(requests))"])
