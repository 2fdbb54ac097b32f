"""Encoder, new head and tokenizer from a Hub id, a folder, or an installed package.

A checkpoint is spelled in one of three ways, and all three end in a folder that is read the same way:

    org/name  or  org/name@revision      a repository on the Hub
    ./folder  or  /path/to/folder        a folder in the same format
    package:module/folder                a folder inside an installed Python package, which is never imported

Only safetensors and JSON are read, and ``trust_remote_code`` is always off.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from nlp_transfer.checkpoint_folders import find, refuse_other_folders
from nlp_transfer.errors import CheckpointError, first_line
from nlp_transfer.fingerprints import hash_files, hash_tensors, hash_tokenizer
from nlp_transfer.labels import LabelSet

HeadKind = Literal["sequence", "token"]

AUTO: dict[HeadKind, Any] = {
    "sequence": AutoModelForSequenceClassification,
    "token": AutoModelForTokenClassification,
}
MODULES_A_TENSOR, MODULES_AROUND = 6, 200
"""More modules than weights a network may have: activations, dropout, what holds others."""
SANE_LIMIT = 100_000
"""A tokenizer that knows no limit says 1e30."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Which checkpoint a model was made from, recorded in the same way wherever it was found."""

    name: str
    """As it was spelled, without the revision; of a folder, its absolute path."""
    revision: str | None
    """Commit on the Hub; None for a folder or a package."""
    weights_sha256: str
    """Of the safetensors file; for several files, of the list of their names and hashes."""
    encoder_sha256: str
    """Of the encoder's tensors as loaded: the same for every file that holds the same weights. Loading checks it."""
    tokenizer_sha256: str
    """Of the vocabulary and of what the tokenizer makes of a few probing texts. Loading checks it."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network with all that belongs to it."""

    network: PreTrainedModel
    """Encoder and head; takes token ids, gives ``logits``. With an adapter, PEFT's model, which passes all on."""
    tokenizer: PreTrainedTokenizerBase
    origin: Origin
    head_modules: tuple[str, ...]
    """Names of all modules that did not come pretrained: they are always trained and saved whole."""
    new_tensors: frozenset[str]
    """Names of those that the checkpoint did not hold: they are drawn at random."""
    max_tokens: int
    """The longest input that the encoder takes, special tokens included."""
    adapter: str = "none"
    """Which of its weights are trained: see ``AdapterKind``."""
    moved_by: dict[str, Tensor] | None = None
    """An adapter that was taken out of the frozen weights (PiSSA, OLoRA), so that saving can put it back."""

    @property
    def brings_head(self) -> bool:
        """Whether the checkpoint held a whole head for as many labels, which is then where training begins."""
        return not any(
            name.startswith(tuple(f"{module}." for module in self.head_modules)) for name in self.new_tensors
        )


def load_sequence_classifier(checkpoint: str | Path, labels: LabelSet, *, seed: int = 0) -> Model:
    """The checkpoint's encoder under a head that gives ``(batch, labels)`` logits; see ``load_model``."""
    return load_model(checkpoint, labels, "sequence", seed=seed)


def load_token_classifier(checkpoint: str | Path, labels: LabelSet, *, seed: int = 0) -> Model:
    """The checkpoint's encoder under a head that gives ``(batch, tokens, labels)`` logits; see ``load_model``."""
    return load_model(checkpoint, labels, "token", seed=seed)


def load_model(checkpoint: str | Path, labels: LabelSet, head: HeadKind, *, seed: int = 0) -> Model:
    """The head is drawn from ``seed``, unless the checkpoint brings one for as many labels, which transformers keeps.

    Raises CheckpointError when the checkpoint cannot be found, read, or used for this kind of head.
    """
    checkpoint = str(checkpoint)
    folder, name, revision = find(checkpoint)
    refuse_other_folders(folder, checkpoint)
    network, new_keys = load_network(folder, checkpoint, labels, head, seed)
    tokenizer = load_tokenizer(folder, checkpoint)
    origin = Origin(
        name=name,
        revision=revision,
        weights_sha256=hash_files(sorted(folder.glob("*.safetensors"))),
        encoder_sha256=hash_tensors(pretrained_state(network, new_keys)),
        tokenizer_sha256=hash_tokenizer(tokenizer),
    )
    if network.config.pad_token_id is None:  # decoders look for it to find the last token of a text
        network.config.pad_token_id = tokenizer.pad_token_id
    return Model(
        network=network,
        tokenizer=tokenizer,
        origin=origin,
        head_modules=head_modules(network, new_keys, head),
        new_tensors=frozenset(new_keys),
        max_tokens=max_tokens(network, tokenizer),
    )


def described_shapes(
    folder: Path, labels: LabelSet, head: HeadKind, found: Collection[str]
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of the network that ``config.json`` describes, without making room for it.

    Of tensors that are tied to others, those that are ``found``: a file holds them once.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, id2label=dict(enumerate(labels.names)))
        with at_most_modules(MODULES_A_TENSOR * len(found) + MODULES_AROUND):
            network = skeleton(config, labels, head)
    except Exception as error:  # a damaged config.json ends in a dozen types
        path = folder / "config.json"
        raise CheckpointError(f"{path} cannot be read for a {head} head: {first_line(error)}") from error
    tied = network.all_tied_weights_keys.keys() - set(found)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items() if name not in tied}


