"""``parteq points evaluate``: scores of a trained network, also on turned clouds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import tyro

from parteq.datasets.errors import DataError
from parteq.pipelines.command import File
from parteq.pipelines.files import replacing
from parteq.pipelines.points.options import OnClouds

__all__ = ["Evaluate"]

_TILTS = 7  # points of the curve


@dataclass(kw_only=True)
class Evaluate(OnClouds):
    """Evaluate a trained network, on clouds as they are or turned."""

    example: ClassVar[str] = "parteq points evaluate --run RUN --data held_out.npz --rotate tilt:30 --json scores.json"

    rotate: Annotated[str, tyro.conf.arg(metavar="KIND")] = "none"
    """none, z, so3 or tilt:DEGREES."""
    repeats: int = 1
    """Turn every cloud so often."""
    plot: File = None
    """With tilt:DEGREES, draw the scores up to this tilt into this PNG file."""

    def run(self) -> dict[str, Any]:
        """Scores the network; with a plot also at smaller tilts."""
        from parteq.apps.points.task import answers, evaluate, samples_for
        from parteq.core.distributed import is_main, joined
        from parteq.datasets.points.clouds import available_splits
        from parteq.datasets.points.rotations import parse_rotation
        from parteq.pipelines import figures
        from parteq.pipelines.points.pictures import against_tilt
        from parteq.pipelines.provenance import warn_of_known
        from parteq.pipelines.run import Run

        if self.repeats < 1:
            raise DataError(f"--repeats {self.repeats}", "must be at least 1")
        parse_rotation(self.rotate)
        kind, _, angle = self.rotate.partition(":")
        if self.plot is not None and kind != "tilt":
            raise DataError("--plot", "draws scores against tilt: give --rotate tilt:DEGREES")
        with joined(self.torch_device()) as device:
            model, clouds, about = self.open()
            divided = bool(available_splits(self.data))
            warn_of_known(Run.open(self.run_path).data, clouds, clouds.families, divided=divided)
            target = about["target"]
            wanted, found = answers(clouds, None if target is None else target["name"])
            data = samples_for(model, clouds, about["spatial"][0], wanted)
            factor = 1.0 if found is None else found.factor

            scores = partial(evaluate, model, data, wanted, device, factor=factor, repeats=self.repeats, seed=self.seed)
            results = scores(rotate=self.rotate)
            if self.plot is not None and is_main():
                tilts = [float(angle) * step / (_TILTS - 1) for step in range(_TILTS)]
                name = "accuracy" if found is None else "mae"
                values = [*(scores(rotate=f"tilt:{tilt}")[name] for tilt in tilts[:-1]), results[name]]
                unit = "" if found is None else f" ({found.unit})"
                with replacing(self.plot) as temporary:
                    temporary.write_bytes(figures.png(against_tilt(tilts, values, name + unit)))
        return {
            "run": str(self.run_path),
            "data": self.data,
            "split": self.split if divided else None,
            "epoch": about["epoch"],
            "rotate": self.rotate,
            **results,
            **({} if found is None else {"mae_unit": found.unit}),
        }
