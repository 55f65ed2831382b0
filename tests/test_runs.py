"""Runs as folders: what replaces a run, what a resumption agrees with, and which data a recorded holdout belongs to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hscmae
from conftest import make_pairs
from hscmae.artifact import read_config
from hscmae.cli import main
from hscmae.data.pairs import Pairs
from hscmae.data.recipe import recipe_of
from hscmae.data.splits import holdout
from hscmae.data.store import StoreWriter
from hscmae.embedding import embed_file
from hscmae.errors import InputError
from hscmae.files import partial_folder
from hscmae.methods import HSCMAE, RidgeCCA
from hscmae.runs import recorded_holdout, train_run

QUICK: dict[str, Any] = {
    "dim": 4,
    "network_width": 8,
    "training_steps": 8,
    "training_batch_size": 32,
    "training_checkpoint_seconds": 0.0,
}


class Killed(BaseException):
    pass


def stop(record: dict[str, Any]) -> None:
    if record["step"] >= 4:
        raise Killed


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture
def run(tmp_path: Path, pairs: Pairs) -> Path:
    train_run(HSCMAE(**QUICK), pairs, tmp_path / "run")
    return tmp_path / "run"


def test_a_replacement_that_cannot_be_trained_leaves_the_good_model(run: Path, pairs: Pairs) -> None:
    before = contents(run)
    with pytest.raises(InputError, match="too few"):
        train_run(HSCMAE(**QUICK), pairs.take(np.arange(5)), run, overwrite=True)
    assert contents(run) == before
    assert [p.name for p in run.parent.iterdir()] == ["run"]


def test_a_replacement_that_is_killed_leaves_the_good_model_and_goes_on(run: Path, pairs: Pairs) -> None:
    before = contents(run)
    other = HSCMAE(**QUICK, seed=1)
    with pytest.raises(Killed):
        train_run(other, pairs, run, overwrite=True, progress=stop)
    assert contents(run) == before
    hscmae.load(run)
    train_run(other, pairs, run, resume=True)
    assert read_config(run)["settings"]["seed"] == 1 and not partial_folder(run).exists()
    whole = HSCMAE(**QUICK, seed=1).fit(pairs).embed_pairs(pairs)
    for m, z in hscmae.load(run).embed_pairs(pairs).items():
        np.testing.assert_array_equal(z, whole[m])


def test_a_run_that_fails_or_is_interrupted_at_once_blocks_nothing(tmp_path: Path, pairs: Pairs) -> None:
    with pytest.raises(InputError, match="too few"):
        train_run(HSCMAE(**QUICK), pairs.take(np.arange(5)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train_run(HSCMAE(**QUICK), pairs, tmp_path / "run")


def test_a_foreign_folder_with_a_file_of_the_same_name_is_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"name": "my project"}')
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="is not a run"):
        train_run(HSCMAE(**QUICK), make_pairs(), tmp_path, overwrite=True)
    with pytest.raises(InputError, match="is not a model"):
        RidgeCCA(dim=4).fit(make_pairs()).save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "thesis.tex"]


def test_a_run_with_foreign_files_in_it_is_not_replaced(run: Path, pairs: Pairs) -> None:
    (run / "notes.txt").write_text("mine")
    before = contents(run)
    with pytest.raises(InputError, match=r"notes\.txt"):
        train_run(HSCMAE(**QUICK), pairs, run, overwrite=True)
    assert contents(run) == before


def test_resuming_a_finished_run_checks_the_data(run: Path, pairs: Pairs) -> None:
    train_run(HSCMAE(**QUICK), pairs, run, resume=True)
    changed = {m: x.copy() for m, x in pairs.features.items()}
    changed["audio"][1] += 1
    others = (
        replace(pairs, features=changed),
        replace(pairs, split=None),
        pairs.take(np.arange(len(pairs) - 3)),
    )
    for other in others:
        with pytest.raises(InputError, match="other data"):
            train_run(HSCMAE(**QUICK), other, run, resume=True)


def test_nothing_to_resume_is_said(tmp_path: Path, pairs: Pairs, caplog: pytest.LogCaptureFixture) -> None:
    train_run(HSCMAE(**QUICK), pairs, tmp_path / "run", resume=True)
    assert "nothing to go on with" in caplog.text


def test_a_recorded_holdout_belongs_to_the_data_it_was_recorded_for(tmp_path: Path) -> None:
    whole = replace(make_pairs(), split=None)
    cut = replace(whole, split=holdout(whole.ids, "id-hash:0.3"))
    train_run(RidgeCCA(dim=4), cut, tmp_path / "run", data={"holdout": "id-hash:0.3"})
    assert recorded_holdout(tmp_path / "run", [whole]) == "id-hash:0.3"
    assert recorded_holdout(tmp_path / "run", [whole[::-1]]) == "id-hash:0.3"
    assert recorded_holdout(tmp_path / "run", [replace(make_pairs(seed=1), split=None)]) is None
    assert recorded_holdout(tmp_path / "run", [whole.take(np.arange(80))]) is None
    alone = Pairs({"audio": whole.features["audio"]})
    assert recorded_holdout(tmp_path / "run", [alone]) is None


def test_a_model_without_its_anchors_is_damaged(tmp_path: Path, pairs: Pairs) -> None:
    import hashlib

    from safetensors.torch import load_file, save_file

    RidgeCCA(dim=4, anchors_share=0.5).fit(pairs).save(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    save_file({name: value for name, value in load_file(weights).items() if name != "anchors"}, weights)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="anchors"):
        hscmae.load(tmp_path / "model")


@pytest.mark.parametrize("text", ["[" * 100_000, "", "null", "[]", '{"format_version": 1}', '{"a": NaN'])
def test_a_damaged_configuration_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match="damaged"):
        hscmae.load(tmp_path)


def test_a_card_quotes_what_comes_from_files(tmp_path: Path) -> None:
    data = make_pairs()
    names = dict(zip(data.features, ('vi"de: o]', "so|und\n# x"), strict=True))
    renamed = Pairs({names[m]: x for m, x in data.features.items()})
    RidgeCCA(dim=4).fit(renamed).save(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    import yaml

    head = yaml.safe_load(card.split("---")[1])
    assert head["tags"][1:] == list(names.values())
    assert "\n# x" not in card and "so\\|und # x" in card


def test_a_failed_first_fit_leaves_the_object_unfitted_and_a_later_one_as_it_was(pairs: Pairs) -> None:
    model = RidgeCCA(dim=4)
    with pytest.raises(InputError, match="too few"):
        model.fit(pairs.take(np.arange(3)))
    with pytest.raises(InputError, match="not fitted"):
        model.embed("audio", pairs.features["audio"])
    z = model.fit(pairs).embed("audio", pairs.features["audio"])
    with pytest.raises(InputError, match="too few"):
        model.fit(pairs.take(np.arange(3)))
    np.testing.assert_array_equal(model.embed("audio", pairs.features["audio"]), z)


def test_settings_changed_after_a_fit_ask_for_another(pairs: Pairs) -> None:
    model = RidgeCCA(dim=4).fit(pairs)
    with pytest.raises(InputError, match="not fitted"):
        model.set_params(dim=5).embed("audio", pairs.features["audio"])


def test_rows_that_were_trained_on_are_counted_wherever_they_are_scored(tmp_path: Path, pairs: Pairs) -> None:
    model = RidgeCCA(dim=4).fit(pairs)
    model.save(tmp_path / "model")
    renamed = replace(pairs, ids=np.array([f"other{i}" for i in range(len(pairs))], "S"), source="elsewhere")
    for known in (model, hscmae.load(tmp_path / "model")):
        assert hscmae.evaluate(known, pairs, bootstrap=0)["n_trained_on"] == 0
        assert hscmae.evaluate(known, renamed, split="train", bootstrap=0)["n_trained_on"] == 128
        assert hscmae.evaluate(known, renamed, split="all", bootstrap=0)["n_trained_on"] == 128
        assert hscmae.evaluate(known, replace(pairs, split=None)[::-1], bootstrap=0)["n_trained_on"] == 128
        assert hscmae.evaluate(known, make_pairs(seed=1).take(np.arange(0, 160, 5)), bootstrap=0)["n_trained_on"] == 0
    (tmp_path / "model" / "training_rows.safetensors").unlink()  # as from the hub
    assert "n_trained_on" not in hscmae.evaluate(hscmae.load(tmp_path / "model"), pairs, bootstrap=0)


def test_the_recipe_goes_along_and_features_of_another_are_refused(tmp_path: Path, pairs: Pairs) -> None:
    ours = {"audio": {"extractor": "yamnet", "dim": 12}, "visual": {"extractor": "light", "dim": 20}, "window": 10.0}
    for name, recipe in (("ours", ours), ("theirs", ours | {"audio": {"extractor": "vggish", "dim": 12}})):
        with StoreWriter(tmp_path / name, recipe=recipe) as writer:
            writer.append(pairs)
    assert main(["train", str(tmp_path / "ours"), "--output", str(tmp_path / "run"), "--method", "ridge-cca"]) == 0
    model = hscmae.load(tmp_path / "run")
    model.save(tmp_path / "again")
    for folder in ("run", "again"):
        assert recipe_of(tmp_path / folder) == ours
    for folder in ("run", "again"):
        for verb in ("evaluate", "audit"):
            assert main([verb, str(tmp_path / folder), str(tmp_path / "ours")]) == 0
            assert main([verb, str(tmp_path / folder), str(tmp_path / "theirs")]) == 2
    with pytest.raises(InputError, match="audio extracted by vggish, not by yamnet"):
        embed_file(model, tmp_path / "theirs", tmp_path / "z")
    embed_file(model, tmp_path / "ours", tmp_path / "z")
    assert recipe_of(tmp_path / "z") == ours
