import pytest
import torch
from torch import nn

from lightning_modules.nets.mlp import MLP


def linear_sizes(net: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in net.modules() if isinstance(m, nn.Linear)]


def test_width_given_once_is_the_width_of_every_hidden_layer():
    assert linear_sizes(MLP([1, 4, 4], 3, depth=2, width=5)) == [(16, 5), (5, 5), (5, 3)]


def test_widths_given_as_a_list_are_one_for_each_hidden_layer():
    assert linear_sizes(MLP([1, 4, 4], 3, depth=2, width=[7, 5])) == [(16, 7), (7, 5), (5, 3)]


def test_depth_zero_is_a_linear_classifier():
    assert linear_sizes(MLP([1, 4, 4], 3, depth=0)) == [(16, 3)]


def test_widths_of_another_number_than_depth_are_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"model\.width .* set model\.depth=2, or give 3 numbers"):
        MLP([1, 4, 4], 3, depth=3, width=[7, 5])


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"depth": -1}, "model.depth"),
        ({"width": 0}, "model.width"),
        ({"dropout": 1.0}, "model.dropout"),
        ({"activation": "sinus"}, "model.activation"),
        ({"normalization": "group"}, "model.normalization"),
        ({"initialization": "zeros"}, "model.initialization"),
    ],
)
def test_impossible_options_are_refused_by_their_dotted_key(options, key):
    with pytest.raises(ValueError, match=key):
        MLP([1, 4, 4], 3, **options)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu"])
@pytest.mark.parametrize("normalization", ["none", "batch", "layer"])
@pytest.mark.parametrize("initialization", ["default", "normal", "xavier", "kaiming"])
def test_every_option_gives_finite_scores_and_gradients(activation, normalization, initialization):
    net = MLP([1, 4, 4], 3, 2, 8, activation, normalization, 0.1, initialization)
    scores = net(torch.randn(5, 1, 4, 4))
    scores.sum().backward()
    assert scores.shape == (5, 3)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_dropout_acts_in_training_only():
    net, x = MLP([1, 4, 4], 3, width=64, dropout=0.5), torch.randn(5, 1, 4, 4)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize(("initialization", "std"), [("normal", 0.05), ("kaiming", (2 / 1000) ** 0.5)])
def test_initialisation_has_the_spread_of_its_formula(initialization, std):
    torch.manual_seed(0)
    hidden = MLP([1, 10, 100], 3, width=500, initialization=initialization).layers[1]
    assert hidden.weight.std().item() == pytest.approx(std, rel=0.01)
    assert not hidden.bias.any()


def test_xavier_stays_within_the_bound_of_its_formula():
    torch.manual_seed(0)
    hidden = MLP([1, 10, 100], 3, width=500, activation="tanh", initialization="xavier").layers[1]
    bound = 5 / 3 * (6 / (1000 + 500)) ** 0.5
    assert hidden.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
