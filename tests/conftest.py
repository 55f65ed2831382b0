"""Fixtures that many tests share: small made-up pairs, and the real features where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from hscmae.data.pairs import Labels, Pairs

THREADS = int(os.environ.get("HSCMAE_TEST_THREADS", "1"))  # see test_processors.py
REAL = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real features; the test is skipped where it is absent."""
    if not (REAL / "yt8m_ave15.h5").exists():
        pytest.skip("needs the real features in ../shared/data")
    return REAL.resolve()


def make_pairs(n: int = 160, *, dims: tuple[int, int] = (12, 20), classes: int = 4, seed: int = 0) -> Pairs:
    """Pairs with a shared low-dimensional cause, labels and a split; quick to learn from."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    cause = rng.normal(size=(classes, 6))[labels] * 2 + rng.normal(size=(n, 6))
    features = {
        name: (cause @ rng.normal(size=(6, d)) + rng.normal(size=(n, d))).astype(np.float32)
        for name, d in zip(("audio", "visual"), dims, strict=True)
    }
    split = np.where(np.arange(n) % 5 == 0, b"test", b"train").astype("S5")
    ids = np.array([f"clip{i:05d}" for i in range(n)], dtype=np.bytes_)
    return Pairs(features, ids, labels=Labels.single(labels), split=split, source="made-up")


@pytest.fixture
def pairs() -> Pairs:
    return make_pairs()


@pytest.fixture(autouse=True)
def _same_every_time() -> None:
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
