"""What one rank writes: an image's maps, then its rows, so that no row is without its map."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from holistic_cam_plugin.batch.explaining import Explainer, Explanation
from holistic_cam_plugin.batch.journal import Row
from holistic_cam_plugin.batch.loading import Loaded
from holistic_cam_plugin.batch.manifest import ERRORS, MANIFEST
from holistic_cam_plugin.batch.overlays import overlay_bytes, overlay_name
from holistic_cam_plugin.batch.plan import Plan
from holistic_cam_plugin.batch.store import checksum, map_bytes, map_name, write_whole

__all__ = ["OutputError", "Writer", "writing"]


class OutputError(Exception):
    """The output can't be written, or the input no longer be read: the run ends here, and a restart goes on."""


class Writer:
    """The output of one rank; a context manager.

    Every OSError that is not an image's own fault becomes an OutputError.
    """

    def __init__(self, plan: Plan, explainer: Explainer, rank: int) -> None:
        self.plan, self.explainer = plan, explainer
        with ExitStack() as stack, writing(plan.folder):
            self._manifest = stack.enter_context(MANIFEST.journal(plan.folder, rank))
            self._errors = stack.enter_context(ERRORS.journal(plan.folder, rank))
            self._files = stack.pop_all()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        with writing(self.plan.folder):  # what a full disk did not take is tried again
            self._files.close()

    def fail(self, index: int, reason: str) -> None:
        """Note why an image has no map."""
        with writing(self.plan.folder):
            name = self.plan.inputs.jobs[index].name
            self._errors.append([ERRORS.row({"file": name, "reason": reason, "parameters": self.plan.digest})])

    def store(self, image: Loaded, result: Explanation | str) -> bool:
        """Write an image's maps, then its rows; or note why it has none, and give false."""
        problem = result if isinstance(result, str) else self._stored(image, result)
        if problem:
            self.fail(image.job, problem)
        return not problem

    def _stored(self, image: Loaded, explanation: Explanation) -> str:
        """Empty, or why there can be no such files."""
        name = self.plan.inputs.jobs[image.job].name
        maps = explanation.maps.astype(self.plan.dtype)
        data = map_bytes(maps, self.explainer.methods, self.explainer.layers, explanation.targets, explanation.scores)
        drawn = b""
        if self.plan.overlays:
            assert image.pixels is not None
            try:
                drawn = overlay_bytes(image.pixels, explanation.maps)
            except ValueError as error:
                return str(error)
        with writing(self.plan.folder):
            try:
                if drawn:
                    write_whole(self.plan.folder, overlay_name(name), [drawn])
                write_whole(self.plan.folder, map_name(name), [data])
            except IsADirectoryError:
                return "a folder lies where its maps or overlay belong"
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                return "file name too long to add the ending of the maps"
            checksums = {"checksum": checksum(data), "overlay_checksum": checksum(drawn) if drawn else ""}
            self._manifest.append(map(MANIFEST.row, self._rows(image, explanation, checksums)))
        return ""

    def _rows(self, image: Loaded, explanation: Explanation, checksums: Row) -> Iterator[Row]:
        """One row a map, in the order of the array."""
        name = self.plan.inputs.jobs[image.job].name
        of_targets = list(zip(explanation.targets, explanation.scores, explanation.probabilities, strict=True))
        for method, seconds in zip(self.explainer.methods, explanation.seconds, strict=True):
            for layer in self.explainer.layers:
                for target, score, probability in of_targets:
                    yield {
                        "file": name,
                        "width": image.width,
                        "height": image.height,
                        "bytes": image.size,
                        "target": target,
                        "class": self.explainer.classifier.classes[target],
                        "predicted": explanation.predicted,
                        "score": score,
                        "probability": probability,
                        "layer": layer,
                        "method": method,
                        "seconds": f"{seconds:.4f}",
                        "map": map_name(name),
                        **checksums,
                        **self.plan.columns,
                        "parameters": self.plan.digest,
                    }


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raise an OSError of the body as OutputError."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise OutputError(
            f"{folder} can't be written, {'the disk is full' if full else error}: what is done is safe, and the same "
            "command goes on from there"
        ) from error
