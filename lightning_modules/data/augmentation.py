"""Random changes to images, on whole batches, from a generator that is passed in."""

from dataclasses import dataclass
from math import radians

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Augmentation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Which random changes each image of a training batch undergoes; every one is off by default.

    They are applied in the order below, with new random numbers for every image.

    Args:
        crop_padding: pixels of black that are added on each side before a random crop to the old size.
        horizontal_flip: whether half of the images are mirrored, left to right.
        rotation_degrees: the greatest angle by which an image is turned, either way; corners become black.
        brightness: the greatest relative change of all pixels, such as 0.2.
        contrast: the greatest relative change of the pixels' distance from the image's mean.

    Raises:
        ValueError: a number is negative.
    """

    crop_padding: int = 0
    horizontal_flip: bool = False
    rotation_degrees: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        for name in ("crop_padding", "rotation_degrees", "brightness", "contrast"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"data.augmentation.{name} must be at least 0, but got {getattr(self, name)}")

    @property
    def is_off(self) -> bool:
        """Whether images stay as they are."""
        return not any((self.crop_padding, self.horizontal_flip, self.rotation_degrees, self.brightness, self.contrast))

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return changed copies of images `x`, N x C x H x W with values in [0, 1]; they stay in [0, 1]."""
        if self.crop_padding:
            x = _crop(x, self.crop_padding, generator)
        if self.horizontal_flip:
            flipped = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
            x = torch.where(flipped, x.flip(-1), x)
        if self.rotation_degrees:
            x = _rotate(x, _uniform(len(x), radians(self.rotation_degrees), generator))
        if self.brightness:
            x = x * (1 + _uniform(len(x), self.brightness, generator)).view(-1, 1, 1, 1)
        if self.contrast:
            mean = x.mean(dim=(1, 2, 3), keepdim=True)
            x = mean + (x - mean) * (1 + _uniform(len(x), self.contrast, generator)).view(-1, 1, 1, 1)
        return x.clamp(0, 1) if self.brightness or self.contrast else x


def _uniform(num: int, greatest: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(num, generator=generator) * 2 - 1) * greatest


def _crop(x: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    num, channels, height, width = x.shape
    padded = functional.pad(x, [padding] * 4)
    top, left = torch.randint(0, 2 * padding + 1, (2, num, 1), generator=generator)
    rows = (top + torch.arange(height)).view(num, 1, height, 1)
    columns = (left + torch.arange(width)).view(num, 1, 1, width)
    images = torch.arange(num).view(num, 1, 1, 1)
    return padded[images, torch.arange(channels).view(1, channels, 1, 1), rows, columns]


def _rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn each image about its centre by its angle, in radians."""
    height, width = x.shape[-2:]
    sine, cosine, zero = angles.sin(), angles.cos(), torch.zeros_like(angles)
    # affine_grid's coordinates run from -1 to 1 on both axes, so an oblong image needs the aspect corrected.
    matrices = torch.stack(
        [
            torch.stack([cosine, -sine * height / width, zero], dim=1),
            torch.stack([sine * width / height, cosine, zero], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(matrices, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
