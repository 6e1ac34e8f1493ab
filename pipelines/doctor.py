"""``parteq doctor``: what is installed here, which devices there are, and what is missing for what.

The packages asked for are read from parteq's own metadata, so that pyproject.toml stays the only list of them.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import sys
from importlib import metadata
from typing import Any, ClassVar

from packaging.requirements import Requirement

from parteq.datasets.errors import DataError
from parteq.pipelines.command import Command

__all__ = ["Doctor", "Package", "packages"]

PURPOSES = {
    "export": "parteq histo export --format onnx",
    "dev": "make test, make lint, make types",
    "wsi": "parteq histo heatmap --slide",
    "topology": "persistent homology of point clouds",
    "compare": "benchmarks against e3nn",
}


@dataclasses.dataclass(frozen=True)
class Package:
    """A package that parteq asks for.

    Attributes:
        name: of the distribution.
        asked: the versions that will do, such as ``>=1.26,<2``.
        found: the version installed, or None.
        fits: whether that version will do.
        extra: the extra of parteq that asks for it, or an empty string if parteq itself does.
    """

    name: str
    asked: str
    found: str | None
    fits: bool
    extra: str

    def __str__(self) -> str:
        return f"{self.name} {self.found}" if self.fits else f"{self.name}{self.asked} ({self.found or 'missing'})"


def packages(distribution: str = "parteq") -> list[Package]:
    """The packages that an installed distribution asks for, and whether they are here.

    Raises:
        DataError: if the distribution itself is not installed.
    """
    try:
        lines = metadata.requires(distribution) or []
        extras = metadata.metadata(distribution).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError as error:
        raise DataError(distribution, "is not installed for this Python: run `make setup`") from error
    found = []
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        # A requirement of an extra holds with that extra, and not without it.
        extra = next((name for name in ["", *extras] if marker is None or marker.evaluate({"extra": name})), None)
        if extra is not None:
            version = _version(requirement.name)
            fits = version is not None and requirement.specifier.contains(version, prereleases=True)
            found.append(Package(requirement.name, str(requirement.specifier), version, fits, extra))
    return found


@dataclasses.dataclass(kw_only=True)
class Doctor(Command):
    """Tell versions, devices, optional parts found, and what is missing for what.

    If a package that parteq cannot do without is missing or of a wrong version, the exit status is 2.
    """

    example: ClassVar[str] = "parteq doctor --json doctor.json"

    def run(self) -> dict[str, Any]:
        """Looks around and prints what it finds.

        Raises:
            DataError: if a package that parteq cannot do without is missing or does not fit.
        """
        found = packages()
        about = {
            "parteq": metadata.version("parteq"),
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
        }
        required = [package for package in found if not package.extra]
        lacking = [str(package) for package in required if not package.fits]
        devices = {} if lacking else _devices()
        optional = _optional(found)
        if not self.quiet:
            print(", ".join(f"{name} {version}" for name, version in about.items()))
            _table("devices", devices)
            _table("packages", {package.name: package.found or "missing" for package in required})
            _table("optional", {name: f"{part['state']:<9} {part['purpose']}" for name, part in optional.items()})
            for part in optional.values():
                if part["remedy"]:
                    print(f"\nfor {part['purpose']}:\n  {part['remedy']}")
        if lacking:
            raise DataError(sys.prefix, f"needs {', '.join(lacking)}: run `make setup`")
        return {
            "about": about,
            "devices": devices,
            "packages": {package.name: package.found for package in required},
            "optional": optional,
        }


def _devices() -> dict[str, str]:
    """What `--device` may name, and in what state it is."""
    import torch

    devices = {"cpu": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"}
    if not torch.backends.cuda.is_built():
        devices["cuda"] = "none: this torch is built without CUDA"
    elif not torch.cuda.is_available():
        devices["cuda"] = "none: torch finds no GPU or no driver"
    else:
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            devices[f"cuda:{index}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return devices


def _optional(found: list[Package]) -> dict[str, dict[str, str]]:
    """The parts that parteq can do without: `state`, `purpose`, and `remedy` where there is one to do."""
    parts = {}
    for extra in dict.fromkeys(package.extra for package in found if package.extra):
        lacking = [package for package in found if package.extra == extra and not package.fits]
        # Not `parteq[extra]`, which would ask for py3nj again.
        names = " ".join(f"'{package.name}{package.asked}'" for package in lacking)
        parts[extra] = _part(not lacking, PURPOSES[extra], f"python -m pip install {names}")
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    parts["c++"] = _part(compiler is not None, "torch.compile on the CPU", "install a C++ compiler, or set CXX")
    purpose = "Clebsch-Gordan coefficients of SO(3) at first use; numerical and cached without it"
    parts["py3nj"] = _part(_version("py3nj") is not None, purpose, "")
    return parts


def _part(there: bool, purpose: str, remedy: str) -> dict[str, str]:
    return {"state": "found" if there else "missing", "purpose": purpose, "remedy": "" if there else remedy}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _table(title: str, rows: dict[str, str]) -> None:
    print(f"\n{title}")
    for name, value in rows.items():
        print(f"  {name:<16} {value}")
