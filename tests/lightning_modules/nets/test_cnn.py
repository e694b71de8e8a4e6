import pytest
import torch
from torch import nn

from lightning_modules.nets.cnn import CNN


def kinds(net: nn.Module) -> list[str]:
    names = {nn.Conv2d: "conv", nn.MaxPool2d: "pool", nn.Linear: "dense"}
    return [
        names[type(m)] + str(getattr(m, "out_channels", getattr(m, "out_features", "")))
        for m in net.modules()
        if type(m) in names
    ]


def test_one_number_of_channels_doubles_from_block_to_block():
    net = CNN([1, 16, 16], 10, blocks=3, channels=8)
    assert kinds(net) == ["conv8", "pool", "conv16", "pool", "conv32", "pool", "dense64", "dense10"]


def test_reference_fashion_cnn_can_be_said():
    net = CNN([1, 28, 28], 10, blocks=3, channels=[32, 64, 64], pool_last=False, hidden=64)
    assert kinds(net) == ["conv32", "pool", "conv64", "pool", "conv64", "dense64", "dense10"]


def test_one_more_conv_and_one_more_dense_layer_can_be_said():
    net = CNN([3, 16, 16], 10, blocks=1, channels=8, convs_per_block=2, hidden_depth=2, hidden=[64, 32])
    assert kinds(net) == ["conv8", "conv8", "pool", "dense64", "dense32", "dense10"]


@pytest.mark.parametrize("input_shape", [[1, 8, 8], [1, 28, 28], [3, 32, 32], [3, 64, 64], [3, 20, 33]])
@pytest.mark.parametrize("normalization", ["none", "batch", "layer"])
@pytest.mark.parametrize("initialization", ["default", "normal", "xavier", "kaiming"])
def test_images_of_every_size_give_scores(input_shape, normalization, initialization):
    net = CNN(input_shape, 7, channels=4, normalization=normalization, initialization=initialization)
    assert net(torch.randn(2, *input_shape)).shape == (2, 7)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu"])
def test_every_activation_trains(activation):
    net = CNN([1, 8, 8], 3, channels=4, activation=activation, dropout=0.1)
    net(torch.randn(2, 1, 8, 8)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_no_dense_hidden_layer_is_allowed():
    assert kinds(CNN([1, 8, 8], 3, blocks=1, channels=4, hidden_depth=0)) == ["conv4", "pool", "dense3"]


def test_more_pools_than_the_image_allows_are_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"8x8 .* halved 3 times.* set model\.blocks=3 or less"):
        CNN([1, 8, 8], 10, blocks=4, channels=4)


def test_a_last_block_without_pool_may_be_one_more():
    CNN([1, 8, 8], 10, blocks=4, channels=4, pool_last=False)
    with pytest.raises(ValueError, match=r"set model\.blocks=4 or less"):
        CNN([1, 8, 8], 10, blocks=5, channels=4, pool_last=False)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"blocks": -1}, "model.blocks"),
        ({"channels": [4]}, "model.channels"),
        ({"convs_per_block": 0}, "model.convs_per_block"),
        ({"hidden": [4, 4]}, "model.hidden"),
    ],
)
def test_impossible_options_are_refused_by_their_dotted_key(options, key):
    with pytest.raises(ValueError, match=key):
        CNN([1, 8, 8], 3, **options)
