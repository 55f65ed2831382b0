"""Splits: stable by id, seeded, and nobody in two parts."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hscmae.data import readers
from hscmae.data.convert import convert, export
from hscmae.data.fingerprint import fingerprint
from hscmae.data.pairs import Labels, Pairs
from hscmae.data.splits import exclude_ids, holdout, read_ids, resplit, validation_rows, without_clips_of
from hscmae.data.store import write_store
from hscmae.errors import InputError


def clips(n: int, prefix: str = "clip") -> Pairs:
    return Pairs({"audio": np.zeros((n, 1), np.float32)}, ids=np.array([f"{prefix}{i}" for i in range(n)], np.bytes_))


def test_id_hash_follows_the_definition_and_not_the_file() -> None:
    pairs = clips(2000)
    split = holdout(pairs.ids, "id-hash:0.2")
    for clip, side in zip(pairs.ids[:200], split[:200], strict=True):
        fraction = int(hashlib.sha256(clip).hexdigest()[:16], 16) / 2**64
        assert side == (b"test" if fraction < 0.2 else b"train")
    assert abs((split == b"test").mean() - 0.2) < 0.03
    rows = np.random.default_rng(0).permutation(2000)[:300]
    np.testing.assert_array_equal(holdout(pairs.take(rows).ids, "id-hash:0.2"), split[rows])
    wider = Pairs(pairs.features, ids=pairs.ids.astype("S40"))
    np.testing.assert_array_equal(holdout(wider.ids, "id-hash:0.2"), split)


def test_known_clip_never_changes_sides() -> None:
    """Pinned, so that a release cannot move clips between training and test."""
    assert holdout(clips(12).ids, "id-hash:0.5").tolist() == PINNED


PINNED = [b"test" if int(hashlib.sha256(f"clip{i}".encode()).hexdigest()[0], 16) < 8 else b"train" for i in range(12)]


def test_tail() -> None:
    assert holdout(clips(10).ids, "tail:0.3").tolist() == [b"train"] * 7 + [b"test"] * 3


@pytest.mark.parametrize(
    "spec", ["", "id-hash", "id-hash:", "id-hash:0", "tail:1", "tail:nan", "head:0.2", "tail:0.01"]
)
def test_malformed_or_empty_holdouts(spec: str) -> None:
    with pytest.raises(InputError, match="holdout"):
        holdout(clips(10).ids, spec)


@pytest.mark.parametrize("share", [0.01, 0.15, 0.5, 0.99])
@pytest.mark.parametrize("by_id", [False, True])
def test_validation_rows_cut_the_rows_in_two(share: float, by_id: bool) -> None:
    n = 101
    fit, validation = validation_rows(clips(n).ids if by_id else n, share, seed=3)
    assert sorted([*fit, *validation]) == list(range(n))
    assert len(validation) == min(max(round(n * share), 1), n - 1)
    assert np.all(np.diff(fit) > 0) and np.all(np.diff(validation) > 0)
    again = validation_rows(clips(n).ids if by_id else n, share, seed=3)
    np.testing.assert_array_equal(validation, again[1])
    if len(validation) > 5:
        other = validation_rows(clips(n).ids if by_id else n, share, seed=4)[1]
        assert validation.tolist() != other.tolist()


def test_validation_by_id_does_not_depend_on_order() -> None:
    ids = clips(50).ids
    order = np.random.default_rng(0).permutation(50)
    chosen = set(ids[validation_rows(ids, 0.2, 0)[1]])
    assert chosen == set(ids[order][validation_rows(ids[order], 0.2, 0)[1]])


@pytest.mark.parametrize(("n", "share"), [(1, 0.5), (10, 0.0), (10, 1.0)])
def test_impossible_validation(n: int, share: float) -> None:
    with pytest.raises(InputError, match="validation share"):
        validation_rows(n, share, 0)


def test_resplit_is_seeded_and_can_keep_class_shares() -> None:
    n = 200
    classes = np.repeat([0, 1, 2], [120, 60, 20])
    pairs = Pairs({"audio": np.zeros((n, 1), np.float32)}, labels=Labels.single(classes))
    plain = resplit(pairs, 0, 0.2)
    assert (plain.split == b"test").sum() == 40
    assert plain.split.tolist() == resplit(pairs, 0, 0.2).split.tolist() != resplit(pairs, 1, 0.2).split.tolist()
    for seed in range(5):
        held_out = resplit(pairs, seed, 0.2, stratify=True).split == b"test"
        assert np.abs(np.bincount(classes[held_out]) - [24, 12, 4]).max() <= 1
        assert held_out.sum() == 40
    assert pairs.split is None


def test_resplit_refuses() -> None:
    with pytest.raises(InputError, match="no rows on one side"):
        resplit(clips(10), 0, 0.01)
    with pytest.raises(InputError, match="exactly one label"):
        resplit(clips(10), 0, 0.5, stratify=True)


def test_exclude_ids() -> None:
    left = exclude_ids(clips(5), [b"clip1", b"clip4", b"unknown", b"a much longer id than theirs"])
    assert left.ids.tolist() == [b"clip0", b"clip2", b"clip3"]
    assert len(exclude_ids(clips(5), [])) == 5
    with pytest.raises(InputError, match="every row"):
        exclude_ids(clips(2), [b"clip0", b"clip1"])


def numbered(n: int, shift: int = 0) -> Pairs:
    """Pairs without ids of their own: row numbers stand for them."""
    return Pairs({"audio": np.arange(shift, n + shift, dtype=np.float32)[:, None]}, source="numbered")


def test_row_numbers_exclude_nothing() -> None:
    with pytest.raises(InputError, match=r"^numbered: has no ids, so that no row can be left out by its id"):
        exclude_ids(numbered(5), [b"1"])


@pytest.mark.parametrize("pairs", [numbered(6), replace(numbered(6), ids=[f"b{i}" for i in range(6)], has_ids=True)])
def test_clips_of_another_file_are_known_by_content_where_ids_are_row_numbers(pairs: Pairs) -> None:
    left = without_clips_of(pairs, numbered(3, shift=2))
    assert left.features["audio"].ravel().tolist() == [0, 1, 5]
    assert len(without_clips_of(pairs, numbered(6, shift=6))) == 6
    with pytest.raises(InputError, match=r"^numbered: every row is also in numbered"):
        without_clips_of(pairs, numbered(9))


def test_clips_of_another_file_are_known_by_ids_of_their_own() -> None:
    assert without_clips_of(clips(4), clips(2)).ids.tolist() == [b"clip2", b"clip3"]


def test_row_numbers_stay_row_numbers_through_stores_and_files(tmp_path: Path) -> None:
    pairs = numbered(9)
    write_store(pairs[2:7], tmp_path / "store")
    stored = readers.read(tmp_path / "store")
    assert stored.ids.tolist() == [b"2", b"3", b"4", b"5", b"6"] and not stored.has_ids
    with readers.open_table(tmp_path / "store") as table:
        assert not any(block.has_ids for _, block in table.blocks(2))
    with pytest.raises(InputError, match="store: the file has no ids"):
        read_ids(tmp_path / "store")
    for name in ("x.npz", "y.h5"):
        export(stored, tmp_path / name)
        again = readers.read(tmp_path / name)
        assert again.ids.tolist() == [b"0", b"1", b"2", b"3", b"4"] and not again.has_ids
    convert([tmp_path / "x.npz", tmp_path / "y.h5"], tmp_path / "both")
    assert not readers.read(tmp_path / "both").has_ids
    assert fingerprint(stored).ids is None


def test_read_ids_from_text_or_features(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("# held out\nclip1\n\n  clïp2 \n", encoding="utf-8")
    assert read_ids(tmp_path / "ids.txt").tolist() == [b"clip1", "clïp2".encode()]
    write_store(clips(3), tmp_path / "store")
    assert read_ids(tmp_path / "store").tolist() == [b"clip0", b"clip1", b"clip2"]
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    np.savez(tmp_path / "without.npz", audio=np.ones((2, 2)))
    for name in ("empty.txt", "binary", "without.npz", "absent"):
        with pytest.raises(InputError, match=name):
            read_ids(tmp_path / name)
