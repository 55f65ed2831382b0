"""Sums through shared memory are the sums of what the processes have, and leave no file behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from hscmae.training import distributed, shared_memory
from processes import in_processes

SHAPES = [(1,), (7, 3), (5000,), (40, 50), (70_000,), (3,), (70_001,)]


def own(rank: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)
    return values.to(dtype) if dtype.is_floating_point else (100 * values).to(dtype)


def check(size: int, rank: int, shared: bool) -> None:
    for dtype in (torch.float32, torch.float64, torch.int64):
        for shape in SHAPES:
            summed = own(rank, shape, dtype)
            assert distributed._memory.sum_(summed) is shared
            if shared:
                expected = own(0, shape, dtype)
                for other in range(1, size):
                    expected += own(other, shape, dtype)
                assert torch.equal(summed, expected)
            else:
                assert torch.equal(summed, own(rank, shape, dtype))
    assert not distributed._memory.sum_(torch.zeros(9, device="meta"))


def grouped(rank: int, size: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)


def sums(rank: int, size: int, folder: str) -> None:
    shared_memory.LEAST_BYTES, shared_memory.FOLDER = 1, Path(folder)
    for again in ("first", "second"):  # another group has other memory
        (Path(folder) / again).mkdir(exist_ok=True)
        grouped(rank, size, f"{folder}/{again}")
        check(size, rank, shared=True)
        dist.destroy_process_group()


def no_room(rank: int, size: int, folder: str) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    shared_memory.LEAST_BYTES, shared_memory.FOLDER, os.posix_fallocate = 1, Path(folder), full
    grouped(rank, size, folder)
    check(size, rank, shared=False)
    dist.destroy_process_group()


def other_machines(rank: int, size: int, folder: str) -> None:
    shared_memory.LEAST_BYTES, shared_memory.FOLDER = 1, Path(folder) / str(rank)
    shared_memory.FOLDER.mkdir()
    grouped(rank, size, folder)
    check(size, rank, shared=False)
    dist.destroy_process_group()


def little(rank: int, size: int, folder: str) -> None:
    shared_memory.FOLDER = Path(folder)
    grouped(rank, size, folder)
    assert not distributed._memory.sum_(torch.zeros(shared_memory.LEAST_BYTES // 4 - 1))
    assert distributed._memory.sum_(torch.zeros(shared_memory.LEAST_BYTES // 4))
    dist.destroy_process_group()


@pytest.mark.parametrize("work", [sums, no_room, other_machines, little])
@pytest.mark.parametrize("size", [2, 3])
def test_sums(size: int, work: Any, tmp_path: Path) -> None:
    in_processes(work, size, tmp_path)
    assert not list(tmp_path.rglob("hscmae-*"))
