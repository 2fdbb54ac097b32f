"""A model as an ONNX file for onnxruntime: written behind a gate, and read with the same interface.

model.onnx                     encoder and head, adapter merged; any number of rows and tokens
config.json, tokenizer files   as transformers writes them
manifest.json                  as in every model folder
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import onnx
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

from nlp_transfer.artifacts import put_in_place, refuse_existing, staged_for, write_manifest
from nlp_transfer.checkpoints import Model, load_tokenizer, quiet_transformers
from nlp_transfer.durable import as_path
from nlp_transfer.errors import ArtifactError, ConfigError, first_line
from nlp_transfer.fingerprints import hash_tokenizer
from nlp_transfer.inference.predictor import Predictor
from nlp_transfer.inference.texts import Entity, Text
from nlp_transfer.inspection import read_json, refuse_odd_config
from nlp_transfer.manifest import ONNX_FILES, Manifest, read_manifest
from nlp_transfer.merging import folded
from nlp_transfer.saved_models import load_model, make_task, model_folder
from nlp_transfer.tasks.base import padding_of

MODEL_FILE = ONNX_FILES[1]
PROBABILITY_TOLERANCE = 1e-3
"""In fp32; int8 is judged by what it predicts."""
DOMAINS = ("", "ai.onnx", "com.microsoft")
"""Of operators that onnxruntime brings itself."""


@dataclass(frozen=True)
class Parity:
    """How an exported model answers beside the one it was made from."""

    texts: int
    largest_difference: float
    """Of the probabilities."""
    agreement: float
    """Share of texts with equal labels, or equal entities."""

    def __str__(self) -> str:
        return (
            f"{self.agreement:.1%} of {self.texts:,} texts get the same answer, and probabilities differ by up to "
            f"{self.largest_difference:.2g}"
        )


def export(
    folder: str | Path,
    output: str | Path,
    texts: Sequence[Text],
    *,
    int8: bool = False,
    min_agreement: float = 1.0,
    checkpoint: str | None = None,
    overwrite: bool = False,
) -> Parity:
    """Write an ONNX model to ``output`` if it answers ``texts`` as the model in ``folder`` does.

    Raises ArtifactError below the gate, and for families that torch cannot export (XLNet): nothing is written then.
    """
    folder, output = as_path(folder), as_path(output)
    refuse_existing(output, overwrite=overwrite)
    if not texts:
        raise ConfigError("export compares answers on texts, got none. Pass a file with some.")
    folder = model_folder(folder)
    model, task = load_model(folder, checkpoint=checkpoint)
    whole = model if model.adapter == "none" else folded(model)
    staged = staged_for(output)
    staged.mkdir(parents=True)
    try:
        write_graph(whole, staged / MODEL_FILE, int8=int8)
        whole.network.config.problem_type = task.problem_type
        whole.network.config.save_pretrained(staged)
        whole.tokenizer.save_pretrained(staged)
        write_manifest(manifest_of_export(read_manifest(folder), int8=int8), staged)
        parity = compared(Predictor(model, task), load_onnx(staged), texts)
        allowed = 1.0 if int8 else PROBABILITY_TOLERANCE
        if parity.largest_difference > allowed or parity.agreement < min_agreement:
            raise ArtifactError(
                f"Nothing was written: {parity}; needed are {min_agreement:.1%}, and allowed is {allowed:.2g}. Compare "
                "on more texts, or allow more."
            )
        put_in_place(staged, output)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return parity


def manifest_of_export(manifest: Manifest, *, int8: bool) -> Manifest:
    """What the model scored, and answered, int8 may not: of that nothing is stated."""
    exported = replace(manifest, adapter="onnx")
    return replace(exported, scores={}, samples=[]) if int8 else exported


class LogitsAlone(nn.Module):
    """Takes its inputs by position, as an exporter calls it."""

    def __init__(self, network: PreTrainedModel, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.network(**dict(zip(self.names, inputs, strict=True))).logits
        return logits


def write_graph(model: Model, path: Path, *, int8: bool) -> None:
    """With torch.export: the older exporter by tracing freezes masks of some families and says nothing."""
    names = list(padding_of(model).values)
    inputs = tuple(torch.full((2, 7), int(name != "token_type_ids")) for name in names)
    shape = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    network = LogitsAlone(model.network.cpu().eval(), names)
    try:
        with quiet_exporters(), quiet_transformers():
            torch.onnx.export(
                network,
                inputs,
                path,
                dynamo=True,
                external_data=False,
                input_names=names,
                output_names=["logits"],
                dynamic_shapes=[tuple(shape for _ in names)],
                verbose=False,
            )
        if int8:
            with quiet_exporters():
                quantize_dynamic(path, path, weight_type=QuantType.QInt8)
    except Exception as error:  # the exporter has types of its own for each of its stages
        kind = model.network.config.model_type
        raise ArtifactError(f"A {kind} model cannot be exported to ONNX: {first_line(error)[:200]}") from error


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """They tell users of libraries that are not installed, and of steps that are taken already."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


