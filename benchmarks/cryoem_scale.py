"""Does `parteq cryoem estimate` stream a stack that is larger than memory?

    python benchmarks/cryoem_scale.py --json scale.json

Makes a sparse stack of 200,000 images of 128 pixels (13 GB that take no room on the disk, most of them empty), and a
STAR file with poses and CTFs for it; trains a small encoder on a part; then estimates all poses in a process of its
own, and tells particles a second and the largest resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from parteq.datasets.cryoem.ctf import CTFParameters
from parteq.datasets.cryoem.mrc import header_bytes
from parteq.datasets.cryoem.particles import Particles
from parteq.datasets.cryoem.poses import uniform_rotations
from parteq.pipelines.benchmarks import run_benchmark

PIXEL_SIZE_IN_ANGSTROMS = 3.0


def sparse_stack(folder: Path, n: int, box: int, filled: int) -> Path:
    """Writes a stack whose first images are noise and whose others are holes, and its STAR file."""
    generator = np.random.default_rng(0)
    stack = folder / "particles.mrcs"
    with stack.open("wb") as file:
        header = header_bytes(
            (n, box, box), PIXEL_SIZE_IN_ANGSTROMS, is_volume=False, extremes=(-5.0, 5.0), mean=0.0, deviation=1.0
        )
        file.write(header)
        file.write(generator.normal(size=(filled, box, box)).astype("<f4").tobytes())
        file.truncate(len(header) + 4 * n * box**2)

    def spread(low: float, high: float) -> np.ndarray:
        return generator.uniform(low, high, n)

    ctf = CTFParameters(
        defocus_u_in_angstroms=spread(1e4, 2e4),
        defocus_v_in_angstroms=spread(1e4, 2e4),
        defocus_angle_in_degrees=spread(0, 180),
        voltage_in_kilovolts=np.full(n, 300.0),
        spherical_aberration_in_millimetres=np.full(n, 2.7),
        amplitude_contrast=np.full(n, 0.1),
        phase_shift_in_degrees=np.zeros(n),
    )
    names = [f"{number + 1:06d}@particles.mrcs" for number in range(n)]
    star = folder / "particles.star"
    rotations = uniform_rotations(n, generator)
    particles = Particles.create(rotations, np.zeros((n, 2)), ctf, PIXEL_SIZE_IN_ANGSTROMS, box, names, source=star)
    particles.write(star)
    particles.subset(slice(filled)).write(folder / "few.star")
    return star


def main() -> None:
    """Makes the stack, trains, estimates, and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--n", type=int, default=200_000)
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--filled", type=int, default=256)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        star = sparse_stack(folder, options.n, options.box, options.filled)
        parteq = [sys.executable, "-m", "parteq", "cryoem"]
        train = ["train", "--particles", folder / "few.star", "--mode", "supervised", "--epochs", "1", "--quiet"]
        subprocess.run([*parteq, *map(str, train), "--out", folder / "run"], check=True)
        began = time.monotonic()
        estimate = ["estimate", "--run", folder / "run", "--particles", star, "--out", folder / "poses.star"]
        process = subprocess.Popen([*parteq, *map(str, estimate), "--quiet"])
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        if status:
            raise SystemExit("estimate failed")
        result = {
            "n": options.n,
            "box": options.box,
            "stack_gigabytes": 4 * options.n * options.box**2 / 1e9,
            "seconds": seconds,
            "particles_per_second": options.n / seconds,
            "largest_resident_gibibytes": usage.ru_maxrss / 2**20,
        }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps({"schema": 1, **result}, indent=1))


if __name__ == "__main__":
    run_benchmark(main)
