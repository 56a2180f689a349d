"""Files as unlucky users have them, made in seconds and always the same: of nearly all, the one picture can be told."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

__all__ = ["CASES", "Case", "base_picture", "make_good", "plain_png"]

# "good" is explained, "bad" is told in one line (errors.csv in a batch), "either" may be one or the other.
Fate = Literal["good", "bad", "either"]
Make = Callable[[Path], None]

SIZE = (48, 36)
LATE = 255  # bytes of a name that no ending fits behind


class Case(NamedTuple):
    """One file, or what lies where one should be."""

    title: str
    name: str  # below the corpus's folder, perhaps with surrogates: not UTF-8
    make: Make
    explain: Fate
    batch: Fate
    same: bool = False  # whether the model sees exactly the pixels of `base_picture`


def base_picture() -> Image.Image:
    """A picture of 35 colours, so that a palette holds it, with another look from every side."""
    colours = np.random.default_rng(5).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(SIZE, Image.Resampling.NEAREST)


def plain_png(picture: Image.Image) -> bytes:
    """The picture as the most ordinary file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def make_good(path: Path) -> None:
    """The base picture."""
    path.write_bytes(plain_png(base_picture()))


def _bytes(data: bytes) -> Make:
    return lambda path: _written(path, data)


def _written(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _saved(
    form: str, convert: Callable[[Image.Image], Image.Image] = lambda picture: picture, **options: object
) -> Make:
    return lambda path: convert(base_picture()).save(path, form, **options)


def _transparent(picture: Image.Image) -> Image.Image:
    result = picture.convert("RGBA")
    ramp = np.linspace(0, 255, picture.width).astype(np.uint8)
    result.putalpha(Image.fromarray(np.broadcast_to(ramp, picture.size[::-1]).copy()))
    return result


def _palette(picture: Image.Image) -> Image.Image:
    return picture.quantize(64, dither=Image.Dither.NONE)


def _animated(form: str, **options: object) -> Make:
    def make(path: Path) -> None:
        first = base_picture()
        others = [first.transpose(Image.Transpose.ROTATE_180), Image.new("RGB", SIZE, "red")]
        first.save(path, form, save_all=True, append_images=others, duration=40, loop=0, **options)

    return make


# What undoes each of the orientations that a camera notes.
_UNDONE = {
    2: [Image.Transpose.FLIP_LEFT_RIGHT],
    3: [Image.Transpose.ROTATE_180],
    4: [Image.Transpose.FLIP_TOP_BOTTOM],
    5: [Image.Transpose.TRANSPOSE],
    6: [Image.Transpose.ROTATE_90],
    7: [Image.Transpose.TRANSVERSE],
    8: [Image.Transpose.ROTATE_270],
}


def _turned(orientation: int) -> Make:
    def make(path: Path) -> None:
        picture = base_picture()
        for step in _UNDONE.get(orientation, []):
            picture = picture.transpose(step)
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save(path, "PNG", exif=exif)

    return make


def _sixteen_bits(path: Path) -> None:
    grey = np.random.default_rng(6).integers(0, 256, (5, 7), dtype=np.uint16) * 257
    Image.fromarray(grey).resize(SIZE, Image.Resampling.NEAREST).save(path, "PNG")


def one_colour_png(side: int, colour_type: int = 2) -> bytes:
    """A black picture, `side` x `side`: the deflated rows repeat, so that it is made without being drawn.

    Args:
        colour_type: 2 for RGB, 0 for grey, of 8 bits both.
    """
    row = side * (3 if colour_type == 2 else 1) + 1
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    # After a full flush nothing refers back: the block can be repeated. Its Adler sum is that of zeros.
    rows = next(n for n in (100, 50, 20, 10, 1) if side % n == 0)
    block = packer.compress(bytes(row * rows)) + packer.flush(zlib.Z_FULL_FLUSH)
    adler = struct.pack(">I", (row * side % 65521) << 16 | 1)
    data = b"\x78\xda" + block * (side // rows) + b"\x03\x00" + adler
    header = struct.pack(">IIBBBBB", side, side, 8, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )


def _of_size(width: int, height: int) -> Make:
    return lambda path: base_picture().resize((width, height)).save(path, "PNG")


_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 36\n%%EndComments\n48 36 scale showpage\n%%EOF\n"
_SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'


def _folder(path: Path) -> None:
    path.mkdir()
    make_good(path / "inside.png")


def _unreadable(path: Path) -> None:
    make_good(path)
    path.chmod(0)


def _named(name: str, title: str, explain: Fate = "good", batch: Fate = "good") -> Case:
    return Case(f"name with {title}", name, make_good, explain, batch, same=True)


def _cut(share: float, form: str) -> Make:
    def make(path: Path) -> None:
        buffer = io.BytesIO()
        base_picture().resize((200, 150)).save(buffer, form)
        path.write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * share)])

    return make


