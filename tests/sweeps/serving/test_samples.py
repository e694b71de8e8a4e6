"""Samples from files: what each kind may hold, and how what it may not is told."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeps.core.errors import UsageError
from sweeps.serving.model import SampleSpec
from sweeps.serving.samples import read_samples

IMAGES = SampleSpec(shape=(1, 2, 3), dtype="uint8", least=0, greatest=16, transform={"_target_": "x.Y"})
ROWS = SampleSpec(shape=(4,), dtype="float32")
PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 1, 2, 3)


def written(path: Path, content: Any) -> Path:
    """Write a file of the kind that its ending says."""
    if path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix == ".json":
        path.write_text(json.dumps(content))
    else:
        path.write_text(content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npy", PIXELS),
        ("a.npy", PIXELS.astype(np.float64)),
        ("a.npy", PIXELS.reshape(2, 6)),
        ("a.npy", PIXELS[:, 0]),
        ("a.npz", {"anything": PIXELS}),
        ("a.npz", {"y": np.zeros(2), "x": PIXELS}),
        ("a.json", PIXELS.tolist()),
        ("a.json", {"inputs": PIXELS.tolist()}),
        ("a.json", {"instances": PIXELS[:, 0].tolist(), "params": {}}),
        ("a.csv", "0,1,2,3,4,5\n6,7,8,9,10,11\n"),
        ("a.csv", "\ufeffa,b,c,d,e,f\r\n0,1,2,3,4,5\r\n6.0,7,8,9,10,11\r\n"),
    ],
)
def test_every_kind_and_shape_gives_the_same_samples(tmp_path: Path, name: str, content: Any) -> None:
    found = read_samples(written(tmp_path / name, content), IMAGES)

    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, PIXELS)


@pytest.mark.parametrize("shape", [(1, 2, 3), (2, 3), (6,), (1, 1, 2, 3), (1, 6)])
def test_one_sample_needs_no_dimension_for_it(tmp_path: Path, shape: tuple[int, ...]) -> None:
    found = read_samples(written(tmp_path / "a.npy", PIXELS[0].reshape(shape)), IMAGES)

    np.testing.assert_array_equal(found, PIXELS[:1])


def test_a_line_of_numbers_is_one_sample_of_floats(tmp_path: Path) -> None:
    found = read_samples(written(tmp_path / "a.csv", "1.5,-2,3e-3,4\n"), ROWS)

    np.testing.assert_array_equal(found, np.array([[1.5, -2, 3e-3, 4]], np.float32))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", np.zeros((5, 3, 2), np.uint8), "6 numbers each, but has 5 x 3 x 2"),
        ("a.npy", np.zeros((0, 6), np.uint8), "but has 0 x 6"),
        ("a.npy", np.array(3), "but has one number"),
        ("a.npy", np.full((1, 6), 256), "sample 0 has a 256"),
        ("a.npy", np.full((1, 6), -1), "sample 0 has a -1"),
        ("a.npy", np.full((1, 6), 0.5), "sample 0 has a 0.5"),
        ("a.npy", np.full((1, 6), np.nan), "must have finite numbers"),
        ("a.npy", np.array(["a"] * 6), "nothing but numbers"),
        ("a.npz", {"a": PIXELS, "b": PIXELS}, "has a, b"),
        ("a.json", {"data": []}, "must have inputs or instances, but has data"),
        ("a.json", [[1, 2], [3]], "cannot be read as json"),
        ("a.json", ["a"], "nothing but numbers"),
        ("a.csv", "1,2,3\n1,2\n", "cannot be read as csv: the number of columns changed from 3 to 2 at row 2"),
        ("a.csv", "1,2,3,4,5,6\n1,2,x,4,5,6\n", "could not convert string 'x' to float64 at row 1, column 3"),
        ("a.txt", "1", "must be .csv, .npy, .npz, .json"),
    ],
)
def test_what_cannot_be_samples_is_told(tmp_path: Path, name: str, content: Any, message: str) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(UsageError) as refused:
        read_samples(path, IMAGES)

    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_an_array_with_code_in_it_is_not_loaded(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "harm"), "w"))

    np.save(tmp_path / "a.npy", np.array([Harmful()], dtype=object), allow_pickle=True)
    with pytest.raises(UsageError, match="cannot be read as npy"):
        read_samples(tmp_path / "a.npy", IMAGES)
    assert not (tmp_path / "harm").exists()


def test_an_image_is_made_what_the_model_takes(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.full((4, 6, 3), 255, np.uint8)).save(tmp_path / "a.png")

    np.testing.assert_array_equal(read_samples(tmp_path / "a.png", IMAGES), np.full((1, 1, 2, 3), 16))
    with pytest.raises(UsageError, match="is an image, but the model takes 4 "):
        read_samples(tmp_path / "a.png", ROWS)