class OnnxNetwork(nn.Module):
    """Stands in for a network of transformers: takes the same inputs, gives ``logits``."""

    def __init__(self, content: bytes, config: Any) -> None:
        super().__init__()
        self.config = config
        self._session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        self._names = {put.name for put in self._session.get_inputs()}

    def forward(self, **inputs: Tensor) -> SimpleNamespace:
        known = {name: tensor.cpu().numpy() for name, tensor in inputs.items() if name in self._names}
        (logits,) = self._session.run(["logits"], known)
        return SimpleNamespace(logits=torch.from_numpy(logits))


def load_onnx(folder: Path) -> Predictor:
    """Raises ArtifactError when files are missing or changed, or the graph would read or run something else."""
    manifest: Manifest = read_manifest(folder)
    task = make_task(manifest)
    refuse_odd_config(read_json(folder / ONNX_FILES[0]), folder / ONNX_FILES[0])
    content = (folder / MODEL_FILE).read_bytes()
    refuse_odd_graph(content, folder / MODEL_FILE)
    tokenizer = load_tokenizer(folder, str(folder))
    if hash_tokenizer(tokenizer) != manifest.checkpoint.tokenizer_sha256:
        raise ArtifactError(f"{folder} holds another tokenizer than its manifest names.")
    try:
        network = OnnxNetwork(content, AutoConfig.from_pretrained(folder, trust_remote_code=False))
    except Exception as error:  # onnxruntime's types are made at run time
        raise ArtifactError(f"{folder / MODEL_FILE} cannot be read: {first_line(error)[:200]}") from error
    model = Model(
        network=cast(PreTrainedModel, network),
        tokenizer=tokenizer,
        origin=manifest.checkpoint,
        head_modules=(),
        new_tensors=frozenset(),
        max_tokens=manifest.max_tokens,
        adapter="onnx",
    )
    return Predictor(model, task)


def refuse_odd_graph(content: bytes, path: Path) -> None:
    """Raises ArtifactError for weights that lie in other files, and for operators that are not onnxruntime's own."""
    try:
        graph = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's types
        raise ArtifactError(f"{path} is no ONNX model: {first_line(error)[:200]}") from error
    if odd := [one.domain for one in graph.opset_import if one.domain not in DOMAINS]:
        raise ArtifactError(f"{path} needs operators of '{odd[0]}', which are not read here.")
    if odd := [one.name for one in tensors_in(graph) if one.data_location == onnx.TensorProto.EXTERNAL]:
        raise ArtifactError(f"{path}: the weight '{odd[0]}' lies in another file.")


def tensors_in(message: Any) -> Iterator[Any]:
    """All of a graph, its branches, functions and attributes."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in value if isinstance(value, Iterable) else (value,):
                yield from tensors_in(one)


def compared(ours: Predictor, exported: Predictor, texts: Sequence[Text]) -> Parity:
    pairs = zip(ours.predict_proba(texts), exported.predict_proba(texts), strict=True)
    worst = max((float(abs(a - b).max()) for a, b in pairs if a.size), default=0.0)
    answers = zip(ours.predict(texts), exported.predict(texts), strict=True)
    equal = sum(read_by_people(a) == read_by_people(b) for a, b in answers)
    return Parity(len(texts), worst, equal / len(texts))


def read_by_people(answer: Any) -> Any:
    """Without probabilities."""
    if isinstance(answer, list):
        return [replace(cast(Entity, entity), score=0.0) for entity in answer]
    return answer.labels
