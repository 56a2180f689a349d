"""Maps for the page: a table of them, and one alone, in the colours that were chosen."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from holistic_cam_plugin.app.explaining import Explained
from holistic_cam_plugin.display import coverage, overlaid, percent
from holistic_cam_plugin.display.figure import figure_rows

__all__ = ["Colours", "grid", "map_names", "one_map", "place", "rows"]

Pixels = NDArray[np.uint8]

PICTURE = "picture"

_QUALITY = 92
# For the comparison, which is shown large: enlarged smoothly here, a browser would do it each in its own way.
_LARGE = 640

_GRID = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string("""\
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


class Colours(NamedTuple):
    """How maps are shown: `scale`, `colormap` and `opacity` of `display.overlaid`."""

    scale: str = "linear"
    colormap: str = "jet"
    opacity: float = 0.5


class _Cell(NamedTuple):
    source: Markup
    name: str
    share: str


def rows(explained: Explained, classes: list[str]) -> list[tuple[str, list[NDArray[np.float32]]]]:
    """For every class every layer: its label, and its maps `(H, W)`, one a column that is done."""
    names = [classes[target] for target in explained.choice.targets]
    return figure_rows(explained.choice.layers, names, explained.maps)


def grid(explained: Explained, classes: list[str], colours: Colours) -> str:
    """The maps as HTML: layers down, methods across, the untouched picture first."""
    names = [column.label for column in explained.choice.columns]
    table = []
    for label, maps in rows(explained, classes):
        cells: list[_Cell | None] = [
            _Cell(
                _source(overlaid(explained.picture, saliency_map, *colours)),
                " ".join(f"{name} {label}".split()),
                percent(coverage(saliency_map)),
            )
            for name, saliency_map in zip(names, maps, strict=False)
        ]
        table.append((label, cells + [None] * (len(names) - len(maps))))
    picture = _source((255 * explained.picture).astype(np.uint8))
    return _GRID.render(columns=names, rows=table, picture=picture, lines=table[0][0].count("\n") + 1)


def map_names(explained: Explained, classes: list[str]) -> list[str]:
    """The picture, and every map that is there; `place` and `one_map` take their indices."""
    several = len(explained.choice.targets) > 1
    return [PICTURE] + [
        ", ".join([" ".join(column.label.split()), layer] + [classes[target]] * several)
        for column, _ in zip(explained.choice.columns, explained.maps, strict=False)
        for layer in explained.choice.layers
        for target in explained.choice.targets
    ]


def place(explained: Explained, index: int) -> tuple[int, int, int]:
    """Column, layer and class, as indices, of a map's name; the picture's are those of the last column's last map."""
    shape = (len(explained.maps), len(explained.choice.layers), len(explained.choice.targets))
    column, layer, target = np.unravel_index(index - 1 if index else np.prod(shape) - 1, shape)
    return int(column), int(layer), int(target)


def one_map(explained: Explained, index: int, colours: Colours) -> Image.Image:
    """The picture (0) or a map over it, enlarged."""
    if index == 0:
        pixels = (255 * explained.picture).astype(np.uint8)
    else:
        column, layer, target = place(explained, index)
        pixels = overlaid(explained.picture, explained.maps[column][layer][target], *colours)
    image = Image.fromarray(pixels)
    factor = max(1, _LARGE / max(image.size))
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


def _source(pixels: Pixels) -> Markup:
    """The picture in the page itself."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return Markup("data:image/jpeg;base64,") + base64.b64encode(buffer.getvalue()).decode()
