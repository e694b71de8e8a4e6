"""A VGG-style convolutional net: blocks of 3x3 convolutions and a pool, then dense layers."""

from itertools import pairwise

from torch import Tensor, nn

from lightning_modules.nets.layers import (
    Activation,
    Initialization,
    Normalization,
    activation_layer,
    dense_layers,
    initialize,
    normalization_layer,
    sizes,
)

__all__ = ["CNN"]


class CNN(nn.Module):
    """`blocks` blocks of 3x3 convolutions, each followed by a 2x2 max pool, then dense hidden layers.

    Each convolution keeps the size of its image (padding 1) and is normalised and activated; each pool halves
    it, rounding down. The net "conv 32, pool, conv 64, pool, conv 64, dense 64" is
    `blocks=3 channels=[32,64,64] pool_last=false hidden=64`.

    Args:
        input_shape: channels, height and width of one image.
        num_classes: the number of output scores.
        blocks: the number of blocks.
        channels: channels of the first block, doubled from each block to the next; or a list with one number per block.
        convs_per_block: convolutions of each block: one number for all, or a list of `blocks` numbers.
        pool_last: whether a pool also follows the last block.
        hidden_depth: the number of dense hidden layers.
        hidden: neurons of each dense hidden layer: one number for all, or a list of `hidden_depth` numbers.
        activation: the activation after each convolution and each dense hidden layer.
        normalization: the normalisation before each activation.
        dropout: the probability with which a neuron of a dense hidden layer is zeroed in training.
        initialization: how weights are initialised; see `layers.initialize`.

    Raises:
        ValueError: there are more pools than times that the image can be halved, or a list has the wrong length, or a
            number is out of its range.
    """

    def __init__(
        self,
        input_shape: list[int],
        num_classes: int,
        blocks: int = 2,
        channels: int | list[int] = 32,
        convs_per_block: int | list[int] = 1,
        pool_last: bool = True,
        hidden_depth: int = 1,
        hidden: int | list[int] = 64,
        activation: Activation = "relu",
        normalization: Normalization = "none",
        dropout: float = 0.0,
        initialization: Initialization = "default",
    ) -> None:
        super().__init__()
        in_channels, height, width = input_shape
        if isinstance(channels, int):
            channels = [channels * 2**block for block in range(blocks)]
        channels = sizes("model.channels", channels, "model.blocks", blocks)
        convs = sizes("model.convs_per_block", convs_per_block, "model.blocks", blocks)
        pools = max(0, blocks if pool_last else blocks - 1)
        _check_pools(pools, pool_last, height, width)

        layers: list[nn.Module] = []
        for block, (fan_in, fan_out) in enumerate(pairwise([in_channels, *channels])):
            for conv in range(convs[block]):
                layers += [nn.Conv2d(fan_out if conv else fan_in, fan_out, kernel_size=3, padding=1)]
                layers += normalization_layer(normalization, fan_out, spatial=True)
                layers += [activation_layer(activation)]
            layers += [nn.MaxPool2d(2)] if block < pools else []

        features = [in_channels, *channels][-1] * (height >> pools) * (width >> pools)
        widths = sizes("model.hidden", hidden, "model.hidden_depth", hidden_depth)
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(),
            *dense_layers(features, widths, activation, normalization, dropout),
            nn.Linear([features, *widths][-1], num_classes),
        )
        initialize(self, initialization, activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map images, N x `input_shape`, to unnormalised class scores, N x `num_classes`."""
        scores: Tensor = self.head(self.features(x))
        return scores


def _check_pools(pools: int, pool_last: bool, height: int, width: int) -> None:
    halvings = min(height, width).bit_length() - 1
    if pools > halvings:
        blocks, most = (pools, halvings) if pool_last else (pools + 1, halvings + 1)
        raise ValueError(
            f"each pool halves the image, and {height}x{width} pixels can be halved {halvings} times, but "
            f"model.blocks={blocks} has {pools} pools: set model.blocks={most} or less"
        )
