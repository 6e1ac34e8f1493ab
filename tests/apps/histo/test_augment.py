"""Augmentation put together by names, and the symmetries of the grid."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parteq.apps.histo.augment import augmentation, orbit, transform
from parteq.apps.histo.models import create_model
from parteq.core.training import Augment
from parteq.datasets.errors import DataError

PARTS = ("flip", "d4", "stain", "turn", "elastic", "blur")


def named(names: str) -> Augment:
    augment = augmentation(names)
    assert augment is not None
    return augment


def test_the_eight_elements_are_a_group():
    image = torch.arange(9).reshape(3, 3)
    elements = [transform(image, number) for number in range(8)]
    products = [transform(one, number) for one in elements for number in range(8)]
    assert len({tuple(image.flatten().tolist()) for image in elements}) == 8
    assert all(any(torch.equal(product, one) for one in elements) for product in products)
    assert torch.equal(elements[0], image)
    assert torch.equal(elements[1], torch.rot90(image))
    assert torch.equal(elements[4], image.flip(1))


@pytest.mark.parametrize(("name", "count"), [("flip", 2), ("d4", 8), ("flip,d4", 8)])
def test_each_element_is_drawn_as_often(name, count):
    images = torch.arange(9, dtype=torch.uint8).reshape(1, 1, 3, 3).repeat(800, 1, 1, 1)
    labels = torch.arange(800)
    turned, same = named(name)((images, labels), torch.arange(800))
    assert torch.equal(same, labels)
    assert turned.dtype == torch.uint8
    kinds, times = turned.flatten(1).unique(dim=0, return_counts=True)
    allowed = {tuple(transform(images[0], number).flatten().tolist()) for number in range(8)}
    assert len(kinds) == count
    assert {tuple(kind.tolist()) for kind in kinds} <= allowed
    assert times.min() > 0.6 * 800 / count


def test_images_that_are_no_squares_keep_their_shape():
    images = torch.arange(6).reshape(1, 1, 2, 3).repeat(100, 1, 1, 1)
    turned = named("d4")((images,), torch.arange(100))[0]
    assert turned.shape == images.shape
    assert len(turned.flatten(1).unique(dim=0)) == 4


@given(
    parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=6),
    shape=st.sampled_from([(1, 6, 6), (3, 7, 7), (3, 5, 8), (4, 6, 6), (1, 3, 6, 6)]),
    start=st.integers(0, 17),
)
def test_a_sample_is_augmented_alike_in_any_batch(parts, shape, start):
    images, labels = torch.randint(256, (20, *shape), dtype=torch.uint8), torch.arange(20)
    keys = torch.arange(20) * 2**57
    augment = named(",".join(parts))
    whole, same = augment((images, labels), keys)
    assert whole.shape == images.shape
    assert torch.equal(same, labels)
    assert whole.dtype == (torch.uint8 if set(parts) <= {"flip", "d4"} else torch.float32)
    part = augment((images[start : start + 3], labels[start : start + 3]), keys[start : start + 3])[0]
    assert torch.allclose(part.float(), whole[start : start + 3].float(), atol=1e-5)


def test_the_order_of_names_does_not_matter_and_strong_is_all():
    batch, keys = (torch.randint(256, (16, 3, 9, 9), dtype=torch.uint8),), torch.arange(16)
    strong = named("strong")(batch, keys)[0]
    for names in ("d4,stain,turn,elastic,blur", "blur,turn,d4,elastic,stain", "strong,d4,none"):
        assert torch.equal(named(names)(batch, keys)[0], strong)


def test_the_parts_draw_numbers_of_their_own():
    # With the same numbers for both, all the images that are mirrored would be warped, or none.
    image = torch.rand(1, 1, 8, 8).expand(400, -1, -1, -1)
    found = named("flip,elastic")((image,), torch.arange(400))[0]
    kept, mirrored = ((found == one).flatten(1).all(1).float().mean() for one in (image, image.flip(-1)))
    assert kept == pytest.approx(0.25, abs=0.06)
    assert mirrored == pytest.approx(0.25, abs=0.06)


def test_none_is_nothing():
    assert augmentation("none") is None


@pytest.mark.parametrize("names", ["", "D4", "flip,,d4", "flip;d4", "stain,rotate"])
def test_unknown_names_are_refused(names):
    with pytest.raises(DataError, match=f"--augment {names}: .* is none of flip, d4, stain, turn, elastic, blur"):
        augmentation(names)


@pytest.mark.parametrize("group", ["d4", "o2"])
def test_what_an_invariant_network_cannot_see_is_left_out(group, caplog):
    torch.manual_seed(0)
    model = create_model(num_classes=2, in_chans=1, group=group, degree="full", width=0.3).double().eval()
    image = torch.rand(1, 1, 12, 12, dtype=torch.float64)
    with torch.no_grad():
        logits = torch.cat([model(transform(image, element)) for element in range(8)])
    assert (logits - logits[0]).abs().max() < 1e-12

    with caplog.at_level(logging.INFO, "parteq"):
        assert augmentation("flip,d4", group, "full") is None
        batch, keys = (torch.rand(8, 3, 9, 9),), torch.arange(8)
        augment = augmentation("strong", group, "full")
    assert augment is not None
    assert torch.equal(augment(batch, keys)[0], named("stain,turn,elastic,blur")(batch, keys)[0])
    lines = [record.message for record in caplog.records]
    assert lines == [
        f"augmentation leaves out {parts}: the network is invariant under all of D4" for parts in ("d4 and flip", "d4")
    ]


@pytest.mark.parametrize(
    ("group", "degree", "spatial_dims"),
    [("d4", "none", 2), ("c4", "full", 2), ("so2", "full", 2), ("none", "full", 2), ("d4", "full", 3)],
)
def test_it_is_not_left_out_where_it_can_be_seen(group, degree, spatial_dims, caplog):
    with caplog.at_level(logging.INFO, "parteq"):
        assert augmentation("d4", group, degree, spatial_dims) is not None
    assert not caplog.records


def test_a_learned_degree_is_told_that_its_data_were_made_symmetric(caplog):
    with caplog.at_level(logging.INFO, "parteq"):
        assert augmentation("d4,stain,turn", "d4", "learned") is not None
        assert augmentation("stain,elastic,blur", "d4", "learned") is not None
        assert augmentation("d4", "none", "learned") is not None
    (record,) = caplog.records
    assert record.message.startswith("augmentation (d4, turn) makes the images symmetric")


def test_orbits_are_those_of_the_groups():
    names = ("c4", "c8", "so2", "d4", "o2", "none", "c6", "d2", "d3")
    assert [len(orbit(name)) for name in names] == [4, 4, 4, 8, 8, 8, 2, 4, 2]
    assert orbit("c6") == (0, 2)
    # A mirror in the horizontal line: left to right, then by half a turn.
    assert orbit("d1") == (0, 6)
    assert orbit("d4", spatial_dims=3) == (0, 1, 2, 3)
