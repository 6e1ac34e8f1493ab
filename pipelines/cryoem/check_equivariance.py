"""``parteq cryoem check-equivariance``: does a turned image give a turned pose? Measured, end to end and by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from parteq.pipelines.command import File, Number, RunCommand

if TYPE_CHECKING:
    from parteq.apps.cryoem.inference import PoseInference

__all__ = ["CheckEquivariance"]


@dataclass(kw_only=True)
class CheckEquivariance(RunCommand):
    """Measure by how much the pose of a turned image differs from the turned pose."""

    example: ClassVar[str] = "parteq cryoem check-equivariance --run RUN --json equivariance.json"

    images: File = None
    """Stack or STAR file of images; else noise."""
    n: Number = None
    """How many images; 64 if not given."""

    def run(self) -> dict[str, Any]:
        """Measures in float64, of the encoder alone."""
        from parteq.apps.cryoem.equivariance import turn_errors
        from parteq.core.measure import measure_degree, summarize_degree

        model = cast("PoseInference", self.checkpoint("cryoem").model())
        layers = measure_degree(model.encoder)
        errors = turn_errors(model, self._images(model))
        if not self.quiet:
            width = max(len(layer.name) for layer in layers)
            for layer in layers:
                print(f"{layer.name:<{width}}  broken energy {layer.broken_energy:5.3f}  {layer.nearest_subgroup}")
        return {
            **errors,
            "summary": summarize_degree(layers),
            "layers": [layer.to_dict() for layer in layers],
        }

    def _images(self, model: PoseInference) -> Any:
        import torch

        from parteq.datasets.cryoem.particles import open_particles
        from parteq.datasets.cryoem.stack import ImageStack
        from parteq.datasets.errors import DataError

        if self.n is not None and self.n < 1:
            raise DataError(f"--n {self.n}", "must be at least 1")
        count, size = self.n or 64, model.config["size"]
        if self.images is None:
            generator = torch.Generator().manual_seed(self.seed)
            return torch.randn(count, size, size, generator=generator, dtype=torch.float64)
        if self.images.suffix in (".mrc", ".mrcs"):
            stack = ImageStack.open(self.images)
        else:
            stack = open_particles(self.images).images()
        if stack.box != size:
            raise DataError(self.images, f"has images of {stack.box} pixels, the run was trained on {size}")
        return torch.from_numpy(stack.read(slice(0, count))).double() / model.config["scale"]
