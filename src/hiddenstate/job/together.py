"""The processes of one fit, where torchrun has started several."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed


@dataclass(frozen=True)
class Team:
    """This process among `count` of them; the first one leads: it writes and tells."""

    index: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes the run folder."""
        return self.index == 0

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def processes(device: torch.device) -> Iterator[Team]:
    """Join the processes that torchrun started (WORLD_SIZE in the environment); else be alone.

    gloo joins them on processors; on GPUs, of which each process takes its own, NCCL does, and gloo
    the numbers beside. Processes that are joined already stay so.
    """
    if distributed.is_available() and distributed.is_initialized():
        yield Team(distributed.get_rank(), distributed.get_world_size())
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Team()
        return
    on_gpus = device.type == "cuda"
    if on_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo")
    try:
        yield Team(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
