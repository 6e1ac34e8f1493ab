"""What all tests share: threads, Hypothesis profiles, and the folder of real data."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest
import torch

# Deterministic, and no deadline: the first example of a test often pays for a basis that is then cached.
hypothesis.settings.register_profile("parteq", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.load_profile("parteq")

os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the tests of the core; here, because pytest takes options from the outermost folder alone."""
    parser.addoption("--group", action="append", metavar="NAME", help="test the core with this group; may be repeated")
    parser.addoption("--band", type=int, metavar="L", help="test the core at this highest frequency")


def pytest_configure(config: pytest.Config) -> None:
    """One thread a process under xdist, where the processes are the parallelism."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: PARTEQ_DATA, or ../shared/data beside the repository."""
    from parteq.pipelines.benchmarks import data_folder  # after the plugins that check types are set up

    folder = data_folder()
    if not folder.is_dir():
        # Data of others are no part of the repository: the tests marked realdata need them beside it.
        pytest.skip(f"no real data: {folder} is not there, and PARTEQ_DATA names no other folder")
    return folder
