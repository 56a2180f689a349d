"""From a file to the model's input and back; more broken files are in the tests of batch jobs."""

from __future__ import annotations

import struct
import warnings

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.tv_tensors import BoundingBoxes, Mask

from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.models.classifier import load_classifier
from holistic_cam_plugin.models.images import FORMATS, preprocess_image, read_image
from holistic_cam_plugin.models.preprocessing import Preprocessing
from tests.models.files import MODEL, make_photo, make_weights


def test_wrong_files(tmp_path):
    photo = make_photo(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(photo.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"did you mean photo\.jpg"):
        read_image(tmp_path / "phoot.jpg")
    with pytest.raises(UsageError, match="folder"):
        read_image(tmp_path)
    with pytest.raises(UsageError, match=r"broken\.jpg cannot be read as an image"):
        read_image(tmp_path / "broken.jpg")


def test_the_models_input_is_torchvisions(tmp_path):
    photo = make_photo(tmp_path)
    classifier = load_classifier(MODEL, make_weights(tmp_path), None, "cpu")
    with Image.open(photo) as image:
        expected = torchvision.models.get_model_weights(MODEL).IMAGENET1K_V1.transforms()(image.convert("RGB"))[None]
    found = preprocess_image(read_image(photo), classifier)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_what_is_shown_is_what_went_in():
    preprocessing = load_classifier("digits", None, None, "cpu").preprocessing
    pixels = torch.randint(0, 256, (1, 9, 7, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    np.testing.assert_allclose(preprocessing.denormalize(preprocessing.normalize(pixels)), pixels[0] / 255, atol=1e-6)


@pytest.mark.parametrize("size", [(400, 300), (300, 451), (224, 224)])
def test_boxes_and_masks_follow_the_picture(size):
    width, height = size
    x0, y0, x1, y1 = width // 3, height // 4, 2 * width // 3, 3 * height // 4
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y0:y1, x0:x1] = 255
    preprocessing = Preprocessing((0.5,) * 3, (0.5,) * 3, (224, 224), 256, "bilinear", "made")
    seen = preprocessing.to_pixels(Image.fromarray(pixels))[..., 0] > 127
    mask = preprocessing.resize_and_crop(Mask(torch.from_numpy(pixels[None, ..., 0])))
    boxes = BoundingBoxes(
        torch.tensor([[x0, y0, x1, y1]], dtype=torch.float32), format="XYXY", canvas_size=(height, width)
    )
    rows, columns = np.nonzero(seen)
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert preprocessing.resize_and_crop(boxes)[0].tolist() == pytest.approx(edges, abs=1.01)
    assert (mask[0].numpy() > 127).shape == seen.shape
    assert ((mask[0].numpy() > 127) != seen).mean() < 0.01
    whole = preprocessing._replace(resize=64).to_pixels(Image.fromarray(pixels), crop=False)
    assert whole.shape == (64 * height // min(size), 64 * width // min(size), 3)


@pytest.mark.parametrize("fmt", ["EPS", "DDS", "PCX", "ICNS", "SGI", "XBM", "MSP"])
def test_other_formats_are_refused_whatever_they_are_called(tmp_path, fmt):
    image = Image.new("1" if fmt in ("XBM", "MSP") else "RGB", (16, 16))
    try:
        image.save(tmp_path / "photo.jpg", format=fmt)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {fmt}")
    with pytest.raises(
        UsageError, match=r"photo\.jpg cannot be read as an image: its format is none of BMP, GIF, JPEG"
    ):
        read_image(tmp_path / "photo.jpg")


@pytest.mark.parametrize("fmt", FORMATS)
def test_each_format_is_read_whatever_its_ending(tmp_path, fmt):
    Image.new("RGB", (16, 9), "red").save(tmp_path / "picture.dat", format=fmt)
    image = read_image(tmp_path / "picture.dat")
    assert (image.mode, image.size) == ("RGB", (16, 9))
    assert np.abs(np.asarray(image).astype(int) - (255, 0, 0)).max() < 8


@pytest.mark.parametrize(
    "raised", [MemoryError(), struct.error("unpack requires 2 bytes"), IndexError("x"), KeyError(7), SyntaxError("y")]
)
def test_whatever_a_decoder_raises_is_one_line(tmp_path, monkeypatch, raised):
    def decode(*_, **__):
        raise raised

    photo = make_photo(tmp_path)
    monkeypatch.setattr(Image.Image, "convert", decode)
    with pytest.raises(UsageError, match=r"photo\.jpg cannot be read as an image: \W?\w+"):
        read_image(photo)


def test_a_large_picture_is_read_without_a_word(tmp_path, monkeypatch):
    photo = make_photo(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 360 * 240 - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(photo).size == (360, 240)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 360 * 240 // 2 - 1)
    with pytest.raises(UsageError, match=r"photo\.jpg cannot be read as an image: .* exceeds limit"):
        read_image(photo)


def test_a_line_is_too_long_to_be_resized(tmp_path):
    classifier = load_classifier("digits", None, None, "cpu")
    Image.new("RGB", (70_000, 1)).save(tmp_path / "line.png")
    with pytest.raises(UsageError, match=r"70000 x 1 px is too long and narrow to be resized to \d+ px"):
        preprocess_image(read_image(tmp_path / "line.png"), classifier)


def test_photos_are_turned_upright_and_all_colours_become_rgb(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (24, 36, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png"), pixels)
    for mode, fmt in (("CMYK", "TIFF"), ("L", "PNG"), ("1", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("LA", "PNG")):
        image = Image.fromarray(pixels).convert(mode)
        image.save(tmp_path / "picture.dat", format=fmt)
        assert np.array_equal(read_image(tmp_path / "picture.dat"), image.convert("RGB")), mode
    deep = np.linspace(0, 65535, 24 * 36).reshape(24, 36).astype(np.uint16)
    for fmt in ("PNG", "TIFF", "PPM"):
        Image.fromarray(deep).save(tmp_path / "deep.dat", format=fmt)
        assert np.array_equal(np.asarray(read_image(tmp_path / "deep.dat"))[..., 0], (deep / 257).round()), fmt


@pytest.mark.parametrize("bits", [5, 9, 12, 16])
@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
def test_grey_values_of_16_bits_are_scaled_by_the_bits_that_they_use(tmp_path, fmt, bits):
    values = np.linspace(0, 2**bits - 1, 24 * 36).reshape(24, 36).round().astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.dat", format=fmt)
    seen = np.asarray(read_image(tmp_path / "deep.dat"))[..., 0]
    assert seen.max() == (255 if bits >= 8 else 31)  # eight bits in 16 are left as they are
    np.testing.assert_allclose(seen, values * (255 / max(255, 2**bits - 1)), atol=0.51)
    assert not np.asarray(read_image(save_black(tmp_path, fmt))).any()


def save_black(folder, fmt):
    Image.fromarray(np.zeros((24, 36), np.uint16)).save(folder / "black.dat", format=fmt)
    return folder / "black.dat"
