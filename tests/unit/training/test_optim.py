"""Learning rates over the steps and over the layers."""

import itertools

import pytest
from torch import nn

import nlp_transfer as nt
from nlp_transfer.training.config import TrainingConfig
from nlp_transfer.training.optim import layers_below_head, make_optimizer, make_schedule

PEAK = 0.4


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(3, 2)
        self.layer = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))


class Network(nn.Module):
    """Named like the networks of transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.bert = Encoder()
        self.classifier = nn.Linear(2, 2)


def learning_rates(num_steps: int, warmup_fraction: float, kind: str) -> list[float]:
    """Of every step, and what it would be after the last."""
    schedule = make_schedule(num_steps, warmup_fraction, kind)
    return [PEAK * schedule(step) for step in range(num_steps + 1)]


def group_of(network: nn.Module, config: TrainingConfig) -> dict[str, dict[str, float]]:
    """The optimizer's settings for every weight, by its name."""
    optimizer = make_optimizer(network, config, PEAK, num_layers=3)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {names[id(weight)]: group for group in optimizer.param_groups for weight in group["params"]}


def differences(values: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(values)]


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize(("num_steps", "warmup_fraction"), [(100, 0.1), (100, 0.0), (7, 0.06), (1, 0.0), (3, 0.5)])
def test_the_rate_rises_in_a_line_to_its_peak_and_falls_to_0(num_steps, warmup_fraction, kind):
    rates = learning_rates(num_steps, warmup_fraction, kind)
    top = rates.index(max(rates))
    rise, fall = differences(rates[: top + 1]), differences(rates[top:])
    assert max(rates) == pytest.approx(PEAK)
    assert min(rates[:-1]) > 0
    assert rise == pytest.approx([PEAK / (top + 1)] * top)
    assert all(change < 0 for change in fall)
    assert rates[-1] == pytest.approx(0)


@pytest.mark.parametrize(
    ("kind", "shares"), [("linear", [1, 0.75, 0.5, 0.25, 0]), ("cosine", [1, 0.853553, 0.5, 0.146447, 0])]
)
def test_the_rate_falls_in_a_line_or_a_half_cosine(kind, shares):
    assert learning_rates(4, 0.0, kind) == pytest.approx([PEAK * share for share in shares], abs=1e-6)


def test_the_rate_stays_0_after_the_last_step():
    factor = make_schedule(10, 0.1, "linear")
    assert [factor(step) for step in (10, 11, 1000)] == [0, 0, 0]


def test_each_layer_learns_slower_than_the_one_above_it_by_the_decay():
    groups = group_of(Network(), TrainingConfig(layer_decay=0.5))
    assert {name: group["lr"] / PEAK for name, group in groups.items() if name.endswith("weight")} == pytest.approx(
        {
            "classifier.weight": 1,
            "bert.layer.2.weight": 0.5,
            "bert.layer.1.weight": 0.25,
            "bert.layer.0.weight": 0.125,
            "bert.embeddings.weight": 0.0625,
        }
    )


def test_without_layer_decay_all_weights_learn_alike():
    assert {group["lr"] for group in group_of(Network(), TrainingConfig()).values()} == {PEAK}


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("base_model.model.bert.encoder.layer.2.attention.self.query.lora_A.default.weight", 1),
        ("base_model.model.classifier.modules_to_save.default.weight", 0),
        ("model.layers.0.mlp.Wi.weight", 3),
        ("roberta.embeddings.word_embeddings.weight", 4),
        ("classifier.out_proj.weight", 0),
    ],
)
def test_depth_is_read_from_the_name_of_a_weight(name, depth):
    assert layers_below_head(name, num_layers=3) == depth


def test_matrices_are_decayed_and_vectors_are_not():
    groups = group_of(Network(), TrainingConfig(weight_decay=0.1))
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        name: 0.1 if parameter.ndim > 1 else 0.0 for name, parameter in Network().named_parameters()
    }


def test_only_trainable_weights_are_given_to_the_optimizer():
    network = Network()
    network.bert.requires_grad_(False)
    assert set(group_of(network, TrainingConfig())) == {"classifier.weight", "classifier.bias"}


def test_layers_that_share_their_weights_have_no_rates_of_their_own(make_checkpoint):
    model = nt.load_sequence_classifier(str(make_checkpoint("albert")), nt.LabelSet(("a", "b")))
    with pytest.raises(nt.ConfigError, match="share their weights"):
        make_optimizer(model.network, TrainingConfig(layer_decay=0.9), 1e-3, 2)
