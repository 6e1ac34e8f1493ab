"""Agreement with escnn: for uniform λ our kernels and escnn's, on the same rings, span the same space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from escnn import group as escnn_group
from escnn import kernels as escnn_kernels
from escnn.group import _numerical

from parteq.core.density import make_density
from parteq.core.fields import FieldType, Representation, direct_sum
from parteq.core.filters import harmonic_bank
from parteq.core.groups import SymmetryGroup
from parteq.core.kernel import PartialKernel
from tests.core.helpers import jacobian

WIDTH = 0.6

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning"),
    # escnn's own tables come in part from joblib and sparse matrices.
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning"),
]


@pytest.fixture(autouse=True)
def _sparse_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let escnn's numerical Clebsch-Gordan run: it hands scikit-learn an ``np.matrix``, which that refuses."""
    reduce = _numerical.randomized_svd

    def with_arrays(matrix: Any, **options: Any) -> Any:
        return reduce(np.asarray(matrix) if isinstance(matrix, np.matrix) else matrix, **options)

    monkeypatch.setattr(_numerical, "randomized_svd", with_arrays)


def _oracle(group: SymmetryGroup) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return escnn's builder of kernel bases for a group, and the options that fix our convention."""
    order = 1 if group.continuous else group.algebra.order()
    if group.dimension == 2:
        builders = {
            "SO(2)": escnn_kernels.kernels_SO2_act_R2,
            "O(2)": escnn_kernels.kernels_O2_act_R2,
            "C1": escnn_kernels.kernels_Trivial_act_R2,
            "D1": escnn_kernels.kernels_Flip_act_R2,
        }
        finite = escnn_kernels.kernels_DN_act_R2 if group.flip else escnn_kernels.kernels_CN_act_R2
        # Reflections are in the x axis here, in the y axis by escnn's default.
        return builders.get(group.name, finite), {"axis": 0.0} if group.flip else {}
    builders = {
        "SO(2)": escnn_kernels.kernels_SO2_act_R3,
        "O(2)": escnn_kernels.kernels_O2_dihedral_act_R3,
        "cone": escnn_kernels.kernels_O2_conical_act_R3,
        "SO(3)": escnn_kernels.kernels_SO3_act_R3,
        "O(3)": escnn_kernels.kernels_O3_act_R3,
        "octahedral": escnn_kernels.kernels_Octa_act_R3,
        "icosahedral": escnn_kernels.kernels_Ico_act_R3,
    }
    if group.name not in builders and order == (2 if group.flip else 1):
        # C1 and D1, which only --group asks for: there is no outside answer to compare with.
        pytest.skip(f"escnn has no kernels for {group}")
    finite = escnn_kernels.kernels_DN_dihedral_act_R3 if group.flip else escnn_kernels.kernels_CN_act_R3
    return builders.get(group.name, finite), {}


def _theirs(group: SymmetryGroup, rho: Representation, points: np.ndarray, rings: dict[float, int]) -> np.ndarray:
    """Return escnn's basis as columns, sampled on points."""
    build, options = _oracle(group)
    algebra, ids = group.algebra, [irrep.id for irrep in rho.irreps]
    if build is escnn_kernels.kernels_Flip_act_R2:
        algebra, ids = escnn_group.cyclic_group(2), [(identity[0],) for identity in ids]
    field = escnn_group.Representation(algebra, "fields", ids, np.eye(rho.size))
    torch.set_default_dtype(torch.float32)  # escnn keeps float32 tables
    bases = []
    for radius, frequency in rings.items():
        try:
            basis = build(field, field, [radius], WIDTH, maximum_frequency=frequency, **options)
        except escnn_kernels.EmptyBasisException:
            continue
        sampled = basis.sample(torch.from_numpy(points).float())  # points, elements, out, in
        bases.append(sampled.permute(2, 3, 0, 1).flatten(0, 2).double().numpy())
    torch.set_default_dtype(torch.float64)
    return np.concatenate(bases, axis=1)


def test_uniform_density_spans_the_kernels_of_escnn(group: SymmetryGroup, band: int) -> None:
    rings = {0.0: 0, 1.0: 2, 2.0: 3} if group.dimension == 2 else {0.0: 0, 1.0: 2}
    # A few irreps are enough in large groups: the first, the last, and the largest.
    irreps = group.irreps(band)
    chosen = irreps if len(irreps) <= 4 else [irreps[0], irreps[-1], max(irreps, key=lambda irrep: irrep.size)]
    rho = direct_sum(group, dict.fromkeys(chosen, 1))
    points = 1.3 * np.random.default_rng(0).standard_normal((60, group.dimension))
    bank = harmonic_bank(group, points, np.array(list(rings)), WIDTH, list(rings.values()))
    fields = FieldType(rho, 1)
    ours = jacobian(PartialKernel(fields, fields, bank, make_density(group, "full", band)))
    theirs = _theirs(group, rho, points, rings)
    assert ours.shape == theirs.shape
    span, _ = np.linalg.qr(ours)
    assert np.linalg.matrix_rank(ours, tol=1e-6 * np.abs(ours).max()) == ours.shape[1]
    assert np.linalg.matrix_rank(theirs, tol=1e-4 * np.abs(theirs).max()) == theirs.shape[1]
    # Sine of the largest principal angle between the two spans; theirs is float32.
    other, _ = np.linalg.qr(theirs)
    assert np.linalg.norm(other - span @ (span.T @ other), 2) < 1e-4
