"""XYZ files of scanners and of molecules."""

from __future__ import annotations

import numpy as np
import pytest

from parteq.datasets.points.xyz import read_xyz

POINTS = [[0.0, 0.5, 1.0], [1.0, 2.0, -3.0], [4.0, 5.0, 6e-1]]
ATOMS = "O 0 0.5 1\nH 1 2 -3\nH 4 5 6e-1\n"


@pytest.mark.parametrize(
    "text",
    [
        "0 0.5 1\n1 2 -3\n4 5 6e-1\n",
        "0 0.5 1 0 0 1\n1 2 -3 0 1 0\n4 5 6e-1 1 0 0\n",
        "\ufeff# scanned\r\n0, 0.5, 1, 255\r\n1, 2, -3, 0\r\n\r\n4, 5, 6e-1, 9\r\n",
        "//X Y Z\n0;0.5;1\n1;2;-3\n4;5;6e-1\n\n",
        "X Y Z nx ny nz\n0 0.5 1 0 0 1\n1 2 -3 0 1 0\n4 5 6e-1 1 0 0\n",
        "3\nwater, energy = -76.4\n" + ATOMS,
        "  3  \n\n" + ATOMS + "\n\n",
        "3\n" + ATOMS,
        "3\n0 0 1\n8 0 0.5 1\n1 1 2 -3\n1 4 5 6e-1\n",
        "3\nProperties=species:S:1:pos:R:3\nO1 0 0.5 1 7 7 7\nH_a 1 2 -3 7 7 7\nH2 4 5 6e-1 7 7 7\n",
        "3\ncharges\n8 0 0.5 1 -0.8\n1 1 2 -3 0.4\n118 4 5 6e-1 0.4\n",
        "3\nno elements\n0 0.5 1\n1 2 -3\n4 5 6e-1\n",
        "3\nno elements\n0 0.5 1 119\n1 2 -3 7\n4. 5 6e-1 7\n",
        ATOMS,
    ],
)
def test_points_are_read_whatever_stands_beside_them(text: str) -> None:
    assert read_xyz(text.encode()).tolist() == POINTS


def test_a_fourth_column_without_a_count_is_no_coordinate() -> None:
    assert read_xyz(b"8 0 0 1\n1 2 3 4\n").tolist() == [[8, 0, 0], [1, 2, 3]]
    assert read_xyz(b"").shape == (0, 3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("5\nc\n" + ATOMS, "cut off: it holds 3 points, its first line says 5"),
        # Of atoms, or of points with an intensity?
        ("2\n8 0 0 1\n1 2 3 4\n", "atomic numbers, or of coordinates"),
        ("2\n8 0 0 1 0 0\n1 2 3 1 0 0\n", "atomic numbers, or of coordinates"),
        ("2\nc\n0 0 0 1 0.5\n1 2 3 1 0.5\n", "atomic numbers, or of coordinates"),
        ("3\nc\n" + ATOMS + "3\nc\n" + ATOMS, "more lines than the 3 points"),
        ("0 0 1\n1 2\n", "line 2 has 2 columns"),
        ("0 1\n2 3\n", "line 1 has 2 columns"),
        ("3\nc\nO 0 0 1\nH 0 x 1\nH 1 1 1\n", "line 4 is no point: 'H 0 x 1'"),
        ("0,5 1,5 2,5\n", "line 1 is no point"),
        ("\xff", "codec"),
    ],
)
def test_other_text_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_xyz(text.encode("latin-1"))
    assert np.isfinite(read_xyz(b"1 2 3")).all()
