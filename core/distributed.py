"""Several processes, started by ``torchrun``, that train and evaluate as one.

Without ``torchrun`` there is one process of rank 0 and every function here does the obvious.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["gather", "is_main", "joined", "of_main", "rank", "total", "wait", "world_size"]


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is the one that writes files and talks."""
    return rank() == 0


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Joins the processes that ``torchrun`` started, if it did, and yields the device of this one.

    Processes on CUDA take one GPU each, by local rank, and talk through NCCL; on the CPU, through gloo.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or dist.is_initialized():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def wait() -> None:
    """Returns once every process has come here."""
    if dist.is_initialized():
        dist.barrier()


def of_main(answer: bool) -> bool:
    """What the main process says, in every process: of a clock, say, which each reads at another moment."""
    answers = [answer]
    if dist.is_initialized():
        dist.broadcast_object_list(answers)
    return answers[0]


class _Total(torch.autograd.Function):
    """The sum over processes. Each process's values are in the sum of every process, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return total(gradient)


def total(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes, through which gradients flow: for statistics of a whole batch."""
    if world_size() == 1:
        return values
    summed: Tensor = _Total.apply(values)  # type: ignore[no-untyped-call]
    return summed


def gather(rows: Tensor, count: int) -> Tensor:
    """Puts together rows dealt out like cards: process r holds rows r, r + world, r + 2 world, …

    Args:
        rows: this process's share, shape (n, …), on the CPU.
        count: number of rows of all processes.

    Returns:
        All rows in order, shape (count, …), in every process.
    """
    if world_size() == 1:
        return rows
    shares: list[Tensor] = [rows] * world_size()
    dist.all_gather_object(shares, rows)
    whole = rows.new_empty((count, *rows.shape[1:]))
    for number, share in enumerate(shares):
        whole[number :: world_size()] = share
    return whole
