"""The type that a training step's matrix products are done in: by default what this machine is quick in.

Weights, losses and what the optimiser keeps stay in float32 (automatic mixed precision, Micikevicius et al. 2018).
"""

from __future__ import annotations

import time
from functools import lru_cache

import torch

SIZE = 512  # rows and columns of the products that are timed
TIMES = 4
GAIN = 1.5  # so many times quicker a product must be, because numbers are converted around it
WIDE = 256  # the products of narrower networks are too small to gain


@lru_cache
def speedup(device: torch.device) -> float:
    """How many times quicker a product is in bfloat16 than in float32; the best of several turns, in milliseconds.

    >>> speedup(torch.device("cpu")) > 0
    True
    """
    float32 = torch.ones(SIZE, SIZE, device=device)
    taken = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    for _ in range(TIMES):
        for dtype in taken:
            x = float32.to(dtype)
            started = time.perf_counter()
            float(torch.nn.functional.linear(x, x)[0, 0])  # asked for, so that a GPU is waited for
            taken[dtype] = min(taken[dtype], time.perf_counter() - started)
    return taken[torch.float32] / taken[torch.bfloat16]


def precision_of(setting: str, width: int, device: torch.device) -> str:
    """The setting itself, or for "auto" bfloat16 where this machine is quicker in it and the network wide enough.

    >>> precision_of("bfloat16", 8, torch.device("cpu")), precision_of("auto", 8, torch.device("cpu"))
    ('bfloat16', 'float32')
    """
    if setting != "auto":
        return setting
    return "bfloat16" if width >= WIDE and speedup(device) >= GAIN else "float32"
