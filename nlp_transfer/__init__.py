"""Fine-tune pretrained transformers on text classification and named-entity recognition, and trust the adapter."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlp_transfer.adapters.config import AdapterKind as AdapterKind, LoraConfig as LoraConfig
    from nlp_transfer.adapters.lora import add_adapter as add_adapter
    from nlp_transfer.artifacts import save_model as save_model
    from nlp_transfer.checkpoints import (
        Model as Model,
        load_sequence_classifier as load_sequence_classifier,
        load_token_classifier as load_token_classifier,
    )
    from nlp_transfer.converting.convert import convert as convert
    from nlp_transfer.data.config import NerData as NerData, TextData as TextData
    from nlp_transfer.data.evaluate_metric import EntityF1 as EntityF1
    from nlp_transfer.data.examples import TaggedExample as TaggedExample, TextExample as TextExample
    from nlp_transfer.data.reading import (
        read_ner as read_ner,
        read_text_classification as read_text_classification,
    )
    from nlp_transfer.data.splits import Splits as Splits
    from nlp_transfer.errors import (
        ArtifactError as ArtifactError,
        BusyError as BusyError,
        CheckpointError as CheckpointError,
        ConfigError as ConfigError,
        DataError as DataError,
        HubError as HubError,
        Interrupted as Interrupted,
        NlpTransferError as NlpTransferError,
        TrainingError as TrainingError,
    )
    from nlp_transfer.hub.pull import pull as pull
    from nlp_transfer.hub.push import push as push
    from nlp_transfer.inference.bank import AdapterBank as AdapterBank
    from nlp_transfer.inference.predictor import Predictor as Predictor, load as load
    from nlp_transfer.inference.texts import Entity as Entity
    from nlp_transfer.inference.waiting import AsyncBank as AsyncBank
    from nlp_transfer.known_checkpoints import default_checkpoint as default_checkpoint
    from nlp_transfer.labels import LabelSet as LabelSet, Span as Span
    from nlp_transfer.launching import launch as launch
    from nlp_transfer.merging import merge as merge
    from nlp_transfer.metrics import Metrics as Metrics, Score as Score
    from nlp_transfer.run_folder import finish_run as finish_run, start_run as start_run
    from nlp_transfer.saved_models import load_model as load_model
    from nlp_transfer.tasks.config import (
        NerConfig as NerConfig,
        TextClassificationConfig as TextClassificationConfig,
    )
    from nlp_transfer.tasks.ner import Ner as Ner
    from nlp_transfer.tasks.text_classification import (
        Classification as Classification,
        TextClassification as TextClassification,
    )
    from nlp_transfer.training.config import TrainingConfig as TrainingConfig
    from nlp_transfer.training.dry_run import dry_run as dry_run
    from nlp_transfer.training.evaluate import Evaluation as Evaluation, evaluate as evaluate
    from nlp_transfer.training.fit import fit as fit

PUBLIC = {
    "adapters.config": ("AdapterKind", "LoraConfig"),
    "adapters.lora": ("add_adapter",),
    "artifacts": ("save_model",),
    "checkpoints": ("Model", "load_sequence_classifier", "load_token_classifier"),
    "converting.convert": ("convert",),
    "data.config": ("NerData", "TextData"),
    "data.evaluate_metric": ("EntityF1",),
    "data.examples": ("TaggedExample", "TextExample"),
    "data.reading": ("read_ner", "read_text_classification"),
    "data.splits": ("Splits",),
    "known_checkpoints": ("default_checkpoint",),
    "errors": (
        "ArtifactError",
        "BusyError",
        "HubError",
        "CheckpointError",
        "ConfigError",
        "DataError",
        "Interrupted",
        "NlpTransferError",
        "TrainingError",
    ),
    "hub.pull": ("pull",),
    "hub.push": ("push",),
    "inference.bank": ("AdapterBank",),
    "inference.predictor": ("Predictor", "load"),
    "inference.texts": ("Entity",),
    "inference.waiting": ("AsyncBank",),
    "labels": ("LabelSet", "Span"),
    "launching": ("launch",),
    "merging": ("merge",),
    "metrics": ("Metrics", "Score"),
    "run_folder": ("finish_run", "start_run"),
    "saved_models": ("load_model",),
    "tasks.config": ("NerConfig", "TextClassificationConfig"),
    "tasks.ner": ("Ner",),
    "tasks.text_classification": ("Classification", "TextClassification"),
    "training.config": ("TrainingConfig",),
    "training.dry_run": ("dry_run",),
    "training.evaluate": ("Evaluation", "evaluate"),
    "training.fit": ("fit",),
}
"""Where each public name lives. They are imported when first used, so that importing the toolkit stays fast."""

MODULE_OF = {name: module for module, names in PUBLIC.items() for name in names}

__all__ = list(MODULE_OF)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in MODULE_OF:
        raise AttributeError(f"module 'nlp_transfer' has no attribute {name!r}")
    return getattr(import_module(f"nlp_transfer.{MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
