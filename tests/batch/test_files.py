"""Unusual and damaged files, made here: each is read correctly or listed with a reason."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as TF

from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.models.images import read_image
from holistic_cam_plugin.models.pictures import load_picture
from holistic_cam_plugin.models.preprocessing import Preprocessing
from tests.batch.batch_tools import QUICK, make_picture, rows

pytestmark = pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the mask is zero")
SIDE = 32


def picture(height=24, width=36, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def expected(pixels):
    """Return the model's input for RGB pixels, by torchvision."""
    resized = TF.resize(Image.fromarray(pixels), [SIDE], antialias=True)
    return np.asarray(TF.center_crop(resized, [SIDE]))


def read(folder, name):
    preprocessing = Preprocessing((0.5,) * 3, (0.5,) * 3, (SIDE, SIDE), SIDE, "bilinear", "made")
    return load_picture(folder / name, preprocessing, crop=True)


def seen(folder, name):
    loaded = read(folder, name)
    assert loaded.problem == ""
    assert loaded.pixels.shape == (SIDE, SIDE, 3)
    return loaded.pixels


def problem(folder, name):
    loaded = read(folder, name)
    assert loaded.pixels is None
    assert str(folder) not in loaded.problem
    assert "\n" not in loaded.problem
    return loaded.problem


