"""No figure of a page is typed by hand: every table is compared with the CSV that it comes from.

A comment directly above a table names its file, relative to the repository's root, and what the table shows:

    <!-- table: benchmarks/results/squeezenet1_0/fidelity/table1.csv layer=features.7 columns=ins,del,over_all,tied -->
    | method | Ins ↑ | Del ↓ | Over-all ↑ | tied |

Write the comment and the header; the rest comes by `python -m benchmarks.report --rewrite README.md`. More examples:

    Differences to a method on the same images:
    <!-- table: benchmarks/results/squeezenet1_0/road/table1.csv layer=features.7 minus=Holistic-CAM -->

    Several files joined, several layers side by side; all methods as rows, which is what `rows=` has if it is left out:
    <!-- table: benchmarks/results/digits/table1/table1.csv benchmarks/results/digits/uniform/table1.csv
         columns=layer1:over_all,layer1:epg,layer4:over_all,layer4:epg -->

    Methods as columns, layers and metrics as rows, means without intervals:
    <!-- table: benchmarks/results/squeezenet1_0/*/table1.csv intervals=no
         rows=features.7:over_all,features.12:over_all,features.7:epg,features.12:epg
         columns="Grad-CAM,Layer-CAM,RefineCAM,CAMERAS,Holistic-CAM,Layer-CAM+LPW" -->
    | | Grad-CAM | Layer-CAM | RefineCAM | CAMERAS | Holistic-CAM | Layer-CAM+LPW |
    |---|---|---|---|---|---|---|
    | insertion - deletion, features.7 |

    Medians of the cost, in seconds, or with `measure=bytes` in megabytes:
    <!-- table: benchmarks/results/latency/*.csv rows=resnet50:layer4,resnet50:layer2
         columns="floor,Holistic-CAM,CAMERAS procedure,SESS,Layer-CAM" -->

    All the tables of the cost:
    <!-- cost: benchmarks/results/latency/*.csv --> ... <!-- end -->

    A table whose figures no file holds says why:
    <!-- by hand: single measurements on the way, not kept -->

Labels of rows and columns are free as long as they hold the layer's and the method's name; a wrong one is replaced.
All options: `benchmarks/harness/markdown.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.report import rewrite_page

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "benchmarks").rglob("README.md")), *sorted((ROOT / "docs").rglob("*.md"))]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pages
def test_tables_are_those_of_their_files(page):
    text = page.read_text(encoding="utf-8")
    again = rewrite_page(text)
    changed = [line for line in text.splitlines() if line not in again.splitlines()]
    assert again == text, f"python -m benchmarks.report --rewrite {page.relative_to(ROOT)} changes {changed[:5]}"


@pages
def test_tables_with_measured_figures_name_their_source(page):
    text = re.sub(r"<!-- cost:.*?<!-- end -->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for table in re.finditer(r"(?P<above>[^\n]*)\n(?P<table>(?:\|[^\n]*\n)+)", text):
        measured = re.search(r"\|\s*[-+]?\d+\.\d+\s*[|[(]", table["table"])
        assert not measured or table["above"].endswith("-->"), f"no source above {table['table'].splitlines()[0]}"


def test_means_are_those_that_pandas_finds():
    """By another way than the tables': the first figure of each cell of the simplest form of tables."""
    compared = 0
    for page in PAGES:
        form = r"<!-- table: (\S+table\d\.csv) layer=(\S+) -->\n((?:\|[^\n]*\n)+)"
        for name, layer, table in re.findall(form, page.read_text(encoding="utf-8")):
            found = pd.read_csv(ROOT / name)
            means = found[found.layer.isin([layer, "-"])].groupby("method").mean(numeric_only=True).dropna(axis=1) * 100
            metrics = [c for c in means.columns if c not in ("class_index", "probability")]
            for line in table.splitlines()[2:]:
                label, *cells = (cell.strip() for cell in line.strip("|").split("|"))
                figures = [float(cell.split(" ")[0]) for cell in cells]
                assert figures == pytest.approx(means.loc[label, metrics].tolist(), abs=0.0501), (page, label)
                compared += len(figures)
    assert compared > 200
