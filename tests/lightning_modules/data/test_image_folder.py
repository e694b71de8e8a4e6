import sys

import numpy as np
import pytest

from lightning_modules.data.image_folder import ImageFolder

Image = pytest.importorskip("PIL.Image")
COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def write_images(folder, colours=COLOURS, each=10, size=(12, 9)):
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True)
        for number in range(each):
            Image.new("RGB", size, colour).save(folder / name / f"{number}.png")


def image_folder(tmp_path, **options):
    shape = {"num_classes": 3, "input_shape": [3, 6, 8], "mean": 0.0, "std": 1.0}
    places = {"root": str(tmp_path / "images"), "cache_dir": str(tmp_path / "cache")}
    return ImageFolder(**(shape | places | options))


def all_of(loader):
    x, y = zip(*loader, strict=True)
    return np.concatenate(x), np.concatenate(y)


def test_classes_are_split_and_numbered_in_alphabetical_order(tmp_path):
    write_images(tmp_path / "images")
    data = image_folder(tmp_path, val_fraction=0.2, test_fraction=0.1)
    data.setup()
    parts = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]
    assert [len(all_of(part)[1]) for part in parts] == [22, 5, 3]
    assert data.class_names == ["blue", "green", "red"]
    x, y = all_of(data.train_dataloader())
    assert x.shape[1:] == (3, 6, 8)
    assert all((image.mean((1, 2)) == np.eye(3)[2 - number]).all() for image, number in zip(x, y, strict=True))


def test_parts_of_the_folder_are_used_as_they_are(tmp_path):
    for part, each in {"train": 5, "val": 2, "test": 1}.items():
        write_images(tmp_path / "images" / part, each=each)
    data = image_folder(tmp_path, val_fraction=0.5, test_fraction=0.5)
    data.setup()
    parts = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]
    assert [len(all_of(part)[1]) for part in parts] == [15, 6, 3]


def test_grey_images_have_one_channel(tmp_path):
    write_images(tmp_path / "images")
    data = image_folder(tmp_path, input_shape=[1, 4, 4])
    data.setup()
    assert all_of(data.train_dataloader())[0].shape[1:] == (1, 4, 4)


def test_a_new_image_is_noticed(tmp_path):
    write_images(tmp_path / "images")
    before = image_folder(tmp_path)
    before.setup()
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / "red" / "new.png")
    after = image_folder(tmp_path)
    after.setup()
    assert before.fingerprint != after.fingerprint


def test_another_number_of_classes_is_told_with_the_way_out(tmp_path):
    write_images(tmp_path / "images")
    with pytest.raises(ValueError, match=r"data\.num_classes is 10, .* has 3 classes: set data\.num_classes=3"):
        image_folder(tmp_path, num_classes=10).setup()


def test_a_missing_or_empty_folder_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.root"):
        image_folder(tmp_path).setup()
    (tmp_path / "images").mkdir()
    with pytest.raises(FileNotFoundError, match="a folder of images for each class"):
        image_folder(tmp_path).setup()


def test_a_class_that_is_never_trained_on_is_refused(tmp_path):
    write_images(tmp_path / "images" / "train")
    write_images(tmp_path / "images" / "test", colours={"pink": (255, 0, 255)})
    with pytest.raises(ValueError, match="test also has pink"):
        image_folder(tmp_path).setup()


def test_a_file_that_is_no_image_is_named(tmp_path):
    write_images(tmp_path / "images")
    (tmp_path / "images" / "red" / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.png must be an image"):
        image_folder(tmp_path).setup()


def test_neither_grey_nor_rgb_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data\.input_shape must be \[1, height, width\]"):
        image_folder(tmp_path, input_shape=[4, 8, 8])


def test_a_machine_without_pillow_is_told_the_extra(tmp_path, monkeypatch):
    write_images(tmp_path / "images")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"lightsweep\[images\]"):
        image_folder(tmp_path).setup()