CASES = [
    # Damaged.
    Case("empty", "empty.jpg", _bytes(b""), "bad", "bad"),
    Case("one byte", "one byte.png", _bytes(b"\x89"), "bad", "bad"),
    Case("zeros", "zeros.jpg", _bytes(bytes(5000)), "bad", "bad"),
    *(Case(f"{form} cut at {share}", f"cut {share}.{form.lower()}", _cut(share, form), "bad", "bad")
      for form in ("JPEG", "PNG", "WEBP") for share in (0.05, 0.5)),
    Case("text called .png", "text.png", _bytes(b"no picture\n" * 50), "bad", "bad"),
    Case("page called .jpg", "page.jpg", _bytes(b"<!doctype html><title>404</title>"), "bad", "bad"),
    Case("SVG called .png", "svg.png", _bytes(_SVG), "bad", "bad"),
    Case("EPS called .jpg", "eps.jpg", _bytes(_EPS), "bad", "bad"),
    Case("ICO called .png", "ico.png", _saved("ICO"), "bad", "bad"),
    Case("DDS called .jpg", "dds.jpg", _saved("DDS"), "bad", "bad"),
    Case("32 bits a value", "float.tiff", _saved("TIFF", lambda p: p.convert("F")), "bad", "bad"),
    # Of odd sizes.
    Case("1 x 1", "1 x 1.png", _of_size(1, 1), "good", "good"),
    Case("2 x 3", "2 x 3.png", _of_size(2, 3), "good", "good"),
    Case("100 megapixels", "grey.png", lambda path: _written(path, one_colour_png(10_000, 0)), "good", "good"),
    Case("900 megapixels", "bomb.png", lambda path: _written(path, one_colour_png(30_000)), "bad", "bad"),
    # Of odd kinds.
    Case("CMYK", "cmyk.jpg", _saved("JPEG", lambda p: p.convert("CMYK")), "good", "good"),
    Case("grey JPEG", "grey.jpg", _saved("JPEG", lambda p: p.convert("L")), "good", "good"),
    Case("one bit", "one bit.png", _saved("PNG", lambda p: p.convert("1")), "good", "good"),
    Case("grey and alpha", "la.png", _saved("PNG", lambda p: p.convert("LA")), "good", "good"),
    Case("16 bits", "sixteen.png", _sixteen_bits, "good", "good"),
    Case("transparent", "rgba.png", _saved("PNG", _transparent), "good", "good", same=True),
    Case("palette", "palette.png", _saved("PNG", _palette), "good", "good", same=True),
    Case("transparent palette", "clear.png", _saved("PNG", _palette, transparency=b"\0\x80\xff"), "good", "good", True),
    Case("animated GIF", "animated.gif", _animated("GIF"), "good", "good", same=True),
    Case("animated WEBP", "animated.webp", _animated("WEBP", lossless=True), "good", "good", same=True),
    Case("animated PNG", "animated.png", _animated("PNG"), "good", "good", same=True),
    Case("several pages", "pages.tif", _animated("TIFF"), "good", "good", same=True),
    Case("JPEG 2000", "j2k.jp2", _saved("JPEG2000"), "good", "good", same=True),
    Case("PPM", "p.ppm", _saved("PPM"), "good", "good", same=True),
    Case("TGA", "t.tga", _saved("TGA"), "good", "good", same=True),
    Case("PNG called .jpg", "png.jpg", make_good, "good", "good", same=True),
    Case("upper-case ending", "LOUD.PNG", make_good, "good", "good", same=True),
    *(Case(f"orientation {n}", f"turned {n}.png", _turned(n), "good", "good", same=True) for n in range(1, 9)),
    Case("orientation 9", "turned 9.png", _turned(9), "good", "good", same=True),
    # Of odd names.
    _named("new\nline.png", "a newline"),
    _named("return\r.png", "a carriage return"),
    _named("tab\t.png", "a tab"),
    _named("it's.png", "a quote"),
    _named('"said", he.png', "double quotes and a comma"),
    _named("=1+1.png", "a formula"),
    _named("-x.png", "a leading dash"),
    _named("--output.png", "an option's form"),
    _named("a$_$b.png", "odd mathtext"),
    _named("$\\frac{.png", "half a formula"),
    _named("back\\slash.png", "a backslash"),
    _named("100%s {0}.png", "placeholders"),
    _named("<b>&amp;.png", "markup"),
    _named("Ünï ß 図.png", "umlauts and CJK"),
    _named("u\u0308.png", "a combining mark"),
    _named("\U0001f436.png", "an emoji"),
    _named("\u202egnp.png", "a writing direction"),
    _named("..png", "nothing but dots and an ending", "good", "good"),
    _named("...png", "three dots", "good", "good"),
    _named(" .png", "a space alone"),
    _named("[a-z]*.png", "a pattern"),
    _named("a b.png", "a space"),
    _named("a_b.png", "the same with an underscore"),
    _named("a\tb.png", "the same with a tab"),
    _named("l" * 240 + ".png", "244 bytes", "either", "good"),
    _named("l" * (LATE - 4) + ".png", "255 bytes", "either", "bad"),
    _named("図" * 80 + ".png", "244 bytes in 84 characters", "either", "good"),
    _named(os.fsdecode(b"not\xffutf8.png"), "a byte that is not UTF-8", "either", "bad"),
    # No regular files.
    Case("a folder called .jpg", "folder.jpg", _folder, "bad", "either"),
    Case("a link to itself", "loop.jpg", lambda path: path.symlink_to(path.name), "bad", "bad"),
    Case("a dangling link", "dangling.jpg", lambda path: path.symlink_to("nowhere.jpg"), "bad", "bad"),
    Case("a link to a picture", "link.png", lambda path: path.symlink_to("LOUD.PNG"), "either", "good", same=True),
    Case("a link to the folder", "round", lambda path: path.symlink_to("."), "bad", "either"),
    Case("a pipe", "pipe.jpg", lambda path: os.mkfifo(path), "bad", "bad"),
    Case("an endless device", "endless.jpg", lambda path: path.symlink_to("/dev/zero"), "bad", "bad"),
    Case("an empty device", "null.jpg", lambda path: path.symlink_to("/dev/null"), "bad", "bad"),
]  # fmt: skip
if os.geteuid() != 0:
    CASES.append(Case("unreadable", "unreadable.jpg", _unreadable, "bad", "bad"))
