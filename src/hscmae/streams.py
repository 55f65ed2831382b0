"""Random draws keyed by what they are for.

Every mask, dropout pattern and order of rows comes from its own generator, seeded by (seed, purpose, step). So nothing
has to be stored to resume a run, removing one part of the method leaves the draws of every other part as they were,
and a process of several draws for the whole global batch and keeps its own rows.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def generator(seed: int, purpose: str, step: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for one purpose at one step."""
    return torch.Generator(device).manual_seed(_key(seed, purpose, step))


def _key(seed: int, purpose: str, step: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{purpose}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Noise:
    """The random patterns of one training step.

    Args:
        seed: the run's seed.
        step: the step's number.
        first: this process's first row in the global batch.
        total: rows of the global batch; ``None`` where the batch is not shared among processes.
    """

    def __init__(self, seed: int, step: int, first: int = 0, total: int | None = None) -> None:
        self.seed, self.step, self.first, self.total = seed, step, first, total
        self.sources: dict[str, torch.Generator] | None = None

    def draw_from(self, sources: dict[str, torch.Generator]) -> None:
        """Draw from generators that outlive the step, by purpose; they are set to this step, new ones are added.

        A CUDA graph draws from the generators that it was recorded with. The numbers are the same.
        """
        for purpose, source in sources.items():
            source.manual_seed(_key(self.seed, purpose, self.step))
        self.sources = sources

    def keep(self, purpose: str, like: Tensor, probability: float | Tensor) -> Tensor:
        """Bernoulli draws in the shape (n, d), type and device of ``like``: 1 with ``probability``, else 0.

        The probability is one number, or one a row, shape (n, 1). On a CPU a draw is 16 random bits, a third of the
        time of torch's own: the probability is met to 2^-17.
        """
        drawn, source = self._global_batch(purpose, like, like.dtype)
        if like.device.type != "cpu" or (isinstance(probability, float) and probability >= 1):
            return (self._own(drawn.uniform_(generator=source), like) < probability).to(like.dtype)
        words = torch.empty(-(-drawn.numel() // 4), dtype=torch.int64).random_(-(2**63), None, generator=source)
        bits = self._own(words.view(torch.int16)[: drawn.numel()].view(drawn.shape), like)
        limit = (torch.as_tensor(probability) * 2**16).round().clamp(max=2**16 - 1) - 2**15
        return torch.lt(bits, limit.to(torch.int16), out=torch.empty_like(like))

    def uniform(self, purpose: str, like: Tensor) -> Tensor:
        """Uniform draws from [0, 1) in the shape (n, d) and on the device of ``like``, float32."""
        drawn, source = self._global_batch(purpose, like, torch.float32)
        return self._own(drawn.uniform_(generator=source), like)

    def _global_batch(self, purpose: str, like: Tensor, dtype: torch.dtype) -> tuple[Tensor, torch.Generator]:
        rows = len(like) if self.total is None else self.total
        drawn = torch.empty(rows, *like.shape[1:], dtype=dtype, device=like.device)
        if self.sources is None:
            return drawn, generator(self.seed, purpose, self.step, like.device)
        if purpose not in self.sources:
            self.sources[purpose] = generator(self.seed, purpose, self.step, like.device)
        return drawn, self.sources[purpose]

    def _own(self, drawn: Tensor, like: Tensor) -> Tensor:
        return drawn[self.first : self.first + len(like)]
