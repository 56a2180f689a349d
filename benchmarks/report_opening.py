"""Time that a browser takes to open the report of a batch.

The bundled model explains generated images of the size of photographs in two layers with two methods. Each of them, its
maps and its rows are listed under several names, so that it does not take hours to make a report of 10,000 images. The
reports have the pictures beside the page and, of 1,000 images at most, inside it. Each round opens both pages in a new
headless Chromium with an empty cache; the operating system has cached the files. Needs Chromium and chromedriver.
Running the same command again adds rounds.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from benchmarks.harness.runner import run_main
from benchmarks.throughput import make_photos
from holistic_cam_plugin.batch.outputs import map_name
from holistic_cam_plugin.batch.record import RECORD, Record
from holistic_cam_plugin.errors import UsageError

__all__ = ["Opening", "make_table", "open_report"]

COLUMNS = ("images", "pictures", "page_bytes", "ready", "seen", "filtered", "sorted", "turned", "read")
BESIDE, INSIDE = "beside the page", "inside"
LARGEST_INSIDE = 1000  # images: a page of 208 MB
EXPLAINED = 200  # images

_BATCH = (
    "--model", "digits", "--sizes", "64", "--layers", "layer2", "layer4", "--methods", "gradcam", "classholisticcam",
)  # fmt: skip

# Checked in every frame, from the start of the navigation; the summary may be taller than the window.
_SEEN = """
const done = arguments[0];
const inside = ({ top, bottom }) => bottom > 0 && top < innerHeight;
function look() {
  const cards = [...document.querySelectorAll(".card")].slice(0, 20);
  document.getElementById("cards")?.scrollIntoView();
  const maps = cards.flatMap((card) => [...card.querySelectorAll(".map img")]);
  const shown = maps.filter((map) => inside(map.getBoundingClientRect()));
  if (shown.length && shown.every((map) => map.complete && map.naturalWidth)) done(performance.now() / 1000);
  else requestAnimationFrame(look);
}
look();
"""
# From a choice, or from a click on "next page", to the second frame after it; the first may have been started before.
_CHOICE = """
const [name, value, done] = arguments, control = document.forms.controls.elements[name], start = performance.now();
if (control) {
  control.value = value;
  control.dispatchEvent(new Event("change", { bubbles: true }));
} else document.getElementById(name).click();
requestAnimationFrame(() => requestAnimationFrame(() => done((performance.now() - start) / 1000)));
"""
_READY = "return performance.getEntriesByType('navigation')[0].loadEventEnd / 1000"
_READ = "return [...document.images].filter((image) => image.complete && image.naturalWidth).length"


class Opening(NamedTuple):
    """Measurements of one opening, in seconds."""

    page_bytes: int
    ready: float  # until the page is loaded and its script has run; the maps in the window may be seen before
    seen: float  # until all maps in the window are shown
    filtered: float  # from the choice of a method to the result
    sorted: float  # from the choice of an order to the result
    turned: float  # from a click on "next page" to that page
    read: int  # number of pictures that the browser has decoded


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--images", type=int, default=10_000, metavar="N", help="number of images (10000)")
    add("--rounds", type=int, default=5, metavar="N", help="number of rounds (5)")
    add("--output", type=Path, default=Path("output"), metavar="FOLDER", help="folder of report_opening.csv (output)")
    arguments = parser.parse_args(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "report_opening.csv"
    with tempfile.TemporaryDirectory() as folder:
        pages = _make_pages(Path(folder), arguments.images)
        for _ in tqdm(range(arguments.rounds), desc="rounds", disable=None):
            for (kind, images), page in pages.items():
                _append(path, [images, kind, *open_report(page)])
    print(make_table(path))


def open_report(page: Path) -> Opening:
    """Open a report in a new browser.

    Raises:
        UsageError: there is no browser.
    """
    # Needed by this benchmark alone.
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if programs[0] is None or programs[1] is None:
        raise UsageError("chromium or chromedriver is missing: apt-get install chromium chromium-driver")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ChromeOptions()
        options.binary_location = programs[0]
        for option in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "window-size=1200,900"):
            options.add_argument(f"--{option}")
        options.add_argument(f"--user-data-dir={profile}")
        with Chrome(options=options, service=ChromeService(programs[1])) as browser:
            browser.set_script_timeout(300)
            browser.get("about:blank")
            browser.get(page.as_uri())
            seen = browser.execute_async_script(_SEEN)
            ready, read = browser.execute_script(_READY), browser.execute_script(_READ)
            filtered = browser.execute_async_script(_CHOICE, "method", "gradcam")
            in_order = browser.execute_async_script(_CHOICE, "order", "-probability")
            turned = browser.execute_async_script(_CHOICE, "later", "")
    return Opening(page.stat().st_size, ready, seen, filtered, in_order, turned, read)


def make_table(path: Path) -> str:
    """Medians and ranges over the rounds, in Markdown."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [
        "| images | pictures | page, MB | ready, s | maps in the window, s | filter, s | sort, s | next page, s | "
        "pictures read |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for images, pictures in dict.fromkeys((row["images"], row["pictures"]) for row in rows):
        mine = [row for row in rows if (row["images"], row["pictures"]) == (images, pictures)]
        times = [_format_range([float(row[name]) for row in mine]) for name in COLUMNS[3:8]]
        size = statistics.median(int(row["page_bytes"]) for row in mine) / 1e6
        read = statistics.median(int(row["read"]) for row in mine)
        lines.append(f"| {images} | {pictures} | {size:.1f} | {' | '.join(times)} | {read:.0f} |")
    return "\n".join(lines)


def _format_range(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def _make_pages(folder: Path, images: int) -> dict[tuple[str, int], Path]:
    """Make a report of each kind, by kind and number of images."""
    maps, fewer = folder / "maps", min(images, LARGEST_INSIDE)
    make_photos(folder / "photos", min(images, EXPLAINED))
    _run("batch", str(folder / "photos"), "--output", str(maps), *_BATCH, "--device", "cpu")
    _repeat(maps, folder / "photos", images)
    _run("report", str(maps), "--limit", str(images))
    _run("report", str(maps), "--limit", str(fewer), "--self-contained", "--output", str(folder / "inside"))
    return {(BESIDE, images): maps / "report" / "index.html", (INSIDE, fewer): folder / "inside" / "index.html"}


def _repeat(folder: Path, photos: Path, images: int) -> None:
    """List the images of an output folder under further names, until there are so many."""
    with Record(folder / RECORD, write=True) as record:
        rows = [dict(row) for row in record.connection.execute("SELECT * FROM images ORDER BY file")]
        query = "SELECT * FROM maps WHERE file = ? ORDER BY place"
        maps = [record.connection.execute(query, (row["file"],)).fetchall() for row in rows]
        for number in range(len(rows), images):
            row, file = rows[number % len(rows)], f"{number:05}.jpg"
            (photos / file).hardlink_to(photos / row["file"])
            (folder / map_name(file)).hardlink_to(folder / map_name(row["file"]))
            record.add({**row, "file": file}, [dict(found) for found in maps[number % len(rows)]])


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "holistic_cam_plugin", *arguments], check=True, stdout=subprocess.DEVNULL)


def _append(path: Path, values: Sequence[object]) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(COLUMNS)
        writer.writerow([f"{value:.3f}" if isinstance(value, float) else value for value in values])


if __name__ == "__main__":
    run_main(main)
