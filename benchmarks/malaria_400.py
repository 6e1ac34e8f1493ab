"""Malaria cells of held-out patients, 400 training images: all of D4, none of it, and as much as the data want.

    python benchmarks/malaria_400.py --json malaria.json

Needs ``histo/malaria_cells.npz`` in ``$PARTEQ_DATA`` (or ``../shared/data``). Patients are split at random for each
seed; nothing of a held-out patient is trained on. ``d4`` and ``plain`` have about 11,000 weights each (their widths are
searched for); ``learned`` has the channels of ``d4`` and more weights, those its kernels need to break the symmetry.
``plain + d4 augmentation`` turns and mirrors its training images. All train alike, with the defaults of
``parteq histo train``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from parteq.apps.histo import task
from parteq.apps.histo.augment import AUGMENTATIONS
from parteq.apps.histo.models import create_model
from parteq.core.chain import degree_penalty
from parteq.core.measure import measure_degree, summarize_degree
from parteq.core.training import Settings, fit
from parteq.datasets.npz import read_npz
from parteq.datasets.splits import check_no_leakage, grouped_split, stratified_subset

PARAMETERS = 11_000
METHODS = {
    "plain": ({"group": "none", "degree": "full"}, "none"),
    "plain + d4 augmentation": ({"group": "none", "degree": "full"}, "d4"),
    "d4": ({"group": "d4", "degree": "full"}, "none"),
    "learned": ({"group": "d4", "degree": "learned"}, "none"),
}


def parameters(model: nn.Module) -> int:
    """Return the number of weights."""
    return sum(parameter.numel() for parameter in model.parameters())


def matched_width(group: str) -> float:
    """Return the width at which the fully equivariant network has closest to 11,000 weights."""
    widths = np.arange(0.5, 1.5, 0.02)
    counts = [parameters(create_model(num_classes=2, group=group, degree="full", width=width)) for width in widths]
    return float(widths[int(np.argmin(np.abs(np.array(counts) - PARAMETERS)))])


def main() -> None:
    """Train, evaluate, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=400, help="training images")
    parser.add_argument("--test", type=int, default=2000, help="held-out images")
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = Path(os.environ.get("PARTEQ_DATA", Path(__file__).parents[2] / "shared" / "data"))
    cells = read_npz(folder / "histo" / "malaria_cells.npz")
    widths = {group: matched_width(group) for group in ("none", "d4")}
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        train, held_out = grouped_split(cells.labels, cells.groups, 0.3, seed)
        training, test = cells.subset(train), cells.subset(held_out)
        check_no_leakage(training.groups, test.groups)
        training = training.subset(stratified_subset(training.labels, options.limit, seed))
        test = test.subset(stratified_subset(test.labels, options.test, seed))
        for method in options.methods:
            config, augmentation = METHODS[method]
            start = time.perf_counter()
            torch.manual_seed(seed)
            model: Any = create_model(num_classes=2, width=widths[config["group"]], **config)
            model.set_normalization(*task.normalization(training))
            settings = Settings(epochs=options.epochs, seed=seed)
            penalty = partial(degree_penalty, samples=len(training))
            augment = AUGMENTATIONS[augmentation]
            fit(model, task.loss, task.samples(training), settings, penalty=penalty, augment=augment, progress=False)
            scores = task.evaluate(model, test, torch.device("cpu"), group="d4", seed=seed)
            row = {"method": method, "seed": seed, "parameters": parameters(model), **scores}
            row |= {"summary": summarize_degree(measure_degree(model)), "seconds": time.perf_counter() - start}
            rows.append(row)
            print(json.dumps(row), flush=True)
            if options.json:
                options.json.write_text(json.dumps({"schema": 1, "limit": options.limit, "rows": rows}, indent=1))
    print(f"{'method':24} {'weights':>8} {'AUC':>15} {'accuracy':>15} {'orbit variance':>15}")
    for method in options.methods:
        mine = [row for row in rows if row["method"] == method]
        columns = []
        for name in ("auc", "accuracy"):
            values = [row[name] for row in mine]
            columns.append(f"{statistics.mean(values):.4f} ± {statistics.stdev(values) if len(values) > 1 else 0:.4f}")
        variance = statistics.mean(row["orbit_variance"] for row in mine)
        print(f"{method:24} {mine[0]['parameters']:8} {columns[0]:>15} {columns[1]:>15} {variance:15.1e}")


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
