"""`parteq cryoem convert` and `inspect`: what they say, write, and refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parteq.datasets.cryoem.ctf import CTFParameters
from parteq.datasets.cryoem.particles import Particles, open_particles
from parteq.datasets.cryoem.poses import uniform_rotations
from parteq.datasets.cryoem.stack import StackWriter

Call = Callable[..., tuple[int, str, str]]
N, BOX = 12, 16


def disks(sign: float) -> np.ndarray:
    """Images of a disk on noise."""
    rows, columns = np.mgrid[:BOX, :BOX] - BOX // 2
    noise = np.random.default_rng(5).normal(size=(N, BOX, BOX))
    return (noise + sign * (np.hypot(rows, columns) < 4)).astype(np.float32)


def write(folder: Path, sign: float = 1.0, pixel_size_in_header: float = 1.5) -> Path:
    """A STAR file and the stack it names."""
    rng = np.random.default_rng(6)
    with StackWriter(folder / "p.mrcs", BOX, pixel_size_in_header) as writer:
        writer.append(disks(sign))
    columns = [np.full(N, value) for value in (20000, 19500, 10, 300, 2.7, 0.1, 0)]
    names = [f"{number + 1:06d}@p.mrcs" for number in range(N)]
    ctf = CTFParameters(*columns)
    particles = Particles.create(uniform_rotations(N, rng), rng.normal(size=(N, 2)), ctf, 1.5, BOX, names)
    particles.write(folder / "p.star")
    return folder / "p.star"


def edit(star: Path, **columns: object) -> Path:
    """The STAR file with other columns."""
    particles = open_particles(star)
    table = particles.table.copy()
    for name, value in columns.items():
        table[name] = value
    particles.with_table(table).write(star)
    return star


def inspected(parteq: Call, path: Path, *words: object) -> dict[str, object]:
    """The results of `inspect`, which must end well."""
    result = path.parent / "result.json"
    status, _, _ = parteq("cryoem", "inspect", "--particles", path, "--json", result, *words)
    assert status == 0
    found: dict[str, object] = json.loads(result.read_text())
    return found


def test_inspect_finds_nothing_wrong(parteq: Call, tmp_path: Path) -> None:
    found = inspected(parteq, write(tmp_path))
    assert found["problems"] == []
    expected = {"n_particles": N, "optics_groups": 1, "box": BOX, "stacks": 1, "contrast": "bright"}
    assert {name: found[name] for name in expected} == expected
    assert found["pixel_size_angstrom"] == 1.5
    assert (found["defocus_min_angstrom"], found["astigmatism_median_angstrom"]) == (19750, 500)


def test_inspect_tells_dark_from_bright(parteq: Call, tmp_path: Path) -> None:
    write(tmp_path, sign=-1.0)
    for name in ("p.star", "p.mrcs"):
        found = inspected(parteq, tmp_path / name)
        assert found["contrast"] == "dark"
        assert "RELION wants them bright" in str(found["problems"])


def test_inspect_says_what_to_do_where_noise_hides_the_contrast(parteq: Call, tmp_path: Path) -> None:
    status, printed, said = parteq("cryoem", "inspect", "--particles", write(tmp_path, sign=0.0))
    assert (status, said.count("\n"), printed.count("unclear")) == (0, 1, 1)
    assert said.startswith(f"parteq: contrast unclear: over {N} images")


def test_inspect_lists_problems(parteq: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    star = write(tmp_path, pixel_size_in_header=2.0)
    names = [f"{number + 1}@p.mrcs" for number in range(N)]
    names[3], names[5], names[7] = "1@p.mrcs", "99@p.mrcs", "1@none.mrcs"
    angles = open_particles(star).table["rlnAngleRot"].to_numpy(copy=True)
    angles[2] = np.nan
    edit(star, rlnImageName=names, rlnAngleRot=angles, rlnOriginXAngst=[0.0] * (N - 1) + [11.0])
    status, _, said = parteq("cryoem", "inspect", "--particles", star)
    assert status == 0
    for problem in (
        "rlnAngleRot is NaN or infinite in 1 rows (3)",
        "the same image stands in several rows: 2 rows (1, 4)",
        "stack does not have, in 1 rows (6)",
        "stacks are missing",
        "2 Å in p.mrcs, 1.5 Å in p.star",
        "off centre by more than a quarter of the box in 1 rows (12)",
    ):
        assert problem in said
    found = inspected(parteq, star)
    assert found["n_problems"] == len(list(found["problems"])) == 6  # type: ignore[call-overload]
    counts = ("duplicate_rows", "missing_stacks", "images_out_of_range", "pixel_size_mismatches", "images_looked_at")
    assert [found[name] for name in counts] == [2, 1, 1, 1, N - 2]


def test_inspect_tells_images_that_have_two_names(parteq: Call, tmp_path: Path) -> None:
    star = write(tmp_path)
    edit(
        star, rlnImageName=["p.mrcs", "1@p.mrcs", "000001@p.mrcs"] + [f"{number}@p.mrcs" for number in range(4, N + 1)]
    )
    assert inspected(parteq, star)["duplicate_rows"] == 3


def test_inspect_tells_stacks_whose_axes_are_others(parteq: Call, tmp_path: Path) -> None:
    star = write(tmp_path)
    data = (tmp_path / "p.mrcs").read_bytes()
    (tmp_path / "p.mrcs").write_bytes(data[:64] + np.array([2, 1, 3], "<i4").tobytes() + data[76:])
    assert inspected(parteq, star)["problems"] == ["headers map the axes to others than 1, 2, 3 in p.mrcs"]


def test_inspect_looks_at_pixels(parteq: Call, tmp_path: Path) -> None:
    star = write(tmp_path)
    data = bytearray((tmp_path / "p.mrcs").read_bytes())
    data[1024 + 4 * BOX * BOX : 1028 + 4 * BOX * BOX] = np.float32(np.nan).tobytes()
    (tmp_path / "p.mrcs").write_bytes(bytes(data))
    assert inspected(parteq, star, "--images", 0)["damaged_images"] == 1
    assert inspected(parteq, star, "--images", 1)["damaged_images"] == 0


def test_inspect_goes_on_without_images(parteq: Call, tmp_path: Path) -> None:
    star = write(tmp_path)
    (tmp_path / "p.mrcs").write_bytes(b"short")
    assert inspected(parteq, star)["damaged_stacks"] == 1
    (tmp_path / "p.mrcs").unlink()
    assert inspected(parteq, star)["missing_stacks"] == 1
    edit(star, rlnImageName="1@../p.mrcs")
    assert "leads out of" in str(inspected(parteq, star)["problems"])


def test_inspect_tells_of_preferred_orientations(parteq: Call, tmp_path: Path) -> None:
    star, n = tmp_path / "p.star", 300
    everywhere = uniform_rotations(n, np.random.default_rng(0))
    for rotations, preferred in ((everywhere, False), (np.eye(3)[None].repeat(n, 0), True)):
        Particles.create(rotations, None, None, 1.5, BOX).write(star)
        found = inspected(parteq, star)
        assert ("orientations are preferred" in str(found["problems"])) is preferred
        assert (float(str(found["view_tensor_largest_eigenvalue"])) > 0.9) is preferred


@pytest.mark.parametrize("content", [b"", b"data_x\n_a 1\n", b"\x00\xff\x00"])
def test_inspect_refuses_what_cannot_be_read(parteq: Call, tmp_path: Path, content: bytes) -> None:
    for name in ("p.star", "p.cs", "p.mrcs", "p.txt"):
        path = tmp_path / name
        path.write_bytes(content)
        status, printed, said = parteq("cryoem", "inspect", "--particles", path)
        assert (status, printed, said.count("\n")) == (2, "", 1)
        assert said.startswith(f"parteq: {path}: ")


def test_convert_there_and_back(parteq: Call, tmp_path: Path) -> None:
    star, folder, back = write(tmp_path), tmp_path / "drgn", tmp_path / "back.star"
    edit(star, labRemark=[f"well {number}" for number in range(N)])
    status, printed, _ = parteq("cryoem", "convert", "--from", star, "--to", "cryodrgn", "--out", folder)
    assert status == 0
    assert f"{folder / 'pose.pkl'} {folder / 'ctf.pkl'}" in printed
    joined = f"{folder / 'pose.pkl'}+{folder / 'ctf.pkl'}"
    assert parteq("cryoem", "convert", "--from", f"{joined}+{star}", "--to", "star", "--out", back)[0] == 0
    pd.testing.assert_frame_equal(open_particles(back).table, open_particles(star).table, check_exact=True)
    for source in (joined, f"{joined}+{tmp_path / 'p.mrcs'}"):
        assert parteq("cryoem", "convert", "--from", source, "--to", "star", "--out", back)[0] == 0
        np.testing.assert_allclose(open_particles(back).rotations(), open_particles(star).rotations(), atol=1e-12)
    assert len(open_particles(back).images()) == N


def test_particles_without_ctf_go_to_cryodrgn_and_back(parteq: Call, tmp_path: Path) -> None:
    bare, folder, back = tmp_path / "bare.star", tmp_path / "drgn", tmp_path / "back.star"
    particles = open_particles(write(tmp_path))
    names = list(particles.table["rlnImageName"])
    Particles.create(particles.rotations(), None, None, 1.5, BOX, names).write(bare)
    status, _, said = parteq("cryoem", "convert", "--from", bare, "--to", "cryodrgn", "--out", folder)
    assert (status, said) == (0, f"parteq: {bare} has no CTF, so ctf.pkl is not written\n")
    assert [path.name for path in folder.iterdir()] == ["pose.pkl"]
    pose, ctf, stack = folder / "pose.pkl", folder / "ctf.pkl", tmp_path / "p.mrcs"
    for images in ("", f"+{stack}"):
        status, _, said = parteq("cryoem", "convert", "--from", f"{pose}+{ctf}{images}", "--to", "star", "--out", back)
        proposed = f"{pose}{images or '+X.mrcs'}"
        assert (status, said) == (2, f"parteq: {ctf}: no such file; it may be left out: --from {proposed}\n")
    assert parteq("cryoem", "convert", "--from", f"{pose}+{stack}", "--to", "star", "--out", back)[0] == 0
    np.testing.assert_allclose(open_particles(back).rotations(), particles.rotations(), atol=1e-12)
    ctf.write_bytes(b"of other particles")
    _, _, said = parteq("cryoem", "convert", "--from", bare, "--to", "cryodrgn", "--out", folder)
    assert said == f"parteq: {bare} has no CTF, so ctf.pkl is not written; {ctf} is of an earlier conversion\n"
    assert ctf.read_bytes() == b"of other particles"


def test_a_plus_may_be_part_of_a_name(parteq: Call, tmp_path: Path) -> None:
    star = write(tmp_path).rename(tmp_path / "a+b.star")
    assert parteq("cryoem", "convert", "--from", star, "--to", "star", "--out", tmp_path / "c.star")[0] == 0
    assert (tmp_path / "c.star").read_bytes() == star.read_bytes()


@pytest.mark.parametrize("to", ["star", "cryodrgn"])
def test_convert_refuses_and_writes_nothing(parteq: Call, tmp_path: Path, to: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    star, out = write(inner), tmp_path / "out.star"
    edit(star, rlnAnglePsi=np.inf)
    (tmp_path / "hostile.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    for source, reason in (
        (star, "rlnAnglePsi is not finite in row 1"),
        (tmp_path / "none.star", "no such file"),
        (tmp_path / "hostile.pkl", "is not a pickle of arrays"),
        (f"{star}+{star}", "only cryoDRGN's pickles"),
        (tmp_path / "x.txt", "holds no particles"),
    ):
        status, printed, said = parteq("cryoem", "convert", "--from", source, "--to", to, "--out", out)
        assert (status, printed) == (2, "")
        assert reason in said
        assert said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.pkl", "inner"]


@pytest.mark.parametrize("path", ["/nowhere/p.mrcs", "../../p.mrcs", "p.mrcs"])
def test_images_that_nobody_needs_are_not_looked_for(parteq: Call, tmp_path: Path, path: str) -> None:
    """RELION 3.0 leaves the box to the stack, which may lie elsewhere or be damaged."""
    (tmp_path / "p.mrcs").write_bytes(b"damaged")
    rows = "".join(f"{row}@{path} {10 * row} {20 * row} 30\n" for row in range(1, 5))
    star = tmp_path / "old.star"
    star.write_text(f"data_\nloop_\n_rlnImageName\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n{rows}")
    words = ["--from", star, "--to", "star", "--out", tmp_path / "out.star"]
    assert parteq("cryoem", "convert", *words)[0] == 0
    assert "rlnImageSize" not in (tmp_path / "out.star").read_text()
    assert parteq("cryoem", "evaluate", "--estimate", star, "--truth", star)[0] == 0


def test_convert_says_what_out_is_to_be(parteq: Call, tmp_path: Path) -> None:
    star = write(tmp_path)
    status, _, said = parteq("cryoem", "convert", "--from", star, "--to", "star", "--out", tmp_path / "folder")
    assert (status, "ends in .star" in said) == (2, True)
    status, _, said = parteq("cryoem", "convert", "--from", star, "--to", "star", "--out", star)
    assert (status, said) == (2, f"parteq: {star}: is read by --from, and would be lost to --out\n")
    status, _, said = parteq("cryoem", "convert", "--from", star, "--to", "cryodrgn", "--out", star)
    assert (status, "is no folder" in said) == (2, True)
