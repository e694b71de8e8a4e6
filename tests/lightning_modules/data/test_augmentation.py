import pytest
import torch

from lightning_modules.data.augmentation import Augmentation
from lightning_modules.data.derived_random import BatchKey
from lightning_modules.data.pixels import Pixels

EVERYTHING = Augmentation(crop_padding=2, horizontal_flip=True, rotation_degrees=15.0, brightness=0.3, contrast=0.3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(num=64, channels=3, height=6, width=8):
    return torch.rand(num, channels, height, width, generator=generator(7))


def test_everything_is_off_by_default():
    assert Augmentation().is_off and not EVERYTHING.is_off
    assert torch.equal(Augmentation()(images(), generator()), images())


def test_the_same_generator_state_gives_the_same_images_and_another_gives_others():
    assert torch.equal(EVERYTHING(images(), generator(1)), EVERYTHING(images(), generator(1)))
    assert not torch.equal(EVERYTHING(images(), generator(1)), EVERYTHING(images(), generator(2)))


def test_images_keep_their_shape_and_range_and_the_originals_their_values():
    x = images()
    changed = EVERYTHING(x, generator())
    assert changed.shape == x.shape
    assert changed.min() >= 0 and changed.max() <= 1
    assert torch.equal(x, images())


def test_a_flip_mirrors_about_half_of_the_images_and_leaves_the_others():
    x = images(num=400)
    changed = Augmentation(horizontal_flip=True)(x, generator())
    is_flipped = (changed == x.flip(-1)).flatten(1).all(1)
    assert ((changed == x).flatten(1).all(1) ^ is_flipped).all()
    assert 150 < is_flipped.sum() < 250


def test_a_crop_is_a_window_of_the_padded_image_drawn_for_each_image():
    x = images(num=50)
    changed = Augmentation(crop_padding=1)(x, generator())
    padded = torch.nn.functional.pad(x, [1, 1, 1, 1])
    windows = [padded[:, :, top : top + 6, left : left + 8] for top in range(3) for left in range(3)]
    matches = torch.stack([(changed == window).flatten(1).all(1) for window in windows])
    assert matches.any(0).all()
    assert matches.any(1).sum() > 5


def test_a_rotation_by_nothing_changes_nothing_and_by_a_right_angle_turns_a_square():
    from lightning_modules.data.augmentation import _rotate

    x = images(height=8, width=8)
    assert torch.allclose(_rotate(x, torch.zeros(len(x))), x, atol=1e-5)
    assert torch.allclose(_rotate(x, torch.full((len(x),), torch.pi / 2)), x.rot90(1, (2, 3)), atol=1e-4)


def test_an_oblong_image_is_turned_and_not_sheared():
    from lightning_modules.data.augmentation import _rotate

    x = torch.zeros(1, 1, 21, 41)
    x[..., 10, 12:29] = 1  # a bar of 17 pixels through the centre
    turned = _rotate(x, torch.full((1,), torch.pi / 2))
    assert turned[0, 0, :, 20].sum() == pytest.approx(17, abs=0.1)


def test_brightness_scales_each_image_and_contrast_keeps_its_mean():
    x = images() * 0.5 + 0.25
    ratio = (Augmentation(brightness=0.2)(x, generator()) / x).flatten(1)
    assert (ratio.amax(1) - ratio.amin(1)).max() < 1e-5
    assert 0.8 <= ratio.min() < 0.9 and 1.1 < ratio.max() <= 1.2
    contrasted = Augmentation(contrast=0.2)(x, generator())
    assert torch.allclose(contrasted.mean((1, 2, 3)), x.mean((1, 2, 3)), atol=1e-5)
    assert not torch.allclose(contrasted, x)


def test_a_negative_number_is_refused_by_its_dotted_key():
    with pytest.raises(ValueError, match=r"data\.augmentation\.rotation_degrees"):
        Augmentation(rotation_degrees=-1.0)


def test_pixels_are_scaled_and_standardised_by_channel():
    x = torch.tensor([[[[0]], [[255]]]], dtype=torch.uint8)
    result = Pixels(255, mean=[0.5, 0.25], std=[0.5, 0.25])(x, BatchKey(0, 0, 0, 0))
    assert result.flatten().tolist() == pytest.approx([-1.0, 3.0])
    assert x.flatten().tolist() == [0, 255]


def test_pixels_are_augmented_as_their_batch_key_says():
    x = (images() * 255).to(torch.uint8)
    pixels = Pixels(255, 0.5, 0.5, EVERYTHING)
    assert torch.equal(pixels(x, BatchKey(0, 1, 2, 0)), pixels(x, BatchKey(0, 1, 2, 0)))
    assert not torch.equal(pixels(x, BatchKey(0, 1, 2, 0)), pixels(x, BatchKey(0, 2, 2, 0)))


def test_an_augmentation_that_is_off_draws_and_changes_nothing():
    x = (images() * 255).to(torch.uint8)
    plain, off = Pixels(255, 0.5, 0.5), Pixels(255, 0.5, 0.5, Augmentation())
    assert torch.equal(plain(x, BatchKey(0, 0, 0, 0)), off(x, BatchKey(0, 0, 0, 0)))


def test_a_standard_deviation_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"data\.std"):
        Pixels(255, 0.5, 0.0)
