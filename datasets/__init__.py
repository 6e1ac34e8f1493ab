"""Readers, splits and small real data sets: files in, uint8 tensors out. Knows no network.

Start at `parteq.datasets.images.open_images`, which reads whatever an image path points at.
"""
