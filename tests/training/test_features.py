"""Rows from a memory-mapped store give the very weights that rows in memory give, and only what is asked is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import make_pairs
from hscmae.config import flatten
from hscmae.data.pairs import Pairs
from hscmae.data.store import open_store, write_store
from hscmae.methods import METHODS, get_method
from hscmae.methods.base import Method
from hscmae.training import features as module
from hscmae.training.features import Features, row_blocks

QUICK: dict[str, Any] = {
    "dim": 6,
    "network_width": 16,
    "training_steps": 12,
    "training_batch_size": 64,
    "training_evaluations": 4,
}


def quick(name: str, **settings: Any) -> Method:
    known = flatten(get_method(name).Config())
    return get_method(name)(**{k: v for k, v in QUICK.items() if k in known} | settings)


def holed(n: int = 300) -> Pairs:
    data = make_pairs(n)
    present = {"audio": np.arange(n) % 5 != 1, "visual": np.arange(n) % 7 != 2}
    data.features["audio"][np.arange(n) % 11 == 0] = 0.5  # silent
    return replace(data, present=present)


def same(a: Method, b: Method) -> None:
    """Equal to the bit; through a kernel view to rounding: it maps all rows at once, or the rows of a batch, and the
    last bit of a product of matrices may depend on how many rows there are.
    """
    first, second = a._tensors(), b._tensors()
    assert first.keys() == second.keys()
    rounding = {"atol": 1e-4, "rtol": 1e-4} if any(name.startswith("view/") for name in first) else None
    for name, tensor in first.items():
        if rounding and not name.startswith("view/"):
            torch.testing.assert_close(tensor, second[name], **rounding, msg=name)
        else:
            assert torch.equal(tensor, second[name]), name
    for m, scaler in a.scalers_.items():
        np.testing.assert_array_equal(scaler.mean, b.scalers_[m].mean)
        np.testing.assert_array_equal(scaler.scale, b.scalers_[m].scale)


@pytest.mark.parametrize(("name", "settings"), [(name, {}) for name in METHODS] + [("hscmae", {"view_kind": "linear"})])
def test_mapped_rows_give_the_same_weights(
    name: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = holed()
    in_memory = quick(name, **settings).fit(data)
    write_store(data, tmp_path / "store")
    mapped = open_store(tmp_path / "store")
    assert isinstance(mapped.features["audio"], np.memmap)
    monkeypatch.setattr(module, "IN_MEMORY_BYTES", 0)
    same(quick(name, **settings).fit(mapped), in_memory)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = holed()
    data = replace(data, features={m: x.astype(dtype) for m, x in data.features.items()})
    in_memory = quick("hscmae").fit(data)
    monkeypatch.setattr(module, "IN_MEMORY_BYTES", 0)
    same(quick("hscmae").fit(data), in_memory)


def test_mapped_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    n, steps = 120, 4
    data = Pairs(
        {m: rng.normal(size=(n, steps, d)).astype(np.float32) for m, d in (("audio", 5), ("visual", 7))},
        lengths={"audio": rng.integers(0, steps + 1, n), "visual": np.full(n, steps)},
    )
    in_memory = quick("hscmae", pooling="attention").fit(data)
    monkeypatch.setattr(module, "IN_MEMORY_BYTES", 0)
    same(quick("hscmae", pooling="attention").fit(data), in_memory)


def test_a_resumed_run_reads_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_MEMORY_BYTES", 0)
    data = make_pairs(200)

    class Killed(Exception):
        pass

    def kill(record: dict[str, Any]) -> None:
        if record["step"] == 9 and record["phase"] == "select":
            raise Killed

    whole = quick("hscmae", training_checkpoint_seconds=0.0).fit(data)
    with pytest.raises(Killed):
        quick("hscmae", training_checkpoint_seconds=0.0).fit(data, run=tmp_path, progress=kill)
    assert (tmp_path / "checkpoint.safetensors").exists()
    same(quick("hscmae", training_checkpoint_seconds=0.0).fit(data, run=tmp_path, resume=True), whole)


def test_row_blocks_are_the_rows() -> None:
    data = holed(50)
    rows = np.flatnonzero(np.arange(50) % 3)
    blocks = list(row_blocks(data, rows, "mean", size=7))
    for m, x in data.features.items():
        np.testing.assert_array_equal(np.concatenate([block[m] for block, _ in blocks]), x[rows])
        np.testing.assert_array_equal(np.concatenate([here[m] for _, here in blocks]), data.present[m][rows])


def test_large_arrays_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_pairs(64)
    scalers = quick("random").fit(data).scalers_
    resident = Features(data, np.arange(64), scalers, torch.device("cpu"))
    assert resident.resident is not None
    monkeypatch.setattr(module, "IN_MEMORY_BYTES", 4 * 64 * 32 - 1)
    mapped = Features(data, np.arange(64), scalers, torch.device("cpu"))
    assert mapped.resident is None
    wanted = [torch.tensor([3, 60, 3]), torch.tensor([7])]
    for a, b in zip(resident.batches(iter(wanted)), mapped.batches(iter(wanted)), strict=True):
        for m in data.modalities:
            assert torch.equal(a.x[m], b.x[m])
            assert torch.equal(a.present[m], b.present[m])
        assert torch.equal(a.rows, b.rows)
