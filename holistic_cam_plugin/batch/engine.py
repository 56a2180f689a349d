"""The maps of a batch of rows, as rows: what `holistic-cam batch` runs in a loop, and other frameworks on a cluster."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from holistic_cam_plugin.batch.failures import RobustExplainer
from holistic_cam_plugin.batch.rows import OUTPUTS, Item, find_targets, group_by_shape
from holistic_cam_plugin.errors import UsageError, builtin_errors, describe_error
from holistic_cam_plugin.explain import Request
from holistic_cam_plugin.method.pyramid import check_pyramid
from holistic_cam_plugin.methods import choose_methods
from holistic_cam_plugin.models.build import BuiltModel
from holistic_cam_plugin.models.classifier import (
    Classifier,
    check_text,
    choose_device,
    examine_built,
    load_classifier,
)
from holistic_cam_plugin.models.pictures import Picture, load_picture, silence_decoders
from holistic_cam_plugin.names import find_method

__all__ = ["BatchExplainer"]

_INPUTS = ("file", "bytes", "target", "label")
DTYPES = ("float16", "float32")
_LOCK = threading.RLock()  # one batch at a time: methods change the model while they run


class BatchExplainer:
    """Computes the maps of a batch of rows; the callable for Ray Data's `map_batches` or `datasets.Dataset.map`.

    It can be pickled: each process loads the model at its first call.

    Args:
        model: A name as on the command line, such as `"resnet50"` or `"timm/convnext_tiny"`, or a classifier, which is
            moved to the device, in evaluation mode and in float32.
        weights: File of a state dict. None: the published weights.
        labels: Class names, or a text file of them, one per line. None: the names that come with the model.
        layers: Names of the target layers. None: the last layer of the model's last stage.
        methods: Names of methods, such as `"gradcam"`.
        sizes: Shorter sides of the pyramid in pixels, `"fast"` or `"paper"`. None: each method's own.
        text: The classes of a model of images and texts.
        target: The class to explain where a row names none, as an index or a name, or a list of them. None: the row's
            label, or else the predicted class.
        crop: Explain the centre of the image, as the model's preprocessing crops it. False: the whole image.
        dtype: Of the stored maps, `"float16"` or `"float32"`.
        overlays: Also draw the maps over the image.
        device: Such as `"cuda:1"`. None: a GPU if there is one.
        amp: Run the model in bfloat16 for the methods with a pyramid.
        root: The folder that the rows' paths are relative to. None: the working directory.

    Raises:
        TypeError, ValueError: An option is invalid; those that only the model can tell raise at the first call.

    Example:
        >>> import io
        >>> from holistic_cam_plugin.demo import load_demo_image
        >>> picture = io.BytesIO()
        >>> load_demo_image().save(picture, "PNG")
        >>> explain = BatchExplainer("digits", methods=["gradcam"], device="cpu")
        >>> rows = explain({"bytes": [picture.getvalue(), b"no picture"], "target": [None, "digit 3"]})
        >>> rows["predicted_name"], rows["error"]
        (['digit 9', None], ['', 'its format is none of BMP, GIF, JPEG, JPEG2000, PNG, PPM, TGA, TIFF, WEBP'])
        >>> with np.load(io.BytesIO(rows["archive"][0])) as archive:
        ...     archive["maps"].shape  # (methods, layers, targets, H, W)
        (1, 1, 1, 224, 224)
    """

    def __init__(
        self,
        model: str | nn.Module = "resnet50",
        *,
        weights: str | Path | None = None,
        labels: str | Path | Sequence[str] | None = None,
        layers: Sequence[str] | None = None,
        methods: Sequence[str] = ("classholisticcam",),
        sizes: Sequence[int] | str | None = None,
        text: Sequence[str] | None = None,
        target: object = None,
        crop: bool = True,
        dtype: str = "float16",
        overlays: bool = False,
        device: str | torch.device | None = None,
        amp: bool = False,
        root: str | Path | None = None,
    ) -> None:
        self.model, self.layers, self.text, self.target = model, layers, text, target
        self.weights = Path(weights) if isinstance(weights, str) else weights
        self.labels = Path(labels) if isinstance(labels, str) else labels
        self.crop, self.dtype, self.overlays, self.device = crop, dtype, overlays, device
        self.root = Path() if root is None else Path(root)
        # Of cropped batches: smaller ones are filled up, because maps of other sizes round otherwise.
        self.padded_size = 0
        self._check(methods, sizes)
        self.methods = choose_methods([find_method(name) for name in methods], sizes, amp)
        self._robust: RobustExplainer | None = None
        self._targets: tuple[int, ...] = ()  # those of `target`, when the model is loaded

    def _check(self, methods: Sequence[str], sizes: Sequence[int] | str | None) -> None:
        if not isinstance(self.model, (str, nn.Module)):
            raise TypeError(f"model must be a name or a torch.nn.Module, got {type(self.model).__name__}")
        for name, value in {"methods": methods, "layers": self.layers, "text": self.text}.items():
            if isinstance(value, str) or (value is not None and not value):
                raise TypeError(f"{name} must be a list of names, got {value!r}")
        if isinstance(self.model, nn.Module) and (self.weights is not None or self.text is not None):
            raise ValueError("weights and text belong to models that are loaded by their name")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be {' or '.join(DTYPES)}, got {self.dtype!r}")
        check_pyramid(1, 1, sizes)
        with builtin_errors():
            if self.text is not None:
                check_text(self.text, self.labels)
        try:
            torch.device("cpu" if self.device is None else self.device)
        except RuntimeError as error:
            raise ValueError(f"the device {self.device!r} cannot be used: {describe_error(error)}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_robust": None}

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Return a row for each image; an image that cannot be explained has the reason in `error`.

        Args:
            batch: Columns, lists or arrays of the same length: `file` (a path) or `bytes` (an encoded picture), and
                optionally `target` (a class index or name, or a list of them) and `label` (the true class). Other
                columns are passed through.

        Returns:
            Columns: `file`, `bytes_read` and `modified` (the file's size and time of modification in nanoseconds),
            `error` (an empty string, or the reason), `predicted`, `predicted_name` and `probability`, `label` and
            `label_probability`, `height` and `width` of the maps, `archive` (the bytes of an `.npz` file), `overlay`
            (a JPEG file), and `maps` (for each map a dict: method, layer, target, class, score, probability, coverage,
            seconds).

        Raises:
            ValueError: The columns or the options are wrong, whatever the image.
            RuntimeError: The device no longer works.
        """
        with _LOCK, builtin_errors(), silence_decoders():
            return self.encode(self.explain(self.read(batch)))

    @property
    def request(self) -> Request:
        """The loaded model with its layers and methods; raises UsageError if it cannot be loaded."""
        return self._load().request

    def _load(self) -> RobustExplainer:
        if self._robust is None:  # threads that read do not wait for the one that explains
            with _LOCK:
                if self._robust is None:
                    classifier = self._load_classifier()
                    layers = classifier.default_layers[-1:] if self.layers is None else self.layers
                    self._targets = find_targets(self.target, classifier.classes)
                    self._robust = RobustExplainer(Request(classifier, classifier.at(layers), self.methods))
        return self._robust

    def _load_classifier(self) -> Classifier:
        device = None if self.device is None else str(self.device)
        if isinstance(self.model, str):
            return load_classifier(self.model, self.weights, self.labels, device, text=self.text)
        return examine_built(type(self.model).__name__, BuiltModel(self.model), self.labels, choose_device(device))

    def read(self, batch: Mapping[str, Sequence[Any]]) -> list[Item]:
        """Read the pictures of a batch. Any thread may do this while another one explains."""
        if taken := sorted(set(batch) & set(OUTPUTS) - set(_INPUTS)):
            raise ValueError(f"the columns {', '.join(taken)} have names of the output: rename them")
        if not {"file", "bytes"} & set(batch):
            raise ValueError(f"a batch needs a column 'file' or 'bytes', got {', '.join(batch) or 'no column'}")
        self._load()
        return [self._read(dict(zip(batch, values, strict=True))) for values in zip(*batch.values(), strict=True)]

    def _read(self, row: dict[str, Any]) -> Item:
        classifier, data = self.request.classifier, row.get("bytes")
        try:
            targets = find_targets(row.get("target"), classifier.classes) or self._targets
            label = next(iter(find_targets(row.get("label"), classifier.classes)), None)
        except UsageError as error:
            return Item(row, Picture(None), (), None, str(error))
        source = self.root / str(row.get("file")) if data is None else bytes(data)
        picture = load_picture(source, classifier.preprocessing, self.crop)
        return Item(row, picture, targets or (() if label is None else (label,)), label, picture.problem)

    def explain(self, items: Sequence[Item]) -> list[Item]:
        """Compute the maps of the pictures that could be read.

        Raises:
            UsageError: No image can be explained with these options.
            OutputError: The device no longer works.
        """
        results = [item.result for item in items]
        for group in group_by_shape(items):
            padded = group + group[-1:] * (self.padded_size - len(group) if self.crop else 0)
            pixels = np.stack([items[index].picture.pixels for index in padded])  # type: ignore[misc]
            with _LOCK:
                found = self._load().explain(torch.from_numpy(pixels), [items[index].targets for index in padded])
            for index, result in zip(group, found, strict=False):
                results[index] = result
        return [item._replace(result=result) for item, result in zip(items, results, strict=True)]

    def encode(self, items: Sequence[Item]) -> dict[str, list[Any]]:
        """Convert the maps to the columns that `__call__` returns."""
        classes = self.request.classifier.classes
        rows = [item.encode(classes, self.dtype, self.overlays) for item in items]
        passed = [name for name in (items[0].row if items else ()) if name not in _INPUTS]
        columns = {name: [item.row[name] for item in items] for name in passed}
        return columns | {name: [row[name] for row in rows] for name in OUTPUTS}
