"""Inspection: everything wrong in one pass, and why two files of the same clips differ."""

import json
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import hscmae.data.table
from hscmae.data.inspect import inspect_file
from hscmae.data.pairs import Pairs
from hscmae.data.store import write_store
from hscmae.errors import InputError

REAL = Path(__file__).parents[2] / "../shared/data"


def save(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def codes(path: Path) -> dict[tuple[str, str], tuple[int, ...]]:
    result = inspect_file(path)
    assert result.ok == (not any(p.is_fault for p in result.problems))
    json.dumps(result.to_json(), allow_nan=False)
    return {(p.code, p.dataset): tuple(int(r) for r in p.rows) for p in result.problems}


def test_a_sound_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    x[0, 0] = 0
    split = np.array([b"train"] * 30 + [b"test"] * 10)
    result = inspect_file(save(tmp_path / "x.npz", audio=x, labels=np.arange(40) % 2, split=split))
    assert result.ok and result.rows == 40 and result.splits == {"train": 30, "test": 10}
    audio = result.modalities["audio"]
    norms = np.linalg.norm(x.astype(np.float64), axis=1)
    assert audio["norm"] == pytest.approx({"min": norms.min(), "mean": norms.mean(), "max": norms.max()})
    assert audio["sparsity"] == pytest.approx(1 / 120)
    assert audio["range"] == pytest.approx([x.min(), x.max()])
    assert 2 < audio["effective_rank"] <= 3
    assert result.labels == {"n_classes": 2, "multi_label": False, "unlabelled_rows": 0, "counts": {"0": 20, "1": 20}}
    assert set(result.to_json()) >= {"ok", "rows", "modalities", "splits", "problems"}


def test_effective_rank_of_known_spectra(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    line = rng.normal(size=(500, 1)) @ rng.normal(size=(1, 6))
    result = inspect_file(save(tmp_path / "x.npz", line=line, ball=rng.normal(size=(500, 6))))
    assert result.modalities["line"]["effective_rank"] == pytest.approx(1)
    assert result.modalities["ball"]["effective_rank"] == pytest.approx(6, abs=0.1)


def test_effective_rank_is_that_of_the_evaluation(tmp_path: Path) -> None:
    from hscmae.evaluation.selection import effective_rank

    for shape in ((40, 9), (9, 40)):
        x = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1) * 1e9
        found = inspect_file(save(tmp_path / f"{shape[0]}.npz", audio=x)).modalities["audio"]["effective_rank"]
        assert found == pytest.approx(effective_rank(x))


def test_the_data_layer_starts_without_torch() -> None:
    modules = "hscmae.data.inspect, hscmae.data.convert, hscmae.data.splits, hscmae.data.scaling, hscmae.data.pooling"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_fault_is_found_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hscmae.data.table.BLOCK_BYTES", 4 * 7 * 8)  # blocks of seven rows: faults cross them
    rng = np.random.default_rng(0)
    audio, visual = rng.normal(size=(30, 4)), rng.normal(size=(30, 3))
    audio[:, 2] = 7
    audio[4, 1], audio[29, 0] = np.nan, np.inf
    audio[[3, 9, 12, 20, 25]] = audio[3]
    visual[[1, 27]] = visual[1]
    visual[[5, 6]] = visual[5]
    visual[8] = 0
    ids = [f"c{i}" for i in range(30)]
    ids[17] = "c2"
    path = save(
        tmp_path / "x.npz",
        audio_train=audio[:20], audio_test=audio[20:], visual_train=visual[:20], visual_test=visual[20:],
        ids_train=np.array(ids[:20]), ids_test=np.array(ids[20:]),
        lab_train=np.full(20, -2), lab_test=np.zeros(10, int),
    )  # fmt: skip
    assert codes(path) == {
        ("label-range", "lab_train"): tuple(range(20)),
        ("duplicate-ids", "ids"): (17,),
        ("not-finite", "audio"): (4, 29),
        ("constant-columns", "audio"): (),
        ("silent-rows", "audio"): (3, 9, 12, 20, 25),
        ("zero-rows", "visual"): (8,),
        ("duplicate-rows", "visual"): (1, 5, 6, 27),
        ("duplicates-across-splits", "visual"): (1, 27),
    }


def test_structural_faults_do_not_hide_one_another(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["audio_train"] = np.full((5, 3), np.nan, np.float32)
        file["audio_test"] = np.arange(6, dtype=np.float32).reshape(2, 3)
        file["visual_train"] = np.arange(8, dtype=np.float32).reshape(4, 2)
        file["lab_train"] = np.arange(5)
        file["lab_test"] = np.array([b"dog", b"cat"])
        file["depth_train"] = np.ones(5)
        file["depth_test"] = np.ones((2, 2), int)
    found = codes(tmp_path / "x.h5")
    assert {code for code, _ in found} >= {"missing-dataset", "row-count", "wrong-rank", "wrong-type", "not-finite"}
    assert ("missing-dataset", "visual_test") in found
    assert found["not-finite", "audio"] == (0, 1, 2, 3, 4)


def test_missing_rows_are_not_looked_at(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(12, 2))
    x[:6] = np.nan
    result = inspect_file(save(tmp_path / "x.npz", audio=x, audio_present=np.arange(12) >= 6))
    assert result.ok and result.modalities["audio"]["missing_rows"] == 6


def test_sequences(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(12, 5, 2)) + 1
    lengths = np.arange(12) % 5 + 1
    beyond = np.arange(5) >= lengths[:, None]
    x[beyond] = 0
    result = inspect_file(save(tmp_path / "x.npz", audio=x, audio_lengths=lengths))
    assert result.ok, result.problems
    assert result.modalities["audio"]["steps"] == {"min": 1, "max": 5}
    assert result.modalities["audio"]["sparsity"] == 0
    norms = np.linalg.norm(x[~beyond], axis=1)
    assert result.modalities["audio"]["norm"]["mean"] == pytest.approx(norms.mean())


def test_huge_values_do_not_overflow(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(6, 2)) * 1e200
    assert inspect_file(save(tmp_path / "x.npz", audio=x)).modalities["audio"]["norm"]["max"] > 1e199


def test_a_store_s_checksums_are_checked(tmp_path: Path) -> None:
    write_store(Pairs({"audio": np.random.default_rng(0).normal(size=(9, 2))}), tmp_path / "s")
    assert inspect_file(tmp_path / "s").ok
    data = bytearray((tmp_path / "s/audio.npy").read_bytes())
    data[-2] ^= 1
    (tmp_path / "s/audio.npy").write_bytes(data)
    assert ("checksum", "audio.npy") in codes(tmp_path / "s")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        inspect_file(tmp_path / "absent")
    (tmp_path / "x.h5").write_bytes(b"")
    assert codes(tmp_path / "x.h5") == {("unreadable", ""): ()}
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["audio"] = h5py.ExternalLink("other.h5", "/x")
        file.create_dataset("visual", (10**12, 128), "f4", chunks=(10, 128))
    assert codes(tmp_path / "y.h5").keys() == {("external-link", "audio"), ("oversized", "visual")}


def test_a_damaged_member_is_one_problem_among_others(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npz", audio=np.random.default_rng(0).normal(size=(99, 9)), visual=np.ones((99, 2)))
    data = bytearray(path.read_bytes())
    data[2000] ^= 255
    path.write_bytes(data)
    found = codes(path)
    assert ("truncated", "audio") in found and ("constant-columns", "visual") in found


def test_long_lists_of_rows_are_cut_in_json(tmp_path: Path) -> None:
    found = inspect_file(save(tmp_path / "x.npz", audio=np.full((5000, 2), np.nan))).to_json()["problems"]
    (problem,) = [p for p in found if p["code"] == "not-finite"]
    assert len(problem["rows"]) == 1000 and problem["n_rows"] == 5000


def test_every_code_is_documented() -> None:
    folder = Path(hscmae.data.table.__file__).parent
    text = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    used = re.findall(r'(?:Problem\(|\badd\(|return \[\()\s*"([a-z]+(?:-[a-z]+)*)",', text)
    used += re.findall(r'append\(\("([a-z-]+)",', text)
    assert len(set(used)) > 20
    documented = re.findall(r"[a-z]+(?:-[a-z]+)*", hscmae.data.table.Problem.__doc__ or "")
    assert set(used) - set(documented) == set()


# ----------------------------------------------------------------------------------------------------------- against

N = 120
RNG = np.random.default_rng(1)
X = RNG.normal(size=(N, 8)) * RNG.uniform(0.5, 2, 8) + RNG.normal(size=8)
ROTATION = np.linalg.qr(RNG.normal(size=(8, 8)))[0]


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("theirs", "reason", "words"),
    [
        (X, "identical", "identical"),
        (X.astype(np.float16), "rounding", "float16"),
        (X * 255, "factor", "255"),
        (X + 3, "offset", r"\+ 3"),
        ((X - X.mean(axis=0)) / X.std(axis=0), "scale-offset", "theirs look standardised"),
        (unit(X), "unit-norm", "theirs look scaled to unit length"),
        (np.roll(X, 3, axis=0), "row-shift", r"row i \+3"),
        (np.roll(X, -2, axis=1), "column-shift", "column i -2"),
        (X[RNG.permutation(N)], "row-order", "rows in another order"),
        (X[:, RNG.permutation(8)], "column-order", "columns in another order"),
        (X[:, :5], "columns-cut", "cut off .* ours 8, theirs 5"),
        (X @ ROTATION, "linear-map", "a linear map of ours"),
        ((X @ ROTATION)[:, :4], "linear-map", "dimensions differ"),
        (RNG.normal(size=(N, 8)), "unrelated", "another extractor"),
    ],
)
def test_verdicts(tmp_path: Path, theirs: np.ndarray, reason: str, words: str) -> None:
    order = RNG.permutation(N) if reason not in ("row-shift",) else np.arange(N)
    ids = np.array([f"c{i}" for i in range(N)])
    ours = save(tmp_path / "ours.npz", audio=X, ids=ids)
    other = save(tmp_path / "theirs.npz", audio=np.asarray(theirs)[order], ids=ids[order])
    against = inspect_file(ours, against=other).against
    assert against is not None
    json.dumps(against, allow_nan=False)
    assert (against["matched_rows"], against["only_here"], against["only_there"]) == (N, 0, 0)
    audio = against["modalities"]["audio"]
    assert audio["reason"] == reason, audio["verdict"]
    assert re.search(words, audio["verdict"]), audio["verdict"]


def test_columns_are_measured_one_by_one(tmp_path: Path) -> None:
    theirs = X.copy()
    theirs[:, 2] = 5 - 3 * X[:, 2]
    theirs[:, 6] = RNG.normal(size=N)
    paths = [save(tmp_path / f"{name}.npz", audio=x) for name, x in (("ours", X), ("theirs", theirs))]
    against = inspect_file(paths[0], against=paths[1]).against
    assert against is not None and against["matched_by"] == "row"
    audio = against["modalities"]["audio"]
    assert audio["columns_differing"] == [2, 6]
    assert audio["columns"][2] == {"column": 2, "correlation": -1, "scale": -3, "offset": 5}


def test_files_with_nothing_in_common(tmp_path: Path) -> None:
    ours = save(tmp_path / "ours.npz", audio=X, ids=np.arange(N))
    for name, arrays in {"m": {"visual": X, "ids": np.arange(N)}, "i": {"audio": X, "ids": np.arange(N) + N}}.items():
        other = save(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(InputError, match=r"no (modality|id) in common"):
            inspect_file(ours, against=other)
    with pytest.raises(InputError, match="absent"):
        inspect_file(ours, against=tmp_path / "absent.npz")


@pytest.mark.real
@pytest.mark.skipif(not REAL.exists(), reason="the real features are not here")
def test_real_files() -> None:
    result = inspect_file(REAL / "yt8m_ave15.h5", against=REAL / "yt8m_pool.h5")
    assert result.ok and result.against is not None
    assert result.against["matched_rows"] == 1629
    assert {m["reason"] for m in result.against["modalities"].values()} <= {"identical", "rounding"}
    problems = inspect_file(REAL / "yt8m_pool.h5").problems
    assert [len(p.rows) for p in problems if (p.code, p.dataset) == ("silent-rows", "audio")] == [435]
