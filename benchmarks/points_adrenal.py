"""Shapes in medicine: adrenal glands, as volumes and as points on their surface, aligned and turned.

    python benchmarks/points_adrenal.py --json adrenal.json

AdrenalMNIST3D (Yang et al., arXiv 2110.14795): masks of 64³ voxels, all in the frame of the body, normal or with a
mass; 1,188 to train on and the 98 of its validation split to be judged by. Networks see them aligned, unless a method
says ``turned``: then every shape is turned anew whenever it is seen. They are judged by the area under the ROC curve of
the held-out shapes as they are, and of the same shapes each turned at random, the mean over ``--repeats`` such turns.
What a learned degree breaks and these shapes, aligned, do not need broken is undone, as by the commands: so far the
learned networks have seen them.

- ``volumes``: mean-pooled to 16³; the residual network of ``parteq histo train`` with ``PartialConv3d`` on the
  octahedral group, the 24 turns of a cube. Turned by these, which is exact, and in any way, at 64³ with linear
  interpolation, which is not.
- ``surfaces``: ``parteq points train --data surfaces:FILE`` on 256 points, with SO(3). Turned in any way, exactly.

``learned`` starts from all of the group, ``full`` keeps it, ``plain`` has none of it and as many weights as ``full``. A
row is written when it is done; with the same ``--json`` those that are there are not trained again. The file is
``adrenal3d_64.npz`` in ``$PARTEQ_DATA`` (or ``../shared/data``).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import product
from pathlib import Path

import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional

from parteq.apps.histo.appearance import as_unit
from parteq.apps.histo.models import Classifier, create_model
from parteq.apps.points.metrics import classification_scores
from parteq.core.measure import LayerDegree, measure_degree, summarize_degree
from parteq.core.training import Batch, Settings, uniform
from parteq.datasets.npz import read_npz
from parteq.datasets.points.rotations import draw_rotations
from parteq.pipelines.benchmarks import (
    Rows,
    benchmark_parser,
    data_folder,
    mean_and_spread,
    run_benchmark,
    train_classifier,
)
from parteq.pipelines.degree import Degree
from parteq.pipelines.points.evaluate import Evaluate
from parteq.pipelines.points.train import Train

METHODS = {
    "learned": ("learned", False),
    "full": ("full", False),
    "plain": ("none", False),
    "plain, turned": ("none", True),
    "learned, turned": ("learned", True),
}
EDGE = 16
EPOCHS = {"volumes": 6, "surfaces": 30}
VOLUME_WIDTH, POINTS = 0.5, 256
CUBE = torch.from_numpy(Rotation.create_group("O").as_matrix()).float()


@dataclass
class Result:
    """One training: areas under the ROC curve, the degree in words, and M's singular values of each density."""

    shape: str
    method: str
    seed: int
    epochs: int
    parameters: int
    seconds: float
    aligned: float
    turned: float
    cube_turned: float | None = None
    summary: str = ""
    broken_energy: float = 0.0
    singular_values: list[list[float]] = field(default_factory=list)


def data_file() -> Path:
    """Return where the data are."""
    return data_folder() / "adrenal3d_64.npz"


@cache
def masks(split: str) -> tuple[Tensor, Tensor]:
    """Return volumes (n, 1, 64, 64, 64), bytes, and labels."""
    return read_npz(data_file(), split).tensors()


def pooled(volumes: Tensor) -> Tensor:
    """Return volumes in 0…1 with edges of ``EDGE`` voxels."""
    factor = volumes.shape[-1] // EDGE
    return torch.cat([functional.avg_pool3d(as_unit(part), factor) for part in volumes.split(64)])


def turned(volumes: Tensor, rotations: Tensor) -> Tensor:
    """Turn each volume about its middle; what leaves the volume is lost."""
    grid = functional.affine_grid(functional.pad(rotations, (0, 1)), list(volumes.shape), align_corners=False)
    return functional.grid_sample(as_unit(volumes), grid, align_corners=False)


@cache
def held_out(repeats: int) -> dict[str, list[Tensor]]:
    """Return the held-out volumes, pooled: aligned, and turned, in the same ways for all networks."""
    volumes, _ = masks("val")
    generator = torch.Generator().manual_seed(0)
    aligned, found = pooled(volumes), {"aligned": [pooled(volumes)], "cube_turned": [], "turned": []}
    for _ in range(repeats):
        cube = CUBE[torch.randint(len(CUBE), (len(volumes),), generator=generator)]
        found["cube_turned"].append(turned(aligned, cube))
        found["turned"].append(pooled(turned(volumes, draw_rotations("so3", len(volumes), generator))))
    return found


def turn_by_cube(batch: Batch, keys: Tensor) -> Batch:
    """Turn each volume of a batch by one of the 24 turns of a cube."""
    volumes, labels = batch
    return turned(volumes, CUBE[(uniform(keys, 1)[:, 0] * len(CUBE)).long()]), labels


