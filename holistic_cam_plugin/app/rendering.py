"""Rendering of maps for the page: a table of all, and single ones."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from holistic_cam_plugin.app.choices import label_method
from holistic_cam_plugin.display import coverage, format_percent, overlay_map
from holistic_cam_plugin.display.figure import build_rows
from holistic_cam_plugin.explain import Explanation
from holistic_cam_plugin.names import COLORMAP

__all__ = ["Colours", "Result", "list_rows", "locate_map", "name_maps", "render_pair", "render_picture", "render_table"]

Pixels = NDArray[np.uint8]

PICTURE = "picture"

_QUALITY = 92
# The comparison is shown large, and every browser would enlarge the pictures differently.
_LARGE = 640  # pixels

_TEMPLATES = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
_TABLE = _TEMPLATES.from_string("""\
<div class="maps" tabindex="0" role="region" aria-label="Maps">
<table style="--columns: {{ columns | length + 1 }}; --lines: {{ lines }}">
<thead><tr><td></td><th scope="col">picture</th>
{% for name in columns %}<th scope="col">{{ name }}</th>{% endfor %}
</tr></thead>
<tbody>
{% for label, cells in rows %}
<tr><th scope="row"><span>{{ label }}</span></th>
<td><img src="{{ picture }}" alt="the picture"></td>
{% for cell in cells %}
<td>{% if cell %}<img src="{{ cell.source }}" alt="{{ cell.name }}"><small>{{ cell.share }}</small>
{% else %}<div class="pending" aria-label="not computed yet"></div>{% endif %}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody></table></div>
<p class="legend">%: share of the picture at a fifth of the map's peak or above</p>
""")

_PAIR = _TEMPLATES.from_string("""\
<div class="pair">
{% for source, name in maps %}<img src="{{ source }}" alt="{{ name }}">
{% endfor %}
<input type="range" min="0" max="100" value="50" step="any" aria-label="Border between the left and the right map"
  oninput="this.parentNode.style.setProperty('--border', this.value + '%')">
</div>
""")


class Colours(NamedTuple):
    """`scale`, `colormap` and `opacity` of `display.overlay_map`."""

    scale: str = "linear"
    colormap: str = COLORMAP
    opacity: float = 0.5


class Result(NamedTuple):
    """An explanation, its picture, `(H, W, 3)`, RGB, float32, in [0, 1], and the names of all classes."""

    picture: NDArray[np.float32]
    explanation: Explanation
    classes: Sequence[str]


class _Cell(NamedTuple):
    source: Markup
    name: str
    share: str


def list_rows(result: Result) -> list[tuple[str, list[NDArray[np.float32]]]]:
    """For every class every layer: its label, and its maps `(H, W)`, one per method that is done."""
    explanation = result.explanation
    names = [result.classes[target] for target in explanation.targets]
    return build_rows(explanation.layers, names, explanation.maps)


def render_picture(picture: NDArray[np.float32]) -> str:
    """The picture, as the model sees it, as HTML."""
    return Markup('<img src="{}" alt="the picture as the model sees it">').format(_encode(_to_pixels(picture)))


def render_table(result: Result, colours: Colours) -> str:
    """The maps as HTML: layers down, methods across, the original image first."""
    names = [label_method(method) for method in result.explanation.methods]
    table = []
    for label, maps in list_rows(result):
        cells: list[_Cell | None] = [
            _Cell(
                _encode(overlay_map(result.picture, saliency_map, *colours)),
                " ".join(f"{name} {label}".split()),
                format_percent(coverage(saliency_map)),
            )
            for name, saliency_map in zip(names, maps, strict=False)
        ]
        table.append((label, cells + [None] * (len(names) - len(maps))))
    picture = _encode(_to_pixels(result.picture))
    return _TABLE.render(columns=names, rows=table, picture=picture, lines=table[0][0].count("\n") + 1)


def render_pair(result: Result, left: int, right: int, colours: Colours) -> str:
    """Two maps, or the picture and a map, over one another as HTML: a slider moves the border between them."""
    names = name_maps(result)
    shown = [(_encode(_draw_large(result, index, colours)), names[index]) for index in (left, right)]
    return _PAIR.render(maps=shown)


def name_maps(result: Result) -> list[str]:
    """The picture and every finished map; `locate_map` and `render_pair` take their indices."""
    explanation = result.explanation
    several = len(explanation.targets) > 1
    return [PICTURE] + [
        ", ".join([" ".join(label_method(method).split()), layer] + [result.classes[target]] * several)
        for method, _ in zip(explanation.methods, explanation.maps, strict=False)
        for layer in explanation.layers
        for target in explanation.targets
    ]


def locate_map(explanation: Explanation, index: int) -> tuple[int, int, int]:
    """The indices of a map's method, layer and target; for the picture, those of the last map."""
    shape = (len(explanation.maps), len(explanation.layers), len(explanation.targets))
    method, layer, target = np.unravel_index(index - 1 if index else np.prod(shape) - 1, shape)
    return int(method), int(layer), int(target)


def _draw_large(result: Result, index: int, colours: Colours) -> Pixels:
    if index == 0:
        pixels = _to_pixels(result.picture)
    else:
        method, layer, target = locate_map(result.explanation, index)
        pixels = overlay_map(result.picture, result.explanation.maps[method][layer, target], *colours)
    image = Image.fromarray(pixels)
    factor = max(1, _LARGE / max(image.size))
    size = round(image.width * factor), round(image.height * factor)
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def _to_pixels(picture: NDArray[np.float32]) -> Pixels:
    return (255 * picture).astype(np.uint8)


def _encode(pixels: Pixels) -> Markup:
    """The picture as a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return Markup("data:image/jpeg;base64,") + base64.b64encode(buffer.getvalue()).decode()
