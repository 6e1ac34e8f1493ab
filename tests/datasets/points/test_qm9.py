"""QM9 from each of its files: the same molecules, the same targets."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parteq.datasets.errors import DataError
from parteq.datasets.points.clouds import open_clouds

HEADER = (
    "XYZ_file,Index,SMILES,N_atoms,Elements,XYZ_Ang,Dipole_debye,Polarizability_bohr3,HOMO_au,LUMO_au,HOMO_LUMO_gap_au,"
    "R2_bohr2,ZPVE_au,InternalEnergy_0K_au,InternalEnergy_298K_au,Enthalphy_298K_au,GibbsFreeEnergy_298K_au,"
    "Heatcapacity_Cv_cal_mol_K\n"
)
TARGETS = [0.0, 13.21, -0.3877, 0.1171, 0.5048, 35.3641, 0.044749, -40.47893, -40.476062, -40.475117, -40.498597, 6.469]
METHANE = [[-0.0127, 1.0858, 0.008], [0.0, -0.006, 0.002], [1.0, 1.4, 0.0], [-0.5, 1.4, -0.9], [-0.5, 1.4, 0.9]]
WATER = [[0.0, 1.0, 0.0], [0.1, 0.0, 0.0], [0.9, 1.3, 0.0]]


def row(name: str, elements: str, positions: list[list[float]]) -> str:
    text = ",".join(f"[{','.join(f'{x:g}.' if x == int(x) else f'{x}' for x in point)}]" for point in positions)
    symbols = ",".join(f"'{symbol}'" for symbol in elements)
    return f'"{name}",1,"C",{len(elements)},"[{symbols}]","[{text}]",{",".join(map(str, TARGETS))}\n'


def tables() -> dict[str, str]:
    return {
        "qm9_part1.csv": HEADER + row("a.xyz", "CHHHH", METHANE),
        "qm9_part2.csv": HEADER + row("b.xyz", "OHH", WATER),
        "qm9_part3.csv": HEADER + row("c.xyz", "OHH", WATER),
        "qm9_polarizability.csv": "XYZ_file,A_xx,A_xy,A_yy,A_xz,A_yz,A_zz\n"
        '"c.xyz",2,1,2,0,0,5\n"a.xyz",13,0,13,0,0,13\n"b.xyz",1,0,2,0,0,3\n',
    }


def wheel(tmp_path: Path, contents: dict[str, str]) -> Path:
    path = tmp_path / "qm9pack-1.0.3-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in contents.items():
            archive.writestr(f"qm9pack/data/{name}", text)
    return path


def test_the_wheel(tmp_path: Path) -> None:
    data = open_clouds(f"qm9:{wheel(tmp_path, tables())}")
    assert (data.sizes.tolist(), data.names, data.unit) == ([5, 3, 3], ("0", "1", "2"), "Å")
    positions, features = data.cloud(0)
    assert positions.numpy() == pytest.approx(np.array(METHANE, np.float32))
    assert features is not None
    assert features.argmax(1).tolist() == [1, 0, 0, 0, 0]
    assert data.targets is not None
    assert data.targets[0, :12].tolist() == TARGETS
    assert data.target_names[-4:] == ("alpha-mean_bohr3", "alpha-low_bohr3", "alpha-middle_bohr3", "alpha-high_bohr3")
    # [[2, 1, 0], [1, 2, 0], [0, 0, 5]] has the eigenvalues 1, 3 and 5.
    assert data.targets[2, 12:] == pytest.approx([3, 1, 3, 5])


def test_its_tables_unpacked(tmp_path: Path) -> None:
    for name, text in tables().items():
        (tmp_path / name).write_text(text)
    whole = open_clouds(f"qm9:{tmp_path}")
    part = open_clouds(f"qm9:{tmp_path / 'qm9_part2.csv'}")
    assert (len(whole), len(part), part.families) == (3, 1, None)
    assert part.target_names == whole.target_names[:12]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"qm9_part1.csv": "Elements,XYZ_Ang\n"}, "holds no molecules"),
        ({"qm9_part1.csv": HEADER.replace("HOMO_au", "x") + row("a.xyz", "OHH", WATER)}, "without the column"),
        ({"qm9_part1.csv": HEADER + row("a.xyz", "OH", WATER)}, "damaged table"),
        ({"qm9_part1.csv": HEADER + row("a.xyz", "OHS", WATER)}, "without the column|element"),
        ({"qm9_part1.csv": HEADER + row("a.xyz", "OHH", WATER).replace("13.21", "many")}, "damaged table"),
        ({"other.txt": ""}, "has no qm9_part1.csv"),
    ],
)
def test_damaged_wheels(tmp_path: Path, change: dict[str, str], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        open_clouds(f"qm9:{wheel(tmp_path, change)}")


EV = 27.211386246
IN_EV = np.array([1, 1, EV, EV, EV, 1, EV, EV, EV, EV, EV, 1])


def molecule(numbers: list[int], positions: list[list[float]]) -> dict[str, Any]:
    y = torch.tensor(np.concatenate([np.array(TARGETS) * IN_EV, np.zeros(7)]), dtype=torch.float32)[None]
    return {"z": torch.tensor(numbers), "pos": torch.tensor(positions), "y": y, "name": "gdb_1"}


MOLECULES = [molecule([6, 1, 1, 1, 1], METHANE), molecule([8, 1, 1], WATER)]


def test_files_of_pyg(tmp_path: Path) -> None:
    """As PyG writes and reads them itself."""
    from torch_geometric.data import Data, InMemoryDataset

    raw, processed = tmp_path / "qm9_v3.pt", tmp_path / "data_v3.pt"
    torch.save(MOLECULES, raw)
    InMemoryDataset.save([Data(**m) for m in MOLECULES], str(processed))
    for path in (raw, processed):
        data = open_clouds(f"qm9:{path}")
        assert data.sizes.tolist() == [5, 3]
        assert data.cloud(1)[0].numpy() == pytest.approx(np.array(WATER, np.float32))
        assert data.targets is not None
        assert data.targets == pytest.approx(np.array([TARGETS] * 2), rel=1e-6)
        assert data.target_names == open_clouds(f"qm9:{wheel(tmp_path, tables())}").target_names[:12]


class Hostile:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("run",)


def test_refused_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from torch_geometric.data import Data

    for number, (content, reason) in enumerate(
        [
            (Hostile(), "holds Python objects, which are refused"),
            ((Data(**MOLECULES[0]), {}), "holds Python objects, which are refused"),
            ([1, 2], "not of molecules"),
            ([], "not of molecules"),
            (({"z": torch.ones(3)}, {}), "lacks atoms"),
            ({"x": 1}, "is not QM9 as PyG"),
            ([molecule([8, 1, 1], WATER) | {"y": torch.ones(1, 5)}], "targets of the shape"),
        ]
    ):
        path = tmp_path / f"{number}.pt"
        torch.save(content, path)
        with pytest.raises(DataError, match=reason):
            open_clouds(f"qm9:{path}")
    (tmp_path / "x.pt").write_bytes(b"PK\x03\x04")
    (tmp_path / "x.xyz").write_bytes(b"")
    for name, reason in (("x.pt", "is not a file of torch"), ("x.xyz", "is not QM9 as"), ("y.pt", "no such file")):
        with pytest.raises(DataError, match=reason):
            open_clouds(f"qm9:{tmp_path / name}")
    assert "run" not in capsys.readouterr().out
