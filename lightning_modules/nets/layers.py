"""Layers shared by the nets, chosen by name: activation, normalisation, initialisation."""

from itertools import pairwise
from typing import Literal, get_args

from torch import nn

__all__ = [
    "Activation",
    "Initialization",
    "Normalization",
    "activation_layer",
    "dense_layers",
    "initialize",
    "normalization_layer",
    "sizes",
]

Activation = Literal["relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu"]
Normalization = Literal["none", "batch", "layer"]
Initialization = Literal["default", "normal", "xavier", "kaiming"]

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}
# torch has no gain for GELU and SiLU; both are ReLU away from zero, so they take its gain.
_GAINS: dict[Activation, float] = {
    "relu": nn.init.calculate_gain("relu"),
    "leaky_relu": nn.init.calculate_gain("leaky_relu", 0.01),
    "sigmoid": nn.init.calculate_gain("sigmoid"),
    "tanh": nn.init.calculate_gain("tanh"),
    "gelu": nn.init.calculate_gain("relu"),
    "silu": nn.init.calculate_gain("relu"),
}
_NORMAL_STD = 0.05


def activation_layer(activation: Activation) -> nn.Module:
    """Make the activation named `activation`.

    Raises:
        ValueError: there is no activation of that name.
    """
    _check_choice("model.activation", activation, Activation)
    return _ACTIVATIONS[activation]()


def normalization_layer(normalization: Normalization, features: int, spatial: bool) -> list[nn.Module]:
    """Make the layer, if any, that normalises `features` features (`spatial`: of images N x C x H x W).

    `layer` on images is one group over channels and positions of a sample (GroupNorm with one group), so
    that, unlike a LayerNorm, it has one scale per channel for any size of the image.

    Raises:
        ValueError: there is no normalisation of that name.
    """
    _check_choice("model.normalization", normalization, Normalization)
    if normalization == "none":
        return []
    if normalization == "batch":
        return [nn.BatchNorm2d(features) if spatial else nn.BatchNorm1d(features)]
    return [nn.GroupNorm(1, features) if spatial else nn.LayerNorm(features)]


def dense_layers(
    features: int, widths: list[int], activation: Activation, normalization: Normalization, dropout: float
) -> list[nn.Module]:
    """Make a stack of hidden layers, each linear, normalised, activated, dropped out, in this order.

    Raises:
        ValueError: `dropout` is not a probability below 1.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"model.dropout must be at least 0 and below 1, but got {dropout}")
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise([features, *widths]):
        layers += [nn.Linear(fan_in, fan_out)]
        layers += normalization_layer(normalization, fan_out, spatial=False)
        layers += [activation_layer(activation)]
        layers += [nn.Dropout(dropout)] if dropout else []
    return layers


def initialize(net: nn.Module, initialization: Initialization, activation: Activation) -> None:
    """Initialise every linear and convolutional weight of `net`, in place, from torch's global generator.

    `default` keeps torch's own initialisation. `normal` draws from N(0, 0.05²). `xavier` is Glorot & Bengio's uniform
    (2010), `kaiming` He et al.'s normal over the fan-in (2015); both with the gain of `activation`, but
    gain 1 for the last layer, which no activation follows. Biases become 0 in all but `default`.

    Raises:
        ValueError: there is no initialisation of that name.
    """
    _check_choice("model.initialization", initialization, Initialization)
    if initialization == "default":
        return
    weighted = [module for module in net.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    for module in weighted:
        gain = _GAINS[activation] if module is not weighted[-1] else 1.0
        if initialization == "normal":
            nn.init.normal_(module.weight, std=_NORMAL_STD)
        elif initialization == "xavier":
            nn.init.xavier_uniform_(module.weight, gain=gain)
        else:
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=gain / fan_in**0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def sizes(size_key: str, size: int | list[int], count_key: str, count: int) -> list[int]:
    """Return one size for each of `count` layers: `size` repeated if it is a number, or itself if it is a list.

    Raises:
        ValueError: `count` is negative, a list has a different length, or a size is not positive.
    """
    if count < 0:
        raise ValueError(f"{count_key} must be at least 0, but got {count}")
    each = [size] * count if isinstance(size, int) else list(size)
    if len(each) != count:
        raise ValueError(
            f"{size_key} must be one number or have one for each of {count_key}={count}, but {each} has "
            f"{len(each)}: set {count_key}={len(each)}, or give {count} numbers"
        )
    if any(one < 1 for one in each):
        raise ValueError(f"{size_key} must be at least 1, but got {size}")
    return each


def _check_choice(key: str, name: str, choices: object) -> None:
    if name not in get_args(choices):
        raise ValueError(f"{key} must be one of {', '.join(get_args(choices))}, but got {name!r}")
