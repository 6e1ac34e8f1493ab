"""``parteq histo heatmap``: the probability of a class all over a slide."""

from __future__ import annotations

import json
import math
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from parteq.datasets.errors import DataError
from parteq.pipelines.command import File, Number
from parteq.pipelines.files import write_text
from parteq.pipelines.histo.options import Micrometres, Out
from parteq.pipelines.histo.pictures import Picturing

if TYPE_CHECKING:
    from parteq.datasets.tiling import Tiling

__all__ = ["Heatmap"]


@dataclass(kw_only=True)
class Heatmap(Picturing):
    """Map the probability of a class over a slide, or over a folder of tiles."""

    example: ClassVar[str] = "parteq histo heatmap --run RUN --slide S.svs --mpp 1.0 --out heat.png"

    slide: Annotated[str, tyro.conf.arg(metavar="SLIDE")]
    """Slide, large image, or folder of tiles with x and y in their names."""
    out: Out = Path("heat.png")
    """PNG file to write; by default the last class is mapped."""
    geojson: File = None
    """Write the tiles here, for QuPath."""
    mpp: Micrometres = None
    """µm a pixel of the model; else as in training."""
    slide_mpp: Micrometres = None
    """µm a pixel of the slide; else as its file says."""
    stride: Number = None
    """Pixels from tile to tile; else tiles touch."""
    all_tiles: bool = False
    """Map tiles without tissue, too."""
    skip_bad: bool = False
    """Leave out tile files that cannot be used."""

    def run(self) -> dict[str, Any]:
        """Maps the slide; where tiles are in class folders, the AUC is among the results."""
        from parteq.apps.histo.heatmap import heat_map
        from parteq.datasets.images import available_splits
        from parteq.pipelines.figures import png
        from parteq.pipelines.overlays import class_colours, heat_figure
        from parteq.pipelines.provenance import warn_of_known, warn_of_known_slide
        from parteq.pipelines.run import Run

        began = time.monotonic()
        self._check()
        device, checkpoint = self.torch_device(), self.checkpoint("histo")
        about, model = checkpoint.about(), checkpoint.model()
        classes = about["classes"]
        chosen = self.number(classes)
        number = len(classes) - 1 if chosen is None else chosen
        tiling, seen = self._tiling(about), Run.open(self.run_path).data
        if self._is_slide():
            warn_of_known_slide(seen, Path(self.slide))
        else:
            warn_of_known(seen, tiling.tiles, tiling.tiles.groups, divided=bool(available_splits(self.slide)))
        temperature = about.get("temperature", 1.0)
        heat = heat_map(model, tiling, classes, device, temperature=temperature, progress=not self.quiet)
        auc = heat.auc(number)
        half, place = self._place()
        picture = png(heat_figure(heat, number, auc, half + place.name))
        if self.geojson is not None:
            write_text(self.geojson, json.dumps(heat.to_geojson(class_colours(len(classes))), allow_nan=False))
        self.write(picture)
        return {
            "out": str(self.out),
            "geojson": None if self.geojson is None else str(self.geojson),
            "class": classes[number],
            "n_tiles": len(tiling.tiles),
            "skipped": len(tiling.tiles.skipped),
            "slide_mpp": None if tiling.mpp is None else tiling.mpp[0],
            "temperature": temperature,
            "mean_probability": float(heat.probabilities[:, number].mean()),
            "auc": auc,
            "seconds": time.monotonic() - began,
        }

    def _check(self) -> None:
        """Refuses options that cannot be meant."""
        self.check_out()
        for name in ("mpp", "slide_mpp", "stride"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise DataError(f"--{name.replace('_', '-')} {value}", "must be positive")
        if not self._is_slide() and self.out.resolve().is_relative_to(self._place()[1].resolve()):
            raise DataError(self.out, f"would stand among the tiles of {self.slide}: choose another --out")

    def _place(self) -> tuple[str, Path]:
        """Which half of a slide is meant, such as ``right:``, if one alone is, and where the slide or its tiles are."""
        from parteq.datasets.regions import HALVES

        half, colon, rest = self.slide.partition(":")
        return (half + colon, Path(rest)) if colon and half in HALVES else ("", Path(self.slide))

    def _is_slide(self) -> bool:
        """Whether a slide in one file is mapped, and not a folder of tiles."""
        return Path(self.slide).is_file()

    def _tiling(self, about: dict[str, Any]) -> Tiling:
        """The tiles to map, of a slide or in a folder."""
        from parteq.apps.histo.task import match, open_for_evaluation
        from parteq.datasets.slide import Slide
        from parteq.datasets.tiling import tile_folder, tile_slide

        channels, dimensions = about["model"].get("in_chans", 3), len(about["spatial"])
        if not self._is_slide():
            tiles = open_for_evaluation(self.slide, "test", labelled=False, skip_bad=self.skip_bad)
            tiling = tile_folder(match(tiles, None, channels, dimensions))
            for name in ("mpp", "slide_mpp", "stride", "all_tiles"):
                if getattr(self, name):
                    option = name.replace("_", "-")
                    warnings.warn(f"tiles of a folder are mapped as they are: no use for --{option}", stacklevel=2)
            return tiling
        if (channels, dimensions) != (3, 2):
            raise DataError(self.slide, f"is in colour; the model takes {dimensions}-D images of {channels} channels")
        # As `parteq histo train --mpp` has noted it.
        mpp = about.get("mpp") if self.mpp is None else self.mpp
        if not isinstance(mpp, int | float) or not 0 < mpp < math.inf:
            raise DataError(self.run_path, "does not say how many µm a pixel was in training: give --mpp")
        return tile_slide(
            Slide(self.slide, self.slide_mpp),
            (about["spatial"][0], about["spatial"][1]),
            mpp,
            stride=self.stride,
            everywhere=self.all_tiles,
            progress=not self.quiet,
        )
