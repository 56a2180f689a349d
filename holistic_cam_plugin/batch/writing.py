"""What one rank writes: an image's maps, then its rows, so that no row is without its map.

A thread of its own writes, in the order of the images, while the next ones are explained.
"""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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

# Images whose maps may wait for a slow disk: their memory is small beside that of the pyramids.
AHEAD = 16


class OutputError(Exception):
    """The output can't be written, or the input no longer be read: the run ends here, and a restart goes on."""


class Writer:
    """The output of one rank; a context manager. At its end all that it was given is on the disk.

    Every OSError that is not an image's own fault becomes an OutputError, at one of the next calls or at the end.

    Attributes:
        failed: images that have no map.
        waiting: seconds that the others waited for the disk.
    """

    def __init__(self, plan: Plan, explainer: Explainer, rank: int) -> None:
        self.plan, self.explainer = plan, explainer
        with ExitStack() as stack, writing(plan.folder):
            self._manifest = stack.enter_context(MANIFEST.journal(plan.folder, rank))
            self._errors = stack.enter_context(ERRORS.journal(plan.folder, rank))
            self._files = stack.pop_all()
        self.failed, self.waiting = 0, 0.0
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
            self._thread.shutdown()  # what is explained is written, also at Ctrl-C
            with writing(self.plan.folder):  # what a full disk did not take is tried again
                self._files.close()

    def store(self, image: Loaded, result: Explanation | str) -> None:
        """Write an image's maps, then its rows; or note why it has none."""
        self._unwritten.append(self._thread.submit(self._store, image, result))
        self._wait(AHEAD)

    def _wait(self, left: int) -> None:
        """Until no more than so many images are left to be written."""
        start = time.perf_counter()
        while len(self._unwritten) > left or (self._unwritten and self._unwritten[0].done()):
            self.failed += not self._unwritten.popleft().result()
        self.waiting += time.perf_counter() - start

    def _fail(self, index: int, reason: str) -> None:
        with writing(self.plan.folder):
            name = self.plan.inputs.jobs[index].name
            self._errors.append([ERRORS.row({"file": name, "reason": reason, "parameters": self.plan.digest})])

    def _store(self, image: Loaded, result: Explanation | str) -> bool:
        """Whether it has maps now. After an error nothing more is written: a table may end in the middle of a row."""
        if self._broken:
            return False
        try:
            problem = result if isinstance(result, str) else self._stored(image, result)
            if problem:
                self._fail(image.job, problem)
        except BaseException:
            self._broken = True
            raise
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
