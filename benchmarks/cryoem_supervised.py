"""Poses of held-out particles, learned from particles whose poses are known: equivariant and plain encoders.

    python benchmarks/cryoem_supervised.py --json supervised.json

Simulated particles of the 70S ribosome at 32 pixels, SNR 2 (signal variance over noise variance, all pixels), uniform
poses, no CTF: 1,600 to learn from, 400 others to measure on, of another seed. All encoders have about as many weights,
and each is given every augmentation: ``none``, turns by quarters and mirrors (``d4``), which changes nothing for the
encoder d4, and other ``poses``, see `parteq.apps.cryoem.augment`. ``epochs`` compares encoders after as many passes
over the images, ``time`` gives the plain one, whose passes take less time, as many more as fill the time.

Told are the median errors of what the encoder proposes and of what it is refined to, and the share of the former
within 15°. Results are kept as each is done, and taken up from the same ``--json`` when run again. The map is
``clean70SRibosome_vol_65p.mrc`` in ``$PARTEQ_DATA/cryoem`` (or ``../shared/data/cryoem``).
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from parteq.pipelines.benchmarks import Rows, benchmark_parser, data_folder, run_benchmark
from parteq.pipelines.cli import main as parteq
from parteq.pipelines.cryoem.train import TrainPoses
from parteq.pipelines.files import read_json
from parteq.pipelines.run import Run

METHODS = {
    "d4": ("d4", "none"),
    "d4 + poses": ("d4", "poses"),
    "so2 + poses": ("so2", "poses"),
    "o2 + poses": ("o2", "poses"),
    "cnn": ("cnn", "none"),
    "cnn + d4": ("cnn", "d4"),
    "cnn + poses": ("cnn", "poses"),
}
"""Encoder and augmentation of each."""
PLAIN_PASSES = 2.2
"""How many times as many passes a plain encoder makes in the time that d4 takes."""


@dataclass
class Result:
    """One training."""

    method: str
    cost: str
    seed: int
    epochs: int
    weights: int
    cpu_seconds: float
    median_deg: float
    fraction_below_15deg: float
    refined_median_deg: float


def simulate(out: Path, n: int, seed: int, data: Path) -> Path:
    """Writes particles, and returns their STAR file."""
    words = ["cryoem", "simulate", "--volume", data / "clean70SRibosome_vol_65p.mrc", "--box", 32, "--pixel-size", 10]
    words += ["--n", n, "--snr", 2, "--shift", 0, "--ctf", "none", "--seed", seed, "--out", out, "--quiet"]
    if parteq([str(word) for word in words]):
        raise SystemExit("the simulation failed")
    return out / "particles.star"


def errors(folder: Path, run: Path, particles: Path, *options: str) -> dict[str, Any]:
    """What `estimate` and `evaluate` say of particles that the run has not seen."""
    poses, found = folder / "poses.star", folder / "errors.json"
    estimate = ["estimate", "--run", str(run), "--particles", str(particles), "--out", str(poses), *options]
    evaluate = ["evaluate", "--estimate", str(poses), "--truth", str(particles), "--json", str(found)]
    if any(parteq(["cryoem", *words, "--quiet"]) for words in (estimate, evaluate)):
        raise SystemExit("the poses could not be measured")
    return read_json(found)


def train(folder: Path, method: str, cost: str, seed: int, epochs: int, data: Path) -> Result:
    """Trains once, and measures."""
    encoder, augment = METHODS[method]
    passes = round(PLAIN_PASSES * epochs) if cost == "time" and encoder == "cnn" else epochs
    particles = simulate(folder / "train", 1600, 100 + seed, data)
    held_out = simulate(folder / "held_out", 400, 200 + seed, data)
    run = folder / "run"
    common: dict[str, Any] = {"mode": "supervised", "encoder": encoder, "augment": augment, "seed": seed, "quiet": True}
    found = TrainPoses(particles=particles, val=str(held_out), out=run, epochs=passes, **common).run()
    proposed, refined = errors(folder, run, held_out), errors(folder, run, held_out, "--refine")
    return Result(
        method,
        cost,
        seed,
        passes,
        found["parameters"],
        Run.open(run).history()[-1]["cpu_seconds"],
        proposed["rotation_error_median_deg"],
        proposed["fraction_below_15deg"],
        refined["rotation_error_median_deg"],
    )


def table(results: list[Result]) -> str:
    """A row for each method and cost."""
    heads = "method | equal | weights | passes | CPU s | encoder, median ° | within 15° | refined, median °"
    lines = [f"| {heads} |", "|" + "---|" * 8]
    for key in dict.fromkeys((r.method, r.cost) for r in results):
        rows = [r for r in results if (r.method, r.cost) == key]
        cells = [
            *key,
            f"{rows[0].weights:,}",
            str(rows[0].epochs),
            f"{statistics.mean(r.cpu_seconds for r in rows):.0f}",
            ", ".join(f"{r.median_deg:.1f}" for r in rows),
            ", ".join(f"{r.fraction_below_15deg:.2f}" for r in rows),
            ", ".join(f"{r.refined_median_deg:.2f}" for r in rows),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Runs the comparison."""
    parser = benchmark_parser(__doc__, seeds=2, threads=1)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--cost", nargs="+", choices=("epochs", "time"), default=["epochs", "time"])
    parser.add_argument("--epochs", type=int, default=44)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = data_folder() / "cryoem"
    results = Rows(Result, options.json, epochs=options.epochs)
    for seed in options.seeds:
        for method in options.methods:
            # The others set the time.
            for cost in options.cost if METHODS[method][0] == "cnn" else ["epochs and time"]:
                if not results.has(method=method, cost=cost, seed=seed):
                    with tempfile.TemporaryDirectory() as folder:
                        results.add(train(Path(folder), method, cost, seed, options.epochs, data))
    print(table(results))


if __name__ == "__main__":
    run_benchmark(main)
