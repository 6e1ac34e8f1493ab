"""Histology and other labelled images: models, task and metrics."""
