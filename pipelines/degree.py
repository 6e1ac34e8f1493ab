"""``parteq degree``: how much symmetry each layer of a trained network kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parteq.datasets.errors import DataError
from parteq.pipelines.command import File, RunCommand
from parteq.pipelines.files import replacing

if TYPE_CHECKING:
    from parteq.core.measure import LayerDegree

__all__ = ["Degree"]

_TILTS = (0, 45, 90, 135, 180)  # degrees, of those that are printed


@dataclass(kw_only=True)
class Degree(RunCommand):
    """Measure how much symmetry each layer of a trained network kept."""

    example: ClassVar[str] = "parteq degree --run RUN --json degree.json"

    out: File = None
    """PNG of each layer's λ, on the circle or against tilt; else RUN/degree.png."""

    def run(self) -> dict[str, Any]:
        """Measures the kernels, prints a table, draws λ where there is an angle to draw it against."""
        from parteq.core.measure import measure_degree, summarize_degree
        from parteq.pipelines import figures

        model = self.checkpoint().model()
        layers = measure_degree(model)
        figure = None
        if any(layer.tilt_deg for layer in layers):
            from parteq.pipelines.points.pictures import densities_against_tilt

            figure = densities_against_tilt(model, layers)
        elif any(layer.angles_deg for layer in layers):
            figure = figures.densities(layers)
        elif self.out is not None:
            raise DataError(self.out, "there is nothing to draw: the group has no turns about an axis")
        out = self.out or self.run_path / "degree.png"
        if figure is not None:
            with replacing(out) as temporary:
                temporary.write_bytes(figures.png(figure))
        if not self.quiet:
            _print(layers)
        return {
            "summary": summarize_degree(layers),
            "out": None if figure is None else str(out),
            "layers": [layer.to_dict() for layer in layers],
        }


def _print(layers: Sequence[LayerDegree]) -> None:
    """A line a layer, and, where all layers have them in common, the axis and λ over its tilt."""
    width = max((len(layer.name) for layer in layers), default=0)
    for layer in layers:
        values = "".join(f" {abs(value):5.3f}" for value in layer.singular_values)
        print(
            f"{layer.name:<{width}}  broken energy {layer.broken_energy:5.3f}  "
            + (f"σ{values}  " if values else "")
            + f"acts as {layer.nearest_subgroup}"
        )
    # An axis means nothing where none is kept.
    axial = [
        layer
        for layer in layers
        if len(layer.angles_deg) > 1 or (layer.tilt_deg and " about " in layer.nearest_subgroup)
    ]
    for axis in dict.fromkeys(tuple(layer.axis) for layer in axial if layer.axis):
        print(f"axis ({', '.join(f'{round(value, 3) + 0.0:.3f}' for value in axis)})")
    profiles = dict.fromkeys(tuple(zip(layer.tilt_deg, layer.density_over_tilt, strict=True)) for layer in layers)
    for by_tilt in map(dict, filter(None, profiles)):
        told = ", ".join(f"{by_tilt[tilt]:.2f} at {tilt}°" for tilt in _TILTS)
        print(f"λ against uniform, by the tilt of the axis: {told}")
