"""Rows known again in another file, format or order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from conftest import make_pairs
from hscmae.data.fingerprint import fingerprint, joined
from hscmae.data.pairs import Pairs


@given(seed=st.integers(0, 99), size=st.integers(1, 60))
def test_rows_are_known_by_content_whatever_their_order_type_and_file(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    data = make_pairs(60, seed=seed)
    chosen = rng.choice(60, size, replace=False)
    part = data.take(chosen)
    wider = {m: x.astype(np.float64) for m, x in part.features.items()}
    unnamed = Pairs(wider, np.array([f"other{i}" for i in range(size)], "S"))
    expected = np.isin(np.arange(60), chosen)
    whole = fingerprint(data)
    np.testing.assert_array_equal(whole.among(fingerprint(unnamed)), expected)
    assert whole.holds(fingerprint(unnamed)) and fingerprint(unnamed).holds(whole) == (size == 60)


def test_rows_are_known_by_id_when_their_features_were_extracted_anew() -> None:
    data = make_pairs(40)
    changed = replace(data, features={m: x * 2 for m, x in data.features.items()})
    assert fingerprint(changed).among(fingerprint(data.take(np.arange(10)))).sum() == 10
    assert not fingerprint(changed).holds(fingerprint(data))


def test_what_a_row_lacks_and_steps_that_are_not_there_do_not_count() -> None:
    x = np.random.default_rng(0).normal(size=(6, 3, 4)).astype(np.float32)
    a = Pairs({"audio": x}, lengths={"audio": np.full(6, 2)})
    padded = x.copy()
    padded[:, 2] = 9
    b = Pairs({"audio": padded}, np.array([f"b{i}" for i in range(6)], "S"), lengths={"audio": np.full(6, 2)})
    assert fingerprint(a).holds(fingerprint(b))
    one = replace(a, lengths={"audio": np.full(6, 3)})
    assert not np.isin(fingerprint(one).content, fingerprint(a).content).any()


def test_blocks_joined_are_the_whole() -> None:
    data = make_pairs(50)
    blocks = joined(fingerprint(data, rows=rows) for rows in np.array_split(np.arange(50), 4))
    whole = fingerprint(data)
    np.testing.assert_array_equal(blocks.content, whole.content)
    assert blocks.ids is not None and whole.ids is not None
    np.testing.assert_array_equal(blocks.ids, whole.ids)
