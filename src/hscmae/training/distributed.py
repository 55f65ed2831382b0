"""Several processes: the group that torchrun's environment names, and what a training step exchanges in it.

Each process has a share of the rows of every global batch. It embeds them, gathers the others' embeddings and computes
the losses of the *global* batch, so that every process holds the same total. What is minimised is the mean of these
totals over processes; each exchange below has its plain adjoint as backward pass, so that gradients summed over
processes are exact whatever an objective computes in between. With one process everything here does nothing.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from hscmae.errors import RunError, first_line
from hscmae.training.shared_memory import SharedMemory

# A process that hangs ends the job after this long; one that dies does so at once. Processes do the same work side by
# side, so they never wait for each other by more than the writing of a checkpoint.
TIMEOUT = timedelta(minutes=5)
# How long a failed process waits for another one to have said why.
GRACE = timedelta(seconds=5)
RESUME = "--resume goes on from the last checkpoint"
T = TypeVar("T")


def rank() -> int:
    """This process's number; 0 without a group."""
    return dist.get_rank() if _grouped() else 0


def size() -> int:
    """Number of processes; 1 without a group."""
    return dist.get_world_size() if _grouped() else 1


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def _grouped() -> bool:
    return dist.is_available() and dist.is_initialized()


@dataclass(frozen=True)
class Share:
    """This process's rows of a global batch.

    Attributes:
        sizes: rows of each process, in their order in the batch.
        rank: this process.
    """

    sizes: tuple[int, ...]
    rank: int

    @classmethod
    def of(cls, total: int) -> Share | None:
        """Shares of ``total`` rows that differ by one row at most; ``None`` where one process has all."""
        n = size()
        return None if n == 1 else cls(tuple(total * (r + 1) // n - total * r // n for r in range(n)), rank())

    @property
    def total(self) -> int:
        return sum(self.sizes)

    @property
    def first(self) -> int:
        return sum(self.sizes[: self.rank])

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + self.sizes[self.rank])


def gather(own: Mapping[str, Tensor], share: Share) -> dict[str, Tensor]:
    """Rows of the whole batch from those of every process, in one exchange.

    Args:
        own: tensors by name, each of shape (rows of this process, ...), all of one type.
        share: which rows these are.

    Returns:
        Each with the rows of all processes, differentiable.
    """
    if not own:
        return {}
    widths = [x.shape[1:].numel() for x in own.values()]
    flat = torch.cat([x.reshape(len(x), width) for x, width in zip(own.values(), widths, strict=True)], 1)
    parts = torch.split(_gather(flat, share), widths, 1)
    return {name: part.reshape(-1, *x.shape[1:]) for (name, x), part in zip(own.items(), parts, strict=True)}


def total(own: Tensor) -> Tensor:
    """Sum over processes; differentiable, as long as all that follows is the same in every process."""
    summed: Tensor = _Total.apply(own)  # type: ignore[no-untyped-call]
    return summed


def _gather(own: Tensor, share: Share) -> Tensor:
    whole: Tensor = _Gather.apply(own, share)  # type: ignore[no-untyped-call]
    return whole


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, share: Share) -> Tensor:
        ctx.share = share
        sent = own.view(torch.uint8) if own.dtype == torch.bool else own
        padded = sent.new_zeros(max(share.sizes), sent.shape[1])  # an exchange wants one shape everywhere
        padded[: len(sent)] = sent
        parts = [torch.empty_like(padded) for _ in share.sizes]
        with _connected():
            dist.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, share.sizes, strict=True)]).view(own.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _sum(gradient)[ctx.share.rows], None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return _sum(own)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * size()  # the sum of what is the same everywhere


def backward(loss: Tensor, parameters: Iterable[nn.Parameter]) -> None:
    """Gradients of the global batch in every process, from the ``loss`` that every process has computed alike."""
    if size() == 1:
        loss.backward()  # type: ignore[no-untyped-call]
        return
    (loss / size()).backward()  # type: ignore[no-untyped-call]
    moved = [p for p in parameters if p.grad is not None]
    flat = _sum_(torch.cat([p.grad.flatten() for p in moved if p.grad is not None]))
    for parameter, gradient in zip(moved, torch.split(flat, [p.numel() for p in moved]), strict=True):
        parameter.grad = gradient.view_as(parameter)


def first_of(value: T) -> T:
    """The first process's ``value``, which JSON can hold, in every process."""
    if size() == 1:
        return value
    text = json.dumps(value).encode() if is_first() else b""
    length = _from_first(torch.tensor([len(text)]))
    own = (
        torch.frombuffer(bytearray(text), dtype=torch.uint8)
        if is_first()
        else torch.empty(int(length), dtype=torch.uint8)
    )
    agreed: T = json.loads(_from_first(own).numpy().tobytes())
    return agreed


def copy_first(tensors: Iterable[Tensor]) -> None:
    """Give every process the first one's tensors, in place, however its own came out."""
    if size() > 1:
        for tensor in tensors:
            _from_first(tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor)


def _sum(own: Tensor) -> Tensor:
    return _sum_(own.clone(memory_format=torch.contiguous_format))


def _sum_(own: Tensor) -> Tensor:
    with _connected():
        if not _memory.sum_(own):
            dist.all_reduce(own)
    return own


def _from_first(tensor: Tensor) -> Tensor:
    if tensor.numel():
        with _connected():
            dist.broadcast(tensor, 0)
    return tensor


_memory = SharedMemory(first_of)


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = first_line(error)
        raise RunError(f"another process of this job has ended or hangs; {RESUME} ({reason})") from None


def run_as_one(command: Callable[[], tuple[int, Callable[[], None]]]) -> int:
    """Run a command in each of torchrun's processes: the first alone prints, and the first to fail says why.

    Args:
        command: returns its exit code, and what is to be called to say why it failed.
    """
    try:
        store = join()
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    with ExitStack() as silence:
        if not is_first():
            nowhere = silence.enter_context(open(os.devnull, "w"))  # noqa: PTH123
            silence.enter_context(redirect_stdout(nowhere))
            silence.enter_context(redirect_stderr(nowhere))
        code, say = command()
    if code:
        fail(store, say)
    else:
        dist.destroy_process_group()
    return code


def join() -> Store:
    """Form the group that torchrun's environment names; returns the store that its processes share.

    Raises:
        RunError: the processes do not find each other.
    """
    try:
        store: Store
        store, number, count = next(rendezvous("env://", timeout=TIMEOUT))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        group = PrefixStore("group", store)
        dist.init_process_group(backend, store=group, rank=number, world_size=count, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise RunError(f"the processes do not find each other ({first_line(error)})") from None
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    # torchrun passes on both; a job in the background of a shell would ignore the second.
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return store


def fail(store: Store, say: Callable[[], None]) -> None:
    """Let the first process that fails ``say`` why; the others wait until it has: torchrun then ends them all."""
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, signal.SIG_IGN)
    try:
        if store.add("failed", 1) == 1:
            say()
            store.set("heard", "yes")
        else:
            store.wait(["heard"], GRACE)
    except RuntimeError:  # the store ended before, or the one that was to speak was killed
        say()


def _stop(*_: object) -> None:
    raise RunError(f"the job was stopped, or another of its processes has ended; {RESUME}")
