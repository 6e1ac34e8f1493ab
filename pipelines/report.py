"""A report: one HTML file that holds everything it shows, pictures too, and asks for nothing from elsewhere.

A report is a list of sections. Those of any training are made here; an application adds its own.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from parteq.core.measure import LayerDegree, summarize_degree
from parteq.pipelines import figures
from parteq.pipelines.files import replacing, write_text
from parteq.pipelines.run import versions

__all__ = [
    "Picture",
    "Section",
    "calibration_section",
    "degree_section",
    "learning_section",
    "scores_section",
    "write_report",
]

Rows = Sequence[Mapping[str, Any]]

_MOST_COLUMNS = 6  # of a table of one row; else its numbers stand below one another


@dataclass(frozen=True)
class Picture:
    """A PNG picture, what is to be seen on it, and the name of the file that is kept beside the report."""

    name: str
    png: bytes
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        title: its heading.
        text: plain text below the heading.
        finding: one sentence to stand out.
        tables: each a list of rows, all with the same keys, which are the heads of the columns.
        best: number of the row of the first table that is set in bold.
        pictures: below.
    """

    title: str
    text: str = ""
    finding: str = ""
    tables: Sequence[Rows] = ()
    best: int | None = None
    pictures: Sequence[Picture] = ()


def write_report(path: Path, title: str, lead: str, sections: Sequence[Section]) -> None:
    """Writes a report, and its pictures beside it as PNG files.

    Args:
        path: of the HTML file.
        title: of the page.
        lead: what it is about, in a sentence or two.
        sections: its parts, in order.
    """
    template = Template(resources.files("parteq.pipelines").joinpath("report.html").read_text(encoding="utf-8"))
    names = versions()
    footer = ", ".join(f"{name} {names[name]}" for name in ("parteq", "torch", "escnn", "python"))
    body = "\n".join(_section(section) for section in sections)
    for picture in (picture for section in sections for picture in section.pictures):
        with replacing(path.with_name(f"{picture.name}.png")) as temporary:
            temporary.write_bytes(picture.png)
    write_text(path, template.substitute(title=escape(title), lead=escape(lead), sections=body, footer=escape(footer)))


def _section(section: Section) -> str:
    parts = [f"<section>\n<h2>{escape(section.title)}</h2>"]
    if section.finding:
        parts.append(f'<p class="finding">{escape(section.finding)}</p>')
    if section.text:
        parts.append(f"<p>{escape(section.text)}</p>")
    for number, rows in enumerate(section.tables):
        parts.append(_table(rows, None if number else section.best))
    for picture in section.pictures:
        source = f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
        caption = escape(picture.caption)
        parts.append(f'<figure><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>')
    return "\n".join([*parts, "</section>"])


def _table(rows: Rows, best: int | None) -> str:
    if len(rows) == 1 and len(rows[0]) > _MOST_COLUMNS:
        rows = [{"": name, "value": value} for name, value in rows[0].items()]
    heads = list(rows[0])
    numeric = [all(isinstance(row[head], int | float | None) for row in rows) for head in heads]
    marks = [' class="number"' if number else "" for number in numeric]
    lines = ["<tr>" + "".join(f"<th{m}>{escape(h)}</th>" for h, m in zip(heads, marks, strict=True)) + "</tr>"]
    for number, row in enumerate(rows):
        cells = "".join(f"<td{m}>{escape(_cell(row[h]))}</td>" for h, m in zip(heads, marks, strict=True))
        lines.append(f'<tr class="best">{cells}</tr>' if number == best else f"<tr>{cells}</tr>")
    return '<div class="scroll"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def scores_section(scores: Mapping[str, float | int | None]) -> Section:
    """Scores with their intervals, as `classification_metrics` gives them."""
    names = [name for name in scores if f"{name}_low" in scores]
    rows = [
        {"": name, "value": scores[name], "from": scores[f"{name}_low"], "to": scores[f"{name}_high"]} for name in names
    ]
    text = f"{scores['n']} held-out images; 95 % intervals by bootstrap over groups, where there are groups."
    return Section("Scores", text, tables=[rows])


def calibration_section(scores: Mapping[str, Any]) -> Section:
    """Whether the probabilities mean what they say, of the images that the temperature was fitted on."""
    caption = (
        "Of the images given a class with some confidence, the share that are of this class; areas are numbers of "
        "images. On the dashed line the confidence is right, below it too high."
    )
    picture = Picture("calibration", figures.png(figures.reliability(scores)), caption)
    text = "Logits divided by the temperature, which was fitted on these very images, give the diagram on the right."
    return Section("Calibration", text if scores["temperature"] is not None else "", pictures=[picture])


def learning_section(history: Sequence[dict[str, Any]], unit: str = "") -> Section:
    """The course of a training; the unit is that of a property, where one is predicted."""
    curve = figures.png(figures.learning_curve(history, unit))
    picture = Picture("learning_curve", curve, "Loss and scores after each epoch.")
    return Section("Training", pictures=[picture])


def degree_section(
    layers: Sequence[LayerDegree],
    title: str = "How much symmetry each layer kept",
    name: str = "degree",
    tilts: Picture | None = None,
) -> Section:
    """What was measured of each layer, in a sentence, a table and pictures, which bear the name.

    Args:
        layers: what was measured.
        title: of the section.
        name: of the pictures.
        tilts: a picture of λ against tilt, of layers that have no turns about an axis to draw λ against.
    """
    rows = [
        {
            "layer": layer.name,
            "acts as": layer.nearest_subgroup,
            "broken energy": layer.broken_energy,
            "KL (nats)": layer.kl_to_uniform_nats,
            **{f"σ{number}": value for number, value in zip("₁₂₃", layer.singular_values, strict=False)},
        }
        for layer in layers
    ]
    pictures = [] if tilts is None else [tilts]
    if any(layer.angles_deg for layer in layers):
        pictures = [
            Picture(
                name,
                figures.png(figures.densities(layers)),
                "λ on the circle, turned to peak at 0°, which is on top; the radius is √λ. On the dashed circle λ is "
                "uniform: full symmetry.",
            ),
            Picture(
                f"{name}_error",
                figures.png(figures.equivariance(layers)),
                "Measured on the trained kernels: the share by which a layer fails to commute with a turn. "
                "0 is exact equivariance, 1 is none.",
            ),
        ]
    return Section(title, finding=summarize_degree(layers), tables=[rows] if rows else [], pictures=pictures)
