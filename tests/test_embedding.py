"""Embedding files: the store's content against the model's, and the Ray engine's bytes against the plain path's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import make_pairs
from hscmae import ray_engine
from hscmae.data import table
from hscmae.data.pairs import Pairs
from hscmae.data.store import MANIFEST, open_store, write_store
from hscmae.embedding import embed_file, embed_rows
from hscmae.errors import InputError
from hscmae.methods import CCA, HSCMAE
from hscmae.prefetch import in_parallel
from hscmae.ray_engine import embed_on_ray


@pytest.fixture
def data() -> Pairs:
    made = make_pairs(500)
    return replace(made, present={"audio": np.arange(500) % 5 != 1, "visual": np.arange(500) % 7 != 2})


@pytest.fixture
def store(data: Pairs, tmp_path: Path) -> Path:
    write_store(data, tmp_path / "features")
    return tmp_path / "features"


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


def same_files(a: Path, b: Path) -> None:
    assert sorted(p.name for p in a.iterdir()) == sorted(p.name for p in b.iterdir())
    for path in a.iterdir():
        if path.name != MANIFEST:
            assert path.read_bytes() == (b / path.name).read_bytes(), path.name


@pytest.mark.parametrize("split", ["all", "test"])
def test_the_store_holds_what_the_model_gives(
    data: Pairs, store: Path, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "BLOCK_BYTES", 64 * 128)
    model = CCA(dim=4).fit(data)
    seen: list[int] = []
    rows = embed_file(model, store, tmp_path / "z", split=split, progress=lambda done, total: seen.append(done))
    wanted = data.of_split(split)
    assert rows == len(wanted) and seen == [64, 128, 192, 256, 320, 384, 448, 500]
    z = open_store(tmp_path / "z")
    for m, expected in model.embed_pairs(wanted).items():
        np.testing.assert_allclose(z.features[m], expected, atol=1e-6)
        np.testing.assert_array_equal(z.present[m], wanted.present[m])
    np.testing.assert_array_equal(z.ids, wanted.ids)
    np.testing.assert_array_equal(z.split, wanted.split)


def test_values_that_are_not_finite_are_refused_or_left_out(data: Pairs, tmp_path: Path) -> None:
    model = CCA(dim=4).fit(data)
    data.features["visual"][[40, 450]] = np.nan
    np.savez(tmp_path / "bad.npz", audio=data.features["audio"], visual=data.features["visual"])
    with pytest.raises(InputError, match="rows 40, 450"):
        embed_file(model, tmp_path / "bad.npz", tmp_path / "z")
    assert not (tmp_path / "z").exists()
    assert embed_file(model, tmp_path / "bad.npz", tmp_path / "z", drop_bad_rows=True) == 498


def test_rows_without_a_direction_are_named_by_their_ids(
    data: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = CCA(dim=4).fit(data)
    data.features["visual"][[40, 450]] = 1e24
    write_store(data, tmp_path / "far")
    np.savez(tmp_path / "far.npz", audio=data.features["audio"], visual=data.features["visual"])
    monkeypatch.setattr(table, "BLOCK_BYTES", 64 * 128)
    for file, clips in (("far", "clip clip00040"), ("far.npz", "row 40")):
        with pytest.raises(InputError, match=f"{file}: visual: values too large for float32, .* in {clips}$"):
            embed_file(model, tmp_path / file, tmp_path / "z")
        assert not (tmp_path / "z").exists()


def test_the_number_of_threads_changes_no_byte_and_stays_as_it_was(
    data: Pairs, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table.Table, "block_rows", lambda self, rows=0: 64)
    model = HSCMAE(dim=6, network_width=256, training_steps=3).fit(data)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            embed_file(model, store, tmp_path / str(threads))
            assert torch.get_num_threads() == threads
            in_new_thread = list(in_parallel(lambda _: torch.get_num_threads(), iter([0]), 1, int))
            assert in_new_thread == [threads]
    finally:
        torch.set_num_threads(before)
    same_files(tmp_path / "1", tmp_path / "3")


def test_ray_gives_the_same_bytes(
    ray: Any, data: Pairs, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "PART_BLOCKS", 1)
    monkeypatch.setattr(table.Table, "block_rows", lambda self, rows=0: 64)
    model = HSCMAE(dim=6, network_width=16, training_steps=3).fit(data)
    embed_file(model, store, tmp_path / "plain")
    embed_file(model, store, tmp_path / "ray", blocks=embed_on_ray)
    same_files(tmp_path / "plain", tmp_path / "ray")


def test_what_a_dead_worker_left_is_done_again(
    ray: Any, data: Pairs, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "PART_BLOCKS", 1)
    died, failed = tmp_path / "died", tmp_path / "failed"

    class Fragile(CCA):
        def embed_checked(self, pairs: Pairs) -> Any:
            if not died.exists():
                died.touch()
                os._exit(1)
            if not failed.exists():
                failed.touch()
                raise OSError("the disk did not answer")
            return super().embed_checked(pairs)

    model = Fragile(dim=4).fit(data)
    embed_file(model, store, tmp_path / "ray", blocks=embed_on_ray)
    assert died.exists() and failed.exists()
    embed_file(model, store, tmp_path / "plain")
    same_files(tmp_path / "plain", tmp_path / "ray")


def test_ray_refuses_bad_input_in_the_same_words(ray: Any, data: Pairs, tmp_path: Path) -> None:
    model = CCA(dim=4).fit(data)
    data.features["visual"][40] = np.nan
    np.savez(tmp_path / "bad.npz", audio=data.features["audio"], visual=data.features["visual"])
    messages = []
    for blocks in (embed_rows, embed_on_ray):
        with pytest.raises(InputError) as error:
            embed_file(model, tmp_path / "bad.npz", tmp_path / "z", blocks=blocks)
        messages.append(str(error.value))
        assert not (tmp_path / "z").exists()
    assert messages[0] == messages[1] and "row 40" in messages[0]
