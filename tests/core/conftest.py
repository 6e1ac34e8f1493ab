"""The groups and bands that the tests of the core run over.

A test that asks for ``plane``, ``space`` or ``group`` (both) runs once for each group of the lists below; one that
also asks for ``band`` gets the frequency to use with it. ``--group NAME`` (as often as wanted) and ``--band L`` replace
them. A test marked ``only(which)`` runs for those groups alone of which that is true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from parteq.core.groups import SymmetryGroup, plane_group, space_group

PLANE = ("c1", "c2", "c4", "c5", "c8", "d1", "d2", "d4", "d5", "so2", "o2")
SPACE = ("so2", "o2", "cone", "c4", "d2", "d3", "so3", "o3", "octahedral", "icosahedral")
SLOW = ("icosahedral",)
BANDS = {2: 2, 3: 1}
"""Default band by dimension."""


def _known(name: str, make: Callable[[str], SymmetryGroup]) -> bool:
    try:
        make(name)
    except ValueError:
        return False
    return True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    asked = [name for name in ("plane", "space", "group") if name in metafunc.fixturenames]
    if not asked:
        return
    chosen = metafunc.config.getoption("--group", default=None)
    band = metafunc.config.getoption("--band", default=None)
    for name in chosen or []:
        if not _known(name, plane_group) and not _known(name, space_group):
            raise pytest.UsageError(f"--group {name}: no group of the plane or of space has this name")
    cases = []
    for kind, names, make in (("plane", PLANE, plane_group), ("space", SPACE, space_group)):
        if asked[0] not in (kind, "group"):
            continue
        for name in [name for name in chosen if _known(name, make)] if chosen else names:
            group = make(name)
            if not all(mark.args[0](group) for mark in metafunc.definition.iter_markers("only")):
                continue
            values = [group]
            if "band" in metafunc.fixturenames:
                values.append(BANDS[group.dimension] if band is None else band)
            marks = [pytest.mark.slow] if not chosen and name in SLOW else []
            cases.append(pytest.param(*values, id=f"{kind}-{name}", marks=marks))
    metafunc.parametrize([asked[0], "band"] if "band" in metafunc.fixturenames else asked[0], cases)


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(autouse=True, scope="session")
def _fresh_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep bases that other versions of the code stored out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARTEQ_CACHE", str(tmp_path_factory.mktemp("bases")))
        yield


@pytest.fixture
def rng() -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(0)
