"""Does an equivariant encoder find poses where a plain one does not? From images alone, at the same cost.

    python benchmarks/cryoem_abinitio.py --json abinitio.json

Simulated particles of the 70S ribosome at 32 pixels, SNR 2 (signal variance over noise variance, all pixels), uniform
poses; nothing of the truth enters but to measure the error. All encoders have about as many weights. ``epochs``
compares them after as many passes over the images (``--epochs``), ``time`` gives the plain ones, which take less time a
pass, as many more as fill the time. An attempt converges if the median rotation error falls below 20°.

``--sweep`` is about data that an exactly equivariant encoder is wrong for: astigmatic images whose CTF the encoder is
not told (``astigmatism``), a preferred view (``preferred``), a fivefold particle (``c5``, which is told: poses count up
to its symmetry).

The map is ``clean70SRibosome_vol_65p.mrc`` in ``$PARTEQ_DATA/cryoem`` (or ``../shared/data/cryoem``).
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import beta

from parteq.apps.cryoem.alignment import align
from parteq.apps.cryoem.reconstruction import Reconstruction
from parteq.apps.cryoem.resolution import fourier_shell_correlation, resolution_at
from parteq.datasets.cryoem.mrc import read_volume
from parteq.datasets.cryoem.particles import open_particles
from parteq.pipelines.benchmarks import Rows, benchmark_parser, data_folder, run_benchmark
from parteq.pipelines.cli import main as parteq
from parteq.pipelines.cryoem.train import TrainPoses
from parteq.pipelines.run import Run

METHODS: dict[str, dict[str, Any]] = {
    "cnn": {"encoder": "cnn", "loss": "l2"},
    "cnn + symmetric": {"encoder": "cnn", "loss": "symmetric"},
    "cnn + augmentation": {"encoder": "cnn", "loss": "l2", "augment": "d4"},
    "d4": {"encoder": "d4", "loss": "l2"},
    "d4 partial": {"encoder": "d4", "loss": "l2", "degree": "learned"},
    "o2": {"encoder": "o2", "loss": "l2"},
    "cnn + multihead": {"encoder": "cnn", "loss": "multihead"},
    "d4 + multihead": {"encoder": "d4", "loss": "multihead"},
}
PLAIN_PASSES = 2.5
"""How many times as many passes a plain encoder makes in the same time."""
CONVERGED_DEGREES = 20.0
SWEEPS: dict[str, list[str]] = {
    "plain": ["--ctf", "none"],
    "astigmatism": ["--defocus", "1.0-2.5", "--astigmatism", "8000"],
    "preferred": ["--ctf", "none", "--poses", "preferred"],
    "c5": ["--ctf", "none"],
}
SYMMETRIES = {"c5": "C5"}


@dataclass
class Result:
    """One training."""

    data: str
    method: str
    cost: str
    seed: int
    epochs: int
    cpu_seconds: float
    median_deg: float
    cpu_seconds_to_20_deg: float | None
    refined_median_deg: float
    resolution_angstrom: float


def simulate(folder: Path, sweep: str, seed: int, n: int, data: Path) -> Path:
    """Writes particles, and returns their folder."""
    out = folder / f"{sweep}-{seed}"
    volume = ["--volume", data / "clean70SRibosome_vol_65p.mrc", "--box", 32, "--pixel-size", 10]
    if sweep == "c5":
        volume = ["--volume", data / "3wip.pdb", "--align", "--box", 32, "--pixel-size", 4]
    words = ["cryoem", "simulate", *volume, "--n", n, "--snr", 2, "--shift", 0, *SWEEPS[sweep]]
    if parteq([str(word) for word in [*words, "--seed", 100 + seed, "--out", out, "--quiet"]]):
        raise SystemExit("the simulation failed")
    if sweep == "astigmatism":
        # The encoder is not told.
        particles = open_particles(out / "particles.star")
        ctf = [name for name in particles.table if "Defocus" in name]
        particles.with_table(particles.table.drop(columns=ctf)).write(out / "particles.star")
    return out


def train(folder: Path, simulated: Path, sweep: str, method: str, cost: str, seed: int, epochs: int) -> Result:
    """Trains once, and measures."""
    if cost == "time" and METHODS[method]["encoder"] == "cnn":
        epochs = round(PLAIN_PASSES * epochs)
    out = folder / f"{sweep}-{method}-{cost}-{seed}".replace(" ", "")
    particles = simulated / "particles.star"
    symmetry = SYMMETRIES.get(sweep, "C1")
    options: dict[str, Any] = {"seed": seed, "epochs": epochs, "symmetry": symmetry, "quiet": True, **METHODS[method]}
    found = TrainPoses(particles=particles, out=out, **options).run()
    history = Run.open(out).history()
    below = [r["cpu_seconds"] for r in history if r["rotation_error_median_deg"] < CONVERGED_DEGREES]
    return Result(
        sweep,
        method,
        cost,
        seed,
        epochs,
        history[-1]["cpu_seconds"],
        history[-1]["rotation_error_median_deg"],
        below[0] if below else None,
        found["rotation_error_median_deg"],
        map_resolution(out, simulated, symmetry),
    )


def map_resolution(run: Path, simulated: Path, symmetry: str) -> float:
    """Where the map that the refined poses make of the images, in the true frame, agrees with the true one to 0.5."""
    estimated, true = open_particles(run / "poses.star"), open_particles(simulated / "particles.star")
    both = estimated.rotations(), true.rotations()
    alignments = [align(*both, symmetry=symmetry, mirrored=hand) for hand in (False, True)]
    best = min(alignments, key=lambda alignment: alignment.distance)
    rotations = torch.from_numpy(best.rotations_in_true_frame(estimated.rotations())).float()
    truth, pixel_size = read_volume(simulated / "volume.mrc")
    reconstruction = Reconstruction(len(truth), symmetry=symmetry)
    images = torch.from_numpy(true.images().read(slice(None)))
    reconstruction.insert(images, rotations, torch.zeros(len(images), 2))
    curve = fourier_shell_correlation(reconstruction.volume().numpy(), truth)
    return resolution_at(curve, 0.5, len(truth) * pixel_size)


def interval(successes: int, count: int) -> tuple[float, float]:
    """The exact 95 % interval of a rate (Clopper and Pearson)."""
    low = beta.ppf(0.025, successes, count - successes + 1) if successes else 0.0
    high = beta.ppf(0.975, successes + 1, count - successes) if successes < count else 1.0
    return float(low), float(high)


def table(results: list[Result]) -> str:
    """A row for each data set, method and cost."""
    heads = "data | method | equal | converged | 95 % | CPU s to 20° | median ° | refined ° | resolution Å"
    lines = [f"| {heads} |", "|" + "---|" * 9]
    for key in dict.fromkeys((r.data, r.method, r.cost) for r in results):
        rows = [r for r in results if (r.data, r.method, r.cost) == key]
        times = [r.cpu_seconds_to_20_deg for r in rows if r.cpu_seconds_to_20_deg is not None]
        low, high = interval(len(times), len(rows))
        middle = statistics.median
        cells = [
            *key,
            f"{len(times)} of {len(rows)}",
            f"{low:.2f}–{high:.2f}",
            f"{middle(times):.0f}" if times else "–",
            f"{middle(r.median_deg for r in rows):.1f} ({', '.join(f'{r.median_deg:.0f}' for r in rows)})",
            f"{middle(r.refined_median_deg for r in rows):.1f}",
            f"{middle(r.resolution_angstrom for r in rows):.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Runs the comparison."""
    parser = benchmark_parser(__doc__, seeds=5, threads=1)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--sweep", nargs="+", choices=SWEEPS, default=["plain"])
    parser.add_argument("--cost", nargs="+", choices=("epochs", "time"), default=["epochs", "time"])
    parser.add_argument("--n", type=int, default=2000, help="particles")
    parser.add_argument("--epochs", type=int, default=35)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = data_folder() / "cryoem"
    results = Rows(Result, options.json, n=options.n, epochs=options.epochs)
    with tempfile.TemporaryDirectory() as temporary:
        for seed in options.seeds:
            for sweep in options.sweep:
                simulated = simulate(Path(temporary), sweep, seed, options.n, data)
                for method in options.methods:
                    plain = METHODS[method]["encoder"] == "cnn"
                    # The others set the time.
                    for cost in options.cost if plain else ["epochs and time"]:
                        if not results.has(data=sweep, method=method, cost=cost, seed=seed):
                            folder = Path(temporary)
                            results.add(train(folder, simulated, sweep, method, cost, seed, options.epochs))
    print(table(results))


if __name__ == "__main__":
    run_benchmark(main)
