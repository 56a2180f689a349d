"""Output folders made without a model: a record, archives of random maps, and pictures."""

from __future__ import annotations

import json
import re

import numpy as np

from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.batch.record import RECORD, Record
from holistic_cam_plugin.display import coverage
from tests.batch.batch_tools import make_picture

CLASSES = ("cat", "dog", "<i>hen</i>")
PREPROCESSING = {
    "mean": [0.5] * 3, "std": [0.5] * 3, "size": [32, 32], "resize": 40, "interpolation": "bilinear",
    "source": "torchvision",
}  # fmt: skip
PARAMETERS = {
    "model": "tiny", "weights": "0", "classes": "0", "layers": ["layer2", "layer10"], "methods": ["gradcam"],
    "sizes": None, "dtype": "float32", "amp": False, "device": "cpu", "preprocessing": PREPROCESSING, "crop": True,
}  # fmt: skip


def make_output(folder, images, root=None, maps=None, **parameters):
    """Make an output folder.

    Args:
        images: The columns of the record by file: `label` and so on. `reason`: the image has failed.
        root: Where the pictures are made. None: `folder/in`.
        maps: The maps `(methods, layers, targets, H, W)` by file; missing ones are random, of one class.
    """
    root = root or folder.parent / "in"
    chosen = PARAMETERS | {"input": str(root)} | parameters
    folder.mkdir(parents=True, exist_ok=True)
    with Record(folder / RECORD, write=True) as record:
        record.set_parameters(chosen, CLASSES)
        for seed, (file, columns) in enumerate(images.items()):
            if "reason" in columns:
                record.add({"file": file, "state": "failed", **columns})
                continue
            if not (root / file).exists():
                make_picture(root / file, seed)
            row = {"predicted": 0, "probability": 0.5, **columns}
            values = (maps or {}).get(file)
            if values is None:
                values = np.random.default_rng(seed).random((1, 2, 1, 32, 32))
            _add(record, folder, root, file, row, values.astype(np.float32), chosen)


def _add(record, folder, root, file, row, values, parameters):
    path = folder / "maps" / f"{file}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    targets = [row["predicted"], 1, 2][: values.shape[2]]
    np.savez(path, maps=values, methods=parameters["methods"], layers=parameters["layers"], targets=targets)
    status = (root / file).stat()
    image = {
        "file": file, "bytes": status.st_size, "modified": status.st_mtime_ns, "state": "explained", "reason": "",
        "height": values.shape[-2], "width": values.shape[-1], **row,
    }  # fmt: skip
    record.add(
        image,
        [
            {
                "method": method, "layer": layer, "target": target, "class": CLASSES[target], "score": 1.5,
                "probability": 0.25, "coverage": coverage(values[m, n, t]), "seconds": 0.125,
            }
            for m, method in enumerate(parameters["methods"])
            for n, layer in enumerate(parameters["layers"])
            for t, target in enumerate(targets)
        ],
    )  # fmt: skip


class Page:
    """A report: its text, and its data by name."""

    def __init__(self, *arguments):
        assert main(["report", *map(str, arguments)]) == 0
        chosen = arguments[arguments.index("--output") + 1] if "--output" in arguments else arguments[0] / "report"
        self.folder, self.path = chosen, chosen / "index.html"
        self.text = self.path.read_text(encoding="utf-8")
        [found] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', self.text, re.DOTALL)
        data = json.loads(found)
        self.names = {int(number): name for number, name in data["names"].items()}
        self.layers, self.methods = data["layers"], data["methods"]
        self.images = {}
        for row in data["images"]:
            image = dict(zip(data["columns"], row, strict=True))
            image["maps"] = [dict(zip(data["map_columns"], values, strict=True)) for values in image["maps"]]
            self.images[image["file"]] = image

    @property
    def maps(self):
        """All maps."""
        return [one for image in self.images.values() for one in image["maps"]]

    def section(self, identifier):
        """Return the words of a part of the page, without its tags."""
        [found] = re.findall(rf'id="{identifier}"[^>]*>(.*?)</(?:div|section)>\n', self.text, re.DOTALL)
        return [word.strip() for word in re.split(r"<[^>]*>", found) if word.strip()]
