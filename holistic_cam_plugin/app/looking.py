"""Event handlers of the page: the picture, its best classes, and the texts of a model that compares with texts."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from holistic_cam_plugin.app.choices import name_classes
from holistic_cam_plugin.app.examples import load_examples
from holistic_cam_plugin.app.pictures import read_upload
from holistic_cam_plugin.app.rendering import render_picture
from holistic_cam_plugin.app.shown import NO_MAPS, Shown, complain
from holistic_cam_plugin.app.snippet import Source
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.explain import Prediction, predict
from holistic_cam_plugin.models.classifier import Classifier
from holistic_cam_plugin.models.images import preprocess_image

__all__ = ["BEST", "PictureHandlers", "Seen"]

BEST = 5


class Seen(NamedTuple):
    """A picture as the classifier sees it, `(H, W, 3)`, RGB, float32, in [0, 1], and its prediction."""

    classifier: Classifier
    classes: Sequence[str]
    picture: NDArray[np.float32]
    prediction: Prediction


class PictureHandlers:
    """The functions that the page calls for pictures, texts and classes.

    Args:
        source: the classifier to load.

    Attributes:
        classifier: what was loaded.
        classes: unique names of the classes.
        layers: the layers that can be explained.
        stages: names of the default layers.
        texts: the classes of a model of images and texts, one a line; None for others.
        examples: pictures to begin with.

    Raises:
        UsageError: the classifier cannot be loaded, or has no layer to explain.
    """

    def __init__(self, source: Source) -> None:
        self.classifier = source.load()
        self.classes = name_classes(self.classifier.classes)
        self.layers = self.classifier.explainable.maps_called_once
        self.stages = self.classifier.default_layers
        self.texts = "\n".join(source.text) if source.text else None
        self.examples = load_examples(source.model)
        self._model = threading.Lock()  # the last pass for a closed tab may still run

    def look(self, path: str | None, texts: str | None) -> tuple[Any, ...]:
        """Handle an upload; returns the state, the picture, the best classes, the best one as the choice, and no maps.

        After a picture that cannot be read, or none, there is no picture.
        """
        if path is None:
            return _see_nothing()
        try:
            image = preprocess_image(read_upload(Path(path)), self.classifier)
        except UsageError as error:
            return _see_nothing(complain(error))
        return self._see(image, texts)

    def look_at_example(self, texts: str | None, choice: gr.SelectData) -> tuple[Any, ...]:
        """Handle a click on an example, as `look`."""
        if choice.index not in range(len(self.examples)):
            return _see_nothing(complain(UsageError("there is no such example")))
        return self._see(preprocess_image(self.examples[choice.index], self.classifier), texts)

    def first_example(self, texts: str | None) -> tuple[Any, ...]:
        """Show the first example, as `look`."""
        return self._see(preprocess_image(self.examples[0], self.classifier), texts)

    def change_texts(self, seen: Seen | None, texts: str | None) -> tuple[Any, ...]:
        """Compare the picture with other texts, as `look`; wrong ones are told when they are needed, too."""
        if seen is None or _split_lines(texts) == seen.classes:
            return (gr.skip(),) * (4 + len(NO_MAPS))
        try:
            self._find_classifier(texts)
        except UsageError as error:
            return *[gr.skip()] * 4, *Shown(status=complain(error))
        return self._see(seen.prediction.images, texts)

    def _see(self, images: Tensor, texts: str | None) -> tuple[Any, ...]:
        try:
            with self._model:
                classifier = self._find_classifier(texts)
                prediction = predict(classifier, images)
                picture = classifier.preprocessing.denormalize(prediction.images)
        except UsageError as error:
            return _see_nothing(complain(error))
        classes = self.classes if classifier is self.classifier else classifier.classes
        probabilities = prediction.probabilities[0]
        best = np.argsort(-probabilities)[:BEST]
        chosen = gr.update(value=[int(best[0])])
        if self.texts is not None:
            chosen["choices"] = [(name, index) for index, name in enumerate(classes)]
        return (
            Seen(classifier, classes, picture, prediction),
            render_picture(picture),
            {classes[n]: float(probabilities[n]) for n in best},
            chosen,
            *NO_MAPS,
        )

    def _find_classifier(self, texts: str | None) -> Classifier:
        """The classifier with the tab's texts."""
        if self.texts is None or (lines := _split_lines(texts)) == self.classifier.classes:
            return self.classifier
        return self.classifier.with_texts(lines)

    def add_class(self, seen: Seen | None, targets: Sequence[int], choice: gr.SelectData) -> Any:
        """Add one of the best classes to the choice."""
        if seen is None or choice.value not in seen.classes:
            return gr.skip()
        target = seen.classes.index(choice.value)
        return [*targets, *[target] * (target not in targets)]

    def _check_seen(self, seen: Seen | None, texts: str | None) -> Seen:
        if seen is None:
            raise UsageError("choose a picture first")
        if self.texts is not None and _split_lines(texts) != seen.classes:
            self._find_classifier(texts)  # raises if they are wrong
            raise UsageError("the texts have changed: choose the classes again")
        return seen


def _see_nothing(status: str = "") -> tuple[Any, ...]:
    return None, "", None, [], *NO_MAPS._replace(status=status)


def _split_lines(texts: str | None) -> list[str]:
    return [line.strip() for line in (texts or "").splitlines() if line.strip()]
