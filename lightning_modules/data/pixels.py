"""From stored pixels, whole numbers in one byte, to what a net reads."""

import torch
from torch import Tensor, nn

from lightning_modules.data.augmentation import Augmentation
from lightning_modules.data.derived_random import BatchKey

__all__ = ["Pixels", "Standardize"]


class Pixels:
    """Turn a batch of stored pixels to floats in [0, 1], augment it, and standardise each channel.

    Args:
        pixel_max: the stored value that means 1.
        mean: mean of each channel, in [0, 1]: one number for all, or one a channel.
        std: standard deviation of each channel, likewise; above 0.
        augmentation: random changes in between; None or one that is off changes nothing.

    Raises:
        ValueError: a standard deviation is not above 0.
    """

    def __init__(
        self,
        pixel_max: int,
        mean: float | list[float],
        std: float | list[float],
        augmentation: Augmentation | None = None,
    ) -> None:
        mean_, std_ = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)
        if not bool((std_ > 0).all()):
            raise ValueError(f"data.std must be above 0, but got {std}")
        self.pixel_max = pixel_max
        self.scale = 1 / std_
        self.shift = -mean_ / std_
        self.pixel_scale = self.scale / pixel_max
        self.augmentation = None if augmentation is None or augmentation.is_off else augmentation

    def __call__(self, x: Tensor, key: BatchKey) -> Tensor:
        """Map pixels, N x C x H x W uint8, to standardised float32 of the same shape."""
        x = x.to(torch.float32)
        if self.augmentation is None:
            return x.mul_(self.pixel_scale).add_(self.shift)
        x = self.augmentation(x.div_(self.pixel_max), key.generator())
        return x * self.scale + self.shift


class Standardize(nn.Module):
    """Do to pixels what `Pixels` does without augmentation, to the same bits: what a served model begins with.

    Args:
        pixel_max: the stored value that means 1.
        mean: mean of each channel, in [0, 1]: one number for all, or one a channel.
        std: standard deviation of each channel, likewise; above 0.

    Raises:
        ValueError: a standard deviation is not above 0.
    """

    def __init__(self, pixel_max: int, mean: float | list[float], std: float | list[float]) -> None:
        super().__init__()
        pixels = Pixels(pixel_max, mean, std)
        self.register_buffer("scale", pixels.pixel_scale, persistent=False)
        self.register_buffer("shift", pixels.shift, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map pixels, N x C x H x W, to standardised float32 of the same shape."""
        return x.to(torch.float32) * self.scale + self.shift
