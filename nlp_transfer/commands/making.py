"""Make another model of saved ones, or of those of others."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from nlp_transfer.errors import needing


def merge(
    output: Positional[Path],
    models: Positional[tuple[Path, ...]],
    method: Literal["average", "ties", "dare"] = "average",
    weights: tuple[float, ...] | None = None,
    density: float = 0.5,
    seed: int = 0,
    union_head: bool = False,
    min_agreement: float = 1.0,
    checkpoint: str | None = None,
    overwrite: bool = False,
) -> None:
    """Fold an adapter into the weights of its base, or several of one task by their mean; prints the new folder.

    Args:
        output: Folder to write; it comes first.
        models: Model folders of runs, or user/name[@revision] on the Hub.
        method: How several are put together: their mean, or their largest or random changes to the base.
        weights: What each of them counts; they add up to 1. Equal if not given.
        density: Share of the changes that ties and dare keep.
        seed: Of what dare keeps.
        union_head: Put adapters of different labels together; the result has the labels of all.
        min_agreement: With --union-head: share of each model's samples that must get the labels it gives.
        checkpoint: Where the base is, if not where they were trained from.
        overwrite: Replace a model that stands there.
    """
    from nlp_transfer.hub.pull import local_folder
    from nlp_transfer.merging import merge as merge_models

    settings = {
        "method": method,
        "weights": weights,
        "density": density,
        "seed": seed,
        "union_head": union_head,
        "min_agreement": min_agreement,
        "checkpoint": checkpoint,
        "overwrite": overwrite,
    }
    print(merge_models([local_folder(model) for model in models], output, **settings))  # type: ignore[arg-type]


def export(
    model: Positional[Path],
    output: Positional[Path],
    file: str | None = None,
    int8: bool = False,
    min_agreement: float = 1.0,
    checkpoint: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write an ONNX model for onnxruntime, if it answers alike. Needs the extra: pip install 'nlp-transfer[onnx]'.

    Args:
        model: Model folder of a run, or user/name[@revision] on the Hub.
        output: Folder to write.
        file: Texts to compare answers on, a table or a text a line; the samples in the model's manifest if not given.
        int8: Hold the weights of linear layers in 8 bits.
        min_agreement: Share of texts that must get the same labels or entities.
        checkpoint: Where the base is, if not where it was trained from.
        overwrite: Replace a model that stands there.
    """
    with needing("onnx"):
        from nlp_transfer.inference.onnx import export as export_model
    from nlp_transfer.hub.pull import local_folder
    from nlp_transfer.inference.files import texts_to_compare

    folder = local_folder(model)
    settings = {"int8": int8, "min_agreement": min_agreement, "checkpoint": checkpoint, "overwrite": overwrite}
    print(f"{output}: {export_model(folder, output, texts_to_compare(folder, file), **settings)}")  # type: ignore[arg-type]


def convert(
    source: Positional[str],
    output: Positional[Path],
    checkpoint: str | None = None,
    labels: tuple[str, ...] | None = None,
    multi_label: bool = False,
    text_pair: bool = False,
    overwrite: bool = False,
) -> None:
    """Make a model folder of a plain PEFT adapter or a model of transformers, and say what is missing there.

    Args:
        source: Folder, or repository on the Hub.
        output: Folder to write.
        checkpoint: Base of an adapter, if not the one that it names.
        labels: Names of the labels in the order of their ids, if not those in its config.json.
        multi_label: It was trained to give any number of labels.
        text_pair: It was trained on pairs of texts.
        overwrite: Replace a model that stands there.
    """
    from nlp_transfer.converting.convert import convert as convert_model

    settings = {"labels": labels, "multi_label": multi_label, "text_pair": text_pair}
    print(convert_model(source, output, checkpoint=checkpoint, overwrite=overwrite, **settings))  # type: ignore[arg-type]