def area(model: Classifier, volumes: Tensor, labels: Tensor) -> float:
    """Return the area under the ROC curve."""
    with torch.inference_mode():
        logits = torch.cat([model(part) for part in volumes.split(49)])
    return classification_scores([logits.numpy()], labels.numpy())["auc"]


def train_volumes(method: str, seed: int, repeats: int, scratch: Path) -> Result:
    """Train and judge a network of volumes."""
    degree, turning = METHODS[method]
    raw, labels = masks("train")
    volumes = pooled(raw)
    began = time.perf_counter()
    torch.manual_seed(seed)
    group = "none" if degree == "none" else "octahedral"
    model = create_model(
        num_classes=2, in_chans=1, group=group, degree=degree, width=VOLUME_WIDTH, spatial_dims=len(volumes.shape[2:])
    )
    model.set_normalization([float(volumes.mean())], [float(volumes.std())])
    settings = Settings(epochs=EPOCHS["volumes"], seed=seed)
    others, truth = masks("val")
    validation = (pooled(others), truth)
    train_classifier(model, (volumes, labels), validation, settings, turn_by_cube if turning else None)
    seconds = time.perf_counter() - began
    judged = {
        name: statistics.mean(area(model, part, truth) for part in parts) for name, parts in held_out(repeats).items()
    }
    weights = sum(parameter.numel() for parameter in model.parameters())
    result = Result("volumes", method, seed, settings.epochs, weights, seconds, **judged)
    if degree == "learned":
        degrees: list[LayerDegree] = measure_degree(model)
        result.summary = summarize_degree(degrees)
        result.broken_energy = max(layer.broken_energy for layer in degrees)
        result.singular_values = [layer.singular_values for layer in degrees]
    return result


def train_surfaces(method: str, seed: int, repeats: int, scratch: Path) -> Result:
    """Train and judge a network of points, by the commands."""
    degree, turning = METHODS[method]
    data, run = f"surfaces:{data_file()}", scratch / f"{method}-{seed}".replace(" ", "")
    trained = Train(
        data=data,
        out=run,
        group="none" if degree == "none" else "so3",
        degree=degree,
        augment_rotation="so3" if turning else "none",
        points=POINTS,
        epochs=EPOCHS["surfaces"],
        seed=seed,
        quiet=True,
    ).run()
    judge = partial(Evaluate, run_path=run, data=data, split="val", seed=seed, quiet=True)
    result = Result(
        "surfaces",
        method,
        seed,
        EPOCHS["surfaces"],
        trained["parameters"],
        trained["seconds"],
        judge(rotate="none").run()["auc"],
        judge(rotate="so3", repeats=repeats).run()["auc"],
    )
    if degree == "learned":
        found = Degree(run_path=run, quiet=True).run()
        result.summary = found["summary"]
        result.broken_energy = max(layer["broken_energy"] for layer in found["layers"])
        result.singular_values = [found["layers"][0]["singular_values"]]  # all layers share λ
    return result


TRAININGS = {"volumes": train_volumes, "surfaces": train_surfaces}


def lines(results: list[Result]) -> Iterator[str]:
    """Return the lines of the table."""
    yield "| shape | method | weights | aligned | turned in any way | turned by the cube | broken energy | σ of M |"
    yield "|" + " --- |" * 8
    for shape, method in dict.fromkeys((result.shape, result.method) for result in results):
        rows = [result for result in results if (result.shape, result.method) == (shape, method)]
        cells = [shape, method, f"{rows[0].parameters:,}"]
        for values in ([r.aligned for r in rows], [r.turned for r in rows], [r.cube_turned for r in rows]):
            known = [value for value in values if value is not None]
            cells.append(mean_and_spread(known) if known else "")
        if rows[0].singular_values:
            cells.append(f"{max(r.broken_energy for r in rows):.1%}")
            most = [max(r.singular_values, key=sum) for r in rows]  # of the density that broke most
            cells.append("; ".join(", ".join(f"{value:.2f}" for value in values) for values in most))
        yield "| " + " | ".join(cells + [""] * (8 - len(cells))) + " |"
    for result in results:
        if result.summary:
            yield f"{result.shape}, {result.method}, seed {result.seed}: {result.summary}"


def main() -> None:
    """Train what is not in the file yet; print the table."""
    parser = benchmark_parser(__doc__, seeds=2, threads=1)
    parser.add_argument("--shapes", nargs="+", choices=TRAININGS, default=list(TRAININGS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--repeats", type=int, default=5, help="turns of each held-out shape")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = Rows(Result, options.json, repeats=options.repeats)
    with tempfile.TemporaryDirectory() as scratch:
        for shape, seed, method in product(options.shapes, options.seeds, options.methods):
            if not results.has(shape=shape, method=method, seed=seed):
                results.add(TRAININGS[shape](method, seed, options.repeats, Path(scratch)))
    results.sort(key=lambda r: (list(TRAININGS).index(r.shape), list(METHODS).index(r.method), r.seed))
    print("\n".join(lines(results)))


if __name__ == "__main__":
    run_benchmark(main)
