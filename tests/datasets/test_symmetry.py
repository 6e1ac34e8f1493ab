"""Turns: exact where they can be, a group action, the documented direction; and the draws of each symmetry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, rotate

from parteq.datasets.symmetry import SYMMETRIES, apply_symmetry, turn, up_or_down

SIZES = st.sampled_from([(5, 5), (6, 6), (4, 7)])


def noise(count: int, height: int, width: int, channels: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, height, width), generator=generator, dtype=torch.uint8)


def blob(size: int = 32) -> torch.Tensor:
    """A smooth lopsided image, empty near its rim."""
    image = np.zeros((size, size))
    image[size // 2 - 6 : size // 2 + 2, size // 2 - 2 : size // 2 + 5] = 1
    image[size // 2 - 6, size // 2 - 5] = 3
    return torch.from_numpy(gaussian_filter(image, 2.0))[None, None]


@given(st.integers(-8, 8), st.sampled_from([5, 6]), st.booleans())
def test_quarter_turns_are_exact(quarters: int, size: int, floating: bool) -> None:
    images = noise(3, size, size)
    images = images.float() if floating else images
    assert torch.equal(turn(images, 90.0 * quarters), torch.rot90(images, quarters, (-2, -1)))


def test_direction_is_anticlockwise() -> None:
    image = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
    image[0, 0, 2, 4] = 255  # at the right
    assert turn(image, 90)[0, 0, 0, 2] == 255  # on top
    assert turn(image, 45)[0, 0, :2, 3:].sum() > 200


def test_an_angle_for_each_image() -> None:
    images = noise(4, 6, 6)
    angles = torch.tensor([0.0, 90.0, 17.0, 180.0])
    turned = turn(images, angles)
    for image, angle, result in zip(images, angles, turned, strict=True):
        assert torch.equal(turn(image[None], float(angle))[0], result)


@pytest.mark.parametrize("angle", [10.0, 45.0, 123.0, -70.0])
@pytest.mark.parametrize(("height", "width"), [(31, 31), (32, 32), (24, 40)])
def test_agrees_with_scipy(angle: float, height: int, width: int) -> None:
    """scipy's bilinear rotation, away from the rim, where the two fill differently."""
    image = torch.from_numpy(gaussian_filter(np.random.default_rng(0).random((height, width)), 1.0))
    expected = rotate(image.numpy(), angle, reshape=False, order=1)
    ours = turn(image[None, None], angle)[0, 0].numpy()
    rows, columns = np.mgrid[:height, :width]
    inner = np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2) < min(height, width) / 2 - 2
    assert np.abs(ours - expected)[inner].max() < 1e-10


@given(st.floats(-180, 180), st.floats(-180, 180))
def test_turns_compose(first: float, second: float) -> None:
    image = blob()
    twice, once = turn(turn(image, first), second), turn(image, first + second)
    assert (twice - once).abs().max() < 0.08 * image.max()


@given(st.floats(0, 360))
def test_nothing_is_lost_inside_the_frame(angle: float) -> None:
    image = blob()
    assert float(turn(image, angle).sum()) == pytest.approx(float(image.sum()), rel=0.01)


@given(SIZES, st.floats(-360, 360))
def test_constant_images_and_fill(size: tuple[int, int], angle: float) -> None:
    image = torch.full((1, 1, *size), 200, dtype=torch.uint8)
    assert torch.equal(turn(image, angle, fill="edge"), image)
    assert turn(image, angle).max() <= 200


def test_oblong_images_keep_their_frame() -> None:
    images = noise(2, 4, 7)
    assert turn(images, 90.0).shape == images.shape
    assert torch.equal(turn(images, 180.0), images.flip(-1, -2))


def test_refused() -> None:
    with pytest.raises(ValueError, match="fill must be"):
        turn(noise(1, 4, 4), 3.0, fill="wrap")
    with pytest.raises(ValueError, match="finite"):
        turn(noise(1, 4, 4), float("nan"))
    for name in ("c0", "so2", "within:181", "within:", "C4", ""):
        with pytest.raises(ValueError, match="unknown symmetry"):
            apply_symmetry(noise(1, 4, 4), name, 0)
    with pytest.raises(ValueError, match="width must lie"):
        up_or_down(noise(1, 4, 4), torch.zeros(1, dtype=torch.int64), 91.0, 0)


@pytest.mark.parametrize("name", SYMMETRIES)
def test_every_symmetry_says_what_it_did(name: str) -> None:
    images = noise(40, 9, 9)
    result = apply_symmetry(images, name, 3)
    flipped = torch.stack([x.flip(-1) if m else x for x, m in zip(images, result.mirrored, strict=True)])
    assert torch.equal(result.images, turn(flipped, result.degrees))
    again, other = apply_symmetry(images, name, 3), apply_symmetry(images, name, 4)
    assert torch.equal(again.images, result.images)
    assert torch.equal(other.images, result.images) == (name == "none")
    assert result.images.dtype == torch.uint8


@pytest.mark.parametrize(
    ("name", "angles", "mirrors"),
    [
        ("none", {0}, 1), ("mirror", {0}, 2), ("half", {0, 90}, 1), ("c1", {0}, 1), ("c2", {0, 180}, 1),
        ("c4", {0, 90, 180, 270}, 1), ("c3", {0, 120, 240}, 1), ("d4", {0, 90, 180, 270}, 2), ("d1", {0}, 2),
        ("c8", set(range(0, 360, 45)), 1), ("d2", {0, 180}, 2),
    ],
)  # fmt: skip
def test_elements_are_drawn_evenly(name: str, angles: set[int], mirrors: int) -> None:
    _, degrees, mirrored = apply_symmetry(torch.zeros(4000, 1, 1, 1), name, 0)
    pairs = [(round(a), bool(m)) for a, m in zip(degrees.tolist(), mirrored, strict=True)]
    assert set(pairs) == {(angle, mirror) for angle in angles for mirror in (False, True)[:mirrors]}
    assert min(pairs.count(pair) for pair in set(pairs)) > 0.8 * 4000 / len(set(pairs))


def test_ranges_of_angles() -> None:
    images = torch.zeros(4000, 1, 1, 1)
    within, anywhere = apply_symmetry(images, "within:30", 0).degrees, apply_symmetry(images, "any", 0).degrees
    assert within.abs().max() <= 30
    assert float(within.std()) == pytest.approx(60 / 12**0.5, rel=0.05)
    assert 0 <= anywhere.min() < 2 < 358 < anywhere.max() < 360


@given(st.floats(0, 90), st.integers(0, 5))
def test_up_or_down(width: float, seed: int) -> None:
    images, digits = noise(21, 8, 8), torch.arange(21) % 10
    result = up_or_down(images, digits, width, seed)
    assert len(result.classes) == 20
    down = 0
    for name, digit, degrees in zip(
        [result.classes[k] for k in result.labels.tolist()], digits.tolist(), result.degrees.tolist(), strict=True
    ):
        side = "down" if degrees > 90 or (degrees == 90 and name.endswith("down")) else "up"
        assert name == f"{digit} {side}"
        assert abs(degrees - (180 if side == "down" else 0)) <= width
        down += side == "down"
    assert down in (10, 11)
    assert torch.equal(result.images, turn(images, result.degrees))