@contextmanager
def at_most_modules(most: int) -> Iterator[None]:
    """Raises ValueError in the midst of a network that has more of them: a config may ask for any number of layers."""
    own, made = threading.get_ident(), 0

    def count(*_: Any) -> None:
        nonlocal made
        made += threading.get_ident() == own
        if made > most:
            raise ValueError(f"it describes a network of more than {most:,} modules, and its file holds fewer tensors")

    handle = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def skeleton(config: PreTrainedConfig, labels: LabelSet, head: HeadKind) -> PreTrainedModel:
    """The network that a config describes under a head for ``labels``, on the meta device: it takes no room."""
    own = deepcopy(config)
    own.id2label = dict(enumerate(labels.names))
    own.label2id = {name: i for i, name in enumerate(labels.names)}
    with torch.device("meta"):
        network: PreTrainedModel = AUTO[head].from_config(own, trust_remote_code=False)
    return network


def load_network(
    folder: Path, checkpoint: str, labels: LabelSet, head: HeadKind, seed: int
) -> tuple[PreTrainedModel, set[str]]:
    """The network in fp32 and evaluation mode, and the names of the tensors that the checkpoint did not hold."""
    try:
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also seed all GPUs, whose numbers are the program's
            torch.default_generator.manual_seed(seed)
            network, info = AUTO[head].from_pretrained(
                folder,
                id2label=dict(enumerate(labels.names)),
                label2id={name: i for i, name in enumerate(labels.names)},
                # SDPA's backward costs a third of a CPU step on short texts; eager is also its own reference there.
                attn_implementation=None if torch.cuda.is_available() else "eager",
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                return_dict=True,
                ignore_mismatched_sizes=True,  # a head for other labels is replaced; the encoder is checked below
                output_loading_info=True,
            )
    except Exception as error:  # a damaged config.json alone ends in a dozen types
        reason = first_line(error)
        raise CheckpointError(f"Checkpoint '{checkpoint}' cannot be read for a {head} head: {reason}") from error
    new_keys = set(info["missing_keys"]) | {key for key, *_ in info["mismatched_keys"]}
    refuse_unpretrained_layers(checkpoint, network, new_keys)
    for parameter in network.parameters():
        # safetensors maps tensors to where they lie in the file, and some processors round by alignment in memory
        parameter.data = parameter.data.clone()
    return network.eval(), new_keys


def refuse_unpretrained_layers(checkpoint: str, network: PreTrainedModel, new_keys: set[str]) -> None:
    """transformers only warns when it leaves encoder layers at random; a pooler alone may be new."""
    prefix = f"{network.base_model_prefix}."
    random_keys = sorted(key for key in new_keys if key.startswith(prefix) and re.search(r"\.\d+\.|embed", key))
    if random_keys:
        raise CheckpointError(
            f"Checkpoint '{checkpoint}' does not hold {len(random_keys)} weights of its encoder's layers "
            f"(first: {random_keys[0]}), so they would stay random. Use a complete checkpoint of this model type."
        )


def load_tokenizer(folder: Path, checkpoint: str) -> PreTrainedTokenizerBase:
    try:
        with quiet_transformers():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        reason = first_line(error)
        raise CheckpointError(f"The tokenizer of checkpoint '{checkpoint}' cannot be read: {reason}") from error
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        # where the files are missing, transformers makes an empty tokenizer and says nothing
        raise CheckpointError(
            f"Checkpoint '{checkpoint}' holds no tokenizer vocabulary. Put its tokenizer's files there."
        )
    if tokenizer.pad_token_id is None:
        mend = "Save a copy where tokenizer.pad_token is set, to its eos_token perhaps, and name that."
        raise CheckpointError(f"The tokenizer of checkpoint '{checkpoint}' has no padding token. {mend}")
    return tokenizer


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide the table of missing weights and the loading bar: what matters of them is checked and raised."""
    level, shown = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks for names that transformers has renamed
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()


def encoder_of(network: PreTrainedModel) -> nn.Module:
    encoder: nn.Module = getattr(network, network.base_model_prefix)
    return encoder


def pretrained_state(network: PreTrainedModel, new_keys: set[str]) -> dict[str, Tensor]:
    """The encoder's tensors that came with the checkpoint."""
    prefix = f"{network.base_model_prefix}."
    state = encoder_of(network).state_dict()
    return {name: tensor for name, tensor in state.items() if prefix + name not in new_keys}


def head_modules(network: PreTrainedModel, new_keys: set[str], head: HeadKind) -> tuple[str, ...]:
    """All modules outside the encoder that hold weights, and what of the encoder is new.

    Under a sequence head that is the pooler too, where there is one: it was pretrained for another end or not at all
    (sentence encoders average over tokens and leave it behind). Token heads do not use it. PEFT's own guess saves only
    ``classifier`` and ``score``: it loses DeBERTa's pooler, which stands outside the encoder, and ModernBERT's head.
    """
    outside = [
        name
        for name, module in network.named_children()
        if name != network.base_model_prefix and any(True for _ in module.parameters())
    ]
    prefix = f"{network.base_model_prefix}."
    pooler = f"{prefix}pooler"
    inside = {key.rpartition(".")[0] for key in new_keys if key.startswith(prefix) and not key.startswith(pooler)}
    if head == "sequence" and isinstance(getattr(encoder_of(network), "pooler", None), nn.Module):
        inside.add(pooler)
    return (*outside, *sorted(inside))


def max_tokens(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The smaller of what the tokenizer states and what the position embeddings hold."""
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < SANE_LIMIT else []
    for name, module in encoder_of(network).named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa's relatives count positions from padding_idx + 1
            limits.append(module.num_embeddings - (module.padding_idx + 1 if module.padding_idx is not None else 0))
    config_limit = int(getattr(network.config, "max_position_embeddings", None) or 0)
    return min(limits) if limits else config_limit if config_limit > 0 else SANE_LIMIT  # XLNet states -1
