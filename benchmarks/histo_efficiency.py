"""How many labels does symmetry save? AUC on held-out patients (slides, regions) against the number of training images.

    python benchmarks/histo_efficiency.py --json efficiency.json

Data, in ``$PARTEQ_DATA`` (or ``../shared/data``): ``malaria`` cells by patient, ``chula`` red cells by image, ``idc``
tiles by region of the slide. For each seed the groups are divided anew, and nothing of a held-out group is trained on.
All methods have the same epochs, batches and settings, those of ``parteq histo train``:

- ``plain``: a network without symmetry, with as many weights as ``d4``; and with D4 augmentation;
- ``plain wide``: as many multiply-accumulates as ``d4``, with D4 augmentation;
- ``d4``: all of D4; ``learned``: a degree learned in each layer, in which D4 has as many channels. What it breaks and
  further images (a quarter as many as it learns from, where there are) do not need broken is undone, as in ``train``.

``--augment`` adds the augmentation named (``stain``, ``turn``, …; see ``parteq histo train --help``) to every method.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from parteq.apps.histo import task
from parteq.apps.histo.augment import augmentation
from parteq.apps.histo.models import MODELS, create_model
from parteq.apps.histo.twins import count_macs, count_parameters, plain_twin
from parteq.core.chain import degree_penalty
from parteq.core.measure import measure_degree, summarize_degree
from parteq.core.pruning import ENOUGH, pruning
from parteq.core.training import Settings, fit
from parteq.datasets.images import ImageDataset, open_images
from parteq.datasets.splits import check_no_leakage, grouped_split, stratified_subset
from parteq.pipelines.benchmarks import Rows, benchmark_parser, data_folder, mean_and_spread, run_benchmark

DATA = {"malaria": "malaria_cells.npz", "chula": "chula_rbc.npz", "idc": "idc_14082"}
METHODS = ("plain", "plain + d4", "plain wide + d4", "d4", "learned")
SETTINGS = ("augment", "model", "width", "test", "epochs")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Row:
    """One training; scores are of the held-out images."""

    data: str
    n: int
    method: str
    seed: int
    parameters: int
    macs: int
    auc: float
    balanced_accuracy: float
    orbit_variance: float
    summary: str
    seconds: float


def configurations(options: argparse.Namespace, images: ImageDataset) -> dict[str, dict[str, Any]]:
    """Return the model of each method."""
    d4 = {
        "name": options.model,
        "num_classes": len(images.classes),
        "in_chans": images.channels,
        "group": "d4",
        "degree": "full",
        "width": options.width,
    }
    plain, wide = plain_twin(d4, "parameters"), plain_twin(d4, "macs", images.spatial)
    return dict(zip(METHODS, (plain, plain, wide, d4, d4 | {"degree": "learned"}), strict=True))


def run(
    options: argparse.Namespace,
    data: str,
    method: str,
    config: dict[str, Any],
    seed: int,
    training: ImageDataset,
    validation: ImageDataset | None,
    test: ImageDataset,
) -> Row:
    """Train and evaluate one network."""
    start = time.perf_counter()
    torch.manual_seed(seed)
    model = create_model(**config)
    model.set_normalization(*task.normalization(training))
    names = [*(["d4"] if "+ d4" in method else []), *([options.augment] if options.augment != "none" else [])]
    settings = Settings(seed=seed, epochs=options.epochs)
    prune = None
    if method == "learned" and validation is not None:
        prune = pruning(model, lambda: task.losses(model, validation, CPU), settings)
    fit(
        model,
        task.loss,
        task.samples(training),
        settings,
        after_epoch=prune,
        penalty=partial(degree_penalty, samples=len(training)),
        augment=augmentation(",".join(names) or "none", config["group"], config["degree"]),
        progress=False,
    )
    scores = task.evaluate(model, test, CPU, group="d4", seed=seed)
    chosen = {name: float(scores[name] or 0) for name in ("auc", "balanced_accuracy", "orbit_variance")}
    summary = summarize_degree(measure_degree(model))
    sizes = {"parameters": count_parameters(model), "macs": count_macs(model, training.spatial)}
    seconds = time.perf_counter() - start
    return Row(data, len(training), method, seed, summary=summary, seconds=seconds, **chosen, **sizes)


def split(images: ImageDataset, count: int, seed: int) -> tuple[ImageDataset, ImageDataset | None]:
    """Return so many images, each class its share, and the others if there are any."""
    if count >= len(images):
        return images, None
    chosen = stratified_subset(images.labels, count, seed)
    return images.subset(chosen), images.subset(np.setdiff1d(np.arange(len(images)), chosen))


def table(rows: list[Row]) -> str:
    """Return the results as a table, seeds gathered into mean ± standard deviation."""
    lines = [f"{'data':8} {'n':>6} {'method':16} {'weights':>8} {'MMAC':>6} {'AUC':>19} {'balanced accuracy':>19}"]
    for key in dict.fromkeys((row.data, row.n, row.method) for row in rows):
        mine = [row for row in rows if (row.data, row.n, row.method) == key]
        columns = []
        for name in ("auc", "balanced_accuracy"):
            found = [float(getattr(row, name)) for row in mine]
            columns.append(mean_and_spread(found, ".4f"))
        sizes = f"{mine[0].parameters:8} {mine[0].macs / 1e6:6.2f}"
        lines.append(f"{key[0]:8} {key[1]:6} {key[2]:16} {sizes} {columns[0]:>19} {columns[1]:>19}")
    return "\n".join(lines)


def main() -> None:
    """Train, evaluate, print the table."""
    parser = benchmark_parser(__doc__, seeds=5, threads=2)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--n", type=int, nargs="+", default=[100, 400, 1600, 0], help="training images; 0 for all")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--augment", default="none", help="added to every method")
    parser.add_argument("--model", choices=MODELS, default="resnet")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--test", type=int, default=2000, help="held-out images at most")
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = data_folder() / "histo"
    rows = Rows(Row, options.json, **{name: getattr(options, name) for name in SETTINGS})
    for data in options.data:
        images = open_images(str(folder / DATA[data]))
        models = configurations(options, images)
        for seed in options.seeds:
            train, held_out = grouped_split(images.labels, images.groups, 0.3, seed)
            pool, test = images.subset(train), images.subset(held_out)
            check_no_leakage(pool.groups, test.groups)
            if len(test) > options.test:
                test = test.subset(stratified_subset(test.labels, options.test, seed))
            for count in sorted({min(n or len(pool), len(pool)) for n in options.n}):
                training, others = split(pool, count, seed)
                validation = others and split(others, min(count // 4, ENOUGH), seed)[0]
                for method in options.methods:
                    if not rows.has(data=data, n=count, method=method, seed=seed):
                        rows.add(run(options, data, method, models[method], seed, training, validation, test))
    print(table(rows))


if __name__ == "__main__":
    run_benchmark(main)
