"""What accelerate was configured with for DeepSpeed: heeded, named as left aside, or refused in one line."""

from __future__ import annotations

import json

import pytest

import nlp_transfer as nt
from nlp_transfer.training import zero


@pytest.fixture
def configured(monkeypatch, tmp_path):
    """Gives what is read of an environment, on a machine with DeepSpeed."""

    def read(config=None, installed=True, **variables):
        monkeypatch.setattr(zero, "find_spec", lambda _: object() if installed else None)
        monkeypatch.setenv(zero.FLAG, "true")
        if config is not None:
            file = tmp_path / "deepspeed.json"
            file.write_text(json.dumps(config))
            monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
        for name, value in variables.items():
            monkeypatch.setenv(f"ACCELERATE_DEEPSPEED_{name}", value)
        zero.zero_settings.cache_clear()
        return zero.zero_settings()

    yield read
    zero.zero_settings.cache_clear()


@pytest.mark.parametrize("stage", ["1", "2"])
def test_the_stage_is_heeded(configured, stage):
    assert configured(ZERO_STAGE=stage)["stage"] == int(stage)


def test_without_accelerates_word_there_is_no_deepspeed(monkeypatch):
    monkeypatch.delenv(zero.FLAG, raising=False)
    zero.zero_settings.cache_clear()
    assert zero.zero_settings() is None
    zero.zero_settings.cache_clear()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"ZERO_STAGE": "3"}, "ZeRO stage 3"),
        ({"ZERO_STAGE": "0"}, "ZeRO stage 0"),
        ({"ZERO_STAGE": "2", "OFFLOAD_OPTIMIZER_DEVICE": "cpu"}, "offload_optimizer"),
        ({"config": {"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1}}, "ZeRO stage 3"),
        ({"installed": False}, "not installed"),
    ],
)
def test_what_is_not_run_is_refused(configured, options, named):
    with pytest.raises(nt.ConfigError, match=named):
        configured(**options)


def test_settings_that_are_left_aside_are_named(configured, capsys):
    sections = {"bf16": {"enabled": True}, "optimizer": {"type": "Adam"}, "train_micro_batch_size_per_gpu": 1}
    zero_optimization = {"stage": 2, "reduce_bucket_size": 1000}
    found = configured(config={"zero_optimization": zero_optimization, **sections})
    assert (found["stage"], found["reduce_bucket_size"]) == (2, 1000)
    assert "left aside: bf16, optimizer." in capsys.readouterr().err
