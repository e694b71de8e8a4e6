"""A multi-layer perceptron: flattened inputs, equal hidden layers, one score per class."""

from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

from torch import Tensor, nn

from lightning_modules.nets.layers import (
    Activation,
    Initialization,
    Normalization,
    dense_layers,
    initialize,
    sizes,
)

if TYPE_CHECKING:
    from torch.distributed.tensor.parallel import ParallelStyle

__all__ = ["MLP"]

_NORMS = (nn.BatchNorm1d, nn.LayerNorm)


class MLP(nn.Module):
    """A perceptron of `depth` hidden layers; `depth=0` is a linear classifier.

    Each hidden layer is linear, normalised, activated, dropped out, in this order.

    Args:
        input_shape: the shape of one sample, e.g. [1, 28, 28]; it is flattened.
        num_classes: the number of output scores.
        depth: the number of hidden layers.
        width: neurons of each hidden layer: one number for all, or a list of `depth` numbers.
        activation: the activation after each hidden layer.
        normalization: the normalisation between a hidden layer and its activation.
        dropout: the probability with which a hidden neuron is zeroed in training.
        initialization: how weights are initialised; see `layers.initialize`.

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

    def tensor_parallel_plan(self, size: int) -> dict[str, "ParallelStyle"]:
        """Return how `size` ranks divide each linear layer: by its outputs, or by its inputs if these are divided.

        A pair of layers, the first divided by its outputs and the second by its inputs, needs one collective (Shoeybi
        et al. 2019, arXiv 1909.08053). A normalisation between them needs the whole layer, and so one more collective.

        Raises:
            ValueError: a layer that stays divided has a width that `size` does not divide.
        """
        from torch.distributed.tensor import Replicate, Shard
        from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

        layers = list(self.layers)
        linears = {number: layer for number, layer in enumerate(layers) if isinstance(layer, nn.Linear)}
        plan: dict[str, ParallelStyle] = {}
        is_divided = False
        for here, after in pairwise([*linears, len(layers)]):
            if is_divided:
                plan[f"layers.{here}"] = RowwiseParallel()
                is_divided = False
                continue
            between = layers[here + 1 : after]
            is_divided = after < len(layers) and not any(isinstance(layer, _NORMS) for layer in between)
            width = linears[here].out_features
            if is_divided and width % size:
                raise ValueError(
                    f"trainer.strategy.tensor_parallel_size={size} must divide model.width, but got {width}: set "
                    f"model.width={-(-width // size) * size}"
                )
            plan[f"layers.{here}"] = ColwiseParallel(output_layouts=Shard(-1) if is_divided else Replicate())
        return plan