def png(width, height):
    """Return a black PNG of any size in a few bytes, without allocating its pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = zlib.compressobj(9)
    data = b"".join(row.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)) + row.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_files_that_can_not_be_read_have_a_reason(tmp_path):
    make_picture(tmp_path / "whole.jpg", size=(200, 200))
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    Image.fromarray(picture()).save(tmp_path / "whole.png")
    data = bytearray((tmp_path / "whole.png").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "corrupt.png").write_bytes(data)
    (tmp_path / "link.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "script.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert "truncated" in problem(tmp_path, "truncated.jpg")
    assert problem(tmp_path, "empty.jpg") == "empty file"
    for name in ("text.jpg", "script.jpg"):
        assert problem(tmp_path, name) == "its format is none of BMP, GIF, JPEG, JPEG2000, PNG, PPM, TGA, TIFF, WEBP"
    (tmp_path / "phone.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert problem(tmp_path, "phone.jpg") == "it is HEIF, as HEIC and AVIF are: convert it to JPEG or PNG first"
    assert problem(tmp_path, "corrupt.png")
    assert problem(tmp_path, "link.jpg") == "No such file or directory"
    assert "symbolic links" in problem(tmp_path, "loop.jpg")


def test_bytes_are_read_as_files_are(tmp_path):
    make_picture(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    preprocessing = Preprocessing((0.5,) * 3, (0.5,) * 3, (SIDE, SIDE), SIDE, "bilinear", "made")
    loaded = load_picture(data, preprocessing, crop=True)
    assert np.array_equal(loaded.pixels, seen(tmp_path, "whole.jpg"))
    assert (loaded.size, loaded.modified) == (len(data), None)
    status = (tmp_path / "whole.jpg").stat()
    assert read(tmp_path, "whole.jpg")[1:3] == (status.st_size, status.st_mtime_ns)
    assert load_picture(b"", preprocessing, crop=True).problem == "empty file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert problem(tmp_path, "pipe.jpg") == "not a regular file"


def test_a_file_without_permission(tmp_path, monkeypatch):
    make_picture(tmp_path / "secret.jpg")

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path / "secret.jpg"))

    monkeypatch.setattr(Image, "open", denied)
    assert problem(tmp_path, "secret.jpg") == "Permission denied"


def test_sixteen_bits_keep_their_range(tmp_path):
    ramp = np.linspace(0, 65535, 24 * 36).reshape(24, 36).astype(np.uint16)
    for name in ("ramp.png", "ramp.tif"):
        Image.fromarray(ramp).save(tmp_path / name)
        grey = (ramp / 257).round().astype(np.uint8)
        assert np.array_equal(seen(tmp_path, name), expected(np.dstack([grey] * 3)))
    Image.fromarray(np.zeros((9, 9), np.float32)).save(tmp_path / "float.tif")
    assert "the values of black and white are unknown" in problem(tmp_path, "float.tif")


def test_other_colours(tmp_path):
    pixels = picture()
    for mode, name in (
        ("CMYK", "cmyk.tif"),
        ("L", "grey.png"),
        ("1", "bits.png"),
        ("RGBA", "alpha.png"),
        ("P", "p.png"),
    ):
        Image.fromarray(pixels).convert(mode).save(tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert image.mode == mode
            assert np.array_equal(seen(tmp_path, name), expected(np.asarray(image.convert("RGB"))))
    palette = Image.fromarray(pixels).convert("P")
    palette.save(tmp_path / "transparent.png", transparency=bytes(range(256)))
    assert np.array_equal(seen(tmp_path, "transparent.png"), expected(np.asarray(palette.convert("RGB"))))


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(picture(seed=seed)).convert("P") for seed in (1, 2)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "moving.gif") as image:
        assert image.n_frames == 2
        first = np.asarray(image.convert("RGB"))
    assert np.array_equal(seen(tmp_path, "moving.gif"), expected(first))


def test_the_first_picture_of_a_stereo_photo(tmp_path):
    frames = [Image.fromarray(picture(seed=seed)) for seed in (1, 2)]
    frames[0].save(tmp_path / "stereo.jpg", format="MPO", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "single.jpg")
    assert np.array_equal(seen(tmp_path, "stereo.jpg"), seen(tmp_path, "single.jpg"))


def test_photos_are_turned_upright(tmp_path):
    pixels = picture()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(seen(tmp_path, "turned.png"), expected(pixels))


def test_one_pixel_and_one_line(tmp_path):
    Image.fromarray(picture(1, 1)).save(tmp_path / "pixel.png")
    assert np.array_equal(seen(tmp_path, "pixel.png"), np.broadcast_to(picture(1, 1), (SIDE, SIDE, 3)))
    Image.fromarray(picture(1, 70_000)).save(tmp_path / "line.png")
    assert problem(tmp_path, "line.png") == "70000 x 1 px: too long and narrow to be resized to 32 px"


def test_a_hundred_megapixels(tmp_path):
    (tmp_path / "large.png").write_bytes(png(10_000, 10_000))
    loaded = read(tmp_path, "large.png")
    assert not loaded.pixels.any()
    (tmp_path / "bomb.png").write_bytes(png(20_000, 10_000))
    assert "exceeds limit" in problem(tmp_path, "bomb.png")


def test_large_jpegs_are_decoded_smaller(tmp_path):
    gradient = np.linspace(0, 255, 4800).astype(np.uint8)
    Image.fromarray(np.broadcast_to(gradient, (4500, 4800))).save(tmp_path / "large.jpg", quality=95)
    loaded = read(tmp_path, "large.jpg")
    with Image.open(tmp_path / "large.jpg") as image:
        full = expected(np.asarray(image.convert("RGB")))
    assert np.abs(loaded.pixels.astype(int) - full).max() <= 2
    assert read_image(tmp_path / "large.jpg").size == (2400, 2250)


def test_the_run_goes_on(tmp_path, capsys):
    zoo, output = tmp_path / "zoo", tmp_path / "output"
    strange = [
        "a b.jpg", "a.jpg", "a.png", "line\nend.jpg", "two\n\nlines.jpg", "return\rhere.jpg", 'quote " comma , .jpg',
        '".jpg', "Ünïcode 像.jpg", "x.jpg/y.jpg", "-dash.jpg", "=1+1.jpg", " .jpg",
    ]  # fmt: skip
    for seed, name in enumerate(strange):
        make_picture(zoo / name, seed)
    (zoo / "empty.jpg").touch()
    (zoo / "notes.txt").write_text("not looked at")
    (zoo / os.fsdecode(b"bytes \xff.jpg")).touch()
    (zoo / ("n" * 250 + ".jpg")).write_bytes((zoo / "a.jpg").read_bytes())
    (zoo / "loop").symlink_to(zoo)
    for explained in (len(strange), 0):
        code = main(["batch", str(zoo), "--output", str(output), *QUICK, "--batch-size", "4", "--workers", "0"])
        assert code == 1
        out = capsys.readouterr().out
        assert f"{explained} images explained" in out
        assert "3 failed, listed in" in out
    assert [row["file"] for row in rows(output)] == sorted(strange)
    for row in rows(output):
        assert row["map"] == f"maps/{row['file']}.npz"
        assert (output / row["map"]).is_file()
    reasons = {row["file"]: row["reason"] for row in rows(output, "errors.csv")}
    assert reasons == {
        "bytes \\xff.jpg": "the file name is not valid UTF-8",
        "empty.jpg": "empty file",
        "n" * 250 + ".jpg": "the file name is too long: the maps' names are longer",
    }
    assert len({(output / row["map"]).read_bytes() for row in rows(output)}) == len(strange)
