"""Poses from images alone: parteq against the common lines of ASPIRE, on the same images.

    python benchmarks/cryoem_aspire.py --aspire ENVIRONMENT/bin/python --json aspire.json

ASPIRE (PyPI ``aspire``) wants an environment of its own, whose interpreter is named. Simulated particles of the 70S
ribosome at 32 pixels, SNR 2 (signal variance over noise variance, all pixels), uniform poses, no CTF, no shifts, of
which ASPIRE is told. Its ``CLSync3N`` looks at all pairs of images and at all triples, so that its time grows as the
square to the cube of their number. ``parteq`` is `parteq cryoem train` with its defaults, ``parteq, one pass`` the same
with ``--epochs 1``, which leaves the poses to expectation-maximisation. Seconds are of the processor, from images to
refined poses; ASPIRE's without its imports.

The map is ``clean70SRibosome_vol_65p.mrc`` in ``$PARTEQ_DATA/cryoem`` (or ``../shared/data/cryoem``).
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from parteq.apps.cryoem.pose_metrics import pose_errors
from parteq.datasets.cryoem.particles import open_particles
from parteq.pipelines.benchmarks import Rows, benchmark_parser, data_folder, run_benchmark
from parteq.pipelines.cli import main as parteq
from parteq.pipelines.cryoem.train import TrainPoses

METHODS = {"aspire": None, "parteq": 0, "parteq, one pass": 1}
"""Of parteq the passes of its encoder; 0 leaves them to the command."""
PIXEL_SIZE = 10.0

# Run by ASPIRE's interpreter: images, where to write rotations, pixel size.
COMMON_LINES = """
import logging, sys, time
import mrcfile, numpy as np
logging.disable(logging.CRITICAL)
from aspire.abinitio import CLSync3N
from aspire.source import ArrayImageSource
images = mrcfile.read(sys.argv[1]).astype(np.float32)
began = time.process_time()
found = CLSync3N(ArrayImageSource(images, pixel_size=float(sys.argv[3])), n_theta=72, max_shift=0.0, seed=0)
found.estimate_rotations()
print(time.process_time() - began)
# ASPIRE's rotations take the frame of an image to that of the particle.
np.save(sys.argv[2], np.asarray(found.rotations).transpose(0, 2, 1))
"""


@dataclass
class Result:
    """One way to poses."""

    method: str
    n: int
    seed: int
    cpu_seconds: float
    median_deg: float
    fraction_below_15deg: float


def find_poses(method: str, particles: Path, folder: Path, interpreter: Path, seed: int) -> tuple[float, np.ndarray]:
    """Returns seconds, and rotations [n, 3, 3]."""
    passes = METHODS[method]
    if passes is None:
        out = folder / "rotations.npy"
        words = [interpreter, "-c", COMMON_LINES, particles.with_suffix(".mrcs"), out, PIXEL_SIZE]
        # ASPIRE leaves its logs where it is started.
        told = subprocess.run(map(str, words), stdout=subprocess.PIPE, text=True, check=True, cwd=folder).stdout
        return float(told.split()[-1]), np.load(out).astype(float)
    run = folder / method.replace(" ", "")
    began = time.process_time()
    TrainPoses(particles=particles, out=run, seed=seed, epochs=passes, quiet=True).run()
    seconds = time.process_time() - began
    return seconds, open_particles(run / "poses.star").rotations()


def main() -> None:
    """Runs what is not in the file yet, and prints the table."""
    parser = benchmark_parser(__doc__, seeds=2, threads=1)
    parser.add_argument("--aspire", type=Path, required=True, help="interpreter of the environment of ASPIRE")
    parser.add_argument("--n", type=int, nargs="+", default=[100, 200], help="images")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    volume = data_folder() / "cryoem" / "clean70SRibosome_vol_65p.mrc"
    rows = Rows(Result, options.json)
    for n in options.n:
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                words = ["cryoem", "simulate", "--volume", volume, "--box", 32, "--pixel-size", PIXEL_SIZE, "--n", n]
                words += ["--snr", 2, "--shift", 0, "--ctf", "none", "--seed", 100 + seed, "--out", folder, "--quiet"]
                if parteq([str(word) for word in words]):
                    raise SystemExit("the simulation failed")
                particles = folder / "particles.star"
                truth = open_particles(particles).rotations()
                for method in METHODS:
                    if rows.has(method=method, n=n, seed=seed):
                        continue
                    seconds, rotations = find_poses(method, particles, folder, options.aspire.absolute(), seed)
                    errors = pose_errors(rotations, truth).rotation_in_degrees
                    rows.add(Result(method, n, seed, seconds, float(np.median(errors)), float((errors < 15).mean())))
    print(f"{'method':18} {'n':>5} {'seconds':>8} {'median °':>16} {'within 15°':>16}")
    for method, n in dict.fromkeys((row.method, row.n) for row in rows):
        mine = [row for row in rows if (row.method, row.n) == (method, n)]
        seconds = statistics.mean(row.cpu_seconds for row in mine)
        medians, near = (
            ", ".join(f"{getattr(row, key):.{digits}f}" for row in mine)
            for key, digits in (("median_deg", 1), ("fraction_below_15deg", 2))
        )
        print(f"{method:18} {n:5} {seconds:8.0f} {medians:>16} {near:>16}")


if __name__ == "__main__":
    run_benchmark(main)
