"""Background pairs: what they change, when they change nothing, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import make_pairs
from hscmae.cli import main
from hscmae.data.pairs import Pairs
from hscmae.data.store import write_store
from hscmae.errors import InputError
from hscmae.evaluation.retrieval import Retrieval
from hscmae.linear.cca import blended, covariances, ridge_cca
from hscmae.methods import get_method
from hscmae.methods.base import Method
from hscmae.methods.moments import BACKGROUND_ROWS, background_share

TINY = {"network_width": 16, "training_steps": 4, "training_evaluations": 2, "warm_start_ridge": 1.0}
METHODS = {"ridge-cca": {"ridge": 1.0}, "smoothed-cca": {"ridge": 1.0, "k": 5}, "hscmae": TINY}


def with_ids(pairs: Pairs, prefix: str) -> Pairs:
    return replace(pairs, ids=np.array([f"{prefix}{i}" for i in range(len(pairs))], dtype=np.bytes_))


def few_and_many() -> tuple[Pairs, Pairs, Pairs]:
    """Twenty training pairs, many more of the same kind, and test pairs."""
    pairs, rng = replace(make_pairs(700), split=None), np.random.default_rng(0)
    noisy = {m: (x + 6 * rng.normal(size=x.shape)).astype(np.float32) for m, x in pairs.features.items()}
    pairs = replace(pairs, features=noisy)
    return pairs.take(np.arange(20)), pairs.take(np.arange(20, 500)), pairs.take(np.arange(500, 700))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_blended_is_the_formula(share: float) -> None:
    ours, theirs = (
        covariances({m: torch.from_numpy(x) for m, x in make_pairs(50, seed=s).features.items()}) for s in (0, 1)
    )
    found = blended(ours, theirs, share)
    assert found.mean is ours.mean
    for m in ours.within:
        torch.testing.assert_close(found.within[m], (1 - share) * ours.within[m] + share * theirs.within[m])
    torch.testing.assert_close(found.cross, (1 - share) * ours.cross + share * theirs.cross)
    assert blended(ours, None, share) is ours


def test_the_share_falls_with_the_training_rows() -> None:
    assert background_share(0) == 1
    assert background_share(BACKGROUND_ROWS) == 0.5
    assert background_share(10**9) < 1e-5


def test_ridge_cca_is_that_of_the_blended_covariances() -> None:
    few, many, _ = few_and_many()
    model = get_method("ridge-cca")(dim=5, ridge=2.0).fit(few, background=many)
    share = background_share(len(few))
    x, y = ({m: torch.from_numpy(p.features[m].astype(np.float64)) for m in p.features} for p in (few, many))
    variance = {m: (1 - share) * x[m].var(0, correction=0) + share * y[m].var(0, correction=0) for m in x}
    ours, theirs = (covariances({m: v / variance[m].sqrt() for m, v in part.items()}) for part in (x, y))
    maps = ridge_cca(blended(ours, theirs, share), 5, 2.0)
    for m, scaler in model.scalers_.items():
        np.testing.assert_allclose(scaler.scale, variance[m].sqrt().numpy(), rtol=1e-5)
        expected = maps(m, x[m] / variance[m].sqrt())
        found = model.maps_(m, torch.from_numpy(scaler.apply(few.features[m]))).double()
        sign = torch.sign((found * expected).sum(0))
        torch.testing.assert_close(found * sign, expected, atol=1e-4, rtol=1e-3)


def test_the_training_pairs_as_their_own_background_change_nothing() -> None:
    few, _, test = few_and_many()
    alone, twice = (get_method("ridge-cca")(dim=5, ridge=1.0).fit(few, background=b) for b in (None, few))
    for a, b in zip(alone.embed_pairs(test).values(), twice.embed_pairs(test).values(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_many_of_the_same_kind_help_a_few(name: str) -> None:
    few, many, test = few_and_many()
    found = []
    for background in (None, many):
        model = get_method(name)(dim=5, **METHODS[name]).fit(few, background=background)
        found.append(Retrieval(model.embed_pairs(test), test.labels).metrics(bootstrap=0)["avg/mAP"])
        assert model.summary_.get("background_pairs") == (None if background is None else len(many))
    assert found[1] > found[0] + 0.03


def test_what_is_refused() -> None:
    few, many, _ = few_and_many()
    with pytest.raises(InputError, match="pca takes no background"):
        get_method("pca")().fit(few, background=many)
    with pytest.raises(InputError, match=r"background of .*'audio': 12"):
        get_method("ridge-cca")().fit(few, background={"audio": many.features["audio"]})
    bad = {m: x.copy() for m, x in many.features.items()}
    bad["audio"][7, 0] = np.nan
    with pytest.raises(InputError, match="audio: values that are not finite in row 7"):
        get_method("ridge-cca")().fit(few, background=bad)


def test_a_run_goes_on_with_the_same_background_alone(tmp_path: Path) -> None:
    few, many, _ = few_and_many()

    def model() -> Method:
        steps = {"training_steps": 12, "training_evaluations": 6, "training_checkpoint_seconds": 0.0}
        return get_method("hscmae")(dim=5, **{**TINY, **steps})

    def stop(record: dict[str, Any]) -> None:
        if record["step"] >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model().fit(few, background=many, run=tmp_path, progress=stop)
    for other in (None, many.take(np.arange(100))):
        with pytest.raises(InputError, match="trained on other data"):
            model().fit(few, background=other, run=tmp_path, resume=True)
    resumed = model().fit(few, background=many, run=tmp_path, resume=True)
    whole = model().fit(few, background=many)
    for a, b in zip(resumed.embed_pairs(many).values(), whole.embed_pairs(many).values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_verb_leaves_the_files_own_clips_out(tmp_path: Path, capsys: Any) -> None:
    few, many, _ = few_and_many()
    write_store(with_ids(few, "own"), tmp_path / "few")
    both = with_ids(many, "other")
    write_store(replace(both, ids=np.concatenate([with_ids(few, "own").ids, both.ids[20:]])), tmp_path / "many")
    command = ["train", str(tmp_path / "few"), "--method", "ridge-cca", "--output", str(tmp_path / "run"), "--json"]
    assert main([*command, "--background", str(tmp_path / "many")]) == 0
    out, err = capsys.readouterr()
    assert f"background: {len(many) - 20} pairs" in err
    assert json.loads(out)["background_pairs"] == len(many) - 20
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["background"] == "many"


def test_the_verb_knows_the_files_own_clips_by_content_where_there_are_no_ids(tmp_path: Path, capsys: Any) -> None:
    few, many, _ = few_and_many()
    both = {m: np.concatenate([many.features[m][:100], few.features[m]]) for m in few.features}
    np.savez(tmp_path / "few.npz", **few.features)
    np.savez(tmp_path / "many.npz", **both)
    command = ["train", str(tmp_path / "few.npz"), "--method", "ridge-cca", "--output", str(tmp_path / "run"), "--json"]
    assert main([*command, "--background", str(tmp_path / "many.npz")]) == 0
    out, err = capsys.readouterr()
    assert "background: 100 pairs" in err and json.loads(out)["background_pairs"] == 100
    (tmp_path / "ids.txt").write_text("0\n1\n")
    assert main([*command, "--overwrite", "--exclude-ids", str(tmp_path / "ids.txt")]) == 2
    assert "few.npz: has no ids" in capsys.readouterr().err
