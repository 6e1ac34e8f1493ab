"""``parteq degree``: how much symmetry each layer of a trained network kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from parteq.pipelines.command import File, RunCommand
from parteq.pipelines.files import replacing

__all__ = ["Degree"]


@dataclass(kw_only=True)
class Degree(RunCommand):
    """Measure how much symmetry each layer of a trained network kept."""

    example: ClassVar[str] = "parteq degree --run RUN --json degree.json"

    out: File = None
    """PNG of each layer's λ, on the circle or against tilt; else RUN/degree.png."""

    def run(self) -> dict[str, Any]:
        """Measures the kernels, prints a table, draws λ."""
        from parteq.core.chain import Chain
        from parteq.core.measure import measure_degree, summarize_degree
        from parteq.pipelines import figures

        model = self.checkpoint().model()
        layers = measure_degree(model)
        tilting = [density for density in Chain.of(model).densities if density.group.name in ("SO(3)", "O(3)")]
        out = self.out or self.run_path / "degree.png"
        if tilting:
            from parteq.pipelines.points.pictures import densities_against_tilt

            figure = densities_against_tilt(tilting, layers[0].axis)
        else:
            figure = figures.densities(layers)
        with replacing(out) as temporary:
            temporary.write_bytes(figures.png(figure))
        if not self.quiet:
            width = max((len(layer.name) for layer in layers), default=0)
            for layer in layers:
                print(
                    f"{layer.name:<{width}}  broken energy {layer.broken_energy:5.3f}  acts as {layer.nearest_subgroup}"
                )
        return {"summary": summarize_degree(layers), "out": str(out), "layers": [layer.to_dict() for layer in layers]}
