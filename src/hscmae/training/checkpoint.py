"""Checkpoints: all state of a run in one safetensors file, written atomically, never pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from hscmae.errors import InputError
from hscmae.files import write_atomic

NAME = "checkpoint.safetensors"


def save_checkpoint(
    folder: Path,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    kept: Mapping[str, Tensor],
    state: Mapping[str, Any],
) -> None:
    """Write ``folder/checkpoint.safetensors``: weights, optimiser moments, what is ``kept``, ``state`` as JSON."""
    tensors = {f"module/{name}": value for name, value in module.state_dict().items()}
    for index, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{name}": torch.as_tensor(value) for name, value in moments.items()}
    tensors |= {f"kept/{name}": value for name, value in kept.items()}
    contiguous = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    write_atomic(folder / NAME, save(contiguous, metadata={"state": json.dumps(dict(state))}))


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and state of ``folder``'s checkpoint, or ``None`` where there is none yet.

    Raises:
        InputError: the file is not a checkpoint.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            state: dict[str, Any] = json.loads(file.metadata()["state"])
            return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a checkpoint of this program ({error})") from None


def restore(tensors: dict[str, Tensor], module: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Put a checkpoint's tensors back."""
    module.load_state_dict({n.removeprefix("module/"): t for n, t in tensors.items() if n.startswith("module/")})
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser/"):
            _, index, key = name.split("/")
            moments.setdefault(int(index), {})[key] = value
    whole = optimiser.state_dict()
    whole["state"] = moments
    optimiser.load_state_dict(whole)
