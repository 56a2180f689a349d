"""Writes the output of one rank: an image's maps, then its rows, so that no row lacks its map.

A separate thread writes, in the order of the images, while the next ones are explained.
"""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from holistic_cam_plugin.batch import RESUME
from holistic_cam_plugin.batch.journal import Row
from holistic_cam_plugin.batch.loading import LoadedImage
from holistic_cam_plugin.batch.manifest import ERRORS, MANIFEST
from holistic_cam_plugin.batch.overlays import encode_overlays, overlay_name
from holistic_cam_plugin.batch.plan import Plan
from holistic_cam_plugin.batch.store import encode_maps, hash_bytes, map_name
from holistic_cam_plugin.errors import OutputError
from holistic_cam_plugin.explain import Explanation
from holistic_cam_plugin.files import write_whole

__all__ = ["Writer", "convert_write_errors"]

# Images that may wait for a slow disk: their maps are small compared with a pyramid.
AHEAD = 16


class Writer:
    """Writes the output of one rank; a context manager. On exit everything has been written.

    An OSError that is not due to a single image is raised as an OutputError, by one of the next calls or on exit.

    Attributes:
        failed: Number of images without maps.
        waited: Seconds that callers waited for the disk.
    """

    def __init__(self, plan: Plan, classes: Sequence[str], rank: int) -> None:
        self.plan, self._classes = plan, classes
        with ExitStack() as stack, convert_write_errors(plan.folder):
            self._manifest = stack.enter_context(MANIFEST.open_journal(plan.folder, rank))
            self._errors = stack.enter_context(ERRORS.open_journal(plan.folder, rank))
            self._files = stack.pop_all()
        self.failed, self.waited = 0, 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._unwritten: deque[Future[bool]] = deque()
        self._broken = False

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._wait(0)
        finally:
            self._thread.shutdown()  # finished explanations are written, also after Ctrl-C
            with convert_write_errors(self.plan.folder):  # closing a file writes its buffer again
                self._files.close()

    def write(self, image: LoadedImage, result: Explanation | str) -> None:
        """Write an image's maps and rows, or the reason why it has none; return before that is done."""
        self._unwritten.append(self._thread.submit(self._write, image, result))
        self._wait(AHEAD)

    def _wait(self, most: int) -> None:
        """Wait until at most `most` images are unwritten."""
        start = time.perf_counter()
        while len(self._unwritten) > most or (self._unwritten and self._unwritten[0].done()):
            self.failed += not self._unwritten.popleft().result()
        self.waited += time.perf_counter() - start

    def _write(self, image: LoadedImage, result: Explanation | str) -> bool:
        """Return whether the image has maps now. After an error nothing is written: a table may end inside a row."""
        if self._broken:
            return False
        try:
            problem = result if isinstance(result, str) else self._write_maps(image, result)
            if problem:
                row = {"file": self._name(image), "reason": problem, "parameters": self.plan.digest}
                with convert_write_errors(self.plan.folder):
                    self._errors.append([ERRORS.format_row(row)])
        except BaseException:
            self._broken = True
            raise
        return not problem

    def _write_maps(self, image: LoadedImage, explanation: Explanation) -> str:
        """Write maps, overlays and rows; return why that is impossible for this image, or an empty string."""
        name = self._name(image)
        maps = np.stack(explanation.maps)
        keys = [method.key for method in explanation.methods]
        scores = [float(explanation.scores[target]) for target in explanation.targets]
        data = encode_maps(maps.astype(self.plan.dtype), keys, explanation.layers, explanation.targets, scores)
        overlays = b""
        if self.plan.overlays:
            assert image.pixels is not None
            try:
                overlays = encode_overlays(image.pixels, maps)
            except ValueError as error:
                return str(error)
        with convert_write_errors(self.plan.folder):
            try:
                if overlays:
                    write_whole(self.plan.folder, overlay_name(name), [overlays])
                write_whole(self.plan.folder, map_name(name), [data])
            except IsADirectoryError:
                return "a folder has the name of its maps or overlay"
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                return "the file name is too long: the maps' names are longer"
            checksums = {"checksum": hash_bytes(data), "overlay_checksum": hash_bytes(overlays) if overlays else ""}
            self._manifest.append(map(MANIFEST.format_row, self._list_rows(image, explanation, checksums)))
        return ""

    def _name(self, image: LoadedImage) -> str:
        return self.plan.inputs.jobs[image.job].name

    def _list_rows(self, image: LoadedImage, explanation: Explanation, checksums: Row) -> Iterator[Row]:
        """Yield one row per map, in the order of the array."""
        name = self._name(image)
        for method, seconds in zip(explanation.methods, explanation.seconds, strict=True):
            for layer in explanation.layers:
                for target in explanation.targets:
                    yield {
                        "file": name,
                        "width": image.width,
                        "height": image.height,
                        "bytes": image.size,
                        "target": target,
                        "class": self._classes[target],
                        "predicted": explanation.predicted,
                        "score": float(explanation.scores[target]),
                        "probability": float(explanation.probabilities[target]),
                        "layer": layer,
                        "method": method.key,
                        "seconds": f"{seconds:.4f}",
                        "map": map_name(name),
                        **checksums,
                        **self.plan.columns,
                        "parameters": self.plan.digest,
                    }


@contextmanager
def convert_write_errors(folder: Path) -> Iterator[None]:
    """Raise an OSError of the body as an OutputError."""
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error
        raise OutputError(f"cannot write to {folder} ({reason}): {RESUME}") from error
