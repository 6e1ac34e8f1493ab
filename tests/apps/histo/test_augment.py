"""Augmentation by the symmetries of the grid."""

from __future__ import annotations

import pytest
import torch

from parteq.apps.histo.augment import AUGMENTATIONS, ORBITS, transform


def test_the_eight_elements_are_a_group():
    image = torch.arange(9).reshape(3, 3)
    elements = [transform(image, number) for number in range(8)]
    products = [transform(one, number) for one in elements for number in range(8)]
    assert len({tuple(image.flatten().tolist()) for image in elements}) == 8
    assert all(any(torch.equal(product, one) for one in elements) for product in products)
    assert torch.equal(elements[0], image)
    assert torch.equal(elements[1], torch.rot90(image))
    assert torch.equal(elements[4], image.flip(1))


@pytest.mark.parametrize(("name", "count"), [("flip", 2), ("d4", 8)])
def test_each_element_is_drawn_as_often(name, count):
    images = torch.arange(9, dtype=torch.uint8).reshape(1, 1, 3, 3).repeat(800, 1, 1, 1)
    labels = torch.arange(800)
    augment = AUGMENTATIONS[name]
    assert augment is not None
    turned, same = augment((images, labels), torch.arange(800))
    assert torch.equal(same, labels)
    assert turned.dtype == torch.uint8
    kinds, times = turned.flatten(1).unique(dim=0, return_counts=True)
    allowed = {tuple(transform(images[0], number).flatten().tolist()) for number in range(8)}
    assert len(kinds) == count
    assert {tuple(kind.tolist()) for kind in kinds} <= allowed
    assert times.min() > 0.6 * 800 / count


def test_images_that_are_no_squares_keep_their_shape():
    images = torch.arange(6).reshape(1, 1, 2, 3).repeat(100, 1, 1, 1)
    augment = AUGMENTATIONS["d4"]
    assert augment is not None
    turned = augment((images,), torch.arange(100))[0]
    assert turned.shape == images.shape
    assert len(turned.flatten(1).unique(dim=0)) == 4


def test_a_sample_is_augmented_alike_in_any_batch():
    images = torch.rand(20, 3, 5, 5)
    keys = torch.arange(20)
    augment = AUGMENTATIONS["d4"]
    assert augment is not None
    assert torch.equal(augment((images,), keys)[0][5:7], augment((images[5:7],), keys[5:7])[0])


def test_orbits_are_those_of_the_groups():
    assert {name: len(orbit) for name, orbit in ORBITS.items()} == {
        "c4": 4,
        "c8": 4,
        "so2": 4,
        "d4": 8,
        "o2": 8,
        "none": 8,
    }
