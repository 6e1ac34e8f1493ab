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
    """PNG of each layer's λ on the circle; else RUN/degree.png."""

    def run(self) -> dict[str, Any]:
        """Measures the kernels, prints a table, draws λ."""
        from parteq.core.measure import measure_degree, summarize_degree
        from parteq.pipelines import figures

        layers = measure_degree(self.checkpoint().model())
        out = self.out or self.run_path / "degree.png"
        with replacing(out) as temporary:
            temporary.write_bytes(figures.png(figures.densities(layers)))
        if not self.quiet:
            width = max((len(layer.name) for layer in layers), default=0)
            for layer in layers:
                print(
                    f"{layer.name:<{width}}  broken energy {layer.broken_energy:5.3f}  acts as {layer.nearest_subgroup}"
                )
        return {"summary": summarize_degree(layers), "out": str(out), "layers": [layer.to_dict() for layer in layers]}
