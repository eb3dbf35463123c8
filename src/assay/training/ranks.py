"""The processes of one run as each of them sees the others.

A rank is one process with one device. What ranks must do together (log, save, stop, give up) is decided
from numbers that are the same on all of them, never from a rank's own clock or signals.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from assay.config.arm import Execution

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """One rank among `size`; a single process is rank 0 of 1 and talks to nobody."""

    rank: int = 0
    size: int = 1
    on_node: int = 0
    """Which one of its node's ranks it is."""

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def sum(self, *numbers: float) -> list[float]:
        """Each number summed over the ranks, in float64."""
        return self._reduced(numbers, torch.float64, dist.ReduceOp.SUM)

    def most(self, *numbers: int) -> list[int]:
        """The largest of each number over the ranks."""
        return self._reduced(numbers, torch.int64, dist.ReduceOp.MAX)

    def _reduced(self, numbers: tuple[Any, ...], dtype: torch.dtype, how: Any) -> list[Any]:
        if self.size == 1:
            return list(numbers)
        values = torch.tensor(numbers, dtype=dtype)
        dist.all_reduce(values, op=how)
        return list(values.tolist())

    def gather(self, value: T) -> list[T]:
        """Every rank's value, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def from_first(self, value: T) -> T:
        """The value of rank 0."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[no-any-return]

    def wait(self) -> None:
        """Until all ranks are here."""
        self.sum(0.0)

    def parallel(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model as it is called in training: its gradients are averaged over the ranks as they are computed.

        Unused parameters are looked for, because only then PyTorch keeps the buckets of gradients as they are:
        otherwise it rearranges them after the first step, and sums over three ranks and more would be rounded
        otherwise in a run that was taken up again.
        """
        if self.size == 1:
            return model
        devices = [device.index] if device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, find_unused_parameters=True)

    def share_buffers(self, model: nn.Module) -> None:
        """Let every rank have rank 0's buffers: they differ where a module keeps statistics of what it saw itself."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def apart(self, model: nn.Module) -> AbstractContextManager[Any]:
        """While gradients are only added up on each rank: the next step outside averages them."""
        return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


ALONE = Ranks()


def join(settings: Execution) -> Ranks:
    """Meet the other ranks, as torchrun's variables say; NCCL among GPUs, Gloo among CPUs and for decisions.

    Raises: ValueError where this node has fewer GPUs than `execution.devices`.
    """
    ranks = Ranks(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    backend = "gloo"
    if settings.device != "cpu" and torch.cuda.is_available():
        count = torch.cuda.device_count()
        if count < settings.devices:
            raise ValueError(
                f"execution.devices: {settings.devices}, but PyTorch sees {count} GPUs on this node; "
                f"write `devices: {count}`, or ask the scheduler for {settings.devices} GPUs a node"
            )
        torch.cuda.set_device(ranks.on_node)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend)
    return ranks
