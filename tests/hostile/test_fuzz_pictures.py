"""Pictures changed at random: each is read, or told in one line that names the file, and nothing else is said.

(But by libtiff, whose words about a damaged file pass Python by.)

`HOSTILE_SECONDS` is how long to go on, in all.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from PIL import Image, features

from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.models.classifier import load_classifier
from holistic_cam_plugin.models.images import preprocess_image, read_image
from holistic_cam_plugin.models.pictures import load_picture
from tests.cli.notes import drop_notes
from tests.hostile.mutation import SECONDS, mutants
from tests.models.files import MODEL, make_weights

pytestmark = pytest.mark.campaign

SIZE = (37, 29)
CLASSIFIER = load_classifier("digits", None, None, "cpu")


def noise(mode="RGB", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE[1] // 4, SIZE[0] // 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(SIZE).convert(mode)


def saved(form, image=None, **options):
    buffer = io.BytesIO()
    (image or noise()).save(buffer, form, **options)
    return buffer.getvalue()


def turned():
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    return exif


DEEP = Image.fromarray(np.linspace(0, 65535, 37 * 29).reshape(29, 37).astype(np.uint16))
PICTURES = {
    "PNG": saved("PNG", exif=turned()),
    "PNG of 16 bits": saved("PNG", DEEP),
    "PNG with a palette": saved("PNG", noise("P"), transparency=bytes(range(256))),
    "JPEG": saved("JPEG", exif=turned()),
    "JPEG of two pictures": saved("MPO", save_all=True, append_images=[noise(seed=1)]),
    "progressive CMYK JPEG": saved("JPEG", noise("CMYK"), progressive=True, icc_profile=b"no profile", dpi=(72, 72)),
    "WEBP": saved("WEBP", exif=turned()),
    "lossless animated WEBP": saved("WEBP", lossless=True, save_all=True, append_images=[noise(seed=1)]),
    "animated GIF": saved("GIF", save_all=True, append_images=[noise(seed=1)]),
    "TIFF": saved("TIFF", exif=turned()),
    "TIFF of LZW": saved("TIFF", compression="tiff_lzw"),
    "TIFF of JPEG": saved("TIFF", compression="jpeg"),
    "TIFF of 16 bits": saved("TIFF", DEEP, compression="tiff_adobe_deflate"),
    "BMP": saved("BMP"),
    "BMP with a palette": saved("BMP", noise("P")),
    "PPM": saved("PPM"),
    "PGM of 16 bits": saved("PPM", DEEP),
    "plain PBM": b"P1\n4 3\n0 1 0 1\n1 1 1 1\n0 0 0 0\n",
    "TGA": saved("TGA", compression="tga_rle"),
    "JPEG2000": saved("JPEG2000"),
    "EPS": saved("EPS"),
    "DDS": saved("DDS"),
}
if features.check("avif"):
    PICTURES["AVIF"] = saved("AVIF")


@pytest.fixture(autouse=True)
def small_bombs(monkeypatch):
    """Sizes in a damaged header are soon larger than a picture may be."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2**21)


def outcome(path):
    """Read as for a figure: the size, or the one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            image = read_image(path)
            preprocess_image(image, CLASSIFIER)
        except UsageError as error:
            line = str(error)
        else:
            assert image.mode == "RGB"
            return image.size
    assert "\n" not in line
    assert len(line) < len(str(path)) + 300
    return line


def in_a_job(path):
    """Read as in a batch: the size, or the reason."""
    loaded = load_picture(path, CLASSIFIER.preprocessing, crop=True)
    assert (loaded.pixels is None) == bool(loaded.problem)
    assert "\n" not in loaded.problem
    return loaded.problem or loaded.pixels.shape


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("title", PICTURES)
def test_changed_pictures(tmp_path, capsys, title):
    path = tmp_path / "photo.jpg"
    path.write_bytes(PICTURES[title])
    readable = isinstance(outcome(path), tuple)
    assert readable == (title not in ("EPS", "DDS", "AVIF"))
    for number, data in enumerate(mutants(PICTURES[title], title, SECONDS / len(PICTURES))):
        path.write_bytes(data)
        found = outcome(path)
        if not readable:
            assert isinstance(found, str), (number, data)
        if isinstance(found, str):
            assert "photo.jpg" in found or "too long and narrow" in found, (number, found)
        assert isinstance(in_a_job(path), str) == isinstance(found, str), (number, found)
    assert capsys.readouterr() == ("", "")


def test_changed_pictures_on_the_command_line(tmp_path, capsys):
    weights = make_weights(tmp_path)
    path = tmp_path / "photo.jpg"
    options = ["--model", MODEL, "--weights", str(weights), "--layers", "features.12", "--method", "gradcam"]
    for title in ("JPEG", "PNG", "TIFF of LZW"):
        for data, _ in zip(mutants(PICTURES[title], title, 0), range(4), strict=False):
            path.write_bytes(data)
            code = main([str(path), *options, "--output", str(tmp_path / "out")])
            out, err = capsys.readouterr()
            assert code in (0, 2), (title, data)
            assert drop_notes(err).count("\n") == (code == 2), err
            assert ("predicted" in out) == (code == 0)
