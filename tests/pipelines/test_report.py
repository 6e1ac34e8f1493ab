"""Reports hold all they show, and ask for nothing from elsewhere."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import pytest

from parteq.core.measure import LayerDegree
from parteq.pipelines import figures
from parteq.pipelines.report import Picture, Section, degree_section, scores_section, write_report

ANGLES = [0.0, 90.0, 180.0, 270.0]
LAYERS = [
    LayerDegree("stem", "C4", 0.0, 0.0, "C4", ANGLES, [1.0] * 4, [], [0.0] * 4, [], {"C4": 0.0, "C2": 0.0}),
    LayerDegree("head", "C4", 0.4, 0.2, "C2", ANGLES, [2.0, 0, 2, 0], [], [0, 0.8, 0, 0.8], [], {"C4": 0.4, "C2": 0.0}),
]


class Reader(HTMLParser):
    """Collects what a browser would load, and whether tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_report_is_one_file(tmp_path):
    sections = [
        Section("Text & tables", "1 < 2", "found", tables=[[{"a": 1, "b": 0.5}, {"a": None, "b": "x"}]], best=0),
        degree_section(LAYERS),
        scores_section({"n": 5, "accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": None, "nll": 1.0}),
    ]
    write_report(tmp_path / "report.html", "<title>", "$lead", sections)
    text = (tmp_path / "report.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert len(reader.sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in reader.sources)
    assert not re.search(r"https?:|url\(|@import|<script", text)
    assert 'name="viewport"' in text
    for words in ("&lt;title&gt;", "$lead", "1 &lt; 2", "Text &amp; tables", "<td>C2</td>", "0.400", "–"):
        assert words in text
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "degree.png", "degree_error.png"}
    embedded = base64.b64decode(reader.sources[0].partition(",")[2])
    assert embedded == (tmp_path / "degree.png").read_bytes()


def test_groups_without_a_circle_have_no_pictures():
    section = degree_section([LayerDegree("stem", "SO(3)", 0.1, 0.1, "SO(3)", broken_under={"SO(3)": 0.1})])
    assert section.pictures == []
    assert len(section.tables[0]) == 1
    assert degree_section([]).pictures == []


@pytest.mark.parametrize("angles", [4, 72])
@pytest.mark.parametrize("flips", [False, True])
def test_figures_of_finite_and_continuous_groups(angles, flips):
    grid = [360 * step / angles for step in range(angles)]
    values = [1.0 + 0.5 * (step % 2) for step in range(angles)]
    layer = LayerDegree("x", "G", 0.1, 0.1, "K", grid, values, values if flips else [], values, values if flips else [])
    for figure in (figures.densities([layer] * 7), figures.equivariance([layer] * 7)):
        assert figures.png(figure).startswith(b"\x89PNG")
    assert len(figures.equivariance([layer]).axes) == 1 + flips


def test_a_picture_is_kept_beside_the_report(tmp_path):
    picture = Picture("curve", figures.png(figures.learning_curve([{"epoch": 1, "loss": 1.0, "val_nll": 1.1}])), "a")
    write_report(tmp_path / "report.html", "t", "l", [Section("s", pictures=[picture])])
    assert (tmp_path / "curve.png").read_bytes() == picture.png
