"""A multi-layer perceptron: flattened inputs, equal hidden layers, one score a class."""

from math import prod

from torch import Tensor, nn

from lightning_modules.nets.layers import (
    Activation,
    Initialization,
    Normalization,
    dense_layers,
    initialize,
    sizes,
)

__all__ = ["MLP"]


class MLP(nn.Module):
    """A perceptron of `depth` hidden layers; `depth=0` is a linear classifier.

    Each hidden layer is linear, normalised, activated, dropped out, in this order.

    Args:
        input_shape: the shape of one sample, such as [1, 28, 28]; it is flattened.
        num_classes: the number of scores that come out.
        depth: the number of hidden layers.
        width: neurons of each hidden layer: one number for all, or a list of `depth` numbers.
        activation: what follows each hidden layer.
        normalization: what stands between a hidden layer and its activation.
        dropout: the probability with which a hidden neuron is zeroed in training.
        initialization: how weights start; see `layers.initialize`.

    Raises:
        ValueError: `width` is a list whose length is not `depth`, or a number is out of its range.
    """

    def __init__(
        self,
        input_shape: list[int],
        num_classes: int,
        depth: int = 1,
        width: int | list[int] = 128,
        activation: Activation = "relu",
        normalization: Normalization = "none",
        dropout: float = 0.0,
        initialization: Initialization = "default",
    ) -> None:
        super().__init__()
        widths = sizes("model.width", width, "model.depth", depth)
        features = prod(input_shape)
        self.layers = nn.Sequential(
            nn.Flatten(),
            *dense_layers(features, widths, activation, normalization, dropout),
            nn.Linear([features, *widths][-1], num_classes),
        )
        initialize(self, initialization, activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map samples, N x `input_shape`, to unnormalised class scores, N x `num_classes`."""
        scores: Tensor = self.layers(x)
        return scores
