"""A query in a link: short enough for the server that is to read it, whatever the embedding's size."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hscmae.serve.limits import MOST_TARGET
from hscmae.serve.vectors import MOST_TEXT, MOST_WINDOWS, from_text, to_text


@pytest.mark.parametrize("dim", [2, 64, 256, 512, 1024, 4096])
def test_a_link_is_read_by_the_server_that_made_it(dim: int) -> None:
    archive: Any = SimpleNamespace(dim=dim, model={"sha256": "0123456789ab" * 5})
    z = np.random.default_rng(0).normal(size=(40, dim)).astype(np.float32)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    text = to_text(archive, z)
    assert len(text) <= MOST_TEXT < MOST_TARGET
    rows = from_text(archive, text)
    assert 1 <= len(rows) <= MOST_WINDOWS and (len(rows) == MOST_WINDOWS or dim > 256)
    assert np.allclose(rows, z[: len(rows)], atol=2e-3)
